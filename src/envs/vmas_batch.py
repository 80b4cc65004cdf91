"""VMAS's scenarios (PyPI ``vmas``) in batches, as VMAS itself steps them; one alone is very slow."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from epymarl_lite.envs.env_group import Outcome, Views
from kd_envs.stepped_together import SteppedTogether
from kd_envs.worlds import World, vmas_world


class VmasBatch(SteppedTogether):
    """``size`` environments of one scenario stepped in one call: a ``VectorEnv``.

    Observations are padded and the state built as in gymma. VMAS has one stream of random numbers for the whole batch,
    so an environment's episodes depend on the batch's size.

    Args:
        size: environments stepped together.
        env: VMAS's own batch of that size.
        time_limit: steps after which an episode is truncated.
        seed: of the batch.
        common_reward: one reward for the team, or each agent's own.
        reward_scalarisation: the team's reward is the ``sum`` or the ``mean`` over the agents.
    """

    title = "VMAS stepped in one call"

    def __init__(
        self, size: int, env: Any, time_limit: int, seed: int, common_reward: bool, reward_scalarisation: str
    ) -> None:
        self.size, self._env, self.episode_limit = size, env, time_limit
        self._common_reward, self._mean = common_reward, reward_scalarisation == "mean"
        widths = [int(space.shape[0]) for space in env.observation_space.spaces]
        n_actions = [int(space.n) for space in env.action_space.spaces]
        self._width = max(widths)
        self.env_info = {
            "state_shape": len(widths) * self._width,
            "obs_shape": self._width,
            "n_actions": max(n_actions),
            "n_agents": len(widths),
            "episode_limit": time_limit,
        }
        available = np.arange(max(n_actions)) < np.array(n_actions)[:, None]
        self._available = np.broadcast_to(available, (size, *available.shape)).astype(np.int32)
        self._steps = 0
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Restart the batch's random stream."""
        self._env.seed(seed)

    def reset(self) -> Views:
        """Begin an episode in each environment."""
        self._steps = 0
        return self._views(self._env.reset(), slice(None))

    def step(self, rows: Sequence[int], actions: np.ndarray) -> Outcome:
        """Step the environments ``rows`` with ``actions`` (k, agents); nobody reads what the others do."""
        import torch

        chosen = np.asarray(rows)
        every = np.zeros((self.size, self.env_info["n_agents"]), np.int64)
        every[chosen] = actions
        obs, rewards, terminated, truncated, infos = self._env.step(list(torch.from_numpy(every.T[..., None].copy())))
        self._steps += 1
        earned = np.stack([reward.double().numpy() for reward in rewards], axis=1)[chosen]
        if self._common_reward:
            earned = (np.mean if self._mean else np.sum)(earned, axis=1, keepdims=True)
        ended = terminated.numpy()[chosen].copy()
        cut = truncated.numpy()[chosen] | (self._steps >= self.episode_limit)
        facts = [
            self._facts(infos, row) if over else {} for row, over in zip(chosen.tolist(), ended | cut, strict=True)
        ]
        return Outcome(self._views(obs, chosen), earned, ended, cut & ~ended, facts)

    def worlds(self, rows: Sequence[int]) -> list[World]:
        """Return where the agents and landmarks of these environments are."""
        return [vmas_world(self._env.world, row) for row in rows]

    def _facts(self, infos: Sequence[dict[str, Any]], row: int) -> dict[str, float]:
        """Read the last step's numbers of one environment: ``agent/name``."""
        named = zip(self._env.agents, infos, strict=True)
        return {
            f"{agent.name}/{key}": float(value[row])
            for agent, info in named
            for key, value in info.items()
            if value[row].numel() == 1
        }

    def _views(self, observations: Sequence[Any], rows: Any) -> Views:
        obs = np.zeros((self.size, len(observations), self._width), np.float32)
        for agent, row in enumerate(observations):
            obs[:, agent, : row.shape[1]] = row.numpy()
        obs = obs[rows]
        return Views(obs.reshape(len(obs), -1).copy(), obs, self._available[rows].copy())


def batched_vmas(
    size: int,
    key: str | None = None,
    time_limit: int = 0,
    pretrained_wrapper: str | None = None,
    seed: int = 0,
    common_reward: bool = True,
    reward_scalarisation: str = "sum",
    **others: Any,
) -> VmasBatch | None:
    """Build a scenario of gymma's ``env_args``, stepped in one call; None for any other key, or without VMAS."""
    named = str(key).startswith("vmas-") and pretrained_wrapper is None
    known = (
        reward_scalarisation in ("sum", "mean") and type(time_limit) is int and time_limit >= 1 and type(seed) is int
    )
    if not (named and known and importlib.util.find_spec("vmas")):
        return None
    import vmas

    options = {"continuous_actions": False, "dict_spaces": False, "terminated_truncated": True}
    env = vmas.make_env(str(key).removeprefix("vmas-"), num_envs=size, **options, **others)
    return VmasBatch(size, env, time_limit, seed, common_reward, reward_scalarisation)
