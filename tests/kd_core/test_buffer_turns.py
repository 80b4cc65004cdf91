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
