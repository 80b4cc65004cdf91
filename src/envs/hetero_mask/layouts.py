"""Feature layouts: the meaning of each number of an agent's observation.

A layout names the features of the padded observation that the host's environments give. It groups them into the blocks
of the paper's tables. Particles have ``L`` landmarks, ``A(P)`` other agents' positions, ``V`` own velocity, ``P`` own
position and ``M`` messages; we add ``G``, the goal. Battles have ``O`` own, ``A`` allies and ``E`` enemies; we add
``T``, terrain. Warehouses have ``O`` own and rings of cells ``R0``, ``R1``, ...; foraging has food ``F``, ``O``, ``A``.

It also lists *derived* features: Euclidean norms of observed ones, such as the distances ``D(A-A)``. The extended
observation is the padded observation followed by the derived features.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from kd_core.errors import UserError, nearest
from kd_envs.hetero_mask.battles import battle_parts, name_features
from kd_envs.hetero_mask.warehouse import CELL, OWN, sensor_range

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


def layout_for(task_key: str, n_agents: int, obs_size: int, info: Mapping[str, Any] | None = None) -> FeatureLayout:
    """Build the layout of an environment.

    Args:
        task_key: the environment's key or map name, such as "pz-mpe-simple-spread-v3".
        n_agents: number of agents that the environment reports.
        obs_size: length of the padded observation that it reports.
        info: its other facts: ``layout``, the layout itself as `FeatureLayout.to_dict` gives it, or those by which
            battles are recognised (`battles.battle_parts`).

    Returns:
        The named layout of a known task or battle; else a plain one whose features are called "0", "1", ... by index.

    Raises:
        UserError: the key names a known task, but the sizes are not that task's.
    """
    if info and "layout" in info:
        return FeatureLayout.from_dict(info["layout"])
    match = re.fullmatch(r"(?:pz_)?(?:mpe2?_)?(\w+?)(?:_v\d+)?", task_key.lower().replace("-", "_"))
    build = KNOWN_LAYOUTS.get(match.group(1)) if match else None
    if build is None:
        parts = battle_parts(info or {}, n_agents, obs_size)
        if not parts:
            return _named_by_key(task_key, n_agents, obs_size) or plain_layout(task_key, n_agents, obs_size)
        agents = (AgentLayout(f"agent_{i}", *name_features(parts, i)) for i in range(n_agents))
        return FeatureLayout(task_key, tuple(agents), obs_size)
    layout = build(n_agents, obs_size)
    if layout.n_agents != n_agents or layout.obs_size != obs_size:
        raise UserError(
            f"{task_key} gives {n_agents} agents {obs_size} features each, but {layout.task} is known with"
            f" {layout.n_agents} agents and {layout.obs_size} features: remove the env_args that change observations"
        )
    return layout


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


def _xy(*stems: str) -> tuple[str, ...]:
    return tuple(f"{stem}.{axis}" for stem in stems for axis in "xy")


def _agent(name: str, obs_size: int, **parts: tuple[str, ...]) -> AgentLayout:
    """Build an MPE agent whose observation is `parts` in order (A_P for the block A(P)), padded at the end."""
    blocks = {"A(P)" if key == "A_P" else key: names for key, names in parts.items() if names}
    features = tuple(name for names in blocks.values() for name in names)
    others = [name.split(".")[0] for name in blocks.get("A(P)", ())[::2]]
    derived = {}
    for other in others:
        first = features.index(f"{other}.x")
        derived[other.replace("A(P)", "D(A-A)")] = (first, first + 1)
    if derived:
        blocks["D(A-A)"] = tuple(derived)
    return AgentLayout(name, features + (None,) * (obs_size - len(features)), blocks, derived)


def _simple_spread(n_agents: int, obs_size: int) -> FeatureLayout:
    """Build 6 numbers an agent; the message block exists but is always zero, since no agent can speak."""
    obs_size = 6 * n_agents
    landmarks = _xy(*(f"L{k}" for k in range(n_agents)))
    agents = []
    for i in range(n_agents):
        others = [j for j in range(n_agents) if j != i]
        messages = tuple(f"M{j}.{k}" for j in others for k in range(2))
        positions = _xy(*(f"A(P){j}" for j in others))
        agents.append(_agent(f"agent_{i}", obs_size, V=_xy("V"), P=_xy("P"), L=landmarks, A_P=positions, M=messages))
    return FeatureLayout("simple_spread", tuple(agents), obs_size)


def _simple_speaker_listener(n_agents: int, obs_size: int) -> FeatureLayout:
    """Build a speaker that sees the goal's colour, and a listener that receives the last step's message."""
    speaker = _agent("speaker_0", 11, G=("G.red", "G.green", "G.blue"))
    listener = _agent("listener_0", 11, V=_xy("V"), L=_xy("L0", "L1", "L2"), M=("M0.0", "M0.1", "M0.2"))
    return FeatureLayout("simple_speaker_listener", (speaker, listener), 11)


def _simple_adversary(n_agents: int, obs_size: int) -> FeatureLayout:
    """Build one adversary and one good agent per landmark.

    A pretrained adversary is not an agent of the environment.
    """
    pretrained = obs_size == 4 * n_agents + 2
    n_good = n_agents if pretrained else n_agents - 1
    obs_size = 4 * n_good + 2
    landmarks = _xy(*(f"L{k}" for k in range(n_good)))
    agents = []
    if not pretrained:
        agents.append(_agent("adversary_0", obs_size, L=landmarks, A_P=_xy(*(f"A(P){j}" for j in range(1, n_agents)))))
    first = 0 if pretrained else 1
    for k in range(n_good):
        # Others come in order: the adversary (index 0, or no index of its own), then the other good agents.
        others = ["A(P)adversary" if pretrained else "A(P)0", *(f"A(P){j + first}" for j in range(n_good) if j != k)]
        agents.append(_agent(f"agent_{k}", obs_size, G=_xy("G"), L=landmarks, A_P=_xy(*others)))
    return FeatureLayout("simple_adversary", tuple(agents), obs_size)


def _named_by_key(task_key: str, n_agents: int, obs_size: int) -> FeatureLayout | None:
    """Build the layout of a warehouse, of foraging or of VMAS's navigation; None for any other key or size."""
    name = task_key.rpartition(":")[2]
    foraging = re.fullmatch(r"Foraging-(?:\d+s-)?\d+x\d+-\d+p-(\d+)f[\w-]*", name)
    if re.fullmatch(r"rware-[\w-]+", name) and (reach := sensor_range(obs_size)) is not None:
        agents = [_warehouse_robot(f"agent_{i}", reach) for i in range(n_agents)]
    elif foraging and obs_size == 3 * (int(foraging.group(1)) + n_agents):
        agents = [_forager(i, n_agents, int(foraging.group(1))) for i in range(n_agents)]
    elif name == "vmas-navigation" and obs_size in (_NAVIGATION, _NAVIGATION + _RAYS):
        rays = tuple(f"R.{k}" for k in range(obs_size - _NAVIGATION))
        parts = {"P": _xy("P"), "V": _xy("V"), "G": _xy("G"), "R": rays}
        agents = [_agent(f"agent_{i}", obs_size, **parts) for i in range(n_agents)]
    else:
        return None
    return FeatureLayout(task_key, tuple(agents), obs_size)


