"""The README: its commands run, its first screen shows what it must, and what it names exists."""

from __future__ import annotations

import re

import pytest

import pages
from kd_core import progress
from kd_marl import cli


@pytest.fixture(scope="module")
def readme(root) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def followed(root, mains, tmp_path_factory) -> pages.Follower:
    """The README's commands, run as ``make demo`` runs its own: the log goes to a file."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        env = {progress.LOG_FILE: str(folder / "run.log"), progress.VARIABLE: "0"}
        follower = pages.Follower(mains, folder, patch, env)
        follower.follow(root / "README.md", slow=False)
    return follower


def test_the_three_commands_lead_from_a_teacher_to_a_bundle(followed):
    assert followed.commands == ["python --config=kd_teacher", "python --config=kd_student", "kd-marl export"]
    assert "kd_teacher_seed1" in followed.runs[1].summary["teacher_artifact"]["path"]
    assert (followed.folder / "bundle" / "profile.json").exists()


def test_a_run_with_a_log_file_shows_progress_and_its_table_alone(followed, root):
    run = followed.runs[1]
    assert run.out.startswith("pz-mpe-simple-spread-v3   limits lh   seed 1") and run.out.count("\n") < 30
    said = [line for line in run.err.splitlines() if "pkg_resources" not in line]
    assert all(re.fullmatch(r"[a-z ,]+: [\d,]+ of [\d,]+ \w+s", line) for line in said), said
    assert "student: " in run.err and "Teacher: " in (followed.folder / "run.log").read_text()
    assert f"{progress.LOG_FILE}=$(DEMO_LOG)" in (root / "Makefile").read_text()


def test_the_first_screen_has_picture_command_and_result(readme):
    screen = "\n".join(readme.splitlines()[:50])
    assert "docs/figures/pipeline.svg" in screen and "make demo" in screen
    assert re.search(r"^ +retention +- +[\d.]+ %", screen, re.MULTILINE)
    assert len(readme.splitlines()) <= 150


def test_the_first_page_says_what_fo_lh_lha_and_retention_mean(readme):
    page = readme.split("## Results")[0]
    for word in ("`fo`", "`lh`", "`lha`", "**Retention**"):
        assert re.search(rf"^- {re.escape(word)}", page, re.MULTILINE), word


def test_every_command_that_the_readme_names_has_help_with_an_example(readme, capsys):
    named = set(re.findall(r"(?:`|^)kd-marl ([a-z]+)", readme, re.MULTILINE))
    assert named == {"teachers", "export", "watch"}
    for name in named:
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0
        assert "example" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/quickstart.md"])
def test_make_knows_the_targets_that_a_page_names(root, name):
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(?:EPYMARL_HOME=\S+ )?make ([a-z-]+)|`make ([a-z-]+)", (root / name).read_text(), re.M))
    assert targets
    for target in {first or second for first, second in targets}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_links_of_the_readme_lead_somewhere(readme, root):
    written = re.sub(r"<!-- results:begin -->.*<!-- results:end -->", "", readme, flags=re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", written) if not target.startswith("http")]
    assert targets
    for target in targets:
        assert (root / target).exists(), target
