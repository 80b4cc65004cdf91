"""Random commands end in a run or in one line; `python tests/helpers/fuzzed_commands.py 2000` tries more of them."""

import subprocess
import sys
import time

import pytest

from fuzzed_commands import Fuzzed, Fuzzer

WORDS = ("--config=iql", "--env-config=mpe", "with", "env_args.key=pz-mpe-simple-spread-v3")


def says(*lines, status=1):
    def main(words):
        for line in lines:
            print(line, file=sys.stderr)
        return status

    return main


@pytest.mark.parametrize(
    ("main", "fault"),
    [
        (lambda words: 0, ""),
        (says("warning: x", "error: one line"), ""),
        (says("error: one line", "error: another"), "exit status 1"),
        (says("no word of error"), "exit status 1"),
        (says("error: x", status=7), "exit status 7"),
        (lambda words: 1 // 0, "ZeroDivisionError"),
        (lambda words: time.sleep(60), "hangs: still there after 1 s"),
    ],
)
def test_a_traceback_a_hang_and_more_than_one_line_are_faults(tmp_path, main, fault):
    said = Fuzzer(tmp_path, main, patience=1.0).fault(Fuzzed(WORDS, {}, whole=True))
    assert fault in said and bool(fault) == bool(said)


@pytest.mark.slow
def test_random_commands_end_in_a_run_or_in_one_line(root):
    command = [sys.executable, str(root / "tests" / "helpers" / "fuzzed_commands.py"), "200", "--seed", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 commands" in done.stdout
