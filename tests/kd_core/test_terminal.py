"""Output never ends a program, whatever the terminal can show."""

import os
import subprocess
import sys

import pytest

from kd_core import terminal


def test_what_ascii_lacks_is_written_plainly():
    assert terminal.plain("a ─│┼ 1.0 ± 0.2 → süd 漢 █") == "a -|+ 1.0 +/- 0.2 -> sud ? #"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_stream_of_any_encoding_takes_every_character(encoding):
    code = "import sys; from kd_core.terminal import adapt; adapt()\n"
    code += "print('─ ± süd', chr(0xDC80)); print('±', file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": "src"},
        check=True,
    )
    # The file that captures a run's output is read as UTF-8.
    out = done.stdout.decode("utf-8")
    assert out == ("─ ± süd \\udc80\n" if encoding == "utf-8" else "- +/- sud ?\n")
    assert done.stderr.decode("utf-8") in ("±\n", "+/-\n")


def test_the_table_of_masks_is_printed_to_a_latin_1_pipe(root):
    words = [
        sys.executable,
        "-m",
        "kd_marl.cli",
        "masks",
        "--env-config",
        "smax",
        "--n-agents",
        "3",
        "--n-enemies",
        "3",
    ]
    done = subprocess.run(
        words,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(root / "src")},
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and b"3" in done.stdout
