"""The stages and the stock algorithms, whole, through ``src/main.py``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_core.artifacts.teacher import load_teacher
from kd_core.places import ZOO
from main_server import Finished
from stage_fixtures import TASK, TINY, words

SUMMARY_KEYS = {
    *("task", "limits", "seed", "episodes", "teacher", "student", "random", "retention", "retention_normalised"),
    *("params_teacher", "params_student", "flops_per_decision_teacher", "flops_per_decision_student", "flops_ratio"),
    *("flops_per_episode_teacher", "flops_per_episode_student", "agreement"),
}
STOCK = ("mappo", "ippo", "iql", "vdn", "qmix")


def weights(run: Finished, results: Path) -> dict[str, torch.Tensor]:
    """The student's weights at the run's end."""
    folders = [file.parent for file in results.glob("models/kd_student*/*/checkpoint.json")]
    last = max(folders, key=lambda folder: int(folder.name))
    return torch.load(last / "agent.th", weights_only=True)


def assert_is_the_result_of_a_student(run: Finished, episodes: int) -> dict:
    summary = run.summary
    assert summary.keys() >= SUMMARY_KEYS
    assert summary["task"] == TASK
    assert summary["episodes"] == episodes
    for policy in ("teacher", "student", "random"):
        assert summary[policy].keys() >= {"return_mean", "return_std", "win_rate"}
        assert summary[policy]["return_mean"] < 0.0
        assert summary[policy]["win_rate"] is None
    for policy in ("teacher", "student"):
        assert summary[policy]["sampled"].keys() == {"return_mean", "return_std", "win_rate", "length_mean"}
    student, teacher, random = (summary[name]["return_mean"] for name in ("student", "teacher", "random"))
    assert summary["retention"] == pytest.approx(1.0 - abs(student - teacher) / abs(teacher))
    gain = pytest.approx((student - random) / (teacher - random)) if teacher > random else None
    assert summary["retention_normalised"] == gain
    ratio = summary["flops_per_decision_teacher"] / summary["flops_per_decision_student"]
    assert summary["flops_ratio"] == pytest.approx(ratio)
    # Two agents decide at each of 25 steps.
    for policy in ("teacher", "student"):
        assert summary[f"flops_per_episode_{policy}"] == 50 * summary[f"flops_per_decision_{policy}"]
    assert 0.0 <= summary["agreement"] <= 1.0
    table = run.out[: run.out.rindex("to see it")]
    for row in ("return", "retention", "parameters", "FLOPs per decision", "microseconds"):
        assert re.search(rf"^ *{row}.*", table, re.MULTILINE), row
    return summary


def test_teacher_then_export_then_student(mains, tiny_results, tiny_teacher, tiny_buffer):
    """The student finds what the two stages before it left in the results folder."""
    run = mains.run(*words("kd_student", tiny_results, "seed=5", "limits=lha")).check()
    assert f"Teacher: {tiny_teacher}" in run.err
    assert "Running python src/main.py" not in run.err, "the buffer was there"
    summary = assert_is_the_result_of_a_student(run, episodes=8)
    assert (summary["limits"], summary["masks_preset"], summary["seed"]) == ("lha", "paper", 5)
    assert summary["teacher_artifact"]["sha256"] == load_teacher(tiny_teacher).sha256
    assert ExpertBuffer.open(tiny_buffer).facts["teacher"]["sha256"] == load_teacher(tiny_teacher).sha256
    metrics = json.loads((Path(run.out.rsplit("written to ")[-1].strip()).parent / "metrics.json").read_text())
    assert metrics.keys() >= {"kl", "clip_fraction", "agreement", "retention", "return_mean", "test_return_mean"}


# A stage that another run starts is a process with its YAML's sizes: this makes the teacher's tiny.
TINY_TEACHER = f"""
import subprocess
class Tiny(subprocess.Popen):
    def __init__(self, command, **options):
        tiny = {TINY["kd_teacher"]!r} if "--config=kd_teacher" in command else []
        super().__init__([*command, *tiny] if tiny else command, **options)
