"""Steps of an agent and its actions in them, as a file for `PREFIX_test` of its C: a board tries itself at its start.

The steps are the first of an episode of the expert buffer, where there is one, else drawn. In each of them the best
action is clearly the best, so that no compiler's rounding can choose another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from kd_marl.deploy.csource import comment, hexadecimal
from kd_marl.deploy.onnx_graph import step_constants
from kd_marl.deploy.program import Named
from kd_marl.deploy.replay import Seen
from kd_marl.deploy.weights import Weights, largest_feature, sizes
from kd_onboard import int8
from kd_onboard.tensors import weights_digest

# Steps at most, and by how much of the largest logit the best one is above the next.
STEPS, MARGIN = 8, 1e-3
_DRAWN = 64
# Characters of a number with its comma, and of all that is no number: names have at most 1,000.
_MOST_FLOAT, _MOST_INT, _MOST_HEAD = 24, 12, 16384

# From features (steps, inputs) to logits (steps, actions).
_Network: TypeAlias = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Steps:
    """The first steps of an episode.

    Attributes:
        features: ``(steps, inputs)`` float32.
        available: ``(steps, actions)`` bool.
        actions: ``(steps,)``: what the agent does.
    """

    features: np.ndarray
    available: np.ndarray
    actions: np.ndarray


def choose(weights: Weights, seen: Sequence[Seen], calibration: int8.Calibration | None = None) -> Steps:
    """Choose the episode in whose first steps the agent does most different things.

    Args:
        weights: its network.
        seen: what agents with this network met; empty: features are drawn.
        calibration: of C with int8 weights, or None.
    """
    network, largest = _network(weights, calibration), largest_feature(weights)
    best = max(
        (_clear(network, largest, features, available) for features, available in _episodes(weights, seen)),
        key=lambda steps: (len(set(steps.actions.tolist())), len(steps.actions)),
    )
    if len(best.actions):
        return best
    # A network that never has a clear choice: one step in which it has none at all.
    inputs, _, n_actions = sizes(weights)
    return Steps(np.zeros((1, inputs), np.float32), np.eye(1, n_actions, dtype=bool), np.zeros(1, np.int64))


def _episodes(weights: Weights, seen: Sequence[Seen]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for agent in seen:
        yield from ((rows[:STEPS], may[:STEPS]) for rows, may in zip(agent.features, agent.available, strict=True))
    if not seen:
        inputs, _, n_actions = sizes(weights)
        rng = np.random.default_rng(int(weights_digest(weights)[:16], 16))
        for _ in range(_DRAWN):
            yield rng.standard_normal((STEPS, inputs)).astype(np.float32), np.ones((STEPS, n_actions), bool)


def _clear(network: _Network, largest: np.float32, features: np.ndarray, available: np.ndarray) -> Steps:
    """Return an episode's steps before the first in which the choice is not clear."""
    sound = available.any(1) & (np.abs(features) <= largest).all(1)
    features, available = (rows[: _leading(sound)] for rows in (features, available))
    logits = network(features)
    actions = np.where(available, logits, -np.inf).argmax(1)
    best = np.take_along_axis(logits, actions[:, None], 1)
    others = np.where(available & (np.arange(logits.shape[1]) != actions[:, None]), logits, -np.inf)
    margins = MARGIN * np.maximum(1.0, np.abs(logits))
    steps = _leading(np.all(best - others > margins, axis=1))
    return Steps(features[:steps], available[:steps], actions[:steps])


def _leading(holds: np.ndarray) -> int:
    """Count the true values before the first false one."""
    return len(holds) if holds.all() else int(holds.argmin())


