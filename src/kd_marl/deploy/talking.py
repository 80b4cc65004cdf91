"""What the C of an agent that talks has beside that of a silent one."""

from __future__ import annotations

import numpy as np

from kd_onboard.messages import thresholds
from kd_onboard.profile import AgentMessages

# At -Os, between the sums of the features and the gates.
_HEAR_LEAN = """\
    @PREFIX@_hear(inbox, aligned);
    for (unit = 0; unit < @UPPER@_WIDTH; unit++) {
        aligned[unit] = aligned[unit] > 0.0f ? aligned[unit] : 0.0f;
    }
"""
# What is said of a number: the level that its tanh is nearest to.
_LEVEL = """\
/* Returns the level of a number: how many of these it has reached, found by halves. */
static unsigned @PREFIX@_level(float spoken)
{
    static const float change[] = { @CHANGES@ };
    unsigned level = 0, half;

    for (half = 1u << (@UPPER@_MESSAGE_NUMBER_BITS - 1); half != 0; half >>= 1) {
        level += spoken >= change[level + half - 1] ? half : 0;
    }
    return level;
}

"""
_SIGN = """\
static unsigned @PREFIX@_level(float spoken)
{
    return spoken >= 0.0f;
}

"""
_KEYS = (
    *("MESSAGE_SIZES", "MESSAGE_ALIASES", "MESSAGE_COMMENT", "LOGITS_COMMENT", "TURN", "FIRST_TURN", "BAD_TURN"),
    *("RADIO", "SILENCE", "HEARD", "INBOX", "HEAR", "HEAR_LEAN", "SPEAK", "LEVEL", "SPEAK_ALWAYS"),
    *("SAVE_TURN", "RESTORE_TURN", "TEST_BUFFERS", "TEST_RADIO"),
)


def values(messages: AgentMessages | None) -> dict[str, str]:
    """Return what an agent that talks has in its templates beside hearing and saying; all empty for a silent one."""
    if messages is None:
        return {**dict.fromkeys(_KEYS, ""), "ALIGNED": "sum > 0.0f ? sum : 0.0f", "SAVED_HEAD": "28"}
    hears, says = bool(messages.hears), bool(messages.heard_by)
    bits, numbers = messages.number_bits, messages.bits // messages.number_bits
    changes = ", ".join(f"{float(value).hex()}f" for value in thresholds(bits))
    sizes = {
        "BITS": messages.bits,
        "NUMBERS": numbers,
        "NUMBER_BITS": bits,
        "BYTES": 1 + messages.payload_bytes,
        "EVERY": messages.every,
        "LATENCY": messages.latency,
    }
    speakers = "".join(f" *   message {place} of the inbox: of agent {i}\n" for place, i in enumerate(messages.hears))
    unused = ("" if hears else "    (void)inbox;\n") + ("" if says else "    (void)outbox;\n")
    told = f" * It is {numbers} numbers of {bits} bits each, which follow each other, the lowest bit first.\n" * (
        bits > 1
    )
    return {
        "LEVEL": _SIGN if bits == 1 else _LEVEL.replace("@CHANGES@", changes),
        "MESSAGE_SIZES": "".join(f"#define @UPPER@_MESSAGE_{name} {size}\n" for name, size in sizes.items())
        + f"#define @UPPER@_HEARS {len(messages.hears)}\n",
        "MESSAGE_ALIASES": "".join(f"#define KD_AGENT_MESSAGE_{name} @UPPER@_MESSAGE_{name}\n" for name in sizes)
        + "#define KD_AGENT_HEARS @UPPER@_HEARS\n",
        "MESSAGE_COMMENT": f""" *
 * Messages: a message has @UPPER@_MESSAGE_BYTES bytes. The first is 1 if there is one, else 0; behind it are its bits,
 * bit k as bit k % 8 of byte k / 8. A message that is missing is all zeros, never waited for.
{told} * `inbox` has @UPPER@_HEARS of them, each said @UPPER@_MESSAGE_LATENCY steps ago{", or NULL" * (not hears)}.
 * `outbox` is what the agent says after this step{", and NULL: nobody hears it" * (not says)}. After a fault it is 0.
{speakers}""",
        "LOGITS_COMMENT": " * It speaks as if it had a choice.\n",
        "TURN": "    uint32_t turn;\n",
        "FIRST_TURN": "    agent->turn = 0;\n",
        "BAD_TURN": " || agent->turn >= @UPPER@_MESSAGE_EVERY",
        "RADIO": ",\n    const unsigned char *inbox, unsigned char *outbox",
        "SILENCE": unused + ("    @PREFIX@_silence(outbox);\n" if says else ""),
        "HEARD": ", const unsigned char *inbox" * hears,
        "INBOX": ", inbox" * hears,
        "ALIGNED": "sum" if hears else "sum > 0.0f ? sum : 0.0f",
        "HEAR": "    @PREFIX@_hear(inbox, aligned);\n" * hears,
        "HEAR_LEAN": _HEAR_LEAN * hears,
        "SPEAK": "    @PREFIX@_end(agent, available, outbox);\n" * says,
        "SPEAK_ALWAYS": "        @PREFIX@_end(agent, NULL, outbox);\n" * says,
        "SAVED_HEAD": "32",
        "SAVE_TURN": "    @PREFIX@_put(bytes + 24 + 4 * @UPPER@_WIDTH, agent->turn);\n",
        "RESTORE_TURN": "    saved.turn = @PREFIX@_get(bytes + 24 + 4 * @UPPER@_WIDTH);\n",
        # The test hears nothing.
        "TEST_BUFFERS": "    static const unsigned char silence[@UPPER@_HEARS * @UPPER@_MESSAGE_BYTES] = {0};\n" * hears
        + "    unsigned char outbox[@UPPER@_MESSAGE_BYTES];\n" * says,
        "TEST_RADIO": f",\n            {'silence' if hears else 'NULL'}, {'outbox' if says else 'NULL'}",
    }


def paired(rows: np.ndarray, bits: int) -> np.ndarray:
    """Turn the rows of each two bits of a message into their sum and their difference: half as many are added."""
    found = rows.copy()
    for start in range(0, len(rows), bits):
        one, other = rows[start : start + bits - 1 : 2], rows[start + 1 : start + bits : 2]
        found[start : start + bits - 1 : 2], found[start + 1 : start + bits : 2] = one + other, one - other
    return found
