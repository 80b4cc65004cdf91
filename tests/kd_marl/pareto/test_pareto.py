"""`kd-marl pareto`: each student is made once, front and knee are what they are called, and the page shows them."""

from __future__ import annotations

import json
import math
import os
import shlex
import time
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_core.host import get_host
from kd_marl.cli import main
from kd_marl.pareto import choose as pareto
from kd_marl.pareto import sweep as pareto_runs
from kd_marl.pareto.choose import KNEE_GAIN, Point
from kd_marl.pareto.figure import figure, log_ticks
from main_server import Ended
from stage_fixtures import TASK, TINY

SVG = "{http://www.w3.org/2000/svg}"


def point(width, retention, flops, **changes):
    values = {"half": None, "retention_normalised": 0.5, "flash_bytes": 4.0 * flops, "ram_bytes": 1000.0}
    timed = {"decision_us": 3.0, "decision_us_low": 2.9, "decision_us_high": 3.3}
    own = {"width": width, "seeds": (1,), "retention": retention, "flops": flops, "score": -40.0}
    return Point(**{**values, **timed, **own, **changes})


def marked(points):
    on_front = pareto.front(points)
    return [point(p.width, p.retention, p.flops, on_front=on) for p, on in zip(points, on_front, strict=True)]


def test_the_front_is_what_no_cheaper_student_beats():
    kept = [(1000, 0.50), (2000, 0.80), (4000, 0.79), (8000, 0.80), (16000, 0.95)]
    points = [point(4 * k, share, flops) for k, (flops, share) in enumerate(kept, 1)]
    assert pareto.front(points) == [True, True, False, False, True]


KNEES = {
    # Half a per cent from 8000 to 32000 is two doublings: less than one each.
    "the curve flattens": ([(1000, 0.50), (2000, 0.80), (8000, 0.95), (32000, 0.955)], 2),
    "the cheapest is as good": ([(1000, 0.990), (4000, 0.995), (16000, 0.999)], 0),
    "the widest still gains": ([(1000, 0.2), (2000, 0.4), (4000, 0.6)], 2),
    "a flat stretch before a rise is no knee": ([(1000, 0.50), (2000, 0.505), (4000, 0.90)], 2),
    "only one": ([(1000, -2.0)], 0),
    "what is not on the front does not count": ([(1000, 0.9), (2000, 0.7), (4000, 0.9001)], 0),
}


@pytest.mark.parametrize("name", KNEES)
def test_the_knee_is_where_doubling_no_longer_pays(name):
    kept, expected = KNEES[name]
    assert pareto.knee(marked([point(4, share, flops) for flops, share in kept])) == expected


@given(st.lists(st.tuples(st.integers(100, 10**6), st.floats(-3, 1.2)), min_size=1, max_size=8))
def test_there_is_always_one_knee_on_the_front_and_nothing_beyond_it_pays(pairs):
    points = marked([point(4, share, flops) for flops, share in dict(pairs).items()])
    found = points[pareto.knee(points)]
    assert found.on_front
    for other in points:
        if other.on_front and other.flops > found.flops:
            assert (other.retention - found.retention) / math.log2(other.flops / found.flops) < KNEE_GAIN


def test_the_interval_is_student_s():
    # t(0.975, 2) = 4.302653; the standard error of 1, 2, 3 is 1 / sqrt(3).
    assert pareto.half_interval([1.0, 2.0, 3.0]) == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert pareto.half_interval([1.0]) is None


def test_the_paper_s_students_stand_where_its_ratios_put_them():
    lh, lha = pareto.paper_points("pz-mpe-simple-spread-v3", 60_000.0)
    assert lh["flops"] == lha["flops"] == [2000.0, 2000.0]
    assert lh["retention"] == pytest.approx(1 - 2.5 / 46) and lha["retention"] == pytest.approx(1 - 4.5 / 46)
    assert (lh["flash_bytes"], lha["flash_bytes"]) == (4 * 3960, None)
    lh, lha = pareto.paper_points("8m", 33_000.0)
    assert lh["flops"] == pytest.approx([33_000 / 11.7, 10_000]) and lha["retention"] == pytest.approx(88.23 / 89.91)
    assert pareto.paper_points("another", 1.0) == []


@given(st.floats(1e-3, 1e6), st.floats(1.05, 1e5))
def test_ticks_of_a_logarithmic_axis_are_few_and_inside(low, ratio):
    high = low * ratio
    ticks = log_ticks(low, high)
    assert 1 < len(ticks) <= 9 and ticks == sorted(set(ticks))
    assert all(low <= tick <= high for tick in ticks)


def facts(points, **changes):
    numbered = [json.loads(json.dumps(vars(p))) for p in points]
    return {
        "command": "kd-marl pareto --to pareto",
        "commit": None,
        "task": "pz-mpe-simple-spread-v3",
        "limits": "lh",
        "masks_preset": "paper",
        "episodes": 200,
        "measures": "return",
        "teacher": {"score": -44.0, "flops": 800_000.0, "flash_bytes": 1_600_000.0},
        "points": numbered,
        "knee": 8,
        "knee_rule": pareto.KNEE_RULE,
        "paper": pareto.paper_points("pz-mpe-simple-spread-v3", 800_000.0),
        "machine": {"processor": "AMD EPYC"},
        "runs": {},
        **changes,
    }


