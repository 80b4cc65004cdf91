"""`kd-marl watch`: what it plays and writes, and mistakes in one line."""

from __future__ import annotations

import json
import re
import shutil
import sys

import numpy as np
import pytest

import kd_marl.watch
from kd_core.host import get_host
from kd_marl.cli import main

get_host()  # before anything of ours asks the host for its classes

from kd_marl.watch import cast  # noqa: E402

LISTENER = "pz-mpe-simple-speaker-listener-v4"


def film_in(page):
    (block,) = re.findall(r'<script type="application/json" id="film">(.*?)</script>', page.read_text(), re.S)
    return json.loads(block)


def watch(*words):
    return main(["watch", *map(str, words)])


def test_a_students_page_goes_into_its_sacred_folder(tiny_student, capsys):
    assert watch(tiny_student.record, "--episodes", 3) == 0
    page = tiny_student.record / "watch.html"
    said = capsys.readouterr()
    assert said.out == f"3 episodes of {LISTENER}, written to {page}\n"
    assert "playing 3 episodes each: teacher, student\n" in said.err
    film = film_in(page)
    page.unlink()
    assert [panel["kind"] for panel in film["panels"]] == ["teacher", "student"]
    assert "limits lh (paper masks), 8 to 12 units wide" in film["panels"][1]["caption"]
    assert all(episode["same_start"] for episode in film["episodes"])
    for episode in film["episodes"]:
        starts = [take["world"]["moments"]["data"][:64] for take in episode["takes"]]
        assert starts[0] == starts[1]
        assert [shape["kind"] for shape in episode["takes"][0]["world"]["shapes"]].count("goal") == 1
    assert film["agents"][0]["actions"] == ["say_0", "say_1", "say_2", None, None]


@pytest.mark.slow
def test_the_same_command_writes_the_same_page(tiny_student, tmp_path):
    for name in ("one.html", "two.html"):
        assert watch(tiny_student.models, "--episodes", 2, "--to", tmp_path / name) == 0
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


@pytest.mark.slow
def test_another_seed_is_another_start(tiny_student, tmp_path):
    starts = []
    for seed in (1, 2):
        assert watch(tiny_student.record, "--episodes", 1, "--seed", seed, "--to", tmp_path / "a.html") == 0
        film = film_in(tmp_path / "a.html")
        assert film["seed"] == seed
        starts.append(film["episodes"][0]["takes"][0]["world"]["moments"]["data"][:64])
    assert starts[0] != starts[1]


