"""What can be reached under a task's limits: what is kept, what is found, and a policy's share of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kd_core.errors import UserError
from kd_marl.cli import main
from kd_marl.runs import reachable
from kd_marl.runs.finished import Run
from kd_marl.runs.reachable import BOUND, find, keep, of_run, read, share_of, write

CONFIG = {
    "name": "kd_student",
    "env": "gymma",
    "env_args": {"key": "task", "time_limit": 25, "seed": 7},
    "common_reward": True,
    "reward_scalarisation": "sum",
    "learner": "kd_mappo_student",
}


def run(value, seed=1, limits="lh", bits=0, episodes=500, preset="paper", wins=False, **config):
    score = {"return_mean": value, "return_std": 10.0, "win_rate": value if wins else None}
    config = {**CONFIG, "limits": limits, "masks_preset": preset, "message_bits": bits, "seed": seed, **config}
    summary = {"task": "task", "limits": limits, "masks_preset": None if limits == "fo" else preset, "seed": seed}
    summary |= {"episodes": episodes, "student": score, "command": f"python src/main.py seed={seed} resume=True"}
    summary |= {"teacher": {**score, "return_mean": -10.0}, "teacher_artifact": {"sha256": {"agent.th": "t"}}}
    return Run(Path("results"), f"kd_student/task/{seed}", config, summary, {})


def test_seeds_of_one_setting_are_one_policy_and_the_better_one_is_kept(tmp_path):
    file = tmp_path / "reachable.json"
    wide = [run(value, seed, hidden_dim=128) for seed, value in ((1, -50.0), (2, -54.0))]
    new = keep([run(-60.0, 1), run(-61.0, 2), *wide], "2026-11-30", file)
    (entry,) = read(file)
    assert new == [entry]
    assert (entry.value, entry.runs, entry.episodes, entry.date) == (-52.0, 2, 1000, "2026-11-30")
    # Student's over two runs: 12.7 standard errors of 2.
    assert (entry.low, entry.high) == pytest.approx((-52 - 25.41, -52 + 25.41), abs=0.01)
    assert entry.command == "python src/main.py seed=1"
    assert keep([run(-53.0, 3, episodes=1000)], "later", file) == []
    assert keep([run(-51.0, 3, episodes=999)], "later", file) == []
    (better,) = keep([run(-51.0, 3, episodes=1000)], "later", file)
    assert read(file) == [better]
    assert (better.low, better.high) == pytest.approx((-51 - 0.62, -51 + 0.62), abs=0.01)


def test_limits_presets_and_messages_have_entries_of_their_own(tmp_path):
    file = tmp_path / "reachable.json"
    runs = [run(-60.0), run(-44.0, bits=16), run(-50.0, bits=2), run(-57.0, preset="random"), run(-20.0, limits="fo")]
    own = run(-1.0, masks="0: [1]")
    keep([*(replace(r, summary={**r.summary, "episodes": 1000}) for r in runs), own], "2026-11-30", file)
    known = read(file)
    # Under fo the teacher counts too.
    assert sorted(entry.value for entry in known) == [-60.0, -57.0, -50.0, -44.0, -10.0]

    def of(limits, preset, bits, config=CONFIG):
        found = find(known, config, limits, preset, bits)
        return None if found is None else found.value

    assert [of("lh", "paper", bits) for bits in (0, 1, 2, 8, 16, 32)] == [-60.0, None, -50.0, -50.0, -44.0, -44.0]
    assert of("lha", "paper", 0) == -60.0 and of("lh", "random", 0) == -57.0 and of("fo", "paper", 0) == -10.0
    assert of("lh", "own", 0) is None
    assert of("lh", "paper", 0, {**CONFIG, "env_args": {"key": "task", "time_limit": 24}}) is None
    assert of_run(known, run(-66.0)) == pytest.approx(0.9)
    assert of_run(known, run(-66.0, masks="0: [1]")) is None


def test_a_bound_wins_over_what_was_found_and_stays(tmp_path):
    file = tmp_path / "reachable.json"
    keep([run(-60.0, episodes=1000)], "2026-11-30", file)
    (found,) = read(file)
    bound = replace(found, kind=BOUND, message_bits=None, value=-50.0, runs=0)
    write([found, bound], file)
    keep([run(-55.0, episodes=1000)], "later", file)
    known = read(file)
    assert {entry.value for entry in known} == {-50.0, -55.0}
    assert find(known, CONFIG, "lh", "paper", 0).value == find(known, CONFIG, "lh", "paper", 8).value == -50.0


def test_the_share_is_at_most_all_and_unknown_where_nothing_is(tmp_path):
    file = tmp_path / "reachable.json"
    keep([run(0.8, episodes=1000, wins=True)], "2026-11-30", file)
    (entry,) = read(file)
    assert entry.measure == "win_rate" and entry.low == pytest.approx(0.774, abs=1e-3)
    shares = [share_of(entry, {"win_rate": rate, "return_mean": 1.0}) for rate in (0.6, 0.8, 0.9)]
    assert shares == [pytest.approx(0.75), 1.0, 1.0]
    assert share_of(entry, {"win_rate": None, "return_mean": 1.0}) is None
    assert share_of(None, {"win_rate": 0.6}) is None


def test_the_entries_that_come_with_kd_marl_are_whole():
    known = read()
    assert len({entry.place for entry in known}) == len(known) >= 20
    for entry in known:
        assert entry.low <= entry.value <= entry.high and entry.command.startswith(
            ("python ", "the teacher of python ")
        )
        assert entry.episodes >= reachable.LEAST_EPISODES and entry.kind in (BOUND, reachable.BEST)


def test_a_damaged_file_is_one_line(tmp_path, capsys):
    file = tmp_path / "reachable.json"
    file.write_text('{"format": "kd-marl/reachable", "version": 1, "entries": [{"task": "x"}]}')
    with pytest.raises(UserError, match="is damaged"):
        read(file)
    file.write_text('{"format": "other"}')
    assert main(["reachable", "--file", str(file)]) == 2
    assert "no list of what can be reached" in capsys.readouterr().err


def test_the_command_shows_every_entry(capsys):
    assert main(["reachable"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(read())
    bound = next(line for line in lines if "speaker-listener" in line and "lh random" in line and "any" in line)
    assert "-31.35" in bound and "a bound" in bound and "mask_bound.py" in bound
