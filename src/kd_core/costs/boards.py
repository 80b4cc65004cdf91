"""Budgets from YAML: the boards that come with the package, and a user's file that says who flies on which.

all: pico2                                  # every agent that `agents` does not name
agents:
  0: crazyflie                              # by index, a range, or name
  "1-2": {flash_bytes: 65536, ram_bytes: 4096, flops: 20000}
  listener_0: {board: crazyflie, flash_share: 0.1}
  3: {board: pico, weights: int8}           # the int8 form of the C: a fourth of the bytes, and no float arithmetic
largest_width: 64                           # optional
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from kd_core import yaml_text
from kd_core.costs.budget import LARGEST_WIDTH, WIDTH_STEP, Budget
from kd_core.costs.footprint import CORES, LEVELS, WEIGHTS
from kd_core.errors import UserError, nearest

_log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "boards"
_COUNTS = ("flash_bytes", "ram_bytes", "flops")
_RATES = ("decision_us", "flops_per_second", "clock_hz", "cycles_per_multiply_add", "cycles_per_multiply_add_os")
# Cycles of a multiply-add, by the level that the C is compiled at.
CYCLES = {"O2": "cycles_per_multiply_add", "Os": "cycles_per_multiply_add_os"}
# Of the int8 form: an instruction, and a byte of weights that the flash delivers.
_INT8_CYCLES = ("cycles_per_instruction", "cycles_per_weight_byte")
_SHARES = ("flash_share", "ram_share")
# What describes a board and limits nothing.
_TITLES = ("name", "processor")
_LIMITS = (*_COUNTS, "decision_us")
_FLOPS_OF_A_MULTIPLY_ADD = 2


@dataclass(frozen=True)
class TeamBudget:
    """A budget file, read for a team.

    Attributes:
        agents: what each agent may take.
        largest_width: beyond which ``widths=auto`` lets none grow.
    """

    agents: tuple[Budget, ...]
    largest_width: int


def board_names() -> tuple[str, ...]:
    """List the boards that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


@lru_cache
def read_board(name: str) -> dict[str, Any]:
    """Read a board's file.

    Raises:
        UserError: there is no such board.
    """
    if name not in board_names():
        raise UserError(f"there is no board '{name}'; {nearest(name, board_names())}")
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def read_budget(given: Any, names: Sequence[str]) -> TeamBudget:
    """Read the budget of a team.

    Args:
        given: a YAML file, or the name of a board that every agent has.
        names: the agents'.

    Raises:
        UserError: there is no such file, it is no budget, or it says nothing of an agent.
    """
    given = str(given)
    path = Path(given).expanduser()
    if given in board_names() and not path.is_file():
        return TeamBudget((own_budget(given, f"budget={given}"),) * len(names), LARGEST_WIDTH)
    content = _load(path)
    for key in content:
        if key not in ("all", "agents", "largest_width"):
            raise UserError(f"{path}: unknown key '{key}'; {nearest(str(key), ('all', 'agents', 'largest_width'))}")
    largest = content.get("largest_width", LARGEST_WIDTH)
    if type(largest) is not int or largest < WIDTH_STEP:
        raise UserError(f"{path}: largest_width is {largest!r}, expected a whole number of at least {WIDTH_STEP}")
    listed = content.get("agents") or {}
    if not isinstance(listed, Mapping):
        raise UserError(f"{path}: agents is {listed!r}, expected agents and their boards, such as 0: pico2")
    found: dict[int, Budget] = {}
    for key, value in listed.items():
        for index in _indices(key, names, path):
            if index in found:
                raise UserError(f"{path} names agent {index} twice: name each once")
            found[index] = own_budget(value, f"{path}, agent {key}")
    if (missing := sorted(set(range(len(names))) - set(found))) and "all" not in content:
        raise UserError(
            f"{path} says nothing of agent {missing[0]} ('{names[missing[0]]}'): name it under agents, or give "
            "all: BOARD"
        )
    for index in missing:
        found[index] = own_budget(content["all"], f"{path}, all")
    return TeamBudget(tuple(found[i] for i in range(len(names))), largest)


def _load(path: Path) -> Mapping[Any, Any]:
    if not path.is_file():
        raise UserError(
            f"cannot read the budget {path}: give a YAML file or a board; {nearest(str(path), board_names())}"
        )
    content = yaml_text.read(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path} is no budget: write 'all: pico2', or 'agents:' with a board for each")
    return content