def _warehouse_robot(name: str, reach: int) -> AgentLayout:
    """Build a robot's own row, then the cells around it; a block for each ring of cells: ``R0`` is its own cell."""
    own = tuple(f"O.{feature}" for feature in OWN)
    rings: dict[str, tuple[str, ...]] = {f"R{ring}": () for ring in range(reach + 1)}
    cells: list[str] = []
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            row = tuple(f"{_compass(down, right)}.{feature}" for feature in CELL)
            rings[f"R{max(abs(down), abs(right))}"] += row
            cells += row
    return AgentLayout(name, (*own, *cells), {"O": own, **rings})


def _compass(down: int, right: int) -> str:
    """Name a cell by its way from the robot: ``N1W2`` is one up and two to the left, ``here`` its own."""
    parts = [(down, "NS"), (right, "WE")]
    return "".join(f"{letters[way > 0]}{abs(way)}" for way, letters in parts if way) or "here"


def _forager(agent: int, n_agents: int, food: int) -> AgentLayout:
    """Build a forager's rows: each food, itself, then the others by index."""

    def rows(*stems: str) -> tuple[str, ...]:
        return tuple(f"{stem}.{feature}" for stem in stems for feature in ("row", "column", "level"))

    others = (f"A{j}" for j in range(n_agents) if j != agent)
    blocks = {"F": rows(*(f"F{k}" for k in range(food))), "O": rows("O"), "A": rows(*others)}
    return AgentLayout(f"agent_{agent}", tuple(name for names in blocks.values() for name in names), blocks)


# Features of VMAS's navigation without its range finder, and the finder's rays.
_NAVIGATION, _RAYS = 6, 12

# Task name -> builder from (number of agents, length of the observation) as the environment reports them.
KNOWN_LAYOUTS: dict[str, Callable[[int, int], FeatureLayout]] = {
    "simple_spread": _simple_spread,
    "simple_speaker_listener": _simple_speaker_listener,
    "simple_adversary": _simple_adversary,
}
