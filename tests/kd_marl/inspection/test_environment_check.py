"""`kd-marl env check` names what an environment lacks, and passes the template."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import kd_marl.inspection.environment
from kd_envs.hetero_mask.stated_layout import layout_fault
from kd_marl.cli import main
from kd_marl.inspection.environment import examine

TEMPLATE = Path(kd_marl.inspection.environment.__file__).parent / "own_environment"
sys.path.insert(0, str(TEMPLATE))

from chargers import Chargers  # noqa: E402


def changed(**methods):
    """A class like the template's with other methods."""
    return type("Changed", (Chargers,), methods)


def missing(build):
    return [finding for finding in examine("own:Changed", build, 0.0) if finding.verdict == "missing"]


def notes(build):
    return {
        finding.subject: finding.text for finding in examine("own:Changed", build, 0.0) if finding.verdict == "note"
    }


def with_info(**changes):
    return changed(get_env_info=lambda self: {**Chargers.get_env_info(self), **changes})


def ended(terminated, truncated, after=25):
    def step(self, actions):
        obs, reward, _, _, info = Chargers.step(self, actions)
        over = self.steps >= after
        return obs, reward, over and terminated, over and truncated, info

    return changed(step=step)


def global_numbers(self, seed=None, options=None):
    result = Chargers.reset(self)
    self.chargers = np.random.randint(5, size=self.chargers.shape)
    return result


def same_numbers(self, seed=None, options=None):
    self.first = getattr(self, "first", None) or int(self.random.integers(1000))
    return Chargers.reset(self, seed=self.first)


def rewarded_by_luck(self, actions):
    obs, _, terminated, truncated, info = Chargers.step(self, actions)
    return obs, float(np.random.random()), terminated, truncated, info


def alone():
    """A builder whose second environment cannot exist beside the first."""
    built = []

    def build(**given):
        built.append(Chargers(**given))
        if len(built) > 1:
            raise OSError("the port is taken")
        return built[0]

    return build


def nowhere(self):
    return [[0] * 5] * self.n_agents


def test_the_template_lacks_nothing():
    findings = examine("chargers:Chargers", Chargers, 0.0)
    assert {finding.verdict for finding in findings} == {"ok"}, findings
    assert {"time limit", "seeding", "available actions", "feature names", "speed"} <= {f.subject for f in findings}


@pytest.mark.parametrize(
    ("build", "subject", "words"),
    [
        (lambda seed: 1 / 0, "construction", "ZeroDivisionError: division by zero: correct it, or give its arg"),
        (lambda: None, "construction", "let the constructor take seed, common_reward and reward_scalarisation"),
        (changed(get_state=None, close=None), "interface", r"no get_state\(\), close\(\)"),
        (with_info(obs_shape=(3, 4)), "sizes", r"obs_shape \(3, 4\): expected a whole number .*flatten"),
        (changed(get_env_info=lambda self: {"n_agents": 3}), "sizes", "lacks n_actions, obs_shape, state_shape, epi"),
        (with_info(obs_shape=13), "play", r"get_obs\(\) gives shape \(3, 12\).*announces \(3, 13\)"),
        (with_info(n_actions=6), "play", r"get_avail_actions\(\) gives shape \(3, 5\)"),
        (changed(get_avail_actions=nowhere), "play", "agent 0 has no available action"),
        (changed(get_state=lambda self: np.full(12, np.nan)), "play", "the state, number 0 is nan"),
        (changed(step=lambda self, actions: ([], 0.0, False, {})), "play", "gives 4 values: expected obs, reward, ter"),
        (ended(False, True, after=99), "time limit", "goes on after episode_limit=25 steps: return truncated=True"),
        (ended(True, False), "time limit", "end with terminated=True: return terminated=False, truncated=True"),
        (alone(), "seeding", "a second environment failed with OSError: the port is taken: let many exist at once"),
        (changed(reset=global_numbers), "seeding", r"same actions differ in step 0 of episode 1: draw every random n"),
        (with_info(observation="xy"), "feature names", r"observation 'xy': expected a list of \[name, units, feat"),
        (changed(step=rewarded_by_luck), "seeding", "same actions differ in step 1 of episode 1"),
        (changed(reset=same_numbers), "seeding", r"every reset\(\) begins the same episode"),
    ],
)
def test_what_training_needs_is_named(build, subject, words):
    (found,) = missing(build)
    assert found.subject == subject and "\n" not in found.text

    assert re.search(words, found.text), found.text


@pytest.mark.parametrize(
    ("build", "subject", "words"),
    [
        (
            ended(False, True, after=10),
            "time limit",
            "truncated after 10 steps: announce that as episode_limit, not 25",
        ),
        (changed(get_avail_actions=lambda self: [[1] * 5] * 3), "available actions", "every action was always"),
        (with_info(observation=[["O", None, ["x"]]]), "feature names", "add up to 1 numbers, but obs_shape is 12"),
        (with_info(observation=[["A", 6, ["x", "y"]]]), "feature names", "part A of observation must have 2 units"),
        (changed(world=lambda self: {}), "picture", r"world\(\) lacks bounds, shapes|world\(\) has bounds None"),
        (changed(reset=lambda self, seed=None: Chargers.reset(self, seed=4)), "seeding", "seeds 1 and 2 begin alike"),
    ],
)
def test_what_may_be_as_it_should_is_a_note(build, subject, words):

    assert not missing(build)
    assert re.search(words, notes(build)[subject]), notes(build)


