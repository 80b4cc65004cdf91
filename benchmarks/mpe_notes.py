"""What docs/results.md says that is not computed: the paper's numbers, and why some limits cannot be met."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """A row of Table II (arXiv 2604.06691): return as mean and spread; FLOPs as section IV gives them."""

    fo: tuple[float, float]
    lh: tuple[float, float]
    lha: tuple[float, float]
    flops_ratio: float


PAPER = {
    "pz-mpe-simple-speaker-listener-v4": PaperRow((-46.0, 2.0), (-48.0, 2.2), (-50.0, 2.4), 26.7),
    "pz-mpe-simple-spread-v3": PaperRow((-46.0, 2.1), (-48.5, 2.1), (-50.5, 2.5), 30.0),
    "pz-mpe-simple-adversary-v3": PaperRow((18.0, 0.6), (16.8, 0.5), (16.5, 0.25), 29.1),
}

PAPER_REMARKS = {
    "pz-mpe-simple-adversary-v3": (
        "The returns of this row of Table II are, digit for digit, those of the row of 5m_vs_6m in Table I."
    )
}

COOPERATIVE = (
    "All agents of a task, the adversary of simple_adversary too, are rewarded with the sum of all their rewards: "
    "EPyMARL's common_reward."
)
OWN_ACTION = (
    "Under limits our students also know their own last action, which the paper's do not "
    "([what that does]({masks}#the-own-last-action))."
)
HOW_TO_READ = f"""\
**How to read it.** `fo`: everything is seen; `lh`: limited, different observations; `lha`: the same, with a width for
each agent. `paper`: the blocks of Table II as far as they exist; `random`: a new random half every episode
([masks](masks.md)). {OWN_ACTION.format(masks="masks.md")}
A return is the sum over all agents and all 25 steps of an episode. {COOPERATIVE} Every number is a mean over the
seeds, ± half of its 95 % interval (Student's t over the seeds: with three of them 4.3 standard errors). Trainings of
neighbouring seeds begin most of their episodes alike (environment i of seed s is seeded with s + i, as EPyMARL does
it); evaluations of different seeds share no episode. Teacher,
student and random play in episodes that begin alike; teacher and student act greedily unless it says otherwise.
Retention is 1 - |S-T|/|T|, the paper's; retention over random is (S-R)/(T-R), which does not depend on where the task
puts its zero. Agreement is the share of the student's decisions that the teacher would have taken too. FLOPs are those
of one decision, the mean over the agents.

The paper does not say how it scales its returns, so they cannot be compared with ours; its retentions can."""

_HIDES = "**What this limit hides.** "
_HALF = _HIDES + "Half of each agent's features, others in every episode, read 0, and the agent is not told which. "

# What a limit hides that the task needs: (task, preset) -> a paragraph.
WHY = {
    ("pz-mpe-simple-speaker-listener-v4", "paper"): (
        _HIDES
        + "The listener sees neither the landmarks nor its own position, only its velocity and the message. It can "
        "learn which landmark is meant but not where it is, and the speaker, which sees only the goal's colour, cannot "
        "tell it. Landmarks are placed at random in every episode, so no policy within this limit can walk to the "
        "right one, however it is trained. Nothing that it sees depends on where it and the landmark begin, so every "
        "step only adds to its mean squared distance: the best that it can do is to stand still, which returns -66.7 "
        "on average (two agents, 25 steps, a mean squared distance of 4/3). Means of 1,000 episodes scatter around "
        "that by 3.5 (95 %)."
    ),
    ("pz-mpe-simple-spread-v3", "paper"): (
        _HIDES
        + "Agent 1 sees only its velocity and agent 2 only its position: they know neither where the landmarks are "
        "nor where the others are, and nobody sends messages. Only agent 0 can cover a landmark on purpose; the other "
        "two can at best stay where a landmark is likely."
    ),
    ("pz-mpe-simple-adversary-v3", "paper"): (
        _HIDES + "The good agents see neither the goal nor any landmark: one sees where the others are relative to "
        "itself, the other only how far away they are. Neither can go to the goal on purpose, or to the other landmark "
        "to mislead the adversary."
    ),
    ("pz-mpe-simple-speaker-listener-v4", "random"): (
        _HALF + "The speaker loses nothing, since two channels of the colour tell the third. The listener lacks a "
        "coordinate of the goal's landmark in about three of four episodes. No policy within this limit returns more "
        "than -31.35 on average, and with everything in sight no more than -14.57 "
        "([how that is known](masks.md#what-the-masks-cost))."
    ),
    ("pz-mpe-simple-spread-v3", "random"): (
        _HALF + "An agent lacks a coordinate of some landmark in nearly every episode, and nothing else that it sees "
        "makes up for it."
    ),
    ("pz-mpe-simple-adversary-v3", "random"): (
        _HALF + "A good agent lacks a coordinate of the goal in about three of four episodes; the landmarks, one of "
        "which is the goal, make up for it only now and then."
    ),
}


def short(task: str) -> str:
    """A task's name without the library's prefix and the version: ``simple_spread``."""
    return task.removeprefix("pz-mpe-").rsplit("-v", 1)[0].replace("-", "_")
