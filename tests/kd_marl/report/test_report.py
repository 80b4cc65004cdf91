"""`kd-marl report` on made-up runs: what is averaged, what tables and figures show, and what is said of the rest."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from kd_core.errors import UserError
from kd_marl import cli
from kd_marl.report import markdown, methods, tables
from kd_marl.report.scores import TaskScores
from kd_marl.runs import paper, search
from report_runs import OTHER_SHA, SHA, SPREAD, fill, grouped, put


def row(rows, *first):
    """The cells of the row that begins so, by the table's head."""
    head, body = rows
    (found,) = [cells for cells in body if tuple(cells[: len(first)]) == first]
    return dict(zip(head, found, strict=True))


# ---------------------------------------------------------------------------------------------- which runs are averaged
def test_runs_of_one_configuration_are_one_group_by_seed(tmp_path):
    for number, seed in enumerate((3, 1, 2)):
        put(tmp_path, number, seed=seed)
    found = grouped(tmp_path)
    (group,) = found.main.values()
    assert group.seeds == (1, 2, 3) and group.teacher == SHA and not found.left_out


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"settings": {"lr": 0.5}}, "1 run (seed 9) with other settings (lr 0.5, not 0.01)"),
        (
            {"settings": {"env_args": {"map_name": "3m", "episode_limit": 50}}},
            "1 run (seed 9) with other settings (env_args.episode_limit 50, not unset)",
        ),
        ({"sha": OTHER_SHA}, "1 run (seed 9) of another teacher (cdcdcdcdcdcd, the tables are about abababababab)"),
    ],
)
def test_a_run_that_differs_is_left_out_and_named(tmp_path, odd, reason):
    put(tmp_path, 1, seed=1, score=0.8)
    put(tmp_path, 2, seed=2, score=0.82)
    put(tmp_path, 3, seed=9, score=0.1, **odd)
    found = grouped(tmp_path)
    (group,) = found.main.values()
    assert group.seeds == (1, 2)
    assert found.left_out == [f"3m (SMAX), kd_student, LH, paper: {reason}"]
    assert [other.seeds for other in found.others] == [(9,)]


@pytest.mark.parametrize(
    "harmless",
    [{"log_interval": 5}, {"local_results_path": "elsewhere"}, {"a_later_switch": ""}, {"a_later_switch": False}],
)
def test_what_does_not_change_a_result_does_not_split_a_group(tmp_path, harmless):
    put(tmp_path, 1, seed=1)
    put(tmp_path, 2, seed=2, settings=harmless)
    (group,) = grouped(tmp_path).main.values()
    assert group.seeds == (1, 2)


def test_of_two_runs_with_one_seed_the_newer_counts(tmp_path):
    put(tmp_path, 1, seed=1, score=0.5, start="2026-02-02T00:00:00")
    put(tmp_path, 2, seed=1, score=0.9, start="2026-01-01T00:00:00")
    found = grouped(tmp_path)
    (group,) = found.main.values()
    assert [run.policy["win_rate"] for run in group.runs] == [0.5]
    assert found.left_out == [
        "3m (SMAX), kd_student, LH, paper: 1 run (seed 1) with a seed that a newer run of the same settings has"
    ]


def test_environments_limits_and_masks_are_never_mixed(tmp_path):
    put(tmp_path, 1)
    put(tmp_path, 2, limits="lha")
    put(tmp_path, 3, preset="random")
    put(tmp_path, 4, settings={"masks": "0: [E]"})
    put(tmp_path, 5, settings={"env": "sc2"})
    put(tmp_path, 6, limits="fo", settings={"masks_preset": "random"})
    found = grouped(tmp_path)
    assert len(found.main) == 6 and all(len(group.runs) == 1 for group in found.main.values())
    assert {(cell.task[0], cell.limits, cell.sight) for cell in found.main} == {
        *(("smax", "lh", "paper"), ("smax", "lha", "paper"), ("smax", "lh", "random"), ("smax", "lh", "own")),
        *(("sc2", "lh", "paper"), ("smax", "fo", "")),
    }