def _network(weights: Weights, calibration: int8.Calibration | None) -> _Network:
    """Return a function from the features of an episode's steps to their logits, float64, of int8 programs exact."""
    _, width, n_actions = sizes(weights)
    if calibration is not None:
        numbers = int8.quantise(weights, calibration)

        def in_int8(features: np.ndarray) -> np.ndarray:
            state, logits = np.zeros((1, width), np.int16), np.zeros((len(features), n_actions))
            for step in range(len(features)):
                logits[step : step + 1], state = int8.step(numbers, features[step : step + 1], state)
            return logits

        return in_int8
    w = {name: np.asarray(value, np.float64) for name, value in step_constants(weights).items()}

    def in_float(features: np.ndarray) -> np.ndarray:
        state, logits = np.zeros(width), np.zeros((len(features), n_actions))
        for step, row in enumerate(features.astype(np.float64)):
            aligned = np.maximum(row @ w["align_weight"] + w["align_bias"], 0.0)
            gates = 0.5 * np.tanh(0.5 * (np.concatenate([aligned, state]) @ w["gates_weight"] + w["gates_bias"])) + 0.5
            past = gates[:width] * (state @ w["past_weight"] + w["past_bias"])
            candidate = np.tanh(aligned @ w["input_weight"] + w["input_bias"] + past)
            state = candidate + gates[width:] * (state - candidate)
            logits[step] = state @ w["head_weight"] + w["head_bias"]
        return logits

    return in_float


def text(steps: Steps, named: Named, name: str) -> str:
    """Write the file of an agent's C.

    Args:
        steps: of its test.
        named: what its C is called.
        name: the agent's name, for comments.
    """
    upper = named.prefix.upper()
    count = f"{upper}_TEST_STEPS"
    arrays = (
        ("float", f"features[{count}][{upper}_INPUTS]", _rows(steps.features, hexadecimal)),
        ("unsigned char", f"available[{count}][{upper}_ACTIONS]", _rows(steps.available, lambda may: str(int(may)))),
        ("int", f"actions[{count}]", [str(action) for action in steps.actions]),
    )
    head = f'/* Steps of agent "{comment(name)}", and what it does in them, for {named.prefix}_test. */\n\n'
    return f"{head}#define {count} {len(steps.actions)}\n\n" + "\n".join(
        f"static const {kind} {named.prefix}_test_{array} = {{\n{''.join(f'    {row},{chr(10)}' for row in rows)}}};\n"
        for kind, array, rows in arrays
    )


def _rows(values: np.ndarray, write: Callable[[Any], str]) -> list[str]:
    return ["{" + ", ".join(write(value) for value in row) + "}" for row in values]


def fault(data: bytes, weights: Weights, named: Named, name: str, calibration: int8.Calibration | None = None) -> str:
    """Return why a file is not one that `text` writes of steps of this network; empty if it is.

    Args:
        data: the file.
        weights: the network.
        named: what its C is called.
        name: the agent's name, for comments.
        calibration: of C with int8 weights, or None.
    """
    inputs, _, n_actions = sizes(weights)
    most = _MOST_HEAD + STEPS * (_MOST_FLOAT * inputs + _MOST_INT * (n_actions + 1))
    if len(data) > most:
        return f"has {len(data)} bytes, and {STEPS} steps have at most {most}"
    try:
        blocks = re.findall(r"= \{\n(.*?)\};\n", data.decode("ascii"), re.DOTALL)
        features, available, actions = (
            np.array([[_number(word) for word in re.findall(r"[^\s{},]+", row)] for row in block.splitlines()])
            for block in blocks
        )
        steps = Steps(features.astype(np.float32), available != 0, actions.reshape(-1).astype(np.int64))
        shapes = (steps.features.shape[1:], steps.available.shape[1:])
        if shapes != ((inputs,), (n_actions,)) or text(steps, named, name).encode() != data:
            raise ValueError
    # What numpy and the parsers make of other text.
    except (ValueError, IndexError, OverflowError, TypeError):
        return "is no list of steps as an export writes it"
    whole = _clear(_network(weights, calibration), largest_feature(weights), steps.features, steps.available)
    if not len(whole.actions) or whole.actions.tolist() != steps.actions.tolist():
        return "holds steps in which the network does something else, or has no clear choice"
    return ""


def _number(digits: str) -> float:
    return float.fromhex(digits.removesuffix("f")) if "x" in digits else float(int(digits))
