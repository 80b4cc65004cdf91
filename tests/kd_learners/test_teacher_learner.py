"""Stage 1: what the learner computes from a host's batch, when it stops, and that it learns."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kd_core.artifacts.teacher import load_teacher
from kd_core.errors import UserError
from kd_core.host import get_host
from kd_learners import batches, central_critic
from kd_learners.best_weights import BestWeights
from kd_learners.losses import acting_mask, masked_log_softmax
from kd_learners.rollout import Rollout, Sequences, States, cut, ends, pieces, starts
from kd_learners.running_moments import RunningMoments
from tiny_stages import ACTIONS, AGENTS, LIMIT, OBS, STATE, run_stage, stage_args
from tiny_teachers import ENDINGS, make_learner, played


@pytest.fixture
def learner(tmp_path):
    return make_learner(tmp_path)


# ------------------------------------------------------------------------------------------------ reading the host
def test_from_host_keeps_the_steps_that_happened_whatever_ended_the_episode():
    batch = played()
    episodes = batches.from_host(batch)
    assert episodes.length.tolist() == [length for length, _ in ENDINGS]
    assert episodes.obs.shape == (4, LIMIT + 1, AGENTS, OBS)
    assert episodes.actions.shape == (4, LIMIT, AGENTS)
    for row, (length, ended) in enumerate(ENDINGS):
        filled = [1.0] * length + [0.0] * (LIMIT - length)
        assert episodes.filled[row, :, 0].tolist() == filled
        terminal = [0.0] * LIMIT
        terminal[length - 1] = float(ended)
        assert episodes.terminated[row, :, 0].tolist() == terminal
        assert torch.equal(episodes.reward[row], batch["reward"][row, :-1])
        assert torch.equal(episodes.actions[row], batch["actions"][row, :-1, :, 0])


def test_from_host_reads_a_batch_cut_to_its_longest_episode():
    batch = played([(2, False), (1, True)])
    episodes = batches.from_host(batch[:, : batch.max_t_filled()])
    assert episodes.length.tolist() == [2, 1]
    assert episodes.actions.shape[1] == 2


def test_a_termination_written_after_the_end_does_not_count():
    batch = played()
    batch.data.transition_data["terminated"][3, 3] = 1
    assert batches.from_host(batch).terminated[3].sum() == 0


# -------------------------------------------------------------------------------------------------------- the critic
@pytest.mark.parametrize("obs_last_action", [True, False], ids=["last action", ""])
@pytest.mark.parametrize("obs_individual_obs", [True, False], ids=["all observations", ""])
@pytest.mark.parametrize("critic_type", central_critic.CRITIC_TYPES)
def test_the_critic_on_whole_episodes_is_the_hosts_own(critic_type, obs_individual_obs, obs_last_action):
    if critic_type == "cv_critic_ns" and obs_individual_obs and "EPYMARL_HOME" in os.environ:
        pytest.skip("EPyMARL's counts one agent's observation where it reads all of them")
    sizes = central_critic.CriticSizes(critic_type, AGENTS, ACTIONS, OBS, STATE, 8, obs_individual_obs, obs_last_action)
    critic, batch = sizes.build(), played()
    theirs = critic
    if critic_type.endswith("_ns"):
        scheme = {"state": {"vshape": STATE}, "obs": {"vshape": OBS}, "actions_onehot": {"vshape": (ACTIONS,)}}
        theirs = get_host().critics[critic_type](scheme, SimpleNamespace(**vars(sizes)))
        for own, layers in zip(theirs.critics, critic.critics, strict=True):
            torch.nn.utils.vector_to_parameters(
                torch.nn.utils.parameters_to_vector(layers.parameters()), own.parameters()
            )
    episodes = batches.from_host(batch)
    with torch.no_grad():
        value = central_critic.evaluate(critic, sizes.inputs(vars(episodes)))
        host = theirs(batch).squeeze(-1)
    for row, (length, _) in enumerate(ENDINGS):
        torch.testing.assert_close(value[row, : length + 1], host[row, : length + 1], rtol=0, atol=2e-6)


def test_another_critic_is_refused():
    with pytest.raises(UserError, match="critic_type is 'coma_critic': a teacher needs one of cv_critic, ac_critic"):
        central_critic.CriticSizes("coma_critic", AGENTS, ACTIONS, OBS, STATE, 8, False, False)


# -------------------------------------------------------------------------------------------------------- statistics
def test_running_moments_are_those_of_everything_seen():
    rng, moments = np.random.default_rng(0), RunningMoments()
    parts = [rng.normal(1000.0 * i, 3.0, size) for i, size in enumerate((40, 1, 7, 300))]
    for i, part in enumerate(parts):
        moments.update(torch.from_numpy(part))
        whole = np.concatenate(parts[: i + 1])
        assert moments.mean == pytest.approx(whole.mean(), rel=1e-12)
        assert moments.std == pytest.approx(whole.std(), rel=1e-9)


def test_equal_returns_leave_a_small_positive_spread():
    moments = RunningMoments()
    moments.update(torch.full((7,), 4.0))
    assert (moments.mean, moments.std) == (4.0, 1e-4)


# --------------------------------------------------------------------------------------------- advantages and returns
@pytest.mark.parametrize("common_reward", [True, False], ids=["common reward", "own rewards"])
def test_advantages_and_targets_equal_a_slow_loop_that_bootstraps_at_time_limits(tmp_path, common_reward):
    # Sequences shorter than the episodes, so that some begin in the middle of one.
    learner = make_learner(tmp_path, common_reward=common_reward, chunk_length=2)
    learner.returns.update(torch.tensor([1.0, 4.0, 9.0]))
    batch = played(common_reward=common_reward)
    scale = learner.returns.std, learner.returns.mean
    with torch.no_grad():
        value = (learner.critic(batch).squeeze(-1) * scale[0] + scale[1]).double().numpy()
        every = {"obs": batch["obs"], "state": batch["state"]}
        logits, embedding = learner.mac.unroll_inputs(learner.mac.episode_inputs(every))
    rollout = learner._prepare(batches.from_host(batch))

    gamma, lam = learner.settings.gamma, learner.settings.gae_lambda
    advantage = np.zeros((len(ENDINGS), LIMIT, AGENTS))
    for row, (length, ended) in enumerate(ENDINGS):
        for agent in range(AGENTS):
            running = 0.0
            for t in reversed(range(length)):
                after = 0.0 if ended and t == length - 1 else value[row, t + 1, agent]
                reward = float(batch["reward"][row, t, agent if not common_reward else 0])
                running = reward + gamma * after - value[row, t, agent] + gamma * lam * running
                advantage[row, t, agent] = running
    episodes = batches.from_host(batch)
    filled = np.broadcast_to(episodes.filled.numpy() > 0, advantage.shape)
    returns = (advantage + value[:, :-1])[filled]
    assert filled.sum() == AGENTS * sum(length for length, _ in ENDINGS)
    seen = np.concatenate([[1.0, 4.0, 9.0], returns])
    np.testing.assert_allclose(rollout.states.target.numpy().ravel(), (returns - seen.mean()) / seen.std(), atol=2e-6)
    avail = episodes.avail_actions[:, :-1]
    acting = acting_mask(episodes.filled[..., 0], avail)
    chosen = advantage[acting.numpy() > 0]
    expected = (advantage - chosen.mean()) / chosen.std()
    log_prob = masked_log_softmax(logits[:, :-1], avail).gather(-1, episodes.actions.unsqueeze(-1)).squeeze(-1)
    got, length = rollout.sequences, learner.settings.chunk_length
    kept = cut(acting, length).any(dim=1)
    begin = starts(embedding[:, :-1][:, ends(length)], pieces(LIMIT, length))
    torch.testing.assert_close(got.hidden, begin[kept], rtol=0, atol=1e-6)
    decided = got.acting > 0
    assert decided.sum() == acting.sum()
    torch.testing.assert_close(got.acting, cut(acting, length)[kept], rtol=0, atol=0)
    for name, whole in (("advantage", torch.from_numpy(expected).float()), ("log_prob", log_prob)):
        torch.testing.assert_close(getattr(got, name)[decided], cut(whole, length)[kept][decided], rtol=0, atol=5e-6)


def test_every_sequence_and_every_state_is_in_exactly_one_minibatch(learner):
    rollout = learner._prepare(batches.from_host(played(ENDINGS * 3)))
    sequences, states = rollout.sequences, rollout.states
    named = Rollout(
        Sequences(**{**vars(sequences), "actions": torch.arange(len(sequences.actions))}),
        States(**{**vars(states), "target": torch.arange(len(states.target))}),
    )
    orders = []
    for _ in range(2):
        parts = list(named.minibatches(5))
        assert len(parts) == 5
        orders.append(torch.cat([part.actions for part, _ in parts]))
        assert sorted(orders[-1].tolist()) == list(range(len(sequences.actions)))
        assert sorted(torch.cat([part.target for _, part in parts]).tolist()) == list(range(len(states.target)))
        for part, rows in parts:
            assert torch.equal(part.log_prob, sequences.log_prob[part.actions])
            assert torch.equal(rows.inputs, states.inputs[rows.target])
    assert not torch.equal(*orders)


def test_no_minibatch_is_empty_however_many_are_asked_for(learner):
    rollout = learner._prepare(batches.from_host(played()))
    parts = list(rollout.minibatches(10_000))
    assert len(parts) == min(len(rollout.sequences.acting), len(rollout.states.target))
    assert all(len(part.acting) and len(rows.target) for part, rows in parts)


@given(batch=st.integers(1, 3), time=st.integers(1, 9), agents=st.integers(1, 3), length=st.integers(1, 11))
def test_sequences_hold_every_step_of_every_agent_once_and_in_order(batch, time, agents, length):
    x = torch.arange(1, batch * time * agents * 2 + 1).view(batch, time, agents, 2)
    rows = cut(x, length)
    count = -(-time // length)
    assert rows.shape == (batch * agents * count, length, 2)
    for b in range(batch):
        for agent in range(agents):
            own = rows.view(batch, agents, count * length, 2)[b, agent]
            assert torch.equal(own[:time], x[b, :, agent])
            assert not own[time:].any()
    some = torch.arange(len(rows)) % 3 != 1
    assert torch.equal(cut(x, length, some), rows[some])


@pytest.mark.parametrize("length", [1, 2, 3, 5, 50])
def test_a_sequence_from_its_starting_state_gives_the_logits_of_the_whole_episode(learner, length):
    episodes = batches.from_host(played())
    inputs = learner.mac.episode_inputs(vars(episodes))
    with torch.no_grad():
        logits, embedding = learner.mac.unroll_inputs(inputs)
        begin = starts(embedding[:, ends(length)], pieces(inputs.shape[1], length))
        parts, _ = learner.mac.unroll_inputs(cut(inputs, length).unsqueeze(2), begin.unsqueeze(1))
    real = cut(torch.ones_like(logits), length) > 0
    torch.testing.assert_close(parts.squeeze(2)[real], cut(logits, length)[real], rtol=0, atol=1e-6)


def test_one_call_of_train_takes_epochs_times_minibatches_steps_and_logs_them(tmp_path):
    learner = make_learner(tmp_path, epochs=3, minibatches=2)
    before = [parameter.clone() for parameter in learner.mac.parameters()]
    learner.train(played(), t_env=10, episode_num=4)
    taken = {int(state["step"]) for state in learner.optimiser.state_dict()["state"].values()}
    assert taken == {6}
    assert any(not torch.equal(old, new) for old, new in zip(before, learner.mac.parameters(), strict=True))
    assert {"pg_loss", "critic_loss", "entropy", "clip_fraction", "value_mean"} <= set(learner.logger.stats)
    assert all(np.isfinite(value) for stat in learner.logger.stats.values() for _, value in stat)


def test_a_block_in_which_nobody_had_a_choice_changes_nothing(learner):
    before = [parameter.clone() for parameter in learner.mac.parameters()]
    batch = played()
    batch["avail_actions"][..., 1:] = 0
    learner.train(batch, t_env=10, episode_num=4)
    assert all(torch.equal(old, new) for old, new in zip(before, learner.mac.parameters(), strict=True))


def test_padding_steps_change_no_update(tmp_path):
    weights = []
    for endings_time in (LIMIT + 1, 3):
        torch.manual_seed(0)
        learner = make_learner(tmp_path)
        torch.manual_seed(0)
        batch = played([(2, False), (1, True)])
        learner.train(batch[:, :endings_time], t_env=3, episode_num=2)
        weights.append(torch.cat([parameter.flatten() for parameter in learner.mac.parameters()]))
    torch.testing.assert_close(*weights, rtol=0, atol=1e-6)


def test_the_learning_rate_falls_to_its_final_share(tmp_path):
    learner = make_learner(tmp_path, t_max=100, lr=0.01, critic_lr=0.02, lr_final_share=0.1)
    for t_env, share in ((0, 1.0), (50, 0.55), (100, 0.1), (130, 0.1)):
        learner.train(played(), t_env=t_env, episode_num=0)
        rates = [group["lr"] for group in learner.optimiser.param_groups]
        assert rates == pytest.approx([0.01 * share, 0.02 * share])


# ----------------------------------------------------------------------------------------- the best test, and patience
def test_only_a_better_test_replaces_the_best_weights():
    best, copied = BestWeights(), []

    def weights(name):
        def copy():
            copied.append(name)
            return {"name": name}

        return copy

    for step, value, name in (
        (10, (0.5, -5.0), "a"),
        (20, (0.4, -1.0), "b"),
        (20, (0.9, 9.0), "same test"),
        (30, (0.5, -4.0), "c"),
        (40, (0.5, -4.0), "d"),
    ):
        best.offer(step, value, weights(name))
    assert copied == ["a", "c"]
    assert (best.step, best.value, best.weights) == (30, (0.5, -4.0), {"name": "c"})


def test_a_test_that_is_followed_by_a_save_counts_in_it(learner, tmp_path):
    learner.train(played(), t_env=5, episode_num=0)
    learner.logger.log_stat("test_return_mean", 3.0, 5)
    learner.save_models(str(tmp_path / "5"))
    tested = {name: value.clone() for name, value in learner.mac.agent.state_dict().items()}
    again = make_learner(tmp_path)
    again.load_models(str(tmp_path / "5"))
    again.train(played(seed=1), t_env=10, episode_num=0)
    again.finish()
    assert again.best.step == 5
    assert all(torch.equal(value, tested[name]) for name, value in again.mac.agent.state_dict().items())


def test_a_test_counts_where_every_agent_has_its_own_reward(learner):
    learner.logger.log_stat("test_total_return_mean", 3.0, 5)
    learner.train(played(), t_env=10, episode_num=0)
    assert learner.best.step == 5 and learner.facts()["tests"] == [[5, 3.0]]


def test_the_run_ends_once_no_test_was_better_for_the_share_patience(tmp_path):
    learner = make_learner(tmp_path, t_max=1000, patience=0.2)
    for t_env, test in ((0, 1.0), (100, 2.0), (250, 1.5), (300, 1.9)):
        learner.logger.log_stat("test_return_mean", test, t_env)
        learner.train(played(), t_env=t_env, episode_num=0)
        assert not learner.done
    learner.logger.log_stat("test_return_mean", 0.5, 301)
    learner.train(played(), t_env=301, episode_num=0)
    assert learner.done


def test_the_artifact_of_a_finished_run_holds_the_weights_of_the_best_test(learner, tmp_path):
    learner.train(played(), t_env=5, episode_num=0)
    learner.logger.log_stat("test_return_mean", 3.0, 5)
    learner.train(played(seed=1), t_env=10, episode_num=0)  # sees the test of step 5
    best = {name: value.clone() for name, value in learner.best.weights["agent"].items()}
    statistics = dict(learner.best.weights["returns"])
    for t_env in (15, 20):
        learner.train(played(seed=t_env), t_env=t_env, episode_num=0)
    learner.logger.log_stat("test_return_mean", 2.0, 20)
    assert any(not torch.equal(value, best[name]) for name, value in learner.mac.agent.state_dict().items())
    learner.finish()
    learner.save_models(str(tmp_path / "teacher"))
    saved = load_teacher(tmp_path / "teacher")
    assert all(torch.equal(value, best[name]) for name, value in saved.agent_state.items())
    assert saved.normalisers["value"] == {
        "mean": [statistics["mean"]],
        "std": [max(statistics["variance"], 1e-8) ** 0.5],
    }
    assert (saved.facts["best_test_step"], saved.facts["finished"]) == (5, True)


def test_training_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path):
    torch.manual_seed(3)
    learner = make_learner(tmp_path)
    learner.logger.log_stat("test_return_mean", 2.0, 4)
    learner.train(played(), t_env=5, episode_num=0)
    learner.save_models(str(tmp_path / "5"))
    drawn_next = torch.rand(3)
    other = make_learner(tmp_path)
    other.load_models(str(tmp_path / "5"))
    assert other.steps == 5
    assert torch.equal(torch.rand(3), drawn_next)
    for each in (learner, other):
        each.logger.log_stat("test_return_mean", 1.0, 9)
        torch.manual_seed(9)
        each.train(played(seed=1), t_env=10, episode_num=0)
        assert each.facts()["tests"] == [[4, 2.0], [9, 1.0]]
        assert (each.best.value, each.best.step) == ((0.0, 2.0), 4)
    for ours, theirs in zip(learner.mac.parameters(), other.mac.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert vars(learner.returns) == vars(other.returns)


def test_a_test_is_told_once_however_often_a_run_is_gone_on_with(tmp_path):
    learner = make_learner(tmp_path)
    learner.steps_before = 100  # as where it began with another teacher
    learner.past_tests = [[60, 1.0]]
    for step, value in ((4, 2.0), (9, 1.0)):
        learner.logger.log_stat("test_return_mean", value, step)
    for stop in (9, 15, 20):
        learner.steps = stop
        learner.save_models(str(tmp_path / str(stop)))
        again = make_learner(tmp_path)
        again.steps_before = 100
        # What the run logged before is read again, before its networks are.
        again.logger.stats = {name: list(values) for name, values in learner.logger.stats.items()}
        again.load_models(str(tmp_path / str(stop)))
        learner = again
    learner.logger.log_stat("test_return_mean", 3.0, 25)
    assert learner.facts()["tests"] == [[60, 1.0], [104, 2.0], [109, 1.0], [125, 3.0]]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("torch_threads", -1, "torch_threads is -1: expected a whole number of at least 0"),
        ("autocast", "float16", "autocast is 'float16': choose none, bfloat16 or auto"),
        ("epochs", 2.5, "epochs is 2.5: expected a whole number of at least 1"),
        ("gamma", None, "gamma is None: expected a value of type float"),
        ("batch_size_run", 64, "kd_mappo_teacher takes the episodes just played: set batch_size, buffer_size and"),
        ("action_selector", "epsilon_greedy", "samples its actions from a policy: set action_selector=soft_policies"),
        ("agent_output_type", "q", "samples its actions from a policy: set agent_output_type=pi_logits"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path, key, value, message):
    with pytest.raises(UserError, match=message):
        make_learner(tmp_path, **{key: value})


# --------------------------------------------------------------------------------------------------------- it learns
def test_it_solves_a_toy_task_in_seconds(tmp_path):
    args = stage_args(
        "kd_teacher",
        tmp_path,
        hidden_dim=32,
        batch_size_run=16,
        batch_size=16,
        buffer_size=16,
        t_max=6000,
        test_interval=1000,
        test_nepisode=48,
        lr=0.003,
        critic_lr=0.003,
        eval_episodes=48,
    )
    learner = run_stage(args)
    last = max(tmp_path.glob("models/*/*"), key=lambda folder: int(folder.name))
    facts = load_teacher(last).facts
    tests = [value for _, value in learner.logger.stats["test_return_mean"]]
    assert facts["test"]["episodes"] == 48
    # An agent that obeys its signals earns 1 a step, unless it is dead; a random one a third.
    lengths = learner.logger.stats["test_ep_length_mean"][-1][1]
    assert tests[0] < 1.2 * lengths
    assert facts["test"]["greedy"]["return_mean"] > 0.85 * AGENTS * lengths
