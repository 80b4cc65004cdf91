"""What the page says that is not computed."""

HOW_TO_READ = """\
**How to read it.** FO: full observation. LH: limited and heterogeneous observation, each agent's student gets only a
part of what the agent observes. LH+A: the same, and each agent's network has a width of its own. Behind the comma is
which part: *paper* (the blocks of Tables I and II, as far as they exist), *random* (half of the features, drawn anew
every episode), or the user's *own*. The teacher always sees everything.

Every number of ours is the interquartile mean over seeds: a quarter of the values, rounded down, is cut off at either
end. In brackets is its 95 % interval by bootstrap, stratified by task: percentiles of 10,000 resamples of the seeds.
With few seeds the bootstrap knows nothing of the tails, and its intervals are too narrow: with three, they cannot
reach beyond the best and the worst seed. One seed has no interval. Students of a task have one teacher, so no
interval says what another teacher would change. Trainings of neighbouring seeds begin most of their episodes alike
(environment i of seed s is seeded with s + i, as EPyMARL does it), so they are less independent than they could be;
evaluations of different seeds share no episode.

*Kept* is what a policy keeps of the teacher, as the paper counts it: S / T of win rates, 1 - |S - T| / |T| of
returns; the latter depends on where a task puts its zero, and falls below it where a return is further from the
teacher's than the teacher's is from zero. *Gain kept* does not: it is the share of the teacher's gain over random
play, (S - R) / (T - R); 0 is random play, 100 % the teacher. Policies act greedily, and every policy of a run plays
episodes that begin alike. *Steps of training* are environment steps of that policy's own training: a student's
teacher and expert buffer took more. A method that had fewer steps than the teacher may be worse for that alone.
*Seeds x episodes*: trainings, and evaluation episodes of each; the teacher is one network, evaluated that many times.
FLOPs are those of one decision of one agent, the mean over agents, or of an episode of the whole team; a multiply-add
counts as two. *Step* is the paper's time per step, with everything in it; *decision* is the time of one joint
decision of our team in PyTorch, on one thread. A dash: not measured, or not in the paper."""

NOT_THE_SAME = """\
The paper does not say how it scales returns, nor what its ± are taken over. Its text describes masks drawn at random,
its tables fixed ones: its numbers stand beside both. SMAX is not SMAC: the same units in a simulator of its own, with
other observations and another enemy. Win rates cannot be compared with the paper's there; what is kept of each one's
own teacher can, with care, since it too depends on how hard the game is."""

BASELINES = """\
**MAPPO, QMIX and VDN** are the host's own, trained under the limits from nothing. The grids in suites/ give them agents
as wide as the widest student and as many environment steps as teacher, buffer and student take together; the columns
of FLOPs and steps say what those of this page had. What else they have is the host's too, and not all of it is to
their advantage: MAPPO's critic is as wide as its agents, and takes the last battles to end in a batch for cut short;
QMIX and VDN learn once after as many episodes as environments run side by side. docs/algorithm/comparators says more,
and what another MAPPO reaches."""

SHARED_EPISODES = """\
**Intervals that are too narrow.** Runs of an earlier version evaluated all seeds in nearly the same episodes. Their
intervals lack the chance of the episodes, and for the teacher may have no width at all. They are marked *shared*
under "What was run"."""

SAME_DIGITS = """\
The returns of simple_adversary in the paper's Table II are, digit for digit, those of 5m\\_vs\\_6m in its Table I."""

CONCENTRATION = """\
The paper shows 3s5z, without distillation and with it, and gives no number. Bits are the entropy of the actions taken
at one step of the episode, averaged over decisions; 0 means that everybody always does the same then. *Team* takes
all agents with the same actions together, *each agent* one at a time; so many *equally frequent actions* would have
the team's entropy. Concentrated is not better by itself: the teacher is the measure. Only decisions count: an agent
that is dead, or has one action left, makes none. The maps put agents with the same actions, episodes and seeds
together, and are grey where fewer than 1 % as many decisions were made as at the busiest step."""
