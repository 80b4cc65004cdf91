"""The terms of the student's objective, one pure function per equation (arXiv 2604.06691, Eqs. 3 to 11).

    loss = - ppo + kl_coef * KL + ce_coef * CE + structure_coef * L_str + role_coef * L_role - entropy_coef * H

The terms come in this order below. Every term function returns one value per step and agent, or per step and pair of
agents, and reduces over neither. `masked_mean` reduces, over exactly the entries that carry information. So padding and
dead agents never change a term's scale. The two diagnostics at the end also reduce, as their docstrings say.

Axes are named ``(batch, time, agents, actions)``: ``batch`` counts episodes, ``hidden`` is the width of an embedding,
``pairs`` counts the unordered pairs of agents. Logits are unnormalised; all logarithms are natural. Tensors are float32
unless their line says otherwise; results have the type of their inputs. The teacher's outputs are detached in every
term of the student: no gradient reaches them.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

# The logit of an unavailable action: its probability is exactly 0, its log-probability finite (no 0 * -inf = NaN).
UNAVAILABLE = -1e10
# A log-ratio above this (a ratio of 5e8) would soon overflow to inf, and inf * 0 in a masked step is NaN.
MAX_LOG_RATIO = 20.0
# An embedding shorter than this counts as one without direction.
MIN_NORM = 1e-6


# ---------------------------------------------------------------------------------------------- masks and policies
def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Average the entries of `x` where `mask` is set; 0 if there are no such entries.

    Args:
        x: any shape, floating point. Entries outside the mask may hold anything, NaN included.
        mask: 0/1 or boolean, broadcastable to the shape of `x`.

    Returns:
        A scalar, of the type of `x`.
    """
    kept = (mask > 0).expand_as(x)
    return torch.where(kept, x, 0.0).sum() / kept.sum().clamp(min=1)


def acting_mask(filled: Tensor, avail: Tensor) -> Tensor:
    """Mark the decisions that carry information: real steps with at least two available actions.

    A dead agent, whose only available action is the no-op, decides nothing (decision 3).

    Args:
        filled: ``(batch, time)``, 1 where the step belongs to the episode, 0 in the padding.
        avail: ``(batch, time, agents, actions)``, 1 where the action is available.

    Returns:
        ``(batch, time, agents)``, float32, 1 where the decision counts.
    """
    choices = (avail > 0).sum(-1)
    return ((filled > 0).unsqueeze(-1) & (choices > 1)).float()


def masked_log_softmax(logits: Tensor, avail: Tensor, temperature: float = 1.0) -> Tensor:
    """Compute the log-probabilities ln pi of the softmax over the available actions.

    Args:
        logits: ``(..., actions)``.
        avail: ``(..., actions)``, 1 where the action is available.
        temperature: tau, by which the logits are divided.

    Returns:
        ``(..., actions)``. An unavailable action gets a large negative finite value and passes no gradient. A row
        without any available action (padding) is uniform and passes no gradient either.
    """
    scaled = logits if temperature == 1.0 else logits / temperature
    return torch.log_softmax(torch.where(avail > 0, scaled, UNAVAILABLE), dim=-1)


def action_log_prob(log_probs: Tensor, actions: Tensor) -> Tensor:
    """Select the log-probabilities ln pi(a_t) of the actions taken.

    Args:
        log_probs: ``(batch, time, agents, actions)``, ln pi, of `masked_log_softmax`.
        actions: ``(batch, time, agents)``, int64.

    Returns:
        ``(batch, time, agents)``.
    """
    return log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


# ------------------------------------------------------------------------------------------------------- Eqs. 3, 4
def ppo_clip(log_prob: Tensor, behaviour_log_prob: Tensor, advantage: Tensor, eps_clip: float) -> Tensor:
    """Compute the clipped surrogate of Eqs. 3 and 4, to be **maximised**.

    min(r A, clip(r, 1 - eps, 1 + eps) A) with r = pi_S(a) / pi_beh(a)

    Args:
        log_prob: ``(batch, time, agents)``, ln pi_S of the taken action.
        behaviour_log_prob: ``(batch, time, agents)``, ln pi_beh of the taken action, as stored in the buffer; detached.
        advantage: ``(batch, time, agents)``, from the teacher's critic (Eq. 2); detached.
        eps_clip: epsilon.

    Returns:
        ``(batch, time, agents)``, in the unit of the advantage.
    """
    ratio = _ratio(log_prob, behaviour_log_prob)
    advantage = advantage.detach()
    return torch.minimum(ratio * advantage, ratio.clamp(1.0 - eps_clip, 1.0 + eps_clip) * advantage)


def _ratio(log_prob: Tensor, behaviour_log_prob: Tensor) -> Tensor:
    """Compute the ratio of Eq. 3 from log-probabilities, bounded so that it stays finite."""
    return (log_prob - behaviour_log_prob.detach()).clamp(max=MAX_LOG_RATIO).exp()


