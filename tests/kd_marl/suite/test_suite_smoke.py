"""suites/smoke.yaml really runs: here and on a local Ray cluster, through a stop and a killed worker, each run once."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import cores

# For a machine that is busy with other things.
PATIENCE_S = 900
# One of each kind: with and without a buffer, a critic or a teacher. The others are configurations of kd_student.
METHODS = ("kd_student", "offline_kd", "ptde", "mappo", "qmix")


@pytest.fixture
def suite(root, tmp_path):
    """Starts ``kd-marl suite run suites/smoke.yaml``; returns its process and the file with what it says."""
    results, started = tmp_path / "smoke", []

    def run(*options):
        said = tmp_path / f"said-{len(started)}"
        # An address of Ray's own would lead this test to a cluster of the machine's.
        environment = {name: value for name, value in os.environ.items() if name not in ("EPYMARL_HOME", "RAY_ADDRESS")}
        words = ["suite", "run", str(root / "suites" / "smoke.yaml"), "--to", str(results), "--jobs", "2", *options]
        words += ["--methods", *METHODS]
        with open(said, "w") as out:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "kd_marl.cli", *words],
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env={**environment, "PYTHONPATH": str(root / "src")},
                    cwd=root,
                    preexec_fn=cores.use_all,
                )
            )
        return started[-1], said

    yield run, results
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition, process, said):
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert process.poll() is None and time.monotonic() < deadline, said.read_text()
        time.sleep(0.1)
    return value


def attempts_logs(results):
    """The attempts at each run."""
    found = {}
    for file in results.glob("suite/*.json"):
        facts = json.loads(file.read_text())
        found[facts["label"]] = facts["attempts"]
    return found


def child_of(pid):
    """A process that `pid` has started for a run; None if there is none."""
    for folder in os.listdir("/proc"):
        try:
            with open(f"/proc/{folder}/stat") as stat, open(f"/proc/{folder}/cmdline") as command:
                if int(stat.read().rsplit(")", 1)[1].split()[1]) == pid and "main.py" in command.read():
                    return int(folder)
        except (OSError, ValueError):
            continue
    return None


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra suite")
def test_the_smoke_suite_survives_a_killed_run_a_stop_and_a_killed_ray_worker(suite):
    run, results = suite

    # Here: the first run is killed and tried again; then the suite is stopped in the midst of others.
    process, said = run()
    os.kill(wait_for(lambda: child_of(process.pid), process, said), signal.SIGKILL)
    wait_for(lambda: "SIGKILL" in said.read_text(), process, said)
    finished = wait_for(lambda: len([1 for line in said.open() if "] finished " in line]) >= 6, process, said)
    assert finished
    wait_for(lambda: child_of(process.pid), process, said)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130 and "the same command goes on" in said.read_text()
    tried = attempts_logs(results)
    killed = [attempts for attempts in tried.values() if attempts[0]["outcome"] == "killed"]
    assert len(killed) == 1 and killed[0][-1]["outcome"] in ("finished", "stopped")
    assert all(attempts[-1]["outcome"] in ("finished", "stopped") for attempts in tried.values())
    before = {label: attempts for label, attempts in tried.items() if attempts[-1]["outcome"] == "finished"}

    # On Ray: a worker is killed in the midst of its run, and its task is repeated.
    process, said = run("--ray", "local")

    def at_work():
        return [
            (label, attempts[-1]["pid"])
            for label, attempts in attempts_logs(results).items()
            if attempts[-1]["outcome"] is None and child_of(attempts[-1]["pid"])
        ]

    label, worker = wait_for(at_work, process, said)[0]
    os.kill(worker, signal.SIGKILL)
    assert process.wait(PATIENCE_S) == 0, said.read_text()
    after = attempts_logs(results)
    assert [attempt["outcome"] for attempt in after[label]][-2:] == [None, "finished"]
    assert {label: after[label] for label in before} == before, "what was finished is not made again"

    # Every run has one result, under its own configuration, and there is nothing left to do.
    assert all(attempts[-1]["outcome"] == "finished" for attempts in after.values())
    stages = [label for label in after if label.endswith("/buffer")]
    summaries = list(results.glob("sacred/*/*/*/summary.json"))
    assert len(stages) == 2 and len(summaries) == len(after) - len(stages)
    process, said = run()
    assert process.wait(PATIENCE_S) == 0
    assert f"{len(after)} of {len(after)} runs are finished, 0 are left" in said.read_text()
    assert attempts_logs(results) == after