# ------------------------------------------------------------------------------------------------ what is found on disk
def test_every_run_without_a_result_is_told_in_one_line(tmp_path):
    put(tmp_path, 1)
    for number, (status, name) in enumerate((("RUNNING", "kd_student"), ("FAILED", "mappo"), ("COMPLETED", "qmix")), 2):
        folder = put(tmp_path, number, name)
        (folder / "summary.json").unlink()
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**record, "status": status}))
    put(tmp_path, 5, "kd_export").joinpath("summary.json").unlink()
    put(tmp_path, 6, settings={"evaluate": True})
    # The same folder twice, once below the other.
    found = search.find([tmp_path, tmp_path / "sacred"])
    assert len(found.runs) == 1
    lines = sorted(line.removeprefix(f"{tmp_path}/sacred/") for line in found.passed_over)
    assert lines == [
        "kd_student/3m/2: kd_student has no result, its status is running",
        "kd_student/3m/6: kd_student evaluated again what another run had trained: that run counts",
        "mappo/3m/3: mappo has no result, its status is failed",
        "qmix/3m/4: qmix finished without an evaluation: run it with final_evaluation=True",
    ]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("summary.json", '{"task": "3m"', "summary.json is damaged: no JSON at line 1"),
        ("summary.json", '{"task": "3m"}', "summary.json is no such summary: 'policy' is a required property"),
        ("config.json", "[1]", "config.json is damaged: expected a JSON object"),
        ("metrics.json", '{"test_return_mean": [1]}', "metrics.json is damaged: no Sacred metrics"),
        ("actions.safetensors", "not tensors", "actions.safetensors is damaged"),
        ("stress.json", "{}", "stress.json is no such stress: "),
    ],
)
def test_a_broken_file_costs_its_run_and_one_line(tmp_path, file, content, said):
    put(tmp_path, 1, seed=1)
    (put(tmp_path, 2, seed=2) / file).write_text(content)
    assert said in left_out(tmp_path)


def left_out(results):
    """The one line that says why the second run does not count, where the first one does."""
    found = search.find([results])
    assert [run.seed for run in found.runs] == [1]
    (line,) = found.passed_over
    assert str(results / "sacred" / "kd_student" / "3m" / "2") in line and "\n" not in line
    return line


@pytest.mark.parametrize(
    ("file", "given", "said"),
    [
        ("config.json", {"env_args": None}, "env_args: None is not of type 'object'"),
        ("summary.json", {"limits": "some"}, "limits: 'some' is not one of"),
        ("summary.json", {"flops_ratio": "many"}, "flops_ratio: 'many' is not of type 'number'"),
        ("summary.json", {"sees": [{"agent": "agent_0", "blocks": {}, "observed": 12}]}, "sees[0]"),
        ("summary.json", {"student": {"return_mean": 1.0, "win_rate": 1.5}}, "student.win_rate: 1.5 is greater than"),
        ("summary.json", {"agreement_per_agent": [0.5]}, "numbers of agents differ: widths 3, inputs 3, sees 3"),
        ("metrics.json", {"test_return_mean": {"steps": [1, 2], "values": [1]}}, "has 2 steps and 1 values"),
        ("metrics.json", {"test_return_mean": {"steps": [], "values": []}}, "has 0 steps and 0 values"),
    ],
)
def test_nonsense_in_a_run_costs_its_run_and_one_line(tmp_path, file, given, said):
    put(tmp_path, 1, seed=1)
    broken = put(tmp_path, 2, seed=2) / file
    broken.write_text(json.dumps({**json.loads(broken.read_text()), **given}))
    assert said in left_out(tmp_path)


