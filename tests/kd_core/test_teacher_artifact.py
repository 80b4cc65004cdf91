"""The teacher artifact: weights and facts travel together, and a teacher that does not fit is refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from kd_core.artifacts import teacher as teacher_module
from kd_core.artifacts.teacher import (
    check_compatible,
    find_teacher,
    load_teacher,
    save_teacher,
    teacher_folders,
    weights_sha256,
)
from kd_core.errors import UserError
from kd_core.task import Task
from kd_marl.cli import main

TASK = "pz-mpe-simple-spread-v3"
AGENTS, ACTIONS, OBS, STATE, HIDDEN = 3, 5, 18, 54, 8


def facts(**changes):
    base = {
        "task": TASK,
        "env": "gymma",
        "layout": "simple_spread",
        "obs_size": OBS,
        "state_size": STATE,
        "n_agents": AGENTS,
        "n_actions": ACTIONS,
        "hidden_dim": HIDDEN,
        "use_rnn": True,
        "obs_agent_id": True,
        "obs_last_action": False,
        "obs_individual_obs": False,
        "agent": "rnn",
        "critic_type": "cv_critic",
        "teacher_input": "obs",
        "gamma": 0.99,
        "shaping": 0.0,
        "masked": False,
        "common_reward": True,
        "reward_scalarisation": "sum",
        "normalisers": {"reward": None, "value": {"mean": [-3.0], "std": [2.0]}},
        "host": "epymarl_lite",
        "host_commit": None,
        "seed": 4,
        "steps": 1000,
        "begun_with": None,
        "finished": True,
        "train_seconds": 3.5,
        "tests": [[500, -13.0], [1000, -12.5]],
        "command": "python src/main.py --config=kd_teacher",
        "test": {"greedy": {"return_mean": -12.5, "return_std": 1.25, "episodes": 200}, "win_rate": None},
    }
    return {**base, **changes}


def states(agent_input=OBS + AGENTS, critic_input=STATE + AGENTS):
    """Weights of the shapes and names that EPyMARL's rnn agent and central critic have."""
    agent = nn.ModuleDict(
        {"fc1": nn.Linear(agent_input, HIDDEN), "rnn": nn.GRUCell(HIDDEN, HIDDEN), "fc2": nn.Linear(HIDDEN, ACTIONS)}
    )
    critic = nn.ModuleDict(
        {"fc1": nn.Linear(critic_input, HIDDEN), "fc2": nn.Linear(HIDDEN, HIDDEN), "fc3": nn.Linear(HIDDEN, 1)}
    )
    return agent.state_dict(), critic.state_dict()


def save(folder, **changes):
    save_teacher(folder, *states(), facts(**changes))
    return folder


def fits(teacher, **changes):
    sizes = {"name": TASK, "obs_size": OBS, "state_size": STATE, "n_agents": AGENTS, "n_actions": ACTIONS}
    check_compatible(teacher, Task(**{**sizes, "episode_limit": 25, "facts": {}, **changes}))


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path):
    agent, critic = states()
    written = save_teacher(tmp_path, agent, critic, facts())
    teacher = load_teacher(tmp_path)
    assert teacher.facts == written == {"format": "kd-marl/teacher", "version": 1, **facts(), "sha256": teacher.sha256}
    for loaded, saved in ((teacher.agent_state, agent), (teacher.critic_state, critic)):
        assert loaded.keys() == saved.keys()
        assert all(torch.equal(loaded[key], saved[key]) for key in saved)
    assert teacher.warnings == ()
    fits(teacher)


def test_weights_are_told_apart_by_their_hash_with_and_without_facts(tmp_path):
    save(tmp_path)
    written = hashlib.sha256((tmp_path / "agent.th").read_bytes()).hexdigest()
    assert weights_sha256(tmp_path) == written
    edited = json.loads((tmp_path / "teacher.json").read_text())
    (tmp_path / "teacher.json").write_text(json.dumps({**edited, "sha256": {}}))
    with pytest.raises(UserError, match=r"teacher\.json is damaged: it lacks the sha256 of agent\.th"):
        weights_sha256(tmp_path)
    (tmp_path / "teacher.json").unlink()
    assert weights_sha256(tmp_path) == written


