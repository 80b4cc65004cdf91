"""Stock algorithms under the same limits: masks in the environment, and a width for each agent in `hetero_mac`."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest
import torch

from kd_controllers.hetero_mac import HeteroMAC
from kd_core.config import assemble, parse_command
from kd_core.errors import UserError
from stage_fixtures import TASK, words
from tiny_stages import HOST, described, scheme_of, stage_args

BASELINES = ("mappo", "qmix", "vdn")
LIMITS = ("fo", "lh", "lha")
TINY = (
    *(
        "t_max=120",
        "test_nepisode=2",
        "test_interval=1000",
        "eval_episodes=4",
        "final_evaluation=True",
        "save_model=True",
    ),
    *("use_cuda=False", "hidden_dim=8", "seed=1", "batch_size=2"),
)


def config_of(name, *given):
    return assemble(
        HOST, parse_command([f"--config={name}", "--env-config=mpe", "with", f"env_args.key={TASK}", *given])
    )


# ------------------------------------------------------------------------------------------------------- configurations
@pytest.mark.parametrize("name", BASELINES)
def test_a_width_for_each_agent_means_networks_of_their_own(name):
    shared, own = config_of(name, "limits=lh"), config_of(name, "limits=lha")
    assert shared["mac"] == "basic_mac"
    assert (own["mac"], own["agent"], own["widths"]) == ("hetero_mac", "rnn", None)
    differing = {key for key in own if key not in shared or own[key] != shared[key]}
    assert differing == {"mac", "widths", "sharing", "command"}


def test_own_networks_of_one_width_and_widths_of_ones_own():
    assert config_of("mappo", "limits=lh", "mac=hetero_mac", "widths=32")["sharing"] == "none"
    assert config_of("vdn", "limits=lha", "widths=[8,12]")["mac"] == "hetero_mac"


def test_the_stages_of_ours_are_left_alone():
    assert config_of("kd_teacher", "limits=lha")["mac"] == "teacher_mac"


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        (
            "mappo",
            ["limits=lha", "mac=basic_mac"],
            "limits=lha gives every agent a network of its own width, which mac=b",
        ),
        ("qmix", ["limits=lh", "mask_at=controller"], "mask_at=controller is for students, .*--config=qmix"),
        ("mappo", ["limits=lh", "widths=[8,8]"], "unknown key 'widths' in 'with'"),
    ],
)
def test_what_cannot_be_is_one_line(name, given, message):
    with pytest.raises(UserError, match=message) as caught:
        config_of(name, *given)
    assert "\n" not in str(caught.value)


def test_an_algorithm_with_a_controller_of_its_own_is_refused(tmp_path):
    (tmp_path / "own.yaml").write_text('base: mappo\nmac: "maddpg_mac"\n')
    with pytest.raises(UserError, match=r"has a controller of its own \(maddpg_mac\), so limits=lha cannot give"):
        config_of(str(tmp_path / "own"), "limits=lha")


def test_a_yaml_that_names_the_controller_keeps_what_it_says_of_it(tmp_path):
    (tmp_path / "own.yaml").write_text('learner: "ppo_learner"\nmac: "hetero_mac"\nname: "own"\nsharing: "all"\n')
    config = config_of(str(tmp_path / "own"), "limits=lha")
    assert (config["mac"], config["sharing"], config["widths"]) == ("hetero_mac", "all", None)


# ------------------------------------------------------------------------------------------------------- the controller
def controller(tmp_path, name="mappo"):
    """A baseline's `hetero_mac` on the toy task, and a batch of its host with numbers in it."""
    args = stage_args(name, tmp_path)
    layer = assemble(
        HOST, parse_command([f"--config={name}", f"--env-config={tmp_path / 'signals.yaml'}", "with", "limits=lha"])
    )
    for key in ("mac", "agent", "widths", "sharing"):
        setattr(args, key, layer[key])
    args.limits, args.masks, args.widths = "lha", "0: [0, 1, 2], 1: [0, 1, 2, 4]", [8, 12]
    mask = described(args).mask
    mac = HeteroMAC(scheme_of(args), None, args, mask)
    scheme, groups = scheme_of(args), {"agents": args.n_agents}
    preprocess = {"actions": ("actions_onehot", [HOST.OneHot(out_dim=args.n_actions)])}
    batch = HOST.EpisodeBatch(scheme, groups, 3, 5, preprocess=preprocess, device="cpu")
    batch.update(
        {
            "obs": torch.randn(3, 5, args.n_agents, args.obs_size),
            "avail_actions": torch.ones(3, 5, args.n_agents, args.n_actions, dtype=torch.int),
        },
        bs=slice(None),
        ts=slice(0, 5),
    )
    batch.data.transition_data["avail_actions"][:, 1, 0, 2] = 0
    return mac, batch


