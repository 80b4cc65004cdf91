"""`ObservationMask`: which features of its observation each agent's student sees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.hetero_mask.layouts import FeatureLayout, Rows
from kd_core.errors import UserError

if TYPE_CHECKING:
    import torch

FORMAT = "kd-marl/mask"
VERSION = 1
# The name of an own last action, before its index.
OWN_ACTION = "own_action."


class ObservationMask:
    """Who sees what, fixed or drawn anew for each episode.

    A mask refers to the extended observation (`FeatureLayout.extend`). When no agent sees a derived feature the
    extension is dropped: `obs_size`, the width of `visible`, and what `extend` returns then are those of the padded
    observation. Derived features come last, so an index means the same either way.

    With ``own_actions`` the extension stays, and the agent's own last action follows it, one-hot, all zeros before its
    first: what it did it knows without a sensor, so no mask hides it and none is drawn for it.

    Attributes:
        layout: the features' names and blocks.
        own_actions: how many actions the own last action is one of; 0 where agents are not given it.
        visible: ``(agents, obs_size)`` bool: the features an agent may ever see.
        draw_sizes: per agent the fewest and the most features drawn in an episode; None for a fixed mask.
        origin: where the mask comes from: "fo", a preset's name, or "user".
    """

    def __init__(
        self,
        layout: FeatureLayout,
        visible: np.ndarray,
        draw_sizes: Sequence[tuple[int, int]] | None = None,
        origin: str = "user",
        own_actions: int = 0,
    ) -> None:
        """Check and freeze a mask.

        Args:
            layout: the features' names and blocks.
            visible: ``(agents, n_features)`` of the layout, bool; or ``(agents, layout.obs_size)``.
            draw_sizes: per agent (low, high): each episode shows between low and high of its visible features.
            origin: "fo", a preset's name, or "user".
            own_actions: number of actions, for agents that are given their own last one; else 0.

        Raises:
            UserError: everything is hidden from an agent, or something visible does not exist.
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
        self.visible = np.concatenate([sensed, np.ones((layout.n_agents, own_actions), bool)], axis=1)
        self.visible.setflags(write=False)
        self.draw_sizes = None if draw_sizes is None else tuple((int(low), int(high)) for low, high in draw_sizes)
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
        """Length of what the mask applies to: extended if an agent sees a derived feature, and the own last action."""
        return int(self.visible.shape[1])

    @property
    def _sensed(self) -> np.ndarray:
        """The columns of `visible` that are observed: all but the own last action."""
        return self.visible[:, : self.sensed_size]

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
        """Elements of the observation that this agent's student takes as inputs.

        With a mask drawn per episode these are all the features that may be drawn; those an episode hides are zero.
        """
        return tuple(int(i) for i in np.flatnonzero(self.visible[agent]))

    def names(self, agent: int) -> tuple[str, ...]:
        """Names of the features at `indices`."""
        names = self.layout.feature_names[agent]
        observed = tuple(str(names[i]) for i in self.indices(agent) if i < self.sensed_size)
        return observed + own_action_names(self.own_actions)

    def extend(self, obs: Rows, last_actions: Rows | None = None) -> Rows:
        """Observations as the mask sees them.

        Args:
            obs: ``(..., agents, layout.obs_size)``.
            last_actions: ``(..., agents)``, each agent's last action, -1 before its first; read with ``own_actions``.

        Returns:
            ``(..., agents, obs_size)``.
        """
        if self.sensed_size > self.layout.obs_size:
            obs = self.layout.extend(obs)
        if not self.own_actions:
            return obs
        assert last_actions is not None, "this mask gives agents their own last actions"
        return _joined(obs, last_actions, self.own_actions)

    def shown(self, obs: torch.Tensor, last_actions: torch.Tensor | None, visible: torch.Tensor | None) -> torch.Tensor:
        """What students are given of whole episodes.

        Args:
            obs: ``(batch, time, agents, layout.obs_size)``.
            last_actions: ``(batch, time, agents)``, as for `extend`.
            visible: ``(batch, agents, obs_size)``, the masks of the episodes; None where they are all the same: then
                nothing is hidden here, since the students' networks read visible features only.

        Returns:
            ``(batch, time, agents, obs_size)``.
        """
        obs = self.extend(obs, last_actions)
        return obs if visible is None else obs.masked_fill(visible.unsqueeze(1) == 0, 0.0)

    def draw(self, seed: int, episode: int) -> np.ndarray:
        """The mask of one episode.

        Args:
            seed: seed of the environment.
            episode: how many episodes the environment has begun before this one.

        Returns:
            ``(agents, obs_size)`` bool, a function of the arguments alone; `visible` for a fixed mask.
        """
        if self.draw_sizes is None:
            return self.visible
        if seed < 0 or episode < 0:
            raise UserError(f"masks are drawn from a seed and an episode of at least 0, not {seed} and {episode}")
        rng = np.random.default_rng([seed, episode])
        drawn = np.zeros_like(self.visible)
        drawn[:, self.sensed_size :] = True
        for agent, (low, high) in enumerate(self.draw_sizes):
            size = rng.integers(low, high, endpoint=True)
            drawn[agent, rng.choice(np.flatnonzero(self._sensed[agent]), size, replace=False)] = True
        return drawn

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Masks of ``count`` episodes that no environment played, by the rule of `draw`.

        Returns:
            ``(count, agents, obs_size)`` bool; for a fixed mask `visible` each time.
        """
        if self.draw_sizes is None:
            return np.broadcast_to(self.visible, (count, *self.visible.shape))
        low, high = np.array(self.draw_sizes).T
        sizes = rng.integers(low, high, size=(count, self.n_agents), endpoint=True)
        # The features with the smallest of independent keys are a uniformly drawn subset; hidden ones come last.
        sensed = self._sensed
        keys = np.where(sensed, rng.random((count, *sensed.shape)), 2.0)
        ranks = keys.argsort(-1).argsort(-1)
        always = np.ones((count, self.n_agents, self.own_actions), bool)
        return np.concatenate([ranks < sizes[..., None], always], axis=-1)

    def signature(self) -> str:
        """Sha256 of all that decides what is seen: layout, visible features and draw sizes (not `origin`)."""
        facts = {key: value for key, value in self.to_dict().items() if key != "origin"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The mask as plain lists and dicts, for JSON; `visible` as each agent's indices."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "layout": self.layout.to_dict(),
            "visible": [np.flatnonzero(row).tolist() for row in self._sensed],
            "draw_sizes": None if self.draw_sizes is None else [list(size) for size in self.draw_sizes],
            "origin": self.origin,
            # Masks without it say nothing of it, as those written before there was such a thing.
            **({"own_actions": self.own_actions} if self.own_actions else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ObservationMask:
        """The inverse of `to_dict`.

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
        return cls(layout, visible, drawn, data["origin"], data.get("own_actions", 0))


