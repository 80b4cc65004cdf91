"""What the page says that is not computed."""

HOW_TO_READ = """\
**How to read it.** FO: everything is seen; LH: limited, different observations; LH+A: the same, with a width for each
agent. Behind the comma is which masks: *paper* (the blocks of Tables I and II, as far as they exist), *random* (a new
random half every episode), or one's *own*.

Every number of ours is the interquartile mean over seeds: a quarter of the values, rounded down, is cut off at either
end. In brackets is its 95 % interval by bootstrap, stratified by task: percentiles of 10,000 resamples of the seeds.
With few seeds the bootstrap knows nothing of the tails, and its intervals are too narrow: with three, they cannot
reach beyond the best and the worst seed. One seed has no interval. Students of a task have one teacher, so no interval
says what another teacher would change.

*Kept* is what a policy keeps of the teacher, as the paper counts it: S / T of win rates, 1 - |S - T| / |T| of returns;
the latter falls below zero where a return is further from the teacher's than the teacher's is from zero. Policies act
greedily, and every policy of a run plays episodes that begin alike. FLOPs are those of one decision of one agent, the
mean over agents, or of an episode of the whole team; a multiply-add counts as two. *Step* is the paper's time per step,
with everything in it; *decision* is the time of one joint decision of our team in PyTorch, on one thread. A dash: not
measured, or not in the paper."""

NOT_THE_SAME = """\
The paper does not say how it scales returns, nor what its ± are taken over. SMAX is not SMAC: the same units in a
simulator of its own, with other observations and another enemy. Win rates cannot be compared with the paper's there;
what is kept of the own teacher can, with care, since it too depends on how hard the game is."""

SAME_DIGITS = """\
The returns of simple_adversary in the paper's Table II are, digit for digit, those of 5m\\_vs\\_6m in its Table I."""

CONCENTRATION = """\
The paper shows 3s5z, without distillation and with it, and gives no number. Bits are the entropy of the actions taken
at one step of the episode, averaged over decisions; 0 means that everybody always does the same then. *Team* takes all
agents together, *each agent* one at a time; so many *equally frequent actions* would have the team's entropy.
Concentrated is not better by itself: the teacher is the measure. Only decisions count: an agent that is dead, or has
one action left, makes none. The maps put all agents, episodes and seeds together, and are grey where fewer than 1 % as
many decisions were made as at the busiest step."""
