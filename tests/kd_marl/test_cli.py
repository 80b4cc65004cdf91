"""The command line `kd-marl`: help with an example everywhere, mistakes in one line, doctor and masks."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import warnings
from types import ModuleType

import pytest

from kd_core.config import assemble, parse_command
from kd_core.errors import UserError
from kd_core.host import get_host
from kd_marl.cli import build_parser, main
from kd_marl.inspection import doctor

COMMANDS = [
    [],
    ["buffer"],
    ["buffer", "info"],
    ["buffer", "check"],
    ["teachers"],
    ["teachers", "list"],
    ["teachers", "show"],
    ["teachers", "pack"],
    ["teachers", "train"],
    ["masks"],
    ["track"],
    ["track", "push"],
    ["doctor"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_ends_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    example = capsys.readouterr().out.split("example:\n")[1]
    assert example.strip().startswith(" ".join(["kd-marl", *command]))


def works(parser):
    """The work of a parser and of all parsers below it."""
    found = {work} if (work := parser.get_default("run")) else set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found = found.union(*(works(below) for below in action.choices.values()))
    return found


@pytest.mark.parametrize("work", sorted(works(build_parser()), key=str), ids=lambda work: work.name)
def test_every_command_names_work_that_exists(work):
    assert callable(work.load())


def imported_by(*words, says):
    """Run a command, and return the names of what it has imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and says in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "kd_core.host" in imported
    return imported


@pytest.mark.parametrize("words", [["kd_marl.cli"], ["kd_marl.cli", "run"], ["main"]], ids=" ".join)
def test_help_answers_without_torch(words):
    assert not imported_by(*words, "--help", says="usage: ") & {"torch", "numpy", "sacred"}


@pytest.mark.skipif("EPYMARL_HOME" in os.environ, reason="a checkout imports all of them itself")
@pytest.mark.parametrize(
    "task", [["mpe", "--key", "pz-mpe-simple-spread-v3"], ["smax", "--n-agents", "3", "--n-enemies", "3"]], ids="-".join
)
def test_masks_answers_without_torch_and_jax(task):
    heavy = {"torch", "jax", "sacred", "pandas", "scipy", "git"}
    assert not imported_by("kd_marl.cli", "masks", "--env-config", *task, says="who sees what") & heavy


@pytest.mark.parametrize("arguments", [[], ["bufer"], ["buffer", "check"], ["masks", "--env-config"]], ids=" ".join)
def test_a_wrong_command_line_is_one_line_and_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1


