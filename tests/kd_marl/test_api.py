"""The public Python API: what it makes is what the command line makes, and its errors are one line."""

from __future__ import annotations

import ast
import json
import runpy
import subprocess
import sys

import pytest

import kd_marl
from kd_core.errors import UserError
from kd_core.host import get_host
from kd_core.places import ZOO
from kd_marl import api
from kd_onboard import read_bundle
from main_server import Ended
from stage_fixtures import TASK, TINY

POLICIES = ("teacher", "student", "random")


def keys(config, **changes):
    """The tiny sizes of a stage as keyword arguments."""
    return {word.split("=", 1)[0]: api_value(word.split("=", 1)[1]) for word in TINY[config]} | changes


def api_value(text):
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


@pytest.fixture
def started(monkeypatch, mains, tmp_path):
    """Runs go through the server that has imported torch already; their command lines are in the list."""
    monkeypatch.chdir(tmp_path)
    lines = []

    class Run(Ended):
        def wait(self):
            return self.returncode

    def start(command, log, one_thread):
        lines.append(command[2:])
        done = mains.run(*command[2:])
        log.write((done.out + done.err).encode())
        return Run(done.status)

    monkeypatch.setattr(api.process, "start", start)
    return lines


@pytest.fixture(scope="module")
def student(tiny_student):
    return kd_marl.load_student(tiny_student.record)


def numbers(summary):
    return {name: summary[name] for name in (*POLICIES, "retention", "retention_normalised", "agreement")}


def test_importing_the_package_imports_neither_torch_nor_the_rest(source_root):
    code = (
        "import sys, kd_marl; assert {'distil', 'teachers'} <= set(dir(kd_marl)); "
        "print([name for name in ('torch', 'numpy', 'sacred', 'kd_core', 'kd_marl.api') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=source_root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_public_name_is_there_and_no_other():
    for name in kd_marl.__all__:
        assert getattr(kd_marl, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'distill'"):
        _ = kd_marl.distill


def test_every_typed_package_says_so(source_root):
    typed = {path.parent.relative_to(source_root).as_posix() for path in source_root.rglob("py.typed")}
    packages = {"kd_controllers", "kd_core", "kd_learners", "kd_marl", "kd_onboard", "kd_runners"}
    assert typed == packages | {f"envs/{name}" for name in ("hetero_mask", "mpe", "smax", "traffic")}


def test_teachers_lists_the_results_before_the_bundled_ones(tiny_results, tiny_teacher, tmp_path):
    listed = kd_marl.teachers(tiny_results)
    assert tiny_teacher in [teacher.folder for teacher in listed if not teacher.bundled]
    bundled = [teacher for teacher in listed if teacher.bundled]
    assert {teacher.name for teacher in bundled} == {folder.name for folder in ZOO.iterdir()}
    assert listed[-len(bundled) :] == bundled
    assert [teacher.name for teacher in kd_marl.teachers(tmp_path)] == [teacher.name for teacher in bundled]
    of_3m = next(teacher for teacher in bundled if teacher.name == "3m")
    facts = json.loads((ZOO / "3m" / "teacher.json").read_text())
    assert (of_3m.return_mean, of_3m.steps) == (facts["test"]["greedy"]["return_mean"], facts["steps"])


def test_a_damaged_teacher_is_passed_over_with_a_warning(tmp_path, caplog):
    folder = tmp_path / "models" / "broken" / "1"
    folder.mkdir(parents=True)
    (folder / "teacher.json").write_text("{}")
    assert all(teacher.bundled for teacher in kd_marl.teachers(tmp_path))
    assert str(folder) in caplog.text


def test_a_teacher_is_loaded_by_name_or_folder(tiny_teacher):
    assert kd_marl.load_teacher("3m").folder == ZOO / "3m"
    assert kd_marl.load_teacher(tiny_teacher).task == TASK
    with pytest.raises(kd_marl.UserError, match="no teacher at"):
        kd_marl.load_teacher("no-such-teacher")


def test_distil_runs_the_command_and_returns_what_its_summary_says(started, tiny_teacher, tiny_buffer, tmp_path):
    given = keys("kd_student", expert_buffer=tiny_buffer, widths=[8, 12], env_args={"time_limit": 25})
    made = kd_marl.distil(TASK, "mpe", "lh", teacher=kd_marl.load_teacher(tiny_teacher), results="made", **given)
    (line,) = started
    assert line[:4] == ["--config=kd_student", "--env-config=mpe", "with", f"env_args.key={TASK}"]
    assert {"limits=lh", "seed=1", "widths=[8, 12]", "env_args.time_limit=25", "runner=parallel"} <= set(line)
    (file,) = tmp_path.glob("made/sacred/kd_student/*/1/summary.json")
    assert made.summary == json.loads(file.read_text())
    assert made.summary["limits"] == "lh"
    assert list(made.network.widths) == [8, 12]
    assert kd_marl.load_student(made.checkpoint).summary == made.summary


def test_evaluate_repeats_the_runs_own_numbers_and_leaves_its_result_alone(started, student, tiny_student):
    before = sorted(tiny_student.results.rglob("summary.json"))
    assert numbers(kd_marl.evaluate(student, teacher=tiny_student.teacher)) == numbers(student.summary)
    assert sorted(tiny_student.results.rglob("summary.json")) == before


def test_evaluate_refuses_another_teacher_and_no_episodes(started, student):
    with pytest.raises(UserError, match="not the one that the student was distilled from"):
        kd_marl.evaluate(student, teacher=TASK)
    with pytest.raises(UserError, match=r"^eval_episodes is 0: expected a whole number of at least 1 \(all of it"):
        kd_marl.evaluate(student, 0)


def test_export_writes_what_the_command_writes(student, tiny_bundle, tmp_path):
    bundle = kd_marl.export(student, tmp_path / "bundle", latency=False)
    assert bundle.profile.files == read_bundle(tiny_bundle).profile.files
    assert [agent.width for agent in bundle.agents] == [8, 12]
    with pytest.raises(UserError, match="exists: give another folder"):
        kd_marl.export(student, tmp_path / "bundle")


def test_a_failed_run_is_one_error_with_its_own_message_and_its_log(started, tmp_path):
    with pytest.raises(UserError) as raised:
        kd_marl.train_teacher(TASK, "mpe", **keys("kd_teacher", batch_size=8))
    assert str(raised.value).startswith("kd_mappo_teacher takes the episodes just played: set batch_size,")
    assert str(tmp_path / "results" / "logs" / "kd_teacher.log") in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lamda": 1}, "unknown key 'lamda' in 'with'"),
        ({"config": "kd_studnet"}, "--config=kd_studnet: no such configuration"),
        ({"env": "mpee"}, "--env-config=mpee: no such configuration"),
        ({"local_results_path": "x"}, "'local_results_path' is not for this call: give results="),
        ({"evaluate": True}, "'evaluate' is not for this call: call evaluate"),
        ({"save_model": False}, "leave save_model out"),
        ({"config": "ptde"}, "ptde has agent=personal"),
    ],
    ids=str,
)
def test_what_cannot_be_distilled_is_refused_before_anything_starts(started, given, message):
    with pytest.raises(UserError, match=message):
        kd_marl.distil(**{"task": TASK, "env": "mpe", **given})
    assert started == []


