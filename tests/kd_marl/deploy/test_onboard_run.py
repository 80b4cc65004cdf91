"""`kd-marl run`: agents in processes of their own play the student's episodes as the torch student does."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kd_core.errors import UserError
from kd_marl.cli import main
from kd_marl.deploy import signing
from kd_marl.deploy.agent_process import AgentProcess
from kd_marl.deploy.settings import other_episodes
from kd_onboard import OnboardAgent, read_bundle, serve
from onboard_bundles import ACTIONS, SEEN, change_profile, untrained_run, write_bundle
from stage_fixtures import TASK


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return read_bundle(write_bundle(tmp_path_factory.mktemp("bundles") / "spread"))


@pytest.fixture
def agents(bundle):
    """All three agents' processes, ready."""
    started = [AgentProcess(bundle, profile, "numpy", slots=2) for profile in bundle.agents]
    for agent in started:
        agent.wait_until_ready()
    yield started
    for agent in started:
        agent.close()


def run(folder, *words, task=TASK):
    return main(["run", str(folder), "--env-config=mpe", *words, "with", f"env_args.key={task}", "runner=parallel"])


@pytest.mark.skipif(
    "EPYMARL_HOME" in os.environ, reason="EPyMARL's gymma plays other episodes of a seed than the bundled"
)
@pytest.mark.parametrize("backend", ["numpy", "c"])
def test_the_bundle_returns_what_the_torch_student_returned(tiny_bundle, tmp_path, capsys, monkeypatch, backend):
    monkeypatch.setenv("KD_ONBOARD_CACHE", str(tmp_path / "compiled"))
    words = ["--backend", backend, "--json", str(tmp_path / "result.json")]
    assert run(tiny_bundle, *words, *(["--trust"] if backend == "c" else [])) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    recorded = read_bundle(tiny_bundle).profile.measured["student"]
    # The same greedy actions in the same episodes: the very same returns.
    assert result["bundle"]["return_mean"] == pytest.approx(recorded["return_mean"], abs=1e-6)
    assert result["bundle"]["return_std"] == pytest.approx(recorded["return_std"], abs=1e-6)
    assert result["bundle"]["episodes"] == recorded["episodes"] == 8 and result["same_episodes"]
    out = capsys.readouterr().out
    assert re.search(rf"^bundle, {backend} +8 +-?\d+\.\d+  -?\d+\.\d+ to -?\d+\.\d+$", out, re.MULTILINE), out
    assert "torch student" in out and "the same episodes" in out


def test_drawn_actions_are_those_of_the_seed_and_stand_beside_the_students_drawn_ones(tiny_bundle, tmp_path, capsys):
    found = []
    for backend, seed in (("numpy", "7"), ("onnx", "7"), ("numpy", str(2**64 - 1))):
        assert run(tiny_bundle, "--backend", backend, "--sample", seed, "--json", str(tmp_path / "result.json")) == 0
        result = json.loads((tmp_path / "result.json").read_text())
        found.append(result["bundle"])
        assert result["sample"] == int(seed)
        measured = read_bundle(tiny_bundle).profile.measured["student"]
        assert result["torch"] == {**measured["sampled"], "episodes": measured["episodes"]} != measured
        assert f"actions drawn with seed {seed}\n" in capsys.readouterr().out
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"seed": 2}, "another seed"),
        ({"batch_size_run": 1}, "another batch_size_run"),
        ({"runner": "vector"}, "another runner"),
        ({"time_limit": 7}, "another env_args.time_limit"),
        ({"episodes": 9, "seed": 0}, "another seed, number of episodes"),
    ],
)
def test_the_same_episodes_are_those_that_the_run_was_evaluated_in(tiny_bundle, change, why):
    profile = read_bundle(tiny_bundle).profile
    recorded = profile.provenance, profile.raw["task"]["env_args"], profile.measured["student"]
    provenance, env_args, score = map(dict, recorded)
    env_args["seed"] = provenance["seed"]
    runner = provenance["runner"]
    here = SimpleNamespace(
        runner=change.get("runner", runner),
        common_reward=provenance["common_reward"],
        reward_scalarisation=provenance["reward_scalarisation"],
        seed=change.get("seed", provenance["seed"]),
        batch_size_run=change.get("batch_size_run", provenance["batch_size_run"]),
        env_args={**env_args, **({"time_limit": 7} if "time_limit" in change else {}), "a_later_key": True},
    )
    found = SimpleNamespace(provenance=provenance, raw=profile.raw, measured={"student": score})
    said = other_episodes(found, here, change.get("episodes", score["episodes"]))
    assert (why in said) if why else said == ""


def without(key):
    return lambda profile: profile["measured"]["student"].pop(key)