def test_doctor_finds_nothing_wrong_here(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    expected = "EPyMARL" if os.environ.get("EPYMARL_HOME") else "epymarl_lite, the bundled runtime"
    assert re.search(rf"^host +{expected} ", out, re.MULTILINE)
    assert out.endswith("no problems found\n")


@pytest.mark.parametrize(
    ("versions", "problem"),
    [
        ({"sacred": None}, "sacred is not installed: run make setup"),
        ({"mpe2": "1.1.1", "pettingzoo": "1.24.3"}, "mpe2 does not import with pettingzoo before 1.24.4"),
        ({"pygame": "2.6.0", "pygame-ce": "2.5.8"}, "pygame and pygame-ce overwrite each other"),
        ({"smac": "0.1"}, "the package 'smac' is another program than SMAC"),
    ],
)
def test_doctor_explains_what_would_break(monkeypatch, versions, problem):
    real = doctor.installed_version
    monkeypatch.setattr(doctor, "installed_version", lambda name: versions[name] if name in versions else real(name))
    found = doctor.problems()
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_doctor_tells_a_placeholder_from_a_package_and_an_unknown_commit_from_a_fault(monkeypatch, capsys):
    placeholder = ModuleType("smaclite")
    placeholder.__spec__ = importlib.util.spec_from_loader("smaclite", loader=None)
    monkeypatch.setitem(sys.modules, "smaclite", placeholder)
    real = doctor.get_host

    def unknown():
        warnings.warn("EPyMARL at /elsewhere is at commit unknown; the plug-in is tested against another", stacklevel=2)
        return real()

    monkeypatch.setattr(doctor, "get_host", unknown)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert re.search("^smaclite +not installed", out, re.MULTILINE)
    assert "note: EPyMARL at /elsewhere is at commit unknown" in out
    assert out.endswith("no problems found\n")


def test_doctor_reports_an_unusable_host(tmp_path):
    """In a process of its own, because the host is loaded once."""
    environment = {**os.environ, "EPYMARL_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "kd_marl.cli", "doctor"],
        env={**environment, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert f"problem: EPYMARL_HOME={tmp_path} is no EPyMARL checkout" in done.stdout


def test_output_that_nobody_reads_any_more_is_no_fault(tmp_path):
    (tmp_path / "long.yaml").write_text(
        "tasks: {spread: {env: mpe, key: pz-mpe-simple-spread-v3}}\nmethods: [kd_student]\nseeds: "
        + str(list(range(1, 401)))
    )
    listing = subprocess.Popen(
        [sys.executable, "-m", "kd_marl.cli", "suite", "list", str(tmp_path / "long.yaml")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert listing.stdout.readline().startswith(b"# spread/buffer")
    listing.stdout.close()
    assert listing.stderr.read() == b""
    assert listing.wait() == 141


def masks(*arguments):
    return main(["masks", "--env-config=mpe", "--key", "pz-mpe-simple-spread-v3", *arguments])


def test_masks_shows_who_sees_what(capsys):
    assert masks("--limits", "lh") == 0
    rows = [[cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.splitlines()]
    by_agent = {row[1]: row for row in rows if len(row) > 2 and row[1]}
    assert by_agent["0 agent_0"][2] == "L, A(P)"
    assert by_agent["1 agent_1"][4:7] == ["V.x, V.y", "2 of 18", "32"]


def test_masks_takes_the_users_own(capsys):
    assert masks("--limits", "lh", "--masks", "{0: [V]}") == 0
    assert "2 of 18" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--limits", "lhh"], "'lhh'"),
        (["--key", "pz-mpe-simple-sprea-v3"], "pz-mpe-simple-spread"),  # by Gymnasium on a checkout
        (["--masks", "{7: [V]}"], "7"),
        (["--masks", "{0: [W]}"], "W"),
        (["--width", "0"], "at least 1 wide: give --width 32"),
    ],
)
def test_masks_says_a_mistake_in_one_line(capsys, arguments, message):
    assert masks(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_masks_without_a_task_say_how_theirs_is_named(capsys):
    assert main(["masks", "--env-config=mpe"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: --env-config=mpe needs the task: add --key (for example --key pz-"
    )
    with pytest.raises(UserError, match=r"needs the task: add 'with env_args\.key="):
        assemble(get_host(), parse_command(["--config=mappo", "--env-config=mpe"]))


def test_masks_of_a_battle_of_given_sizes_need_no_map(capsys):
    assert main(["masks", "--env-config=smax", "--n-agents=2", "--n-enemies=3", "--limits=lh"]) == 0
    unnamed = capsys.readouterr().out
    assert unnamed.startswith("2_vs_3: who sees what")
    assert main(["masks", "--env-config=smax", "--map-name=2_vs_3", "--n-agents=2", "--n-enemies=3"]) == 0
    assert capsys.readouterr().out == unnamed


def test_masks_of_an_unknown_environment(capsys):
    assert main(["masks", "--env-config", "mp", "--key", "x"]) == 2
    assert "did you mean 'mpe'?" in capsys.readouterr().err


def test_a_home_folder_is_expanded_whatever_the_shell_does(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    words = ["--config=mappo", "--env-config=mpe", "with", "local_results_path=~/x", "env_args.key=~/x"]
    assert parse_command(words).updates == {"local_results_path": "/home/somebody/x", "env_args.key": "~/x"}
