"""VMAS's scenarios (PyPI ``vmas``) in batches, as VMAS itself steps them; one alone is very slow."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from epymarl_lite.envs.env_group import Outcome, Views
from kd_envs.gymma_args import GymmaArgs
from kd_envs.stepped_together import SteppedTogether
from kd_envs.worlds import World, vmas_world


class VmasBatch(SteppedTogether):
    """``size`` environments of one scenario stepped in one call: a ``VectorEnv``.

    Observations are padded and the state built as in gymma. VMAS has one stream of random numbers for the whole batch,
    so an environment's episodes depend on the batch's size.

    Args:
        size: environments stepped together.
        env: VMAS's own batch of that size.
        args: gymma's; the seed is that of the batch.
    """

    title = "VMAS stepped in one call"

    def __init__(self, size: int, env: Any, args: GymmaArgs) -> None:
        self.size, self._env, self._args, self.episode_limit = size, env, args, args.time_limit
        widths = [int(space.shape[0]) for space in env.observation_space.spaces]
        n_actions = [int(space.n) for space in env.action_space.spaces]
        self._width = max(widths)
        self.env_info = {
            "state_shape": len(widths) * self._width,
            "obs_shape": self._width,
            "n_actions": max(n_actions),
            "n_agents": len(widths),
            "episode_limit": self.episode_limit,
        }
        available = np.arange(max(n_actions)) < np.array(n_actions)[:, None]
        self._available = np.broadcast_to(available, (size, *available.shape)).astype(np.int32)
        self._steps = 0
        self.reseed(args.seed)

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
        earned = self._args.share(np.stack([reward.double().numpy() for reward in rewards], axis=1)[chosen])
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


def batched_vmas(size: int, **env_args: Any) -> VmasBatch | None:
    """Build a scenario of gymma's ``env_args``, stepped in one call; None for any other key, or without VMAS."""
    args = GymmaArgs.read(env_args)
    if args is None or not args.key.startswith("vmas-") or importlib.util.find_spec("vmas") is None:
        return None
    import vmas

    options = {"continuous_actions": False, "dict_spaces": False, "terminated_truncated": True}
    env = vmas.make_env(args.key.removeprefix("vmas-"), num_envs=size, **options, **args.others)
    return VmasBatch(size, env, args)
