"""The page of `kd-marl report`: what it says, its figures, and the command that makes it."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import safetensors.numpy

pytest.importorskip("matplotlib", reason="the figures need the extra report")

from matplotlib.lines import Line2D

from kd_marl import cli
from kd_marl.report import (
    figure_actions,
    figure_bits,
    figure_costs,
    figure_curves,
    figure_masks,
    provenance,
    robustness,
    tables,
)
from kd_marl.report.drawing import Sheet
from report_runs import ACTIONS, AGENTS, NAMES, SHA, SPREAD, fill, grouped, put

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The folder of a report of something of everything."""
    folder = tmp_path_factory.mktemp("report")
    fill(folder / "results")
    assert cli.main(["report", str(folder / "results"), "--to", str(folder / "to")]) == 0
    return folder / "to"


def texts(svg):
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_the_page_is_well_formed_and_needs_nothing_else(report):
    page = (report / "report.html").read_text()
    tree = ElementTree.fromstring(page.split("\n", 1)[1])
    names = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(names) == len(set(names))
    for element in tree.iter():
        for key, value in element.attrib.items():
            if key.rpartition("}")[2] in ("href", "src"):
                assert value.startswith(("#", "data:image/png;base64,")), (element.tag, value)
                assert not value.startswith("#") or value[1:] in names
            for used in re.findall(r"url\(([^)]*)\)", value):
                assert used.startswith("#") and used[1:] in names
    assert not {"script", "link", "iframe", "img"} & {element.tag for element in tree.iter()}
    assert not re.findall(r"@import|url\(\s*['\"]?http", page)
    drawn = [element for element in tree.iter(f"{SVG}svg")]
    assert len(drawn) == len(list(report.glob("*.svg"))) and all(element.get("aria-label") for element in drawn)


def test_markdown_and_page_say_the_same(report):
    text, page = (report / "report.md").read_text(), (report / "report.html").read_text()
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert sorted(shown) == sorted(file.name for file in report.glob("*.svg"))
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    wanted = (
        "Overview",
        "Table I",
        "Table II",
        "Table III",
        "Figure 3",
        "Retention against FLOPs",
        "Learning curves",
        "Agreement",
    )
    for title in (*wanted, "Figure 4", "Who sees what", "Robustness", "What was run", "What was not run"):
        assert any(heading.startswith(title) for heading in headings), title
    assert page.count("<h2") == len(headings) and page.count("<table>") == len(re.findall(r"^\|--", text, re.MULTILINE))


def test_the_page_states_where_its_numbers_come_from(report):
    text = (report / "report.md").read_text()
    assert "`kd-marl report " in text and "--config=kd_student seed=1`" in text
    assert "A processor, Python 3.11.7, torch 2.13.0" in text and "0123456" in text and SHA[:12] in text
    section = text.split("## What was run", 1)[1].split("## What was not run")[0]
    assert re.search(r"\| 3m \(SMAX\) +\| kd_student +\| LH, paper +\| 32 +\| 1, 2 +\| 200 +\|", section)
    missing = text.split("## What was not run", 1)[1]
    assert "- 5m_vs_6m: nothing was run" in missing and "VDN LH" in missing


def test_runs_of_two_commits_and_machines_are_both_named(tmp_path):
    results = tmp_path / "results"
    put(results, 1, seed=1)
    put(results, 2, seed=3)
    later = put(results, 3, seed=2) / "run.json"
    record = json.loads(later.read_text())
    record["experiment"]["repositories"] = [{"commit": "fedcba9876", "dirty": True}]
    record["host"]["cpu"] = "Another processor"
    later.write_text(json.dumps(record))
    assert cli.main(["report", str(results), "--to", str(tmp_path / "to")]) == 0
    for name in ("report.md", "report.html"):
        head, _, rest = (tmp_path / "to" / name).read_text().partition("Overview")
        rest = rest.partition("What was run")[2]
        assert "0123456 (2 runs), fedcba9+ (1 run)" in (head + rest).replace("\n", " "), name
        assert "A processor, Python 3.11.7, torch 2.13.0 (2 runs); Another processor" in head + rest
        # The one row of the table of runs, and what it means.
        assert re.search(r"0123456, fedcba9\+", rest) and "its seeds were run at different ones" in rest


