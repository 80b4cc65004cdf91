"""What the pages say that is not computed."""

HOW_TO_READ = """\
FO: full observation. LH: limited and heterogeneous observation, each agent's student gets only a part of what the
agent observes. LH+A: the same, and each agent's network has a width of its own. Behind the comma is which part:
*paper* (the blocks of Tables I and II, as far as they exist), *random* (half of the features, drawn anew every
episode), or the user's *own*. The teacher always sees everything.

Every number of ours is the interquartile mean over seeds: a quarter of the values, rounded down, is cut off at either
end. In brackets is its 95 % interval by bootstrap, stratified by task: percentiles of 10,000 resamples of the seeds.
With few seeds the bootstrap knows nothing of the tails, and its intervals are too narrow: with three, they cannot
reach beyond the best and the worst seed. One seed has no interval. Students of a task have one teacher, so no interval
says what another teacher would change. Trainings of neighbouring seeds begin most of their episodes alike (environment
i of seed s is seeded with s + i, as EPyMARL does it), so they are less independent than they could be; evaluations of
different seeds share no episode.

*Retention* is a policy's share of the teacher's score, as the paper counts it: S / T of win rates, 1 - |S - T| / |T|
of returns. The latter depends on where a task puts its zero. It falls below zero where a return is further from the
teacher's than the teacher's is from zero. *Retention over random* does not: it is the share of the teacher's gain over
random play, (S - R) / (T - R); 0 is random play, 100 % the teacher. Policies act greedily, and every policy of a run
plays episodes that begin alike. *Steps of training* are environment steps of that policy's own training: a student's
teacher and expert buffer took more. A method that had fewer steps than the teacher may be worse for that alone. *Seeds
x episodes*: trainings, and evaluation episodes of each; the teacher is one network, evaluated that many times. FLOPs
are those of one decision of one agent, the mean over agents, or of an episode of the whole team; a multiply-add counts
as two. *Step* is the paper's time per step, with everything in it; *decision* is the time of one joint decision of our
team in PyTorch, on one thread. A dash: not measured, or not in the paper."""

TOGETHER = """\
The rows of several tasks take them together; every resample draws the seeds of each task by itself. A task with one
seed leaves its row without an interval."""

NOT_THE_SAME = """\
The paper does not say how it scales returns, nor what its ± are taken over. Its text describes masks drawn at random,
its tables fixed ones: its numbers stand beside both. SMAX is not SMAC: the same units in a simulator of its own, with
other observations and another enemy. Win rates cannot be compared with the paper's there; retention of each one's own
teacher can, with care, since it too depends on how hard the game is."""

BASELINES = """\
**MAPPO, QMIX and VDN** are the host's own, trained under the limits from nothing. The grids in suites/ give them agents
as wide as the widest student and as many environment steps as teacher, buffer and student take together; the columns
of FLOPs and steps say what those of this page had. What else they have is the host's too, and not all of it is to
their advantage: MAPPO's critic is as wide as its agents, and takes the last battles to end in a batch for cut short;
QMIX and VDN learn once after as many episodes as environments run side by side. docs/algorithm/comparators
says more, and what another MAPPO reaches."""

SAME_DIGITS = """\
The returns of simple_adversary in the paper's Table II are, digit for digit, those of 5m\\_vs\\_6m in its Table I."""

CONCENTRATION = """\
The paper shows 3s5z, without distillation and with it, and gives no number. Bits are the entropy of the actions taken
at one step of the episode, averaged over decisions; 0 means that everybody always does the same then. *Team* takes
all agents with the same actions together, *each agent* one at a time; so many *equally frequent actions* would have
the team's entropy. Concentrated is not better by itself: the teacher is the measure. Only decisions count: an agent
that is dead, or has one action left, makes none. The maps put agents with the same actions, episodes and seeds
together, and are grey where fewer than 1 % as many decisions were made as at the busiest step."""

RESULTS = """\
*Retention* is the student's share of its teacher's score, as the paper counts it: S / T of win rates and
1 - |S - T| / |T| of returns. *paper* is the retention that the paper reports. `fo`: everything is seen. `lh`: each
agent sees its own part. `lha`: the same, and each agent's network has a width of its own. `paper` masks are the blocks
of the paper's tables; `random` ones are a new half of the features in every episode. *of reachable* is the share of
the most that a policy of any size is known to reach under the same limits (`kd-marl reachable`). Numbers are means over
seeds, ± half of the 95 % interval. FLOPs are those of one decision, the mean over the agents."""

