"""A user's own configuration files: what is wrong with one, or with how it is named, is one line."""

from __future__ import annotations

import os

import pytest

from kd_core.config import assemble, parse_command
from kd_core.errors import UserError
from kd_core.host import get_host


def configuration(algorithm="iql", environment="mpe", *updates):
    words = [f"--config={algorithm}", f"--env-config={environment}", "with", "env_args.key=pz-mpe-simple-spread-v3"]
    return assemble(get_host(), parse_command([*words, *updates]))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, with one configuration of the user's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ok.yaml").write_text("base: iql\nname: ok\n")
    return tmp_path


@pytest.mark.parametrize("name", ["ok.yaml", "./ok.yaml", "./ok", "{here}/ok.yaml"])
def test_a_file_is_taken_by_its_name_with_suffix_or_by_its_path(here, name):
    assert configuration(name.format(here=here))["name"] == "ok"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ok", "did you mean 'ok.yaml'?"),
        ("./ok.yml", "did you mean 'ok.yaml'?"),
        ("ok.yml", "did you mean 'ok.yaml'?"),
        ("iql.yaml", "did you mean 'iql' or 'iql_ns'?"),
        ("./kd_student.yml", "did you mean 'kd_student' or 'kd_student_paper'?"),
    ],
)
def test_another_way_to_write_a_name_is_told_the_right_one(here, name, hint):
    with pytest.raises(UserError) as caught:
        configuration(name)
    assert str(caught.value) == f"--config={name}: no such configuration; {hint}"


def test_an_environments_name_with_its_suffix_and_a_base_beside_the_file_are_told_too(here):
    with pytest.raises(UserError, match=r"^--env-config=mpe\.yaml: no such configuration; did you mean 'mpe'\?$"):
        configuration("iql", "mpe.yaml")
    (here / "deep").mkdir()
    (here / "deep" / "one.yml").write_text("base: ippo\n")
    (here / "deep" / "two.yaml").write_text("base: ./one.yaml\n")
    with pytest.raises(UserError, match=r"two\.yaml has base: \./one\.yaml: .*; did you mean 'one\.yml'\?$"):
        configuration("deep/two.yaml")


@pytest.mark.skipif("EPYMARL_HOME" in os.environ, reason="a checkout has them")
def test_epymarls_own_algorithm_named_with_its_suffix_needs_a_checkout_all_the_same(here):
    with pytest.raises(UserError, match=r"^--config=coma needs EPyMARL itself"):
        configuration("coma.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"ok\.yaml names no learner: expected 'base: NAME' of another algorithm"),
        ("a: 1\n", r"ok\.yaml names no learner"),
        ("base: iql\nname: [x]\n", r"ok\.yaml: name is .*x.*: expected text"),
        ("base: iql\nper_env: x\n", r"ok\.yaml: per_env names environments, each with lines of the form"),
        ("base: iql\nper_env: {gymma: 3}\n", r"ok\.yaml: per_env names environments"),
        ("base: iql\nlr: fast\n", "lr is 'fast': expected a number above 0"),
    ],
)
def test_what_an_algorithms_file_cannot_say_is_one_line(here, content, message):
    (here / "ok.yaml").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        configuration("ok.yaml")
    assert "\n" not in str(caught.value)


def test_an_environments_file_that_describes_none_is_one_line(here):
    (here / "env.yaml").write_text("")
    with pytest.raises(UserError, match=r"env\.yaml describes no environment: expected 'env: NAME'"):
        configuration("iql", "env.yaml")
