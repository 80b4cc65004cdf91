"""The pages for readers: which there are, their marked blocks, and what runs a page's commands at tiny sizes.

On the line before a code block stands a comment: ``<!-- run -->`` runs it, ``<!-- run slow -->`` leaves it to the slow
tests, ``<!-- file: NAME -->`` writes it to a file for the commands that need it.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from kd_marl import cli
from kd_marl.pareto import sweep
from main_server import Ended, Finished, MainServer
from stage_fixtures import TINY

ROOT = Path(__file__).resolve().parents[2]
# Sizes of a stock algorithm's run.
STOCK = ["t_max=100", "test_nepisode=1", "use_cuda=False"]
STOCK_ALGORITHMS = ("mappo", "ippo", "iql", "vdn", "qmix")
# Notes that nobody edits, and what programs write.
NOT_EDITED = ("experiments", "records", "report")


@dataclass(frozen=True)
class Block:
    """A marked block: ``run``, ``run slow`` or ``file: NAME``; its language, "" for commands; its text."""

    mark: str
    language: str
    text: str


def pages() -> list[Path]:
    """The Markdown files that people write and readers read."""
    docs = sorted((ROOT / "docs").rglob("*.md"))
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md"] + [
        path for path in docs if path.relative_to(ROOT / "docs").parts[0] not in NOT_EDITED
    ]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[Block]:
    """A page's marked blocks, in order."""
    found = re.findall(r"^<!-- (run|run slow|file: \S+) -->\n```(\w*)\n(.*?)^```$", path.read_text(), re.M | re.S)
    return [Block(*match) for match in found]


class Follower:
    """Does what a page says, in its order, in a folder of its own, at sizes that take seconds.

    Attributes:
        runs: how each run of ``src/main.py`` ended.
        commands: the first words of what was run.
    """

    def __init__(self, mains: MainServer, folder: Path, patch: pytest.MonkeyPatch, env: dict[str, str] | None = None):
        self.mains, self.folder, self.env = mains, folder, env
        self.here = f"import os; os.chdir({str(folder)!r})"
        self.runs: list[Finished] = []
        self.commands: list[str] = []
        patch.chdir(folder)
        patch.setenv("KD_ONBOARD_CACHE", str(folder / "compiled"))
        patch.setenv("KD_ONBOARD_STATE", str(folder / "state"))
        patch.setattr(sweep, "_start", self._start)

    def follow(self, page: Path, slow: bool) -> None:
        """Write the page's files, then run its marked blocks; those marked slow only if ``slow``."""
        files = [block for block in blocks(page) if block.mark.startswith("file: ")]
        for block in files:
            (self.folder / block.mark.removeprefix("file: ")).write_text(block.text)
        for block in blocks(page):
            if block not in files and (slow or block.mark == "run"):
                if block.language == "python":
                    exec(block.text, {})
                else:
                    for line in block.text.splitlines():
                        self.run(line)

    def run(self, line: str) -> None:
        program, *words = shlex.split(line)
        if program == "python":
            assert words.pop(0) == "src/main.py", line
            self._main(words)
        elif program == "kd-marl":
            self._side_command(words)
        else:
            done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            print(done.stdout)
        self.commands.append(" ".join([program, *words[:1]]))

    def _main(self, words: list[str]) -> None:
        algorithm = words[0].removeprefix("--config=")
        tiny = STOCK if algorithm in STOCK_ALGORITHMS else TINY.get(algorithm, TINY["kd_student"])
        if "--env-config=smax" in words:
            if importlib.util.find_spec("jaxmarl") is None:
                return
            tiny = [*tiny, "runner=vector"]
        seed = [] if any(word.startswith("seed=") for word in words) else ["seed=1"]
        results = [] if "local_results_path=" in " ".join(words) else [f"local_results_path={self.folder / 'results'}"]
        updates = [*tiny, *seed, *results]
        self.runs.append(self.mains.run(*words, *updates, env=self.env, before=self.here).check())

    def _side_command(self, words: list[str]) -> None:
        if words[0] == "pareto":
            at = words.index("--widths")
            words[at + 1 : words.index("--to")] = ["4", "8", "--seeds", "1"]
            words += TINY["kd_student"]
        if words[:2] == ["teachers", "train"]:
            if importlib.util.find_spec("jaxmarl") is None:
                return
            words += [*TINY["kd_teacher"], f"--to={self.folder / 'trained'}"]
        assert cli.main(words) == 0, words

    def _start(self, words, log) -> Ended:
        """In place of the process that ``kd-marl pareto`` starts for a run."""
        done = self.mains.run(*words, before=self.here)
        log.write((done.out + done.err).encode())
        return Ended(done.status)
