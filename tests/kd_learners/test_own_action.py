"""``own_action``: under limits agents are given their own last action, whoever plays them and wherever."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kd_core import checkpoints
from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_envs.hetero_mask import mask_text
from kd_envs.hetero_mask.known_layouts import layout_for
from kd_envs.hetero_mask.mask import ObservationMask, before
from kd_envs.hetero_mask.presets import mask_for
from kd_envs.hetero_mask.wrapper import MaskedBatch, MaskedEnv
from kd_marl.cli import main
from kd_marl.deploy import replay
from kd_marl.runs.student_run import load_student
from kd_onboard.bundle import read_bundle
from kd_onboard.errors import BundleError
from onboard_bundles import change_profile
from stage_fixtures import TASK, words

SPREAD = layout_for("simple_spread", 3, 18)
ACTIONS = 5
OWN = range(SPREAD.n_features, SPREAD.n_features + ACTIONS)


def given_action(preset="paper"):
    return mask_for(SPREAD, "lh", preset, own_actions=ACTIONS)


@given(st.data())
def test_the_last_action_follows_the_extended_observation_one_hot(data):
    last = data.draw(st.lists(st.integers(-1, ACTIONS - 1), min_size=3, max_size=3))
    obs = np.random.default_rng(0).normal(size=(3, SPREAD.obs_size)).astype(np.float32)
    mask = given_action()
    found = mask.extend(obs, np.array(last))
    assert found.shape == (3, mask.obs_size) and found.dtype == np.float32
    np.testing.assert_array_equal(found[:, : SPREAD.n_features], SPREAD.extend(obs))
    for agent, action in enumerate(last):
        assert found[agent, SPREAD.n_features :].tolist() == [float(k == action) for k in range(ACTIONS)]
    as_tensor = mask.extend(torch.from_numpy(obs), torch.tensor(last))
    np.testing.assert_array_equal(as_tensor.numpy(), found)


def test_actions_of_an_episode_are_each_known_one_step_later():
    actions = torch.tensor([[[0, 3], [1, 4], [2, 0]]])
    assert before(actions).tolist() == [[[-1, -1], [0, 3], [1, 4]]]


@given(seed=st.integers(0, 10**6), episode=st.integers(0, 100))
def test_no_mask_hides_it_and_it_takes_no_sensor_s_place(seed, episode):
    plain, told = mask_for(SPREAD, "lh", "random"), given_action("random")
    drawn = told.draw(seed, episode)
    assert drawn[:, OWN].all()
    np.testing.assert_array_equal(drawn[:, : SPREAD.obs_size], plain.draw(seed, episode))
    sampled = told.sample(np.random.default_rng(seed), 4)
    assert sampled[..., OWN].all()
    seen = sampled[..., : OWN.start].sum(-1)
    assert (seen >= 8).all() and (seen <= 10).all(), "the paper draws 8 to 10 of 18 features"
    assert told.counts == plain.counts


def test_a_mask_without_it_is_written_as_before_and_one_with_it_comes_back():
    plain, told = mask_for(SPREAD, "lh"), given_action()
    assert "own_actions" not in plain.to_dict()
    again = ObservationMask.from_dict(json.loads(json.dumps(told.to_dict())))
    assert again.own_actions == ACTIONS and again.signature() == told.signature() != plain.signature()
    np.testing.assert_array_equal(again.visible, told.visible)
    assert again.names(0) == told.names(0) and told.names(0)[-ACTIONS:] == tuple(f"own_action.{k}" for k in range(5))


def test_who_sees_what_tells_it_and_counts_it_as_no_feature():
    text, plain = mask_text(given_action()), mask_text(mask_for(SPREAD, "lh"))
    assert text.count("own_action") == 3 and "own_action" not in plain
    assert [line.split()[-1] for line in text.splitlines() if " of " in line] == [
        line.split()[-1] for line in plain.splitlines() if " of " in line
    ]


@pytest.mark.parametrize("limits", ["lh", "fo"])
def test_kd_marl_masks_shows_it_for_a_battle_of_any_size(capsys, limits):
    words_of_masks = ["--env-config=smax", "--map-name=mine", "--n-agents=2", "--n-enemies=3", f"--limits={limits}"]
    assert main(["masks", *words_of_masks, "--own-action"]) == 0
    assert capsys.readouterr().out.count("own_action") == (2 if limits == "lh" else 0)


class Counting:
    """An environment whose observation is its step."""

    def __init__(self):
        self.steps = 0

    def get_env_info(self):
        return {"n_agents": 3, "obs_shape": SPREAD.obs_size}

    def get_obs_size(self):
        return SPREAD.obs_size

    def get_obs(self):
        return [np.full(SPREAD.obs_size, self.steps, np.float32)] * 3

    def reset(self):
        self.steps = 0
        return self.get_obs()

    def step(self, actions):
        self.steps += 1
        return self.get_obs(), 0.0, False, False, {}


def test_a_masked_environment_forgets_the_last_action_when_an_episode_begins():
    env = MaskedEnv(Counting(), given_action(), seed=0)
    first, _ = env.reset()
    assert not np.stack(first)[:, OWN].any()
    for actions in ([0, 4, 2], torch.tensor([1, 1, 3])):
        rows = env.step(actions)[0]
        assert np.stack(rows)[:, OWN].argmax(-1).tolist() == [int(action) for action in actions]
        assert np.stack(rows)[:, OWN].sum(-1).tolist() == [1.0, 1.0, 1.0]
    again, _ = env.reset()
    assert not np.stack(again)[:, OWN].any()


def test_environments_stepped_together_each_know_their_own_actions():
    from typing import NamedTuple

    class Views(NamedTuple):
        obs: np.ndarray

    class Outcome(NamedTuple):
        views: Views

    class Envs:
        size = 4

        def reset(self):
            return Views(np.zeros((4, 3, SPREAD.obs_size), np.float32))

        def step(self, rows, actions):
            return Outcome(Views(np.zeros((len(rows), 3, SPREAD.obs_size), np.float32)))

    batch = MaskedBatch(Envs(), given_action(), seed=0)
    assert not batch.reset().obs[..., OWN].any()
    actions = np.array([[0, 1, 2], [4, 3, 0]])
    found = batch.step([3, 1], actions).views.obs
    assert found[..., OWN].argmax(-1).tolist() == actions.tolist() and found[..., OWN].sum() == 6
    # Row 3 has ended; row 1 goes on and must not be given row 3's.
    assert batch.step([1], actions[:1]).views.obs[0, :, OWN].T.argmax(-1).tolist() == [0, 1, 2]


def test_it_says_nothing_where_nothing_is_hidden():
    config = {"limits": "fo", "masks": "", "own_action": True, "env_args": {}}
    assert checkpoints.fingerprint(config) == checkpoints.fingerprint({**config, "own_action": False})
    limited = {**config, "limits": "lh"}
    assert checkpoints.fingerprint(limited) != checkpoints.fingerprint({**limited, "own_action": False})


@pytest.fixture(scope="module")
def told(tiny_student, tmp_path_factory):
    """A tiny student, which knows its last action by default, and its bundle."""
    bundle = tmp_path_factory.mktemp("told") / "bundle"
    assert main(["export", str(tiny_student.record), "--to", str(bundle), "--no-latency"]) == 0
    return tiny_student.record, bundle


def test_it_is_part_of_what_a_student_costs(mains, told, tiny_teacher, tiny_buffer, tmp_path):
    updates = [f"teacher={tiny_teacher}", f"expert_buffer={tiny_buffer}", "limits=lh", "own_action=False", "seed=1"]
    plain = mains.run(*words("kd_student", tmp_path, *updates)).check().summary
    summary = json.loads((told[0] / "summary.json").read_text())
    assert [a - b for a, b in zip(summary["inputs"], plain["inputs"], strict=True)] == [ACTIONS, ACTIONS]


@pytest.mark.skipif(
    "EPYMARL_HOME" in os.environ, reason="EPyMARL's gymma plays other episodes of a seed than the bundled"
)
@pytest.mark.parametrize("backend", ["numpy", "c"])
def test_a_bundle_is_given_it_too_and_plays_the_student_s_episodes(told, tmp_path, monkeypatch, backend):
    monkeypatch.setenv("KD_ONBOARD_CACHE", str(tmp_path / "compiled"))
    result = tmp_path / "result.json"
    task = ["with", f"env_args.key={TASK}", "runner=parallel"]
    words_of_run = ["--env-config=mpe", "--backend", backend, "--trust", "--json", str(result), *task]
    assert main(["run", str(told[1]), *words_of_run]) == 0
    recorded = read_bundle(told[1]).profile.measured["student"]
    assert json.loads(result.read_text())["bundle"]["return_mean"] == pytest.approx(recorded["return_mean"], abs=1e-6)


def test_a_profile_says_which_inputs_are_the_last_action(told):
    for agent in read_bundle(told[1]).agents:
        own = [feature for feature in agent.features if feature.own_action is not None]
        assert own == list(agent.features[-ACTIONS:]) and [feature.own_action for feature in own] == list(range(5))
        assert {feature.derived_from for feature in own} == {None} and {feature.unit for feature in own} == {"1"}


def test_an_own_action_in_another_s_place_is_refused(told, tmp_path):
    import shutil

    copy = Path(shutil.copytree(told[1], tmp_path / "copy"))
    change_profile(copy, lambda profile: profile["agents"][1]["features"][-1].update(own_action=0))
    with pytest.raises(BundleError, match="index"):
        read_bundle(copy)


def test_recorded_episodes_are_replayed_with_the_actions_that_were_taken(told, tiny_buffer):
    run, buffer = load_student(told[0]), ExpertBuffer.open(tiny_buffer)
    episodes = replay.from_buffer(buffer, run.mask, 10**6, seed=0)
    taken = buffer.gather(range(buffer.episodes), ("actions",))["actions"].numpy()
    own = episodes.obs[..., -ACTIONS:]
    assert not own[:, 0].any()
    np.testing.assert_array_equal(own[:, 1:].argmax(-1), taken[:, : own.shape[1] - 1])
