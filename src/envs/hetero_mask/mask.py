"""`ObservationMask`: which features of its observation each agent's student sees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from envs.hetero_mask.layouts import FeatureLayout, Rows
from kd_marl.errors import UserError

FORMAT = "kd-marl/mask"
VERSION = 1


class ObservationMask:
    """Who sees what, fixed or drawn anew for each episode.

    A mask refers to the extended observation (`FeatureLayout.extend`). When no agent sees a derived feature the
    extension is dropped: `obs_size`, the width of `visible`, and what `extend` returns then are those of the padded
    observation. Derived features come last, so an index means the same either way.

    Attributes:
        layout: the features' names and blocks.
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
    ) -> None:
        """Check and freeze a mask.

        Args:
            layout: the features' names and blocks.
            visible: ``(agents, n_features)`` of the layout, bool; or ``(agents, layout.obs_size)``.
            draw_sizes: per agent (low, high): each episode shows between low and high of its visible features.
            origin: "fo", a preset's name, or "user".

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
        uses_derived = bool(full[:, layout.obs_size :].any())
        self.visible = full if uses_derived else full[:, : layout.obs_size].copy()
        self.visible.setflags(write=False)
        self.draw_sizes = None if draw_sizes is None else tuple((int(low), int(high)) for low, high in draw_sizes)
        if self.draw_sizes is not None:
            counts = self.visible.sum(1)
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
        """Length of the observation that the mask applies to: extended if an agent sees a derived feature."""
        return int(self.visible.shape[1])

    @property
    def draw_per_episode(self) -> bool:
        """Whether each episode has a mask of its own."""
        return self.draw_sizes is not None

    @cached_property
    def counts(self) -> tuple[float, ...]:
        """Number of features each agent sees in an episode (the middle of the range where it is drawn)."""
        if self.draw_sizes is None:
            return tuple(float(n) for n in self.visible.sum(1))
        return tuple((low + high) / 2 for low, high in self.draw_sizes)

    def indices(self, agent: int) -> tuple[int, ...]:
        """Elements of the observation that this agent's student takes as inputs.

        With a mask drawn per episode these are all the features that may be drawn; those an episode hides are zero.
        """
        return tuple(int(i) for i in np.flatnonzero(self.visible[agent]))

    def names(self, agent: int) -> tuple[str, ...]:
        """Names of the features at `indices`."""
        names = self.layout.feature_names[agent]
        return tuple(str(names[i]) for i in self.indices(agent))

    def extend(self, obs: Rows) -> Rows:
        """Observations ``(..., agents, layout.obs_size)`` as the mask sees them: ``(..., agents, obs_size)``."""
        return self.layout.extend(obs) if self.obs_size > self.layout.obs_size else obs

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
        for agent, (low, high) in enumerate(self.draw_sizes):
            size = rng.integers(low, high, endpoint=True)
            drawn[agent, rng.choice(np.flatnonzero(self.visible[agent]), size, replace=False)] = True
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
        keys = np.where(self.visible, rng.random((count, *self.visible.shape)), 2.0)
        ranks = keys.argsort(-1).argsort(-1)
        return ranks < sizes[..., None]

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
            "visible": [list(self.indices(agent)) for agent in range(self.n_agents)],
            "draw_sizes": None if self.draw_sizes is None else [list(size) for size in self.draw_sizes],
            "origin": self.origin,
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
        return cls(layout, visible, None if sizes is None else [(low, high) for low, high in sizes], data["origin"])


def _check_row(layout: FeatureLayout, agent: int, row: np.ndarray) -> None:
    """Refuse a row that shows nothing, or a place where the agent has no feature."""
    name = layout.agent_names[agent]
    if not row.any():
        raise UserError(f"the mask hides everything from agent '{name}': give it at least one feature")
    for index in np.flatnonzero(row):
        if layout.feature_names[agent][index] is None:
            raise UserError(f"the mask shows agent '{name}' element {index} of its observation, which is only padding")