DOUBTFUL = {
    "no table": lambda profile: profile["measured"].update(student=[1]),
    "no deviation": without("return_std"),
    "text": lambda profile: profile["measured"]["student"].update(return_mean="high"),
    "wins": lambda profile: profile["measured"]["student"].update(win_rate="all"),
    "more wins than battles": lambda profile: profile["measured"]["student"].update(win_rate=5.0),
    "more environments than fit": lambda profile: profile["provenance"].update(batch_size_run=10**12),
    "a seed that none is": lambda profile: profile["provenance"].update(seed=10**25),
    "endless episodes": lambda profile: profile["measured"]["student"].update(episodes=10**12),
    "no environments": lambda profile: profile["provenance"].update(batch_size_run=0),
    "no arguments": lambda profile: profile["task"].update(env_args=[1]),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_profile_that_is_well_sealed_and_says_nonsense_ends_without_a_traceback(tiny_bundle, tmp_path, capsys, name):
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    change_profile(folder, DOUBTFUL[name])
    assert run(folder, "--episodes", "2") == 0
    assert ("not in the profile" in capsys.readouterr().out) == (
        name not in ("no environments", "no arguments", "more environments than fit", "a seed that none is")
    )


def test_a_bundle_names_no_code_that_its_environment_loads(tiny_bundle, tmp_path, capsys):
    """A wrapper is imported by name: a bundle's own file could be it."""
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    change_profile(folder, lambda profile: profile["task"]["env_args"].update(pretrained_wrapper="no_module:Wrapper"))
    assert run(folder, "--episodes", "2") == 0
    assert "env_args.pretrained_wrapper" in capsys.readouterr().out


def test_rewards_on_another_scale_are_not_called_the_same_episodes(tiny_bundle, capsys):
    words = [f"env_args.key={TASK}", "runner=parallel", "reward_scalarisation=mean"]
    assert main(["run", str(tiny_bundle), "--env-config=mpe", "with", *words]) == 0
    assert "other episodes (another reward_scalarisation)" in capsys.readouterr().out


def test_other_episodes_are_called_so(tiny_bundle, tmp_path, capsys):
    assert run(tiny_bundle, "--episodes", "3", "--json", str(tmp_path / "result.json")) == 0
    assert "other episodes" in capsys.readouterr().out
    assert not json.loads((tmp_path / "result.json").read_text())["same_episodes"]


@pytest.mark.parametrize(
    ("words", "task", "message"),
    [
        (["--backend", "cuda"], TASK, "there is no backend 'cuda'"),
        (["--episodes", "0"], TASK, "eval_episodes is 0"),
        (["--sample", "-1"], TASK, "the seed of a generator is -1, expected a whole number below 2^64"),
        (["--sample", str(2**64)], TASK, "the seed of a generator is 18446744073709551616"),
        ([], "pz-mpe-simple-spread-v3", "plays pz-mpe-simple-speaker-listener-v4, not pz-mpe-simple-spread-v3"),
        (["--backend", "onnx"], TASK, "no ONNX model"),
        (["--json", "no_folder/result.json"], TASK, "there is no folder no_folder"),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_one_line(tiny_bundle, tmp_path, capsys, words, task, message):
    folder = tmp_path / "bundle"
    subprocess.run(["cp", "-r", str(tiny_bundle), str(folder)], check=True)
    change_profile(folder, lambda profile: [agent.update(onnx=None) for agent in profile["agents"]])
    assert run(folder, *words, task=task) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]


def test_c_of_a_bundle_is_run_only_with_a_key_or_with_trust(tiny_bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KD_ONBOARD_CACHE", str(tmp_path / "compiled"))
    monkeypatch.setenv("KD_ONBOARD_STATE", str(tmp_path / "state"))
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    words = ["--backend", "c", "--episodes", "2"]
    assert run(folder, *words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "--key FILE" in lines[0] and "--trust" in lines[0]
    for name in ("robots", "others"):
        signing.generate(tmp_path / name)
    signing.sign(read_bundle(folder), tmp_path / "robots.key")
    assert run(folder, *words, "--key", str(tmp_path / "others.pub")) == 2
    assert "is signed by the key" in capsys.readouterr().err
    assert not (tmp_path / "compiled").exists()
    assert run(folder, *words, "--key", str(tmp_path / "robots.pub")) == 0
    assert run(folder, "--episodes", "2", "--key", str(tmp_path / "robots.pub")) == 0
    assert len(list((tmp_path / "state").iterdir())) == 1


def test_a_damaged_bundle_is_not_played(tmp_path, capsys):
    folder = write_bundle(tmp_path / "bundle")
    (folder / "c/agent_0/kd_agent_0.c").write_text("int main;")
    assert run(folder) == 2
    assert capsys.readouterr().err.startswith("error: ") and "damaged" in read_error(folder)


def read_error(folder):
    with pytest.raises(ValueError, match="damaged") as error:
        read_bundle(folder)
    return str(error.value)


class Tee:
    """Stands in for a pipe and keeps what goes through it."""

    def __init__(self, pipe):
        self.pipe, self.data = pipe, b""

    def write(self, data):
        self.data += data
        return self.pipe.write(data)

    def flush(self):
        self.pipe.flush()

    def close(self):
        self.pipe.close()


def host_batch(obs, available):
    batch = {
        "obs": torch.from_numpy(obs)[:, None],
        "avail_actions": torch.from_numpy(available.astype(np.int32))[:, None],
    }
    return batch


def test_only_an_agents_own_features_cross_its_pipe(agents, bundle):
    from kd_core.host import get_host

    get_host()
    from kd_marl.deploy.play import BundleMAC

    args = SimpleNamespace(n_agents=3, agent_output_type="pi_logits", action_selector="soft_policies", test_greedy=True)
    mac = BundleMAC(agents, args)
    tees = [Tee(agent._requests) for agent in agents]
    for agent, tee in zip(agents, tees, strict=True):
        agent._requests = tee
    rng = np.random.default_rng(0)
    obs = rng.standard_normal((2, 3, 18)).astype(np.float32)
    available = np.ones((2, 3, ACTIONS), bool)
    mac.init_hidden(2)
    resets = [tee.data for tee in tees]
    chosen = mac.select_actions(host_batch(obs, available), 0, 0, test_mode=True)
    for i, tee in enumerate(tees):
        # By hand: 'A', the count, and for each episode its slot, the features and the availability.
        own = [
            np.uint16(row).tobytes() + obs[row, i, SEEN[i]].tobytes() + available[row, i].tobytes() for row in (0, 1)
        ]
        assert tee.data[len(resets[i]) :] == b"A" + b"\x02\x00" + b"".join(own)
        assert resets[i] == b"R\x00\x00R\x01\x00"
    # What an agent must not see may be anything: not one byte, and not one action, changes.
    hidden = rng.standard_normal((2, 3, 18)).astype(np.float32) * 100
    for i, seen in enumerate(SEEN):
        hidden[:, i, seen] = obs[:, i, seen]
    before = [tee.data[len(reset) :] for tee, reset in zip(tees, resets, strict=True)]
    for tee in tees:
        tee.data = b""
    mac.init_hidden(2)
    again = mac.select_actions(host_batch(hidden, available), 0, 0, test_mode=True)
    assert torch.equal(chosen, again)
    assert [tee.data[6:] for tee in tees] == before


def test_an_agents_process_has_no_torch_and_no_training_code(agents):
    for agent in agents:
        maps = Path(f"/proc/{agent.pid}/maps").read_text()
        assert "numpy" in maps and "torch" not in maps
        # Its input, its output and its messages; and no file or socket of ours.
        targets = {os.readlink(f"/proc/{agent.pid}/fd/{name}") for name in os.listdir(f"/proc/{agent.pid}/fd")}
        assert sum(target.startswith("pipe:") for target in targets) <= 2 and not any("socket" in t for t in targets)
    code = "import sys, kd_onboard.serve; print(sorted(m for m in sys.modules if m.split('.')[0] in %r))"
    banned = ("torch", "kd_marl", "kd_learners", "kd_controllers", "envs", "epymarl_lite", "safetensors", "yaml")
    done = subprocess.run(
        [sys.executable, "-c", code % (banned,)],
        env={"PYTHONPATH": str(Path(serve.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_slots_are_episodes_of_their_own(agents, bundle):
    rng = np.random.default_rng(1)
    features = rng.standard_normal((6, 2, len(SEEN[2]))).astype(np.float32)
    may = np.ones((2, ACTIONS), bool)
    agent = agents[2]
    agent.reset(2)
    found = []
    for t, rows in enumerate(features):
        if t == 3:
            # The second episode is over: only the first goes on.
            agent.ask(np.array([0]), rows[:1], may[:1])
        else:
            agent.ask(np.array([0, 1]), rows, may)
        found.append(agent.answer().tolist())
    alone = OnboardAgent.load(bundle, 2)
    assert [actions[0] for actions in found] == [alone.act(row, may[0]) for row in features[:, 0]]
    alone.reset()
    taken = [t for t in range(6) if t != 3]
    assert [found[t][1] for t in taken] == [alone.act(features[t, 1], may[0]) for t in taken]


def test_a_dying_agent_is_one_line(agents):
    os.kill(agents[1].pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"^the process of agent 1 \('agent_1'\) died \(signal SIGKILL\)$"):
        agents[1].ask(np.array([0]), np.zeros((1, 5), np.float32), np.ones((1, ACTIONS), bool))
        agents[1].answer()


def test_a_hanging_agent_is_one_line(agents, monkeypatch):
    monkeypatch.setattr("kd_marl.deploy.agent_process.ANSWER_PATIENCE_S", 0.2)
    os.kill(agents[1].pid, signal.SIGSTOP)
    try:
        agents[1].ask(np.array([0]), np.zeros((1, 5), np.float32), np.ones((1, ACTIONS), bool))
        with pytest.raises(UserError, match="gave no answer within 0 s: its process hangs"):
            agents[1].answer()
    finally:
        os.kill(agents[1].pid, signal.SIGCONT)


def test_a_fault_in_an_agents_process_arrives_whole(agents):
    agents[0].ask(np.array([0]), np.full((1, 3), np.nan, np.float32), np.ones((1, ACTIONS), bool))
    with pytest.raises(UserError, match=r"^agent 0 \('agent_0'\): feature 0 \('.+'\) is nan"):
        agents[0].answer()


def test_a_missing_backend_is_said_at_the_start(bundle, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    agent = AgentProcess(bundle, bundle.agents[0], "c", slots=1, trust=True)
    try:
        with pytest.raises(UserError, match="backend 'c' needs a C compiler"):
            agent.wait_until_ready()
    finally:
        agent.close()


def test_no_agent_outlives_its_parent(bundle):
    code = (
        "import sys, time\n"
        "from kd_marl.deploy.agent_process import AgentProcess\n"
        "from kd_onboard import read_bundle\n"
        "bundle = read_bundle(sys.argv[1])\n"
        "agents = [AgentProcess(bundle, profile, 'numpy', 1) for profile in bundle.agents]\n"
        "[agent.wait_until_ready() for agent in agents]\n"
        "print(*[agent.pid for agent in agents], flush=True)\n"
        "time.sleep(60)\n"
    )
    root = str(Path(serve.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(bundle.folder)],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 3
        parent.kill()
    until = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in pids if alive(pid)]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("request_bytes", [b"X\x00\x00", b"A\x02\x00abc", b"R\x09\x00", b"A"])
def test_a_request_that_is_none_ends_the_process_with_a_reason(bundle, request_bytes):
    command = [sys.executable, "-m", "kd_onboard.serve", str(bundle.folder), "--agent", "0"]
    path = {"PYTHONPATH": str(Path(serve.__file__).parents[1])}
    done = subprocess.run(command, input=request_bytes, capture_output=True, env=path)
    assert done.returncode == 1 and done.stderr == b""
    assert done.stdout[:2] == b"RE"
    (length,) = serve.LENGTH.unpack(done.stdout[2:6])
    assert len(done.stdout) == 6 + length


@pytest.mark.parametrize("preset", ["paper", "random"])
@pytest.mark.parametrize(("task", "agents", "size"), [("pz-mpe-simple-spread-v3", 3, 18), ("unknown-v0", 2, 7)])
def test_the_mask_is_the_students_own(tmp_path, task, agents, size, preset):
    """Derived features and masks drawn per episode included, from the profile alone."""
    from kd_envs.hetero_mask.known_layouts import layout_for
    from kd_envs.hetero_mask.mask import ObservationMask
    from kd_envs.hetero_mask.presets import mask_for
    from kd_marl.deploy import export as exporting
    from kd_marl.deploy.play import bundle_mask

    layout = layout_for(task, agents, size)
    if task.startswith("unknown"):
        visible = np.tri(agents, size, 3, dtype=bool)
        mask = ObservationMask(layout, visible, [(2, 3), (1, 4)] if preset == "random" else None)
    else:
        mask = mask_for(layout, "lh", preset, {})
    student = untrained_run(task, "gymma", mask, [4] * agents, ACTIONS)
    exporting.export(student, tmp_path / "bundle", 25, None, exporting.Options(int8=False, latency=False))
    found = bundle_mask(read_bundle(tmp_path / "bundle"), {})
    assert found.signature() == mask.signature()
    np.testing.assert_array_equal(found.draw(3, 5), mask.draw(3, 5))


def test_features_that_mean_something_else_here_are_refused(tmp_path):
    from kd_marl.deploy.play import bundle_mask

    folder = write_bundle(tmp_path / "bundle")
    change_profile(folder, lambda profile: profile["agents"][1]["features"][2].update(name="sonar"))
    with pytest.raises(UserError, match=r"^agent 1 \('agent_1'\) of .+ reads feature 2 as 'sonar', which this version"):
        bundle_mask(read_bundle(folder), {})