def test_the_weights_are_files_that_epymarl_reads(tmp_path):
    save(tmp_path)
    assert torch.load(tmp_path / "agent.th", weights_only=True).keys() == states()[0].keys()


def test_the_newest_checkpoint_of_a_run_is_taken(tmp_path):
    for steps in (200, 1000, 90):
        save(tmp_path / str(steps), steps=steps)
    (tmp_path / "2000").mkdir()
    assert load_teacher(tmp_path).facts["steps"] == 1000


def test_saving_again_over_a_teacher_never_leaves_facts_of_other_weights(tmp_path, monkeypatch):
    save(tmp_path)

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(teacher_module.files, "write_json", die)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path)
    assert not (tmp_path / "teacher.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "pz-mpe-simple-adversary-v3"}, f"its task is {TASK}, this run's is pz-mpe-simple-adversary-v3"),
        ({"obs_size": 10}, "its observation size is 18, this run's is 10"),
        ({"n_actions": 9}, "its number of actions is 5, this run's is 9"),
        ({"n_agents": 2}, "its number of agents is 3, this run's is 2"),
        ({"state_size": 30}, "its state size is 54, this run's is 30"),
    ],
)
def test_a_teacher_of_something_else_is_refused(tmp_path, changes, message):
    teacher = load_teacher(save(tmp_path))
    with pytest.raises(UserError, match=f"does not fit: {message}.*teacher=train"):
        fits(teacher, **changes)