subprocess.Popen = Tiny
"""


def test_a_student_alone_has_everything_made_that_it_needs(mains, tmp_path):
    """teacher=train, and no buffer: three runs for one command. Then the same command evaluates what is there."""
    run = mains.run(*words("kd_student", tmp_path, "teacher=train", "seed=3"), before=TINY_TEACHER).check()
    assert_is_the_result_of_a_student(run, episodes=8)
    made = {path.name for path in (tmp_path / "sacred").iterdir()}
    assert made == {"kd_teacher", "kd_export", "kd_student"}
    buffer = ExpertBuffer.open(next(tmp_path.glob("buffers/*/*/buffer.json")).parent, check=True)
    assert buffer.episodes == 24
    again = mains.run(*words("kd_student", tmp_path, "teacher=train", "seed=3", "evaluate=True"), before=TINY_TEACHER)
    assert_is_the_result_of_a_student(again, episodes=8)
    assert len(list(tmp_path.glob("models/kd_teacher*"))) == 1


def test_a_teacher_under_limits_is_measured_under_them_and_is_no_student_s_teacher(mains, tmp_path):
    """Derived features and its own action make its observations longer than the environment's own."""
    adversary = "pz-mpe-simple-adversary-v3"
    limits = ("limits=lh", "own_action=True", "mask_at=environment", "seed=1")
    mains.run(*words("kd_teacher", tmp_path, *limits, task=adversary)).check()
    facts = [json.loads(file.read_text()) for file in tmp_path.glob("models/*/*/teacher.json")]
    assert all(found["masked"] for found in facts) and any(found["test"] for found in facts)
    run = mains.run(*words("kd_student", tmp_path, "limits=lh", "seed=1", task=adversary)).check()
    assert f"Teacher: {ZOO / adversary}" in run.err


@pytest.mark.slow
def test_a_ready_made_qmix_teaches_by_credit_at_the_temperature_of_its_buffer(mains, tmp_path):
    spread = "pz-mpe-simple-spread-v3"
    given = (f"teacher={spread}_qmix", "advantage=credit", "limits=lh", "seed=1")
    run = mains.run(*words("kd_student", tmp_path, *given, task=spread)).check()
    assert f"Teacher: {ZOO / f'{spread}_qmix'}" in run.err
    (buffer,) = tmp_path.glob("buffers/*/*/buffer.json")
    checkpoint = max(tmp_path.glob("models/*/*/checkpoint.json"), key=lambda file: int(file.parent.name))
    taught = json.loads(checkpoint.read_text())["teacher"]["temperature"]
    assert taught == json.loads(buffer.read_text())["teacher_temperature"] > 0
    # It beats random play, so its values were read as they were written.
    assert run.summary["teacher"]["return_mean"] > run.summary["random"]["return_mean"]


@pytest.mark.parametrize("episodes", [8, 7])
def test_evaluate_repeats_the_table_for_exactly_the_episodes_asked_for(
    mains, tiny_teacher, tiny_buffer, tmp_path, episodes
):
    options = [f"teacher={tiny_teacher}", f"expert_buffer={tiny_buffer}", "seed=2"]
    trained = mains.run(*words("kd_student", tmp_path, *options)).check()
    again = mains.run(*words("kd_student", tmp_path, *options, "evaluate=True", f"eval_episodes={episodes}")).check()
    summary = assert_is_the_result_of_a_student(again, episodes)
    if episodes == 8:
        volatile = {"command", "decision_us_teacher", "decision_us_student"}
        before, after = (
            {key: value for key, value in found.items() if key not in volatile} for found in (trained.summary, summary)
        )
        assert after == before


def test_the_same_seed_gives_the_same_student_bit_for_bit(mains, tiny_teacher, tiny_buffer, tmp_path):
    found = []
    for folder, seed in (("a", 4), ("b", 4), ("c", 5)):
        options = [f"teacher={tiny_teacher}", f"expert_buffer={tiny_buffer}", f"seed={seed}", "eval_episodes=1"]
        run = mains.run(*words("kd_student", tmp_path / folder, *options)).check()
        found.append(weights(run, tmp_path / folder))
    same = [all(torch.equal(found[0][key], other[key]) for key in found[0]) for other in found[1:]]
    assert same == [True, False]


