"""A follower: students of one width that imitate the teacher while it learns, so that it remains imitable.

A teacher that sees everything comes to depend on features that its students will not see (the imitation gap).
Distillation cannot repair that afterwards. So a follower, which sees what the run's limits leave, is fitted to every
block of episodes that the teacher plays.

The teacher's loss contains its distance from the follower (`losses.imitation_gap`). Where the follower predicts the
teacher, the term vanishes. Elsewhere it moves the teacher towards winning actions that can be predicted. After
Messikommer et al., arXiv 2412.09149, who put the distance into the reward.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd_controllers.student_net import HeteroStudent
from kd_envs.hetero_mask.mask import ObservationMask, before
from kd_learners.batches import Episodes
from kd_learners.labelled import until_last_decision
from kd_learners.losses import kl_divergence, masked_log_softmax, masked_mean

# The same as for students (kd_student.yaml).
MINIBATCH_EPISODES = 64
GRAD_NORM_CLIP = 10.0


class Follower:
    """Students of one width that imitate the teacher on the teacher's own episodes.

    Attributes:
        network: the students' policies.
        blocks: number of blocks of episodes that it was fitted to.
    """

    def __init__(self, mask: ObservationMask, n_actions: int, width: int, lr: float, seed: int) -> None:
        """Build random networks.

        Args:
            mask: the features that each agent sees.
            n_actions: size of the action space.
            width: hidden units of every student.
            lr: Adam's learning rate at the start of training.
            seed: of the masks, where they are drawn for each episode.
        """
        self.mask, self.seed, self.lr = mask, seed, lr
        visible = [mask.indices(agent) for agent in range(mask.n_agents)]
        self.network = HeteroStudent([width] * mask.n_agents, visible, n_actions)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=lr)
        self.blocks = 0

    def fit(self, episodes: Episodes, teacher_log_probs: Tensor, acting: Tensor, lr_share: float) -> Tensor:
        """Imitate one block of episodes in one pass over it.

        Args:
            episodes: those the teacher played, unmasked.
            teacher_log_probs: ``(batch, time, agents, actions)`` float32.
            acting: ``(batch, time, agents)``, 1 where a decision was made.
            lr_share: the share of the initial learning rate to use.

        Returns:
            The fitted follower's log-probabilities, ``(batch, time, agents, actions)`` float32, without gradient; zeros
            after an episode's last decision.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr * lr_share
        seen, avail = self._seen(episodes), episodes.avail_actions[:, :-1]
        with torch.enable_grad():
            for rows in torch.randperm(len(seen)).split(MINIBATCH_EPISODES):
                length, steps = until_last_decision(acting[rows])
                log_probs = self._log_probs(seen[rows][steps], avail[rows][steps], length)
                loss = masked_mean(kl_divergence(teacher_log_probs[rows][steps], log_probs), acting[rows][steps])
                self.optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.network.parameters(), GRAD_NORM_CLIP)
                self.optimiser.step()
        self.blocks += 1
        length, steps = until_last_decision(acting)
        after = torch.zeros_like(teacher_log_probs)
        with torch.no_grad():
            after[steps] = self._log_probs(seen[steps], avail[steps], length)
        return after

    def _log_probs(self, seen: Tensor, avail: Tensor, length: Tensor) -> Tensor:
        """Compute log-probabilities ``(steps, agents, actions)`` along packed episodes of these lengths."""
        logits, _ = self.network.unroll_packed(seen, length)
        return masked_log_softmax(logits, avail)

    def _seen(self, episodes: Episodes) -> Tensor:
        """Compute the follower's inputs of a block, ``(batch, time, agents, features)``."""
        visible = None
        if self.mask.draw_per_episode:
            drawn = self.mask.sample(np.random.default_rng([self.seed, self.blocks]), len(episodes.obs))
            visible = torch.from_numpy(drawn.astype(np.float32))
        return self.mask.apply(episodes.obs[:, :-1], before(episodes.actions), visible)

    def state_dict(self) -> dict[str, Any]:
        """Return all that :meth:`load_state_dict` needs to continue."""
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(), "blocks": self.blocks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.blocks = state["blocks"]
