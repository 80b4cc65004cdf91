"""The bundled runtime's networks, controllers and learners against slow, independent versions of the same rules."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from conformance import (
    BATCH,
    GROUPS,
    LIMIT,
    N_ACTIONS,
    N_AGENTS,
    OBS,
    PPO,
    STATE,
    Q,
    empty_buffer,
    host_classes,
    learner_of,
    networks,
    random_batch,
    settings,
)
from epymarl_lite.controllers.basic_controller import BasicMAC
from epymarl_lite.controllers.unrolling import step_by_step, unroll
from epymarl_lite.learners.common import TargetUpdate, masked_mean, step_mask
from epymarl_lite.learners.ppo_learner import nstep_targets

LITE = host_classes("epymarl_lite.")


def controller_of(args):
    return LITE.macs[args.mac](empty_buffer(LITE, 1).scheme, GROUPS, args)


def slow_mask(batch) -> np.ndarray:
    """(batch, time - 1): 1 up to and including the last step of each episode."""
    filled, ended = batch["filled"][..., 0].numpy(), batch["terminated"][..., 0].numpy()
    steps = filled.shape[1] - 1
    return np.array(
        [[float(filled[b, t] and not (t and ended[b, t - 1])) for t in range(steps)] for b in range(len(filled))]
    )


def slow_nstep(rewards, mask, values, nsteps, gamma, add_last):
    """The definition, entry by entry, in float64."""
    batch, steps, agents = rewards.shape
    out = np.zeros_like(rewards)
    for b, t, i in np.ndindex(batch, steps, agents):
        out[b, t, i] = sum(gamma**k * mask[b, t + k, i] * rewards[b, t + k, i] for k in range(nsteps) if t + k < steps)
        if t + nsteps < steps:
            out[b, t, i] += gamma**nsteps * mask[b, t + nsteps, i] * values[b, t + nsteps, i]
        elif add_last:
            out[b, t, i] += gamma ** (steps - t) * values[b, steps, i]
    return out


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 3)),
    nsteps=st.integers(1, 10),
    gamma=st.floats(0, 1),
    add_last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_nstep_targets_follow_their_definition(shape, nsteps, gamma, add_last, seed):
    rng = np.random.default_rng(seed)
    rewards, mask = rng.normal(size=shape), (rng.random(shape) < 0.7).astype(float)
    values = rng.normal(size=(shape[0], shape[1] + 1, shape[2]))
    ours = nstep_targets(th.tensor(rewards), th.tensor(mask), th.tensor(values), nsteps, gamma, add_last)
    np.testing.assert_allclose(ours, slow_nstep(rewards, mask, values, nsteps, gamma, add_last), atol=1e-12)


def test_steps_after_the_end_of_an_episode_are_masked():
    batch = random_batch(LITE, 0)
    np.testing.assert_array_equal(step_mask(batch).squeeze(-1), slow_mask(batch))
    assert step_mask(batch).sum() == batch["filled"].sum() - BATCH, "one more observation than steps per episode"


def test_a_masked_mean_ignores_padding_and_broadcasts_its_mask():
    x, mask = th.tensor([[[1.0, 3.0], [100.0, 100.0]]]), th.tensor([[[1.0], [0.0]]])
    assert masked_mean(x, mask) == 2


@pytest.mark.parametrize("use_rnn", [True, False])
@pytest.mark.parametrize(("agent", "mac"), [("rnn", "basic_mac"), ("rnn_ns", "non_shared_mac")])
@pytest.mark.parametrize("base", [PPO, Q])
@pytest.mark.parametrize("inputs", [{}, {"obs_last_action": True}, {"obs_agent_id": False}])
def test_whole_sequences_equal_step_by_step(base, agent, mac, use_rnn, inputs):
    controller = controller_of(settings(base, agent=agent, mac=mac, use_rnn=use_rnn, **inputs))
    batch = random_batch(LITE, 1)
    fast, slow = unroll(controller, batch, LIMIT), step_by_step(controller, batch, LIMIT)
    assert fast.shape == (BATCH, LIMIT, N_AGENTS, N_ACTIONS)
    th.testing.assert_close(fast, slow, rtol=0, atol=1e-6)
    weights = list(controller.parameters())
    target = th.randn_like(fast)
    for ours, theirs in zip(
        th.autograd.grad((fast * target).sum(), weights), th.autograd.grad((slow * target).sum(), weights), strict=True
    ):
        th.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_subclass_with_its_own_forward_is_not_bypassed():
    class Doubled(BasicMAC):
        def forward(self, ep_batch, t, test_mode=False):
            return 2 * super().forward(ep_batch, t, test_mode)

    args, batch = settings(Q), random_batch(LITE, 1)
    plain = controller_of(args)
    doubled = Doubled(empty_buffer(LITE, 1).scheme, GROUPS, args)
    doubled.load_state(plain)
    th.testing.assert_close(unroll(doubled, batch, LIMIT), 2 * unroll(plain, batch, LIMIT))


def test_agent_input_is_observation_then_previous_action_then_identity():
    controller = controller_of(settings(PPO, obs_last_action=True))
    batch = random_batch(LITE, 2, full=True)
    inputs = controller._build_inputs(batch, 0, LIMIT)
    assert inputs.shape == (BATCH, LIMIT, N_AGENTS, OBS + N_ACTIONS + N_AGENTS)
    for t in range(LIMIT):
        for i in range(N_AGENTS):
            before = np.zeros(N_ACTIONS) if t == 0 else batch["actions_onehot"][1, t - 1, i].numpy()
            expected = np.concatenate([batch["obs"][1, t, i].numpy(), before, np.eye(N_AGENTS)[i]])
            np.testing.assert_array_equal(inputs[1, t, i], expected)
            np.testing.assert_array_equal(controller._build_inputs(batch, t, t + 1)[1, 0, i], expected)


def test_policies_give_unavailable_actions_nothing_and_padding_a_uniform_row():
    controller = controller_of(settings(PPO))
    batch = random_batch(LITE, 3)
    pi = unroll(controller, batch, LIMIT)
    avail = batch["avail_actions"][:, :LIMIT]
    some = avail.any(-1, keepdim=True).expand_as(avail)
    assert not some.all(), "the batch has padding"
    assert (pi[some & (avail == 0)] == 0).all()
    assert (pi[~some] == 1 / N_ACTIONS).all()
    assert pi.isfinite().all()


def test_hidden_states_have_the_shapes_plug_ins_expect():
    for agent, mac, after in (
        ("rnn", "basic_mac", (BATCH * N_AGENTS, 16)),
        ("rnn_ns", "non_shared_mac", (BATCH, N_AGENTS, 16)),
    ):
        controller = controller_of(settings(PPO, agent=agent, mac=mac))
        copy.deepcopy(controller)
        controller.init_hidden(BATCH)
        assert controller.hidden_states.shape == (BATCH, N_AGENTS, 16)
        controller.forward(random_batch(LITE, 0), 0)
        assert controller.hidden_states.shape == after


@pytest.mark.parametrize("last_action", [False, True])
@pytest.mark.parametrize("all_obs", [False, True])
def test_the_central_critic_reads_state_observations_actions_and_identity(all_obs, last_action):
    args = settings(PPO, obs_individual_obs=all_obs, obs_last_action=last_action)
    critic = LITE.critics["cv_critic"](empty_buffer(LITE, 1).scheme, args)
    batch = random_batch(LITE, 4)
    assert critic.fc1.in_features == STATE + N_AGENTS * (OBS * all_obs + N_ACTIONS * last_action) + N_AGENTS
    values = critic(batch)
    assert values.shape == (BATCH, LIMIT + 1, N_AGENTS, 1)
    for b, t, i in ((0, 0, 1), (2, 1, 0), (1, LIMIT, 2)):
        parts = [batch["state"][b, t]]
        parts += [batch["obs"][b, t].flatten()] if all_obs else []
        if last_action:
            taken = batch["actions_onehot"][b, t - 1] if t else th.zeros(N_AGENTS, N_ACTIONS)
            parts.append(taken.flatten())
        x = th.cat([*parts, th.eye(N_AGENTS)[i]])
        slow = critic.fc3(critic.fc2(critic.fc1(x).relu()).relu())
        th.testing.assert_close(values[b, t, i], slow)
        th.testing.assert_close(critic(batch, t=t)[b, 0, i], slow)


def test_the_individual_critic_reads_its_own_observation_and_identity():
    critic = LITE.critics["ac_critic"](empty_buffer(LITE, 1).scheme, settings(PPO))
    batch = random_batch(LITE, 4)
    x = th.cat([batch["obs"][1, 2, 1], th.eye(N_AGENTS)[1]])
    th.testing.assert_close(critic(batch)[1, 2, 1], critic.fc3(critic.fc2(critic.fc1(x).relu()).relu()))
    assert critic(batch, t=2).shape == (BATCH, 1, N_AGENTS, 1)


@pytest.mark.parametrize("layers", [1, 2])
def test_qmix_follows_its_formula(layers):
    mixer = LITE.QMixer(settings(Q, hypernet_layers=layers))
    qs, states = th.randn(2, 3, N_AGENTS), th.randn(2, 3, STATE)
    weights = {name: value.double().numpy() for name, value in mixer.state_dict().items()}

    def hyper(name, s):
        if layers == 1:
            return weights[f"{name}.weight"] @ s + weights[f"{name}.bias"]
        inner = np.maximum(weights[f"{name}.0.weight"] @ s + weights[f"{name}.0.bias"], 0)
        return weights[f"{name}.2.weight"] @ inner + weights[f"{name}.2.bias"]

    total = mixer(qs, states)
    assert total.shape == (2, 3, 1)
    for b, t in np.ndindex(2, 3):
        s, q = states[b, t].double().numpy(), qs[b, t].double().numpy()
        w1 = np.abs(hyper("hyper_w_1", s)).reshape(N_AGENTS, -1)
        pre = q @ w1 + weights["hyper_b_1.weight"] @ s + weights["hyper_b_1.bias"]
        hidden = np.where(pre > 0, pre, np.expm1(pre))
        v = weights["V.2.weight"] @ np.maximum(weights["V.0.weight"] @ s + weights["V.0.bias"], 0) + weights["V.2.bias"]
        assert total[b, t, 0].item() == pytest.approx((hidden @ np.abs(hyper("hyper_w_final", s)) + v).item(), abs=1e-6)


def test_qmix_refuses_other_depths():
    with pytest.raises(ValueError, match="hypernet_layers=3"):
        LITE.QMixer(settings(Q, hypernet_layers=3))


def test_vdn_sums_over_agents():
    assert LITE.VDNMixer()(th.tensor([[[1.0, 2.0, 4.0]]])).tolist() == [[[7.0]]]


def test_ppo_losses_follow_the_rules_written_out_slowly():
    args = settings(PPO, epochs=2, standardise_rewards=True, obs_last_action=True)
    learner, batch = learner_of(LITE, args), random_batch(LITE, 5)
    mac, critic, target = (copy.deepcopy(x) for x in (learner.mac, learner.critic, learner.target_critic))
    optimisers = [th.optim.Adam(x.parameters(), lr=args.lr) for x in (mac, critic)]
    reward = batch["reward"][:, :-1].numpy().astype(float)
    reward = (reward - reward.mean()) / reward.std(ddof=1)
    mask = np.repeat(slow_mask(batch)[..., None], N_AGENTS, 2)
    values = target(batch).squeeze(-1).detach().double().numpy()
    targets = th.tensor(
        slow_nstep(np.repeat(reward, N_AGENTS, 2), mask, values, args.q_nstep, args.gamma, True)
    ).float()
    steps = np.argwhere(mask > 0)
    old = None
    for _ in range(args.epochs):
        pi, v = step_by_step(mac, batch, LIMIT), critic(batch).squeeze(-1)
        taken = th.stack([pi[b, t, i, batch["actions"][b, t, i, 0]] for b, t, i in steps])
        old = taken.detach() if old is None else old
        advantage = th.stack([(targets[b, t, i] - v[b, t, i]) for b, t, i in steps])
        entropy = th.stack([-(pi[b, t, i] * (pi[b, t, i] + 1e-10).log()).sum() for b, t, i in steps])
        critic_loss, ratio = advantage.square().mean(), taken / old
        # min(r A, clip(r) A), case by case: the clip binds from above where A > 0 and from below where A < 0.
        edge = th.where(advantage > 0, ratio.clamp(max=1.2), ratio.clamp(min=0.8)) * advantage.detach()
        policy_loss = -(edge + args.entropy_coef * entropy).mean()
        for optimiser, loss in zip(optimisers, (policy_loss, critic_loss), strict=True):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    learner.train(batch, 0, 0)
    assert learner.logger.stats["critic_loss"] == pytest.approx(critic_loss.item(), rel=1e-4)
    assert learner.logger.stats["pg_loss"] == pytest.approx(policy_loss.item(), rel=1e-4, abs=1e-6)
    for ours, slow in ((learner.mac.agent, mac.agent), (learner.critic, critic)):
        for key, value in slow.state_dict().items():
            th.testing.assert_close(ours.state_dict()[key], value, rtol=0, atol=1e-4)


@pytest.mark.parametrize("mixer", [None, "vdn", "qmix"])
@pytest.mark.parametrize("double_q", [True, False])
def test_q_loss_follows_the_rules_written_out_slowly(mixer, double_q):
    args = settings(Q, mixer=mixer, double_q=double_q, standardise_rewards=False)
    learner, batch = learner_of(LITE, args), random_batch(LITE, 6)
    for name, network in networks(learner).items():
        if name.startswith("target"):
            for parameter in network.parameters():
                parameter.data += 0.1 * th.randn_like(parameter)
    live, late = (step_by_step(m, batch, LIMIT + 1).detach() for m in (learner.mac, learner.target_mac))
    avail, mask = batch["avail_actions"], slow_mask(batch)
    errors = []
    for b, t in np.argwhere(mask > 0):
        taken = th.stack([live[b, t, i, batch["actions"][b, t, i, 0]] for i in range(N_AGENTS)])
        best = []
        for i in range(N_AGENTS):
            options = [a for a in range(N_ACTIONS) if avail[b, t + 1, i, a]]
            judge = live if double_q else late
            best.append(
                late[b, t + 1, i, max(options, key=lambda a: judge[b, t + 1, i, a])] if options else th.zeros(())
            )
        following = th.stack(best)
        if mixer:
            taken = learner.mixer(taken[None, None], batch["state"][b, t][None, None])[0, 0]
            following = learner.target_mixer(following[None, None], batch["state"][b, t + 1][None, None])[0, 0]
        goal = batch["reward"][b, t] + args.gamma * (1 - batch["terminated"][b, t].float()) * following
        errors.append((taken - goal).detach().square().mean())
    learner.train(batch, 0, 0)
    assert learner.logger.stats["loss"] == pytest.approx(th.stack(errors).mean().item(), rel=1e-4)


def test_q_learning_with_standardised_returns_stays_finite_on_ragged_episodes():
    learner = learner_of(LITE, settings(Q, standardise_returns=True))
    for step in range(8):
        learner.train(random_batch(LITE, step), step, step)
    assert np.isfinite(learner.logger.stats["loss"])
    assert learner.ret_ms.var.max() < 1e3


def test_soft_targets_move_by_their_rate_and_hard_ones_copy_every_so_many_calls():
    live, target = th.nn.Linear(1, 1), th.nn.Linear(1, 1)
    for parameters, value in ((live, 1.0), (target, 0.0)):
        th.nn.init.constant_(parameters.weight, value)
    soft = TargetUpdate(0.25)
    soft([(target, live)])
    assert target.weight.item() == 0.25
    soft([(target, live)])
    assert target.weight.item() == pytest.approx(0.4375)
    hard = TargetUpdate(2)
    hard([(target, live)])
    assert target.weight.item() == pytest.approx(0.4375)
    hard([(target, live)])
    assert target.weight.item() == 1
    TargetUpdate(1)([(target, live)])
    assert target.weight.item() == 1


@pytest.mark.parametrize(("base", "mixer"), [(PPO, None), (Q, None), (Q, "vdn"), (Q, "qmix")])
def test_a_reloaded_learner_goes_on_as_the_saved_one_would(base, mixer, tmp_path):
    """No part of the update may keep its weights from construction: neither the old policy nor a target mixer."""
    args = settings(base, mixer=mixer, standardise_rewards=False, target_update_interval_or_tau=1)
    saved, loaded = learner_of(LITE, args, seed=1), learner_of(LITE, args, seed=2)
    for step in range(2):
        saved.train(random_batch(LITE, step), step, step)
    saved.save_models(tmp_path)
    loaded.load_models(tmp_path)
    for learner in (saved, loaded):
        learner.train(random_batch(LITE, 9), 9, 9)
    assert loaded.logger.stats == pytest.approx(saved.logger.stats)
    for name, network in networks(saved).items():
        for key, value in network.state_dict().items():
            th.testing.assert_close(networks(loaded)[name].state_dict()[key], value, msg=f"{name}.{key}")


@pytest.mark.parametrize(
    ("base", "mixer", "files"),
    [
        (PPO, None, {"agent.th", "critic.th", "agent_opt.th", "critic_opt.th"}),
        (Q, None, {"agent.th", "opt.th"}),
        (Q, "qmix", {"agent.th", "mixer.th", "opt.th"}),
    ],
)
def test_checkpoints_have_the_file_names_of_epymarl(base, mixer, files, tmp_path):
    learner_of(LITE, settings(base, mixer=mixer)).save_models(str(tmp_path))
    assert {file.name for file in tmp_path.iterdir()} == files


def test_state_dicts_have_the_names_of_epymarl():
    gru = {"rnn.weight_ih", "rnn.weight_hh", "rnn.bias_ih", "rnn.bias_hh"}
    ends = {f"{layer}.{part}" for layer in ("fc1", "fc2") for part in ("weight", "bias")}
    assert set(controller_of(settings(Q)).agent.state_dict()) == ends | gru
    assert set(controller_of(settings(Q, use_rnn=False)).agent.state_dict()) == ends | {"rnn.weight", "rnn.bias"}
    separate = controller_of(settings(Q, agent="rnn_ns", mac="non_shared_mac")).agent.state_dict()
    assert set(separate) == {f"agents.{i}.{name}" for i in range(N_AGENTS) for name in ends | gru}


def test_an_unknown_mixer_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"unknown mixer 'qtran': use one of \['qmix', 'vdn'\], or null"):
        learner_of(LITE, settings(Q, mixer="qtran"))


def test_selectors_choose_available_actions_only():
    avail = th.tensor([0, 1, 0, 1, 0]).expand(400, N_AGENTS, -1)
    soft = th.full(avail.shape, 0.2)
    multinomial = LITE.selectors["multinomial"](settings(PPO))
    greedy = LITE.selectors["epsilon_greedy"](settings(Q))
    drawn = multinomial.select_action(soft, avail, 0)
    assert set(drawn.unique().tolist()) == {1, 3}
    assert set(greedy.select_action(soft, avail, 0).unique().tolist()) == {1, 3}
    assert greedy.epsilon == 1
    values = th.tensor([9.0, 1.0, 9.0, 2.0, 9.0]).expand(avail.shape)
    assert (greedy.select_action(values, avail, 0, test_mode=True) == 3).all()
    assert (multinomial.select_action(values, avail, 0, test_mode=True) == 3).all()
    greedy.select_action(values, avail, 10**6)
    assert greedy.epsilon == 0.05
    at_once = LITE.selectors["epsilon_greedy"](settings(Q, epsilon_anneal_time=0))
    at_once.select_action(values, avail, 0)
    assert at_once.epsilon == 0.05


def test_soft_policies_samples_in_testing_too():
    selector = LITE.selectors["soft_policies"](settings(PPO))
    probabilities = th.tensor([0.75, 0.25]).expand(4000, 1, 2)
    drawn = selector.select_action(probabilities, th.ones(4000, 1, 2), 0, test_mode=True)
    assert drawn.shape == (4000, 1)
    assert drawn.float().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("base", [PPO, Q])
def test_training_is_repeatable_bit_for_bit(base):
    results = []
    for _ in range(2):
        learner = learner_of(LITE, settings(base), seed=3)
        for step in range(2):
            learner.train(random_batch(LITE, step), step, step)
        results.append(learner.mac.agent.state_dict())
    for key, value in results[0].items():
        assert th.equal(value, results[1][key]), key
