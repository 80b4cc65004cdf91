"""The habits of the project: changelog, continuous integration, forms, hooks and the size of the example."""

import json
import re

import pytest
import yaml

SECTIONS = ["Breaking", "Changes results", "Added", "Fixed"]


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def targets(root):
    return set(re.findall(r"^([a-z][a-z-]*):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_changelog_has_its_sections_in_their_order_and_short_entries(root):
    releases = (root / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")[1:]
    assert releases[0].startswith("Unreleased\n")
    for release in releases:
        titles = re.findall(r"^### (.+)$", release, re.MULTILINE)
        assert titles == [title for title in SECTIONS if title in titles]
        lines = [line for line in release.split("\n### ", 1)[1].splitlines() if line and line not in SECTIONS]
        for line in lines:
            assert line.startswith(("- ", "### ")), f"an entry is one line: {line}"
            assert len(line.removeprefix("- ").split()) <= 25, line
    assert re.findall(r"^### (.+)$", releases[0], re.MULTILINE) == SECTIONS


def test_continuous_integration_runs_make_on_the_oldest_and_the_newest_python(root):
    (job,) = load(root / ".github" / "workflows" / "ci.yml")["jobs"].values()
    classifiers = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (root / "setup.py").read_text())
    assert job["strategy"]["matrix"]["python"] == [classifiers[0], classifiers[-1]]
    lines = [step["run"] for step in job["steps"] if "run" in step]
    called = [line.split()[1] for line in lines]
    assert all(line.startswith("make ") for line in lines)
    assert called == ["setup", "check", "test", "test-slow"]
    assert set(called) <= targets(root)
    (slow,) = [step for step in job["steps"] if step.get("run") == "make test-slow"]
    assert slow["if"] == "github.ref == 'refs/heads/main'"


def test_lint_calls_ruff_and_codespell(root):
    recipe = re.search(r"^lint: setup\n((?:\t.*\n)+)", (root / "Makefile").read_text(), re.MULTILINE).group(1)
    assert [name in recipe for name in ("ruff check", "ruff format --check", "codespell")] == [True] * 3


def test_the_hooks_have_the_versions_of_the_lock(root):
    lock = (root / "requirements-dev.lock").read_text(encoding="utf-8")
    repositories = load(root / ".pre-commit-config.yaml")["repos"]
    assert all(re.fullmatch(r"v\d+\.\d+\.\d+", repository["rev"]) for repository in repositories)
    revisions = {hook["id"]: repository["rev"] for repository in repositories for hook in repository["hooks"]}
    for hook, package in (("ruff-check", "ruff"), ("ruff-format", "ruff"), ("codespell", "codespell")):
        assert f"\n{package}=={revisions[hook][1:]}\n" in lock
    assert {"check-added-large-files", "check-toml", "check-yaml", "end-of-file-fixer"} <= set(revisions)


@pytest.mark.parametrize(
    ("form", "fields"), [("bug", ["what", "command", "config", "versions"]), ("question", ["question"])]
)
def test_issue_forms_ask_for_what_an_answer_needs(root, form, fields):
    content = load(root / ".github" / "ISSUE_TEMPLATE" / f"{form}.yml")
    assert {"name", "description", "body"} <= content.keys()
    assert [field["id"] for field in content["body"]] == fields
    assert all(field["attributes"]["label"] and field["attributes"]["description"] for field in content["body"])


def test_a_bug_report_has_the_output_of_doctor(root):
    body = load(root / ".github" / "ISSUE_TEMPLATE" / "bug.yml")["body"]
    (versions,) = [field for field in body if field["id"] == "versions"]
    assert "kd-marl doctor" in versions["attributes"]["description"] and versions["validations"]["required"]


def test_a_pull_request_has_at_most_five_boxes_that_name_targets_which_exist(root):
    text = (root / ".github" / "pull_request_template.md").read_text(encoding="utf-8")
    assert 1 <= text.count("- [ ]") <= 5
    named = re.findall(r"`make ([a-z-]+)`", text)
    assert named and set(named) <= targets(root)


def test_the_example_is_short_and_the_notebook_has_no_outputs(root):
    assert len((root / "examples" / "distil_mpe.py").read_text(encoding="utf-8").splitlines()) <= 40
    notebook = json.loads((root / "examples" / "distil_mpe.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