LAYOUT = {
    "task": "drones",
    "obs_size": 2,
    "agents": [{"name": "a", "features": ["x", "V.x"], "blocks": {"V": ["V.x"]}, "derived": []}] * 2,
    "presets": {"camera": [["V"], ["x"]]},
}


def with_agents(**changes):
    return {**LAYOUT, "agents": [{**agent, **changes} for agent in LAYOUT["agents"]]}


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({"agents": []}, "layout lacks task, obs_size: docs/tutorials/own-environment.md"),
        (5, "layout cannot be read"),
        ({**LAYOUT, "obs_size": 3}, "layout has obs_size 3, but obs_shape is 2"),
        ({**LAYOUT, "agents": LAYOUT["agents"][:1]}, "layout has 1 agents, but n_agents is 2"),
        ({**LAYOUT, "agents": [{"name": "a"}] * 2}, "agent 0 of layout lacks features, blocks, derived"),
        (with_agents(features=["x"]), "agent 0 of layout has 1 features, but obs_shape is 2"),
        (with_agents(features=["x", "x"]), "agent 0 of layout has two features 'x'"),
        (with_agents(blocks={"V": ["V.y"]}), r"has no feature 'V\.y', which its block V names"),
        (with_agents(features=None), "layout cannot be read"),
        ({**LAYOUT, "presets": {"camera": [["V"]]}}, "preset camera of layout has 1 rows: expected 2"),
        ({**LAYOUT, "presets": {"camera": [["V"], []]}}, "preset camera of layout shows agent 1 nothing"),
        ({**LAYOUT, "presets": {"camera": [["V"], ["W"]]}}, "preset camera of layout: agent 'a' .* no feature 'W'"),
        (LAYOUT, "^$"),
    ],
)
def test_what_is_wrong_with_a_stated_layout_is_one_line(layout, words):
    fault = layout_fault({"n_agents": 2, "obs_shape": 2, "layout": layout})
    assert re.search(words, fault) and "\n" not in fault, fault


def test_a_layout_that_cannot_be_read_is_missing():
    (found,) = missing(with_info(layout={}))
    assert found.subject == "feature names" and "layout lacks task" in found.text


def test_features_that_never_change_are_named():
    def reset(self, seed=None, options=None):
        Chargers.reset(self, seed)
        self.chargers[:] = 2
        return self.get_obs(), {}

    def get_obs(self):
        return [np.append(row[:-1], 0.5) for row in Chargers.get_obs(self)]

    assert "11 (charger2.y of agent 0) never change" in notes(changed(reset=reset, get_obs=get_obs))["features"]


def test_a_reward_that_nobody_finds_is_noted():
    def step(self, actions):
        obs, _, terminated, truncated, info = Chargers.step(self, actions)
        return obs, 0.0, terminated, truncated, info

    assert "random play finds nothing to learn from" in notes(changed(step=step))["rewards"]


def test_the_command_says_how_to_train_and_ends_with_a_status(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(TEMPLATE)
    assert main(["env", "check", "chargers:Chargers", "--args", "robots=2", "--seconds", "0"]) == 0
    printed = capsys.readouterr().out
    assert (
        "n_agents 2, n_actions 5, obs_shape 8" in printed
        and "ready to train: kd-marl train --config=kd_teacher" in printed
    )
    assert all(line[:9].strip() in ("ok", "note") for line in printed.split("\n\n")[0].splitlines())
    (tmp_path / "halting.py").write_text(
        "from chargers import Chargers\nclass Halting(Chargers):\n    def get_obs(self):\n        return []\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["env", "check", "halting:Halting"]) == 1
    printed = capsys.readouterr().out
    assert "missing  play" in printed and "1 of 3 points is missing" in printed


def test_the_template_is_written_once(capsys, monkeypatch, tmp_path):
    assert main(["env", "new", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine" / "chargers.py").read_bytes() == (TEMPLATE / "chargers.py").read_bytes()
    assert (tmp_path / "mine" / "chargers.yaml").is_file()
    assert main(["env", "new", str(tmp_path / "mine")]) == 2
    assert "chargers.py is there already: name another folder" in capsys.readouterr().err


def test_an_environment_of_gymma_is_checked_by_its_key(capsys, monkeypatch):
    assert main(["env", "check", "tiny_gym:Match-v0", "--args", "time_limit=5", "--seconds", "0"]) == 0
    assert "--env-config=gymma with env_args.key=tiny_gym:Match-v0 env_args.time_limit=5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere:Env"], "there is no module nowhere: type the command in the folder of nowhere.py"),
        (["chargers:Charger"], "module chargers has no Charger; did you mean 'Chargers'"),
        (["chargers.py"], "chargers.py is no module:Class: in the folder of chargers.py, give chargers:CLASS"),
        (["chargers.py:Chargers"], "in the folder of chargers.py, give chargers:Chargers"),
        (["./chargers:Chargers"], "in the folder of chargers.py, give chargers:Chargers"),
        (["chargers:Chargers", "--args", "robots"], "--args has 'robots': expected key=value"),
        (["tiny_gym:Match"], "Match is an environment of Gymnasium, which gymma reaches by a key: register it"),
        (["pz-mpe-simple-nothing-v3"], "simple.nothing"),
    ],
)
def test_a_mistake_is_one_line(words, said, capsys):

    assert main(["env", "check", *words]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and error.count("\n") == 1, error
