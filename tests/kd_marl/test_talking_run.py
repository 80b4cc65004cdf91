"""A student that talks, from its training to its bundle: evaluation, stress, export, and what its agents play."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kd_marl.cli import main
from kd_marl.deploy import replay
from kd_marl.runs.student_run import load_student
from kd_onboard import BACKENDS, read_bundle
from stage_fixtures import words
from talking_parity import compared


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "number_bits"), [(5, 1), (8, 4)], ids=["signs", "numbers"])
def test_a_talking_student_is_trained_evaluated_stressed_exported_and_played(
    mains, tiny_teacher, tiny_buffer, tmp_path, capsys, monkeypatch, bits, number_bits
):
    given = [f"teacher={tiny_teacher}", f"expert_buffer={tiny_buffer}", "seed=1", "limits=lha"]
    talk = [*given, f"message_bits={bits}", f"message_number_bits={number_bits}", "message_loss=0.1"]
    trained = mains.run(*words("kd_student", tmp_path, *talk)).check()
    record, summary = Path(trained.out.rsplit("written to ")[-1].strip()).parent, trained.summary
    assert (summary["message_bits"], summary["bits_per_step"], summary["bits_per_second"]) == (bits, bits, 10 * bits)
    run = load_student(record)
    assert run.facts["messages"]["links"] == [[0, 1], [1, 0]] and run.network.messages.loss == 0.1

    again = mains.run(*words("kd_student", tmp_path, *talk, "evaluate=True")).check()
    assert again.summary["student"] == summary["student"]
    for other in ("message_bits=0", "message_bits=4"):
        named = f"checkpoint_path={run.checkpoint.parent}"
        refused = mains.run(*words("kd_student", tmp_path, *given, other, "evaluate=True", named))
        assert f"was trained with message_bits={bits}" in refused.error and f"not with {other}" in refused.error

    none = ["--dropout", "--noise", "--delay", "--dead", "--maps"]
    assert main(["stress", str(record), "--episodes", "4", *none, "--message-loss", "1", "--jam", "0"]) == 0
    rows = {row["name"]: row for row in json.loads((record / "stress.json").read_text())["rows"]}
    assert list(rows) == ["none", "message loss 1", "message delay 1", "message delay 2", "jam speaker_0"]
    assert rows["message loss 1"]["student_mean"] == rows["jam speaker_0"]["student_mean"]
    capsys.readouterr()
    bundle = tmp_path / "bundle"
    for option, named in ((["--int8"], "leave --int8 out"), (["--c-weights", "int8"], "give --c-weights float32")):
        assert main(["export", str(record), "--to", str(bundle), *option]) == 2
        assert f"talks, and int8 is for silent students: {named}" in capsys.readouterr().err
    assert main(["export", str(record), "--to", str(bundle), "--no-latency"]) == 0
    assert f"messages: {bits} bits a step, {10 * bits} a second" in capsys.readouterr().out
    assert main(["bundle", "check", str(bundle)]) == 0
    team = read_bundle(bundle).profile.raw["messages"]
    assert (team["bits_per_second"], team["trained_loss"], team["measured_in"]) == (10 * bits, 0.1, "return")
    lost = {entry["loss"]: entry["student"] for entry in team["measured"]}
    assert lost == {0.0: rows["none"]["student_mean"], 1.0: rows["message loss 1"]["student_mean"]}
    _same_on_ten_thousand_steps(run, bundle, monkeypatch, tmp_path)
    _played_over_udp(bundle, run.summary, capsys, tmp_path)


def _same_on_ten_thousand_steps(run, bundle, monkeypatch, tmp_path):
    """Every backend, on what the teacher met, again and again under other losses, says and does the same."""
    monkeypatch.setenv("KD_ONBOARD_CACHE", str(tmp_path / "compiled"))
    recorded = replay.from_buffer(run.find_buffer(), run.mask, 10**6, seed=0)
    whole = recorded.acting.any(2).all(1)
    obs, available = recorded.obs[whole], recorded.available[whole]
    times = -(-10_000 // available[:, :, 0, 0].size)
    for backend in BACKENDS[:2] if shutil.which("cc") is None else ("numpy", "onnx", "c"):
        given = np.tile(obs, (times, 1, 1, 1)), np.tile(available, (times, 1, 1, 1))
        counts = compared(run, bundle, backend, *given, loss=0.2)
        assert counts["actions"] >= 20_000 and counts["near"] <= 1e-4 * counts["bits"]


def _played_over_udp(bundle, summary, capsys, tmp_path):
    """Nothing is lost unless it shall be; then what is played is what `kd-marl stress` measured."""
    task = ["--env-config=mpe", "with", "env_args.key=pz-mpe-simple-speaker-listener-v4"]
    found = {}
    for loss in ("0", "0.5", "1"):
        options = ["--episodes", str(summary["episodes"]), "--message-loss", loss, "--json", str(tmp_path / "run.json")]
        assert main(["run", str(bundle), *options, *task]) == 0
        found[loss] = json.loads((tmp_path / "run.json").read_text())
        radio = found[loss]["messages"]
        assert f"{radio['due']} were due, {radio['lost']} of them lost" in capsys.readouterr().out
        assert radio["due"] > 0 and 0.9 * float(loss) <= radio["lost"] / radio["due"] <= 1.1 * float(loss)
    assert found["0"]["bundle"]["return_mean"] == pytest.approx(summary["student"]["return_mean"], abs=1e-4)
    for option, named in (("--message-loss=1.5", "a probability from 0 to 1"), ("--message-delay=-1", "at least 0")):
        assert main(["run", str(bundle), option, *task]) == 2
        assert named in capsys.readouterr().err
