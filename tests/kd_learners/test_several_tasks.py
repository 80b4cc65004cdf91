"""One student that plays several tasks of equal sizes, each labelled and judged by its own teacher."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kd_core.artifacts.teacher import save_teacher
from kd_core.checkpoints import fingerprint, read_checkpoint
from kd_core.errors import UserError
from kd_learners import objective
from kd_learners.batches import from_host
from kd_learners.expert_data import VALUE_KEYS, shard_episodes
from kd_marl.deploy import replay
from kd_marl.deploy.export import Options, export
from kd_marl.evaluation import evaluator
from kd_marl.evaluation.table import result_rows
from kd_marl.runs.student_run import StudentRun
from kd_marl.stress.measure import find_teacher
from kd_onboard.agent import OnboardAgent
from kd_onboard.bundle import read_bundle
from kd_runners.vector import VectorRunner
from tiny_stages import HOST, TASK, Logger, SignalEnv, described, run_stage, scheme_of, stage_args, teacher_facts
from tiny_students import make_learner, networks, same, student_args, weights

OTHER = "toy-signals-v1"


class OtherSignalEnv(SignalEnv):
    """The toy task with other rewards where its key says so; ``wide`` has more actions, ``named`` a layout."""

    def __init__(self, key="", **others):
        super().__init__(key, **others)
        self.key = key

    def step(self, actions):
        obs, reward, terminated, truncated, info = super().step(actions)
        return obs, reward + 10.0 * (self.key == OTHER), terminated, truncated, info

    def get_env_info(self):
        facts = super().get_env_info()
        if self.key == "named":
            return {**facts, "layout": {"task": self.key}}
        return {**facts, "n_actions": 4, "state_shape": 9} if self.key == "wide" else facts


@pytest.fixture(scope="module", autouse=True)
def signals():
    """Both tasks, as one environment with two keys."""
    HOST.envs["tiny_signals"] = OtherSignalEnv
    yield
    HOST.envs["tiny_signals"] = SignalEnv


@pytest.fixture(scope="module")
def places(signals, results, tmp_path_factory):
    """A results folder with a teacher of each task, the second one narrower."""
    folder = tmp_path_factory.mktemp("tasks")
    agent, critic = networks(hidden_dim=8, seed=9)
    facts = teacher_facts(hidden_dim=8, gamma=0.5, task=OTHER, layout=OTHER)
    save_teacher(folder / "models" / "second", agent.state_dict(), critic.state_dict(), facts)
    shutil.copytree(results / "teacher", folder / "models" / "first")
    for task, name in ((TASK, "first"), (OTHER, "second")):
        given = {"teacher": str(folder / "models" / name), "env_args": {"key": task}}
        run_stage(stage_args("kd_export", folder, runner="vector", **given))
    return folder


def both(**updates):
    """What makes a tiny student's run one on both tasks."""
    env_args = {"key": f"{TASK},{OTHER}"}
    return {"env_args": env_args, "teacher": "", "expert_buffer": "", "runner": "vector", "batch_size_run": 5} | {
        **{"batch_size": 5, "buffer_size": 5, "distill_on": "mixed"},
        **updates,
    }


@pytest.fixture(scope="module")
def trained(results, places):
    """A finished run on both tasks: its learner, its result, and who labelled each step of its minibatches."""
    seen, reported = [], []
    terms, report = objective.terms, evaluator.evaluate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "terms", lambda batch, *rest: (seen.append(batch.labelled_by), terms(batch, *rest))[1])
        patch.setattr(evaluator, "evaluate", lambda *given: (reported.append(report(*given)), reported[0])[1])
        learner = run_stage(student_args(results, places, **both(save_model=True)))
    ((summary, counts),) = reported
    return learner, summary, counts, torch.cat(seen)


