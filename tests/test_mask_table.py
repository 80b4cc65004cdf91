"""The table of who sees what, and the page about masks."""

import re
from pathlib import Path

import pytest

from envs.hetero_mask import default_widths, mask_for, mask_table, mask_text, plain_layout
from envs.hetero_mask.layouts import ranges
from kd_marl.errors import UserError
from mpe_layouts import ADVERSARY, SPREAD, seen

# --- The table -------------------------------------------------------------------------------------------------------


def test_table_says_who_sees_what():
    mask = mask_for(ADVERSARY, "lha", "paper")
    text = mask_text(mask, default_widths(ADVERSARY, mask, "lha", 32))
    assert "simple_adversary: who sees what (paper)" in text
    rows = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]]
        for line in text.splitlines()
        if "│" in line
    }
    assert rows["1 agent_0"] == ["A(P)", "G, L", "A(P)0.x, A(P)0.y, A(P)2.x, A(P)2.y", "4 of 10", "16"]
    assert rows["2 agent_1"] == ["D(A-A)", "G, L, A(P)", "D(A-A)0, D(A-A)1", "2 of 10", "16"]
    assert mask_table(mask).row_count == 3


def test_table_shows_ranges_parts_and_draws():
    assert "0 to 1, 5" in mask_text(mask_for(plain_layout("toy", 1, 6), "lh", masks={0: [0, 1, 5]}))
    assert "L (2 of 6)" in mask_text(mask_for(SPREAD, "lh", masks={0: ["L1"]}))
    text = mask_text(mask_for(SPREAD, "lh", "random"))
    assert "drawn anew each episode" in text
    assert "8-10 of 18" in text
    assert ranges([]) == "none"


# --- The page --------------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parent.parent / "docs" / "masks.md").read_text(encoding="utf-8")


def test_the_page_shows_the_real_table_and_the_real_error():
    assert mask_text(mask_for(ADVERSARY, "lh", "paper"), (32, 32, 32)) in PAGE
    with pytest.raises(UserError) as error:
        mask_for(SPREAD, "lh", masks={0: ["A(P)0"]})
    assert f"\n{error.value}\n" in PAGE


def test_the_masks_on_the_page_work():
    examples = re.findall(r"'masks=(.*)'", PAGE)
    assert len(examples) == 2
    shown = [seen(mask_for(SPREAD, "lh", "paper", example)) for example in examples]
    assert shown[0]["agent_1"] == ("V.x", "V.y", "L0.x", "L0.y", "A(P)2.x")
    assert shown[1]["agent_2"] == ("P.x", "P.y", "D(A-A)0", "D(A-A)1")


def test_the_code_on_the_page_runs(capsys):
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1)
    scope = {}
    exec(code, scope)
    assert "agent_1" in capsys.readouterr().out
    assert scope["mask"].indices(1) == (0, 1, 4, 5, 6, 7, 8, 9)