def edit(folder, **changes):
    path = folder / "teacher.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "agent.th was altered: its sha256": lambda folder: flip(folder / "agent.th"),
    "critic.th is missing": lambda folder: (folder / "critic.th").unlink(),
    "has version 2, this kd-marl reads version 1": lambda folder: edit(folder, version=2),
    "no teacher: its format is": lambda folder: edit(folder, format="other"),
    "no JSON at line 1": lambda folder: (folder / "teacher.json").write_text("oops"),
    "gamma is 'high', expected a number": lambda folder: edit(folder, gamma="high"),
    "shaping is None, expected a number": lambda folder: edit(folder, shaping=None),
    "n_agents is 3.0, expected a whole number": lambda folder: edit(folder, n_agents=3.0),
    "hidden_dim is True, expected a whole number": lambda folder: edit(folder, hidden_dim=True),
    "use_rnn is 1, expected true or false": lambda folder: edit(folder, use_rnn=1),
    "finished is None, expected true or false": lambda folder: edit(folder, finished=None),
    "tests is None, expected a list of tests": lambda folder: edit(folder, tests=None),
    "it lacks task, env, layout": lambda folder: (folder / "teacher.json").write_text(
        '{"format": "kd-marl/teacher", "version": 1}'
    ),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_a_damaged_teacher_is_refused_in_one_line(tmp_path, message):
    DAMAGE[message](save(tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        load_teacher(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no pickle", None])
def test_weights_that_are_no_plain_tensors_are_refused(tmp_path, content):
    save(tmp_path)
    if content is None:
        torch.save(nn.Linear(1, 1), tmp_path / "agent.th")
    else:
        (tmp_path / "agent.th").write_bytes(content)
    with pytest.raises(UserError, match=r"agent\.th is damaged or no file of plain tensors"):
        teacher_module.load_state(tmp_path / "agent.th")


def test_a_missing_folder_and_an_empty_one_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        load_teacher(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"expected teacher\.json or agent\.th"):
        load_teacher(tmp_path)


# ---- which teacher a run takes ---------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path):
    """Two teachers for the task in the results, a newer one for another task, and one in the zoo."""
    models = tmp_path / "results" / "models"
    for age, (name, task) in enumerate({"old": TASK, "new": TASK, "other": "other-task"}.items()):
        folder = save(models / name / "1000", task=task)
        os.utime(folder / "teacher.json", (1000 + age, 1000 + age))
    save(tmp_path / "zoo" / TASK)
    return tmp_path


def search(places, spec="", task=TASK):
    return find_teacher(spec, task, [places / "results" / "models"], places / "zoo")


def test_a_named_teacher_comes_first(places):
    assert search(places, spec=str(places / "results/models/old")) == places / "results/models/old/1000"


def test_then_the_newest_of_the_task_in_the_results(places):
    assert search(places) == places / "results/models/new/1000"


def test_a_damaged_teacher_is_passed_over_with_a_warning(places, caplog):
    path = places / "results/models/new/1000/teacher.json"
    path.write_text("{")
    os.utime(path, (9999, 9999))
    assert search(places) == places / "results/models/old/1000"
    assert "Passing over a teacher" in caplog.text


def test_a_teacher_that_learnt_under_limits_is_passed_over_and_refused(places):
    path = places / "results/models/new/1000/teacher.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "masked": True}))
    assert search(places) == places / "results/models/old/1000"
    with pytest.raises(UserError, match=r"was trained under limits .*give another with teacher=PATH"):
        fits(load_teacher(path.parent))


def test_then_the_zoo(places):
    shutil.rmtree(places / "results")
    assert search(places) == places / "zoo" / TASK


def test_a_name_is_a_bundled_teacher_s_where_there_is_no_such_folder(places, monkeypatch):
    save(places / "zoo" / "strong")
    assert search(places, spec="strong") == places / "zoo" / "strong"
    with pytest.raises(UserError, match="no teacher at weak: there is no such folder"):
        search(places, spec="weak")
    monkeypatch.chdir(places)
    shutil.copytree(places / "zoo" / "strong", places / "strong")
    assert search(places, spec="strong") == Path("strong")


def test_a_teacher_of_another_environments_map_of_the_same_name_is_passed_over(places):
    given = {"results/models/new/1000": "smax", "results/models/old/1000": "sc2", f"zoo/{TASK}": "smax"}
    for folder, env in given.items():
        path = places / folder / "teacher.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "env": env}))
    where = [places / "results" / "models"]
    assert find_teacher("", TASK, where, places / "zoo", env="sc2") == places / "results/models/old/1000"
    with pytest.raises(UserError, match="no teacher for"):
        find_teacher("", TASK, [], places / "zoo", env="sc2")
    assert find_teacher("", TASK, [], places / "zoo", env="smax") == places / "zoo" / TASK


def test_without_any_the_message_names_the_command_that_trains_one(places):
    with pytest.raises(UserError, match=r"no teacher for 3m .*--config=kd_teacher .*teacher=train"):
        search(places, task="3m")
    with pytest.raises(UserError, match="train one with `make it so`"):
        find_teacher("", "3m", [], places / "zoo", train_command="make it so")


# ---- EPyMARL's own checkpoints ---------------------------------------------------------------------------------------


def epymarl_run(tmp_path, *, seed=7, run_id="1", weights=None, **changes):
    """A checkpoint and its Sacred run, laid out as EPyMARL does."""
    config = {
        "name": "mappo",
        "seed": seed,
        "env_args": {"key": TASK, "time_limit": 25, "pretrained_wrapper": None},
        "agent": "rnn",
        "critic_type": "cv_critic",
        "use_rnn": True,
        "gamma": 0.99,
        "obs_agent_id": True,
        "obs_last_action": False,
        "obs_individual_obs": False,
        "standardise_rewards": True,
        "standardise_returns": False,
        "hidden_dim": HIDDEN,
        **changes,
    }
    sacred = tmp_path / "results" / "sacred" / "mappo" / TASK / run_id
    sacred.mkdir(parents=True)
    (sacred / "config.json").write_text(json.dumps(config))
    folder = tmp_path / "results" / "models" / f"mappo_seed{seed}_{TASK}_2025-01-02 03:04:05.6" / "50000"
    folder.mkdir(parents=True, exist_ok=True)
    for name, state in zip(("agent.th", "critic.th"), weights or states(), strict=True):
        torch.save(state, folder / name)
    return folder


def test_an_epymarl_checkpoint_is_a_teacher_whose_statistics_are_missing(tmp_path):
    folder = epymarl_run(tmp_path)
    teacher = load_teacher(folder.parent, n_agents=AGENTS)
    fits(teacher)
    assert teacher.facts.keys() >= set(teacher_module.REQUIRED_FACTS)
    assert (teacher.facts["hidden_dim"], teacher.facts["steps"], teacher.facts["seed"]) == (HIDDEN, 50000, 7)
    assert teacher.normalisers == {"reward": None, "value": {"mean": [0.0], "std": [1.0]}}
    assert "no reward statistics: they will be estimated" in teacher.warnings[0]


@pytest.mark.parametrize("last_action", [False, True])
@pytest.mark.parametrize("individual", [False, True])
def test_sizes_come_from_the_shapes_of_the_tensors(tmp_path, last_action, individual):
    one_hots = ACTIONS if last_action else 0
    weights = states(OBS + one_hots + AGENTS, STATE + (AGENTS * OBS if individual else 0) + AGENTS * one_hots + AGENTS)
    folder = epymarl_run(tmp_path, weights=weights, obs_last_action=last_action, obs_individual_obs=individual)
    fits(load_teacher(folder, n_agents=AGENTS))


def test_an_ippo_critic_does_not_tell_the_state_size(tmp_path):
    folder = epymarl_run(tmp_path, weights=states(critic_input=OBS + AGENTS), critic_type="ac_critic")
    teacher = load_teacher(folder, n_agents=AGENTS)
    assert teacher.facts["state_size"] is None
    fits(teacher)


def test_networks_of_their_own_are_read_as_either_host_saves_them_and_counted(tmp_path):
    one, critic = states(OBS, STATE)
    agent = {f"agents.{i}.{key}": value + i for i in range(AGENTS) for key, value in one.items()}
    listed = [{key: value + i for key, value in critic.items()} for i in range(AGENTS)]
    numbers = {"fc1": "0", "fc2": "2", "fc3": "4"}
    layers = {
        f"critics.{i}.{numbers[key[:3]]}.{key[4:]}": value + i for i in range(AGENTS) for key, value in critic.items()
    }
    own = {"agent": "rnn_ns", "critic_type": "cv_critic_ns", "obs_agent_id": False}
    for saved in (listed, layers):
        folder = epymarl_run(tmp_path / str(type(saved)), weights=(agent, saved), **own)
        teacher = load_teacher(folder)
        fits(teacher)
        assert torch.equal(teacher.critic_state["critics.2.fc3.bias"], critic["fc3.bias"] + 2)
        with pytest.raises(UserError, match="do not fit 4 agents"):
            load_teacher(folder, n_agents=4)


def test_repeated_runs_that_agree_are_one_config_and_those_that_differ_are_refused(tmp_path):
    folder = epymarl_run(tmp_path)
    epymarl_run(tmp_path, run_id="2", t_max=5)
    epymarl_run(tmp_path, run_id="3", seed=8, standardise_rewards=False)
    fits(load_teacher(folder, n_agents=AGENTS))
    epymarl_run(tmp_path, run_id="4", standardise_rewards=False)
    with pytest.raises(UserError, match=r"several Sacred runs match .* give teacher_config="):
        load_teacher(folder, n_agents=AGENTS)
    config = tmp_path / "results/sacred/mappo" / TASK / "4" / "config.json"
    assert load_teacher(folder, config=config, n_agents=AGENTS).warnings == ()


def test_a_checkpoint_far_from_its_sacred_run_is_matched_in_the_folders_given(tmp_path):
    folder = epymarl_run(tmp_path / "run")
    moved = tmp_path / "elsewhere" / folder.parent.name
    shutil.move(folder.parent, moved)
    with pytest.raises(UserError, match=r"no Sacred config near it .*give teacher_config=<path of the run's config"):
        load_teacher(moved, n_agents=AGENTS)
    fits(load_teacher(moved, n_agents=AGENTS, results_dirs=[tmp_path / "run" / "results"]))


@pytest.mark.parametrize(
    ("changes", "n_agents", "message"),
    [
        ({}, None, "does not hold its number of agents: give n_agents"),
        ({}, 60, "do not fit 60 agents"),
        ({"agent": "rnn_feat"}, AGENTS, "has agent rnn_feat and critic cv_critic: a teacher needs agent rnn or rnn_ns"),
        ({"agent": "rnn_ns"}, AGENTS, "holds no EPyMARL rnn agent and critic: the tensor 'agents.0.fc1.weight' is"),
        ({"critic_type": "ac_critic"}, AGENTS, "do not fit 3 agents and the switches of its config"),
    ],
)
def test_an_epymarl_checkpoint_that_cannot_be_read_says_why(tmp_path, changes, n_agents, message):
    folder = epymarl_run(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        load_teacher(folder, n_agents=n_agents)


def test_a_run_of_something_else_and_a_missing_critic_are_refused(tmp_path):
    folder = epymarl_run(tmp_path)
    config = tmp_path / "config.json"
    config.write_text('{"name": "other"}')
    with pytest.raises(UserError, match="no config of an EPyMARL mappo or ippo run: it lacks env_args, agent"):
        load_teacher(folder, config=config, n_agents=AGENTS)
    (folder / "critic.th").unlink()
    with pytest.raises(UserError, match=r"critic\.th is missing: a teacher needs agent\.th and critic\.th"):
        load_teacher(folder, n_agents=AGENTS)


# ---- the commands ----------------------------------------------------------------------------------------------------


def test_command_lists_teachers_newest_first(places, capsys):
    assert main(["teachers", "list", "--search", str(places / "results")]) == 0
    text = capsys.readouterr().out
    assert re.search(r"other-task.*1000.*-12\.50 ± 1\.25.*\n.*models/new/1000.*\n.*models/old/1000", text)
    assert teacher_folders([places / "nothing"]) == []


def test_command_shows_a_teacher_and_its_warnings(tmp_path, capsys):
    folder = epymarl_run(tmp_path)
    assert main(["teachers", "show", str(folder), "--n-agents", "3"]) == 0
    out, err = capsys.readouterr()
    assert re.search(rf"^task +{TASK}$", out, re.MULTILINE)
    assert err.startswith("warning: the EPyMARL checkpoint")


def test_command_says_a_mistake_in_one_line_and_exits_with_2(tmp_path, capsys):
    assert main(["teachers", "show", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err == f"error: no teacher at {tmp_path}/nothing: there is no such folder\n"


def forged(folder, change=None, **facts):
    """A teacher whose hashes are right again after ``change`` edited the state of its agent in place."""
    save(folder)
    path = folder / "agent.th"
    if change is not None:
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)
    values = json.loads((folder / "teacher.json").read_text())
    values["sha256"]["agent.th"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "teacher.json").write_text(json.dumps({**values, **facts}))
    return folder


def poison(state):
    state["rnn.weight_hh"][3, 2] = float("nan")


def cut(state):
    state["fc2.weight"] = state["fc2.weight"][:-1].clone()


def whole_numbers(state):
    state["fc1.weight"] = state["fc1.weight"].to(torch.int64)


def without_input_layer(state):
    del state["fc1.weight"]


TEACHERS = {
    "agent.th holds a value that is not finite": {"change": poison},
    "agent.th does not fit": {"change": cut},
    "agent.th holds other numbers": {"change": whole_numbers},
    "agent.th does not fit ": {"change": without_input_layer},
    "hidden_dim is 2147483647": {"hidden_dim": 2**31 - 1},
    "agent.th does not fit  ": {"hidden_dim": 16},
    "n_actions is 0": {"n_actions": 0},
    "n_agents is -3": {"n_agents": -3},
    "gamma is nan": {"gamma": float("nan")},
    "gamma is 1.5": {"gamma": 1.5},
    "shaping is inf": {"shaping": float("inf")},
    "normalisers": {"normalisers": {"reward": None, "value": {"mean": [0.0], "std": [float("nan")]}}},
    "normalisers ": {"normalisers": {"reward": None, "value": {"mean": [0.0], "std": [0.0]}}},
    "normalisers  ": {"normalisers": [1]},
}


@pytest.mark.parametrize("message", TEACHERS)
def test_facts_that_contradict_the_weights_are_refused_in_one_line(tmp_path, message):
    with pytest.raises(UserError) as caught:
        load_teacher(forged(tmp_path / "teacher", **TEACHERS[message]))
    assert message.strip() in str(caught.value) and "\n" not in str(caught.value)
