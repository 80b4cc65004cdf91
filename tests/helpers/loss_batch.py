"""A ragged batch for the loss terms, the terms on it, and a slow float64 numpy answer to hold them against."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from kd_learners import losses

EPS_CLIP = 0.2
TEMPERATURE = 2.5


# ------------------------------------------------------------------------------------------------ a ragged batch
@dataclass(frozen=True)
class Batch:
    """What the terms read; (batch, time, agents, ...), with padding, dead agents and unavailable actions."""

    filled: torch.Tensor
    avail: torch.Tensor
    actions: torch.Tensor
    behaviour: torch.Tensor
    advantage: torch.Tensor
    teacher_logits: torch.Tensor
    student_logits: torch.Tensor
    teacher_embedding: torch.Tensor
    student_embedding: torch.Tensor
    teacher_roles: torch.Tensor
    student_roles: torch.Tensor

    def to(self, dtype):
        cast = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(dtype) for k, v in cast.items() if v.is_floating_point()})

    @property
    def mask(self):
        return losses.acting_mask(self.filled, self.avail)


def make_batch(seed=0, episodes=3, time=5, agents=3, actions=4, roles=2):
    rng = np.random.default_rng(seed)

    def normal(*shape, scale=1.0):
        return torch.from_numpy(scale * rng.standard_normal(shape))

    filled = torch.zeros(episodes, time)
    avail = torch.zeros(episodes, time, agents, actions, dtype=torch.uint8)
    for episode in range(episodes):
        length = rng.integers(2, time + 1)
        filled[episode, :length] = 1
        avail[episode, :length] = torch.from_numpy(rng.random((length, agents, actions)) < 0.6)
        # Two actions at least, except for the last agent, dead in the last step: only action 0.
        avail[episode, :length, :, 1:3] = 1
        avail[episode, length - 1, -1] = torch.tensor([1] + [0] * (actions - 1))
    # The taken action: a random available one (0 in the padding).
    preference = torch.from_numpy(rng.random(avail.shape)) * avail
    return Batch(
        filled=filled,
        avail=avail,
        actions=preference.argmax(-1),
        behaviour=-normal(episodes, time, agents).abs(),
        advantage=normal(episodes, time, agents),
        teacher_logits=normal(episodes, time, agents, actions, scale=2.0),
        student_logits=normal(episodes, time, agents, actions, scale=2.0),
        teacher_embedding=normal(episodes, time, agents, 6),
        student_embedding=normal(episodes, time, agents, 4),
        teacher_roles=normal(roles, 6),
        student_roles=normal(roles, 4),
    )


def terms(b: Batch):
    """Every term, per step and agent or pair, with its mask."""
    pairs = losses.pair_mask(b.mask)
    teacher, student = (losses.masked_log_softmax(x, b.avail) for x in (b.teacher_logits, b.student_logits))
    soft = [losses.masked_log_softmax(x, b.avail, TEMPERATURE) for x in (b.teacher_logits, b.student_logits)]
    log_prob = losses.action_log_prob(student, b.actions)
    log_roles = [
        losses.role_log_distribution(embedding, projection, TEMPERATURE)
        for embedding, projection in (
            (b.teacher_embedding, b.teacher_roles),
            (b.student_embedding, b.student_roles),
        )
    ]
    return {
        "ppo": (losses.ppo_clip(log_prob, b.behaviour, b.advantage, EPS_CLIP), b.mask),
        "kl": (losses.kl_divergence(*soft), b.mask),
        "ce_hard": (losses.cross_entropy(teacher, student, "hard"), b.mask),
        "ce_soft": (losses.cross_entropy(*soft, "soft"), b.mask),
        "structure": (
            losses.structure(
                losses.pairwise_cosines(b.teacher_embedding), losses.pairwise_cosines(b.student_embedding)
            ),
            pairs,
        ),
        "role": (losses.role_divergence(*log_roles), b.mask),
        "entropy": (losses.entropy(student), b.mask),
    }


def means(b: Batch):
    return {name: losses.masked_mean(*term) for name, term in terms(b).items()}


# ------------------------------------------------------------------------------------- an independent slow answer
def slow_policy(logits, avail, temperature):
    """Probabilities over the available actions only, as {action: probability}."""
    open_actions = [a for a in range(len(logits)) if avail[a]]
    weights = [np.exp(logits[a] / temperature) for a in open_actions]
    return {a: w / sum(weights) for a, w in zip(open_actions, weights, strict=True)}


def slow_kl(p, q):
    return sum(p[k] * (np.log(p[k]) - np.log(q[k])) for k in p)


def slow_cosine(x, y):
    return np.dot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y))


def slow_roles(projection, embedding):
    return slow_policy(projection @ embedding, np.ones(len(projection)), TEMPERATURE)


def slow_means(b: Batch):
    b = {f.name: getattr(b, f.name).double().numpy() for f in fields(b)}
    out = {name: [] for name in ("ppo", "kl", "ce_hard", "ce_soft", "structure", "role", "entropy")}
    episodes, time, agents, _ = b["avail"].shape
    for e in range(episodes):
        for t in range(time):
            acting = [i for i in range(agents) if b["filled"][e, t] and b["avail"][e, t, i].sum() >= 2]
            for i in acting:
                at = (e, t, i)
                student = slow_policy(b["student_logits"][at], b["avail"][at], 1.0)
                teacher = slow_policy(b["teacher_logits"][at], b["avail"][at], 1.0)
                soft_student = slow_policy(b["student_logits"][at], b["avail"][at], TEMPERATURE)
                soft_teacher = slow_policy(b["teacher_logits"][at], b["avail"][at], TEMPERATURE)
                ratio = student[int(b["actions"][at])] / np.exp(b["behaviour"][at])
                clipped = min(max(ratio, 1 - EPS_CLIP), 1 + EPS_CLIP)
                out["ppo"].append(min(ratio * b["advantage"][at], clipped * b["advantage"][at]))
                out["kl"].append(slow_kl(soft_teacher, soft_student))
                out["ce_hard"].append(-np.log(student[max(teacher, key=teacher.get)]))
                out["ce_soft"].append(-sum(soft_teacher[a] * np.log(soft_student[a]) for a in soft_teacher))
                out["entropy"].append(-sum(p * np.log(p) for p in student.values()))
                roles = [slow_roles(b[f"{who}_roles"], b[f"{who}_embedding"][at]) for who in ("teacher", "student")]
                out["role"].append(slow_kl(*roles))
                for j in acting:
                    if j < i:
                        gap = [
                            slow_cosine(b[f"{who}_embedding"][e, t, i], b[f"{who}_embedding"][e, t, j])
                            for who in ("teacher", "student")
                        ]
                        out["structure"].append((gap[0] - gap[1]) ** 2)
    return {name: np.mean(values) for name, values in out.items()}