def test_figure_4_measures_each_seed_by_itself(tmp_path):
    for seed in (1, 2):
        folder = put(tmp_path / "results", seed, seed=seed)
        settled = np.zeros((8, AGENTS, ACTIONS), np.int64)
        settled[:, :, seed] = 5
        arrays = {"teacher": settled, "student": settled, "random": np.ones_like(settled)}
        safetensors.numpy.save_file(arrays, folder / "actions.safetensors")
    found = grouped(tmp_path / "results")
    words = texts(figure_actions.action_frequencies(found, ("smax", "3m"), "lh", "paper").svg)
    # Settled in each seed, though not on the same.
    assert words.count("0.00 bits a decision") == 2


def test_figure_4_keeps_agents_with_different_actions_apart(tmp_path):
    speaker = ["say_0", "say_1", *[None] * (ACTIONS - 2)]
    put(tmp_path / "results", 1, summary={"actions": [speaker, NAMES, NAMES]})
    found = grouped(tmp_path / "results")
    words = texts(figure_actions.action_frequencies(found, ("smax", "3m"), "lh", "paper").svg)
    assert {"agent 0: teacher", "agent 1, 2: teacher", "agent 1, 2: KD-MARL", "say_1", "target_2"} <= {*words}
    assert words.count("say_0") == words.count("north") == 2


def test_figure_3_names_every_method_and_how_many_times_fewer(report):
    words = texts((report / "flops-per-episode.svg").read_text())
    assert {"teacher", "KD-MARL, LH, paper", "MAPPO, LH, paper", "CTDS, LH+A, paper", "own_method, LH, paper"} <= {
        *words
    }
    assert "60M" in words and "1.2M, 50.0x fewer" in words and "1M, 60.0x fewer" in words
    assert {"FLOPs per episode (logarithmic)", "KD-MARL in the paper", "30.0x fewer", "3.3x to 11.7x fewer"} <= {*words}


def test_figure_4_is_a_heat_map_of_each_policy_with_its_number(report):
    svg = (report / "actions-3m-smax-lh-paper.svg").read_text()
    words = texts(svg)
    assert {"target_0", "north", "step of the episode", "share of the step's decisions, per cent"} <= {*words}
    titles = {"teacher", "MAPPO", "KD-MARL", "KD-MARL without KL", "own_method"}
    assert titles <= {*words} and len([word for word in words if word.endswith("bits a decision")]) == len(titles)
    # The maps and the colour bar.
    assert len(list(ElementTree.fromstring(svg).iter(f"{SVG}image"))) == len(titles) + 1
    section = (report / "report.md").read_text().split("## Figure 4", 1)[1]
    lines = [line for line in section.splitlines() if line.startswith("| random play")]
    # 25 of 100 decisions go to all eight actions alike (3 each), 75 more to one.
    share = [3 / 99] * (ACTIONS - 1) + [78 / 99]
    bits = -sum(p * math.log2(p) for p in share)
    assert f"| {bits:.2f} [{bits:.2f}, {bits:.2f}]" in lines[0]


def test_the_other_figures_have_titles_axes_and_units(report):
    for name, wanted in {
        "curves-battles": ("Learning curves: tests during training", "win rate, per cent", "environment steps"),
        "curves-particles": ("mean return", "environment steps", "simple_spread, LH", "random masks"),
        "retention": ("times fewer FLOPs", "retention, per cent", "random masks", "the paper"),
        "retention-flops": ("FLOPs per decision (logarithmic)", "retention of the win rate, per cent", "KD-MARL"),
        "agreement": ("agent", "agreement, per cent of decisions", "3s5z (SMAX)"),
        "sight-3m-smax": ("features of the observation", "8 of 12; width 32", "agent 0", "hidden", "E: enemies"),
    }.items():
        words = texts((report / f"{name}.svg").read_text())
        assert set(wanted) <= {*words}, (name, words)