# ----------------------------------------------------------------------------------------------------------- Eq. 7
def kl_divergence(teacher_log_probs: Tensor, student_log_probs: Tensor) -> Tensor:
    """Compute KL(pi_T || pi_S) (Eq. 7). It is not multiplied by the square of the temperature.

    Args:
        teacher_log_probs: ``(batch, time, agents, actions)``, of `masked_log_softmax` at temperature tau; detached.
        student_log_probs: the same of the student.

    Returns:
        ``(batch, time, agents)``, in nats.
    """
    return _divergence(teacher_log_probs.detach(), student_log_probs)


def imitation_gap(teacher_log_probs: Tensor, follower_log_probs: Tensor) -> Tensor:
    """Compute KL(pi_T || pi_F), the price of a teacher in training for what its follower cannot predict (`follower`).

    Args:
        teacher_log_probs: ``(batch, time, agents, actions)``, of `masked_log_softmax`; the gradient reaches it.
        follower_log_probs: the same of the follower, detached here.

    Returns:
        ``(batch, time, agents)``, in nats.
    """
    return _divergence(teacher_log_probs, follower_log_probs.detach())


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Compute KL(p || q) over the last axis."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


# ----------------------------------------------------------------------------------------------------------- Eq. 8
def cross_entropy(
    teacher_log_probs: Tensor, student_log_probs: Tensor, target: Literal["hard", "soft"] = "hard"
) -> Tensor:
    """Compute the cross-entropy between the teacher's and the student's policy (Eq. 8).

    Args:
        teacher_log_probs: ``(batch, time, agents, actions)``, of `masked_log_softmax`; detached.
        student_log_probs: the same of the student.
        target: ``hard`` or ``soft`` (decision 1). ``hard`` is the teacher's most probable available action, the first
            of equals. ``soft`` is the teacher's whole distribution, as Eq. 8 is printed; its gradient is that of the
            KL at the same temperature.

    Returns:
        ``(batch, time, agents)``, in nats.

    Raises:
        ValueError: an unknown ``target``.
    """
    teacher = teacher_log_probs.detach()
    if target == "hard":
        return -student_log_probs.gather(-1, teacher.argmax(-1, keepdim=True)).squeeze(-1)
    if target == "soft":
        return -(teacher.exp() * student_log_probs).sum(-1)
    raise ValueError(f"ce_target is {target!r}: expected 'hard' or 'soft'")


# ------------------------------------------------------------------------------- which decisions Eqs. 7 and 8 weigh
def advantage_weights(advantage: Tensor, mask: Tensor, strength: float) -> Tensor:
    """Weigh decisions by exp(-strength * A), so that those which the teacher's critic finds bad are imitated most.

    Args:
        advantage: ``(batch, time, agents)``, standardised, of the action taken; detached.
        mask: ``(batch, time, agents)``, the decisions that count.
        strength: 0 weighs all alike.

    Returns:
        ``(batch, time, agents)``, with mean 1 over the mask.
    """
    exponent = (-strength * advantage.detach()).clamp(max=MAX_LOG_RATIO)
    weights = torch.where(mask > 0, exponent.exp(), 0.0)
    return weights / masked_mean(weights, mask).clamp(min=torch.finfo(weights.dtype).tiny)


def ratio_outside(log_prob: Tensor, teacher_log_prob: Tensor, bound: float) -> Tensor:
    """Mark the decisions at which pi_S(a) / pi_T(a) lies outside [1/bound, bound].

    Args:
        log_prob: ``(batch, time, agents)``, ln pi_S of the taken action; detached.
        teacher_log_prob: the same of the teacher.
        bound: d, at least 1.

    Returns:
        ``(batch, time, agents)``, 0 or 1, of the type of `log_prob`.
    """
    return ((log_prob - teacher_log_prob).detach().abs() > math.log(bound)).to(log_prob.dtype)


# ----------------------------------------------------------------------------------------------------------- Eq. 9
def pairwise_cosines(embedding: Tensor) -> Tensor:
    """Compute cos(phi^i, phi^j) of Eq. 9 for every pair j < i of agents, within one network.

    Args:
        embedding: ``(batch, time, agents, hidden)``, of any floating type (half precision is widened).

    Returns:
        ``(batch, time, pairs)``, float32 at least, in the order (1,0), (2,0), (2,1), (3,0), ... An embedding of length
        0 has no direction: its cosines are 0 and pass no gradient.
    """
    embedding = _widened(embedding)
    squared_norm = embedding.square().sum(-1, keepdim=True)
    directed = squared_norm > MIN_NORM**2
    # The inner `where` avoids the root at 0, whose infinite slope would turn the masked gradient into NaN.
    unit = embedding * torch.where(directed, torch.where(directed, squared_norm, 1.0).rsqrt(), 0.0)
    i, j = _pairs(embedding)
    n_agents = embedding.shape[-2]
    return (unit @ unit.transpose(-1, -2)).flatten(-2).index_select(-1, i * n_agents + j)


