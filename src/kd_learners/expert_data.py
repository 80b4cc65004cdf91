"""Minibatches from the expert buffer; advantages, cosines and roles do not change, so they are computed once."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from kd_controllers.messages import Messages, Radio
from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_envs.hetero_mask.mask import ObservationMask, before
from kd_learners.batches import Episodes
from kd_learners.labelled import LabelledSteps, Labeller
from kd_learners.losses import acting_mask

_SAMPLED_KEYS = ("obs", "avail_actions", "actions", "behaviour_log_prob", "teacher_logits", "length")
# Fields that only some terms read: name in the buffer -> name in LabelledSteps.
_WANTED_KEYS = {"embedding": "teacher_embedding", "state": "state"}
VALUE_KEYS = ("state", "obs", "avail_actions", "actions", "reward", "terminated", "length")


def filled_steps(part: dict[str, Tensor]) -> Tensor:
    """Mark the steps that were taken, float32 ``(episodes, time)``; ``part`` holds ``length`` and ``actions``."""
    steps = torch.arange(part["actions"].shape[1])
    return (steps < part["length"].unsqueeze(1)).float()


def shard_episodes(shard: dict[str, Tensor]) -> Episodes:
    """Convert a shard's tensors (docs/reference/formats/buffer.md) to :class:`Episodes`."""
    return Episodes(
        obs=shard["obs"],
        state=shard["state"],
        avail_actions=shard["avail_actions"],
        actions=shard["actions"],
        reward=shard["reward"],
        terminated=shard["terminated"].float().unsqueeze(-1),
        filled=filled_steps(shard).unsqueeze(-1),
    )


def sample_embeddings(buffer: ExpertBuffer, count: int, generator: np.random.Generator) -> Tensor:
    """Sample about ``count`` embeddings of acting agents for the role centroids.

    They are float32 ``(count, hidden_dim)``.
    """
    per_episode = max(1, int(buffer.facts["n_agents"] * buffer.steps / buffer.episodes))
    chosen = generator.permutation(buffer.episodes)[: max(1, count // per_episode)]
    part = buffer.gather(np.sort(chosen), ("embedding", "avail_actions", "actions", "length"))
    acting = acting_mask(filled_steps(part), part["avail_actions"][:, :-1])
    return part["embedding"].float()[acting > 0][:count]


class ExpertData:
    """Labelled episodes sampled from an expert buffer; memory holds only what was computed from it."""

    def __init__(
        self, buffer: ExpertBuffer, labeller: Labeller, mask: ObservationMask, messages: Messages | None = None
    ) -> None:
        self.buffer, self.labeller, self.mask, self.messages = buffer, labeller, mask, messages

    @functools.cached_property
    def _labels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Advantages, cosines and roles of all episodes: one pass over the buffer, when a sample is first asked for."""
        found = []
        for shard in self.buffer.shards((*VALUE_KEYS, "embedding")):
            teacher = self.labeller.teacher
            episodes, embedding = shard_episodes(shard).to(teacher.device), shard["embedding"].to(teacher.device)
            advantage = teacher.advantages(episodes, self.labeller.gamma, self.labeller.gae_lambda)
            found.append((advantage, *self.labeller.relations(embedding.float())))
        advantages, cosines, log_roles = (torch.cat(part).cpu() for part in zip(*found, strict=True))
        return advantages, cosines, log_roles

    def sample(self, count: int, generator: np.random.Generator) -> LabelledSteps:
        """Sample ``count`` different episodes, or all if there are fewer.

        If masks are drawn, each episode has its own mask. Where students talk, messages are lost anew in each sample.
        """
        chosen = generator.choice(self.buffer.episodes, size=min(count, self.buffer.episodes), replace=False)
        wanted = self.labeller.wanted
        extra = [key for key, name in _WANTED_KEYS.items() if name in wanted]
        part = self.buffer.gather(chosen, (*_SAMPLED_KEYS, *extra))
        avail = part["avail_actions"][:, :-1]
        advantage, cosines, log_roles = (part[torch.from_numpy(chosen)] for part in self._labels)
        visible = None
        if self.mask.draw_per_episode:
            visible = torch.from_numpy(self.mask.sample(generator, len(chosen)).astype(np.float32))
        radio = None if self.messages is None else self._radio(self.messages, avail, generator)
        steps = LabelledSteps.of(
            acting_mask(filled_steps(part), avail),
            obs=self.mask.apply(part["obs"][:, :-1], before(part["actions"]), visible),
            avail=avail,
            actions=part["actions"],
            behaviour_log_prob=part["behaviour_log_prob"],
            teacher_logits=part["teacher_logits"],
            teacher_cosines=cosines,
            teacher_log_roles=log_roles,
            advantage=advantage,
            teacher_embedding=part["embedding"].float() if "embedding" in extra else None,
            state=part["state"][:, :-1] if "state" in extra else None,
            speaks=None if radio is None else radio.speaks,
            delivered=None if radio is None else radio.delivered,
        )
        return steps.to(self.labeller.teacher.device)

    def largest_features(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Return the largest size of each agent's features, ``(agents, features)``.

        It is that of every second of ``count`` episodes, on which an export calibrates int8 C with a generator alike.
        """
        chosen = np.sort(generator.permutation(self.buffer.episodes)[:count])[::2]
        part = self.buffer.gather(chosen, ("obs", "actions"))
        seen = self.mask.extend(part["obs"][:, :-1], before(part["actions"]))
        return seen.abs().amax((0, 1)).numpy()

    def _radio(self, messages: Messages, avail: Tensor, generator: np.random.Generator) -> Radio:
        """Draw the messages that students would lose in episodes ``(batch, time, agents, actions)``."""
        speaks = messages.speaks(avail)
        if not messages.loss:
            return Radio(speaks)
        kept = generator.random((*speaks.shape, speaks.shape[-1])) >= messages.loss
        return Radio(speaks, torch.from_numpy(kept.astype(np.uint8)))