CURVE = [(4, 0.60, 500), (8, 0.93, 1400), (16, 0.92, 4500)]


def test_the_figure_has_every_width_in_every_panel_the_knee_and_the_paper():
    points = marked([point(*row) for row in CURVE])
    root = ElementTree.fromstring(figure(facts(points)))
    words = [node.text for node in root.iter(f"{SVG}text")]
    for width, *_ in CURVE:
        assert words.count(str(width)) == 3
    rings = [node for node in root.iter(f"{SVG}circle") if node.get("r") == "9"]
    assert len(rings) == 3
    assert words.count("LH") == 2 and words.count("LH+A") == 1, (
        "the paper counts no parameters of LH+A, and no time of C"
    )
    for node in root.iter(f"{SVG}circle"):
        assert 0 < float(node.get("cx")) < 1020 and 0 < float(node.get("cy")) < 430


def test_the_figure_says_what_was_not_measured_and_stays_inside_with_long_intervals():
    untimed = {"decision_us": None, "decision_us_low": None, "decision_us_high": None}
    points = [
        point(4, 0.6, 500, half=40.0, seeds=(1, 2), **untimed),
        point(8, 0.9, 900, half=0.1, seeds=(1, 2), **untimed),
    ]
    text = figure(facts(points, paper=[]))
    assert "not measured" in text and "mean of 2 seeds" in text and "the paper" not in text
    numbers = [
        float(word) for word in text.replace('"', " ").replace("V", " ").split() if word.replace(".", "").isdigit()
    ]
    assert max(numbers) <= 1020