@pytest.mark.parametrize(
    ("policies", "shape", "said"),
    [
        (("teacher", "random"), (6, 3, 8), "it has no student"),
        (("teacher", "student", "random"), (6, 2, 8), "teacher is (6, 2, 8), not (steps, 3, 8)"),
        (("teacher", "student", "random"), (6, 8), "teacher is (6, 8), not (steps, 3, 8)"),
    ],
)
def test_counts_of_something_else_cost_their_run_and_one_line(tmp_path, policies, shape, said):
    put(tmp_path, 1, seed=1)
    broken = put(tmp_path, 2, seed=2)
    counted = {policy: np.ones(shape, np.int32) for policy in policies}
    safetensors.numpy.save_file(counted, broken / "actions.safetensors")
    assert said in left_out(tmp_path)


def test_a_stress_test_without_rows_costs_its_run_and_one_line(tmp_path):
    put(tmp_path, 1, seed=1)
    facts = {"format": "kd-marl/stress", "version": 1, "measures": "win rate", "episodes": 5, "rows": []}
    (put(tmp_path, 2, seed=2) / "stress.json").write_text(json.dumps(facts))
    assert "stress.json is no such stress: rows: [] should be non-empty" in left_out(tmp_path)


def test_tasks_are_grouped_by_what_they_are_of():
    named = {
        ("smax", "3m"): ("StarCraft maps", "3m (SMAX)"),
        ("sc2v2", "10gen_terran"): ("StarCraft maps", "10gen_terran (SMACv2)"),
        ("gymma", SPREAD): ("particles", "simple_spread (MPE)"),
        ("gymma", "lbforaging:Foraging-8x8-2p-3f-v3"): ("other tasks", "lbforaging:Foraging-8x8-2p-3f-v3 (gymma)"),
    }
    assert {task: (methods.family(task), methods.task_title(task)) for task in named} == named
    assert methods.file_name("sight", "lbforaging:Foraging-8x8 2p/v3", "", "gymma") == (
        "sight-lbforaging-Foraging-8x8-2p-v3-gymma"
    )


