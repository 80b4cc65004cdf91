"""Sacred's flags work as Sacred documents them, or are one line."""

import subprocess

import pytest
from sacred.experiment import gather_command_line_options

from kd_core import sacred_flags, versions
from kd_core.config import parse_command
from kd_core.errors import UserError


def parse(*words):
    return parse_command(["--config=iql", "--env-config=mpe", *words])


def test_the_flags_are_sacreds():
    valued = {flag for option in gather_command_line_options() if option.arg for flag in option.get_flags()}
    assert valued == sacred_flags.VALUED
    every = {option.get_flags() for option in gather_command_line_options()}
    assert {(short, long) for short, (long, _, _) in sacred_flags._FLAGS.items()} == every


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-q"], r"-q \(--queue\) puts a run into a queue that nothing here works on: leave it out"),
        (["--queue"], "puts a run into a queue"),
        (["--wrong"], "--wrong: no such flag; valid: --beat-interval"),
        (["--beat-intervall=3"], "no such flag; did you mean '--beat-interval'"),
        (["-x"], "-x: no such flag; valid: -C, -D"),
        (["-dx"], "-dx: no such flag"),
        (["--force=1"], "--force takes no value: leave =1 out"),
        (["-l", "NOPE"], r"-l \(--loglevel\) is 'NOPE': expected CRITICAL, ERROR, WARNING, INFO, DEBUG or a whole num"),
        (["-b", "abc"], "is 'abc': expected seconds above 0"),
        (["-b0"], "is '0': expected seconds above 0"),
        (["--beat-interval=-1"], "is '-1': expected seconds above 0"),
        (["-P", "high"], "is 'high': expected a whole number"),
        (["-C", "all"], "is 'all': expected no, sys or fd"),
        (["-"], "'-' is no command of Sacred's: leave it out"),
        (["-db", "1", "-c", "x", "run"], "'run' is no command of Sacred's"),
        (["with", "t_max=5", "-"], "'-' in 'with' has no value"),
        (["-c", "with", "t_max=5"], r"-c \(--comment\) is 'with': expected a comment"),
        (["-m", "with", "t_max=5"], r"-m \(--mongo_db\) takes HOST:PORT:DB or DB"),
        (["-m", "t_max=5"], r"-m \(--mongo_db\) takes HOST:PORT:DB or DB"),
        (["with", "t_max=5", "-c"], r"-c \(--comment\) is '': expected a comment"),
        (["-s", "sqlite:///x.db"], r"-s \(--sql\) needs what is not installed: pip install sqlalchemy"),
        (["-t", "x"], "needs what is not installed: pip install tinydb hashfs|pip install hashfs"),
        (["-S", "s3://b/x"], "needs what is not installed: pip install boto3"),
    ],
)
def test_a_flag_that_cannot_work_is_one_line(words, message):
    with pytest.raises(UserError, match=message) as caught:
        parse(*words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "problem"), [("changed", "has changes that are not committed"), ("elsewhere", "is in no git repository")]
)
def test_a_clean_repository_is_asked_for_before_sacred_does(tmp_path, monkeypatch, place, problem):
    monkeypatch.setattr(versions, "SOURCE_ROOT", tmp_path / place)
    (tmp_path / place).mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    if place == "changed":
        (tmp_path / place / "a.py").write_text("")
        for command in (["init", "-q"], ["add", "a.py"]):
            subprocess.run(["git", *command], cwd=tmp_path / place, check=True)
    with pytest.raises(UserError, match=rf"^-e \(--enforce_clean\): .*{place} {problem}: leave -e out$"):
        parse("-e")


@pytest.mark.parametrize(
    "words",
    [["-mme:s3cret@localhost:1:kd"], ["-dmlocalhost:1:kd"], ["--mongo=s3cret"], ["--mongo_d", "s3cret"]],
)
def test_no_way_to_write_it_leads_to_sacreds_own_mongo_observer(words):
    with pytest.raises(
        UserError, match=r"^-m \(--mongo_db\) is written otherwise here: give -m HOST:PORT:DB"
    ) as caught:
        parse(*words)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["-d", "-l", "DEBUG", "-b0.5", "-c", "seed=x"],
        ["-duf", "--beat=2", "--priority=-3", "-P", "-3"],
        ["print_config", "-db", "1", "--comm", "x", "with", "t_max=5"],
        ["-pC", "sys", "with", "t_max=5", "--name", "x"],
    ],
)
def test_every_way_to_write_a_flag_that_sacred_takes_is_taken(words):
    assert parse(*words).sacred_arguments[: len(words)] == tuple(words)