def own_action_names(n_actions: int) -> tuple[str, ...]:
    """Names of the own last action's features, one an action."""
    return tuple(f"{OWN_ACTION}{action}" for action in range(n_actions))


def before(actions: torch.Tensor) -> torch.Tensor:
    """Each agent's last action at every step of ``actions`` ``(batch, time, agents)``, -1 at the first."""
    shifted = actions.roll(1, dims=1)
    shifted[:, 0] = -1
    return shifted


def _joined(obs: Rows, last_actions: Rows, n_actions: int) -> Rows:
    """Observations ``(..., features)`` followed by the last actions ``(...)`` one-hot; -1 is none."""
    if isinstance(obs, np.ndarray):
        one_hot = np.asarray(last_actions)[..., None] == np.arange(n_actions)
        return np.concatenate([obs, one_hot.astype(obs.dtype)], axis=-1)
    import torch

    one_hot = last_actions.unsqueeze(-1) == torch.arange(n_actions, device=obs.device)
    return torch.cat([obs, one_hot.to(obs.dtype)], dim=-1)


def _check_row(layout: FeatureLayout, agent: int, row: np.ndarray) -> None:
    """Refuse a row that shows nothing, or a place where the agent has no feature."""
    name = layout.agent_names[agent]
    if not row.any():
        raise UserError(f"the mask hides everything from agent '{name}': give it at least one feature")
    for index in np.flatnonzero(row):
        if layout.feature_names[agent][index] is None:
            raise UserError(f"the mask shows agent '{name}' element {index} of its observation, which is only padding")
