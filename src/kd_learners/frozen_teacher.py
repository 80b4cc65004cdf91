"""The frozen teacher after Stage 1: its policy, critic and normalisers, which only label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from kd_controllers.teacher_mac import TeacherMAC, TeacherSizes, unroll_packed
from kd_core.artifacts.teacher import TeacherArtifact
from kd_core.errors import UserError
from kd_learners import central_critic
from kd_learners.advantages import gae, td_residual
from kd_learners.batches import Episodes
from kd_learners.shaping import training_reward


@dataclass(frozen=True)
class Scale:
    """Shift and scale of one quantity, per agent or common; ``(agents,)`` or ``(1,)``."""

    mean: Tensor
    std: Tensor

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Scale:
        """Read one normaliser of ``teacher.json``."""
        return cls(torch.tensor(facts["mean"], dtype=torch.float32), torch.tensor(facts["std"], dtype=torch.float32))

    def to(self, target: torch.dtype | torch.device | str) -> Scale:
        """Return it in another precision, or on another device."""
        return Scale(self.mean.to(target), self.std.to(target))


class FrozenTeacher:
    """A loaded teacher, whose networks never change; `value_teacher.frozen_teacher` picks its kind.

    Values are in the unit in which its critic was trained. ``reward_scale`` converts rewards to that unit,
    ``value_scale`` the critic's outputs. For a teacher of ours both are the identity, except the value's normaliser.
    Either may be lost in a checkpoint of EPyMARL; `lost_statistics` then estimates them.

    Attributes:
        mac: the controller that acts with it; it samples actions, unless ``mac.greedy`` is set.
        reward_scale: None while it is lost.
        value_scale: None while it is lost.
        learns_values: whether its policy is made of action values, at a temperature.
    """

    learns_values: ClassVar[bool] = False

    def __init__(self, artifact: TeacherArtifact, args: Any) -> None:
        self.artifact = artifact
        facts = artifact.facts
        self.sizes = TeacherSizes(
            n_agents=facts["n_agents"],
            n_actions=facts["n_actions"],
            obs_size=facts["obs_size"],
            state_size=args.state_shape,
            hidden_dim=facts["hidden_dim"],
            use_rnn=facts["use_rnn"],
            obs_agent_id=facts["obs_agent_id"],
            obs_last_action=facts["obs_last_action"],
            teacher_input=facts["teacher_input"],
            agent=facts["agent"],
        )
        options = dict(vars(args), agent_output_type="pi_logits", action_selector="soft_policies")
        self.mac = TeacherMAC({}, None, type(args)(**options), sizes=self.sizes)
        try:
            self.mac.agent.load_state_dict(artifact.agent_state)
            self._load_critic(args)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"the weights of the teacher in {artifact.folder} do not fit its teacher.json ({reason}): copy it again"
            ) from None
        self.mac.agent.eval().requires_grad_(False)
        self.reward_scale = self._scale("reward")
        self.value_scale = self._scale("value")
        shaping, task = facts["shaping"], args.map_name
        self.reward = training_reward(args.env, facts["n_agents"], args.state_shape, shaping, task)

    def _load_critic(self, args: Any) -> None:
        facts = self.artifact.facts
        self.critic_sizes = central_critic.CriticSizes(
            critic_type=facts["critic_type"],
            n_agents=facts["n_agents"],
            n_actions=facts["n_actions"],
            obs_size=facts["obs_size"],
            state_size=args.state_shape,
            hidden_dim=facts["hidden_dim"],
            obs_individual_obs=facts["obs_individual_obs"],
            obs_last_action=facts["obs_last_action"],
        )
        self.critic = self.critic_sizes.build()
        self.critic.load_state_dict(self.artifact.critic_state)
        self.critic.eval().requires_grad_(False)

    def _scale(self, name: str) -> Scale | None:
        facts = self.artifact.normalisers[name]
        return None if facts is None else Scale.from_facts(facts)

    @property
    def device(self) -> torch.device:
        """Where its networks are."""
        return next(self.mac.agent.parameters()).device

    def move(self, device: torch.device | str) -> None:
        """Move its networks, and all that it labels with."""
        self.mac.agent.to(device)
        self._move_critic(device)
        self.reward_scale, self.value_scale = (
            None if scale is None else scale.to(device) for scale in (self.reward_scale, self.value_scale)
        )

    def _move_critic(self, device: torch.device | str) -> None:
        self.critic.to(device)

    @property
    def gamma(self) -> float:
        """The discount of its critic's values."""
        return float(self.artifact.facts["gamma"])

    @property
    def needs_statistics(self) -> bool:
        """Whether the unit of its rewards or values is lost, as in a checkpoint of EPyMARL alone (decision 5)."""
        return self.reward_scale is None or self.value_scale is None

    @torch.no_grad()
    def label(self, steps: Mapping[str, Tensor], length: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the teacher's logits and embeddings of every step, even of steps that it did not play.

        Args:
            steps: ``obs`` ``(batch, time, agents, obs_size)``, ``state`` ``(batch, time, state_size)``, ``actions``
                ``(batch, time, agents)``.
            length: steps of each episode ``(batch,)``, or of each agent in it ``(batch, agents)``.

        Returns:
            Logits ``(batch, time, agents, actions)`` and embeddings ``(batch, time, agents, hidden_dim)``; zeros after
            that end.
        """
        own = length.unsqueeze(1).expand(-1, self.sizes.n_agents) if length.ndim == 1 else length
        return unroll_packed(self.mac.agent, self.mac.episode_inputs(steps), own)

    @torch.no_grad()
    def advantages(self, episodes: Episodes, gamma: float, gae_lambda: float) -> Tensor:
        """Compute the advantages of Eqs. 1 and 2 with the frozen critic.

        Returns:
            ``(batch, time, agents)`` float32, 0 outside the episodes, in the critic's unit.
        """
        assert self.reward_scale is not None, "statistics were not estimated"
        value = self.values(episodes)
        reward = (self.reward(episodes) - self.reward_scale.mean) / self.reward_scale.std
        residual = td_residual(reward, value, episodes.terminated, episodes.filled, gamma)
        return gae(residual, gamma, gae_lambda)

    @torch.no_grad()
    def values(self, episodes: Episodes) -> Tensor:
        """Compute what the critic expects from every state on, in its own unit.

        Returns:
            ``(batch, time + 1, agents)`` float32; meaningless after an episode's end.
        """
        inputs = self.critic_sizes.inputs(vars(episodes))
        return self.scaled(central_critic.evaluate_where(self.critic, inputs, episodes.observed))

    def scaled(self, output: Tensor) -> Tensor:
        """Convert the critic's outputs ``(..., agents)`` to values; they stay as they are while their scale is lost."""
        return output if self.value_scale is None else output * self.value_scale.std + self.value_scale.mean

    def facts(self) -> dict[str, Any]:
        """Return the path and hash by which another artifact names this teacher."""
        return {"path": str(self.artifact.folder), "sha256": self.artifact.sha256}