def test_a_task_of_another_kind_has_tables_and_figures_of_its_own(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    put(tmp_path / "results", 1, task="lbforaging:Foraging-8x8-2p-3f-v3", env="gymma", score=0.4, teacher=0.5)
    assert cli.main(["report", str(tmp_path / "results"), "--to", str(tmp_path / "to")]) == 0
    text = (tmp_path / "to" / "report.md").read_text()
    assert "| other tasks, LH, paper" in text and "StarCraft maps, LH" not in text
    assert "### lbforaging:Foraging-8x8-2p-3f-v3 (gymma)" in text.split("## Tasks that the paper has not")[1]
    names = {file.name for file in (tmp_path / "to").iterdir()}
    assert {"curves-others.svg", "sight-lbforaging-Foraging-8x8-2p-3f-v3-gymma.svg"} <= names
    assert not any(":" in name for name in names)


@pytest.mark.parametrize("masks", ["0: [L]", {"0": ["L"], "1": ["V"]}])
def test_masks_of_ones_own_count_however_they_were_written(tmp_path, masks):
    put(tmp_path, 1, settings={"masks": masks})
    (run,) = search.find([tmp_path]).runs
    assert run.sight == "own"


def test_tables_say_who_is_told_its_own_last_action(tmp_path):
    for number, method in enumerate(("kd_student", "qmix", "vdn"), 1):
        put(tmp_path, number, method, settings={"own_action": method != "vdn"})
    put(tmp_path, 4, "mappo", limits="fo")
    task = ("smax", "3m")
    assert tables.own_actions(grouped(tmp_path), task) == (
        "Under a mask, agents are also told their own last action, but for VDN LH, paper."
    )
    put(tmp_path, 5, "vdn", seed=2, settings={"own_action": True})
    put(tmp_path, 6, "vdn", seed=3, settings={"own_action": True})
    assert tables.own_actions(grouped(tmp_path), task) == "Under a mask, agents are also told their own last action."
    assert tables.own_actions(grouped(tmp_path / "sacred" / "mappo"), task) == ""


def test_without_runs_there_is_one_line(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no run in .*empty: expected Sacred folders such as results/sacred/"):
        search.find([tmp_path / "empty"])
    assert cli.main(["report", str(tmp_path / "none"), "--to", str(tmp_path / "to")]) == 2
    assert capsys.readouterr().err.strip().endswith("is no folder: give a results folder, for example results")
    put(tmp_path, 1).joinpath("summary.json").unlink()
    assert cli.main(["report", str(tmp_path), "--to", str(tmp_path / "to")]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: no finished run among 1 in ")
    assert not (tmp_path / "to").exists()


# ----------------------------------------------------------------------------------------------------------- the paper
def test_the_papers_numbers_agree_with_what_its_text_says_of_them():
    numbers = paper.numbers()
    for table in ("table_1", "table_2"):
        for rows in numbers[table].values():
            assert [list(limits) for limits in rows.values()] == [["fo", "lh", "lha"]] * 3 + [["lh", "lha"]]
    # Section IV.C: "3.34% drop" on 3m, 94.8 % on 5m_vs_6m, 12.09 points on 8m, +10.16 and +19.95 points on 3s5z.
    wins = {task: numbers["table_1"][task] for task in numbers["table_1"]}
    assert wins["3m"]["mappo"]["fo"]["win_rate"] - wins["3m"]["kd_student"]["lh"]["win_rate"] == pytest.approx(3.34)
    assert paper.retention_of("5m_vs_6m", "kd_student", "lh") == pytest.approx(0.948, abs=5e-4)
    assert wins["8m"]["mappo"]["fo"]["win_rate"] - wins["8m"]["mappo"]["lh"]["win_rate"] == pytest.approx(12.09)
    ours = wins["3s5z"]["kd_student"]["lh"]["win_rate"]
    assert [ours - wins["3s5z"][m]["lh"]["win_rate"] for m in ("qmix", "vdn")] == pytest.approx([10.16, 19.95])
    ratios = [numbers["flops_ratio"][task][0] for task in numbers["table_2"]]
    assert sum(ratios) / 3 == pytest.approx(28.6, abs=0.05)
    assert numbers["table_3"]["rows"]["kd_student"]["win_rate"] == wins["3s5z"]["kd_student"]["lha"]["win_rate"]


# ---------------------------------------------------------------------------------------------------------- the tables
def test_table_1_has_the_papers_numbers_beside_ours(tmp_path):
    for seed, score in ((1, 0.80), (2, 0.84), (3, 0.85)):
        put(tmp_path, seed, seed=seed, score=score, teacher=0.9)
        put(tmp_path, seed, "mappo", seed=seed, score=score / 2)
    rows = tables.scores_table(grouped(tmp_path), ("smax", "3m"))
    ours = row(rows, "KD-MARL", "LH, paper")
    assert ours["win rate, paper"] == "94.78 %" and ours["retention, paper"] == f"{100 * 94.78 / 98.12:.1f} %"
    assert ours["win rate, ours"] == f"{100 * (0.80 + 0.84 + 0.85) / 3:.1f} % [80.0, 85.0]"
    assert ours["retention, ours"] == f"{100 * 2.49 / 3 / 0.9:.1f} % [{100 * 0.8 / 0.9:.1f}, {100 * 0.85 / 0.9:.1f}]"
    assert (ours["return, paper"], ours["step, paper (ms)"]) == ("18.6 ± 0.4", "5.5 ± 0.3")
    assert (ours["FLOPs per decision"], ours["seeds x episodes"]) == ("16k", "3 x 200")
    assert ours["steps of training"] == "1k"
    assert row(rows, "random play")["win rate, ours"] == "0.0 % [0.0, 0.0]"
    teacher = row(rows, "teacher (MAPPO)", "FO")
    assert (teacher["win rate, paper"], teacher["win rate, ours"]) == ("98.12 %", "90.0 % [90.0, 90.0]")
    # A baseline is held against the students' teacher.
    assert row(rows, "MAPPO", "LH, paper")["retention, ours"].startswith(f"{100 * 2.49 / 6 / 0.9:.1f} %")
    for method, limits in (("VDN", "FO"), ("QMIX", "LH+A, paper"), ("KD-MARL", "LH+A, paper")):
        missing = row(rows, method, limits)
        assert (missing["win rate, ours"], missing["seeds x episodes"]) == ("not run", "not run")
        assert missing["win rate, paper"].endswith(" %")


def test_table_2_knows_no_win_rates_and_keeps_the_masks_apart(tmp_path):
    put(tmp_path, 1, task=SPREAD, env="gymma", score=-50.0, teacher=-40.0)
    put(tmp_path, 2, task=SPREAD, env="gymma", score=-42.0, teacher=-40.0, preset="random")
    rows = tables.scores_table(grouped(tmp_path), ("gymma", SPREAD))
    assert "win rate, ours" not in rows[0]
    fixed, drawn = row(rows, "KD-MARL", "LH, paper"), row(rows, "KD-MARL", "LH, random")
    assert (fixed["return, ours"], fixed["retention, ours"]) == ("-50.00", "75.0 %")
    assert (drawn["return, ours"], drawn["retention, ours"]) == ("-42.00", "95.0 %")
    # Random play returns -90.
    assert (fixed["retention over random, ours"], drawn["retention over random, ours"]) == ("80.0 %", "96.0 %")
    assert row(rows, "random play")["return, ours"] == "-90.00"
    assert fixed["retention, paper"] == drawn["retention, paper"] == f"{100 * (1 - 2.5 / 46):.1f} %"


def test_table_3_has_the_papers_numbers_on_its_own_map_alone(tmp_path):
    fill(tmp_path)
    found = grouped(tmp_path)
    there = tables.comparators_table(found, ("smax", "3s5z"), "lha", "paper")
    ctds = row(there, "CTDS (arXiv 2203.08412)")
    assert (ctds["win rate, paper"], ctds["FLOPs per episode, paper"]) == ("46.08 %", "11.3M")
    assert ctds["win rate, ours"] == "71.5 % [71.0, 72.0]" and ctds["FLOPs per episode, ours"] == "1.2M"
    assert row(there, "KD-MARL (arXiv 2604.06691)")["FLOPs per episode, paper"] == "13M ± 300k"
    assert row(there, "offline MARL distillation (Tseng et al., NeurIPS 2022)")["win rate, ours"] == "not run"
    elsewhere = tables.comparators_table(found, ("smax", "3m"), "lha", "paper")
    assert {cells[2] for cells in elsewhere[1]} == {"-"}


def test_a_teacher_that_a_suite_trained_is_found_wherever_its_results_lie(tmp_path):
    results = tmp_path / "suites" / "mine"
    teacher = results / "models" / "kd_teacher_seed1" / "400"
    named = {"path": str(teacher), "sha256": {"agent.th": SHA}}
    put(results, 1, settings={"local_results_path": str(results)}, summary={"teacher_artifact": named})
    teacher.mkdir(parents=True)
    (teacher / "teacher.json").write_text(json.dumps({"steps": 400, "sha256": {"agent.th": SHA}}))
    shutil.move(tmp_path / "suites", tmp_path / "moved")
    found = grouped(tmp_path / "moved" / "mine")
    (task,) = found.tasks
    assert TaskScores.of(found, task).teacher_facts["steps"] == 400


def test_each_removed_term_has_a_row(tmp_path):
    fill(tmp_path)
    rows = tables.ablation_table(grouped(tmp_path), ("smax", "3m"), "lh", "paper")
    assert row(rows, "KD-MARL without KL")["agreement with the teacher"] == "85.0 % [85.0, 85.0]"
    assert row(rows, "KD-MARL without PPO")["win rate"] == "not run"
    assert tables.places_of(grouped(tmp_path), ("ctds",)) == [
        (("smax", "3m"), "lha", "paper"),
        (("smax", "3s5z"), "lha", "paper"),
    ]


def test_markdown_tables_hold_any_text():
    text = markdown.table(("a", "b"), [["x|y", "1"]])
    assert text.splitlines() == ["| a    | b |", "|------|---|", "| x\\|y | 1 |"]
    assert [markdown.short(n) for n in (7, 14_730, 3_040_000, 4.17e8)] == ["7", "14.7k", "3.04M", "417M"]
