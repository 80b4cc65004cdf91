"""An agent's network as C99, from templates: its header, its program and, in it, the step; weights lie beside them.

A program has float32 weights or int8 weights, with the same functions. With the latter its step is whole numbers only,
those of `kd_onboard.int8`.

Every file and every symbol of an agent begins with its prefix, which ends in a number. So no name of one agent can be
that of another, or one of the generic names of a program with a single agent.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kd_core.costs.footprint import PRODUCT_ROWS, footprint
from kd_envs.hetero_mask import naming
from kd_marl.deploy.onnx_graph import step_constants
from kd_marl.deploy.weights import Weights, exchanged, sizes
from kd_onboard import int8
from kd_onboard.profile import AgentMessages
from kd_onboard.sampling import weight_shift
from kd_onboard.tensors import weights_digest

FORMAT_VERSION = 2
# Bytes before the matrices in a file of weights.
_LOADED_HEAD = 48
TEAM_HEADER = "c/kd_team.h"

_TEMPLATES = Path(__file__).parent / "templates"
_PRODUCT = """\
static void @PREFIX@_add_@NAME@(const float *restrict in, float *restrict sum)
{
    int row, column;

@BLOCKS@}
"""
_BLOCK = """\
    for (row = @FIRST@; row < @END@; row += @STEP@) {
        for (column = 0; column < @COLUMNS@; column++) {
            float acc = sum[column];
@ADDED@            sum[column] = acc;
        }
    }
"""
# At -Os, between the sums of the features and the gates.
_HEAR_LEAN = """\
    @PREFIX@_hear(inbox, aligned);
    for (unit = 0; unit < @UPPER@_WIDTH; unit++) {
        aligned[unit] = aligned[unit] > 0.0f ? aligned[unit] : 0.0f;
    }
"""
_TALK_KEYS = (
    *("MESSAGE_SIZES", "MESSAGE_ALIASES", "MESSAGE_COMMENT", "LOGITS_COMMENT", "TURN", "FIRST_TURN", "BAD_TURN"),
    *("RADIO", "SILENCE", "HEARD", "INBOX", "HEAR", "HEAR_LEAN", "SPEAK", "SPEAK_ALWAYS"),
    *("SAVE_TURN", "RESTORE_TURN", "TEST_BUFFERS", "TEST_RADIO"),
)
_FLOAT_ARITHMETIC = """\
 * Weights lie row after row, a row for each input. A sum begins with its bias and adds the rows in their order, in both
 * forms of the program, so that both compute the same numbers."""
_INT8_ARITHMETIC = """\
 * Weights are int8 and lie row after row, a row for each output, whose sum has a scale of its own."""
_FLOAT_LEAN = """ Compiled for size, or with
 * KD_AGENT_LEAN_STACK defined, it computes one unit after the other: less stack, the same numbers, more time."""
_TEAM = """\
/*
 * The team of @TASK@: the headers of all its programs. Compile c/<agent>/<prefix>.c of each.
 *
@AGENTS@
 */
#ifndef KD_TEAM_H
#define KD_TEAM_H

#ifndef KD_AGENT_PREFIXED_ONLY
#define KD_AGENT_PREFIXED_ONLY
#endif

@INCLUDES@

#define KD_TEAM_AGENTS @COUNT@

#endif
"""


@dataclass(frozen=True)
class Named:
    """What the C of an agent is called.

    Attributes:
        folder: in the bundle.
        prefix: begins every file and every symbol.
    """

    folder: str
    prefix: str

    @property
    def header(self) -> str:
        """Path of the header."""
        return f"{self.folder}/{self.prefix}.h"

    @property
    def source(self) -> str:
        """Path of the program, the one file that is compiled."""
        return f"{self.folder}/{self.prefix}.c"

    @property
    def weights(self) -> str:
        """Path of the weights. Their suffix is no program's: build systems compile every `*.c`."""
        return f"{self.folder}/{self.prefix}_weights.inc"

    @property
    def binary(self) -> str:
        """Path of the weights as a file that a program loads."""
        return f"{self.folder}/{self.prefix}_weights.bin"

    @property
    def test(self) -> str:
        """Path of the steps that the program tests itself with."""
        return f"{self.folder}/{self.prefix}_test.inc"

    @classmethod
    def of(cls, identifier: str) -> Named:
        """Name the C of an agent by its identifier."""
        return cls(f"c/{identifier}", f"kd_{identifier}")