@pytest.mark.parametrize("algorithm", STOCK)
@pytest.mark.parametrize("place", ["mpe", "gymnasium"])
def test_a_stock_algorithm_trains_under_limits(mains, tmp_path, place, algorithm):
    environment, options = {
        "mpe": ("mpe", [f"env_args.key={TASK}", "limits=lh"]),
        "gymnasium": (
            "gymma",
            ["env_args.key=tiny_gym:Match-v0", "env_args.time_limit=5", "limits=lh", "masks={0: [0, 1], 1: [2, 3]}"],
        ),
    }[place]
    run = mains.run(
        *(f"--config={algorithm}", f"--env-config={environment}", "with", *options, f"local_results_path={tmp_path}"),
        *(
            "t_max=300",
            "save_model=True",
            "hidden_dim=8",
            "test_nepisode=2",
            "final_evaluation=True",
            "eval_episodes=4",
        ),
        "use_cuda=False",
    ).check()
    summary = run.summary
    assert (summary["algorithm"], summary["limits"], summary["episodes"]) == (algorithm, "lh", 4)
    assert 300 < summary["steps"] <= 600
    low, high = {"mpe": (-2000.0, 0.0), "gymnasium": (0.0, 10.0)}[place]
    assert low <= summary["policy"]["return_mean"] <= high
    saved = {path.name for path in tmp_path.glob(f"models/{algorithm}*/*/agent.th")}
    assert saved == {"agent.th"}


@pytest.mark.slow
def test_limits_reach_a_stock_algorithms_observations(mains, tmp_path):
    """An agent that sees only its noise cannot learn what one that sees its number learns."""
    options = ["env_args.key=tiny_gym:Match-v0", "env_args.time_limit=5", "t_max=6000", "hidden_dim=32", "lr=0.005"]
    options += [
        "final_evaluation=True",
        "eval_episodes=40",
        "seed=1",
        "use_cuda=False",
        f"local_results_path={tmp_path}",
    ]
    found = {}
    for name, mask in (("number", "{0: [0, 1, 2], 1: [0, 1, 2]}"), ("noise", "{0: [3], 1: [3]}")):
        run = mains.run("--config=iql", "--env-config=gymma", "with", *options, "limits=lh", f"masks={mask}")
        found[name] = run.check().summary["policy"]["return_mean"]
    assert found["noise"] < 5.0 < found["number"]


# --- on a real EPyMARL ---------------------------------------------------------------------------------------------


def test_the_stages_run_on_a_checkout(mains, checkout, tmp_path):
    teacher = mains.run(*words("kd_teacher", tmp_path, "seed=1"), env=checkout).check()
    assert "kd_teacher on" in teacher.out
    export = mains.run(*words("kd_export", tmp_path, "seed=1"), env=checkout).check()
    assert "24 episodes, 600 steps" in export.err
    student = mains.run(*words("kd_student", tmp_path, "seed=1"), env=checkout).check()
    assert_is_the_result_of_a_student(student, episodes=8)
    facts = load_teacher(next(tmp_path.glob("models/kd_teacher*/*/teacher.json")).parent).facts
    assert facts["host"] == "epymarl"
    buffer = ExpertBuffer.open(next(tmp_path.glob("buffers/*/*/buffer.json")).parent, check=True)
    assert (buffer.episodes, buffer.facts["host"]) == (24, "epymarl")


def test_a_stock_algorithm_of_a_checkout_trains_under_limits(mains, checkout, tmp_path):
    options = ["limits=lh", "t_max=300", "test_nepisode=2", "use_cuda=False", "save_model=True"]
    options += ["final_evaluation=True", "eval_episodes=4"]
    run = mains.run(*words("qmix", tmp_path, *options), env=checkout).check()
    assert (run.summary["algorithm"], run.summary["limits"]) == ("qmix", "lh")
    assert list(tmp_path.glob("models/qmix*/*/agent.th")), "EPyMARL leaves out the final save, the plug-in does not"