def test_a_student_learns_from_both_teachers_and_is_judged_on_each_task(trained):
    learner, summary, counts, labelled_by = trained
    assert set(labelled_by.tolist()) == {0, 1}
    assert [buffer.buffer.facts["task"] for buffer in learner.expert.parts] == [TASK, OTHER]
    first, second = summary["tasks"][TASK], summary["tasks"][OTHER]
    assert list(summary["tasks"]) == [TASK, OTHER] and summary["task"] == f"{TASK},{OTHER}"
    # Ten more a step: each task was played with its own rewards.
    for name in ("teacher", "student", "random"):
        extra = second[name]["return_mean"] - 10.0 * second[name]["length_mean"]
        assert 0.0 <= extra <= 8.0 and first[name]["return_mean"] <= 8.0
        assert summary[name]["return_mean"] == pytest.approx(
            (first[name]["return_mean"] + second[name]["return_mean"]) / 2
        )
    assert summary["retention"] == pytest.approx((first["retention"] + second["retention"]) / 2)
    assert first["teacher_artifact"]["sha256"] != second["teacher_artifact"]["sha256"]
    assert summary["teacher_artifact"] == first["teacher_artifact"] and summary["share_of_reachable"] is None
    assert summary["widths"] == [8, 12] and counts["student"].shape[1:] == (2, 3)
    rows = dict(result_rows(summary))
    assert rows[f"{OTHER}: retention"][1] == f"{100 * second['retention']:.1f} %"
    assert rows["mean of tasks: retention"][1] == f"{100 * summary['retention']:.1f} %" and "retention" not in rows


def test_each_task_is_judged_as_a_run_on_it_alone_would(trained, results, places):
    learner, summary, _, _ = trained
    given = {"env_args": {"key": OTHER}, "teacher": str(places / "models" / "second"), "runner": "vector"}
    alone = make_learner(results, places, **given, expert_buffer="")
    alone.mac.load_state(learner.mac)
    found, _ = evaluator.evaluate(HOST, alone.args, alone.context, alone.compared())
    for name in ("teacher", "student", "random", "retention", "agreement"):
        assert found[name] == summary["tasks"][OTHER][name]


def test_it_goes_on_from_its_checkpoint(trained, results, places):
    learner = trained[0]
    folder = max(places.glob("models/kd_student_*/*"), key=lambda step: int(step.name))
    facts = read_checkpoint(folder)
    assert facts["task"] == f"{TASK},{OTHER}" and len(facts["more_teachers"]) == 1
    again = make_learner(results, places, **both())
    again.load_models(str(folder))
    assert same(weights(learner), weights(again))


def test_the_rows_of_a_block_are_the_tasks_own_episodes(results, places):
    def block(key, size, seed):
        args = student_args(results, places, **both(batch_size_run=size, env_args={"key": key}, seed=seed))
        context = described(args)
        runner = VectorRunner(args, Logger())
        mac = HOST.controllers["hetero_mac"](scheme_of(args), None, args, context.mask)
        preprocess = {"actions": ("actions_onehot", [HOST.OneHot(out_dim=args.n_actions)])}
        runner.setup(scheme=scheme_of(args), groups={"agents": args.n_agents}, preprocess=preprocess, mac=mac)
        played = from_host(runner.run(test_mode=True))
        runner.close_env()
        return played

    joint = block(f"{TASK},{OTHER}", 5, seed=3)
    per_step = (joint.reward.sum((1, 2)) / joint.length).numpy()
    assert (per_step[:3] <= 2).all() and (per_step[3:] >= 10).all()
    # Row i has the seed + i, whatever lies beside it.
    for rows, key, seed in ((slice(0, 3), TASK, 3), (slice(3, 5), OTHER, 6)):
        alone = block(key, rows.stop - rows.start, seed)
        assert torch.equal(joint.obs[rows, 0], alone.obs[:, 0])


