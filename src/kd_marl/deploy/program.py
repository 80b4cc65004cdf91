"""An agent's C program before it is written: what it is called, and what it is made of."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_envs.hetero_mask import naming
from kd_marl.deploy.weights import Weights
from kd_onboard import int8
from kd_onboard.profile import AgentMessages


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
class AgentC:
    """What one agent's C is made of.

    Attributes:
        weights: its network.
        named: what its files are called.
        task: the task's name, for comments.
        name: the agent's name, for comments.
        features: `interface.features` of it.
        actions: `interface.action_names` of it.
        on_fault: ``raise``, ``hold`` or ``noop``: what the program does with input that it must not act on.
        noop_action: the action of ``noop``.
        calibration: of its activations, for the form with int8 weights; None: float32.
        messages: what it tells others and hears from them; None: it is silent, as int8 forms are.
    """

    weights: Weights
    named: Named
    task: str
    name: str
    features: Sequence[Mapping[str, Any]]
    actions: Sequence[str | None]
    on_fault: str = "raise"
    noop_action: int | None = None
    calibration: int8.Calibration | None = None
    messages: AgentMessages | None = None

    @property
    def contract(self) -> int:
        """32 bits of a hash of what features, actions and messages mean: weights of another meaning are refused."""
        told: list[Any] = [self.task, [[row["name"], row["unit"]] for row in self.features], list(self.actions)]
        told += [] if self.messages is None else [self.messages.to_dict()]
        return int.from_bytes(hashlib.sha256(json.dumps(told).encode()).digest()[:4], "little")


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