def structure(teacher_cosines: Tensor, student_cosines: Tensor) -> Tensor:
    """Compute the structure term of Eq. 9 for each pair: the squared difference of the two networks' cosines.

    Args:
        teacher_cosines: ``(batch, time, pairs)``, from `pairwise_cosines`; detached.
        student_cosines: ``(batch, time, pairs)``, from `pairwise_cosines`.

    Returns:
        ``(batch, time, pairs)``.
    """
    return (teacher_cosines.detach() - student_cosines).square()


def pair_mask(agent_mask: Tensor) -> Tensor:
    """Mark the pairs of which both agents count, in the order of `pairwise_cosines`.

    Args:
        agent_mask: ``(batch, time, agents)``, from `acting_mask`.

    Returns:
        ``(batch, time, pairs)``, of the type of `agent_mask`.
    """
    i, j = _pairs(agent_mask.unsqueeze(-1))
    return agent_mask.index_select(-1, i) * agent_mask.index_select(-1, j)


def _pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices (i, j), j < i, of the pairs of agents of `x`, each ``(pairs,)``.

    `x` is ``(..., agents, features)``.
    """
    n_agents = x.shape[-2]
    i, j = torch.tril_indices(n_agents, n_agents, offset=-1, device=x.device)
    return i, j


def _widened(x: Tensor) -> Tensor:
    """Convert `x` to float32 at least: buffers may store embeddings in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


# ----------------------------------------------------------------------------------------------------- Eqs. 10, 11
def role_log_distribution(embedding: Tensor, projection: Tensor, temperature: float) -> Tensor:
    """Compute the log-distribution over roles ln rho = log softmax(U phi / tau) (Eq. 11).

    Args:
        embedding: ``(batch, time, agents, hidden)``, of any floating type (half precision is widened).
        projection: U, ``(roles, hidden)``.
        temperature: tau.

    Returns:
        ``(batch, time, agents, roles)``, float32 at least.
    """
    return torch.log_softmax(_widened(embedding) @ projection.T / temperature, dim=-1)


def role_divergence(teacher_log_roles: Tensor, student_log_roles: Tensor) -> Tensor:
    """Compute KL(rho_T || rho_S) (Eq. 10).

    Args:
        teacher_log_roles: ``(batch, time, agents, roles)``, from `role_log_distribution`; detached.
        student_log_roles: ``(batch, time, agents, roles)``, from `role_log_distribution`.

    Returns:
        ``(batch, time, agents)``, in nats.
    """
    return _divergence(teacher_log_roles.detach(), student_log_roles)


# ----------------------------------------------------------------------------------------------------------- Eq. 5
def entropy(log_probs: Tensor) -> Tensor:
    """Compute the entropy H(pi) of Eq. 5 over the available actions.

    Args:
        log_probs: ``(batch, time, agents, actions)``, ln pi, of `masked_log_softmax`.

    Returns:
        ``(batch, time, agents)``, in nats.
    """
    return -(log_probs.exp() * log_probs).sum(-1)


# ----------------------------------------------------------------------------------------------------- diagnostics
def clip_fraction(log_prob: Tensor, behaviour_log_prob: Tensor, eps_clip: float, mask: Tensor) -> Tensor:
    """Compute the share of decisions whose ratio (Eq. 3) lies outside [1 - eps, 1 + eps]. Reduces.

    Args:
        log_prob: ``(batch, time, agents)``, ln pi_S of the taken action.
        behaviour_log_prob: ``(batch, time, agents)``, ln pi_beh of the taken action.
        eps_clip: epsilon.
        mask: ``(batch, time, agents)``, the decisions that count.

    Returns:
        A scalar between 0 and 1; 0 if the mask is empty.
    """
    ratio = _ratio(log_prob, behaviour_log_prob).detach()
    return masked_mean(((ratio - 1.0).abs() > eps_clip).to(ratio.dtype), mask)


def effective_sample_size(log_prob: Tensor, behaviour_log_prob: Tensor, mask: Tensor) -> Tensor:
    """Compute Kish's effective sample size of the ratios (Eq. 3), as a share of the decisions. Reduces.

    It is (sum r)^2 / (K sum r^2).

    Args:
        log_prob: ``(batch, time, agents)``, ln pi_S of the taken action.
        behaviour_log_prob: ``(batch, time, agents)``, ln pi_beh of the taken action.
        mask: ``(batch, time, agents)``, the K decisions that count.

    Returns:
        A scalar: 1 if all ratios are equal, near 1/K if one of them dominates, 0 if the mask is empty.
    """
    # In float64: squares of the largest ratios, about 2e17, would swamp the others in float32.
    ratio = _ratio(log_prob, behaviour_log_prob).detach().double()
    mean_square = masked_mean(ratio.square(), mask)
    share = masked_mean(ratio, mask).square() / mean_square.clamp(min=torch.finfo(torch.float64).tiny)
    return share.to(log_prob.dtype)