FAMILY_TITLES = {
    "StarCraft maps": "StarCraft maps (SMAX)",
    "particles": "Particle environments (MPE)",
    "other tasks": "Other tasks",
}
FAMILY_NOTES = {
    "StarCraft maps": """\
Shares of battles won. This is not the paper's game: SMAX has the same units on maps of the same names, in a simulator
of its own, with other observations and a scripted enemy. Win rates cannot be compared with the paper's. Retention can,
with care, since it too depends on how hard the game is. The teacher of 5m\\_vs\\_6m was trained to be followed under
`lh` and chosen for that: students of a plain one retain 89.7 % (`lh`) and 90.3 % (`lha`). Students had
`updates_per_train=15 distillation_final_share=0.02`, the defaults until December 2026. Under
`lh` [today's retain as much](experiments/2026-12-fewer-gradient-steps.md) on 3m and 8m, and train faster.""",
    "particles": """\
Returns: sums over all agents and all 25 steps of an episode. All agents of a task, the adversary of simple\\_adversary
too, are rewarded with the sum of all their rewards (EPyMARL's `common_reward`). The paper does not say how it scales
its returns: they cannot be compared with ours, its retention can. Where retention is low, the limits hide what the task
needs; the part below says what.""",
    "other tasks": "",
}

TARGETS = """\
The targets are this project's own, older than these runs; 28.6 times is the reduction that the paper's abstract
claims. *Within the interval*: the seeds do not settle it. *Agreement* is the share of the student's decisions that the
teacher would have taken too. *Retention over random* is (S - R) / (T - R), which does not depend on where a task puts
its zero."""

TEACHERS = """\
Share of battles won in the test at the end of the training, with its 95 % interval (Wilson's), acting greedily and
sampling. The target is for the better way, within two hours of training. Steps are those of the environment, all agents
together; the weights are those of the best test on the way, with imitation\\_gap\\_coef those of the last. Time is
wall-clock, with the tests."""

AGAINST_MAPPO = """\
The host's recurrent MAPPO with a central critic, agents 32 wide, trained for as many environment steps as teacher,
expert buffer and students took together. `lha` has the baseline of `lh`. The last column takes each at its better way
of acting; *undecided* is where the intervals overlap, or where one seed leaves none."""

MEANS = """\
Every number is a mean over seeds, ± half of its 95 % interval (Student's t over the seeds: with three of them 4.3
standard errors). The report's own tables show the same runs as interquartile means, so its numbers differ a little. All
students of a task have one teacher, so the intervals do not say what another teacher would change. Trainings of
neighbouring seeds begin most of their episodes alike (environment i of seed s is seeded with s + i, as EPyMARL does
it); evaluations of different seeds share no episode. Teacher, student and random play in episodes that begin alike;
teacher and student act greedily unless it says otherwise. Under limits our students also know their own last action,
which the paper's do not. A battle is won when every enemy has fallen and an agent has not, within the time limit."""

PAPER_REMARKS = {
    "StarCraft maps": """\
Table I (SMAC), shares of battles won. MAPPO FO is the paper's teacher, 256 wide; MAPPO LH and LH+A are trained
directly under the limits, as wide as the students. Section IV says of FLOPs only that they fall by a factor of 3.3 to
11.7 across its maps.""",
    "particles": f"Table II, returns. MAPPO FO is the paper's teacher. {SAME_DIGITS}",
    "other tasks": "",
}

_HALF = "Half of each agent's features, others in every episode, read 0, and the agent is not told which. "
# What limits hide that a task needs, by task and masks.
HIDDEN = {
    ("simple_speaker_listener", "paper"): (
        "The listener sees neither the landmarks nor its own position, only its velocity and the message. It can "
        "learn which landmark is meant but not where it is, and the speaker, which sees only the goal's colour, "
        "cannot tell it. Landmarks are placed at random in every episode, so no policy within this limit can walk "
        "to the right one, however it is trained. Nothing that it sees depends on where it and the landmark begin, "
        "so every step only adds to its mean squared distance: the best that it can do is to stand still, which "
        "returns -66.7 on average (two agents, 25 steps, a mean squared distance of 4/3). Means of 1,000 episodes "
        "scatter around that by 3.5 (95 %)."
    ),
    ("simple_spread", "paper"): (
        "Agent 1 sees only its velocity and agent 2 only its position: they know neither where the landmarks are "
        "nor where the others are, and nobody sends messages. Only agent 0 can cover a landmark on purpose; the "
        "other two can at best stay where a landmark is likely."
    ),
    ("simple_adversary", "paper"): (
        "The good agents see neither the goal nor any landmark: one sees where the others are relative to itself, "
        "the other only how far away they are. Neither can go to the goal on purpose, or to the other landmark to "
        "mislead the adversary."
    ),
    ("simple_speaker_listener", "random"): (
        _HALF + "The speaker loses nothing, since two channels of the colour tell the third. The listener lacks a "
        "coordinate of the goal's landmark in about three of four episodes. No policy within this limit returns "
        "more than -31.35 on average, and with everything in sight no more than -14.57, as `python "
        "benchmarks/mask_bound.py` computes."
    ),
    ("simple_spread", "random"): (
        _HALF + "An agent lacks a coordinate of some landmark in nearly every episode, and nothing else that it sees "
        "makes up for it."
    ),
    ("simple_adversary", "random"): (
        _HALF + "A good agent lacks a coordinate of the goal in about three of four episodes; the landmarks, one of "
        "which is the goal, make up for it only now and then."
    ),
}
