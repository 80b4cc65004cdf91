"""Omniboard as a user opens it, ``make omniboard``, looked at with a Chromium that nobody sees.

The figure of the docs is made with it: ``python tests/helpers/omniboard_page.py RESULTS docs/figures/omniboard.png``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ROOT / "build" / "omniboard" / ".installed"
PATIENCE_S = 120.0
OFFLINE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")


def missing() -> str:
    """What this machine lacks to look at Omniboard; empty if nothing. Installs Omniboard where npm can."""
    for program, remedy in (("chromium", "make browsers"), ("node", "make node"), ("npm", "make node")):
        if shutil.which(program) is None:
            return f"{program} is not installed: {remedy}"
    # Tests in several processes ask at once; npm in one folder twice at a time breaks both.
    INSTALLED.parent.parent.mkdir(parents=True, exist_ok=True)
    with open(INSTALLED.parent.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = subprocess.run(["make", "-C", ROOT, INSTALLED.relative_to(ROOT)], capture_output=True, text=True)
    if made.returncode and any(sign in made.stderr for sign in OFFLINE):
        return "npm cannot reach its registry to install Omniboard"
    assert made.returncode == 0, made.stderr
    return ""


class Board:
    """A running Omniboard: its process, its address, and what the command has printed."""

    def __init__(self, results: Path, variables: Mapping[str, str]) -> None:
        # A real server that the tests may use is not for this.
        own = {key: value for key, value in os.environ.items() if key != "KD_MARL_MONGO_URL"}
        command = [sys.executable, str(ROOT / "tools" / "omniboard" / "start.py"), str(results), "--port", "0"]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**own, "PYTHONUNBUFFERED": "1", **variables},
        )
        self.said = ""
        assert self.process.stdout is not None
        timer = threading.Timer(PATIENCE_S, self.process.kill)
        timer.start()
        for line in self.process.stdout:
            self.said += line
            if found := re.match(r"Omniboard is at (\S+)", line):
                self.url = found[1]
                break
        timer.cancel()
        assert hasattr(self, "url"), self.said

    def interrupt(self) -> int:
        """End it as Ctrl-C does; the exit status."""
        self.process.send_signal(signal.SIGINT)
        self.said += self.process.communicate(timeout=30)[0]
        return self.process.returncode


@contextlib.contextmanager
def board(results: Path, **variables: str) -> Iterator[Board]:
    """Open Omniboard on the runs of a folder, or on those of the server that a variable names."""
    opened = Board(results, variables)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()


@contextlib.contextmanager
def page(width: int = 1600, height: int = 900) -> Iterator[Any]:
    """A page of a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": width, "height": height})
        browser.close()


def visit(shown: Any, url: str) -> None:
    """Open the table of runs, as it is after the first visit."""
    shown.goto(url)
    shown.wait_for_function("localStorage.getItem('kd-marl|first visit')", timeout=PATIENCE_S * 1000)
    shown.wait_for_load_state("networkidle")
    shown.wait_for_selector("[test-attr=cell-row_expander-0]")


def rows(shown: Any) -> list[dict[str, str]]:
    """The table that is seen: a row's texts under the columns' names."""
    read = """table => {
        const left = cell => cell.getBoundingClientRect().left
        const [names, ...rows] = [...table.querySelectorAll('.public_fixedDataTableRow_main')]
            .map(row => [...row.querySelectorAll('[role=gridcell], [role=columnheader]')])
            .map(cells => cells.sort((one, other) => left(one) - left(other)).map(cell => cell.innerText.trim()))
        return rows.map(row => Object.fromEntries(row.map((text, i) => [names[i], text])))
    }"""
    return shown.locator(".public_fixedDataTable_main").first.evaluate(read)


def unfold(shown: Any, row: int) -> None:
    """Open a run's details below its row."""
    shown.click(f"[test-attr=cell-row_expander-{row}]")
    shown.wait_for_selector(".drilldown-view .js-plotly-plot")


def main() -> None:
    """Write the docs' figure of a results folder: the table, and the curves of its newest run."""
    results, figure = Path(sys.argv[1]), Path(sys.argv[2])
    if lacking := missing():
        sys.exit(lacking)
    with board(results) as opened, page(1500, 1060) as shown:
        visit(shown, opened.url)
        unfold(shown, 0)
        shown.wait_for_timeout(1000)
        shown.screenshot(path=figure)


if __name__ == "__main__":
    main()
