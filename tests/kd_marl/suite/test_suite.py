"""A suite's file is read or refused in one line, and its runs are planned once."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kd_core.errors import UserError
from kd_core.host import get_host
from kd_marl.cli import main
from kd_marl.suite import document
from stage_fixtures import TASK

HOST = get_host()  # before anything of `envs`: on a checkout the host decides what that package is

from kd_marl.plugin import register  # noqa: E402
from kd_marl.suite.plan import Plan  # noqa: E402

register.register(HOST)

SPREAD = "pz-mpe-simple-spread-v3"
GOOD = f"""
tasks:
  spread: {{env: mpe, key: {SPREAD}}}
methods:
  kd_student: {{with: {{t_max: 700, buffer_episodes: 40}}}}
  mappo: {{steps_of: kd_student, limits: lh}}
limits: [fo, lh]
seeds: [1, 2]
"""


@pytest.fixture
def write(tmp_path):
    """Writes a suite and returns its path."""

    def write(text):
        path = tmp_path / "grid.yaml"
        path.write_text(text)
        return path

    return write


# ---- the file --------------------------------------------------------------------------------------------------------

WRONG = {
    "grid.yaml: unknown key 'seed': did you mean 'seeds'?": ("seeds: [1, 2]", "seed: 1"),
    "grid.yaml: unknown key 'tasks.spread.maps'": ("key:", "maps:"),
    "grid.yaml: unknown key 'methods.mappo.step_of': did you mean 'steps_of'?": ("steps_of", "step_of"),
    "grid.yaml: limits: there is no 'lah'; did you mean 'lh' or 'lha'?": ("[fo, lh]", "[fo, lah]"),
    "grid.yaml: methods.mappo.limits: there is no 'lhh'; did you mean 'lh'?": ("limits: lh}", "limits: lhh}"),
    "steps_of: there is no 'kd_studen'; did you mean 'kd_student'?": ("steps_of: kd_student", "steps_of: kd_studen"),
    "steps_of: mappo has a steps_of itself": ("steps_of: kd_student", "steps_of: mappo"),
    "grid.yaml: seeds is 'many': expected different whole numbers": ("[1, 2]", "many"),
    "grid.yaml: seeds is [1, 1]": ("[1, 2]", "[1, 1]"),
    "grid.yaml: seeds is missing": ("seeds: [1, 2]", ""),
    "grid.yaml: tasks.spread.env is missing": ("env: mpe, ", ""),
    "grid.yaml: methods.kd_student.with.seed: the suite sets it itself; instead use the file's 'seeds'": (
        "t_max: 700",
        "seed: 7",
    ),
    "grid.yaml is no valid YAML at line 8 ('limits' is there twice)": ("limits: [fo, lh]", "limits: fo\nlimits: lh"),
    "methods.kd_student on tasks.spread under fo: unknown key 't_mx' in 'with': did you mean 't_max'": (
        "t_max: 700",
        "t_mx: 700",
    ),
    "methods.kd_studnt on tasks.spread under fo: --config=kd_studnt: no such configuration; did you mean": (
        "  kd_student:",
        "  kd_studnt: {}\n  kd_student:",
    ),
    "--env-config=mpp: no such configuration": ("env: mpe", "env: mpp"),
    "tasks.spread.teacher: the zoo has no teacher for pz-mpe-simple-tag-v3": (
        f"key: {SPREAD}",
        "key: pz-mpe-simple-tag-v3, teacher: zoo",
    ),
    "for 5m_vs_7m; did you mean '5m_vs_6m'?": (f"mpe, key: {SPREAD}", "smax, map_name: 5m_vs_7m, teacher: zoo"),
    "tasks.spread.teacher: no teacher at": ("env: mpe", "teacher: nowhere, env: mpe"),
    "methods.kd_teacher: the suite makes teachers and buffers itself": (
        "  kd_student:",
        "  kd_teacher: {}\n  kd_student:",
    ),
    "spread/again/fo/seed1 and spread/kd_student/fo/seed1 are the same run": (
        "  kd_student:",
        "  again: {config: kd_student, with: {t_max: 700, buffer_episodes: 40}}\n  kd_student:",
    ),
    "methods.mappo.steps_of: qmix has no teacher; name a student": (
        "steps_of: kd_student",
        "steps_of: qmix}\n  qmix: {cpus: 1",
    ),
    "tasks.spread.key is ['a']: expected a word": (f"key: {SPREAD}", "key: [a]"),
    "methods.kd_student on tasks.spread under fo: t_max is 'many': expected a whole number": ("700", "many"),
    "methods.kd_student on tasks.spread under fo: buffer_episodes is 0: expected a whole number": (": 40", ": 0"),
    "tasks spread and short have one teacher, and so one expert buffer, but other env_args": (
        "methods:",
        f"  short: {{env: mpe, key: {SPREAD}, env_args: {{time_limit: 9}}}}\nmethods:",
    ),
    "grid.yaml: limits.lha does not say who sees what: add 'limits: fo', 'lh' or 'lha', or masks": (
        "limits: [fo, lh]",
        "limits: {lh: {limits: lh}, fo: {limits: fo}, lha: }",
    ),
    "tasks spread and mean have one teacher, and so one expert buffer, but other env_args, rewards": (
        "methods:",
        f"  mean: {{env: mpe, key: {SPREAD}, with: {{reward_scalarisation: mean}}}}\nmethods:",
    ),
    "methods.kd_student.with.env_args is 5: expected keys with values": ("t_max: 700", "env_args: 5, t_max: 700"),
    "grid.yaml is no valid YAML (month must be in 1..12)": ("limits: [", "name: 2024-99-99\nlimits: ["),
    "spread/again/lh/seed1 and spread/mappo/lh/seed1 are the same run": (
        "  mappo:",
        "  again: {config: mappo, steps_of: kd_student, limits: lh}\n  mappo:",
    ),
    "methods.q2 on tasks.spread under lh: mask_at=controller is for students": (
        "  mappo:",
        "  q1: {config: qmix, limits: lh, with: {mask_at: environment}}\n"
        "  q2: {config: qmix, limits: lh, with: {mask_at: controller}}\n  mappo:",
    ),
    "retries is -1: expected a whole number of at least 0": ("limits: [", "retries: -1\nlimits: ["),
    "cpus is 0: expected a whole number of at least 1": ("limits: [", "cpus: 0\nlimits: ["),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_with_a_file_is_one_line_that_names_the_key(write, capsys, tmp_path, message):
    before, after = WRONG[message]
    assert before in GOOD
    assert main(["suite", "list", str(write(GOOD.replace(before, after, 1))), "--to", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_a_grid_without_a_run_is_refused(write):
    text = GOOD.replace("kd_student: {", "kd_student: {limits: lh, ").replace("env: mpe", "env: mpe, limits: fo")
    with pytest.raises(UserError, match="no task, method, limits and seed go together"):
        document.load(write(text))


@pytest.mark.parametrize("content", ["", "[1, 2]", "tasks: [", "just words", "\x00"])
def test_a_file_that_is_no_suite_is_refused(write, content):
    with pytest.raises(UserError, match=r"grid\.yaml"):
        document.load(write(content))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        document.load(tmp_path / "none.yaml")


KEYS = ["tasks", "methods", "limits", "seeds", "with", "name", "env", "key", "a", "steps_of"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(
    ANYTHING | st.fixed_dictionaries({"tasks": ANYTHING, "methods": ANYTHING, "seeds": ANYTHING, "limits": ANYTHING})
)
def test_whatever_a_file_holds_it_is_a_suite_or_a_user_s_mistake(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "any.yaml"
    path.write_text(yaml.safe_dump(content))
    try:
        assert document.load(path).cells()
    except UserError as error:
        assert "\n" not in str(error)


def test_the_grid_is_every_combination_that_is_not_excluded_seed_after_seed(write):
    cells = document.load(write(GOOD)).cells()
    expected = [
        f"spread/{method}/{limits}/seed{seed}"
        for seed, method, limits in itertools.product([1, 2], ["kd_student", "mappo"], ["fo", "lh"])
        if (method, limits) != ("mappo", "fo")
    ]
    assert [cell.label for cell in cells] == expected


@pytest.mark.parametrize("action", ["run", "status", "list"])
def test_help_ends_with_an_example(action, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["suite", action, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.split("example:\n")[1].strip().startswith(f"kd-marl suite {action} ")


# ---- the plan --------------------------------------------------------------------------------------------------------


def value_of(job, key):
    return dict(word.split("=", 1) for word in job.words if "=" in word)[key]


def test_overrides_win_in_the_order_of_the_docs(write, tmp_path):
    text = f"""
