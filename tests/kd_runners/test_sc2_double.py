"""`sc2`, `sc2v2` and `smaclite` through the host's wrappers, on doubles of their packages."""

from __future__ import annotations

import dataclasses
import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from epymarl_lite.envs import REGISTRY
from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_core.errors import UserError
from kd_core.host import get_host
from kd_marl.cli import main
from kd_runners import environments
from kd_runners.environments import describe
from kd_runners.time_limits import TimeLimits
from smac_layouts import DOUBLE, smac_env
from stage_fixtures import TINY

ON_THE_PATH = f"import sys; sys.path.append({str(DOUBLE)!r})"


@pytest.fixture
def game(tmp_path, monkeypatch):
    """A folder that looks like StarCraft II with SMAC's maps."""
    folder = tmp_path / "StarCraftII"
    (folder / "Maps" / "SMAC_Maps").mkdir(parents=True)
    (folder / "Versions").mkdir()
    monkeypatch.setenv("SC2PATH", str(folder))
    return folder


@pytest.fixture
def doubles(game, monkeypatch):
    """The doubles can be imported, for one test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(DOUBLE))
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("duel", "smac", "smacv2", "smaclite"):
            del sys.modules[name]


def words(config, results, *updates, env="sc2", task="3m"):
    own = [f"env_args.map_name={task}", f"local_results_path={results}", *TINY.get(config, []), "runner=vector"]
    return [f"--config={config}", f"--env-config={env}", "with", *own, *updates]


# --- Whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def battles(mains, tmp_path_factory):
    """A teacher of the double's 3m, its expert buffer and its students, each through src/main.py."""
    results = tmp_path_factory.mktemp("sc2")
    folder = results / "StarCraftII"
    (folder / "Maps" / "SMAC_Maps").mkdir(parents=True)
    (folder / "Versions").mkdir()
    options = {"before": ON_THE_PATH, "env": {"SC2PATH": str(folder)}}
    mains.run(*words("kd_teacher", results, "seed=1", "t_max=300"), **options).check()
    mains.run(*words("kd_export", results, "seed=1"), **options).check()
    student = mains.run(*words("kd_student", results, "seed=2", "limits=lha"), **options).check()
    return SimpleNamespace(results=results, student=student, options=options)


def test_a_student_of_sc2_ends_with_win_rates(battles):
    summary = battles.student.summary
    assert (summary["task"], summary["limits"], summary["masks_preset"]) == ("3m", "lha", "paper")
    for policy in ("teacher", "student", "random"):
        # Half of the battles cannot be won: the enemies are out of reach until the time is up.
        assert 0.0 <= summary[policy]["win_rate"] <= 0.5
        assert summary[policy]["return_mean"] >= 0.0


def test_students_of_sc2_take_what_table_1_shows_them(battles):
    """Of 30 features the enemies' 15, the allies' 10, and those and their own; the four moves each."""
    files = list(battles.results.glob("models/kd_student*/*/checkpoint.json"))
    facts = json.loads(max(files, key=lambda file: int(file.parent.name)).read_text())
    assert facts["mask"]["visible"] == [[*range(19)], [*range(4), *range(19, 29)], [*range(4), *range(19, 30)]]
    assert facts["mask"]["layout"]["agents"][2]["features"][-1] == "O.health"
    assert facts["widths"] == [24, 16, 24]


def test_the_buffer_tells_time_limits_from_ended_battles(battles):
    buffer = ExpertBuffer.open(next(battles.results.glob("buffers/3m/*/buffer.json")).parent, check=True)
    shards = list(buffer.shards(("terminated", "truncated", "avail_actions", "actions", "length")))
    ended, cut = (torch.cat([shard[key] for shard in shards]).bool().any(1) for key in ("terminated", "truncated"))
    assert bool((ended ^ cut).all())
    assert cut.any(), "every second battle runs out of time"
    assert ended.any(), "the others end"
    assert (buffer.lengths[cut] == 60).all()
    for shard in shards:
        taken = shard["avail_actions"][:, :-1].gather(-1, shard["actions"].unsqueeze(-1)).squeeze(-1)
        played = torch.arange(taken.shape[1]) < shard["length"].unsqueeze(-1)
        assert bool(taken[played].bool().all()), "an action that was not available"


