"""FLOPs that the teacher's learner really needs, and the most that this machine's matrix multiplication gives.

Counted are matrix products, a multiply-add as two, on what teaches something: decisions of agents that had a choice,
and steps that were taken. Padding, dead agents, element-wise work, Adam and everything else cost time and count
nothing.

With d inputs, s state features, width w, a actions and n agents, one pass forward is

- policy, a decision:  2 (d w + 6 w^2 + w a)      input layer, GRU (3 gates, 2 products each), output layer
- critic, a step:      2 (s w + n (w^2 + w))      the first layer reads what the agents share, so once a step

A pass backward is twice that, for the gradients of weights and of inputs, less the first layer's inputs, which need
none: 2 (d w) and 2 (s w). An update is one pass forward over the block, and ``epochs`` passes forward and backward.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

MATRIX = 2048


@dataclass(frozen=True)
class LearnerSizes:
    """Sizes of the two networks; ``shared`` is what the critic reads once a step."""

    inputs: int
    shared: int
    width: int
    actions: int
    agents: int

    @classmethod
    def of(cls, learner: Any) -> LearnerSizes:
        """Those of a ``kd_mappo_teacher`` in its default form: recurrent, with a critic that reads the state."""
        mac, critic = learner.mac.sizes, learner.critic_sizes
        assert mac.use_rnn and critic.critic_type == "cv_critic", "counted for the default networks only"
        assert not critic.obs_individual_obs and not critic.obs_last_action, "counted for the default networks only"
        return cls(mac.input_size, critic.state_size, mac.hidden_dim, mac.n_actions, mac.n_agents)

    @property
    def policy_forward(self) -> int:
        """Of one decision."""
        return 2 * (self.inputs * self.width + 6 * self.width**2 + self.width * self.actions)

    @property
    def critic_forward(self) -> int:
        """Of one step."""
        return 2 * (self.shared * self.width + self.agents * (self.width**2 + self.width))

    @property
    def policy_trained(self) -> int:
        """Of one decision, forward and backward."""
        return 3 * self.policy_forward - 2 * self.inputs * self.width

    @property
    def critic_trained(self) -> int:
        """Of one step, forward and backward."""
        return 3 * self.critic_forward - 2 * self.shared * self.width

    def update(self, decisions: int, steps: int, epochs: int) -> int:
        """Of one update on a block with so many decisions and steps."""
        policy = decisions * (self.policy_forward + epochs * self.policy_trained)
        return policy + steps * (self.critic_forward + epochs * self.critic_trained)


def needed(learner: Any, batch: Any) -> dict[str, int]:
    """What one update on a host's batch needs.

    Returns:
        ``flops``, ``decisions``, ``steps``, and ``computed``: decisions with the padding that the learner computes too.
    """
    from kd_learners import batches
    from kd_learners.losses import acting_mask
    from kd_learners.rollout import cut

    episodes, settings = batches.from_host(batch), learner.settings
    acting = acting_mask(episodes.filled.squeeze(-1), episodes.avail_actions[:, :-1])
    decisions, steps = int(acting.sum()), int(episodes.filled.sum())
    rows = int(cut(acting, settings.chunk_length).any(dim=1).sum())
    flops = LearnerSizes.of(learner).update(decisions, steps, settings.epochs)
    return {"flops": flops, "decisions": decisions, "steps": steps, "computed": rows * settings.chunk_length}


def matmul_peak(dtype: torch.dtype, seconds: float = 2.0, size: int = MATRIX) -> float:
    """FLOPs per second of the best of many products of square matrices, with the threads that torch has now."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    best, started = float("inf"), time.perf_counter()
    torch.mm(left, right)
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - before)
    return 2 * size**3 / best