def _indices(key: Any, names: Sequence[str], path: Path) -> range:
    """Return the agents that a key means: a name, an index, or a range such as ``1-2``, both ends included."""
    word, last = str(key), len(names) - 1
    if word in names:
        index = names.index(word)
        return range(index, index + 1)
    parts = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
    if parts is not None and isinstance(key, str | int):
        low, high = int(parts[1]), int(parts[2] or parts[1])
        if low <= high <= last:
            return range(low, high + 1)
    raise UserError(f"{path} names agent '{word}', but there are agents 0 to {last}; {nearest(word, names)}")


def own_budget(given: Any, where: str) -> Budget:
    """Read one agent's budget: a board's name, or a mapping that may name a board to start from.

    Args:
        given: of a budget file.
        where: it stands, for messages.

    Raises:
        UserError: it is no budget.
    """
    own = {"board": given} if isinstance(given, str) else given
    if not isinstance(own, Mapping):
        raise UserError(f"{where}: {given!r} is no budget: give a board, or limits such as {{flash_bytes: 65536}}")
    words = ("board", "level", "core", "weights", "soft_float_bytes")
    valid = (*words, *_COUNTS, *_RATES, *_INT8_CYCLES, *_SHARES)
    for key in own:
        if key not in valid:
            raise UserError(f"{where}: unknown key '{key}'; {nearest(str(key), valid)}")
    board = own.get("board")
    base = {} if board is None else read_board(str(board))
    # A number of the user's own is all for the policy; a board's is shared with everything else that runs there.
    shared = {
        key: value for key, value in base.items() if key not in _SHARES or key.replace("share", "bytes") not in own
    }
    values = {
        key: _positive(key, value, where)
        for key, value in {**shared, **own}.items()
        if key not in (*_TITLES, *words) and value is not None
    }
    if not any(key in values for key in _LIMITS):
        raise UserError(f"{where} limits nothing: give one of {', '.join(_LIMITS)}, or a board")
    rate = values.get("flops_per_second")
    level = own.get("level", LEVELS[0])
    if level not in LEVELS:
        raise UserError(f"{where}: level is {level!r}, expected {' or '.join(LEVELS)}, the level the C is compiled at")
    weights = own.get("weights", WEIGHTS[0])
    if weights not in WEIGHTS:
        raise UserError(f"{where}: weights is {weights!r}, expected {' or '.join(WEIGHTS)}, the form of the C")
    core = {**base, **own}.get("core")
    if core is not None and core not in CORES:
        raise UserError(f"{where}: core is {core!r}; {nearest(str(core), CORES)}")
    cycles = values.get(CYCLES[level])
    if rate is None and "clock_hz" in values and cycles is not None:
        rate = _FLOPS_OF_A_MULTIPLY_ADD * values["clock_hz"] / cycles
    of_int8: dict[str, Any] = {}
    # A rate of the user's own was timed, with whatever form.
    if weights == "int8" and "flops_per_second" not in own and "clock_hz" in values:
        of_int8 = {
            name: values["clock_hz"] / values[key]
            for name, key in zip(("instructions_per_second", "weight_bytes_per_second"), _INT8_CYCLES, strict=True)
            if key in values
        }
    if "decision_us" in values and rate is None and "instructions_per_second" not in of_int8:
        raise UserError(
            f"{where}: decision_us needs flops_per_second, the rate of this board: the FLOPs of a decision that you "
            "timed on it and 48 for each unit of its width, over its seconds"
        )
    for kind in ("flash", "ram"):
        if f"{kind}_bytes" in values:
            values[f"{kind}_bytes"] *= values.get(f"{kind}_share", 1.0)
    counts: dict[str, Any] = {key: int(values[key]) for key in _COUNTS if key in values}
    soft = {**base, **own}.get("soft_float_bytes") or 0
    if soft:
        soft = int(_positive("soft_float_bytes", soft, where))
    if soft and weights == "float32":
        _log.warning(
            "%s: %s has no FPU: every float operation is a call, %d bytes of them are added, and a decision takes "
            "about forty times as long as with one; weights: int8 needs none of them",
            where,
            f"the board {board}" if board else "it",
            soft,
        )
    us = values.get("decision_us")
    told: dict[str, Any] = {"level": level, "soft_float_bytes": soft, "core": core, "weights": weights}
    return Budget(board=board, decision_us=us, flops_per_second=rate, **told, **of_int8, **counts)


def _positive(key: str, value: Any, where: str) -> float:
    try:
        # YAML takes 2e4 for text.
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else float("nan")
    except ValueError:
        number = float("nan")
    most = 1.0 if key in _SHARES else 1e18
    if not 0.0 < number <= most:
        expected = "a share between 0 and 1" if key in _SHARES else "a positive number"
        raise UserError(f"{where}: {key} is {value!r}, expected {expected}")
    return number
