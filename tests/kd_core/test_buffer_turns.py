"""Who exports an expert buffer while another process does waits for it, however that one ends."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading

import pytest

from kd_core.artifacts.buffer_writer import wait_for_turn
from kd_core.artifacts.expert_buffer import ExpertBuffer, check_buffer
from stage_fixtures import words

HOLD = """
import sys
from pathlib import Path
from kd_core.artifacts.buffer_writer import wait_for_turn
wait_for_turn(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("ends", ["well", "killed"])
def test_the_second_writer_waits_says_so_and_goes_on(tmp_path, source_root, caplog, ends):
    caplog.set_level(logging.INFO)
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(source_root)}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        turn: list[int] = []
        second = threading.Thread(target=lambda: turn.append(wait_for_turn(tmp_path)), daemon=True)
        second.start()
        second.join(0.2)
        assert not turn
        assert f"writing to the expert buffer in {tmp_path}: waiting for it to end" in caplog.text
        if ends == "killed":
            os.kill(first.pid, signal.SIGKILL)
        else:
            first.stdin.close()
        second.join(30)
        assert turn
        os.close(turn[0])


@pytest.mark.slow
def test_of_two_students_that_need_one_buffer_the_second_waits_and_both_learn(tiny_teacher, root, tmp_path):
    """An export of 120 episodes is slow enough for the second to come while the first still plays."""
    line = words("kd_student", tmp_path, f"teacher={tiny_teacher}", "buffer_episodes=120", "t_max=100")
    environment = {key: value for key, value in os.environ.items() if key != "EPYMARL_HOME"}
    runs = [
        subprocess.Popen(
            [sys.executable, str(root / "src" / "main.py"), *line, f"seed={seed}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seed in (1, 2)
    ]
    try:
        said = [run.communicate(timeout=600)[0] for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert [run.returncode for run in runs] == [0, 0], "\n".join(said)
    assert sum("waiting for it to end" in text for text in said) == 1
    (facts,) = tmp_path.glob("buffers/*/*/buffer.json")
    assert check_buffer(facts.parent) is None
    assert ExpertBuffer.open(facts.parent).episodes == 120
    assert len(list(tmp_path.glob("sacred/kd_student/*/*/summary.json"))) == 2
