"""docs/onboard.md: every command of the page runs, in its order, from a student to a compiled program."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess

import pytest

from kd_core.costs.boards import board_names, read_board
from kd_marl.cli import main
from kd_marl.pareto import sweep as pareto_runs
from main_server import Ended
from stage_fixtures import TINY


@pytest.fixture(scope="module")
def page(root) -> str:
    return (root / "docs" / "onboard.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The page's code blocks in a language, in order; no language: commands."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [text for named, text in found if named == language]


def only(found):
    (block,) = found
    return block


@pytest.fixture
def place(page, tmp_path, monkeypatch):
    """A folder with the page's files, in which its commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KD_ONBOARD_CACHE", str(tmp_path / "compiled"))
    (tmp_path / "budget.yaml").write_text(only(blocks(page, "yaml")))
    (tmp_path / "replay.c").write_text(only(blocks(page, "c")))
    return tmp_path


# What makes each run of the page a matter of seconds.
SMALL = [*TINY["kd_student"], "seed=1"]


def test_the_page_leads_from_a_student_to_a_compiled_program(page, place, mains, capsys, monkeypatch):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    here = f"import os; os.chdir({str(place)!r})"

    def start(words, log):
        done = mains.run(*words, before=here)
        log.write((done.out + done.err).encode())
        return Ended(done.status)

    monkeypatch.setattr(pareto_runs, "_start", start)
    done = []
    for line in "".join(blocks(page, "")).splitlines():
        program, *words = shlex.split(line)
        if program == "python":
            assert words.pop(0) == "src/main.py"
            summary = mains.run(*words, *SMALL, f"local_results_path={place / 'results'}", before=here).check().summary
        elif program == "kd-marl":
            if words[0] == "pareto":
                at = words.index("--widths")
                words[at + 1 : words.index("--to")] = ["4", "8", "--seeds", "1"]
                words += [*TINY["kd_student"], f"expert_buffer={only((place / 'results' / 'buffers').glob('*/*'))}"]
            assert main(words) == 0, line
        else:
            ran = subprocess.run([program, *words], capture_output=True, text=True, check=False)
            assert ran.returncode == 0, ran.stderr
            assert ran.stdout in ("", "25 of 25 actions agree\n")
        done.append(program + (f" {words[0]}" if program == "kd-marl" else ""))
    bundle = [f"kd-marl {word}" for word in ("bundle", "run", "bundle", "pareto")]
    assert done == ["python", "kd-marl export", *bundle[:1] * 5, "cc", "./replay", *bundle[1:]]
    out = capsys.readouterr().out
    assert "within its own budget" in out and "genuine: signed by" in out and "25 steps of agent 0" in out
    agents = json.loads((place / "bundle" / "profile.json").read_text())["agents"]
    assert [agent["budget"]["board"] for agent in agents] == ["crazyflie", "crazyflie", "nrf52840"]
    assert [agent["width"] for agent in agents] == summary["widths"] and agents[2]["width"] < agents[0]["width"]
    assert {"pareto.svg", "pareto.md", "pareto.json"} <= {path.name for path in (place / "pareto").iterdir()}
    ran = {}
    exec(only(blocks(page, "python")), ran)
    assert capsys.readouterr().out.strip() == agents[2]["actions"][ran["action"]]


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


def test_the_links_of_the_page_lead_somewhere(page, root):
    for target in re.findall(r"\]\(([^)]+)\)", page):
        path, _, anchor = target.partition("#")
        text = (root / "docs" / path).read_text() if path.endswith(".md") else page
        assert (root / "docs" / path).exists()
        if anchor:
            headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


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
