"""A user's mistake is one line that says what was wrong and what to do, a non-zero exit status, and no traceback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from kd_core.artifacts.expert_buffer import ExpertBuffer, check_buffer
from kd_core.errors import nearest
from main_server import ROOT, Finished
from stage_fixtures import TASK, words

SPREAD = "pz-mpe-simple-spread-v3"
MPE = "--env-config=mpe"


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


# --- the command line and the YAML files -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            ["--config=kd_studnt", MPE],
            r"--config=kd_studnt: no such .*; did you mean 'kd_student' or 'kd_student_paper'\?",
        ),
        (
            ["--config=xyz", MPE],
            r"--config=xyz: no such configuration; valid: ctds, ippo, ippo_ns, iql, .*kd_export, .*qmix",
        ),
        (["--config=mappo", "--env-config=gyma"], "--env-config=gyma: no such configuration; did you mean 'gymma'"),
        (["--config=mappo"], "--env-config is missing: give --env-config=NAME"),
        ([MPE], "--config is missing: give --config=NAME"),
        (["--config=mappo", MPE], r"--env-config=mpe needs the task: add 'with env_args\.key="),
        (
            ["--config=qmix", MPE, "with", f"env_args.key={SPREAD}", "limts=lh"],
            "unknown key 'limts' in 'with': did you mean 'limits'",
        ),
        (
            ["--config=qmix", MPE, "with", "env_args.kee=x"],
            r"unknown key 'env_args\.kee' in 'with': did you mean 'env_args\.key'",
        ),
        (["--config=qmix", MPE, "with", "zzz=1"], "unknown key 'zzz' in 'with': valid: .*batch_size.*"),
    ],
)
def test_unknown_names_on_the_command_line_get_the_nearest_valid_ones(mains, line, message):
    run = mains.run(*line)
    assert re.match(message, run.error)
    assert run.status == 2


def test_a_yaml_file_that_is_none_is_named(mains, tmp_path):
    broken = tmp_path / "mine.yaml"
    broken.write_text("name: [")
    assert re.match(rf"{broken} is no valid YAML", mains.run(f"--config={broken}", MPE).error)


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_epymarl_home_that_is_no_checkout_is_never_replaced_in_silence(mains, tmp_path, folder):
    (tmp_path / "empty").mkdir()
    home = tmp_path / folder
    run = mains.run(*words("qmix", tmp_path), env={"EPYMARL_HOME": str(home)})
    assert re.match(rf"EPYMARL_HOME={home} is no EPyMARL checkout \(src/main\.py is missing\): .*unset it", run.error)


def test_the_real_process_ends_with_one_line_and_status_2():
    done = subprocess.run(
        [sys.executable, "src/main.py", "--config=kd_studnt", MPE], cwd=ROOT, capture_output=True, text=True
    )
    assert "did you mean 'kd_student'" in Finished(done.returncode, done.stdout, done.stderr).error
    assert (done.returncode, done.stdout) == (2, "")


def test_without_arguments_it_shows_an_example(mains):
    shown = mains.run().check().out
    assert "example: " in shown
    assert mains.run("--help").check().out == shown


def test_the_hint_lists_everything_when_nothing_is_near():
    assert nearest("qqq", ["b", "a"]) == "valid: a, b"
    assert nearest("limts", ["limits", "lr"]) == "did you mean 'limits'?"


def test_a_results_folder_that_cannot_be_made_is_one_line(mains, tmp_path):
    (tmp_path / "file").touch()
    error = mains.run(*words("mappo", tmp_path / "file")).error
    assert re.match(rf"cannot write results to {tmp_path}/file/.*: give another local_results_path", error)


def test_a_working_folder_that_takes_no_results_is_one_line_before_anything_is_trained(mains, tmp_path):
    (tmp_path / "results").touch()
    line = ["--config=iql", MPE, "with", f"env_args.key={TASK}"]
    error = mains.run(*line, before=f"import os; os.chdir({str(tmp_path)!r})").error
    assert re.match(rf"cannot write results to {tmp_path}/results/.*: give another local_results_path", error)


LONG = "x" * 5000


@pytest.mark.parametrize(
    "line",
    [[f"--config={LONG}", MPE], ["--config=iql", MPE, "with", LONG], words("kd_student", "{tmp}", f"teacher={LONG}")],
    ids=["configuration", "values", "teacher"],
)
def test_a_path_that_no_file_system_takes_is_one_short_line(mains, tmp_path, line):
    error = mains.run(*(word.replace("{tmp}", str(tmp_path)) for word in line)).error
    assert re.fullmatch(
        r"cannot use .*x{150}\.\.\. \(File name too long\): give another path, or rights to this one", error
    )


# --- the teacher ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["kd_student", "kd_export"])
def test_a_teacher_of_another_task_is_refused(mains, tiny_teacher, tmp_path, stage):
    run = mains.run(*words(stage, tmp_path, f"teacher={tiny_teacher}", task=SPREAD))
    expected = f"does not fit: its task is {TASK}, this run's is {SPREAD}; give teacher=<one trained on {SPREAD}>"
    assert expected in run.error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs_size": 12}, "its observation size is 12, this run's is 11"),
        (
            {"n_actions": 6},
            "does not fit teacher.json, which says 16 hidden units and 6 actions: copy the folder again",
        ),
        ({"n_agents": 3}, "its number of agents is 3, this run's is 2"),
        ({"state_size": 1}, "its state size is 1, this run's is 22"),
        ({"version": 9}, "has version 9, this kd-marl reads version 1: train the teacher again"),
        ({"sha256": {}}, "was altered: its sha256 is not the one in teacher.json"),
    ],
)
def test_a_teacher_of_other_sizes_or_altered_is_refused(mains, tiny_teacher, tmp_path, changes, message):
    teacher = shutil.copytree(tiny_teacher, tmp_path / "teacher")
    edit(teacher / "teacher.json", **changes)
    assert message in mains.run(*words("kd_student", tmp_path, f"teacher={teacher}")).error


def test_a_missing_teacher_is_named(mains, tmp_path):
    assert mains.run(*words("kd_student", tmp_path, "teacher=/no/such")).error == (
        "no teacher at /no/such: there is no such folder"
    )
    run = mains.run(*words("kd_student", tmp_path, f"teacher={tmp_path}"))
    assert re.match(r"no teacher at .*: expected teacher\.json or agent\.th", run.error)


def test_without_any_teacher_the_command_that_trains_one_is_named(mains, tmp_path):
    task = "pz-mpe-simple-push-v3"
    error = mains.run(*words("kd_student", tmp_path, "limits=fo", task=task)).error
    command = rf"train one with `python src/main\.py --config=kd_teacher {MPE} with env_args\.key={task} .*`"
    assert re.match(rf"no teacher for {task} in the results or the zoo: {command}.*teacher=train", error)


# --- masks and widths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ("masks={listener_0: [Vx]}", "agent 'listener_0' of simple_speaker_listener has no feature 'Vx'; did you mean"),
        ("masks={listener: [V]}", "masks names agent 'listener', but .* has agents 0 to 1; did you mean 'listener_0'"),
        ("masks={7: [V]}", "7"),
        ("masks={listener_0: []}", "listener_0"),
        ("limits=hl", "unknown limits 'hl'; valid: fo, lh, lha"),
        ("masks_preset=papper", "masks_preset.*papper.*paper"),
    ],
)
def test_a_wrong_mask_is_refused_whatever_the_algorithm(mains, tiny_teacher, tmp_path, update, message):
    error = mains.run(*words("kd_student", tmp_path, f"teacher={tiny_teacher}", "limits=lh", update)).error
    assert mains.run(*words("qmix", tmp_path, "limits=lh", update)).error == error
    assert re.search(message, error)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ("widths=[16]", "widths has 1 numbers, but simple_speaker_listener has 2 agents: give one each"),
        ("widths=[16, 32, 16]", "widths has 3 numbers, but simple_speaker_listener has 2 agents"),
        ("widths=[16, 0]", r"widths is \[16, 0\]: expected a list such as \[16, 32, 32\], one number, or auto"),
        ("widths=wide", "widths is 'wide': expected a list"),
        ("sharing=some", "sharing is 'some'; did you mean|sharing is 'some'; valid: all, group, none"),
        ("distill_on=teacher", "distill_on is 'teacher': choose one of expert, student, mixed"),
        ("student_share=1.5", "student_share is 1.5: expected a number from 0 to 1"),
        ("lr=fast", "lr is 'fast': expected a number above 0"),
        ("batch_size=8", "set batch_size, buffer_size and batch_size_run to the same number"),
        ("mac=basic_mac", "kd_mappo_student needs mac=hetero_mac"),
        ("learner=kd_mappo", "learner 'kd_mappo' is not registered; did you mean 'kd_mappo_"),
        ("runner=paralel", "runner 'paralel' is not registered; did you mean 'parallel'"),
        ("eval_episodes=0", "eval_episodes is 0: expected a whole number of at least 1"),
    ],
)
def test_a_wrong_key_of_stage_2_is_refused_before_anything_is_made(mains, tiny_teacher, tmp_path, update, message):
    run = mains.run(*words("kd_student", tmp_path, f"teacher={tiny_teacher}", update))
    assert re.search(message, run.error)
    # A value of the wrong type is found even before there is a run.
    assert {path.name for path in tmp_path.iterdir()} <= {"sacred"}, "it was found before the buffer was exported"


# --- the expert buffer ---------------------------------------------------------------------------------------------


def truncate(buffer):
    shard = buffer / "shard-00001.safetensors"
    os.truncate(shard, shard.stat().st_size - 10)


def tamper(buffer):
    shard = buffer / "shard-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)


DAMAGE = {
    "shard-00001.safetensors is truncated or altered": truncate,
    "shard-00001.safetensors was altered after it was written: its sha256": tamper,
    "has version 2, this kd-marl reads version 1: export the buffer again": lambda b: edit(
        b / "buffer.json", version=2
    ),
    "says 25 episodes, its shards add up to 24": lambda b: edit(b / "buffer.json", episodes=25),
    "shard-00002.safetensors is missing": lambda b: (b / "shard-00002.safetensors").unlink(),
    "has no buffer.json; export one with --config=kd_export": lambda b: (b / "buffer.json").unlink(),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_a_damaged_buffer_is_refused_by_the_student_and_explained_by_the_command(
    mains, tiny_teacher, tiny_buffer, tmp_path, message
):
    buffer = shutil.copytree(tiny_buffer, tmp_path / "buffer")
    DAMAGE[message](buffer)
    run = mains.run(*words("kd_student", tmp_path, f"teacher={tiny_teacher}", f"expert_buffer={buffer}"))
    assert message in run.error
    assert message in check_buffer(buffer)


def test_the_check_command_exits_with_1_and_one_line(tiny_buffer, tmp_path):
    buffer = shutil.copytree(tiny_buffer, tmp_path / "buffer")
    command = [sys.executable, "-m", "kd_marl.cli", "buffer", "check", str(buffer)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    sound = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (sound.returncode, sound.stdout) == (0, "sound: 24 episodes, 600 steps, 3 shards\n")
    tamper(buffer)
    faulty = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert faulty.returncode == 1
    assert re.fullmatch(r"faulty: shard-00001\.safetensors was altered .*\n", faulty.stderr)


def test_a_buffer_of_another_teacher_or_task_is_refused(mains, tiny_teacher, tiny_buffer, tmp_path):
    buffer = shutil.copytree(tiny_buffer, tmp_path / "buffer")
    edit(buffer / "buffer.json", teacher={"path": "elsewhere", "sha256": {"agent.th": "00"}})
    student = words("kd_student", tmp_path, f"teacher={tiny_teacher}", f"expert_buffer={buffer}")
    assert "was written by another teacher (elsewhere)" in mains.run(*student).error
    edit(buffer / "buffer.json", task=SPREAD)
    assert f"is of {SPREAD}, this run's task is {TASK}" in mains.run(*student).error


# --- environments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "key", "message"),
    [
        ("sc2", "map_name=3m", "env 'sc2' needs SMAC and StarCraft II: .*oxwhirl/smac .*--env-config=smax"),
        ("sc2v2", "map_name=10gen_terran", "env 'sc2v2' needs SMACv2 and StarCraft II: .*smacv2; .*=smax"),
        (
            "smaclite",
            "map_name=MMM",
            "env 'smaclite' needs SMAClite: .*--no-deps .*uoe-agents/smaclite .*; .*--env-config=smax",
        ),
    ],
)
@pytest.mark.parametrize("stage", ["kd_student", "qmix"])
def test_a_package_that_is_not_installed_is_named(mains, tmp_path, stage, environment, key, message):
    run = mains.run(
        *(f"--config={stage}", f"--env-config={environment}", "with", f"env_args.{key}"),
        f"local_results_path={tmp_path}",
    )
    assert re.match(message, run.error)


def test_starcraft_that_is_not_installed_is_found_before_any_worker_starts(mains, tmp_path):
    """SMAC is there, the game is not."""
    package = tmp_path / "smac" / "env"
    package.mkdir(parents=True)
    (tmp_path / "smac" / "__init__.py").touch()
    (package / "__init__.py").write_text(
        "class MultiAgentEnv: ...\n"
        "class StarCraft2Env(MultiAgentEnv):\n"
        "    def __init__(self, **kwargs): raise AssertionError('started without the game')\n"
    )
    run = mains.run(
        *("--config=qmix", "--env-config=sc2", "with", "env_args.map_name=3m", f"local_results_path={tmp_path}"),
        before=f"import sys; sys.path.append({str(tmp_path)!r})",
        env={"SC2PATH": "/no/such"},
    )
    assert re.match("env 'sc2' needs StarCraft II, and there is none at /no/such: install it .*smax", run.error)


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        (
            ["env_args.key=pz-mpe-no-such-v3"],
            "no PettingZoo environment 'pz-mpe-no-such-v3': valid: .*simple-spread-v3",
        ),
        (["env_args.key=NoSuch-v0"], "Gymnasium has no environment 'NoSuch-v0'"),
        (["env_args.key=CartPole-v1", "env_args.max_cycles=26"], "env 'gymma' cannot be built for CartPole-v1: "),
        (["env_args.time_limit=0"], r"env_args\.time_limit is 0: expected a whole number of at least 1"),
    ],
)
def test_an_environment_that_cannot_be_built_says_why(mains, tmp_path, updates, message):
    assert re.search(message, mains.run(*words("mappo", tmp_path, *updates)).error)


def test_mpe_without_its_package_says_what_to_install(mains, tmp_path):
    run = mains.run(
        *words("mappo", tmp_path), before="import sys; sys.modules['mpe2'] = sys.modules['pettingzoo'] = None"
    )
    assert "needs a package that is not installed: pip install 'mpe2'" in run.error


# --- evaluation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ([], "evaluate=True found no checkpoint of this configuration and teacher: give checkpoint_path="),
        (["checkpoint_path=/no/such"], r"checkpoint_path=/no/such holds no saved steps \(folders such as 50000\)"),
    ],
)
def test_evaluation_without_a_checkpoint_is_refused(mains, tiny_teacher, tmp_path, updates, message):
    run = mains.run(*words("kd_student", tmp_path, f"teacher={tiny_teacher}", "evaluate=True", *updates))
    assert re.match(message, run.error)


def test_a_single_step_is_told_from_the_folder_of_all_steps(mains, tiny_teacher, tmp_path):
    run = mains.run(*words("kd_teacher", tmp_path, "evaluate=True", f"checkpoint_path={tiny_teacher}"))
    folder, step = tiny_teacher.parent, tiny_teacher.name
    assert run.error == (
        f"checkpoint_path={tiny_teacher} is a single step: give checkpoint_path={folder} load_step={step}"
    )


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            "agent=rnn_feat",
            "agent 'rnn_feat' is not registered; EPyMARL itself has it: set EPYMARL_HOME=.* or valid: rnn, rnn_ns",
        ),
        (
            "critic_type=coma_critic",
            "critic_type 'coma_critic' is not registered; EPyMARL itself has it: .*'ac_critic'",
        ),
        ("critic_type=cv_critik", "critic_type 'cv_critik' is not registered; did you mean 'cv_critic'"),
        ("learner=coma_learner", "learner 'coma_learner' is not registered; EPyMARL itself has it: set EPYMARL_HOME"),
    ],
)
def test_a_part_that_the_bundled_runtime_lacks_is_one_line_with_the_nearest(mains, tmp_path, part, message):
    assert re.match(message, mains.run(*words("mappo", tmp_path, part)).error)


# --- a full disk ---------------------------------------------------------------------------------------------------

# The disk takes the first two shards and no more.
FULL_AFTER_TWO_SHARDS = """
import errno, os
sync = os.fsync
def full(descriptor):
    if "shard-00002" in os.readlink(f"/proc/self/fd/{descriptor}"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    sync(descriptor)
os.fsync = full
"""


def assert_two_shards_are_valid_and_the_export_can_go_on(mains, buffer, command):
    assert check_buffer(buffer) is None
    assert ExpertBuffer.open(buffer).episodes == 16
    before = {path.name: path.read_bytes() for path in buffer.glob("shard-*")}
    assert len(before) == 2
    assert not list(buffer.glob(".*tmp"))
    mains.run(*command, "resume=True").check()
    assert check_buffer(buffer) is None
    assert ExpertBuffer.open(buffer).episodes == 24
    assert {name: (buffer / name).read_bytes() for name in before} == before


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which file is written")
def test_a_disk_that_fills_up_while_exporting_keeps_the_finished_shards(mains, tiny_teacher, tmp_path):
    buffer = tmp_path / "buffer"
    command = words("kd_export", tmp_path, f"teacher={tiny_teacher}", f"expert_buffer={buffer}")
    error = mains.run(*command, before=FULL_AFTER_TWO_SHARDS).error
    assert re.match(rf"disk full while writing {buffer}/shard-00002\.safetensors .*finished before it are valid", error)
    assert_two_shards_are_valid_and_the_export_can_go_on(mains, buffer, command)


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("with_results", [False, True], ids=["buffer", "everything"])
def test_a_disk_that_is_really_full_keeps_the_finished_shards(mains, tiny_teacher, tiny_buffer, tmp_path, with_results):
    """Also where Sacred's own record of the run shares the disk."""
    size = 4 * (tiny_buffer / "shard-00000.safetensors").stat().st_size
    with small_disk(tmp_path / "disk", size) as disk:
        buffer = disk / "buffer"
        results = disk if with_results else tmp_path
        options = [f"teacher={tiny_teacher}", f"expert_buffer={buffer}", "buffer_episodes=64"]
        command = words("kd_export", results, *options)
        assert mains.run(*command).error.startswith(f"disk full while writing {buffer}/")
        assert check_buffer(buffer) is None
        before = {path.name: path.read_bytes() for path in buffer.glob("shard-*")}
        assert before
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        mains.run(*command, "resume=True").check()
        assert ExpertBuffer.open(buffer, check=True).episodes == 64
        assert {name: (buffer / name).read_bytes() for name in before} == before


def test_a_mistake_that_the_bundled_host_finds_is_one_line_too(mains, tmp_path):
    words = ["--config=qmix", "--env-config=mpe", "with", f"env_args.key={TASK}", f"local_results_path={tmp_path}"]
    run = mains.run(*words, "common_reward=False", "use_cuda=False")
    assert run.error.startswith("learner 'q_learner' (mixer qmix) learns from a common reward only")
