"""Loss terms of other distillation methods, and the networks that only their training needs.

Tseng et al. (NeurIPS 2022) bring the student's features to the teacher's. PTDE (arXiv 2210.08872) teaches each agent
what the global state means for it. docs/algorithm/comparators separates their definitions from our reading of them.
As in ``losses.py`` each function is pure and returns one value per step and agent.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kd_controllers.personal_net import PersonalStudent
from kd_controllers.student_net import HeteroStudent
from kd_core.errors import UserError
from kd_learners import losses
from kd_learners.labelled import LabelledSteps
from kd_learners.objective import ObjectiveSettings


def feature_regression(teacher_embedding: Tensor, projected: Tensor) -> Tensor:
    """Compute the feature term of Tseng et al.: mean over units of (phi_T - P phi_S)^2.

    Args:
        teacher_embedding: phi_T, ``(steps, agents, hidden)`` float32; detached.
        projected: P phi_S, of the same shape.

    Returns:
        ``(steps, agents)`` float32.
    """
    return (teacher_embedding.detach() - projected).square().mean(-1)


def personal_regression(personal: Tensor, guess: Tensor, own: Tensor) -> Tensor:
    """Compute the term of PTDE's second stage: mean over an agent's own units of (z - z^)^2.

    Args:
        personal: z, ``(steps, agents, units)`` float32, computed from the state by the hyper-network; detached.
        guess: z^, of the same shape, the agents' own estimate.
        own: ``(agents, units)``, 1 where an agent has the unit: narrower agents have fewer.

    Returns:
        ``(steps, agents)`` float32.
    """
    return ((personal.detach() - guess).square() * own).sum(-1) / own.sum(-1)


class GlobalPersonalisation(nn.Module):
    """PTDE's network for training: z_i = tanh(W(phi_i) e(s) + b(phi_i)), W and b by a hyper-network.

    Args:
        state_size: length of the environment's state.
        units: size of an agent's embedding, of e(s) and of z.
    """

    def __init__(self, state_size: int, units: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(state_size, units)
        self.weights = nn.Linear(units, units * units)
        self.bias = nn.Linear(units, units)
        with torch.no_grad():
            # Each z is a sum over `units` products: this scale starts it where tanh is not saturated.
            self.weights.weight.mul_(1.0 / math.sqrt(units))

    def forward(self, state: Tensor, embedding: Tensor) -> Tensor:
        """Compute each agent's personalised state z.

        Args:
            state: ``(steps, state_size)`` float32.
            embedding: phi, ``(steps, agents, units)`` float32.

        Returns:
            z, ``(steps, agents, units)`` float32, between -1 and 1.
        """
        encoded = torch.relu(self.encoder(state)).unsqueeze(-2)
        units = embedding.shape[-1]
        weights = self.weights(embedding).unflatten(-1, (units, units))
        return torch.tanh((weights @ encoded.unsqueeze(-1)).squeeze(-1) + self.bias(embedding))


PERSONAL_ONLY = "personal_coef and privileged_coef are for agent=personal_rnn: set agent, or both to 0"


def asks_for_personal(settings: ObjectiveSettings) -> bool:
    """Tell whether a run's weights ask for the personalised terms."""
    return settings.personal_coef != 0 or settings.privileged_coef != 0


class ComparatorTerms(nn.Module):
    """The comparators' terms that a run's weights ask for, and their networks; kd_student asks for none.

    Attributes:
        wanted: optional fields of `LabelledSteps` that the terms read.
    """

    own: Tensor

    def __init__(self, settings: ObjectiveSettings, agent: HeteroStudent, teacher_width: int, state_size: int) -> None:
        """Build the networks.

        Args:
            settings: the weights.
            agent: the students.
            teacher_width: units of the teacher's embeddings.
            state_size: length of the environment's state.

        Raises:
            UserError: the weights ask for personalised terms, but the students have no such part.
        """
        super().__init__()
        personal = asks_for_personal(settings)
        if personal and not isinstance(agent, PersonalStudent):
            raise UserError(PERSONAL_ONLY)
        width = agent.max_width
        self.feature = nn.Linear(width, teacher_width) if settings.feature_coef else None
        self.personalisation = GlobalPersonalisation(state_size, width) if personal else None
        units = torch.arange(width).expand(agent.n_agents, -1)
        self.register_buffer("own", (units < torch.tensor(agent.widths).unsqueeze(1)).float(), persistent=False)
        named = {"teacher_embedding": self.feature, "state": self.personalisation}
        self.wanted = frozenset(name for name, network in named.items() if network is not None)

    def forward(
        self, batch: LabelledSteps, embedding: Tensor, agent: HeteroStudent, temperature: float
    ) -> dict[str, Tensor]:
        """Compute every term asked for, averaged over the decisions that carry information.

        Args:
            batch: labelled steps.
            embedding: the students', ``(steps, agents, max_width)`` float32.
            agent: the students.
            temperature: tau of the soft targets.

        Returns:
            Scalars by logged name: ``feature``; ``personal`` and ``privileged``; empty where no term is asked for.
        """
        found = {}
        if self.feature is not None and batch.teacher_embedding is not None:
            term = feature_regression(batch.teacher_embedding, self.feature(embedding))
            found["feature"] = losses.masked_mean(term, batch.acting)
        if self.personalisation is not None and batch.state is not None:
            assert isinstance(agent, PersonalStudent), "checked when the terms were built"
            personal = self.personalisation(batch.state, embedding) * self.own
            term = personal_regression(personal, agent.guess(embedding), self.own)
            found["personal"] = losses.masked_mean(term, batch.acting)
            logits = (batch.teacher_logits, agent.decide_with(embedding, personal))
            term = losses.kl_divergence(*(losses.masked_log_softmax(x, batch.avail, temperature) for x in logits))
            found["privileged"] = losses.masked_mean(term, batch.acting)
        return found
