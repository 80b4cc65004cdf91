"""Episodes of a buffer as one agent's board would have met them: its features, its available actions, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_envs.hetero_mask.mask import ObservationMask, before
from kd_onboard import int8

# Logits (batch, actions), action (batch,), next state (batch, width).
StepOutcome: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
# From features (batch, inputs), available (batch, actions) bool and state (batch, width).
Step: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray], StepOutcome]


@dataclass(frozen=True)
class Seen:
    """One agent's part of the episodes.

    Attributes:
        features: ``(episodes, time, inputs)`` float32.
        available: ``(episodes, time, actions)`` bool.
        acting: ``(episodes, time)`` bool, the decisions that count.
    """

    features: np.ndarray
    available: np.ndarray
    acting: np.ndarray


@dataclass(frozen=True)
class Replay:
    """Episodes of a whole team.

    Attributes:
        obs: ``(episodes, time, agents, features)`` float32, extended and masked.
        available: ``(episodes, time, agents, actions)`` bool.
        acting: ``(episodes, time, agents)`` bool: the step was taken and the agent had a choice.
    """

    obs: np.ndarray
    available: np.ndarray
    acting: np.ndarray

    def features(self, mask: ObservationMask, agent: int) -> np.ndarray:
        """Return what reaches one agent, ``(episodes, time, inputs)``."""
        return np.ascontiguousarray(self.obs[:, :, agent, mask.indices(agent)])

    def seen(self, mask: ObservationMask, agent: int) -> Seen:
        """Return all that one agent met."""
        return Seen(self.features(mask, agent), self.available[:, :, agent], self.acting[:, :, agent])


def from_buffer(buffer: ExpertBuffer, mask: ObservationMask, episodes: int, seed: int) -> Replay:
    """Return random episodes of an expert buffer, with a mask drawn for each where masks are drawn.

    Args:
        buffer: whose observations are unmasked.
        mask: who sees what.
        episodes: how many; all there are if that is fewer.
        seed: of the choice and of the masks.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(buffer.episodes)[:episodes])
    batch = buffer.gather(chosen, ("obs", "avail_actions", "actions", "length"))
    obs = mask.extend(batch["obs"][:, :-1], before(batch["actions"])).numpy()
    visible = mask.sample(rng, len(chosen))[:, None]
    available = batch["avail_actions"][:, :-1].numpy() > 0
    taken = np.arange(obs.shape[1]) < batch["length"].numpy()[:, None]
    acting = taken[:, :, None] & (available.sum(-1) > 1)
    return Replay(np.where(visible, obs, np.float32(0)), available, acting)


def joined(parts: Sequence[Replay]) -> Replay:
    """Join episodes of tasks of equal sizes; shorter ones are padded with steps that do not count."""
    time = max(part.obs.shape[1] for part in parts)

    def padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.pad(x, [(0, 0), (0, time - x.shape[1]), *[(0, 0)] * (x.ndim - 2)]) for x in arrays])

    if len(parts) == 1:
        return parts[0]
    return Replay(
        padded([part.obs for part in parts]),
        padded([part.available for part in parts]),
        padded([part.acting for part in parts]),
    )


def run(step: Step, features: np.ndarray, available: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Run one agent along all episodes at once.

    Args:
        step: the network.
        features: ``(episodes, time, inputs)`` float32.
        available: ``(episodes, time, actions)`` bool.
        width: of the state.

    Returns:
        Logits ``(episodes, time, actions)`` and actions ``(episodes, time)``.
    """
    state = np.zeros((len(features), width), np.float32)
    logits, actions = [], []
    for t in range(features.shape[1]):
        now, action, state = step(np.ascontiguousarray(features[:, t]), np.ascontiguousarray(available[:, t]), state)
        logits.append(now)
        actions.append(action)
    return np.stack(logits, 1), np.stack(actions, 1)


def int8_step(network: int8.Int8Network) -> Step:
    """Return the arithmetic of an int8 C program as a `Step`."""

    def step(features: np.ndarray, available: np.ndarray, state: np.ndarray) -> StepOutcome:
        logits, following = int8.step(network, features, state)
        return logits, np.where(available, logits, -np.inf).argmax(1), following

    return step


def torch_step(network: torch.nn.Module) -> Step:
    """Return the torch network of one agent as a `Step`, with the choice as the controller makes it."""

    @torch.no_grad()
    def step(features: np.ndarray, available: np.ndarray, state: np.ndarray) -> StepOutcome:
        logits, following = network(torch.from_numpy(features), torch.from_numpy(state))
        action = np.where(available, logits.numpy(), -np.inf).argmax(1)
        return logits.numpy(), action, following.numpy()

    return step