@pytest.mark.parametrize("name", ["mappo", "vdn"])
def test_whole_episodes_and_single_steps_agree(tmp_path, name):
    mac, batch = controller(tmp_path, name)
    at_once = mac.forward_episodes(batch, 4)
    mac.init_hidden(3)
    stepped = torch.stack([mac.forward(batch, t) for t in range(4)], dim=1)
    torch.testing.assert_close(at_once, stepped, rtol=0, atol=1e-6)
    if name == "mappo":
        torch.testing.assert_close(at_once.sum(-1), torch.ones(3, 4, 2))
        assert at_once[:, 1, 0, 2].abs().max() == 0.0
    else:
        assert at_once.min().item() < 0.0, "values, not probabilities"
    # The hosts' learners go either way: a checkout's step by step.
    factor = torch.randn_like(at_once)
    gradients = []
    for outputs in (at_once, stepped):
        parameters = list(mac.parameters())
        gradients.append(torch.autograd.grad((outputs * factor).sum(), parameters))
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0])
    for whole, steps in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, steps, rtol=1e-4, atol=1e-5)


def test_agents_have_their_own_widths_and_weights(tmp_path):
    mac, _ = controller(tmp_path)
    assert mac.agent.widths == (8, 12)
    names = [id(parameter) for parameter in mac.parameters()]
    assert len(names) == len(set(names))
    networks = [mac.agent.agent_network(agent) for agent in range(2)]
    assert [network.rnn.hidden_size for network in networks] == [8, 12]
    assert [network.fc1.in_features for network in networks] == [3, 4]


# ----------------------------------------------------------------------------------------------------------- whole runs
def assert_is_a_baseline(run, name, limits, results):
    summary = run.summary
    assert (summary["algorithm"], summary["limits"], summary["episodes"]) == (name, limits, 4)
    assert np.isfinite(summary["policy"]["return_mean"])
    # Values are no distribution that actions could be drawn from.
    assert ("sampled" in summary["policy"]) == ("sampled" in run.out) == (name == "mappo")
    saved = sorted(results.glob(f"models/{name}*/*/agent.th"))
    state = torch.load(saved[-1], weights_only=True)
    own = any(key.startswith("width_") for key in state)
    assert own == (limits == "lha")
    assert summary["flops_per_decision"] > 0


# Each algorithm and each limit once; test-slow has every pair.
@pytest.mark.parametrize(
    ("name", "limits"),
    [
        pytest.param(name, limits, marks=() if i % 3 == j else pytest.mark.slow)
        for i, name in enumerate(BASELINES)
        for j, limits in enumerate(LIMITS)
    ],
)
def test_a_baseline_runs_on_particles_under_limits(mains, tmp_path, name, limits):
    run = mains.run(*words(name, tmp_path, *TINY, f"limits={limits}")).check()
    assert_is_a_baseline(run, name, limits, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_runs_on_battles_under_limits(mains, tmp_path, name, limits):
    if importlib.util.find_spec("jaxmarl") is None:
        pytest.skip("JaxMARL is not installed")
    given = [f"--config={name}", "--env-config=smax", "with", "env_args.map_name=3m", f"local_results_path={tmp_path}"]
    run = mains.run(*given, *TINY, f"limits={limits}", "runner=vector", "batch_size_run=2", "buffer_size=4").check()
    assert_is_a_baseline(run, name, limits, tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["batch_size=32"], "batch_size is 32 and buffer_size 10, so nothing would ever be learnt"),
        (["batch_size_run=16"], "batch_size_run is 16 and buffer_size 10, so episodes would be lost"),
        (["batch_size_run=0"], "batch_size_run is 0: expected a whole number of at least 1"),
        (["env_args.time_limit=50"], "env_args.max_cycles=26 would end an episode of env_args.time_limit=50 steps"),
    ],
)
def test_what_would_run_and_mean_nothing_is_refused(mains, tmp_path, given, message):
    line = ["--config=mappo", "--env-config=mpe", "with", f"env_args.key={TASK}", f"local_results_path={tmp_path}"]
    assert message in mains.run(*line, "use_cuda=False", *given).error