def test_students_that_talk_are_drawn_and_listed_beside_the_silent_ones(tmp_path):
    number = 0
    for bits, score in ((0, -56.0), (8, -46.0), (16, -42.0)):
        for seed in (1, 2):
            number += 1
            sent = {"message_bits": bits, "bits_per_step": bits / 2, "bits_per_second": 5.0 * bits}
            given = {"settings": {"message_bits": bits}, "summary": sent, "score": score + seed / 10}
            put(tmp_path, number, method=f"talk_{bits}", task=SPREAD, env="gymma", seed=seed, **given)
    put(tmp_path, 90)  # a map where nobody talks
    groups = grouped(tmp_path)
    head, rows = figure_bits.bits_table(groups)
    assert head[2:4] == ["bits a step", "bits a second"]
    assert [row[1:4] for row in rows] == [["LH, paper", b, s] for b, s in (("0", "0"), ("4", "40"), ("8", "80"))]
    assert [row[4].split()[0] for row in rows] == ["60.4", "85.4", "95.4"]
    picture = figure_bits.retention_against_bits(groups)
    said = texts(picture.svg)
    assert {"simple_spread (MPE)", "bits a step (logarithmic)", "0", "4", "8", "LH, paper"} <= set(said)
    assert "3m (SMAX)" not in said
    talking, silent = (next(task for task in groups.tasks if (task[1] == SPREAD) is talks) for talks in (True, False))
    head, rows = tables.scores_table(groups, talking)
    sent = {row[0]: row[head.index("bits a second")] for row in rows}
    assert sorted(set(sent.values())) == ["-", "40", "80"] and sent["teacher (MAPPO)"] == "-"
    assert "bits a second" not in tables.scores_table(groups, silent)[0]


def test_a_report_without_talking_students_says_nothing_of_bits(report):
    assert "Retention against bits" not in (report / "report.md").read_text()


def test_agents_that_are_told_what_they_did_last_are_marked(tmp_path):
    put(tmp_path / "results", 1, settings={"own_action": True})
    put(tmp_path / "results", 2, limits="fo", settings={"own_action": True})
    put(tmp_path / "results", 3, limits="lha", settings={"own_action": False})
    found = grouped(tmp_path / "results")
    shown = texts(figure_masks.who_sees_what(found, ("smax", "3m")).svg)
    assert {"LH, paper + own last action", "LH+A, paper"} <= {*shown}
    section = "\n".join(provenance.section(found))
    limits = [line.split("|")[3].strip() for line in section.splitlines() if line.startswith("| 3m (SMAX)")]
    assert limits == ["FO", "LH, paper + own last action", "LH+A, paper"]


def test_masks_of_the_users_own_are_told_from_full_observation(tmp_path):
    put(tmp_path / "results", 1, limits="fo")
    put(tmp_path / "results", 2, limits="fo", settings={"masks": "0: [V]"})
    found = grouped(tmp_path / "results")
    section = "\n".join(provenance.section(found))
    limits = [line.split("|")[3].strip() for line in section.splitlines() if line.startswith("| 3m (SMAX)")]
    assert limits == ["FO", "FO, own"]
    assert "FO, own" in texts(figure_masks.who_sees_what(found, ("smax", "3m")).svg)


def test_curves_of_runs_that_were_gone_on_with_are_those_of_the_same_steps(tmp_path):
    tests = {"steps": list(range(0, 1000, 100)), "values": [step / 1000 for step in range(0, 1000, 100)]}
    for seed in (1, 2, 3):
        folder = put(tmp_path, seed, seed=seed)
        kept = {key: values[6 if seed == 2 else 0 :] for key, values in tests.items()}
        if seed == 3:
            # It went on after 700 steps, with a test at once.
            kept = {key: [*values[:8], values[7], *values[8:]] for key, values in kept.items()}
        (folder / "metrics.json").write_text(json.dumps({"test_battle_won_mean": kept}))
    found = grouped(tmp_path)
    steps, centre, low, high = figure_curves._curve(found, next(iter(found.main.values())))
    assert steps.tolist() == [600, 700, 800, 900]
    for line in (centre, low, high):
        assert line.tolist() == pytest.approx([0.6, 0.7, 0.8, 0.9])


