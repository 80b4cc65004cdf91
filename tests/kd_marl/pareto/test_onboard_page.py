"""The tutorial from a student to a compiled program, and the guide to bundles: what they show is what happens."""

from __future__ import annotations

import json
import re
import shutil

import pytest

import pages
from kd_core.costs.boards import board_names, read_board
from kd_marl.cli import main


@pytest.fixture(scope="module")
def page(root) -> str:
    return (root / "docs" / "guides" / "onboard.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_tutorial_leads_from_a_student_to_a_compiled_program(root, page, mains, tmp_path, monkeypatch, capsys):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    follower = pages.Follower(mains, tmp_path, monkeypatch)
    follower.follow(root / "docs" / "tutorials" / "onto-a-board.md", slow=True)
    bundle = ["kd-marl bundle"] * 5
    assert follower.commands == [
        "python --config=kd_student",
        "kd-marl export",
        *bundle,
        "cc -std=c99",
        "./replay",
        "kd-marl run",
    ]
    out = capsys.readouterr().out
    assert "within its own budget" in out and "genuine: signed by" in out and "25 steps of agent 0" in out
    assert "25 of 25 actions agree" in out
    agents = json.loads((tmp_path / "board_bundle" / "profile.json").read_text())["agents"]
    assert [agent["budget"]["board"] for agent in agents] == ["crazyflie", "crazyflie", "nrf52840"]
    assert [agent["width"] for agent in agents] == follower.runs[0].summary["widths"]
    assert agents[2]["width"] < agents[0]["width"]
    code = re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1]
    ran = {}
    exec(code, ran)
    assert capsys.readouterr().out.strip() == agents[2]["actions"][ran["action"]]
    follower.commands.clear()
    follower.follow(root / "docs" / "guides" / "onboard.md", slow=True)
    assert follower.commands == ["kd-marl run", "kd-marl export"]
    out = capsys.readouterr().out
    assert "actions drawn with seed 7" in out and "files for cmake, written to board_library" in out
    assert (tmp_path / "board_library" / "CMakeLists.txt").is_file()


def test_the_page_s_table_of_boards_is_that_of_their_files(page):
    rows = {
        match[1]: [cell.strip() for cell in match[0].strip("|").split("|")]
        for match in re.finditer(r"^\| `(\w+)` .*\|$", page, re.MULTILINE)
        if match[1] in board_names()
    }
    assert set(rows) == set(board_names())
    units = {"KB": 2**10, "MB": 2**20, "MHz": 10**6, "GHz": 10**9}
    for name, (_, *cells) in rows.items():
        for key, cell in zip(("flash_bytes", "ram_bytes", "clock_hz"), cells, strict=True):
            number, unit = re.match(r"(\d+) (\w+)", cell).groups()
            assert read_board(name)[key] == int(number) * units[unit], f"{name}: {key}"


def test_every_key_of_a_budget_is_on_the_page(page):
    for key in ("board", "flash_bytes", "ram_bytes", "flops", "decision_us", "flops_per_second", "ram_share"):
        assert f"`{key}`" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--agent", "7"], "has no agent 7: choose one of 0 (speaker_0)"),
        (["--agent", "speaker"], "has no agent 'speaker'"),
        (["--agent", "0", "--episodes", "0"], "eval_episodes is 0"),
    ],
)
def test_a_recording_that_cannot_be_is_refused_in_one_line(tiny_bundle, tmp_path, capsys, words, message):
    task = json.loads((tiny_bundle / "profile.json").read_text())["task"]["name"]
    command = ["bundle", "record", str(tiny_bundle), "--env-config=mpe", "--to", str(tmp_path / "episode.h"), *words]
    assert main([*command, "with", f"env_args.key={task}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and not (tmp_path / "episode.h").exists()
