"""`kd-marl stress`: what disturbances do to observations and actions, and which of them are tried."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_core.host import get_host

get_host()  # before anything of `envs`: on a checkout the host decides what that package is

from epymarl_lite.envs.env_group import EnvGroup  # noqa: E402
from kd_core.errors import UserError  # noqa: E402
from kd_envs import jax_support  # noqa: E402
from kd_envs.hetero_mask.known_layouts import layout_for  # noqa: E402
from kd_envs.hetero_mask.layouts import AgentLayout, FeatureLayout, plain_layout  # noqa: E402
from kd_marl.stress import plan  # noqa: E402
from kd_marl.stress.disturbances import Chain, Delay, Dropout, Noise, feature_groups, only_idle  # noqa: E402
from kd_marl.stress.envs import DisturbedEnvs, Trouble  # noqa: E402
from kd_marl.stress.plan import Wanted  # noqa: E402

BATCH, AGENTS, SIZE = 4, 3, 6
GROUPS = np.array([[0, 0, 1, 1, 2, -1], [0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 0]])


def observations(seed=1, steps=1):
    found = np.random.default_rng(seed).normal(size=(steps, BATCH, AGENTS, SIZE)).astype(np.float32)
    return found if steps > 1 else found[0]


def once(disturbance, obs, seed=7):
    return disturbance(obs, (), np.random.default_rng(seed))[0]


# ---- disturbances ---------------------------------------------------------------------------------------------------


@given(st.floats(0, 1), st.integers(0, 2**32))
def test_dropout_is_the_slow_loop_over_groups(probability, seed):
    obs = observations()
    draws = np.random.default_rng(seed).random((BATCH, AGENTS, 6))
    expected = obs.copy()
    for b in range(BATCH):
        for i in range(AGENTS):
            for k in range(SIZE):
                group = GROUPS[i, k]
                if group >= 0 and draws[b, i, group] < probability:
                    expected[b, i, k] = 0.0
    np.testing.assert_array_equal(once(Dropout(GROUPS, probability), obs, seed), expected)


def test_dropout_loses_each_group_as_often_as_its_probability_says():
    obs = np.ones((20_000, AGENTS, SIZE), np.float32)
    kept = once(Dropout(GROUPS, 0.3), obs).mean(axis=0)
    # Five standard deviations of a share of 20,000.
    assert np.abs(kept[GROUPS >= 0] - 0.7).max() < 5 * math.sqrt(0.3 * 0.7 / 20_000)
    assert kept[0, 5] == 1.0


@given(st.floats(0, 5), st.integers(0, 2**32))
def test_noise_is_a_normal_draw_in_the_features_own_unit(sigma, seed):
    obs, scale = observations(), np.random.default_rng(2).random((AGENTS, SIZE))
    scale[0, 3] = 0.0
    draws = np.random.default_rng(seed).standard_normal((BATCH, AGENTS, SIZE), np.float32).astype(float)
    found = once(Noise(scale, sigma), obs, seed)
    np.testing.assert_allclose(found, obs + sigma * scale * draws, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found[:, 0, 3], obs[:, 0, 3])
    assert found.dtype == np.float32


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 7])
def test_a_delay_shows_the_observation_of_so_many_steps_ago(steps):
    history, memory = observations(steps=6), ()
    for t, obs in enumerate(history):
        seen, memory = Delay(steps)(obs, memory, np.random.default_rng(0))
        np.testing.assert_array_equal(seen, history[max(0, t - steps)])
        assert len(memory) <= steps + 1


def test_a_chain_disturbs_what_the_disturbance_before_it_shows():
    history, chain, memory = observations(steps=5), Chain([Delay(2), Dropout(GROUPS, 0.5), Noise(np.ones(1), 0.1)]), ()
    for t, obs in enumerate(history):
        seen, memory = chain(obs, memory, np.random.default_rng(t))
        rng = np.random.default_rng(t)
        expected, _ = Dropout(GROUPS, 0.5)(history[max(0, t - 2)], (), rng)
        expected, _ = Noise(np.ones(1), 0.1)(expected, (), rng)
        np.testing.assert_array_equal(seen, expected)


def test_disturbances_change_none_of_their_arguments():
    for disturbance in (Dropout(GROUPS, 1.0), Noise(np.ones(1), 1.0), Chain([Delay(1), Dropout(GROUPS, 1.0)])):
        obs = observations()
        once(disturbance, obs)
        np.testing.assert_array_equal(obs, observations())


def test_nothing_disturbed_is_the_same_bit_by_bit():
    obs = observations()
    obs[0, 0, 0] = -0.0
    for nothing in (Dropout(GROUPS, 0.0), Noise(np.ones(1), 0.0), Delay(0), Chain()):
        np.testing.assert_array_equal(once(nothing, obs), obs)


def test_a_block_is_one_group_and_what_is_in_no_block_another():
    spread = layout_for("pz-mpe-simple-spread-v3", 3, 18)
    for groups, agent in zip(feature_groups(spread), spread.agents, strict=True):
        together = {}
        for group, name in zip(groups, agent.features, strict=True):
            together.setdefault(group, set()).add(name.rstrip("0123456789.xy") if name[0] != "A" else "A(P)")
        assert sorted(map(len, together.values())) == [1] * 5
    padded = AgentLayout("a", ("move.0", "E0.x", "move.1", "E1.x", None), {"E": ("E0.x", "E1.x")})
    assert feature_groups(FeatureLayout("t", (padded,), 5)).tolist() == [[0, 1, 0, 1, -1]]
    assert feature_groups(plain_layout("t", 2, 3)).tolist() == [[0, 1, 2]] * 2


@given(st.integers(0, 2**32), st.sampled_from([None, 0, 2, 4]))
def test_a_dead_agent_has_one_action_and_the_others_keep_theirs(seed, idle):
    available = np.random.default_rng(seed).integers(0, 2, size=(BATCH, AGENTS, 5)).astype(np.int32)
    available[:, :, 3] = 1
    left = only_idle(available, 1, idle)
    for b in range(BATCH):
        choices = [a for a in range(5) if available[b, 1, a]]
        assert left[b, 1].nonzero()[0].tolist() == [idle if idle in choices else choices[0]]
        np.testing.assert_array_equal(left[b, [0, 2]], available[b, [0, 2]])


# ---- environments ---------------------------------------------------------------------------------------------------


class Counter:
    """One agent, who sees the row, the episode and the time; each row has a length of its own."""

    def __init__(self, row):
        self.row, self.episode = row, -1

    def reset(self):
        self.t, self.episode = 0, self.episode + 1

    def step(self, action):
        self.t += 1
        over = self.t == 2 + self.row
        return None, 0.0, over, False, {"battle_won": self.row % 2 == 0} if over else {}

    def get_obs(self):
        return [np.array([1 + self.row, 1 + self.episode, 1 + self.t], np.float32)]

    def get_state(self):
        return np.zeros(1, np.float32)

    def get_avail_actions(self):
        return [[1, 1]]

    def close(self):
        pass


def watched(trouble, rows, episodes=2, seed=3):
    """What rows ``0..rows-1`` show, ``{(episode, row): [obs of each time]}``."""
    envs = DisturbedEnvs(EnvGroup([lambda row=row: Counter(row) for row in range(rows)]), trouble, seed)
    shown = {}
    for episode in range(episodes):
        for row, obs in enumerate(envs.reset().obs):
            shown[episode, row] = [obs[0]]
        alive = list(range(rows))
        while alive:
            outcome = envs.step(alive, np.zeros((len(alive), 1), int))
            for row, obs in zip(alive, outcome.views.obs, strict=True):
                shown[episode, row].append(obs[0])
            alive = [row for row, over in zip(alive, outcome.terminated, strict=True) if not over]
        assert envs.won.tolist() == [float(row % 2 == 0) for row in range(rows)]
    return shown


def test_rows_meet_the_same_disturbance_however_many_others_play_and_for_how_long():
    trouble = Trouble(Chain([Delay(1), Dropout(np.array([[0, 1, 2]]), 0.5)]))
    few, many = watched(trouble, 2), watched(trouble, 5)
    for key, shown in few.items():
        np.testing.assert_array_equal(shown, many[key])
    drops = [[obs == 0 for obs in many[episode, 4]] for episode in (0, 1)]
    assert not np.array_equal(*drops)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_late_observations_are_the_episodes_own(steps):
    for (episode, row), shown in watched(Trouble(Delay(steps)), 4).items():
        expected = [[1 + row, 1 + episode, 1 + max(0, t - steps)] for t in range(3 + row)]
        np.testing.assert_array_equal(shown, expected)


# ---- the plan -------------------------------------------------------------------------------------------------------


def planned(task="pz-mpe-simple-speaker-listener-v4", env="gymma", agents=2, size=11, bits=0, **wanted):
    layout = layout_for(task, agents, size)
    args = SimpleNamespace(map_name=task, env=env, n_actions=5, message_bits=bits)
    return (*plan.plan(Wanted(**wanted), args, layout), args, layout)


def test_no_two_levels_share_a_name():
    trials, *_ = planned(dropout=[0, 0.1, 0.1000001, 1], noise=[0.5], delay=[], dead=[])
    assert [trial.name for trial in trials] == [
        *("dropout 0", "dropout 0.1", "dropout 0.1000001", "dropout 1"),
        "noise 0.5",
    ]


def test_by_default_every_kind_is_tried_and_what_cannot_be_is_said():
    trials, notes, args, layout = planned()
    assert [trial.kind for trial in trials] == ["dropout"] * 3 + ["noise"] * 4 + ["delay"] * 3 + ["dead"] * 2
    assert "no action of speaker_0 does nothing" in notes[0] and "no unseen map" in notes[1]
    assert "number of landmarks" in notes[1]
    assert sorted(trials, key=lambda trial: trial.order) == trials
    dead = plan.trouble(trials[-1], args, layout, np.ones((2, 11)))
    assert (dead.dead, dead.idle) == (1, 0)
    assert plan.trouble(trials[-2], args, layout, np.ones((2, 11))).idle is None


def test_the_radio_of_a_talking_team_is_tried_too():
    trials, _, args, layout = planned(bits=4, dropout=[], noise=[], delay=[], dead=[], maps=[])
    names = [f"message loss {p}" for p in (0.1, 0.2, 0.5)] + ["message delay 1", "message delay 2"]
    assert [trial.name for trial in trials] == [*names, "jam speaker_0", "jam listener_0"]
    assert sorted(trials, key=lambda trial: trial.order) == trials
    found = [plan.trouble(trial, args, layout, np.ones((2, 11))) for trial in trials]
    assert [trouble.message_loss for trouble in found[:3]] == [0.1, 0.2, 0.5]
    assert [trouble.message_delay for trouble in found[3:5]] == [1, 2]
    assert [trouble.jammed for trouble in found[5:]] == [0, 1]


def test_a_kind_given_without_levels_is_left_out():
    trials, notes, *_ = planned(dropout=[0.3, 0.3], noise=[], delay=[], dead=["listener_0"], maps=[])
    assert [trial.name for trial in trials] == ["dropout 0.3", "dead listener_0"]
    assert notes == []


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"dropout": [1.5]}, "--dropout 1.5 is no probability"),
        ({"dropout": [math.nan]}, "--dropout nan is no probability"),
        ({"noise": [-1.0]}, "--noise -1 is no standard deviation"),
        ({"noise": [math.inf]}, "--noise inf is no standard deviation"),
        ({"delay": [-1]}, "--delay -1 is no number of steps"),
        ({"dead": ["listener"]}, "did you mean 'listener_0'"),
        ({"dead": ["2"]}, "--dead 2 is no agent"),
        ({"maps": ["8m"]}, "--maps 8m: another number of landmarks"),
        ({"message_loss": [0.1]}, "--message-loss is for students that talk, and these are silent"),
        ({"message_delay": [1]}, "--message-delay is for students that talk"),
        ({"jam": ["0"]}, "--jam is for students that talk"),
        ({"bits": 2, "message_loss": [1.1]}, "--message-loss 1.1 is no probability"),
        ({"bits": 2, "message_delay": [-1]}, "--message-delay -1 is no number of steps"),
        ({"bits": 2, "jam": ["listener"]}, "--jam listener is no agent; did you mean 'listener_0'"),
    ],
)
def test_an_impossible_level_is_one_line(wanted, message):
    with pytest.raises(UserError, match=message.replace("'", ".")) as error:
        planned(**wanted)
    assert "\n" not in str(error.value)


MAPS = """
from kd_core.errors import UserError
from kd_core.host import get_host
get_host()
from types import SimpleNamespace
from kd_envs.hetero_mask.known_layouts import layout_for
from kd_marl.stress.plan import Wanted, equal_maps, plan

assert equal_maps("3m") == []
assert equal_maps("3s5z") == ["8m"]
assert equal_maps("8m") == ["3s5z"]
assert equal_maps("2s3z") == ["smacv2_5_units"]
args, layout = SimpleNamespace(map_name="8m", env="smax", n_actions=13), layout_for("8m", 8, 205)
trials, notes = plan(Wanted([], [], [], []), args, layout)
assert [(trial.kind, trial.name, trial.task) for trial in trials] == [("map", "map 3s5z", "3s5z")] and notes == []
try:
    plan(Wanted(maps=["3m"]), args, layout)
except UserError as error:
    assert str(error) == "--maps 3m: networks of 8m fit 3s5z"
else:
    raise AssertionError
"""


@pytest.mark.skipif(not jax_support.available(), reason="needs the extra smax")
def test_networks_fit_the_maps_with_as_many_allies_and_enemies(source_root):
    # In a process of its own: JAX must not be in one that forks, as other tests do.
    environment = {key: value for key, value in os.environ.items() if key != "EPYMARL_HOME"}
    command = [sys.executable, "-c", MAPS]
    done = subprocess.run(
        command, env={**environment, "PYTHONPATH": str(source_root)}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