@pytest.mark.parametrize(
    "value", ["vector", "1", "None", "a=b", "", True, None, 3, 0.5, [8, 12], {"0": ["V"]}], ids=repr
)
def test_sacred_reads_the_value_that_was_given(value):
    from sacred.arg_parser import get_config_updates

    (word,) = api._updates({"masks": value})
    assert get_config_updates([word])[0] == {"masks": value}


@pytest.mark.parametrize(("env", "key"), [("mpe", "key"), ("gymma", "key"), ("smax", "map_name"), ("sc2", "map_name")])
def test_the_environments_yaml_says_which_key_names_the_task(env, key, tmp_path):
    line = api._words(get_host(), "kd_student", env, "task", tmp_path)
    assert f"env_args.{key}=task" in line


def test_the_report_is_written_as_the_command_writes_it(tiny_student, tmp_path):
    assert kd_marl.write_report(tiny_student.results, tmp_path / "report") == tmp_path / "report"
    assert TASK in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.slow
def test_the_example_makes_teacher_student_and_bundle(started, root, tmp_path):
    main = runpy.run_path(str(root / "examples" / "distil_mpe.py"))["main"]
    student, scores, bundle = main("out", True, keys("kd_teacher"), keys("kd_student"))
    assert [line[0] for line in started] == ["--config=kd_teacher", *["--config=kd_student"] * 2]
    assert numbers(scores) == numbers(student.summary)
    (file,) = (tmp_path / "out" / "sacred" / "kd_student").glob("*/*/summary.json")
    assert numbers(json.loads(file.read_text())) == numbers(scores)
    assert bundle.folder == tmp_path / "out" / "bundle"
    assert bundle.task.name == TASK


@pytest.mark.slow
def test_the_notebook_shows_the_same(started, root, tiny_teacher, tiny_buffer):
    cells = json.loads((root / "examples" / "distil_mpe.ipynb").read_text())["cells"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")
    names = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
            if "parameters" in cell["metadata"].get("tags", []):
                names["STUDENT_KEYS"] = keys("kd_student", expert_buffer=tiny_buffer)
            if "teacher" in names:
                names["teacher"] = kd_marl.load_teacher(tiny_teacher)
    assert numbers(names["scores"]) == numbers(names["student"].summary)
    assert names["bundle"].task.name == TASK


@pytest.mark.slow
def test_a_run_is_a_process_of_its_own(tiny_teacher, tiny_buffer, tmp_path):
    given = keys("kd_student", expert_buffer=tiny_buffer)
    made = kd_marl.distil(TASK, "mpe", teacher=tiny_teacher, results=tmp_path, **given)
    assert numbers(kd_marl.evaluate(made)) == numbers(made.summary)
    assert "written to" in (tmp_path / "logs" / "kd_student.log").read_text()
