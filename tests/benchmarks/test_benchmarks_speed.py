"""The speed benchmarks: what counts as a step per second, ratios, memory, and that nothing is left running."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import busy
import measured
import peer_run
import pytest
import scaling
import speed_buffer
import speed_process
import speed_run
import throughput

from kd_core.artifacts.expert_buffer import ExpertBuffer, check_buffer
from kd_core.errors import UserError

TINY = speed_buffer.Sizes(n_agents=2, n_actions=3, obs_size=4, state_size=5, episode_limit=30, hidden_dim=6)
FACTS = {"name": "x", "batch_size_run": 4, "n_agents": 2}


def stopwatch(*words):
    return speed_run.Stopwatch(speed_run._parser().parse_args(words))


def report(steps_per_s, peak_mib, warm=2):
    """A run of four blocks of 100 steps; the first two are a hundred times slower than what counts."""
    seconds, blocks, elapsed = 100 / steps_per_s, [], 0.0
    for index in range(4):
        took = seconds * (100 if index < warm else 1)
        elapsed += took
        parts = {"rollout_s": 0.25 * took, "environment_s": 0.125 * took, "learn_s": 0.5 * took}
        blocks.append({"t_env": 100 * (index + 1), **parts, "elapsed_s": elapsed})
    return {
        **{"blocks": blocks, "warm": warm, "threads": 1, "settings": FACTS},
        **{"host": {"name": "h", "commit": None}, "memory": {"peak_mib": peak_mib}},
    }


def test_warm_blocks_do_not_count():
    rate = throughput.rates(report(50.0, 1))
    assert rate["steps"] == 200
    assert rate["steps_per_s"] == pytest.approx(50.0)
    assert rate["rollout_us"] == pytest.approx(0.25 * 1e6 / 50)
    assert rate["environment_us"] == pytest.approx(0.125 * 1e6 / 50)
    assert rate["learn_us"] == pytest.approx(0.5 * 1e6 / 50)


def test_the_headline_is_the_median_of_the_pairs_ratios_not_the_ratio_of_medians():
    ours, theirs, memory = [10.0, 40.0, 90.0], [10.0, 5.0, 30.0], [200.0, 100.0, 400.0]
    turns = [
        {
            "kd_teacher": report(a, 100.0),
            "epymarl": report(b, peak),
            "epymarl_lite": report(2 * b, 100.0),
        }
        for a, b, peak in zip(ours, theirs, memory, strict=True)
    ]
    found = throughput.compare(turns)
    assert found["speedup_vs_epymarl"] == pytest.approx(3.0)  # of 1, 8 and 3; the medians' ratio would be 4
    assert found["speedup_vs_epymarl_lite"] == pytest.approx(1.5)
    assert found["memory_ratio_vs_epymarl"] == pytest.approx(0.5)
    spread = found["speedup_vs_epymarl_spread"]
    assert spread["each"] == pytest.approx([1.0, 8.0, 3.0])
    assert (spread["min"], spread["max"]) == pytest.approx((1.0, 8.0))
    assert (spread["low"], spread["high"]) == pytest.approx((2.0, 5.5))
    assert found["sides"]["kd_teacher"]["steps_per_s"]["median"] == statistics.median(ours)


def test_without_epymarl_only_the_bundled_runtime_is_compared_and_the_page_says_nothing_else(monkeypatch):
    monkeypatch.delenv("EPYMARL_HOME", raising=False)
    monkeypatch.delenv("JAXMARL_HOME", raising=False)
    args = throughput._parser().parse_args([])
    assert [side.name for side in throughput.sides(args)] == ["kd_teacher", "epymarl_lite"]
    found = throughput.compare([{"kd_teacher": report(30.0, 1.0), "epymarl_lite": report(10.0, 1.0)}])
    assert found["speedup_vs_epymarl"] is None
    assert found["speedup_vs_epymarl_lite"] == pytest.approx(3.0)
    assert "| 3 (3 to 3) " in throughput.text(found)


def test_epymarl_is_measured_in_its_own_turn_with_its_own_number_of_battles(monkeypatch):
    monkeypatch.setenv("EPYMARL_HOME", "/some/checkout")
    monkeypatch.delenv("JAXMARL_HOME", raising=False)
    found = throughput.sides(throughput._parser().parse_args([]))
    assert [(side.name, side.home) for side in found][:2] == [("kd_teacher", None), ("epymarl", "/some/checkout")]
    # A teacher that is not tested would stop early for want of a better test.
    assert [side.words for side in found] == [("patience=1",), (), ()]
    more = throughput.sides(throughput._parser().parse_args(["--host-environments", "4"]))
    assert more[0].words == ("patience=1",)
    assert "batch_size_run=4" in more[1].words


def test_tests_between_two_blocks_are_no_part_of_either(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(speed_run, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    watch = stopwatch("--warm", "1", "--seconds", "5")

    def spend(name, seconds):
        with watch.part(name):
            now[0] += seconds

    done = []
    for t_env in (10, 20, 30):
        spend("rollout", 2.0)
        spend("learn", 1.0)
        done.append(watch.end_block(t_env))
        spend("test", 50.0)
        watch.discard()
    assert [block["elapsed_s"] for block in watch.blocks] == [3.0, 6.0, 9.0]
    assert [(block["rollout_s"], block["learn_s"]) for block in watch.blocks] == [(2.0, 1.0)] * 3
    assert done == [False, False, True]


def test_the_run_ends_after_enough_blocks_whatever_time_they_took():
    watch = stopwatch("--warm", "1", "--blocks", "2")
    assert [watch.end_block(t_env) for t_env in (1, 2, 3)] == [False, False, True]


def test_battles_won_are_those_of_the_latest_five_hundred():
    rates = [0.0, 0.6, 0.4, 0.9, 0.9]
    blocks = [{"t_env": 10 * k, "elapsed_s": float(k), "battles": 250, "won": rate} for k, rate in enumerate(rates)]
    assert throughput.reached({"blocks": blocks}, 0.5) == {"steps": 20, "seconds": 2.0}  # of 0.6 and 0.4
    assert throughput.reached({"blocks": blocks}, 0.8) == {"steps": 40, "seconds": 4.0}
    assert throughput.reached({"blocks": blocks}, 0.95) is None
    assert throughput.reached({"blocks": [{"t_env": 1, "elapsed_s": 1.0}]}, 0.0) is None


def test_a_run_ends_when_enough_battles_are_won():
    watch = stopwatch("--warm", "1", "--until-won", "0.5")
    done = []
    for won in (True, False, True, True, True, True, True):
        watch.count([{"battle_won": won}, {}])
        done.append(watch.end_block(1))
    assert done == [False] * 6 + [True]
    assert [block["battles"] for block in watch.blocks] == [1] * 7


def test_a_peer_plays_the_same_map_width_and_battles(monkeypatch):
    monkeypatch.setenv("JAXMARL_HOME", "/some/jaxmarl")
    monkeypatch.delenv("EPYMARL_HOME", raising=False)
    words = ["--map", "3m", "--hidden", "32", "--battles", "64", "--sides", "kd_teacher", "jaxmarl_ippo"]
    ours, peer = throughput.sides(throughput._parser().parse_args(words))
    assert "batch_size_run=64" in ours.words
    started = []
    monkeypatch.setattr(throughput, "watched", lambda command: started.append(command))
    peer.measure(["--seconds", "5"], ["hidden_dim=32", "seed=7"])
    options = peer_run._parser().parse_args([*started[0][2:], "report.json"])
    assert (options.map, options.hidden, options.battles, options.seed) == ("3m", 32, 64, 7)
    assert (options.seconds, options.algorithm) == (5.0, "ippo")


def test_without_a_checkout_of_jaxmarl_that_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMARL_HOME", str(tmp_path))
    with pytest.raises(SystemExit, match=r"JAXMARL_HOME=.* is no checkout of JaxMARL: it has no baselines/IPPO/"):
        peer_run.main(["ippo", "report.json"])


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("JAXMARL_HOME"), reason="JAXMARL_HOME names no checkout of JaxMARL")
def test_a_peer_is_timed_as_it_is():
    run = [
        sys.executable,
        str(measured.BENCHMARKS / "peer_run.py"),
        "--battles",
        "4",
        "--hidden",
        "16",
        "--blocks",
        "2",
    ]
    found = speed_process.watched([*run, "mappo"])
    # Its own 128 steps of four battles in each update, one warm update and two that count.
    assert [block["t_env"] for block in found["blocks"]] == [512, 1024, 1536]
    assert throughput.rates(found)["steps"] == 1024
    assert found["settings"] == {"name": "mappo", "batch_size_run": 4, "hidden_dim": 16}


def test_busy_loops_are_there_within_the_block_and_gone_after_it():
    cores = len(os.sched_getaffinity(0))
    with speed_process.busy(2):
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        sessions = [pid for pid in map(int, children) if os.getsid(pid) == pid]
        assert len(sessions) == 2 * cores
    assert not any(speed_process.session_members(session) for session in sessions)


@pytest.mark.parametrize(
    ("part", "speeds", "ratio"),
    [("beside_loops", {1: [10.0], None: [8.0]}, 0.8), ("at_once", {None: [8.0, 1.0, 2.0, 2.0, 3.0]}, 1.0)],
    ids=str,
)
def test_a_busy_machine_is_compared_with_one_thread_and_with_one_alone(part, speeds, ratio, monkeypatch):
    started = []
    monkeypatch.setattr(busy, "watched", lambda command, threads: report(speeds[threads].pop(0), 1.0))
    monkeypatch.setattr(busy, "busy", lambda loops: started.append(loops) or contextlib.nullcontext())
    found = busy.PARTS[part]("kd_teacher", busy._parser().parse_args(["--many", "4"]), 1)
    assert found["ratio"] == pytest.approx(ratio)
    assert started == ([3] if part == "beside_loops" else [])
    row = busy.text({f"{part}, kd_teacher": {name: measured.spread([value]) for name, value in found.items()}})
    assert "| kd_teacher " in row


TREE = """
import os, sys, time
block = bytearray(64 << 20)
for start in range(0, len(block), 4096):
    block[start] = 1
