"""The table shows what summary.json says, in the right column, and nothing that was not measured."""

import json

import pytest

from kd_marl.evaluation.table import result_table, result_text


@pytest.fixture
def summary():
    # Recognisable numbers: the teacher's begin with 1, the student's with 2, random's with 3.
    return {
        "task": "pz-mpe-simple-spread-v3",
        "limits": "lh",
        "seed": 7,
        "episodes": 200,
        "teacher": {"return_mean": -11.125, "return_std": 1.5, "win_rate": None},
        "student": {"return_mean": -22.25, "return_std": 2.5, "win_rate": None},
        "random": {"return_mean": -33.5, "return_std": 3.5, "win_rate": None},
        "retention": 0.876,
        "retention_normalised": 0.543,
        "params_teacher": 1_401_605,
        "params_student": 20_301,
        "flops_per_decision_teacher": 1_802_000.0,
        "flops_per_decision_student": 28_160.5,
        "flops_ratio": 63.99,
        "flops_per_episode_teacher": 135_150_000.0,
        "flops_per_episode_student": 2_112_037.5,
        "agreement": 0.912,
    }


def cells(text, label):
    """The teacher's, student's and random's cell of the row with this label."""
    row = next(line for line in text.splitlines() if line.strip().startswith(label + "  "))
    return [cell.strip() for cell in row.strip()[len(label) :].split("  ") if cell.strip()]


def test_every_measure_stands_in_its_column(summary):
    text = result_text(summary)
    assert cells(text, "return") == ["-11.12 ± 1.50", "-22.25 ± 2.50", "-33.50 ± 3.50"]
    assert cells(text, "retention") == ["-", "87.6 %", "-"]
    assert cells(text, "retention over random") == ["-", "54.3 %", "-"]
    assert cells(text, "parameters of an agent") == ["1,401,605", "20,301", "-"]
    assert cells(text, "FLOPs per decision") == ["1,802,000", "28,160.5", "-"]
    assert cells(text, "FLOPs per episode") == ["135,150,000", "2,112,037.5", "-"]
    assert cells(text, "FLOPs, times fewer") == ["-", "64.0x", "-"]


def test_the_heading_says_what_was_run_and_the_caption_how_often_they_agree(summary):
    text = result_text(summary)
    assert "pz-mpe-simple-spread-v3   limits lh   seed 7   200 episodes each" in text
    assert "the student chooses the teacher's action in 91.2 % of decisions" in text


def test_rows_that_nobody_measured_are_left_out(summary):
    text = result_text(summary)
    for label in ("win rate", "sampled", "microseconds"):
        assert label not in text


def test_sampled_returns_win_rates_and_times_appear_when_measured(summary):
    for name, first in (("teacher", 0.1), ("student", 0.2), ("random", 0.3)):
        summary[name]["win_rate"] = first
    summary["student"]["sampled"] = {"return_mean": -24.0, "return_std": 2.75, "win_rate": 0.25}
    summary["decision_us_teacher"], summary["decision_us_student"] = 187.25, 24
    text = result_text(summary)
    assert cells(text, "win rate") == ["10.0 %", "20.0 %", "30.0 %"]
    assert cells(text, "return, actions sampled") == ["-", "-24.00 ± 2.75", "-"]
    assert cells(text, "win rate, actions sampled") == ["-", "25.0 %", "-"]
    assert cells(text, "microseconds, joint decision") == ["187.2", "24", "-"]


def test_an_undefined_retention_has_no_row_and_a_reason(summary):
    summary["retention"] = summary["retention_normalised"] = None
    (line,) = (line for line in result_text(summary).splitlines() if "retention" in line)
    assert line == "no retention over random: the teacher is no better than random play"


def test_the_table_survives_json(summary):
    assert result_text(json.loads(json.dumps(summary))) == result_text(summary)


def test_plain_text_has_no_escape_codes_and_fits(summary):
    text = result_text(summary)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert [column.header for column in result_table(summary).columns] == ["", "teacher", "student", "random"]