@dataclass(frozen=True)
class _Form:
    """What one form of the program has of its own.

    Attributes:
        weights: its name, one of `kd_core.costs.footprint.WEIGHTS`.
        numbers: of the weights, in words.
        values: of the templates' placeholders.
        arrays: of the weights.
        digest: sha256 of the numbers, which tells an agent's memory from that of another program.
    """

    weights: str
    numbers: str
    values: dict[str, str]
    arrays: list[str]
    digest: str


def _float_form(weights: Weights, messages: AgentMessages | None) -> _Form:
    inbox, outbox = exchanged(weights)
    step = _template("hear.c.in", inbox) + _template("step_float.c.in") + _template("say.c.in", outbox)
    matrices = _matrices(weights, messages)
    values = {
        "STEP": step.replace("@PRODUCTS@", "\n".join(_products(*sizes(weights), outbox))),
        "ARITHMETIC": _FLOAT_ARITHMETIC,
        "SOUND": "@PREFIX@_within(agent->state, @UPPER@_WIDTH, @UPPER@_LARGEST_STATE)",
        "STATE_TYPE": "float",
        "STATE_SIZE": "@UPPER@_WIDTH",
        "LEAN": _FLOAT_LEAN,
    }
    values["LOADED"] = "\n".join(_loaded(matrices))
    values["WEIGHTS_BYTES"] = str(_LOADED_HEAD + 4 * sum(matrix.size for matrix in matrices.values()) + 4)
    arrays = [_array(f"@PREFIX@_{key}", "float", matrix) for key, matrix in matrices.items()]
    return _Form("float32", "float32, exactly", values, arrays, weights_digest(weights))


def _int8_form(weights: Weights, calibration: int8.Calibration) -> _Form:
    network = int8.quantise(weights, calibration)
    inputs, width, _ = sizes(weights)
    rows, columns = int8.padded(width), int8.padded(inputs)
    values = {
        "STEP": _template("step_int8.c.in"),
        "ARITHMETIC": _INT8_ARITHMETIC,
        "SOUND": "@PREFIX@_sound(agent->state)",
        "STATE_TYPE": "int16_t",
        "STATE_SIZE": str(rows),
        "LEAN": "",
        "LOADED": '#error "int8 weights are part of their program: leave KD_AGENT_LOADABLE out"',
        "WEIGHTS_BYTES": "0",
        "PADDED_INPUTS": str(columns),
        "PADDED_WIDTH": str(rows),
        "ALIGN_SHIFT": str(network.align_shift),
        "GATE_SHIFT": str(network.gate_shift),
        "LOGIT_EXPONENT": f"({network.logit_exponent})",
        "TABLE_END": str(int8.TABLE_END),
    }
    spare = rows - width
    arrays = [
        _array("@PREFIX@_exponent", "int8_t", network.exponents),
        _words("@PREFIX@_align_weight", _in_fours(np.pad(network.align_weight, ((0, spare), (0, columns - inputs))))),
        _array("@PREFIX@_align_bias", "int32_t", np.pad(network.align_bias, (0, spare))),
        _words("@PREFIX@_weight", _in_fours(np.pad(network.weight, ((0, 0), (0, spare))))),
        _array("@PREFIX@_bias", "int32_t", network.bias),
        _array("@PREFIX@_scale", "int16_t", network.scale),
        _array("@PREFIX@_tanh_table", "int16_t", network.table),
    ]
    return _Form("int8", "int8", values, arrays, int8.program_digest(weights, calibration))


def identifiers(names: Sequence[str]) -> list[str]:
    """Return a part of file and symbol names for each agent; all differ, and each ends in a number."""
    found: list[str] = []
    for index, name in enumerate(names):
        plain = naming.identifier(name) or "agent"
        unique = plain if re.search(r"_\d+$", plain) else f"{plain}_{index}"
        while unique in found:
            unique = f"{unique}_{index}"
        found.append(unique)
    return found


