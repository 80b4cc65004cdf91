"""The other methods: configurations that state differences, their terms and networks, and whole runs of each."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from kd_controllers.attention_net import FEED_FORWARD
from kd_core.artifacts.expert_buffer import ExpertBuffer
from kd_core.config import assemble, parse_command
from kd_core.costs.flops import attention_formula, closed_formula, personal_formula
from kd_core.errors import UserError
from kd_learners.comparators import GlobalPersonalisation, feature_regression, personal_regression
from kd_learners.objective import TAUGHT
from kd_marl.runs.student_run import load_student
from stage_fixtures import TINY, words
from tiny_stages import HOST, run_stage
from tiny_students import make_learner, same, student_args, weights

METHODS = (
    *("kd_student_paper", "ctds", "offline_kd", "ptde"),
    *("kd_no_ppo", "kd_no_kl", "kd_no_ce", "kd_no_structure", "kd_no_role"),
)
# The terms of kd_student.
OURS = {"ppo", "kl", "ce", "structure", "role"}
TERMS = ("ppo", *TAUGHT, "entropy")


def config_of(name, *given, environment="mpe", task="env_args.key=pz-mpe-simple-spread-v3"):
    return assemble(HOST, parse_command([f"--config={name}", f"--env-config={environment}", "with", task, *given]))


def weighted(config):
    return {term for term in TERMS if config[f"{term}_coef"] != 0}


# ------------------------------------------------------------------------------------------ what the configurations say
@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("kd_student_paper", OURS | {"entropy"}),
        ("ctds", {"kl"}),
        ("offline_kd", {"kl", "ce", "feature", "structure"}),
        ("ptde", {"kl", "personal", "privileged"}),
        *[(f"kd_no_{term}", OURS - {term}) for term in sorted(OURS)],
    ],
)
@pytest.mark.parametrize("environment", ["mpe", "smax"])
def test_a_method_learns_from_its_own_terms_and_no_others(name, terms, environment):
    task = {"mpe": "env_args.key=pz-mpe-simple-spread-v3", "smax": "env_args.map_name=3m"}[environment]
    config = config_of(name, environment=environment, task=task)
    assert weighted(config) == terms
    assert (config["name"], config["learner"]) == (name, "kd_mappo_student")
    assert "base" not in config
    assert "per_env" not in config


def test_kd_student_has_none_of_the_others_terms():
    assert not weighted(config_of("kd_student")) & {"feature", "personal", "privileged"}


def test_the_papers_recipe_is_algorithm_1_to_the_letter():
    config = config_of("kd_student_paper", environment="smax", task="env_args.map_name=3m")
    expected = {
        "distill_on": "expert",
        "distillation_final_share": 1.0,
        "lr_final_share": 1.0,
        "ce_target": "soft",
        "ce_coef": 1.0,
        "standardise_advantage": False,
        "temperature": 1.0,
        "hidden_dim": 32,
        "agent": "rnn",
    }
    assert {key: config[key] for key in expected} == expected
    assert config["structure_coef"] == config["role_coef"], "Eq. 6 has one lambda"


@pytest.mark.parametrize("name", ["ctds", "offline_kd", "ptde"])
def test_other_methods_learn_from_the_teachers_episodes_with_constant_weights(name):
    config = config_of(name, environment="smax", task="env_args.map_name=3m")
    assert (config["distill_on"], config["distillation_final_share"]) == ("expert", 1.0)


# ---------------------------------------------------------------------------------------------- a base and its variants
def variant(folder, name, text):
    (folder / f"{name}.yaml").write_text(text)
    return str(folder / name)


def test_a_variant_is_its_base_but_for_what_it_states(tmp_path):
    path = variant(tmp_path, "mine", "base: kd_student\nlr: 0.5\n")
    base, mine = config_of("kd_student"), config_of(path)
    differing = {key for key in base if base[key] != mine[key]}
    assert differing == {"lr", "name", "command"}
    assert (mine["lr"], mine["name"]) == (0.5, "mine")


def test_what_a_variant_states_holds_in_every_environment_unless_it_says_otherwise(tmp_path):
    text = "base: kd_student\nstudent_episodes: 7\nt_max: 5\nper_env:\n  smax:\n    t_max: 6\n"
    path = variant(tmp_path, "mine", text)
    task = "env_args.map_name=3m"
    battles, particles = config_of(path, environment="smax", task=task), config_of(path)
    assert (battles["student_episodes"], battles["t_max"]) == (7, 6)
    assert (particles["student_episodes"], particles["t_max"]) == (7, 5)
    assert battles["batch_size_run"] == config_of("kd_student", environment="smax", task=task)["batch_size_run"]


def test_variants_of_variants_and_of_the_hosts_algorithms(tmp_path):
    variant(tmp_path, "middle", "base: ctds\nlr: 0.5\n")
    top = config_of(variant(tmp_path, "top", f"base: {tmp_path}/middle\ntemperature: 2.0\n"))
    assert (top["lr"], top["temperature"], top["ppo_coef"], top["name"]) == (0.5, 2.0, 0.0, "top")
    stock = config_of(variant(tmp_path, "wide", "base: mappo\nhidden_dim: 256\n"))
    assert (stock["learner"], stock["hidden_dim"]) == ("ppo_learner", 256)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: kd_studnet\n", r"mine.yaml has base: kd_studnet: no such configuration; did you mean 'kd_student'"),
        (
            "base: kd_student\nkl_coeff: 0\n",
            r"mine.yaml states 'kl_coeff', which kd_student does not have: .*'kl_coef'",
        ),
        ("base: kd_student\nper_env:\n  gymma:\n    lrr: 0\n", r"states 'lrr', which kd_student does not have"),
        ("base: 3\n", r"mine.yaml has base: 3: expected the name of a configuration"),
        ("base: {here}/mine\n", r"mine.yaml has base: .*/mine, which is a circle \(mine\)"),
    ],
)
def test_a_wrong_variant_is_one_line(tmp_path, text, message):
    path = variant(tmp_path, "mine", text.replace("{here}", str(tmp_path)))
    with pytest.raises(UserError, match=message) as caught:
        config_of(path)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- terms, independently
def test_the_feature_term_is_the_mean_squared_difference_and_teaches_the_student_alone():
    teacher, student = torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(2, 3, 4, 5, requires_grad=True)
    found = feature_regression(teacher, student)
    expected = ((teacher.detach().double().numpy() - student.detach().double().numpy()) ** 2).mean(-1)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-6)
    found.sum().backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_the_personal_term_counts_an_agents_own_units_and_teaches_the_guess_alone():
    own = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    known, guess = torch.randn(2, 3, 2, 3, requires_grad=True), torch.randn(2, 3, 2, 3, requires_grad=True)
    found = personal_regression(known, guess, own)
    z, g = known.detach().double().numpy(), guess.detach().double().numpy()
    np.testing.assert_allclose(found[:, :, 0].detach(), ((z - g) ** 2)[:, :, 0].mean(-1), rtol=1e-6)
    np.testing.assert_allclose(found[:, :, 1].detach(), ((z - g) ** 2)[:, :, 1, 0], rtol=1e-6)
    found.sum().backward()
    assert known.grad is None
    assert guess.grad[:, :, 1, 1:].abs().sum() == 0


def test_the_global_information_is_personal():
    """z_i = tanh(W(phi_i) e(s) + b(phi_i)), and two agents that know different things get different z of one state."""
    module = GlobalPersonalisation(state_size=7, units=4)
    state, phi = torch.randn(2, 3, 7), torch.randn(2, 3, 2, 4)
    found = module(state, phi).detach().numpy()
    p = {name: value.detach().double().numpy() for name, value in module.state_dict().items()}
    for index in np.ndindex(2, 3, 2):
        s, h = state[index[:2]].double().numpy(), phi[index].double().numpy()
        e = np.maximum(p["encoder.weight"] @ s + p["encoder.bias"], 0.0)
        w = (p["weights.weight"] @ h + p["weights.bias"]).reshape(4, 4)
        z = np.tanh(w @ e + p["bias.weight"] @ h + p["bias.bias"])
        np.testing.assert_allclose(found[index], z, atol=1e-6)
    assert np.abs(found[:, :, 0] - found[:, :, 1]).min() > 1e-4


# ---------------------------------------------------------------------------------------------------------- the learner
def of_method(name, **changes):
    """The keys of `kd_student`'s learner that make it another method's."""
    names = [f"{term}_coef" for term in TERMS]
    config = config_of(name)
    keys = (*names, "agent", "distill_on", "distillation_final_share", "lr", "ce_target", "standardise_advantage")
    return {**{key: config[key] for key in keys}, **changes}


@pytest.mark.parametrize("distill_on", ["expert", "student", "mixed"])
@pytest.mark.parametrize("name", ["offline_kd", "ptde"])
def test_a_method_learns_from_any_episodes_and_logs_its_terms(results, tmp_path, name, distill_on, monkeypatch):
    monkeypatch.setattr("kd_learners.student_learner.StudentLearner.compared", lambda self: None)
    learner = run_stage(student_args(results, tmp_path, **of_method(name, distill_on=distill_on)))
    before = weights(learner)
    stats = learner._update(learner._minibatch(), with_diagnostics=True)
    assert stats.keys() >= {"offline_kd": {"feature"}, "ptde": {"personal", "privileged"}}[name]
    assert all(torch.isfinite(value) for value in stats.values())
    assert before.keys() == weights(learner).keys()


def test_every_part_of_ptde_learns(results, tmp_path):
    learner = make_learner(results, tmp_path, **of_method("ptde"))
    before = {name: value.clone() for name, value in learner.comparators.state_dict().items()}
    guesses = {n: p.detach().clone() for n, p in learner.mac.agent.named_parameters() if "guess" in n}
    first = learner._update(learner._minibatch(), with_diagnostics=True)
    for _ in range(60):
        last = learner._update(learner._minibatch(), with_diagnostics=True)
    assert all(not torch.equal(before[n], value) for n, value in learner.comparators.state_dict().items())
    after = dict(learner.mac.agent.named_parameters())
    assert all(not torch.equal(guesses[n], after[n]) for n in guesses)
    for term in ("kl", "privileged"):
        assert last[term].item() < first[term].item()


def test_features_come_to_those_of_the_teacher(results, tmp_path):
    learner = make_learner(results, tmp_path, **of_method("offline_kd"))
    found = [float(learner._update(learner._minibatch(), with_diagnostics=True)["feature"]) for _ in range(80)]
    assert np.mean(found[-5:]) < 0.5 * found[0]


def test_what_only_training_needs_is_resumed_and_not_carried_by_the_agents(results, tmp_path):
    learner = make_learner(results, tmp_path, **of_method("ptde"))
    learner._update(learner._minibatch(), with_diagnostics=False)
    (tmp_path / "saved").mkdir()
    learner.save_models(str(tmp_path / "saved"))
    other = make_learner(results, tmp_path, **of_method("ptde", lr=0.5))
    other.load_models(str(tmp_path / "saved"))
    assert same(learner.comparators.state_dict(), other.comparators.state_dict())
    carried = torch.load(tmp_path / "saved" / "agent.th", weights_only=True)
    assert not [name for name in carried if "encoder" in name or "weights" in name]


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"agent": "transformer"}, "agent 'transformer' is no student's network; .*attention_rnn"),
        ({"personal_coef": 1.0}, "personal_coef and privileged_coef are for agent=personal_rnn"),
        ({"agent": "attention_rnn", "budget": "pico2"}, "budget sizes recurrent students, and agent=attention_rnn"),
    ],
)
def test_what_cannot_be_is_one_line(results, tmp_path, updates, message):
    with pytest.raises(UserError, match=message) as caught:
        make_learner(results, tmp_path, **updates)
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------------------------- whole runs
def formula_of(name, n_actions):
    return {
        "offline_kd": lambda d_in, width: attention_formula(d_in, width, n_actions, 20, FEED_FORWARD),
        "ptde": lambda d_in, width: personal_formula(d_in, width, n_actions),
    }.get(name, lambda d_in, width: closed_formula(d_in, width, n_actions))


def check_result(run, name, n_actions):
    summary, formula = run.summary, formula_of(name, n_actions)
    assert all(row in run.out for row in ("retention", "FLOPs per decision", "parameters of an agent"))
    assert summary.keys() >= {"teacher", "student", "random", "flops_ratio", "agreement"}
    expected = [formula(d_in, width) for d_in, width in zip(summary["inputs"], summary["widths"], strict=True)]
    assert summary["flops_per_decision_student"] == pytest.approx(np.mean(expected))
    assert f"/sacred/{name}/" in run.out


# One environment in the run's own process: most of such a run is starting workers.
ALONE = ("runner=episode", "batch_size_run=1", "batch_size=1", "buffer_size=1", "t_max=100", "eval_episodes=2")


# The methods with networks or data of their own; those without a term differ in a weight.
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name.startswith("kd_no_") else ()) for name in METHODS],
)
def test_a_method_runs_on_particles_to_its_result(mains, tiny_teacher, tiny_buffer, tmp_path, name):
    given = [f"teacher={tiny_teacher}", f"expert_buffer={tiny_buffer}", "seed=1", "limits=lha", *TINY["kd_student"]]
    run = mains.run(*words(name, tmp_path, *given, *ALONE)).check()
    check_result(run, name, n_actions=5)
    record = next(tmp_path.glob(f"sacred/{name}/*/1"))
    if config_of(name)["agent"] == "rnn":
        assert load_student(record).network.widths == tuple(run.summary["widths"])
        return
    with pytest.raises(UserError, match=rf"is a run of {name} with agent=\w+_rnn, and only recurrent stud") as caught:
        load_student(record)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="session")
def battle_buffer(mains, tmp_path_factory, source_root):
    """An expert buffer of the bundled teacher of 3m."""
    if importlib.util.find_spec("jaxmarl") is None:
        pytest.skip("JaxMARL is not installed")
    results = tmp_path_factory.mktemp("battles")
    mains.run(
        *("--config=kd_export", "--env-config=smax", "with", "env_args.map_name=3m", "seed=1"),
        *(f"local_results_path={results}", f"teacher={source_root / 'zoo' / '3m'}", *TINY["kd_export"]),
    ).check()
    return next(results.glob("buffers/*/*/buffer.json")).parent


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_runs_on_battles_to_its_result(mains, battle_buffer, tmp_path, source_root, name):
    run = mains.run(
        *(f"--config={name}", "--env-config=smax", "with", "env_args.map_name=3m", "seed=1", *TINY["kd_student"]),
        *(f"local_results_path={tmp_path}", f"teacher={source_root / 'zoo' / '3m'}", f"expert_buffer={battle_buffer}"),
        *("t_max=200", "eval_episodes=4", "test_nepisode=4", "runner=vector"),
    ).check()
    check_result(run, name, n_actions=8)
    assert run.summary["teacher"]["win_rate"] is not None


def test_a_method_exports_its_buffer_as_large_as_its_own_yaml_says(mains, tiny_teacher, tmp_path):
    text = "base: ctds\nbuffer_episodes: 12\n"
    path = variant(tmp_path, "small", text)
    given = [word for word in TINY["kd_student"] if not word.startswith("buffer_episodes")]
    run = mains.run(
        *words(path, tmp_path, f"teacher={tiny_teacher}", "seed=1", *given, "t_max=100", "eval_episodes=2"),
    ).check()
    assert "Running python src/main.py --config=kd_export" in run.err
    assert ExpertBuffer.open(next(tmp_path.glob("buffers/*/*/buffer.json")).parent).episodes == 12


# ---------------------------------------------------------------------------------------------------- on a real EPyMARL
@pytest.mark.parametrize("name", ["kd_student_paper", "offline_kd", "ptde"])
def test_a_method_runs_on_a_checkout(mains, checkout, tiny_teacher, tiny_buffer, tmp_path, name):
    given = [f"teacher={tiny_teacher}", f"expert_buffer={tiny_buffer}", "seed=1", *TINY["kd_student"]]
    run = mains.run(*words(name, tmp_path, *given, *ALONE), env=checkout).check()
    check_result(run, name, n_actions=5)