@pytest.mark.parametrize(("env", "task"), [("sc2v2", "10gen_terran"), ("smaclite", "2s3z")])
def test_a_stock_algorithm_trains_on_the_others_under_limits(mains, battles, tmp_path, env, task):
    small = ["batch_size_run=2", "batch_size=2", "buffer_size=2", "hidden_dim=8", "t_max=90", "test_nepisode=2"]
    updates = [*small, "limits=lh", "final_evaluation=True", "eval_episodes=2"]
    run = mains.run(*words("mappo", tmp_path, *updates, env=env, task=task), **battles.options).check()
    found = next(value for value in run.summary.values() if isinstance(value, dict) and "win_rate" in value)
    assert 0.0 <= found["win_rate"] <= 1.0


# --- What the environments say ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "env_args", "sizes"),
    [
        ("sc2", {"map_name": "5m_vs_6m"}, {"move": 4, "E": 30, "A": 20, "O": 1}),
        ("smaclite", {"map_name": "3s5z", "time_limit": 9}, {"move": 4, "E": 64, "A": 56, "O": 4}),
    ],
)
def test_the_hosts_wrapper_is_described_with_its_parts(doubles, env, env_args, sizes):
    info = describe(REGISTRY[env](**env_args, common_reward=True, reward_scalarisation="sum", seed=1))
    assert {part.name: part.size for part in info["observation"]} == sizes
    assert sum(sizes.values()) == info["obs_shape"]


def test_an_environment_of_another_kind_is_described_as_before():
    env = REGISTRY["gymma"](key="pz-mpe-simple-spread-v3", time_limit=5, seed=1)
    assert describe(env) == env.get_env_info()
    env.close()


