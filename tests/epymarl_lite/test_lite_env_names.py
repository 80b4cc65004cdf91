"""EPyMARL's names of environments and wrappers mean the same on the bundled runtime."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from gymnasium import spaces

from epymarl_lite.envs import REGISTRY, smacv2_scenarios, starcraft

TAG = {"key": "pz-mpe-simple-tag-v3", "time_limit": 5, "max_cycles": 6, "seed": 3}


def test_the_scenarios_are_those_of_the_checkout(checkout):
    folder = Path(checkout["EPYMARL_HOME"], "src", "config", "envs", "smacv2_configs")
    theirs = {file.stem: yaml.safe_load(file.read_text())["env_args"] for file in folder.glob("*.yaml")}
    assert len(theirs) == 18
    assert {name: smacv2_scenarios.scenario(name) for name in smacv2_scenarios.names()} == theirs


@pytest.fixture
def battles(monkeypatch):
    """What SMACv2 is asked for."""
    asked = []

    class Battle:
        def __init__(self, **arguments):
            asked.append(arguments)

        def get_env_info(self):
            return {"n_agents": 5, "episode_limit": 200}

        def __getattr__(self, name):
            return lambda: name

    wrapper = SimpleNamespace(StarCraftCapabilityEnvWrapper=Battle)
    for module in ("smacv2", "smacv2.env", "smacv2.env.starcraft2"):
        monkeypatch.setitem(sys.modules, module, SimpleNamespace())
    monkeypatch.setitem(sys.modules, "smacv2.env.starcraft2.wrapper", wrapper)
    monkeypatch.setattr(starcraft, "missing_starcraft", lambda: "")
    return asked


def test_a_scenario_stands_for_all_arguments_but_the_seed(battles):
    env = REGISTRY["sc2v2"](map_name="terran_10_vs_11", seed=7, difficulty="A", time_limit=150, common_reward=True)
    (asked,) = battles
    assert (asked["map_name"], asked["seed"], asked["difficulty"]) == ("10gen_terran", 7, "7")
    assert (asked["capability_config"]["n_units"], asked["capability_config"]["n_enemies"]) == (10, 11)
    assert "time_limit" not in asked
    assert env.episode_limit == 200


def test_a_map_of_smacv2_takes_its_arguments_as_they_are(battles):
    REGISTRY["sc2v2"](map_name="10gen_zerg", difficulty="A", time_limit=150)
    assert battles == [{"map_name": "10gen_zerg", "difficulty": "A"}]


def test_another_name_is_refused_with_the_scenarios(battles):
    with pytest.raises(ValueError, match=r"no SMACv2 map or scenario 'protos_5_vs_5': valid: protoss_10_vs_10, .*zerg"):
        REGISTRY["sc2v2"](map_name="protos_5_vs_5")


@pytest.mark.parametrize("wrapper", ["FrozenTag", "RandomTag"])
def test_the_prey_of_tag_is_played_by_the_wrapper(wrapper):
    def played(seed):
        env = REGISTRY["gymma"](**{**TAG, "seed": seed}, pretrained_wrapper=wrapper)
        assert env.get_env_info()["n_agents"] == 3
        env.reset()
        ends = [env.step([0, 0, 0]) for _ in range(5)]
        assert [end[2:4] for end in ends] == [(False, False)] * 4 + [(False, True)]
        return np.stack([np.stack(end[0]) for end in ends])

    assert np.array_equal(played(1), played(1))
    # Nobody moves but the prey: the chasers see it at the end of their observations, before its speed.
    speed = played(1)[:, 0, -2:]
    assert (np.abs(speed).max() > 0.1) == (wrapper == "RandomTag")


@pytest.mark.parametrize("wrapper", ["PretrainedTag", "PretrainedAdversary"])
def test_weights_of_epymarls_are_its_own(wrapper):
    with pytest.raises(
        ValueError, match=f"pretrained_wrapper={wrapper} plays weights that come with EPyMARL itself: set"
    ):
        REGISTRY["gymma"](**TAG, pretrained_wrapper=wrapper)


def test_a_vmas_scenario_runs_through_gymma(monkeypatch):
    asked = {}

    class Scenario:
        """As VMAS's own wrapper for Gymnasium: lists of arrays, and info for each agent."""

        observation_space = spaces.Tuple([spaces.Box(-9, 9, (4,), np.float32)] * 2)
        action_space = spaces.Tuple([spaces.Discrete(5)] * 2)
        unwrapped = SimpleNamespace(n_agents=2)

        def reset(self, seed=None, options=None):
            return [np.ones(4, np.float32)] * 2, {"agent_0": {"pos": 1.0}}

        def step(self, actions):
            return [np.ones(4, np.float32)] * 2, [1.0, 2.0], False, False, {"agent_0": {"pos": 2.0}, "time": 1.0}

    def make_env(scenario, **options):
        asked.update(options, scenario=scenario)
        return Scenario()

    monkeypatch.setitem(sys.modules, "vmas", SimpleNamespace(make_env=make_env))
    env = REGISTRY["gymma"](key="vmas-balance", time_limit=2, n_blocks=3)
    env.reset()
    assert env.step([0, 4])[1:] == (3.0, False, False, {"agent_0/pos": 2.0, "time": 1.0})
    assert env.step([0, 4])[2:4] == (False, True)
    assert (asked["scenario"], asked["n_blocks"], asked["num_envs"]) == ("balance", 3, 1)
    assert not asked["continuous_actions"] and asked["terminated_truncated"]


def test_vmas_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vmas", None)
    with pytest.raises(ImportError, match=r"pip install 'vmas\[gymnasium\]'"):
        REGISTRY["gymma"](key="vmas-balance", time_limit=2)


@pytest.mark.parametrize("missing", ["Versions", "Maps"])
def test_a_folder_of_starcraft_without_the_game_or_its_maps_is_told(tmp_path, monkeypatch, missing):
    for part in {"Versions", "Maps/SMAC_Maps"} - {missing, f"{missing}/SMAC_Maps"}:
        os.makedirs(tmp_path / part)
    monkeypatch.setenv("SC2PATH", str(tmp_path))
    assert missing in starcraft.missing_starcraft()
