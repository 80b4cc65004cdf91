"""Credit: each agent's advantage without what the others have spoilt, and weights that are fitted where no mixer is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_learners import credit


def test_the_others_regrets_are_taken_out_and_one_s_own_stays():
    advantage = torch.full((1, 1, 3), 10.0)
    regret = torch.tensor([[[-1.0, -2.0, -4.0]]])
    assert credit.without_others(advantage, regret).tolist() == [[[16.0, 15.0, 13.0]]]
    assert torch.equal(credit.without_others(advantage[..., :1], regret[..., :1]), advantage[..., :1])


def test_credit_leaves_the_mean_of_a_policy_gradient_as_it_is():
    """All joint actions of two agents, weighted by their probabilities: the score times either advantage sums alike."""
    generator = np.random.default_rng(0)
    policies = [generator.dirichlet(np.ones(3)) for _ in range(2)]
    regrets = [np.minimum(generator.standard_normal(3), 0.0) for _ in range(2)]
    team = generator.standard_normal((3, 3))
    for agent in range(2):
        sums = np.zeros((2, 3))
        for joint in itertools.product(range(3), repeat=2):
            chance = policies[0][joint[0]] * policies[1][joint[1]]
            score = np.eye(3)[joint[agent]] - policies[agent]
            shared = torch.full((1, 1, 2), team[joint], dtype=torch.float64)
            own = torch.tensor([[[regrets[i][joint[i]] for i in range(2)]]], dtype=torch.float64)
            sums[0] += chance * score * team[joint]
            sums[1] += chance * score * float(credit.without_others(shared, own)[0, 0, agent])
        np.testing.assert_allclose(sums[1], sums[0], atol=1e-12)


@given(agents=st.integers(1, 4), seed=st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_the_weights_are_the_best_of_all_that_are_not_negative(agents, seed):
    generator = np.random.default_rng(seed)
    own = generator.standard_normal((40, agents)) @ generator.standard_normal((agents, agents))
    team = own @ generator.standard_normal(agents) + generator.standard_normal(40)
    found = credit.fit([(torch.from_numpy(own[:15]), torch.from_numpy(team[:15])),
                        (torch.from_numpy(own[15:]), torch.from_numpy(team[15:]))])  # fmt: skip
    centred, wanted = own - own.mean(0), team - team.mean()
    best = np.square(wanted).sum()
    # Every set of agents whose weights are not 0, by the unconstrained solution on it.
    for chosen in itertools.product([False, True], repeat=agents):
        some = np.array(chosen)
        weights = np.zeros(agents)
        if some.any():
            weights[some] = np.linalg.lstsq(centred[:, some], wanted, rcond=None)[0]
        if (weights >= 0).all():
            best = min(best, np.square(wanted - centred @ weights).sum())
    assert (found.weights >= 0).all()
    loss = np.square(wanted - centred @ found.weights.double().numpy()).sum()
    assert loss == pytest.approx(best, rel=1e-5)


def test_reluctance_is_over_the_available_actions_and_no_more_than_the_buffer_s():
    logits = torch.log(torch.tensor([[[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]]]))
    avail = torch.tensor([[[[0, 1, 1], [1, 0, 0]]]])
    actions = torch.tensor([[[2, 0]]])
    expected = [np.log(0.2 / 0.3), 0.0]
    np.testing.assert_allclose(credit.reluctance(logits, avail, actions)[0, 0], expected, rtol=1e-6)
    fitted = credit.FittedCredit(torch.tensor([2.0, 1.0]), torch.tensor([-0.25, -1.0]))
    np.testing.assert_allclose(fitted(logits, avail, actions)[0, 0], [-0.5, 0.0])


def test_an_agent_that_never_varies_gets_no_weight():
    own = torch.tensor([[0.0, -1.0], [0.0, -2.0]])
    assert credit.fit([(own, torch.tensor([3.0, 1.0]))]).weights.tolist() == [0.0, 2.0]
