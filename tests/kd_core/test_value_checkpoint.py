"""QMIX, VDN and IQL checkpoints on disk: their facts, and what is refused in one line."""

from __future__ import annotations

import json

import pytest
import torch

from kd_core.artifacts.teacher import find_teacher, load_teacher, save_teacher
from kd_core.errors import UserError
from kd_core.places import ZOO
from tiny_stages import ACTIONS, AGENTS, OBS, STATE, TASK
from value_runs import mixer_state, value_run

SPREAD = "pz-mpe-simple-spread-v3"


@pytest.mark.parametrize(("mixer", "kind"), [("qmix", "qmix"), ("vdn", "vdn"), (None, "iql")])
def test_the_config_tells_the_kind_and_the_weights_the_sizes(tmp_path, mixer, kind):
    folder = value_run(tmp_path, mixer)
    teacher = load_teacher(folder.parent, n_agents=AGENTS)
    found = [teacher.facts[key] for key in ("task", "critic_type", "n_agents", "n_actions", "obs_size", "hidden_dim")]
    assert found == [TASK, kind, AGENTS, ACTIONS, OBS, 16]
    assert teacher.facts["state_size"] == (STATE if kind == "qmix" else None)
    assert set(teacher.sha256) == ({"agent.th", "mixer.th"} if kind == "qmix" else {"agent.th"})
    assert teacher.learnt_values and teacher.warnings == ()
    assert teacher.at(0.5).facts["temperature"] == 0.5


@pytest.mark.parametrize("agent", ["rnn", "rnn_ns"])
@pytest.mark.parametrize("mixer", ["qmix", "vdn", None])
def test_what_was_packed_with_its_facts_is_loaded_bit_for_bit(tmp_path, mixer, agent):
    folder = value_run(tmp_path, mixer, agent=agent)
    if agent == "rnn_ns":
        own_networks(folder)
    read = load_teacher(folder, n_agents=AGENTS)
    save_teacher(tmp_path / "packed", read.agent_state, read.critic_state, read.facts)
    packed = load_teacher(tmp_path / "packed")
    assert packed.learnt_values and packed.facts == {**packed.facts, **read.facts, "sha256": packed.sha256}
    for loaded, saved in ((packed.agent_state, read.agent_state), (packed.critic_state, read.critic_state)):
        assert loaded.keys() == saved.keys()
        assert all(torch.equal(loaded[key], saved[key]) for key in saved)
    names = {"agent.th", "mixer.th"} if mixer == "qmix" else {"agent.th"}
    assert {path.name for path in (tmp_path / "packed").iterdir()} == {*names, "teacher.json"}


@pytest.mark.parametrize(("name", "task"), [("3m_qmix", "3m"), (f"{SPREAD}_qmix", SPREAD)])
def test_a_ready_made_teacher_of_values_is_found_by_its_name_alone(tmp_path, name, task):
    """Unasked a task gets the teacher that has its name."""
    facts = load_teacher(find_teacher(name, task, [], ZOO)).facts
    assert (facts["task"], facts["critic_type"], facts["algorithm"]) == (task, "qmix", "qmix")
    assert facts["test"]["episodes"] >= 1000 and "local_results_path" not in facts["command"]
    assert find_teacher("", task, [], ZOO) == ZOO / task


def lose_the_mixer(folder):
    (folder / "mixer.th").unlink()


def alter_the_mixer(folder):
    (folder / "mixer.th").write_bytes((folder / "mixer.th").read_bytes()[:-1])


def lose_the_states_size(folder):
    facts = json.loads((folder / "teacher.json").read_text())
    (folder / "teacher.json").write_text(json.dumps({**facts, "state_size": None}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lose_the_mixer, r"is incomplete: mixer\.th is missing"),
        (alter_the_mixer, r"mixer\.th was altered: its sha256 is not the one in teacher\.json"),
        (lose_the_states_size, r"is damaged: state_size is null, and a qmix reads the state"),
    ],
)
def test_a_packed_teacher_that_was_damaged_is_refused(tmp_path, harm, message):
    read = load_teacher(value_run(tmp_path), n_agents=AGENTS)
    save_teacher(tmp_path / "packed", read.agent_state, read.critic_state, read.facts)
    harm(tmp_path / "packed")
    with pytest.raises(UserError, match=message):
        load_teacher(tmp_path / "packed")


def test_lost_statistics_are_told_and_saved_ones_read(tmp_path):
    folder = value_run(tmp_path, standardise_rewards=True)
    assert "no reward statistics" in load_teacher(folder, n_agents=AGENTS).warnings[0]
    torch.save({"rew_ms": {"mean": torch.tensor([2.0]), "var": torch.tensor([9.0])}}, folder / "moments.th")
    teacher = load_teacher(folder, n_agents=AGENTS)
    assert teacher.warnings == () and teacher.normalisers["reward"] == {"mean": [2.0], "std": [3.0]}


def own_networks(folder):
    own = torch.load(folder / "agent.th")
    torch.save({f"agents.{i}.{key}": value for i in range(AGENTS) for key, value in own.items()}, folder / "agent.th")


def test_agents_that_share_nothing_tell_their_number(tmp_path):
    folder = value_run(tmp_path, "vdn", agent="rnn_ns")
    own_networks(folder)
    teacher = load_teacher(folder)
    assert (teacher.facts["n_agents"], teacher.facts["obs_size"], teacher.facts["agent"]) == (AGENTS, OBS, "rnn_ns")
    with pytest.raises(UserError, match="do not fit 3 agents"):
        load_teacher(folder, n_agents=3)


def lost(folder):
    (folder / "mixer.th").unlink()


def cut(folder):
    (folder / "mixer.th").write_bytes((folder / "mixer.th").read_bytes()[:100])


def of_three(folder):
    torch.save(mixer_state(agents=3), folder / "mixer.th")


def of_something_else(folder):
    torch.save({"fc1.weight": torch.zeros(3, 3)}, folder / "mixer.th")


def diverged(folder):
    state = torch.load(folder / "agent.th")
    state["fc2.bias"][0] = float("nan")
    torch.save(state, folder / "agent.th")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (diverged, r"agent\.th holds a value that is not finite in fc2\.bias: its training has diverged"),
        (lost, r"mixer\.th is missing: a teacher needs agent\.th and mixer\.th"),
        (cut, r"mixer\.th is damaged or no file of plain tensors"),
        (of_three, r"mixer\.th mixes the values of 3 agents, this task has 2: was it trained on another task"),
        (of_something_else, r"holds no EPyMARL rnn agent and mixer: 'hyper_b_1\.weight' is missing"),
    ],
)
def test_a_mixer_that_is_none_is_refused_in_one_line(tmp_path, harm, message):
    folder = value_run(tmp_path)
    harm(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_teacher(folder, n_agents=AGENTS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "n_agents", "message"),
    [
        ({"agent": "rnn_feat"}, AGENTS, "has agent rnn_feat and mixer vdn: a teacher of values needs agent rnn or"),
        (
            {"mixer": "qtran"},
            AGENTS,
            "has agent rnn and mixer qtran: a teacher of values needs agent rnn or rnn_ns and",
        ),
        ({}, None, "does not hold its number of agents: give n_agents"),
        ({}, 40, "do not fit 40 agents and the switches of its config"),
    ],
)
def test_a_run_that_is_no_teacher_says_why(tmp_path, changes, n_agents, message):
    folder = value_run(tmp_path, **{"mixer": "vdn", **changes})
    with pytest.raises(UserError, match=message):
        load_teacher(folder, n_agents=n_agents)
