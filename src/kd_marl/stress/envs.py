"""Environments stepped together whose agents observe, and can do, what a disturbance leaves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from epymarl_lite.envs.env_group import Outcome, VectorEnv, Views
from kd_core.host import Host
from kd_marl.stress.disturbances import Chain, Disturbance, Memory, only_idle
from kd_runners.vector import VectorRunner

# Under this name the runner stands in the host's registry while it is needed.
RUNNER = "kd_stress"


@dataclass(frozen=True)
class Trouble:
    """What goes wrong in an episode.

    Attributes:
        disturbance: of what agents observe.
        dead: an agent that does nothing; None: all act.
        idle: the action of that agent that does nothing; None where there is none.
        message_loss: probability that a message is lost, for each link and step.
        message_delay: steps by which messages come later than in training.
        jammed: an agent that neither sends nor hears; None: the radio of all works.
    """

    disturbance: Disturbance = field(default_factory=Chain)
    dead: int | None = None
    idle: int | None = None
    message_loss: float = 0.0
    message_delay: int = 0
    jammed: int | None = None


class DisturbedEnvs:
    """A ``VectorEnv`` around another: its observations and available actions are disturbed, the state is not.

    The draws of a step depend on the seed, the episode's number and the step alone: two policies meet the same
    disturbances in the same episodes, however long either of them plays.

    Attributes:
        size: how many environments.
        won: ``(size,)`` float: 1 where the latest episode was won, 0 where not; NaN where nothing says so.
    """

    def __init__(self, envs: VectorEnv, trouble: Trouble, seed: int) -> None:
        self.size = envs.size
        self._envs, self._trouble, self._seed = envs, trouble, seed
        self._episode, self._step = -1, 0
        self._memory: Memory = ()
        self._obs = np.empty(0)
        self.won = np.full(self.size, np.nan)

    def reset(self) -> Views:
        """Begin an episode in each environment."""
        self._episode, self._step, self._memory = self._episode + 1, 0, ()
        self.won = np.full(self.size, np.nan)
        views = self._envs.reset()
        return self._disturbed(views, slice(None), views.obs)

    def step(self, rows: Sequence[int], actions: np.ndarray) -> Outcome:
        """Step the environments ``rows`` with ``actions`` (k, agents)."""
        outcome = self._envs.step(rows, actions)
        for row, info in zip(rows, outcome.infos, strict=True):
            if "battle_won" in info:
                self.won[row] = float(info["battle_won"])
        self._step += 1
        # Of all rows, also those whose episode is over: so the draws of a row do not depend on the others.
        obs = self._obs.copy()
        obs[rows] = outcome.views.obs
        return outcome._replace(views=self._disturbed(outcome.views, rows, obs))

    def call(self, method: str) -> list[Any]:
        """Call a method without arguments of every environment."""
        return self._envs.call(method)

    def close(self) -> None:
        """Close every environment."""
        self._envs.close()

    def _disturbed(self, views: Views, rows: Any, obs: np.ndarray) -> Views:
        self._obs = obs
        rng = np.random.default_rng([self._seed, self._episode, self._step])
        seen, self._memory = self._trouble.disturbance(obs, self._memory, rng)
        available = views.avail_actions
        if self._trouble.dead is not None:
            available = only_idle(available, self._trouble.dead, self._trouble.idle)
        # A copy: the host's batch may share memory with what it is given.
        return views._replace(obs=np.array(seen[rows]), avail_actions=available)


@contextmanager
def disturbing(host: Host, trouble: Trouble) -> Iterator[Callable[[], np.ndarray]]:
    """Within the block the host has a runner `RUNNER` that plays in disturbed environments.

    Args:
        host: whose registry gets it.
        trouble: what goes wrong.

    Yields:
        What tells of the latest block of episodes which were won, see `DisturbedEnvs.won`.
    """
    made: list[DisturbedEnvs] = []

    def build(args: Any, logger: Any) -> VectorRunner:
        runner = VectorRunner(args, logger)
        made.append(DisturbedEnvs(runner.envs, trouble, args.env_args["seed"]))
        runner.envs = made[-1]
        return runner

    host.runners[RUNNER] = build
    try:
        yield lambda: made[-1].won
    finally:
        del host.runners[RUNNER]