def test_widths_of_a_baseline_are_its_own_or_not_told(tmp_path):
    wide = {"mac": "hetero_mac", "hidden_dim": 32}
    put(tmp_path / "results", 1, method="mappo", limits="lha", settings=wide, summary={"widths": [16, 24, 32]})
    put(tmp_path / "results", 2, method="qmix", limits="lha", settings=wide)
    put(tmp_path / "results", 3, method="vdn", limits="lh", settings={"hidden_dim": 32})
    put(tmp_path / "results", 4)
    section = "\n".join(provenance.section(grouped(tmp_path / "results")))
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| 3m (SMAX)")]
    widths = {row[2].strip(): row[4].strip() for row in rows}
    assert {name: widths[name] for name in ("mappo", "qmix", "vdn")} == {
        "mappo": "16, 24, 32",
        "qmix": "-",
        "vdn": "32",
    }


def test_the_same_runs_give_the_same_figure(report):
    again = figure_costs.flops_per_episode(grouped(report.parent / "results"))
    assert again.svg == (report / "flops-per-episode.svg").read_text()


def test_runs_that_lack_something_are_read_and_named(tmp_path):
    fill(tmp_path / "results", old=True)
    assert cli.main(["report", str(tmp_path / "results"), "--to", str(tmp_path / "to")]) == 0
    text = (tmp_path / "to" / "report.md").read_text()
    assert "Some runs did not measure it by agent: 3m (SMAX) kd_student FO" in text
    assert "Some runs did not count their actions: 3m (SMAX) mappo LH, paper; " in text
    assert "Some runs did not count their FLOPs: 3m (SMAX) mappo LH, paper." in text
    assert not list((tmp_path / "to").glob("actions-*")) and not list((tmp_path / "to").glob("sight-*"))
    assert (tmp_path / "to" / "flops-per-episode.svg").is_file()


def test_stress_tests_beside_the_runs_are_in_the_page(tmp_path):
    for seed, left in ((1, 0.5), (2, 0.7)):
        folder = put(tmp_path / "results", seed, seed=seed)
        stressed = {"name": "dropout 0.2", "teacher_mean": 0.8, "student_mean": left, "retention_teacher": 0.9}
        stressed |= {"retention_undisturbed": left / 0.9, "retention_disturbed": left / 0.8}
        facts = {"format": "kd-marl/stress", "version": 1, "commands": ["kd-marl stress x"], "episodes": 100 * seed}
        (folder / "stress.json").write_text(json.dumps({**facts, "measures": "win rate", "rows": [stressed]}))
    section = "\n".join(robustness.section(grouped(tmp_path / "results")))
    (line,) = [line for line in section.splitlines() if line.startswith("| dropout 0.2")]
    assert [cell.strip() for cell in line.strip("|").split("|")][1:3] == ["80.0 % [80.0, 80.0]", "60.0 % [50.0, 70.0]"]
    assert "for the first seed, 100 to 200 episodes of each policy and disturbance" in section


def test_without_its_extra_the_command_says_what_to_install(tmp_path):
    words = ["report", str(tmp_path), "--to", str(tmp_path / "to")]
    code = f"import sys; sys.modules['matplotlib'] = None; from kd_marl import cli; sys.exit(cli.main({words}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == (
        "error: this needs matplotlib, which is not installed: pip install -e '.[report]' in kd-marl's checkout\n"
    )


def test_the_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", "--help"])
    assert ended.value.code == 0 and "kd-marl report results --to report" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "columns"), [("short", 4), ("a method with a rather long name", 2), ("long " * 30, 1)]
)
def test_a_legend_has_as_many_columns_as_the_figure_is_wide_for(words, columns):
    with Sheet("legend", 1, 1, (3.7, 2.7)) as sheet:
        sheet.legend([Line2D([], [], label=f"{words} {number}") for number in range(8)])
        (legend,) = sheet.figure.legends
        sheet.figure.draw_without_rendering()
        across = {round(text.get_window_extent().x0) for text in legend.get_texts()}
        assert len(across) == columns
        assert columns == 1 or legend.get_window_extent().width <= sheet.figure.bbox.width
