"""A checkout and the bundled runtime compute the same: losses, updated weights, actions, contents of batches."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch as th

from conformance import (
    BATCH,
    GROUPS,
    LIMIT,
    N_ACTIONS,
    N_AGENTS,
    PPO,
    Q,
    contract_host,
    empty_batch,
    empty_buffer,
    host_classes,
    learner_of,
    networks,
    random_batch,
    settings,
)

pytestmark = [
    pytest.mark.skipif(not os.environ.get("EPYMARL_HOME"), reason="EPYMARL_HOME names no checkout"),
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning"),  # the checkout's way of indexing
]

CASES = {
    "mappo": (PPO, {}),
    "mappo-per-agent-rewards": (PPO, {"common_reward": False}),
    "mappo-raw-rewards": (PPO, {"standardise_rewards": False}),
    "mappo-standardised-returns": (PPO, {"standardise_returns": True}),
    "mappo-hard-target": (PPO, {"target_update_interval_or_tau": 2}),
    "mappo-full-copy-target": (PPO, {"target_update_interval_or_tau": 1}),
    "mappo-mlp": (PPO, {"use_rnn": False}),
    "mappo-all-inputs": (PPO, {"obs_individual_obs": True, "obs_last_action": True}),
    "mappo-no-last-value": (PPO, {"add_value_last_step": False}),
    "mappo-long-nstep": (PPO, {"q_nstep": 20, "grad_norm_clip": 0.1}),
    "mappo-non-shared": (PPO, {"agent": "rnn_ns", "mac": "non_shared_mac", "obs_agent_id": False}),
    "ippo": (PPO, {"critic_type": "ac_critic"}),
    "ippo-per-agent-rewards": (
        PPO,
        {"critic_type": "ac_critic", "common_reward": False, "standardise_returns": True},
    ),
    "iql": (Q, {}),
    "iql-per-agent-rewards": (Q, {"common_reward": False}),
    "iql-single-q-mlp": (Q, {"double_q": False, "use_rnn": False}),
    "iql-last-action": (Q, {"obs_last_action": True, "target_update_interval_or_tau": 2}),
    "iql-non-shared": (Q, {"agent": "rnn_ns", "mac": "non_shared_mac"}),
    "vdn": (Q, {"mixer": "vdn", "use_rnn": False}),
    "vdn-hard-target": (Q, {"mixer": "vdn", "target_update_interval_or_tau": 2}),
    "qmix": (Q, {"mixer": "qmix"}),
    "qmix-mlp-hard-target": (Q, {"mixer": "qmix", "use_rnn": False, "target_update_interval_or_tau": 2}),
    "qmix-single-q": (Q, {"mixer": "qmix", "double_q": False, "standardise_rewards": False}),
    "qmix-one-layer": (Q, {"mixer": "qmix", "hypernet_layers": 1}),
}


@pytest.fixture(scope="module")
def checkout():
    return contract_host()


@pytest.fixture(scope="module")
def lite():
    return host_classes("epymarl_lite.")


def same_weights(left, right) -> None:
    """Give `right` the weights of `left`; the old policy of PPO is the current one."""
    source = networks(left)
    for name, network in networks(right).items():
        network.load_state_dict(source["agent" if name == "old_agent" else name].state_dict())


def assert_same_weights(left, right) -> None:
    source = networks(left)
    for name, network in networks(right).items():
        for key, value in network.state_dict().items():
            expected = source["agent" if name == "old_agent" else name].state_dict()[key]
            th.testing.assert_close(expected, value, rtol=0, atol=1e-6, msg=lambda m, n=name, k=key: f"{n}.{k}: {m}")


def cut(batch):
    return batch[:, : batch.max_t_filled()]


@pytest.mark.parametrize("case", CASES)
def test_same_losses_and_weights_after_several_updates(checkout, lite, case):
    base, changes = CASES[case]
    args = settings(base, **changes)
    ours, theirs = learner_of(lite, args, seed=1), learner_of(checkout, args, seed=2)
    same_weights(ours, theirs)
    for step in range(5):
        for host, learner in ((lite, ours), (checkout, theirs)):
            learner.train(cut(random_batch(host, step, args.common_reward)), 10 * step, step)
        assert ours.logger.stats.keys() == theirs.logger.stats.keys()
        for key, value in theirs.logger.stats.items():
            assert ours.logger.stats[key] == pytest.approx(value, rel=1e-5, abs=1e-6), key
        assert_same_weights(ours, theirs)
    for name in ("rew_ms", "ret_ms"):
        if hasattr(theirs, name):
            for moment in ("mean", "var"):
                th.testing.assert_close(getattr(getattr(ours, name), moment), getattr(getattr(theirs, name), moment))


@pytest.mark.parametrize("mixer", [None, "vdn", "qmix"])
def test_standardised_returns_of_q_learning_agree_where_nothing_is_padded(checkout, lite, mixer):
    args = settings(Q, mixer=mixer, standardise_returns=True)
    ours, theirs = learner_of(lite, args, seed=1), learner_of(checkout, args, seed=2)
    same_weights(ours, theirs)
    for step in range(4):
        for host, learner in ((lite, ours), (checkout, theirs)):
            learner.train(random_batch(host, step, full=True), 10 * step, step)
        assert ours.logger.stats["loss"] == pytest.approx(theirs.logger.stats["loss"], rel=1e-5)
        assert_same_weights(ours, theirs)


@pytest.mark.parametrize("common_reward", [True, False])
def test_same_contents_of_episode_batches(checkout, lite, common_reward):
    ours, theirs = (random_batch(host, 3, common_reward) for host in (lite, checkout))
    assert ours.scheme.keys() == theirs.scheme.keys()
    for key in theirs.scheme:
        assert ours[key].dtype == theirs[key].dtype, key
        assert th.equal(ours[key], theirs[key]), key
    assert th.equal(ours.max_t_filled(), theirs.max_t_filled())


def test_same_ring_order_and_same_samples(checkout, lite):
    samples = []
    for host in (lite, checkout):
        buffer = empty_buffer(host, 2 * BATCH + 2)
        drawn = []
        np.random.seed(4)
        for step in range(5):
            buffer.insert_episode_batch(random_batch(host, step))
            assert buffer.can_sample(BATCH)
            drawn.append(buffer.sample(BATCH))
        samples.append((drawn, buffer))
    (ours, our_ring), (theirs, their_ring) = samples
    assert our_ring.buffer_index == their_ring.buffer_index
    assert our_ring.episodes_in_buffer == their_ring.episodes_in_buffer
    for left, right in zip([*ours, our_ring], [*theirs, their_ring], strict=True):
        for key in their_ring.scheme:
            assert th.equal(left[key], right[key]), key


@pytest.mark.parametrize("test_mode", [False, True])
@pytest.mark.parametrize("mac", ["basic_mac", "non_shared_mac"])
@pytest.mark.parametrize(("base", "selector"), [(PPO, "soft_policies"), (PPO, "multinomial"), (Q, "epsilon_greedy")])
def test_same_actions_from_the_same_seed(checkout, lite, base, selector, mac, test_mode):
    agent = "rnn" if mac == "basic_mac" else "rnn_ns"
    args = settings(base, action_selector=selector, mac=mac, agent=agent, obs_last_action=True)
    chosen, weights = [], None
    for host in (lite, checkout):
        controller = host.macs[mac](empty_buffer(host, 1).scheme, GROUPS, args)
        weights = weights or controller.agent.state_dict()
        controller.agent.load_state_dict(weights)
        batch = random_batch(host, 5, full=True)
        controller.init_hidden(BATCH)
        th.manual_seed(6)
        steps = [controller.select_actions(batch, t, t_env=30, bs=[0, 2, 3], test_mode=test_mode) for t in range(LIMIT)]
        chosen.append(th.stack(steps))
    assert chosen[0].shape == (LIMIT, 3, N_AGENTS)
    assert chosen[0].dtype == chosen[1].dtype == th.long
    assert th.equal(*chosen)


@pytest.mark.parametrize(("base", "mixer"), [(PPO, None), (Q, None), (Q, "vdn"), (Q, "qmix")])
@pytest.mark.parametrize("direction", ["lite-to-checkout", "checkout-to-lite"])
def test_saved_files_load_on_the_other_host(checkout, lite, base, mixer, direction, tmp_path):
    args = settings(base, mixer=mixer)
    first, second = (lite, checkout) if direction == "lite-to-checkout" else (checkout, lite)
    writer, reader = learner_of(first, args, seed=1), learner_of(second, args, seed=2)
    writer.train(random_batch(first, 0), 0, 0)
    folders = [tmp_path / "written", tmp_path / "again"]
    for folder, learner in zip(folders, (writer, reader), strict=True):
        folder.mkdir()
        if learner is reader:
            reader.load_models(str(folders[0]))
        learner.save_models(str(folder))
    assert {file.name for file in folders[0].iterdir()} == {file.name for file in folders[1].iterdir()}
    for name in ("agent", "critic", "mixer"):
        if name in networks(writer):
            for key, value in networks(writer)[name].state_dict().items():
                assert th.equal(networks(reader)[name].state_dict()[key], value)


@pytest.mark.parametrize("decay", ["linear", "exp"])
@pytest.mark.parametrize("finish", [0.05, 0.0])
def test_same_exploration_schedule(checkout, lite, decay, finish):
    ours, theirs = (host.Schedule(1.0, finish, 100, decay=decay) for host in (lite, checkout))
    for t in (0, 1, 50, 100, 1000):
        assert ours.eval(t) == pytest.approx(theirs.eval(t), rel=1e-12)


def test_same_initial_sizes_and_shapes(checkout, lite):
    for host in (lite, checkout):
        batch = empty_batch(host)
        assert batch["actions_onehot"].shape == (BATCH, LIMIT + 1, N_AGENTS, N_ACTIONS)
        assert batch["filled"].shape == (BATCH, LIMIT + 1, 1)
        assert batch["filled"].dtype == th.long
