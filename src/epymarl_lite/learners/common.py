"""Shared parts of the learners: the mask of valid steps, masked means, target networks, optimiser steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch as th
from torch import nn

from epymarl_lite.components.episode_buffer import EpisodeBatch


class StatLogger(Protocol):
    """Logger to which learners report their metrics."""

    def log_stat(self, key: str, value: float, t: int, to_sacred: bool = True) -> None:
        """Log `value` under `key` at environment step `t`."""
        ...


def step_mask(batch: EpisodeBatch) -> th.Tensor:
    """Mark the steps that were taken, `(batch, time - 1, 1)` float32.

    `filled` also marks the observation after the last step, so a step was taken where its successor is filled too. The
    flag `terminated` cannot tell: it is 0 throughout an episode that was cut by its time limit.
    """
    return (batch["filled"][:, :-1] * batch["filled"][:, 1:]).float()


def masked_mean(x: th.Tensor, mask: th.Tensor) -> th.Tensor:
    """Average `x` over the entries where `mask`, broadcast to its shape, is 1; return a scalar."""
    mask = mask.expand_as(x)
    return (x * mask).sum() / mask.sum()


def optimiser_step(
    optimiser: th.optim.Optimizer, loss: th.Tensor, params: list[nn.Parameter], clip: float
) -> th.Tensor:
    """Take one step on `loss`, with the gradient's norm clipped to `clip`; return the norm before clipping."""
    optimiser.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(params, clip)
    optimiser.step()
    return norm


class TargetUpdate:
    """Update of target networks from the live ones, called once per training call.

    `rate` up to 1 is a soft step, `target <- (1 - rate) target + rate live`. Above 1 it is the number of calls between
    copies.
    """

    def __init__(self, rate: float) -> None:
        """Start counting calls."""
        self.rate = rate
        self.calls = 0
        self.last_copy = 0

    @th.no_grad()
    def __call__(self, pairs: Iterable[tuple[nn.Module, nn.Module]]) -> None:
        """Update each target of `(target, live)`."""
        self.calls += 1
        if self.rate <= 1:
            for target, live in pairs:
                for old, new in zip(target.parameters(), live.parameters(), strict=True):
                    old.mul_(1 - self.rate).add_(new, alpha=self.rate)
        elif self.calls - self.last_copy >= self.rate:
            for target, live in pairs:
                target.load_state_dict(live.state_dict())
            self.last_copy = self.calls


class StatReporter:
    """Reporter that logs a dict of metrics at most once every `interval` environment steps; the first call logs."""

    def __init__(self, logger: StatLogger, interval: int) -> None:
        """Store `logger`, to which metrics are reported."""
        self.logger = logger
        self.interval = interval
        self.last_t = -interval - 1

    def __call__(self, t_env: int, stats: Mapping[str, th.Tensor]) -> None:
        """Log scalar tensors at environment step `t_env`, if `interval` steps have passed."""
        if t_env - self.last_t < self.interval:
            return
        for key, value in stats.items():
            self.logger.log_stat(key, value.item(), t_env)
        self.last_t = t_env