@pytest.mark.slow
def test_a_bundle_plays_beside_its_teacher_as_its_student_does(tiny_bundle, tiny_student, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert watch(tiny_bundle, tiny_student.record, "--episodes", 2, "--teacher", tiny_student.teacher) == 0
    film = film_in(tmp_path / "watch.html")
    assert [panel["name"] for panel in film["panels"]] == ["Teacher", "Bundle", "Student"]
    for episode in film["episodes"]:
        _, bundle, student = episode["takes"]
        assert bundle["actions"] == student["actions"]
        assert bundle["world"]["moments"] == student["world"]["moments"]
        assert bundle["teacher_actions"] == student["teacher_actions"]
        assert bundle["chances"] is None and student["chances"] is not None


def test_a_bundle_without_its_teacher_plays_alone_and_says_so(tiny_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert watch(tiny_bundle, "--episodes", 1) == 0
    film = film_in(tmp_path / "watch.html")
    assert [panel["kind"] for panel in film["panels"]] == ["bundle"]
    assert film["notes"] == ["The bundle's teacher is not here, so it plays alone; --teacher DIR says where it is."]
    assert film["episodes"][0]["takes"][0]["disagreement"] is None


def test_a_teacher_can_be_watched_alone_by_name_or_folder(tiny_student, tmp_path):
    for source in (LISTENER, tiny_student.teacher):
        assert watch(source, "--episodes", 2, "--to", tmp_path / "a.html") == 0
        film = film_in(tmp_path / "a.html")
        assert [panel["kind"] for panel in film["panels"]] == ["teacher"] and "disagreement" not in film["picks"]


def test_a_trained_teachers_caption_leaves_task_and_time_out():
    assert cast._shortened("kd_teacher_seed1_pz-mpe-simple-spread-v3_2026-01-02 03:04:05.6") == "kd_teacher_seed1 … "
    assert cast._shortened("3m") == "3m"


def test_a_failed_sensor_is_in_the_film(tiny_student, tmp_path):
    assert (
        watch(tiny_student.record, "--episodes", 1, "--fail-sensor", "speaker_0:G@3", "--to", tmp_path / "a.html") == 0
    )
    film = film_in(tmp_path / "a.html")
    assert film["failed"][0] == [3, 3, 3] + [-1] * 8
    assert film["failures"] == ["speaker_0 reads zero for the goal (G) from step 3"]
    assert "sees everything but what fails, " in film["panels"][0]["caption"]


@pytest.mark.slow
def test_a_film_takes_the_place_of_the_page(tiny_student, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    gif = tmp_path / "a.gif"
    assert watch(tiny_student.record, "--episodes", 1, "--gif", gif, "--eyes", "listener_0") == 0
    assert capsys.readouterr().out == f"episode 1 of 1 of {LISTENER}, written to {gif}\n"
    assert not (tiny_student.record / "watch.html").exists()
    with image.open(gif) as film:
        # Four pictures a step and one of the end, some of which may be alike.
        assert 25 < film.n_frames <= 101 and film.size[0] == 880
        film.seek(film.n_frames - 1)
        assert np.asarray(film.convert("L")).std() > 5
    assert not list(tmp_path.glob(".*")), "nothing half-written stays"


# ---- mistakes --------------------------------------------------------------------------------------------------------


def one_line(capsys, *words):
    assert watch(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", "0"], "at least 1"),
        (["--episodes", "3", "--pick", "4"], "--pick 4: expected 1 to 3, or a word; valid: best, disagreement"),
        (["--pick", "bets"], "did you mean 'best'"),
        (["--seed", "-1"], "--seed -1: expected a whole number of at least 0"),
        (["--fail-sensor", "listener_0:O"], "no feature 'O'"),
        (["--eyes", "nobody"], "--eyes nobody is no agent; valid: 0, 1, listener_0, speaker_0"),
        (["--teacher", "nowhere"], "no teacher at nowhere"),
        (["--to", "no/folder/a.html"], "there is no folder no/folder"),
        (["--gif", "."], "cannot write .: it is a folder"),
        (["--env-config", "mpe"], "is a student's run and knows its environment: leave --env-config out"),
        (["with", "env_args.time_limit=3"], "'with env_args.time_limit=3' needs --env-config=NAME too"),
    ],
)
def test_bad_input_is_one_line(tiny_student, words, message, capsys):
    assert message in one_line(capsys, tiny_student.record, *words)
    assert not (tiny_student.record / "watch.html").exists()


def test_what_is_no_run_is_one_line(tiny_student, tmp_path, capsys):
    assert "there is no folder" in one_line(capsys, tmp_path / "nothing")
    missing = tiny_student.record.with_name("77")
    # Other tests may have continued the same student in its results.
    newest = max((path for path in missing.parent.glob("[0-9]*")), key=lambda path: int(path.name))
    assert one_line(capsys, missing).endswith(f"results/models; the newest is {newest}")
    assert "holds no student" in one_line(capsys, tmp_path)
    (export,) = (tiny_student.results / "sacred" / "kd_teacher").glob("*/1")
    assert "give the teacher itself, its folder below results/models" in one_line(capsys, export)


def test_unfinished_runs_and_runs_without_their_weights_are_one_line(tiny_student, tmp_path, capsys):
    record = tmp_path / "results" / tiny_student.record.relative_to(tiny_student.results)
    shutil.copytree(tiny_student.record, record)
    assert "run it with save_model=True" in one_line(capsys, record)
    (record / "summary.json").unlink()
    assert "summary.json) of" in one_line(capsys, record)


@pytest.mark.slow
def test_a_teacher_that_is_gone_or_another_is_one_line(tiny_student, tmp_path, capsys, monkeypatch):
    results = tmp_path / "results"
    shutil.copytree(tiny_student.results / "sacred", results / "sacred")
    shutil.copytree(tiny_student.models, results / "models" / tiny_student.models.name)
    record = results / tiny_student.record.relative_to(tiny_student.results)
    assert watch(record, "--episodes", 1) == 0
    capsys.readouterr()
    assert "is another teacher" in one_line(capsys, record, "--teacher", "src/zoo/3m")
    for file in results.glob("models/*/*/checkpoint.json"):
        facts = json.loads(file.read_text())
        facts["teacher"]["path"] = str(tmp_path / "gone")
        file.write_text(json.dumps(facts))
    monkeypatch.chdir(tmp_path)
    assert "the teacher is no longer in" in one_line(capsys, record)


@pytest.mark.slow
def test_five_panels_and_two_tasks_are_one_line(tiny_student, tmp_path, capsys):
    assert "are more than 4 panels" in one_line(capsys, *[tiny_student.record] * 4)
    line = one_line(capsys, tiny_student.record, "pz-mpe-simple-spread-v3")
    assert "map_name=pz-mpe-simple-spread-v3" in line and "watch runs of one task" in line


def test_a_missing_package_is_one_line_before_anything_is_played(tiny_student, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    line = one_line(capsys, tiny_student.record, "--mp4", tmp_path / "a.mp4")
    assert "this needs imageio_ffmpeg, which is not installed: pip install -e '.[watch]'" in line
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    monkeypatch.delitem(sys.modules, "kd_marl.watch.picture", raising=False)
    monkeypatch.delattr(kd_marl.watch, "picture", raising=False)
    assert "this needs matplotlib" in one_line(capsys, tiny_student.record, "--gif", tmp_path / "a.gif")


def test_the_help_ends_with_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["watch", "--help"])
    assert capsys.readouterr().out.split("example:\n")[1].strip().startswith("kd-marl watch ")