def c_files(
    weights: Weights,
    named: Named,
    task: str,
    name: str,
    features: Sequence[Mapping[str, Any]],
    actions: Sequence[str | None],
    on_fault: str = "raise",
    noop_action: int | None = None,
    calibration: int8.Calibration | None = None,
    messages: AgentMessages | None = None,
) -> dict[str, str]:
    """Return the sources of one agent.

    Args:
        weights: its network.
        named: what they are called.
        task: the task's name, for comments.
        name: the agent's name, for comments.
        features: `interface.features` of it.
        actions: `interface.action_names` of it.
        on_fault: ``raise``, ``hold`` or ``noop``: what the program does with input that it must not act on.
        noop_action: the action of ``noop``.
        calibration: of its activations, for the form with int8 weights; None: float32.
        messages: what it tells others and hears from them; None: it is silent, as int8 forms are.

    Returns:
        Path in the bundle -> text.
    """
    inputs, width, n_actions = sizes(weights)
    largest = largest_feature(weights)
    assert calibration is None or messages is None, "int8 is for silent students"
    form = _float_form(weights, messages) if calibration is None else _int8_form(weights, calibration)
    inbox, outbox = exchanged(weights)
    fast, lean = (
        footprint(inputs, width, n_actions, level, weights=form.weights, inbox=inbox, outbox=outbox)
        for level in ("O2", "Os")
    )
    noop = -1 if noop_action is None else noop_action
    held = f"{named.prefix.upper()}_IS_READY(agent) ? agent->last : -1"
    action, meaning = {
        "raise": ("-1", "it raises an error, so the program decides"),
        "hold": (held, "it repeats the last action"),
        "noop": (str(noop), f"it takes action {noop}, which does nothing"),
    }[on_fault]
    values = {
        # First, as they are full of names themselves.
        **form.values,
        **_talk(messages),
        "PREFIX": named.prefix,
        "UPPER": named.prefix.upper(),
        "NAME": comment(name),
        "TASK": comment(task),
        "FORMAT_VERSION": str(FORMAT_VERSION),
        "INPUTS": str(inputs),
        "WIDTH": str(width),
        "ACTIONS": str(n_actions),
        "STACK": str(fast.stack),
        "LEAN_STACK": str(lean.stack),
        "LARGEST": f"{largest:.3g}",
        "LARGEST_BITS": f"0x{int(largest.view(np.uint32)):08x}",
        "READY": f"0x{int(form.digest[:8], 16) | 1:08x}",
        "DIGEST": ", ".join(
            f"UINT32_C(0x{word:08x})" for word in np.frombuffer(bytes.fromhex(form.digest)[:16], "<u4")
        ),
        "CONTRACT": f"0x{contract(task, features, actions, messages):08x}",
        # So that the sum over all actions has 32 bits.
        "SHIFT": str(weight_shift(n_actions)),
        "ON_FAULT": meaning,
        "FAULT_ACTION": action,
        "FEATURES": _listed([f"{row['name']}{_unit(row['unit'])}" for row in features]),
        "ACTION_NAMES": _listed([action or "(this agent never has it)" for action in actions]),
    }
    filled = {}
    for path, template in ((named.header, "agent.h.in"), (named.source, "agent.c.in")):
        text = _template(template)
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        filled[path] = text
    head = f'/* The weights of agent "{comment(name)}", {form.numbers}; {named.prefix}.c includes them. */\n\n'
    return {**filled, named.weights: head + "\n".join(form.arrays).replace("@PREFIX@", named.prefix)}


def _template(name: str, wanted: int = 1) -> str:
    """Read a template; empty where it is not wanted."""
    return (_TEMPLATES / name).read_text(encoding="utf-8") if wanted else ""


def _matrices(weights: Weights, messages: AgentMessages | None) -> dict[str, np.ndarray]:
    """Return the matrices and biases of the program, in their order."""
    found = step_constants(weights)
    if messages is not None and messages.hears:
        found["hear_weight"] = _paired(found["hear_weight"], messages.bits)
    return found


def _paired(rows: np.ndarray, bits: int) -> np.ndarray:
    """Turn the rows of each two bits of a message into their sum and their difference: half as many are added."""
    found = rows.copy()
    for start in range(0, len(rows), bits):
        one, other = rows[start : start + bits - 1 : 2], rows[start + 1 : start + bits : 2]
        found[start : start + bits - 1 : 2], found[start + 1 : start + bits : 2] = one + other, one - other
    return found


