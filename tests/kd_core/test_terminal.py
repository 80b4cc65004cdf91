"""Output never ends a program, whatever the terminal can show."""

import os
import subprocess
import sys

import pytest

from kd_core import terminal
from stage_fixtures import TASK, words

PIPE_IN_ASCII = """
import sys
for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(encoding="ascii", errors="strict")
"""
# A library's own output beside Python's.
BYTES = """
import os, sys
sys.path.insert(0, "src")
from epymarl_lite.runners import episode_runner
run = episode_runner.EpisodeRunner.run
def noisy(self, test_mode=False):
    os.write(1, b"\\xff\\xfe said by a library\\n")
    return run(self, test_mode=test_mode)
episode_runner.EpisodeRunner.run = noisy
"""


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


@pytest.mark.slow
def test_a_student_shows_its_result_in_ascii_and_may_be_resumed(mains, tiny_teacher, tiny_buffer, tmp_path):
    found = [f"teacher={tiny_teacher}", f"expert_buffer={tiny_buffer}", "seed=1"]
    command = words("kd_student", tmp_path, *found)
    said = mains.run(*command, before=PIPE_IN_ASCII).check().out
    assert "+/-" in said and "retention" in said and said.isascii()
    mains.run(*command, "resume=True", before=PIPE_IN_ASCII).check()


def test_bytes_that_are_no_text_among_a_runs_output_do_not_cost_it(mains, tmp_path):
    options = [f"env_args.key={TASK}", "t_max=1", "use_cuda=False", "test_nepisode=1", f"local_results_path={tmp_path}"]
    mains.run("--config=iql", "--env-config=mpe", "with", *options, before=BYTES).check()
    (captured,) = tmp_path.glob("sacred/*/*/1/cout.txt")
    assert r"\xff\xfe said by a library" in captured.read_text()
