"""An agent's network as C99, from templates: its header, its program and, in it, the step; weights lie beside them.

A program has float32 weights or int8 weights, with the same functions. With the latter its step is whole numbers only,
those of `kd_onboard.int8`.

Every file and every symbol of an agent begins with its prefix, which ends in a number. So no name of one agent can be
that of another, or one of the generic names of a program with a single agent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kd_core.costs.footprint import footprint
from kd_marl.deploy import loadable, products, talking
from kd_marl.deploy.program import AgentC, Named
from kd_marl.deploy.weights import Weights, exchanged, largest_feature, sizes
from kd_onboard import int8
from kd_onboard.sampling import weight_shift
from kd_onboard.tensors import weights_digest

FORMAT_VERSION = 2
TEAM_HEADER = "c/kd_team.h"

_TEMPLATES = Path(__file__).parent / "templates"
_FLOAT_ARITHMETIC = """\
 * Weights lie row after row, a row for each input. A sum begins with its bias and adds the rows in their order, in both
 * forms of the program, so that both compute the same numbers. With AVX several sums share the rows, and the last bits
 * differ."""
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


def _float_form(program: AgentC) -> _Form:
    weights = program.weights
    inbox, outbox = exchanged(weights)
    hear = "hear.c.in" if program.messages is None or program.messages.number_bits == 1 else "hear_numbers.c.in"
    step = _template(hear, inbox) + _template("step_float.c.in") + _template("say.c.in", outbox)
    matrices = loadable.matrices(program)
    values = {
        "STEP": step.replace("@PRODUCTS@", products.text(*sizes(weights), outbox)),
        "ARITHMETIC": _FLOAT_ARITHMETIC,
        "SOUND": "@PREFIX@_within(agent->state, @UPPER@_WIDTH, @UPPER@_LARGEST_STATE)",
        "STATE_TYPE": "float",
        "STATE_SIZE": "@UPPER@_WIDTH",
        "LEAN": _FLOAT_LEAN,
        **loadable.definitions(matrices),
    }
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


def c_files(program: AgentC) -> dict[str, str]:
    """Return the sources of one agent: path in the bundle -> text."""
    weights, named, calibration, messages = program.weights, program.named, program.calibration, program.messages
    inputs, width, n_actions = sizes(weights)
    largest = largest_feature(weights)
    assert calibration is None or messages is None, "int8 is for silent students"
    form = _float_form(program) if calibration is None else _int8_form(weights, calibration)
    inbox, outbox = exchanged(weights)
    fast, lean = (
        footprint(inputs, width, n_actions, level, weights=form.weights, inbox=inbox, outbox=outbox)
        for level in ("O2", "Os")
    )
    noop = -1 if program.noop_action is None else program.noop_action
    held = f"{named.prefix.upper()}_IS_READY(agent) ? agent->last : -1"
    action, meaning = {
        "raise": ("-1", "it raises an error, so the program decides"),
        "hold": (held, "it repeats the last action"),
        "noop": (str(noop), f"it takes action {noop}, which does nothing"),
    }[program.on_fault]
    values = {
        # First, as they are full of names themselves.
        **form.values,
        **talking.values(messages),
        "PREFIX": named.prefix,
        "UPPER": named.prefix.upper(),
        "NAME": comment(program.name),
        "TASK": comment(program.task),
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
        "CONTRACT": f"0x{program.contract:08x}",
        # So that the sum over all actions has 32 bits.
        "SHIFT": str(weight_shift(n_actions)),
        "ON_FAULT": meaning,
        "FAULT_ACTION": action,
        "FEATURES": _listed([f"{row['name']}{_unit(row['unit'])}" for row in program.features]),
        "ACTION_NAMES": _listed([action or "(this agent never has it)" for action in program.actions]),
    }
    filled = {}
    for path, template in ((named.header, "agent.h.in"), (named.source, "agent.c.in")):
        text = _template(template)
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        filled[path] = text
    head = f'/* The weights of agent "{comment(program.name)}", {form.numbers}; {named.prefix}.c includes them. */\n\n'
    return {**filled, named.weights: head + "\n".join(form.arrays).replace("@PREFIX@", named.prefix)}


def _template(name: str, wanted: int = 1) -> str:
    """Read a template; empty where it is not wanted."""
    return (_TEMPLATES / name).read_text(encoding="utf-8") if wanted else ""


def all_files(program: AgentC) -> dict[str, bytes]:
    """Return the sources and, where they can be loaded, the weights as a file."""
    found = {path: text.encode() for path, text in c_files(program).items()}
    if program.calibration is None:
        found[program.named.binary] = loadable.weights_file(program)
    return found


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