def _talk(messages: AgentMessages | None) -> dict[str, str]:
    """Return what an agent that talks has in its templates beside hearing and saying; all empty for a silent one."""
    if messages is None:
        return {**dict.fromkeys(_TALK_KEYS, ""), "ALIGNED": "sum > 0.0f ? sum : 0.0f", "SAVED_HEAD": "28"}
    hears, says = bool(messages.hears), bool(messages.heard_by)
    sizes = {
        "BITS": messages.bits,
        "BYTES": 1 + messages.payload_bytes,
        "EVERY": messages.every,
        "LATENCY": messages.latency,
    }
    speakers = "".join(f" *   message {place} of the inbox: of agent {i}\n" for place, i in enumerate(messages.hears))
    unused = ("" if hears else "    (void)inbox;\n") + ("" if says else "    (void)outbox;\n")
    return {
        "MESSAGE_SIZES": "".join(f"#define @UPPER@_MESSAGE_{name} {size}\n" for name, size in sizes.items())
        + f"#define @UPPER@_HEARS {len(messages.hears)}\n",
        "MESSAGE_ALIASES": "".join(f"#define KD_AGENT_MESSAGE_{name} @UPPER@_MESSAGE_{name}\n" for name in sizes)
        + "#define KD_AGENT_HEARS @UPPER@_HEARS\n",
        "MESSAGE_COMMENT": f""" *
 * Messages: a message has @UPPER@_MESSAGE_BYTES bytes. The first is 1 if there is one, else 0; behind it are its bits,
 * bit k as bit k % 8 of byte k / 8. A message that is missing is all zeros, never waited for.
 * `inbox` has @UPPER@_HEARS of them, each said @UPPER@_MESSAGE_LATENCY steps ago{", or NULL" * (not hears)}.
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


def all_files(
    weights: Weights,
    named: Named,
    task: str,
    name: str,
    features: Sequence[Mapping[str, Any]],
    actions: Sequence[str | None],
    on_fault: str,
    noop_action: int | None,
    calibration: int8.Calibration | None,
    messages: AgentMessages | None = None,
) -> dict[str, bytes]:
    """Return the sources and, where they can be loaded, the weights as a file; arguments as for :func:`c_files`."""
    told = (name, features, actions, on_fault, noop_action, calibration, messages)
    found = {path: text.encode() for path, text in c_files(weights, named, task, *told).items()}
    if calibration is None:
        found[named.binary] = weights_file(weights, task, features, actions, messages)
    return found


def contract(
    task: str,
    features: Sequence[Mapping[str, Any]],
    actions: Sequence[str | None],
    messages: AgentMessages | None = None,
) -> int:
    """Return 32 bits of a hash of what features, actions and messages mean: weights of another meaning are refused."""
    told: list[Any] = [task, [[row["name"], row["unit"]] for row in features], list(actions)]
    told += [] if messages is None else [asdict(messages)]
    return int.from_bytes(hashlib.sha256(json.dumps(told).encode()).digest()[:4], "little")


def weights_file(
    weights: Weights,
    task: str,
    features: Sequence[Mapping[str, Any]],
    actions: Sequence[str | None],
    messages: AgentMessages | None = None,
) -> bytes:
    """Return the weights as a file for ``PREFIX_load``; arguments are those of :func:`c_files`.

    All of it is little-endian: "KDW" and the version 1; inputs, width and actions; the contract; the largest feature;
    16 bytes of the sha256 of the weights; 0 for float32; the bytes of the file; the matrices; the CRC-32 of all before.
    """
    body = b"".join(np.ascontiguousarray(matrix, "<f4").tobytes() for matrix in _matrices(weights, messages).values())
    largest = int(largest_feature(weights).view(np.uint32))
    head = b"KDW\x01" + struct.pack("<5I", *sizes(weights), contract(task, features, actions, messages), largest)
    head += bytes.fromhex(weights_digest(weights))[:16] + struct.pack("<2I", 0, _LOADED_HEAD + len(body) + 4)
    return head + body + struct.pack("<I", zlib.crc32(head + body))


def _loaded(matrices: Mapping[str, np.ndarray]) -> list[str]:
    """Return the definitions that find the matrices in a file that was loaded."""
    lines, place = [], 0
    for key, matrix in matrices.items():
        lines.append(f"#define @PREFIX@_{key} (@UPPER@_NUMBERS + {place})")
        place += matrix.size
    return lines


def team_header(task: str, agents: Sequence[tuple[str, Named]]) -> str:
    """Return the header of a team's program; several agents may run one program.

    Args:
        task: the task's name, for comments.
        agents: name and program of each.
    """
    folder = Path(TEAM_HEADER).parent
    includes = dict.fromkeys(f'#include "{Path(named.header).relative_to(folder).as_posix()}"' for _, named in agents)
    values = {
        "TASK": comment(task),
        "AGENTS": _listed([f"{name}: struct {named.prefix}, {named.prefix}_act" for name, named in agents]),
        "INCLUDES": "\n".join(includes),
        "COUNT": str(len(agents)),
    }
    text = _TEAM
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def largest_feature(weights: Weights) -> np.float32:
    """Return a bound on the size of features within which no sum in the network overflows float32.

    With |x| <= B, an aligned unit is at most a = (row sum of |align.weight|) B + |bias|, and a gate's input at most
    (row sum of |gru.weight_ih|) a plus what the state, within -1 and 1, and the biases add.
    """
    aligned = max(1.0, float(np.abs(weights["align.weight"]).sum(axis=1, dtype=np.float64).max()))
    gates = max(1.0, float(np.abs(weights["gru.weight_ih"]).sum(axis=1, dtype=np.float64).max()))
    # A quarter leaves room for biases and state, which are far smaller than what is left.
    return np.float32(0.25 * float(np.finfo(np.float32).max) / (aligned * gates))


def _products(inputs: int, width: int, n_actions: int, outbox: int) -> list[str]:
    """Write the function of each product; the gates have two, for the aligned features and for the state."""
    voice = [_product("speak", "speak", width, outbox, 0)] if outbox else []
    return [
        _product("align", "align", inputs, width, 0),
        _product("gates", "gates", width, 2 * width, 0),
        _product("gates_past", "gates", width, 2 * width, width),
        _product("past", "past", width, width, 0),
        _product("input", "input", width, width, 0),
        _product("head", "head", width, n_actions, 0),
        *voice,
    ]


def _product(name: str, matrix: str, rows: int, columns: int, first: int) -> str:
    """Write a function that adds ``rows`` inputs times as many rows of a matrix, from ``first`` on."""
    blocks, start = "", 0
    for step in PRODUCT_ROWS:
        end = rows - rows % step
        if start == end:
            continue
        weight = f"@PREFIX@_{matrix}_weight"
        added = "".join(
            f"            acc += in[row + {row}] * {weight}[(row + {first + row}) * {columns} + column];\n"
            for row in range(step)
        )
        block = _BLOCK.replace("@ADDED@", added)
        for key, value in (("FIRST", start), ("END", end), ("STEP", step), ("COLUMNS", columns)):
            block = block.replace(f"@{key}@", str(value))
        blocks, start = blocks + block, end
    return _PRODUCT.replace("@BLOCKS@", blocks).replace("@NAME@", name)


def _array(name: str, kind: str, matrix: np.ndarray) -> str:
    return f"static const {kind} {name}[{matrix.size}] = {{\n{_values(matrix)}}};\n"


def _words(name: str, matrix: np.ndarray) -> str:
    """Write int8 numbers that begin at a word's boundary."""
    kind = f"union {{\n    int8_t value[{matrix.size}];\n    uint32_t word;\n}}"
    return f"static const {kind} {name} = {{ {{\n{_values(matrix)}}} }};\n"


def _values(matrix: np.ndarray) -> str:
    write = hexadecimal if matrix.dtype.kind == "f" else str
    return "".join(f"    {', '.join(map(write, row))},\n" for row in np.atleast_2d(matrix))


def _in_fours(matrix: np.ndarray) -> np.ndarray:
    """Exchange the second and the third of each four weights of a row: pairs of bytes are unpacked so."""
    return matrix.reshape(len(matrix), -1, int8.LANES)[:, :, [0, 2, 1, 3]].reshape(len(matrix), -1)


def hexadecimal(value: float) -> str:
    """Write a float32 exactly: its 23 bits after the point are six digits."""
    return re.sub(r"(\.[0-9a-f]{6})0+p", r"\1p", float(value).hex()) + "f"


def _unit(unit: str | None) -> str:
    return "" if unit in (None, "1") else f" [{unit}]"


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f" *   {index:3d}  {comment(line)}" for index, line in enumerate(lines))


def comment(text: str) -> str:
    """Return text that cannot end a C comment, or begin one, or hold anything but printable ASCII."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in "\\@" else "?" for c in text)
    # A pair of question marks would begin a trigraph.
    return re.sub(r"\?\?+", "?", plain.replace("*/", "*?").replace("/*", "?*"))