def test_labels_are_those_of_each_tasks_own_teacher(results, places):
    learner = make_learner(results, places, **both())
    shard = next(iter(learner.expert.parts[0].buffer.shards(VALUE_KEYS)))
    episodes = shard_episodes({name: value[:5] for name, value in shard.items()})
    given = episodes, torch.zeros(episodes.actions.shape), episodes.obs[:, :-1]
    found = learner.labeller(*given)
    own = [labeller(*given) for labeller in learner.labeller.labellers]
    ends = np.cumsum([0, *own[0].length.tolist()])
    assert torch.equal(found.length, own[0].length)
    for number, steps in ((0, slice(0, ends[3])), (1, slice(ends[3], ends[5]))):
        assert (found.labelled_by[steps] == number).all()
        for name in ("teacher_logits", "advantage", "teacher_log_roles", "actions"):
            torch.testing.assert_close(getattr(found, name)[steps], getattr(own[number], name)[steps], msg=name)


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"env_args": {"key": f"{TASK},wide"}}, r"v0 and wide differ: features of the state 6 and 9, actions 3 and 4"),
        ({"env_args": {"key": f"{TASK},named"}}, r"v0 and named differ: layout; train a student for each"),
        ({"env_args": {"key": f"{TASK},{TASK}"}}, "not different names with commas between"),
        ({"env_args": {"key": f"{TASK},"}}, "not different names with commas between"),
        ({"teachers": ["a"]}, r"teachers has 1 and the run 2 tasks: name one each, for toy-signals-v0, toy-signals-v1"),
        ({"teachers": "second,first"}, r"its task is toy-signals-v1, this run's is toy-signals-v0"),
        ({"teacher": "first"}, r"teacher is for a run with one teacher: leave it out, .* have one each"),
        ({"teacher_rule": "weight"}, "teacher_rule=weight is for teachers of one task"),
        ({"runner": "parallel"}, "played side by side: set runner=vector"),
        ({"batch_size_run": 1, "batch_size": 1, "buffer_size": 1}, "batch_size_run to at least 2"),
        ({"feature_coef": 1.0}, "set feature_coef=0"),
        ({"env_args": {"key": TASK}, "teachers": ["a", "b"], "teacher_rule": "task"}, "this one is on toy-signals-v0"),
    ],
)
def test_what_several_tasks_cannot_do_is_one_line(results, places, updates, message):
    if updates.get("teachers") == "second,first":
        updates = {"teachers": [str(places / "models" / name) for name in ("second", "first")]}
    with pytest.raises(UserError, match=message):
        make_learner(results, places, **both(**updates))


def test_other_stages_play_one_task(places):
    args = stage_args("kd_teacher", places, env_args={"key": f"{TASK},{OTHER}"})
    with pytest.raises(UserError, match=r"kd_teacher is for one task, and .* are several"):
        run_stage(args)


def test_weights_of_the_buffers_tell_runs_on_several_tasks_apart():
    config = {"env_args": {}, "map_name": "a,b", "teachers": None, "teacher_weights": None}
    assert fingerprint(config) != fingerprint({**config, "teacher_weights": [1, 2]})


def test_its_bundle_names_all_tasks_and_is_calibrated_on_the_episodes_of_each(trained, places, tmp_path):
    learner, summary, _, _ = trained
    checkpoint = max(places.glob("models/kd_student_*/*"), key=lambda step: int(step.name))
    facts, config = read_checkpoint(checkpoint), {**vars(learner.args), "env_args": {"key": f"{TASK},{OTHER}"}}
    network, mask, roles = learner.mac.agent, learner.mac.mask, learner.student_roles.detach()
    run = StudentRun(checkpoint, facts, config, summary, None, "record", network, mask, roles)
    buffers = [run.find_buffer(), *run.more_buffers()]
    assert [buffer.facts["task"] for buffer in buffers] == [TASK, OTHER]
    episodes = [replay.from_buffer(buffer, mask, 100, 1) for buffer in buffers]
    both_seen = replay.joined(episodes)
    assert [len(part.obs) for part in episodes] == [24, 24] and both_seen.acting.sum() == sum(
        e.acting.sum() for e in episodes
    )
    export(run, tmp_path / "bundle", 4, buffers[0], Options(latency=False))
    bundle = read_bundle(tmp_path / "bundle")
    assert bundle.task.name == f"{TASK},{OTHER}" and bundle.profile.raw["measured"]["retention"] == summary["retention"]
    for agent in bundle.agents:
        step = OnboardAgent.load(bundle.folder, agent.index)
        obs = torch.from_numpy(both_seen.obs)
        best = np.where(both_seen.available, network.unroll(obs)[0].detach().numpy(), -np.inf).argmax(-1)
        for e in (0, 24):
            step.reset()
            rows = zip(both_seen.features(mask, agent.index)[e], both_seen.available[e, :, agent.index], strict=True)
            found = [step.act(row, can) for row, can in rows if can.any()]
            assert found == best[e, : len(found), agent.index].tolist()


def test_what_compares_with_one_teacher_refuses_it(trained):
    run = SimpleNamespace(task=f"{TASK},{OTHER}", record="r", facts={"teacher": trained[0].teacher.facts()})
    with pytest.raises(UserError, match=r"r plays toy-signals-v0,toy-signals-v1, each with a teacher of its own"):
        find_teacher(run, None, [])
