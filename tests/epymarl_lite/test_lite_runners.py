"""The bundled runtime: what runners store and log, and which episodes a seed gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th

from epymarl_lite.learners.common import step_mask
from epymarl_lite.runners import REGISTRY as RUNNERS
from epymarl_lite.utils.logging import Logger, get_logger
from runtime_env import UniformMac, layout, run_args

pytestmark = pytest.mark.usefixtures("counting_env")


def make_runner(kind: str, **changes):
    args = run_args(runner=kind, **changes)
    runner = RUNNERS[kind](args=args, logger=Logger(get_logger()))
    runner.setup(*layout(runner.get_env_info(), args.common_reward), UniformMac())
    return runner


# --- the layout of an episode ---------------------------------------------------------------------------------


def check_episode(batch, row: int, first: float, length: int, last_terminated: int) -> None:
    """Hold one row to the contract: filled and actions at 0..l, reward and terminated at 0..l-1."""
    steps = batch.max_seq_length
    written = (np.arange(steps) <= length).astype(int)
    assert batch["filled"][row, :, 0].tolist() == written.tolist()
    numbers = np.where(written, first + np.arange(steps), 0)
    assert batch["obs"][row, :, 0, 0].tolist() == numbers.tolist()
    assert batch["obs"][row, :, 1, 0].tolist() == (numbers + 0.25 * written).tolist()
    assert batch["state"][row, :, 0].tolist() == numbers.tolist()
    assert batch["avail_actions"][row, :, 0].tolist() == [[w, w, 0] for w in written]
    assert batch["actions_onehot"][row].sum((1, 2)).tolist() == (2 * written).tolist()
    played = np.arange(1, steps + 1) * (np.arange(steps) < length)
    assert batch["reward"][row, :, 0].tolist() == played.tolist()
    terminated = np.zeros(steps, int)
    terminated[length - 1] = last_terminated
    assert batch["terminated"][row, :, 0].tolist() == terminated.tolist()


def test_episode_runner_stores_the_contracts_layout():
    runner = make_runner("episode", batch_size_run=1, env_args={"seed": 7, "lengths": ((4, 2),)})
    check_episode(runner.run(), 0, 7000, 4, 1)
    check_episode(runner.run(), 0, 7100, 2, 1)
    assert (runner.t, runner.t_env) == (2, 6)
    runner.run(test_mode=True)
    assert runner.t_env == 6


@pytest.mark.parametrize("processes", [1, 2, 3, 0])
def test_parallel_runner_stores_ragged_episodes_in_order(processes):
    lengths = ((3,), (6, 1), (2, 5))
    runner = make_runner(
        "parallel", batch_size_run=3, env_args={"seed": 0, "lengths": lengths}, runner_processes=processes
    )
    try:
        batch = runner.run()
        for row, length in enumerate((3, 6, 2)):
            check_episode(batch, row, 1000 * row, length, 1)
        # Everyone acts at the step after the last too, and nobody after that.
        asked = dict(runner.mac.asked)
        assert asked[2] == slice(None) and asked[3] == [0, 1] and asked[4] == [1] and asked[6] == [1]
        assert runner.t_env == 11
        batch = runner.run()
        for row, length in enumerate((3, 1, 5)):
            check_episode(batch, row, 1000 * row + 100, length, 1)
    finally:
        runner.close_env()


@pytest.mark.parametrize("kind", ["episode", "parallel"])
@pytest.mark.parametrize(
    ("ending", "as_terminal", "stored"),
    [("terminated", False, 1), ("truncated", False, 0), ("truncated", True, 1), ("flag", False, 0), ("flag", True, 0)],
)
def test_time_limits_are_terminations_only_on_demand(kind, ending, as_terminal, stored):
    runner = make_runner(
        kind, batch_size_run=1, env_args={"seed": 0, "ending": ending}, treat_truncation_as_terminal=as_terminal
    )
    try:
        check_episode(runner.run(), 0, 0, 3, stored)
    finally:
        runner.close_env()


def test_truncation_inside_a_batch_adds_no_step_to_what_is_learnt_from():
    runner = make_runner("parallel", env_args={"seed": 0, "lengths": ((3,), (6,)), "ending": "truncated"})
    try:
        batch = runner.run()
    finally:
        runner.close_env()
    mask = step_mask(batch)[:, :, 0]
    assert mask.sum(1).tolist() == [3, 6]


def test_individual_rewards_are_stored_per_agent():
    runner = make_runner("episode", batch_size_run=1, common_reward=False)
    batch = runner.run()
    assert batch["reward"][0, :4].tolist() == [[1, -1], [2, -1], [3, -1], [0, 0]]
    assert {k for k in runner.logger.stats if "return" in k} == {
        f"{who}_return_{what}" for who in ("agent_0", "agent_1", "total") for what in ("mean", "std")
    }
    assert runner.logger.stats["total_return_mean"] == [(3, 3.0)]


# --- what is logged -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["episode", "parallel"])
def test_logged_keys_and_values(kind):
    size = 1 if kind == "episode" else 2
    runner = make_runner(
        kind, batch_size_run=size, test_nepisode=2, env_args={"seed": 0, "lengths": ((3, 3, 2), (2, 2, 2))}
    )
    try:
        runner.run()
        names = ["return_mean", "return_std", "ep_length_mean", "won_mean", "score_mean"]
        assert sorted(runner.logger.stats) == sorted(names)
        while not any(key.startswith("test_") for key in runner.logger.stats):
            runner.run(test_mode=True)
    finally:
        runner.close_env()
    stats = {key: entries[-1][1] for key, entries in runner.logger.stats.items()}
    assert sorted(stats) == sorted(names + [f"test_{name}" for name in names])
    # Test episodes of the one environment: 3 and 2 steps; of the two: 3 and 2.
    assert stats["test_return_mean"] == pytest.approx((6 + 3) / 2)
    assert stats["test_return_std"] == pytest.approx(1.5)
    assert stats["test_ep_length_mean"] == pytest.approx(2.5)
    assert (stats["test_won_mean"], stats["test_score_mean"]) == (1.0, 2.0)
    assert all(type(value) is float for value in stats.values())


def test_epsilon_is_logged_in_training_where_the_selector_has_one():
    runner = make_runner("episode", batch_size_run=1)
    runner.mac.action_selector.epsilon = 0.5
    runner.run()
    assert runner.logger.stats["epsilon"] == [(3, 0.5)]


def test_training_statistics_wait_for_their_interval():
    runner = make_runner("episode", batch_size_run=1, runner_log_interval=7)
    for _ in range(5):
        runner.run()
    assert [t for t, _ in runner.logger.stats["return_mean"]] == [3, 12]


# --- seeds ----------------------------------------------------------------------------------------------------


def play(kind: str, seed: int, size: int, processes: int = 0) -> th.Tensor:
    """States of two runs with MPE's random starts, and no-op actions."""
    env_args = {"key": "pz-mpe-simple-spread-v3", "time_limit": 3, "seed": seed}
    args = run_args(env="gymma", env_args=env_args, runner=kind, batch_size_run=size, runner_processes=processes)
    runner = RUNNERS[kind](args=args, logger=Logger(get_logger()))
    mac = UniformMac()
    mac.select_actions = lambda batch, t_ep, t_env, bs=slice(None), test_mode=False: th.zeros_like(
        batch["actions"][bs, t_ep, :, 0]
    )
    runner.setup(*layout(runner.get_env_info()), mac)
    try:
        return th.stack([runner.run()["state"], runner.run()["state"]])
    finally:
        runner.close_env()


def test_the_same_seed_gives_the_same_episodes_however_many_processes():
    one = play("parallel", 5, 3, processes=1)
    assert th.equal(one, play("parallel", 5, 3, processes=3))
    assert not th.equal(one[0], one[1])  # a new episode at each reset
    assert not th.equal(one[:, 0], one[:, 1])  # another one in each environment
    assert th.equal(one[:, 1:2], play("episode", 6, 1))  # environment i is seeded with seed + i
    assert not th.equal(one, play("parallel", 6, 3))