def test_masks_shows_sc2(doubles, capsys):
    assert main(["masks", "--env-config=sc2", "--map-name=3s5z", "--limits=lha"]) == 0
    out = capsys.readouterr().out
    assert "3s5z: who sees what (paper)" in out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "agent_" in line]
    assert [row[1] for row in rows] == ["E", "E, A", "E", "A", "A", "A, O", "A, O", "E, O"]
    assert rows[0][4:] == ["68 of 128", "24"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env-config=sc2", "--map-name=3m", "--n-agents=3"], "--n-agents is for --env-config smax; sc2 says"),
        (["--env-config=smax", "--map-name=3m", "--n-agents=3"], "give --n-agents 5 --n-enemies 6"),
        (["--env-config=smax", "--map-name=3m", "--n-agents=0", "--n-enemies=1"], "two numbers of at least 1"),
    ],
)
def test_masks_refuses_sizes_that_are_none(arguments, message, capsys):
    assert main(["masks", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_masks_of_any_battle_needs_no_jaxmarl(monkeypatch, capsys):
    for package in ("jax", "jaxmarl"):
        monkeypatch.setitem(sys.modules, package, None)
    assert main(["masks", "--env-config=smax", "--map-name=mine", "--n-agents=9", "--n-enemies=4"]) == 0
    assert "52 of 166" in capsys.readouterr().out


# --- What is missing -------------------------------------------------------------------------------------------------


def refusal(env, task="3m"):
    host = get_host()
    with pytest.raises(UserError) as error:
        environments.check_installed(host, SimpleNamespace(env=env, env_args={"map_name": task}))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("env", ["sc2", "sc2v2"])
def test_a_game_or_maps_that_are_missing_are_named(doubles, game, env, monkeypatch):
    (game / "Versions").rmdir()
    assert f"env '{env}' needs StarCraft II, and {game} has no Versions folder" in refusal(env)
    (game / "Versions").mkdir()
    (game / "Maps" / "SMAC_Maps").rmdir()
    assert f"env '{env}' needs SMAC's maps, and {game}/Maps/SMAC_Maps is missing" in refusal(env)
    monkeypatch.setenv("SC2PATH", "/no/such")
    assert f"env '{env}' needs StarCraft II, and there is none at /no/such: install it" in refusal(env)
    assert refusal(env).endswith("or use --env-config=smax")
    monkeypatch.delenv("SC2PATH")
    monkeypatch.setattr(sys, "platform", "darwin")
    environments.check_installed(get_host(), SimpleNamespace(env=env))  # there an installer knows the place


def test_the_other_program_called_smac_is_no_smac(tmp_path, monkeypatch):
    (tmp_path / "smac").mkdir()
    (tmp_path / "smac" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    message = refusal("sc2")
    sys.modules.pop("smac", None)
    assert "pip install git+https://github.com/oxwhirl/smac (PyPI's 'smac' is another program)" in message


# --- On a checkout ---------------------------------------------------------------------------------------------------


class CheckoutWrapper:
    """EPyMARL's wrapper of SMAC: every end is a termination."""

    def __init__(self, **env_args):
        self.env = smac_env("smac", **env_args)

    def step(self, actions):
        reward, ended, info = self.env.step(actions)
        return self.env.get_obs(), reward, ended, False, info


@pytest.mark.parametrize("battle", [0, 1], ids=["within reach", "out of reach"])
def test_time_limits_of_a_checkouts_smac_are_truncations(battle):
    env = TimeLimits(CheckoutWrapper(map_name="3m"), flagged=True)
    for _ in range(battle + 1):
        env.env.reset()
    results = []
    while not (results and (results[-1][2] or results[-1][3])):
        actions = [int(np.flatnonzero(row)[-1]) for row in env.env.get_avail_actions()]
        # Out of reach the last action is a step east: stay instead.
        results.append(env.step([action if action >= 6 else min(action, 1) for action in actions]))
    _, _, terminated, truncated, info = results[-1]
    assert (terminated, truncated) == ((False, True) if battle else (True, False))
    assert info.get("episode_limit", False) is bool(battle)
    assert info["battle_won"] is not bool(battle)
    assert all("episode_limit" not in step[4] for step in results[:-1])
    assert len(results) == 60 if battle else len(results) < 60


def test_sc2_is_registered_once_on_a_checkout(monkeypatch):
    """Its runners register it anew, which would undo the limits of the run."""
    registry = {}
    envs = ModuleType("envs")
    envs.register_smac = lambda: registry.update(sc2="SMAC")
    runners = {name: ModuleType(name) for name in ("runners.episode_runner", "runners.parallel_runner")}
    for module in runners.values():
        module.register_smac = envs.register_smac
    for name, module in {"envs": envs, "runners": ModuleType("runners"), **runners}.items():
        monkeypatch.setitem(sys.modules, name, module)
    host = dataclasses.replace(get_host(), name="epymarl")
    vars(host)["envs"] = registry
    host.register_starcraft("sc2")
    assert registry == {"sc2": "SMAC"}
    registry["sc2"] = "with limits"
    host.register_starcraft("sc2")
    for module in runners.values():
        module.register_smac()
    assert registry == {"sc2": "with limits"}


def test_sc2_on_a_real_checkout(mains, battles, checkout, tmp_path):
    options = {**battles.options, "env": {**battles.options["env"], **checkout, "PYTHONPATH": str(DOUBLE)}}
    teacher = next(battles.results.glob("models/kd_teacher*/*/teacher.json")).parent
    run = mains.run(*words("kd_student", tmp_path, f"teacher={teacher}", "limits=lh"), **options).check()
    assert run.summary["student"]["win_rate"] is not None
    buffer = ExpertBuffer.open(next(tmp_path.glob("buffers/3m/*/buffer.json")).parent, check=True)
    cut = torch.cat([shard["truncated"].bool().any(1) for shard in buffer.shards(("truncated",))])
    assert cut.any()
    assert not cut.all()
    assert (buffer.lengths[cut] == 60).all()
