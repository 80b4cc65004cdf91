"""The pages: their commands run, their sentences are short, each leads on, and what is generated is whole."""

from __future__ import annotations

import importlib.util
import re

import pytest
import yaml

import pages
from kd_marl.cli import build_parser

LONGEST = 25
BY_NAME = {pages.name(path): path for path in pages.pages()}
# tests/kd_marl/pareto/test_onboard_page.py follows them.
FOLLOWED_ELSEWHERE = ("docs/tutorials/onto-a-board.md", "docs/guides/onboard.md")
MARKS = {name: [block.mark for block in pages.blocks(path)] for name, path in BY_NAME.items()}


SLOW = [name for name, marks in MARKS.items() if "run slow" in marks and name not in FOLLOWED_ELSEWHERE]


@pytest.fixture
def follower(mains, tmp_path, monkeypatch):
    return pages.Follower(mains, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", [name for name, marks in MARKS.items() if "run" in marks and name != "README.md"])
def test_the_commands_of_a_page_run(follower, name):
    follower.follow(BY_NAME[name], slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_all_commands_of_a_page_run_in_its_order(follower, name):
    follower.follow(BY_NAME[name], slow=True)


def test_every_mark_stands_before_a_block():
    for name, path in BY_NAME.items():
        # The page for contributors shows the marks in text.
        marks = re.findall(r"^<!-- (?:run|file)", path.read_text(), re.MULTILINE)
        assert len(marks) == len(MARKS[name]), name


# ---- sentences -------------------------------------------------------------------------------------------------------


def sentences(text: str) -> list[str]:
    """The sentences of a page's prose, without code, formulas, tables and headings; a link counts as its text."""
    text = re.sub(r"```.*?```|\$\$.*?\$\$|<!--.*?-->", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]+\)", "]", text)
    lines = ["" if line.lstrip().startswith(("|", "#", "!")) else line for line in text.splitlines()]
    paragraphs = re.split(r"\n\s*\n|\n(?=\s*(?:- |\d\. ))", "\n".join(lines))
    return [sentence for part in paragraphs for sentence in re.split(r"(?<=[.!?:])\s+", " ".join(part.split()))]


def test_the_counting_of_words_finds_what_is_too_long():
    long = " ".join(["word"] * (LONGEST + 1))
    assert [len(sentence.split()) for sentence in sentences(f"# A title\n\nOne. {long}.\n\n| {long} |\n")] == [
        0,
        1,
        26,
        0,
    ]


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "docs/results.md"])
def test_no_sentence_is_longer_than_the_rule(name):
    long = [text for text in sentences(BY_NAME[name].read_text()) if len(text.split()) > LONGEST]
    assert not long


# ---- where a page leads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in BY_NAME if name.startswith("docs/") and name != "docs/results.md"])
def test_a_page_ends_with_where_to_go_next(name):
    assert re.match(r"Next: .*\[.+\]\(.+\)", BY_NAME[name].read_text().rstrip().rsplit("\n\n", 1)[-1])


def test_every_page_is_in_the_navigation_and_every_experiment_is_dated(root):
    navigation = (root / "mkdocs.yml").read_text()
    for path in (root / "docs").rglob("*.md"):
        relative = path.relative_to(root / "docs").as_posix()
        if not relative.startswith(("records/", "report/")):
            assert f" {relative}\n" in navigation, relative
    for path in (root / "docs" / "experiments").glob("20*.md"):
        assert re.match(r"\d{4}-\d{2}-", path.name) and "> **Dated, never edited.**" in path.read_text()


# ---- what is generated -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generate(root):
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("generate", root / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(keys: dict, folder: str = "") -> set[str]:
    """Every key, those below others with a dot."""
    own = {f"{folder}{key}" for key, value in keys.items() if not isinstance(value, dict)}
    below = [names(value, f"{folder}{key}.") for key, value in keys.items() if isinstance(value, dict)]
    return own.union(*below)


def test_the_page_of_keys_has_every_key_of_every_file(root, generate):
    page = generate.keys_page()
    for file in generate.KEY_FILES:
        section = page.split(f"\n## {file.rsplit('/', 1)[-1]}\n", 1)[1].split("\n## ", 1)[0]
        for key in names(yaml.safe_load((root / "src" / f"{file}.yaml").read_text())):
            assert f"`{key}`" in section, f"{file}: {key}"


def test_a_key_is_read_with_its_default_and_its_comment(generate):
    text = "# What it is.\n\n# The width.\nwidth: 32\ndepth: 2\n\nper_env:\n  # Of SMAX.\n  smax:\n    lr: 0.1\n"
    intro, ((title, rows),) = generate.read_keys(text)
    assert (intro, title) == ("What it is.", "")
    assert rows == [
        ["`width`, `depth`", "`32`, `2`", "The width."],
        ["`per_env.smax`", "", "Of SMAX."],
        ["`per_env.smax.lr`", "`0.1`", ""],
    ]


def test_the_page_of_commands_has_every_command(generate, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    page = generate.command_line_page()
    (commands,) = (action.choices for action in build_parser()._actions if action.choices)
    for command in commands:
        assert f"## `kd-marl {command}`" in page
    assert "### `kd-marl buffer check`" in page and "--config=kd_student" in page


def test_formulas_become_mathml(generate):
    shown = generate.on_page_content(r'<p><span class="arithmatex">\(x &lt; \alpha\)</span></p>')
    assert "<math" in shown and "&#x0003C;" in shown and "arithmatex" not in shown
