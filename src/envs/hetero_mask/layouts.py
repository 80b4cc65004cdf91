"""Feature layouts: the meaning of each number of an agent's observation.

A layout names the features of the padded observation that the host's environments give. It groups them into the blocks
of the paper's tables. Particles have ``L`` landmarks, ``A(P)`` other agents' positions, ``V`` own velocity, ``P`` own
position and ``M`` messages; we add ``G``, the goal. Battles have ``O`` own, ``A`` allies and ``E`` enemies; we add
``T``, terrain. Warehouses have ``O`` own and rings of cells ``R0``, ``R1``, ...; foraging has food ``F``, ``O``, ``A``.

It also lists *derived* features: Euclidean norms of observed ones, such as the distances ``D(A-A)``. The extended
observation is the padded observation followed by the derived features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from kd_core.errors import UserError, nearest

if TYPE_CHECKING:
    import torch

Rows = TypeVar("Rows", np.ndarray, "torch.Tensor")

# Most names that an error message lists; for more it gives the range of their indices.
_LISTABLE = 60


@dataclass(frozen=True)
class AgentLayout:
    """The observation of one agent.

    Attributes:
        name: the agent's name in its environment.
        features: the name of each element of the padded observation, in order; None for padding.
        blocks: block letter -> names of its features, raw or derived. An absent block is not a key.
        derived: name of each derived feature -> the observation's elements whose Euclidean norm it is.
    """

    name: str
    features: tuple[str | None, ...]
    blocks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    derived: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def loose(self) -> tuple[int, ...]:
        """Indices of observed features that belong to no block."""
        inside = {name for names in self.blocks.values() for name in names}
        return tuple(i for i, name in enumerate(self.features) if name is not None and name not in inside)

    def to_dict(self) -> dict[str, Any]:
        """Convert this layout to plain lists and dicts, for JSON."""
        return {
            "name": self.name,
            "features": list(self.features),
            "blocks": {letter: list(names) for letter, names in self.blocks.items()},
            # Pairs retain the order of the extended observation, which a JSON object would not.
            "derived": [[name, list(parts)] for name, parts in self.derived.items()],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AgentLayout:
        """Invert `to_dict`."""
        return cls(
            name=data["name"],
            features=tuple(data["features"]),
            blocks={letter: tuple(names) for letter, names in data["blocks"].items()},
            derived={name: tuple(parts) for name, parts in data["derived"]},
        )


@dataclass(frozen=True)
class FeatureLayout:
    """The observations of all agents of a task.

    Attributes:
        task: the task's name if it is known, such as "simple_spread", else the environment's key.
        agents: one layout an agent, in the order of the agents' indices.
        obs_size: length of the padded observation, equal for all agents.
        units: block letter -> unit, where the environment states it itself.
        presets: name of a preset of the environment's own -> the words of a mask that each agent sees under it.
        step_seconds: duration of a step, where the environment states it itself.
    """

    task: str
    agents: tuple[AgentLayout, ...]
    obs_size: int
    units: Mapping[str, str] = field(default_factory=dict)
    presets: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    step_seconds: float | None = None

    def __post_init__(self) -> None:
        """Check the invariant that every agent names each element of the padded observation."""
        for agent in self.agents:
            assert len(agent.features) == self.obs_size, f"layout of {agent.name} does not cover the observation"

    @property
    def n_agents(self) -> int:
        """Number of agents."""
        return len(self.agents)

    @cached_property
    def n_derived(self) -> int:
        """Number of derived features in the extended observation: the most that any agent has."""
        return max((len(agent.derived) for agent in self.agents), default=0)

    @property
    def n_features(self) -> int:
        """Length of the extended observation: ``obs_size + n_derived``."""
        return self.obs_size + self.n_derived

    @cached_property
    def agent_names(self) -> tuple[str, ...]:
        """The agents' names in the order of their indices."""
        return tuple(agent.name for agent in self.agents)

    @cached_property
    def feature_names(self) -> tuple[tuple[str | None, ...], ...]:
        """Names of the extended observation's elements, per agent; None where there is nothing but a zero."""
        rows = []
        for agent in self.agents:
            derived = tuple(agent.derived)
            rows.append(agent.features + derived + (None,) * (self.n_derived - len(derived)))
        return tuple(rows)

    def real(self, agent: int) -> tuple[int, ...]:
        """Return the indices of an agent's observed features: neither padding nor derived."""
        return tuple(i for i, name in enumerate(self.agents[agent].features) if name is not None)

    def has_block(self, agent: int, letter: str) -> bool:
        """Tell whether the agent's observation has this block."""
        return letter in self.agents[agent].blocks

    def find(self, agent: int, word: str | int) -> tuple[int, ...]:
        """Find the elements of the extended observation that a word of a mask names.

        Args:
            agent: index of the agent.
            word: a block letter ("L"), a feature ("L0.x"), the part before its dot ("L0"), or an index (4).

        Returns:
            Sorted indices into the agent's extended observation.

        Raises:
            UserError: the agent has no such feature.
        """
        names = self.feature_names[agent]
        blocks = self.agents[agent].blocks
        if isinstance(word, int) and not isinstance(word, bool):
            if 0 <= word < len(names) and names[word] is not None:
                return (word,)
        elif isinstance(word, str):
            wanted = set(blocks.get(word, ()))
            found = tuple(i for i, name in enumerate(names) if name in wanted)
            found = found or tuple(i for i, name in enumerate(names) if name == word)
            found = found or tuple(i for i, name in enumerate(names) if name and name.startswith(f"{word}."))
            if found:
                return found
            if word.isdecimal():
                return self.find(agent, int(word))
        raise UserError(
            f"agent '{self.agents[agent].name}' of {self.task} has no feature {word!r}; {self._hint(agent, word)}"
        )

    def _hint(self, agent: int, word: object) -> str:
        """List the words that are valid in place of `word`."""
        named = {i: name for i, name in enumerate(self.feature_names[agent]) if name is not None}
        blocks = self.agents[agent].blocks
        indices = f"its features are {ranges(named)}"
        if not isinstance(word, str) or word.isdecimal() or not blocks:
            return indices
        hint = nearest(word, [*blocks, *named.values()])
        return indices if hint.startswith("valid") and len(named) > _LISTABLE else hint

    def extend(self, obs: Rows) -> Rows:
        """Append the derived features to observations.

        Args:
            obs: ``(..., agents, obs_size)``, a numpy array or a torch tensor, floating point.

        Returns:
            ``(..., agents, n_features)`` of the same kind and dtype; zeros where an agent lacks a derived feature.
        """
        assert obs.shape[-2:] == (self.n_agents, self.obs_size), f"observations of shape {tuple(obs.shape)}"
        if not self.n_derived:
            return obs
        wide = (*obs.shape[:-1], self._sources[0].shape[-1])
        parts = (*obs.shape[:-1], self.n_derived, -1)
        if isinstance(obs, np.ndarray):
            index, present = self._sources
            picked = np.take_along_axis(obs, np.broadcast_to(index, wide), -1) * present
            norms = np.sqrt(np.square(picked.reshape(parts)).sum(-1)).astype(obs.dtype)
            return np.concatenate([obs, norms], -1)

        import torch

        index, present = self._torch_sources(obs.device)
        picked = obs.gather(-1, index.expand(wide)) * present.to(obs.dtype)
        return torch.cat([obs, torch.linalg.vector_norm(picked.view(parts), dim=-1)], -1)

    @cached_property
    def _sources(self) -> tuple[np.ndarray, np.ndarray]:
        """Elements behind the derived features and a mask of them, both ``(agents, n_derived * parts)``."""
        parts = max(len(source) for agent in self.agents for source in agent.derived.values())
        index = np.zeros((self.n_agents, self.n_derived, parts), np.int64)
        present = np.zeros_like(index, np.float32)
        for i, agent in enumerate(self.agents):
            for k, source in enumerate(agent.derived.values()):
                index[i, k, : len(source)] = source
                present[i, k, : len(source)] = 1.0
        return index.reshape(self.n_agents, -1), present.reshape(self.n_agents, -1)

    @cached_property
    def _per_device(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """`_sources` as tensors, once per device."""
        return {}

    def _torch_sources(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        key = str(device)
        if key not in self._per_device:
            index, present = self._sources
            self._per_device[key] = (torch.from_numpy(index).to(device), torch.from_numpy(present).to(device))
        return self._per_device[key]

    def to_dict(self) -> dict[str, Any]:
        """Convert this layout to plain lists and dicts, for JSON."""
        facts = {"task": self.task, "obs_size": self.obs_size, "agents": [agent.to_dict() for agent in self.agents]}
        if self.units:
            facts["units"] = dict(self.units)
        if self.presets:
            facts["presets"] = {name: [list(words) for words in rows] for name, rows in self.presets.items()}
        if self.step_seconds is not None:
            facts["step_seconds"] = self.step_seconds
        return facts

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeatureLayout:
        """Invert `to_dict`."""
        agents = tuple(AgentLayout.from_dict(agent) for agent in data["agents"])
        presets = {name: tuple(map(tuple, rows)) for name, rows in data.get("presets", {}).items()}
        return cls(
            data["task"], agents, int(data["obs_size"]), data.get("units", {}), presets, data.get("step_seconds")
        )


def plain_layout(task: str, n_agents: int, obs_size: int) -> FeatureLayout:
    """Build a layout without meaning: agents "agent_0", ..., features "0", ... by index, no blocks."""
    features = tuple(str(i) for i in range(obs_size))
    return FeatureLayout(task, tuple(AgentLayout(f"agent_{i}", features) for i in range(n_agents)), obs_size)


def ranges(indices: Iterable[int]) -> str:
    """Format sorted indices in short: ``0 to 2, 5, 7 to 9``."""
    runs: list[list[int]] = []
    for i in sorted(indices):
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in runs) or "none"
