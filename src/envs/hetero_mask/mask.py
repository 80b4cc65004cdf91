"""`ObservationMask`: the features of its observation that each agent's student sees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from kd_core.errors import UserError
from kd_envs.hetero_mask.layouts import FeatureLayout, Rows

if TYPE_CHECKING:
    import torch

FORMAT = "kd-marl/mask"
VERSION = 1
# Prefixes of the names of an own last action, whose index follows, and of a sensor's status, whose feature follows.
OWN_ACTION = "own_action."
SENSOR_STATUS = "delivers."


class ObservationMask:
    """The features that each agent sees, fixed or drawn for each episode.

    A mask refers to the extended observation (`FeatureLayout.extend`). When no agent sees a derived feature, the
    extension is dropped. Then `obs_size`, the width of `visible` and the result of `extend` are those of the padded
    observation. Derived features come last, so an index means the same either way.

    With ``own_actions`` the extension stays. The agent's own last action comes last, one-hot, all zeros before its
    first. An agent knows its action without a sensor, so no mask hides it and none is drawn for it.

    With ``sensor_status`` an agent is told which of its drawn features an episode shows: one number for each, 1 where
    the feature is shown, between the features and the own last action.

    Attributes:
        layout: the features' names and blocks.
        own_actions: number of actions, the length of the one-hot own last action; 0 where agents do not see it.
        sensor_status: whether agents are told which of their drawn features an episode shows.
        visible: ``(agents, obs_size)`` bool: the features an agent may ever see.
        draw_sizes: per agent the fewest and the most features drawn in an episode; None for a fixed mask.
        origin: source of the mask: "fo", a preset's name, or "user".
    """

    def __init__(
        self,
        layout: FeatureLayout,
        visible: np.ndarray,
        draw_sizes: Sequence[tuple[int, int]] | None = None,
        origin: str = "user",
        own_actions: int = 0,
        sensor_status: bool = False,
    ) -> None:
        """Check and freeze a mask.

        Args:
            layout: the features' names and blocks.
            visible: ``(agents, n_features)`` of the layout, bool; or ``(agents, layout.obs_size)``.
            draw_sizes: per agent (low, high): each episode shows between low and high of its visible features.
            origin: "fo", a preset's name, or "user".
            own_actions: number of actions, for agents that see their own last one; else 0.
            sensor_status: whether agents are told which of their drawn features an episode shows.

        Raises:
            UserError: everything is hidden from an agent, something visible does not exist, or there is no draw to
                tell of.
        """
        full = np.zeros((layout.n_agents, layout.n_features), bool)
        given = np.asarray(visible, bool)
        if given.shape not in (full.shape, (layout.n_agents, layout.obs_size)):
            raise UserError(f"a mask for {layout.task} has shape {full.shape}, not {given.shape}")
        full[:, : given.shape[1]] = given
        for agent, row in enumerate(full):
            _check_row(layout, agent, row)
        self.layout = layout
        self.origin = origin
        extended = own_actions > 0 or bool(full[:, layout.obs_size :].any())
        sensed = full if extended else full[:, : layout.obs_size]
        self.own_actions, self.sensed_size = own_actions, sensed.shape[1]
        self.draw_sizes = None if draw_sizes is None else tuple((int(low), int(high)) for low, high in draw_sizes)
        if sensor_status and self.draw_sizes is None:
            raise UserError(
                "sensor_status tells which features an episode shows, and this mask shows the same in every episode: "
                "leave sensor_status out, or set masks_preset=random under limits lh or lha"
            )
        self.sensor_status = sensor_status
        # Agents of whose features an episode may hide some.
        lows = sensed.sum(1) if self.draw_sizes is None else [low for low, _ in self.draw_sizes]
        self._drawn = np.array(lows) < sensed.sum(1)
        own = np.ones((layout.n_agents, own_actions), bool)
        self.visible = np.concatenate([sensed, *self._told(sensed), own], axis=1)
        self.visible.setflags(write=False)
        if self.draw_sizes is not None:
            counts = self._sensed.sum(1)
            assert len(self.draw_sizes) == layout.n_agents, "one range of draw sizes an agent"
            assert all(1 <= low <= high <= n for (low, high), n in zip(self.draw_sizes, counts, strict=True)), (
                f"draw sizes {self.draw_sizes} do not fit {counts.tolist()} features"
            )

    @property
    def n_agents(self) -> int:
        """Number of agents."""
        return self.layout.n_agents

    @property
    def obs_size(self) -> int:
        """Length of a masked observation: extended if an agent sees a derived feature, and with the own last action."""
        return int(self.visible.shape[1])

    @property
    def _sensed(self) -> np.ndarray:
        """The columns of `visible` without the own last action."""
        return self.visible[:, : self.sensed_size]

    @property
    def own_start(self) -> int:
        """Index at which the own last action begins."""
        return self.obs_size - self.own_actions

    def _told(self, shown: np.ndarray) -> list[np.ndarray]:
        """Return the columns of the status, given the shown features ``(..., agents, sensed_size)``; none without it.

        An agent whose features are always shown is told nothing.
        """
        return [shown & self._drawn[:, None]] if self.sensor_status else []

    @property
    def draw_per_episode(self) -> bool:
        """Whether each episode has a mask of its own."""
        return self.draw_sizes is not None

    @cached_property
    def counts(self) -> tuple[float, ...]:
        """Features each agent observes in an episode (the middle of the range where it is drawn)."""
        if self.draw_sizes is None:
            return tuple(float(n) for n in self._sensed.sum(1))
        return tuple((low + high) / 2 for low, high in self.draw_sizes)

    def indices(self, agent: int) -> tuple[int, ...]:
        """Return the elements of the observation that this agent's student takes as inputs.

        With a mask drawn per episode these are all the features that may be drawn; those an episode hides are zero.
        """
        return tuple(int(i) for i in np.flatnonzero(self.visible[agent]))

    def names(self, agent: int) -> tuple[str, ...]:
        """Return the names of the features at `indices`."""
        names = self.layout.feature_names[agent]
        observed = tuple(str(names[i]) for i in self.indices(agent) if i < self.sensed_size)
        told = (i - self.sensed_size for i in self.indices(agent) if self.sensed_size <= i < self.own_start)
        return observed + tuple(f"{SENSOR_STATUS}{names[i]}" for i in told) + own_action_names(self.own_actions)

    def extend(self, obs: Rows, last_actions: Rows | None = None) -> Rows:
        """Extend observations to the features that the mask refers to.

        Args:
            obs: ``(..., agents, layout.obs_size)``, floating point.
            last_actions: ``(..., agents)`` integer, each agent's last action, -1 before its first; read with
                ``own_actions``.

        Returns:
            ``(..., agents, obs_size)``, of the kind and dtype of `obs`.
        """
        if self.sensed_size > self.layout.obs_size:
            obs = self.layout.extend(obs)
        if self.sensor_status:
            # Where the mask hides a feature it hides this number too, and then it is 0.
            obs = _with_ones(obs, self.own_start - self.sensed_size)
        if not self.own_actions:
            return obs
        assert last_actions is not None, "this mask gives agents their own last actions"
        return _joined(obs, last_actions, self.own_actions)

    def apply(self, obs: torch.Tensor, last_actions: torch.Tensor | None, visible: torch.Tensor | None) -> torch.Tensor:
        """Compute the inputs of the students from whole episodes.

        Args:
            obs: ``(batch, time, agents, layout.obs_size)`` float32.
            last_actions: ``(batch, time, agents)`` integer, as for `extend`.
            visible: ``(batch, agents, obs_size)``, the masks of the episodes, 1 where visible. None for a fixed mask:
                then nothing is hidden here, since the students' networks read visible features only.

        Returns:
            ``(batch, time, agents, obs_size)`` float32; hidden features are 0.
        """
        obs = self.extend(obs, last_actions)
        return obs if visible is None else obs.masked_fill(visible.unsqueeze(1) == 0, 0.0)

    def draw(self, seed: int, episode: int) -> np.ndarray:
        """Draw the mask of one episode.

        Args:
            seed: seed of the environment.
            episode: number of episodes that the environment began before this one.

        Returns:
            ``(agents, obs_size)`` bool, a function of the arguments alone; `visible` for a fixed mask.

        Raises:
            UserError: a negative ``seed`` or ``episode``, if masks are drawn.
        """
        if self.draw_sizes is None:
            return self.visible
        if seed < 0 or episode < 0:
            raise UserError(f"masks are drawn from a seed and an episode of at least 0, not {seed} and {episode}")
        rng = np.random.default_rng([seed, episode])
        drawn = np.zeros_like(self._sensed)
        for agent, (low, high) in enumerate(self.draw_sizes):
            size = rng.integers(low, high, endpoint=True)
            drawn[agent, rng.choice(np.flatnonzero(self._sensed[agent]), size, replace=False)] = True
        return np.concatenate([drawn, *self._told(drawn), self.visible[:, self.own_start :]], axis=1)

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draw masks of ``count`` episodes that no environment played, by the rule of `draw`.

        Returns:
            ``(count, agents, obs_size)`` bool; for a fixed mask `visible` each time.
        """
        if self.draw_sizes is None:
            return np.broadcast_to(self.visible, (count, *self.visible.shape))
        low, high = np.array(self.draw_sizes).T
        sizes = rng.integers(low, high, size=(count, self.n_agents), endpoint=True)
        # The features with the smallest random keys are a uniformly drawn subset; hidden features come last.
        sensed = self._sensed
        keys = np.where(sensed, rng.random((count, *sensed.shape)), 2.0)
        ranks = keys.argsort(-1).argsort(-1)
        always = np.ones((count, self.n_agents, self.own_actions), bool)
        shown = ranks < sizes[..., None]
        return np.concatenate([shown, *self._told(shown), always], axis=-1)

    def signature(self) -> str:
        """Compute the sha256 of everything that decides the visible features; `origin` does not count."""
        facts = {key: value for key, value in self.to_dict().items() if key != "origin"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Convert the mask to plain lists and dicts, for JSON; `visible` as each agent's indices."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "layout": self.layout.to_dict(),
            "visible": [np.flatnonzero(row).tolist() for row in self._sensed],
            "draw_sizes": None if self.draw_sizes is None else [list(size) for size in self.draw_sizes],
            "origin": self.origin,
            # Left out where they are 0 and false: the keys are optional in the format.
            **({"own_actions": self.own_actions} if self.own_actions else {}),
            **({"sensor_status": True} if self.sensor_status else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ObservationMask:
        """Invert `to_dict`.

        Raises:
            UserError: the data are not a mask, or one of another version.
        """
        found = (data.get("format"), data.get("version"))
        if found != (FORMAT, VERSION):
            raise UserError(
                f"expected a mask of format {FORMAT} version {VERSION}, found {found[0]} version {found[1]}"
            )
        layout = FeatureLayout.from_dict(data["layout"])
        visible = np.zeros((layout.n_agents, layout.n_features), bool)
        for agent, indices in enumerate(data["visible"]):
            visible[agent, indices] = True
        sizes = data["draw_sizes"]
        drawn = None if sizes is None else [(low, high) for low, high in sizes]
        told = data.get("own_actions", 0), data.get("sensor_status", False)
        return cls(layout, visible, drawn, data["origin"], *told)


def own_action_names(n_actions: int) -> tuple[str, ...]:
    """Name the own last action's features, one per action."""
    return tuple(f"{OWN_ACTION}{action}" for action in range(n_actions))


def before(actions: torch.Tensor) -> torch.Tensor:
    """Shift actions ``(batch, time, agents)`` by one step: each agent's last action at every step, -1 at the first."""
    shifted = actions.roll(1, dims=1)
    shifted[:, 0] = -1
    return shifted


def _with_ones(obs: Rows, count: int) -> Rows:
    """Append ``count`` ones to observations ``(..., features)``."""
    shape = (*obs.shape[:-1], count)
    if isinstance(obs, np.ndarray):
        return np.concatenate([obs, np.ones(shape, obs.dtype)], axis=-1)
    import torch

    return torch.cat([obs, obs.new_ones(shape)], dim=-1)


def _joined(obs: Rows, last_actions: Rows, n_actions: int) -> Rows:
    """Append the last actions ``(...)``, one-hot, to observations ``(..., features)``; -1 gives zeros."""
    if isinstance(obs, np.ndarray):
        one_hot = np.asarray(last_actions)[..., None] == np.arange(n_actions)
        return np.concatenate([obs, one_hot.astype(obs.dtype)], axis=-1)
    import torch

    one_hot = last_actions.unsqueeze(-1) == torch.arange(n_actions, device=obs.device)
    return torch.cat([obs, one_hot.to(obs.dtype)], dim=-1)


def _check_row(layout: FeatureLayout, agent: int, row: np.ndarray) -> None:
    """Refuse a row that shows nothing, or that shows padding.

    Raises:
        UserError: the row is one of these.
    """
    name = layout.agent_names[agent]
    if not row.any():
        raise UserError(f"the mask hides everything from agent '{name}': give it at least one feature")
    for index in np.flatnonzero(row):
        if layout.feature_names[agent][index] is None:
            raise UserError(f"the mask shows agent '{name}' element {index} of its observation, which is only padding")