if os.fork() == 0:
    own = bytearray(64 << 20)
    for start in range(0, len(own), 4096):
        own[start] = 1
    time.sleep(SLEEP)
    os._exit(0)
print("pid", os.getpid(), flush=True)
time.sleep(SLEEP)
open(sys.argv[1], "w").write('{"answer": 42}')
"""


def program(tmp_path, seconds):
    path = tmp_path / "tree.py"
    path.write_text(TREE.replace("SLEEP", str(seconds)))
    return [sys.executable, str(path)]


def test_memory_is_that_of_the_whole_tree_and_a_shared_page_counts_once(tmp_path, monkeypatch):
    monkeypatch.setattr(speed_process, "LOOK_SECONDS", 0.1)
    found = speed_process.watched(program(tmp_path, 2.0))
    assert found["answer"] == 42
    # Two blocks of 64 MiB; the child has both, and shares the first with its parent: resident pages add up to 192.
    assert 128 < found["memory"]["pss_mib"] < 170
    assert 128 < found["memory"]["largest_mib"] < 150
    assert found["memory"]["peak_mib"] == max(found["memory"]["pss_mib"], found["memory"]["largest_mib"])
    assert found["memory"]["processes"] == 2


def test_an_interrupt_leaves_no_process(tmp_path, monkeypatch):
    sessions = []

    def look(self):
        sessions.append(self._session)
        if len(speed_process.session_members(self._session)) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(speed_process.MemoryWatch, "look", look)
    monkeypatch.setattr(speed_process, "LOOK_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        speed_process.watched(program(tmp_path, 60.0))
    # The kernel removes the killed ones at its leisure.
    deadline = time.monotonic() + 30
    while speed_process.session_members(sessions[0]):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_program_ends_with_the_benchmark_even_if_that_is_killed(tmp_path):
    inner = tmp_path / "child.py"
    inner.write_text("import time; time.sleep(60)")
    outer = (
        f"import sys; sys.path.insert(0, {str(measured.BENCHMARKS)!r})\n"
        f"import speed_process; speed_process.watched([sys.executable, {str(inner)!r}])"
    )
    parent = subprocess.Popen([sys.executable, "-c", outer], env={**os.environ, "TMPDIR": str(tmp_path)})

    def children():
        found = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        return [int(pid) for pid in found.read_text().split()]

    deadline = time.monotonic() + 30
    while not children():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pid = children()[0]
    while "child.py" not in Path(f"/proc/{pid}/cmdline").read_text():
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 30
    while pid in speed_process.session_members(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_failed_program_is_one_line_with_its_own_last_words(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("import sys; print('first'); sys.exit('error: no such map')")
    with pytest.raises(UserError, match=r"bad\.py ended with status 1: error: no such map"):
        speed_process.watched([sys.executable, str(path)])


@pytest.mark.slow
def test_a_run_is_timed_on_the_host_as_it_is(tmp_path):
    words = ["--config=mappo", "--env-config=mpe", "with", "env_args.key=pz-mpe-simple-spread-v3", "hidden_dim=8"]
    words += [f"{key}=2" for key in ("batch_size_run", "batch_size", "buffer_size")]
    words += [*throughput.WITHOUT_TESTS, "use_cuda=False", "local_results_path=results"]
    run = [sys.executable, str(measured.BENCHMARKS / "speed_run.py"), "--blocks", "3", "--", *words]
    found = speed_process.watched(run)
    # Two episodes of 25 steps in each block, two warm blocks and three that count.
    assert [block["t_env"] for block in found["blocks"]] == [50, 100, 150, 200, 250]
    for before, after in zip(found["blocks"][1:], found["blocks"][2:], strict=False):
        took = after["elapsed_s"] - before["elapsed_s"]
        assert 0 < after["learn_s"] + after["rollout_s"] <= took
        assert after["environment_s"] <= after["rollout_s"]
    assert found["settings"]["hidden_dim"] == 8
    assert throughput.rates(found)["steps"] == 150


def test_a_synthetic_buffer_is_one_that_a_student_would_accept(tmp_path, monkeypatch):
    monkeypatch.setattr("kd_core.config.assemble", lambda *_: {"shard_episodes": 8, "env_args": {"map_name": "3m"}})
    found = speed_buffer.write(tmp_path, 300, TINY)
    folder = tmp_path / speed_buffer.BUFFER
    assert check_buffer(folder) is None
    stored = ExpertBuffer.open(folder)
    assert stored.steps == found["steps"] >= 300
    assert stored.episodes == found["episodes"]
    assert len({int(length) for length in stored.lengths}) > 1
    assert found["disk_bytes"] <= speed_buffer.disk_bytes(300, TINY)
    assert speed_buffer.sample(tmp_path, 2)["sample_s"] > 0


def test_a_buffer_for_which_there_is_no_space_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"needs up to .* GiB, .* has .*: give another --folder"):
        scaling._check_space(tmp_path, 10**12)
    assert list(tmp_path.iterdir()) == []


def test_buffers_are_deleted_even_if_the_benchmark_is_stopped(tmp_path, monkeypatch, capsys):
    def stopped(command, home=None):
        Path(command[-1], "shard").write_text("x")
        raise KeyboardInterrupt

    monkeypatch.setattr(scaling, "watched", stopped)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert scaling.main(["--part", "buffer", "--folder", str(tmp_path), "--buffer-steps", "100"]) == 130
    assert list(tmp_path.iterdir()) == []
    assert "stopped" in capsys.readouterr().err


def test_growth_compares_the_most_agents_with_the_fewest(tmp_path, monkeypatch, capsys):
    counts = {"3m": 3, "27m_vs_30m": 27}

    def fake(self, options, words):
        name = words[0].partition("=")[2]
        found = report(100.0 if name == "3m" else 20.0, 10.0)
        return {**found, "settings": {"n_agents": counts[name]}}

    monkeypatch.setattr(throughput.Side, "measure", fake)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    out = tmp_path / "out.json"
    assert scaling.main(["--part", "teams", "--teams", "27m_vs_30m:5", "3m:9", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    # Five times the seconds for nine times the agents.
    assert found["teams"]["growth"] == pytest.approx(dict.fromkeys(found["teams"]["growth"], 5 / 9))
    assert "most agents against fewest: rollout 0.56, " in capsys.readouterr().out
    assert set(found["machine"]) >= {"processor", "cores", "torch", "jax", "commit", "command"}


@pytest.mark.parametrize("word", ["8m", "8m:", ":4", "8m:0", "8m:x"])
def test_a_team_that_is_none_is_refused(word, capsys):
    with pytest.raises(SystemExit):
        scaling._parser().parse_args(["--teams", word])
    assert "is not MAP:BATTLES" in capsys.readouterr().err


@pytest.mark.parametrize("module", [throughput, scaling, speed_run, speed_buffer, peer_run, busy])
def test_help_has_an_example(module, capsys):
    parser = module._parser if hasattr(module, "_parser") else None
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["--help"]) if parser else module.main(["--help"])
    assert ended.value.code == 0
    assert "python benchmarks/" in capsys.readouterr().out
