"""Environments stepped together whose worlds are noted at every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from epymarl_lite.envs.env_group import EnvGroup, Outcome, VectorEnv, Views, env_factories
from epymarl_lite.runners.rollout import RolloutRunner
from kd_core.host import Host
from kd_envs.worlds import World, read_world
from kd_marl.stress.envs import DisturbedEnvs, Trouble
from kd_runners.vector import batched_envs

# Under this name the runner stands in the host's registry while it is needed.
RUNNER = "kd_watch"


class RecordedEnvs:
    """A ``VectorEnv`` around another that notes where everything is.

    Attributes:
        size: how many environments.
        worlds: of each environment the worlds of its episode so far, the first before any step; None of one whose
            environment tells of none.
    """

    def __init__(self, envs: VectorEnv) -> None:
        self.size = envs.size
        self._envs = envs
        self.worlds: list[list[World | None]] = []

    def reset(self) -> Views:
        """Begin an episode in each environment."""
        views = self._envs.reset()
        self.worlds = [[world] for world in self._look(range(self.size))]
        return views

    def step(self, rows: Sequence[int], actions: np.ndarray) -> Outcome:
        """Step the environments ``rows`` with ``actions`` (k, agents)."""
        outcome = self._envs.step(rows, actions)
        for row, world in zip(rows, self._look(rows), strict=True):
            self.worlds[row].append(world)
        return outcome

    def call(self, method: str) -> list[Any]:
        """Call a method without arguments of every environment."""
        return self._envs.call(method)

    def close(self) -> None:
        """Close every environment."""
        self._envs.close()

    def _look(self, rows: Sequence[int]) -> list[World | None]:
        if isinstance(self._envs, EnvGroup):
            return [read_world(self._envs.envs[row]) for row in rows]
        # Environments that are stepped together.
        return list(self._envs.worlds(np.asarray(rows)))  # type: ignore[attr-defined]


class RecordingRunner(RolloutRunner):
    """Plays ``batch_size_run`` episodes a run in environments of this process, notes their worlds and disturbs them.

    Attributes:
        recorded: the environments.
        disturbed: the same as the agents meet them.
    """

    def __init__(self, host: Host, args: Any, logger: Any, trouble: Trouble, together: bool) -> None:
        self.batch_class = host.EpisodeBatch
        envs = batched_envs(host, args) if together else None
        self.recorded = RecordedEnvs(envs or EnvGroup(env_factories(args, host.envs)))
        self.disturbed = DisturbedEnvs(self.recorded, trouble, args.env_args["seed"])
        super().__init__(args, logger, self.disturbed)


@contextmanager
def recording(host: Host, trouble: Trouble, together: bool) -> Iterator[list[RecordingRunner]]:
    """Within the block the host has a runner `RUNNER` that notes worlds.

    Args:
        host: whose registry gets it.
        trouble: what goes wrong in the episodes.
        together: step the environments in one call where that is possible; their episodes begin otherwise than those of
            single ones.

    Yields:
        The runners that were built, the latest last.
    """
    made: list[RecordingRunner] = []

    def build(args: Any, logger: Any) -> RecordingRunner:
        made.append(RecordingRunner(host, args, logger, trouble, together))
        return made[-1]

    host.runners[RUNNER] = build
    try:
        yield made
    finally:
        del host.runners[RUNNER]
