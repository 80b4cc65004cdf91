"""The unit of a stock teacher's values where its running statistics are lost (decision 5).

EPyMARL's critics value rewards ``(r - mu) / sigma``, and with ``standardise_returns`` their outputs ``C`` are values
``V = s C + m``. Its checkpoints hold none of mu, sigma, s and m.

- mu and sigma are counted as the host counts them, rows of padding included, but over the teacher's own episodes
  instead of the whole training.
- s and m are those with which values are right on the mean, and for low and high C alike: the mean of ``V - G``, and
  that of ``C (V - G)``, is 0. G is the return that followed; a time limit adds the value of the state after it.
- Where C tells too little of the returns for that, s and m are the deviation and mean of G, as the host counts them.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_core.artifacts.teacher_weights import LEAST_SPREAD
from kd_learners.advantages import gae
from kd_learners.expert_data import VALUE_KEYS, shard_episodes
from kd_learners.frozen_teacher import FrozenTeacher, Scale

# Largest standard error of a fitted deviation, as a share of it.
LARGEST_ERROR = 0.2
# Least determinant of a fit's matrix, as a share of its squared size.
SINGULAR = 1e-9
# Rounds in which the moments of returns that contain values settle.
ROUNDS = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Followed:
    """What followed each state of a buffer: float64, with axes ``(episodes, time, 1 or agents)``.

    Attributes:
        reward: of each step.
        value: the critic's outputs, in the unit of the value statistics as far as they are known.
        end: the same of the state after the last step, ``(episodes, 1, agents)``.
        ahead: ``gamma^k`` where a time limit cut the episode, else 0; k steps are left.
        filled: 1 where a step was taken.
        rows: steps of each episode with the padding up to the longest of its batch, ``(episodes,)``.
        gamma: the discount.
    """

    reward: Tensor
    value: Tensor
    end: Tensor
    ahead: Tensor
    filled: Tensor
    rows: Tensor
    gamma: float

    def summed(self, x: Tensor) -> Tensor:
        """Sum ``gamma^j x`` from each step to the end of its episode."""
        return gae(x * self.filled, self.gamma, 1.0)

    def returns(self, reward: Scale, value: Scale) -> Tensor:
        """Compute the returns that followed, in the unit of ``reward``."""
        own = self.summed((self.reward - reward.mean) / reward.std)
        return own + self.ahead * (self.end * value.std + value.mean)


@dataclass(frozen=True)
class Fit:
    """Deviation and mean of one quantity, and the standard error of the deviation over episodes."""

    std: float
    mean: float
    error: float

    @property
    def usable(self) -> bool:
        """Whether the deviation is well above its error."""
        return self.std > 0.0 and self.error <= LARGEST_ERROR * self.std


def followed(teacher: FrozenTeacher, buffer: ExpertBuffer) -> Followed:
    """Read what followed each state of the buffer's episodes."""
    parts = []
    for shard in buffer.shards(VALUE_KEYS):
        episodes = shard_episodes(shard)
        parts.append((episodes.reward, teacher.values(episodes), episodes.filled, episodes.terminated))
    reward, value, filled, terminated = (torch.cat(part).double() for part in zip(*parts, strict=True))
    length = filled.sum((1, 2)).long()
    batches = length.split(int(teacher.artifact.facts.get("batch_size", 1)))
    longest = torch.cat([batch.max().expand(len(batch)) for batch in batches])
    left = (length[:, None] - torch.arange(filled.shape[1])).clamp(min=0)
    ahead = (teacher.gamma ** left.double()) * (1.0 - terminated.amax(1))
    end = value.gather(1, length[:, None, None].expand(-1, 1, value.shape[-1]))
    return Followed(reward, value[:, :-1], end, ahead[..., None], filled, longest, teacher.gamma)