@pytest.mark.parametrize("name", ["mappo", "qmix"])
def test_weights_of_another_network_are_refused_in_one_line(mains, tmp_path, name):
    mains.run(*words(name, tmp_path, *TINY)).check()
    folder = next(tmp_path.glob(f"models/{name}*"))
    other = [word for word in TINY if not word.startswith("hidden_dim")]
    again = ["evaluate=True", f"checkpoint_path={folder}", "hidden_dim=16"]
    assert "holds no weights of this configuration" in mains.run(*words(name, tmp_path, *other, *again)).error
    for file in folder.glob("*/agent.th"):
        file.unlink()
    assert "holds no weights of this configuration" in mains.run(*words(name, tmp_path, *other, *again)).error


@pytest.mark.slow
def test_own_networks_learn_what_their_sight_allows(mains, tmp_path):
    """Agents that see their number learn to name it; agents that see only noise cannot."""
    options = ["env_args.key=tiny_gym:Match-v0", "env_args.time_limit=5", "seed=1", "use_cuda=False", "limits=lha"]
    options += ["final_evaluation=True", "eval_episodes=40", "t_max=6000", "lr=0.005", "widths=[12,16]"]
    options += ["epsilon_anneal_time=3000"]
    found = {}
    for label, mask in (("number", "{0: [0, 1, 2], 1: [0, 1, 2]}"), ("noise", "{0: [3], 1: [3]}")):
        results = tmp_path / label
        run = mains.run(
            "--config=vdn", "--env-config=gymma", "with", *options, f"masks={mask}", f"local_results_path={results}"
        ).check()
        found[label] = run.summary["policy"]["return_mean"]
    assert found["noise"] < 5.0 < found["number"]


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_runs_on_a_checkout(mains, checkout, tmp_path, name, limits):
    run = mains.run(*words(name, tmp_path, *TINY, f"limits={limits}"), env=checkout).check()
    assert_is_a_baseline(run, name, limits, tmp_path)


def test_a_checkouts_algorithm_that_cannot_have_widths_is_refused(mains, checkout, tmp_path):
    run = mains.run(*words("maddpg", tmp_path, "limits=lha"), env=checkout)
    assert "--config=maddpg has a controller of its own (maddpg_mac)" in run.error


def test_limits_of_the_run_are_what_the_networks_are_sized_by(tmp_path):
    context = described(stage_args("mappo", tmp_path, limits="lha", masks="0: [3], 1: [0, 1, 2, 3, 4]"))
    assert context.limited
    assert [len(context.mask.indices(agent)) for agent in range(2)] == [1, 5]


@pytest.mark.parametrize("limits", ["fo", "lh"])
def test_an_export_says_that_limits_do_not_bind_it(mains, tiny_teacher, tmp_path, limits):
    line = words("kd_export", tmp_path, f"teacher={tiny_teacher}", f"limits={limits}", "buffer_episodes=4")
    export = mains.run(*line).check()
    assert ("the buffer stores everything" in export.out + export.err) == (limits == "lh")


@pytest.mark.parametrize(("given", "warned"), [((), True), (("mask_at=environment",), False)])
def test_a_teacher_says_when_limits_do_not_bind_it(mains, tmp_path, given, warned):
    teacher = mains.run(*words("kd_teacher", tmp_path, "seed=1", "limits=lh", *given)).check()
    assert ("this teacher sees everything" in teacher.out + teacher.err) == warned


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (
            "action_selector=soft_policy",
            "action_selector 'soft_policy' is not registered; did you mean 'soft_policies'",
        ),
        ("final_evaluation=True eval_episodes=0", "eval_episodes is 0: expected a whole number of at least 1"),
    ],
)
def test_a_stock_algorithm_s_wrong_key_is_found_before_it_trains(mains, tmp_path, update, message):
    run = mains.run(*words("qmix", tmp_path, "t_max=1000000000", *update.split()))
    assert re.match(message, run.error)
