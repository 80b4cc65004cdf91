"""Every command that the README gives a reader runs, at tiny sizes."""

from __future__ import annotations

import importlib.util
import re
import shlex

import pytest

from kd_marl import cli
from stage_fixtures import TINY

# Sizes of a stock algorithm's run.
STOCK = ["t_max=100", "test_nepisode=1", "use_cuda=False"]


@pytest.fixture(scope="module")
def readme(root) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


def commands(readme: str, program: str) -> list[list[str]]:
    """The words of each line of the README's code blocks that starts with ``program``, after it."""
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", readme, re.MULTILINE | re.DOTALL))
    return [shlex.split(line)[len(program.split()) :] for line in blocks.splitlines() if line.startswith(program)]


def test_every_run_of_the_readme_in_its_order(readme, mains, tmp_path):
    lines = commands(readme, "python src/main.py")
    algorithms = [words[0].removeprefix("--config=") for words in lines]
    particles = ["kd_teacher", "kd_export", *["kd_student"] * 2, "qmix", *["kd_student"] * 2]
    assert algorithms == [*particles, *["kd_student", "kd_teacher"] * 2]
    for algorithm, words in zip(algorithms, lines, strict=True):
        battles = "--env-config=smax" in words
        if battles and importlib.util.find_spec("jaxmarl") is None:
            continue
        tiny = [*TINY.get(algorithm, STOCK), *(["runner=vector"] if battles else [])]
        run = mains.run(*words, *tiny, f"local_results_path={tmp_path}", "seed=1").check()
        if "resume=True" in words:
            assert "this run has finished already" in run.out + run.err
        elif algorithm == "kd_student":
            assert (run.summary["student"]["return_mean"] >= 0.0) == battles


@pytest.mark.skipif(importlib.util.find_spec("jaxmarl") is None, reason="battles need the extra smax")
def test_the_bundled_teacher_that_the_readme_trains_again(readme, tmp_path, capfd):
    (words,) = commands(readme, "kd-marl")
    assert cli.main([*words, *TINY["kd_teacher"], f"--to={tmp_path}"]) == 0
    said = capfd.readouterr().out
    assert "training 1 of 1: python src/main.py --config=kd_teacher" in said
    assert re.search(r"its teacher: .*/models/kd_teacher_seed2_8m_", said)
    assert re.search(r"return, greedy: .* ± .*; of the teacher in .*8m: 1\.90 ± 0\.33\n$", said)


def test_the_masks_written_in_the_readme_are_masks(readme, capsys):
    masks = re.search(r"'masks=(.+?)'", readme).group(1)
    words = ["masks", "--env-config=mpe", "--key=pz-mpe-simple-spread-v3", "--limits=lh", f"--masks={masks}"]
    assert cli.main(words) == 0
    assert "L0.x" in capsys.readouterr().out


def test_every_side_command_of_the_readme_has_help_with_an_example(readme, capsys):
    named = re.findall(r"`kd-marl ([a-z|]+(?: [a-z|]+)?)(?: FOLDER| --help)?`", readme)
    names = {name.split()[0] for name in named}
    assert names == {"masks", "buffer", "teachers", "doctor"}
    for name in names:
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0
        assert "example" in capsys.readouterr().out


def test_make_knows_the_targets_that_the_readme_names(readme, root):
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make ([a-z]+)`?", readme)) & {"demo", "setup", "test", "check", "results"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