def fit(target: Tensor, slope: Tensor, constant: Tensor, instrument: Tensor, filled: Tensor) -> Fit:
    """Fit ``target = std slope + mean constant + noise``, whose noise has mean 0 given the instrument.

    Args:
        target: ``(episodes, time, 1)``, as all others.
        slope: what the deviation multiplies.
        constant: what the mean multiplies.
        instrument: known at each step, and related to ``slope``.
        filled: 1 where a step counts.
    """
    known = torch.stack([instrument, torch.ones_like(instrument)], -1) * filled[..., None]
    factors = torch.stack([slope, constant], -1)
    matrix = torch.einsum("etqi,etqj->ij", known, factors)
    if matrix.det().abs() <= SINGULAR * matrix.square().sum():
        # A critic that says the same everywhere.
        return Fit(0.0, 0.0, math.inf)
    inverse = torch.linalg.inv(matrix)
    found = inverse @ torch.einsum("etqi,etq->i", known, target)
    # Steps of one episode are no independent draws.
    noise = torch.einsum("etqi,etq->ei", known, target - factors @ found)
    variance = inverse @ (noise.T @ noise) @ inverse.T
    return Fit(float(found[0]), float(found[1]), float(variance[0, 0].sqrt()))


def counted(x: Tensor, rows: Tensor) -> Scale:
    """Return mean and deviation of each quantity as the host counts them: rows of padding are zeros.

    Args:
        x: ``(episodes, time, quantities)``, 0 where no step was taken.
        rows: of each episode with its padding, ``(episodes,)``.
    """
    count = float(rows.sum())
    mean = x.sum((0, 1)) / count
    variance = (x.square().sum((0, 1)) - count * mean.square()) / max(count - 1.0, 1.0)
    return Scale(mean, variance.clamp(min=LEAST_SPREAD**2).sqrt())


def value_statistics(steps: Followed, reward: Scale) -> tuple[Scale, float | None]:
    """Estimate the values' statistics in the unit of ``reward``.

    Returns:
        Them, and the standard error of the deviation as a share of it; None where they were counted.
    """
    target = steps.summed((steps.reward - reward.mean) / reward.std)
    slope, constant = steps.value - steps.ahead * steps.end, 1.0 - steps.ahead
    columns = [x.expand_as(slope).split(1, -1) for x in (target, slope, constant, steps.value)]
    fits = [fit(y, by, plus, known, steps.filled) for y, by, plus, known in zip(*columns, strict=True)]
    if all(found.usable for found in fits):
        mean, std = (torch.tensor([getattr(found, name) for found in fits]).double() for name in ("mean", "std"))
        return Scale(mean, std), max(found.error / found.std for found in fits)
    scale = Scale(target.new_zeros(1), target.new_ones(1))
    for _ in range(ROUNDS):
        before, scale = scale, counted(steps.returns(reward, scale) * steps.filled, steps.rows)
        if torch.allclose(before.mean, scale.mean) and torch.allclose(before.std, scale.std):
            break
    return scale, None


def estimate(teacher: FrozenTeacher, buffer: ExpertBuffer) -> None:
    """Estimate the statistics that a teacher has lost, and say how far they can be trusted."""
    steps = followed(teacher, buffer)
    said, plain = [], Scale(torch.zeros(1).double(), torch.ones(1).double())
    if teacher.reward_scale is not None:
        reward = teacher.reward_scale.to(torch.float64)
    else:
        reward = counted(steps.reward * steps.filled, steps.rows)
        said.append(_words("rewards", reward, None))
    if teacher.value_scale is None:
        plain, error = value_statistics(steps, reward)
        said.append(_words("returns", plain, error))
        teacher.value_scale = plain.to(torch.float32)
    teacher.reward_scale = reward.to(torch.float32)
    returns = steps.returns(reward, plain)
    taken = steps.filled.expand_as(returns) > 0
    above = (steps.value * plain.std + plain.mean - returns)[taken] / returns[taken].std().clamp(min=LEAST_SPREAD)
    _log.warning(
        "Statistics of the teacher in %s, estimated from %d episodes: %s. Its critic's values then lie %.2f standard "
        "deviations of the returns above those that followed, and scatter by %.2f around them",
        *(teacher.artifact.folder, buffer.episodes, "; ".join(said), float(above.mean()), float(above.std())),
    )


def _words(name: str, scale: Scale, error: float | None) -> str:
    mean, std = (" ".join(f"{number:.4g}" for number in part.tolist()) for part in (scale.mean, scale.std))
    how = "counted over its last policy alone" if error is None else f"deviation within {100 * error:.1f} %"
    return f"{name} mean {mean}, deviation {std} ({how})"