with: {{eval_episodes: 1, test_nepisode: 1, gamma: 0.1, lr: 0.1, t_max: 1}}
tasks: {{spread: {{env: mpe, key: {SPREAD}, with: {{test_nepisode: 2, gamma: 0.2, lr: 0.2, t_max: 2}}}}}}
limits: {{lh: {{limits: lh, gamma: 0.3, lr: 0.3, t_max: 3}}}}
methods: {{kd_student: {{with: {{lr: 0.4, t_max: 4}}}}}}
seeds: 1
"""
    plan = Plan(HOST, document.load(write(text), ["t_max=5"]), tmp_path)
    job = plan.job("spread/kd_student/lh/seed1")
    keys = ("eval_episodes", "test_nepisode", "gamma", "lr", "t_max")
    assert [value_of(job, key) for key in keys] == ["1", "2", "0.3", "0.4", "5"]


def test_a_bundled_teacher_is_shared_by_name_and_its_buffer_comes_first(write, tmp_path, source_root):
    plan = Plan(HOST, document.load(write(GOOD)), tmp_path)
    assert next(iter(plan.nodes)) == "spread/buffer" and "spread/teacher" not in plan.nodes
    assert all(node.needs == ("spread/buffer",) for node in plan.nodes.values() if node.cell)
    zoo = str(source_root / "zoo" / SPREAD)
    assert value_of(plan.job("spread/buffer"), "teacher") == zoo
    assert value_of(plan.job("spread/buffer"), "buffer_episodes") == "40"
    assert value_of(plan.job("spread/kd_student/lh/seed2"), "teacher") == zoo


def test_a_teacher_that_is_to_be_trained_comes_before_its_buffer(write, tmp_path):
    text = GOOD.replace("env: mpe", "env: mpe, teacher: train, teacher_with: {hidden_dim: 16, seed: 3}")
    plan = Plan(HOST, document.load(write(text)), tmp_path)
    assert list(plan.nodes)[:2] == ["spread/teacher", "spread/buffer"]
    assert plan.nodes["spread/buffer"].needs == ("spread/teacher",)
    teacher = plan.job("spread/teacher")
    assert (value_of(teacher, "hidden_dim"), value_of(teacher, "seed")) == ("16", "3")
    # The students' own length is none of the teacher's business.
    assert "t_max" not in " ".join(teacher.words)
    assert plan.job("spread/buffer") is None and plan.job("spread/kd_student/lh/seed1") is None


def test_a_value_that_only_the_run_can_judge_is_left_to_it(write, tmp_path):
    plan = Plan(HOST, document.load(write(GOOD.replace("t_max: 700", "mac: [a]"))), tmp_path)
    assert value_of(plan.job("spread/kd_student/fo/seed1"), "mac") == "['a']"


def test_a_method_under_another_name_is_looked_for_where_the_host_keeps_it(write, tmp_path):
    text = GOOD.replace("t_max: 700", "t_max: 700, name: mine")
    job = Plan(HOST, document.load(write(text)), tmp_path).job("spread/kd_student/fo/seed1")
    assert value_of(job, "name") == "mine"
    assert job.proof.folder == tmp_path / "sacred" / "kd_student" / SPREAD


def test_the_same_method_with_two_teachers_is_two_runs(write, tmp_path):
    text = GOOD.replace("methods:", f"  mine: {{env: mpe, key: {SPREAD}, teacher: train}}\nmethods:")
    text = text.replace("  mappo: {", "  mappo: {tasks: spread, ")
    plan = Plan(HOST, document.load(write(text)), tmp_path)
    assert {"mine/kd_student/fo/seed1", "spread/kd_student/fo/seed1"} <= set(plan.nodes)


def test_steps_of_a_student_that_itself_does_not_run_there_are_counted(write, tmp_path):
    text = GOOD.replace("kd_student: {", "kd_student: {limits: fo, ").replace("env: mpe", "env: mpe, limits: lh")
    plan = Plan(HOST, document.load(write(text)), tmp_path)
    assert list(plan.nodes) == ["spread/buffer", "spread/mappo/lh/seed1", "spread/mappo/lh/seed2"]
    assert value_of(plan.job("spread/buffer"), "buffer_episodes") == "40"


def test_baselines_take_the_steps_of_teacher_buffer_and_student(write, tmp_path, tiny_teacher, tiny_buffer):
    text = GOOD.replace(SPREAD, f"{TASK}, teacher: {tiny_teacher}").replace("episodes: 40", "episodes: 12")
    results = tmp_path / "out"
    plan = Plan(HOST, document.load(write(text)), results)
    assert plan.job("spread/mappo/lh/seed1") is None
    folder = plan.job("spread/buffer").proof.folder
    folder.parent.mkdir(parents=True)
    folder.symlink_to(tiny_buffer)
    buffer = json.loads((tiny_buffer / "buffer.json").read_text())
    assert buffer["episodes"] == 24, "twice what the student reads"
    steps = json.loads((tiny_teacher / "teacher.json").read_text())["steps"]
    job = plan.job("spread/mappo/lh/seed1")
    assert int(value_of(job, "t_max")) == steps + buffer["steps"] // 2 + 700
    assert value_of(job, "final_evaluation") == "True" and "teacher" not in " ".join(job.words)


def test_a_buffer_that_is_stored_otherwise_is_not_taken_for_the_one_asked_for(
    write, tmp_path, tiny_teacher, tiny_buffer
):
    text = GOOD.replace(SPREAD, f"{TASK}, teacher: {tiny_teacher}").replace("episodes: 40", "episodes: 12")
    suites = [document.load(write(text), words) for words in ([], ["embedding_dtype=float32"])]
    same, other = [Plan(HOST, suite, tmp_path / "out").job("spread/buffer").proof for suite in suites]
    same.folder.parent.mkdir(parents=True)
    same.folder.symlink_to(tiny_buffer)
    assert same.found() == other.folder
    with pytest.raises(UserError, match="exported with embedding_dtype=float16, this suite has float32"):
        other.found()


def test_a_student_s_training_has_one_owner_whatever_its_result_is_measured_over(write, tmp_path):
    text = GOOD.replace("steps_of: kd_student, ", "")
    plans = [Plan(HOST, document.load(write(text), words), tmp_path) for words in ([], ["eval_episodes=7"])]
    mappos = [plan.job("spread/mappo/lh/seed1") for plan in plans]
    assert mappos[0].key != mappos[1].key and mappos[0].log != mappos[1].log
    students = [plan.job("spread/kd_student/lh/seed1") for plan in plans]
    assert students[0].key == students[1].key and students[0].proof != students[1].proof
    assert students[0].goes_on and not mappos[0].goes_on


def test_a_run_begins_where_the_suite_was_started_and_on_its_host(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Plan(HOST, document.load(write(GOOD)), tmp_path).job("spread/kd_student/fo/seed1")
    assert job.directory == tmp_path and job.checkout == os.environ.get("EPYMARL_HOME", "")


def test_keys_tell_runs_apart_and_not_where_they_are_written(write, tmp_path):
    suite = document.load(write(GOOD))
    here, there = Plan(HOST, suite, tmp_path / "a"), Plan(HOST, suite, tmp_path / "b")
    labels = [label for label in here.nodes if here.job(label)]
    keys = [here.job(label).key for label in labels]
    assert len(set(keys)) == len(keys) == 5
    assert [there.job(label).key for label in labels] == keys
    longer = Plan(HOST, document.load(write(GOOD), ["t_max=800"]), tmp_path / "a")
    changed = [longer.job(label).key != key for label, key in zip(labels, keys, strict=True)]
    assert changed == ["/kd_student/" in label for label in labels]


def test_what_a_mask_costs_is_planned_beside_our_own_students(root, tmp_path):
    plan = Plan(HOST, document.load(root / "suites" / "mask_cost.yaml"), tmp_path)
    assert sum(node.cell is not None for node in plan.nodes.values()) == 3 * 2 * 2 * 3
    wide, ours = (plan.job(f"spread/{name}/lh_random/seed1") for name in ("kd_student_wide", "kd_student"))
    assert value_of(wide, "masks_preset") == value_of(ours, "masks_preset") == "random"
    assert wide.proof.folder == ours.proof.folder and wide.key != ours.key


@pytest.mark.parametrize("name", ["smoke", "paper"])
def test_the_suites_of_the_project_have_every_method_there_is(root, source_root, name):
    suite = document.load(root / "suites" / f"{name}.yaml")
    ours = {path.stem for path in (source_root / "config" / "algs").glob("*.yaml")} - {"kd_teacher", "kd_export"}
    assert set(suite.methods) == ours | {"mappo", "qmix", "vdn"}
    tasks, seeds = {"smoke": (2, 1), "paper": (7, 5)}[name]
    assert (len(suite.tasks), len(suite.seeds)) == (tasks, seeds)
    assert {cell.limits[:3].rstrip("_") for cell in suite.cells()} == {"fo", "lh", "lha"}


def test_list_prints_a_command_line_for_every_run_that_is_known(write, tmp_path, capsys):
    assert main(["suite", "list", str(write(GOOD)), "--to", str(tmp_path), "with", "eval_episodes=7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# spread/buffer" and lines[1].startswith("python src/main.py --config=kd_export ")
    assert "# spread/mappo/lh/seed2 (known once spread/buffer is made)" in lines
    assert sum(line.startswith("python ") and "eval_episodes=7" in line for line in lines) == 5


# ---- the docs --------------------------------------------------------------------------------------------------------


def test_the_docs_have_every_key_of_the_file(root):
    page = (root / "docs" / "reference" / "formats" / "suite.md").read_text()
    for key in ("name", "tasks", "methods", "limits", "seeds", "with", "cpus", "retries"):
        assert f"| `{key}` |" in page
    for key in ("env", "map_name", "key", "env_args", "with", "teacher", "teacher_with", "limits"):
        assert f"| `tasks.T.{key}` |" in page
    for key in ("config", "with", "tasks", "limits", "steps_of", "cpus"):
        assert f"| `methods.M.{key}` |" in page


def test_the_examples_of_the_docs_are_suites(root, tmp_path, write):
    blocks = (root / "docs" / "guides" / "suites.md").read_text().split("```yaml\n")[1:]
    assert blocks
    for block in blocks:
        Plan(HOST, document.load(write(block.split("```")[0])), Path(tmp_path))
