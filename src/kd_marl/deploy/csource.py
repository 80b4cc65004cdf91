"""An agent's network as C99: `emx-onnx-cgen` writes the arithmetic, our two templates the interface around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from emx_onnx_cgen.compiler import Compiler, CompilerOptions

from kd_marl.deploy.c_products import turn_products
from kd_marl.deploy.onnx_graph import step_model
from kd_marl.deploy.weights import Weights, sizes

FORMAT_VERSION = 1
HEADER, SOURCE, MODEL = "kd_agent.h", "kd_agent.c", "model.c"

_TEMPLATES = Path(__file__).parent / "templates"


def c_files(
    weights: Weights,
    prefix: str,
    task: str,
    name: str,
    features: Sequence[Mapping[str, Any]],
    actions: Sequence[str | None],
) -> dict[str, str]:
    """Return the sources of one agent.

    Args:
        weights: its network.
        prefix: begins every symbol, so that several agents fit into one program.
        task: the task's name, for comments.
        name: the agent's name, for comments.
        features: `interface.features` of it.
        actions: `interface.action_names` of it.

    Returns:
        File name -> text. Only `SOURCE` is compiled; it includes the others.
    """
    inputs, width, n_actions = sizes(weights)
    largest = largest_feature(weights)
    values = {
        "PREFIX": prefix,
        "UPPER": prefix.upper(),
        "NAME": comment(name),
        "TASK": comment(task),
        "FORMAT_VERSION": str(FORMAT_VERSION),
        "INPUTS": str(inputs),
        "WIDTH": str(width),
        "ACTIONS": str(n_actions),
        "LARGEST": f"{largest:.3g}",
        "LARGEST_BITS": f"0x{int(largest.view(np.uint32)):08x}",
        "FEATURES": _listed([f"{row['name']}{_unit(row['unit'])}" for row in features]),
        "ACTION_NAMES": _listed([action or "(this agent never has it)" for action in actions]),
    }
    filled = {}
    for file in (HEADER, SOURCE):
        text = (_TEMPLATES / f"{file}.in").read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        filled[file] = text
    model = _generator().compile(step_model(weights, prefix))
    return {**filled, MODEL: turn_products(model)[0]}


@lru_cache
def _generator() -> Compiler:
    """Make one generator for all agents: to read its templates takes longer than all the rest."""
    options = CompilerOptions(
        # Not the agent's: the template renames it.
        model_name="kd_agent_model",
        restrict_arrays=True,
        # Everything on the stack and in the source: no malloc, no files.
        large_temp_threshold_bytes=0,
        large_weight_threshold=0,
    )
    return Compiler(options)


def largest_feature(weights: Weights) -> np.float32:
    """Return a bound on the size of features within which no sum in the network overflows float32.

    With |x| <= B, an aligned unit is at most a = (row sum of |align.weight|) B + |bias|, and a gate's input at most
    (row sum of |gru.weight_ih|) a plus what the state, within -1 and 1, and the biases add.
    """
    aligned = max(1.0, float(np.abs(weights["align.weight"]).sum(axis=1, dtype=np.float64).max()))
    gates = max(1.0, float(np.abs(weights["gru.weight_ih"]).sum(axis=1, dtype=np.float64).max()))
    # A quarter leaves room for biases and state, which are far smaller than what is left.
    return np.float32(0.25 * float(np.finfo(np.float32).max) / (aligned * gates))


def _unit(unit: str | None) -> str:
    return "" if unit in (None, "1") else f" [{unit}]"


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f" *   {index:3d}  {comment(line)}" for index, line in enumerate(lines))


def comment(text: str) -> str:
    """Return text that cannot end a C comment, or begin one, or hold anything but printable ASCII."""
    plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    return plain.replace("*/", "*?").replace("/*", "?*").replace("@", "?")
