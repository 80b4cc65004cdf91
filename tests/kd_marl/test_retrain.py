"""A teacher trained again from the commands of its history."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys

import pytest

from kd_core.artifacts.teacher import read_facts
from kd_core.errors import UserError
from kd_core.places import ZOO
from kd_marl import cli, retrain
from stage_fixtures import words

FIRST = "python src/main.py --config=kd_teacher --env-config=mpe with seed=1 t_max=10 local_results_path=/a"
SECOND = f"{FIRST} begin_with=/a/models/x/10 resume=True"


def test_every_bundled_teacher_can_be_trained_again():
    for folder in sorted(ZOO.iterdir()):
        facts = read_facts(folder)
        if "algorithm" in facts:
            continue
        trainings = retrain.commands(facts)
        assert all(words[0] == "--config=kd_teacher" for words in trainings)
        assert len(trainings) == (2 if folder.name == "5m_vs_6m" else 1)


def test_the_trainings_come_oldest_first():
    third = {"command": FIRST.replace("seed=1", "seed=3"), "begun_with": None}
    facts = {"command": SECOND, "begun_with": {"command": FIRST, "begun_with": third}}
    seeds = [next(word for word in words if word.startswith("seed=")) for words in retrain.commands(facts)]
    assert seeds == ["seed=3", "seed=1", "seed=1"]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"command": None}, "no command of src/main.py to repeat, but None"),
        ({"command": "python src/other.py"}, "no command of src/main.py"),
        ({"command": SECOND, "begun_with": {"command": None}}, "no command of src/main.py"),
        (
            {"command": "X", "algorithm": "qmix"},
            "qmix trained this teacher, not kd_teacher: run `X`, then .* teachers pack",
        ),
    ],
)
def test_a_history_that_cannot_be_repeated_is_refused(facts, message):
    with pytest.raises(UserError, match=message):
        retrain.commands(facts)


def test_an_unknown_teacher_is_answered_with_the_bundled_ones(capsys):
    assert cli.main(["teachers", "train", "5m"]) == 2
    assert (
        "error: no teacher 5m: give a folder, or a bundled teacher's name (3m, 3m_qmix, 3s5z, 5m_vs_6m"
        in capsys.readouterr().err
    )


def test_a_failed_training_is_said_in_one_line(tmp_path, capfd):
    command = ["teachers", "train", "pz-mpe-simple-spread-v3", "--to", str(tmp_path), "with", "no_such_key=1"]
    assert cli.main(command) == 2
    said = capfd.readouterr().err
    assert said.splitlines()[-1] == "error: training 1 of 1 failed: its message is above"
    assert "no_such_key" in said


@pytest.mark.slow
def test_a_teacher_that_began_with_another_is_made_by_one_command_once(mains, tiny_teacher, tmp_path, capfd):
    mains.run(*words("kd_teacher", tmp_path / "old", "seed=2", f"begin_with={tiny_teacher}")).check()
    old = max((tmp_path / "old").glob("models/*/*/teacher.json"), key=lambda file: int(file.parent.name)).parent
    capfd.readouterr()

    command = ["teachers", "train", str(old), "--to", str(tmp_path / "new"), "with", "eval_episodes=4"]
    assert cli.main(command) == 0
    said = capfd.readouterr().out
    made = [line.removeprefix("its teacher: ") for line in said.splitlines() if line.startswith("its teacher: ")]
    first, second = (read_facts(folder) for folder in made)
    assert (first["seed"], second["seed"]) == (1, 2)
    assert second["begun_with"]["sha256"] == first["sha256"]
    assert second["steps"] > first["steps"] > 0
    assert first["test"]["episodes"] == second["test"]["episodes"] == 4
    assert f"begin_with={made[0]}" in shlex.split(second["command"])

    # Nothing is left to do, and nothing is done.
    assert cli.main(command) == 0
    assert capfd.readouterr().out == "".join(
        f"{line}\n" for line in said.splitlines() if line.startswith(("training ", "its teacher: ", "return, greedy: "))
    )
    mean, spread = second["test"]["greedy"]["return_mean"], second["test"]["greedy"]["return_std"]
    assert f"return, greedy: {mean:.2f} ± {spread:.2f}; of the teacher in {old}: -" in said


SLOW_TO_SAVE = """
import pathlib, sys, time
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    pathlib.Path(sys.argv[1]).write_text("saved")
    sys.exit(1)
"""


def test_an_interrupted_stage_has_time_to_save(tmp_path):
    (tmp_path / "main.py").write_text(SLOW_TO_SAVE)
    here = f"import pathlib, kd_core.stages as stages; stages.MAIN = pathlib.Path({str(tmp_path / 'main.py')!r}); "
    process = subprocess.Popen(
        [sys.executable, "-c", f"{here} stages.run_main([{str(tmp_path / 'weights')!r}])"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout.readline() == b"ready\n"
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert (tmp_path / "weights").read_text() == "saved"
    assert process.returncode == -signal.SIGINT