def test_the_page_has_a_row_for_each_width_and_names_the_knee_and_its_rule():
    points = marked([point(*row) for row in CURVE])
    page = pareto.page(facts(points))
    rows = [line for line in page.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert [row.split(" | ")[0] for row in rows] == ["| 4", "| 8", "| 16"]
    assert rows[1].endswith("| 3.00 (2.90 to 3.30) | knee |") and rows[2].endswith("|  |")
    assert f"**Knee: width 8**, {pareto.KNEE_RULE}." in page
    assert "LH (32 wide) has a retention of 94.6 % with 30.0 times fewer FLOPs; LH+A (16-32 wide) has" in page


def test_messages_are_an_axis_beside_the_width():
    talking = [(8, 0, 0.6, 1400), (8, 4, 0.9, 1500), (16, 4, 0.91, 4500)]
    rates = [{"message_bits": bits, "bits_per_second": 10.0 * bits} for _, bits, *_ in talking]
    points = [point(w, r, f, on_front=True, **rate) for (w, _, r, f), rate in zip(talking, rates, strict=True)]
    told = facts(points, knee=8, knee_bits=4)
    page = pareto.page(told)
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert [row[:3] for row in rows] == [["| 8", "0", "0"], ["| 8", "4", "40"], ["| 16", "4", "40"]]
    assert [row[-1] for row in rows] == ["front |", "knee |", "front |"] and "**Knee: width 8, 4 bits**" in page
    words = [node.text for node in ElementTree.fromstring(figure(told)).iter(f"{SVG}text")]
    assert words.count("8 (0)") == words.count("8 (4)") == words.count("16 (4)") == 3


def test_students_differ_in_bits_where_messages_are_compared(tmp_path):
    host = get_host()
    updates = [f"env_args.key={TASK}"]
    sweep = pareto_runs.Sweep(host, "mpe", updates, [8], [1], tmp_path, [4, 0])
    assert [cell.label for cell in sweep.cells] == ["width-8-bits-0-seed-1", "width-8-bits-4-seed-1"]
    assert sweep.words(sweep.cells[1])[-1] == "message_bits=4" and "--message-bits 0 4 " in sweep.line
    silent = pareto_runs.Sweep(host, "mpe", updates, [8], [1], tmp_path)
    assert silent.cells[0].label == "width-8-seed-1" and "message" not in " ".join(silent.words(silent.cells[0]))


@pytest.mark.parametrize("command", ["pareto", "bundle record"])
def test_help_ends_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.split("example:\n")[1].strip().startswith(f"kd-marl {command} ")


REFUSED = {
    "pareto sets widths itself": ["widths=8"],
    "pareto sets seed itself": ["seed=3"],
    "pareto measures the students that its runs save": ["save_model=False"],
    "which must be agent=rnn: leave agent=attention_rnn out": ["agent=attention_rnn"],
    "one teacher serves all students": ["teacher=train"],
    "unknown key 'limit'": ["limit=lh"],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_would_spoil_the_sweep_is_refused_in_one_line(tmp_path, capsys, message):
    words = ["--env-config=mpe", "--to", str(tmp_path), "with", f"env_args.key={TASK}", *REFUSED[message]]
    assert main(["pareto", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[(["--widths", "0"], "width 0 is none"), (["--seeds", "-1"], "seed -1 is none")],
        *[(["--jobs", "0"], "--jobs is 0"), (["--message-bits", "4", "-1"], "message_bits -1 is none")],
    ],
)
def test_impossible_numbers_are_refused_in_one_line(tmp_path, capsys, options, message):
    assert main(["pareto", "--env-config=mpe", "--to", str(tmp_path), *options, "with", f"env_args.key={TASK}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_bits_that_numbers_do_not_fill_are_refused_before_students_are_trained(tmp_path, capsys):
    words = ["--env-config=mpe", "--to", str(tmp_path), "--message-bits", "0", "4", "6"]
    assert main(["pareto", *words, "with", f"env_args.key={TASK}", "message_number_bits=4"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--message-bits 6 is no multiple of message_number_bits=4" in line


def test_a_sweep_that_cannot_be_written_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    words = ["--env-config=mpe", "--to", str(tmp_path / "file"), "with", f"env_args.key={TASK}"]
    assert main(["pareto", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot write ")


@pytest.fixture
def started(monkeypatch, mains, tmp_path):
    """Runs go through the server that has imported torch already; the widths that were run are in the list."""
    monkeypatch.setenv("KD_ONBOARD_CACHE", str(tmp_path / "compiled"))
    widths = []

    def start(words, log):
        done = mains.run(*words)
        log.write((done.out + done.err).encode())
        widths.append(next(word for word in words if word.startswith("widths=")))
        return Ended(done.status)

    monkeypatch.setattr(pareto_runs, "_start", start)
    return widths


@pytest.mark.slow
def test_students_are_made_once_and_a_failure_keeps_the_others(tiny_teacher, tiny_buffer, tmp_path, capsys, started):
    tiny = [f"teacher={tiny_teacher}", f"expert_buffer={tiny_buffer}", f"env_args.key={TASK}", *TINY["kd_student"]]
    folder = tmp_path / "sweep"

    def sweep(*widths, budget):
        budget_file = tmp_path / "budget.yaml"
        budget_file.write_text(f"all: {{flops: {budget}}}")
        words = [*tiny, f"budget={budget_file}"]
        return main(["pareto", "--env-config=mpe", "--widths", *widths, "--to", str(folder), "with", *words])

    # 12 does not fit, and says so; 4 was made before it.
    assert sweep("12", "4", budget=1000) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: 1 of 2 students failed, the first: width-12-seed-1: error: agent 0")
    assert started == ["widths=4", "widths=12"] and not (folder / "pareto.svg").exists()
    assert sweep("4", "12", budget=10_000) == 0
    assert started == ["widths=4", "widths=12", "widths=12"], "4 is not made again"
    facts = json.loads((folder / "pareto.json").read_text())
    assert [p["width"] for p in facts["points"]] == [4, 12] and facts["task"] == TASK
    again = ["kd-marl", "pareto", "--env-config=mpe", "--widths", "4", "12", "--seeds", "1", "--to", "sweep", "with"]
    assert shlex.split(facts["command"])[: len(again) + 1] == [*again, f"teacher={tiny_teacher}"]
    summaries = [
        json.loads(path.read_text()) for path in sorted((folder / "runs").glob("sacred/kd_student/*/*/summary.json"))
    ]
    pairs = [(each["student"]["return_mean"], each["teacher"]["return_mean"]) for each in summaries]
    assert facts["teacher"]["score"] == pytest.approx(sum(taught for _, taught in pairs) / 2)
    assert [p["retention"] for p in facts["points"]] == pytest.approx([1 + (s - t) / abs(t) for s, t in pairs])
    profile = json.loads((folder / "bundles" / "width-12-seed-1" / "profile.json").read_text())
    assert facts["points"][1]["flops"] == sum(agent["flops_per_decision"] for agent in profile["agents"]) / 2
    # Nothing is left to do: nothing runs, and the bundles with their times stay.
    written = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert sweep("4", "12", budget=10_000) == 0
    assert len(started) == 3
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == written


def test_an_interrupted_sweep_leaves_no_process_behind(tmp_path, monkeypatch, capsys):
    source, begun = tmp_path / "src", tmp_path / "begun"
    source.mkdir()
    (source / "main.py").write_text(
        f"import os, pathlib, time\npathlib.Path({str(begun)!r}).write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )
    monkeypatch.setattr(pareto_runs, "MAIN", source / "main.py")

    def interrupted(seconds):
        time.sleep(seconds)
        if begun.is_file() and begun.read_text():
            raise KeyboardInterrupt

    monkeypatch.setattr(pareto_runs, "time", SimpleNamespace(sleep=interrupted, monotonic=time.monotonic))
    words = ["--env-config=mpe", "--to", str(tmp_path / "sweep"), "with", f"env_args.key={TASK}"]
    assert main(["pareto", *words]) == 130
    assert "the same command goes on with what is left" in capsys.readouterr().err
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)
