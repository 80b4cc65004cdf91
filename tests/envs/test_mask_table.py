"""The table of who sees what, and the page about masks."""

import re
from pathlib import Path

import pytest

from kd_core.costs.flops import closed_formula, flops_per_decision
from kd_core.errors import UserError
from kd_envs.hetero_mask import default_widths, mask_for, mask_table, mask_text, plain_layout
from kd_envs.hetero_mask.layouts import ranges
from mpe_layouts import ADVERSARY, SPREAD, seen
from smac_layouts import SIZES, smac_layout, smax_layout

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


# --- The pages -------------------------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "guides" / "masks.md").read_text(encoding="utf-8")
LIMITS = (DOCS / "concepts" / "limits.md").read_text(encoding="utf-8")


def test_the_pages_show_the_real_tables_and_the_real_error():
    assert mask_text(mask_for(ADVERSARY, "lh", "paper"), (32, 32, 32)) in PAGE
    battle = mask_for(smax_layout("5m_vs_6m", 5, 6), "lha")
    assert mask_text(battle, default_widths(battle.layout, battle, "lha", 32)) in LIMITS
    with pytest.raises(UserError) as error:
        mask_for(SPREAD, "lh", masks={0: ["A(P)0"]})
    assert f"\n{error.value}\n" in PAGE


def test_the_masks_on_the_page_work():
    examples = re.findall(r"'masks=(.*)'", PAGE)
    layouts = (SPREAD, SPREAD, smax_layout("3m", 3, 3))
    shown = [seen(mask_for(layout, "lh", "paper", example)) for layout, example in zip(layouts, examples, strict=True)]
    assert shown[0]["agent_1"] == ("V.x", "V.y", "L0.x", "L0.y", "A(P)2.x")
    assert shown[1]["agent_2"] == ("P.x", "P.y", "D(A-A)0", "D(A-A)1")
    assert shown[2]["agent_0"][0] == "E1.health"
    assert len(shown[2]["agent_0"]) == 11


@pytest.mark.parametrize("task", SIZES)
def test_the_sizes_on_the_page_are_the_layouts_own(task):
    cells = next(line for line in PAGE.splitlines() if line.startswith(f"| {task} | {SIZES[task][0]}, "))
    families = ((smax_layout(task, *SIZES[task]), "AEO"), (smac_layout(task), "EAO"))
    for cell, (layout, letters) in zip(cells.split(" | ")[2:], families, strict=True):
        blocks = [layout.find(0, letter) for letter in letters]
        ranges_ = ", ".join(f"[{block[0]}, {block[-1] + 1})" for block in blocks)
        assert cell.rstrip(" |") == f"{ranges_}, {layout.obs_size}"


@pytest.mark.parametrize("task", SIZES)
def test_the_savings_on_the_page_are_the_formulas_own(task):
    cells = re.search(rf"^\| {task} \| (\d.*?) \| (\d.*?) \|$", PAGE[PAGE.index("## Widths") :], re.MULTILINE)
    families = ((smax_layout(task, *SIZES[task]), 5), (smac_layout(task), 6))
    for cell, (layout, others) in zip(cells.groups(), families, strict=True):
        actions = others + SIZES[task][1]
        teacher = closed_formula(layout.obs_size + layout.n_agents, 256, actions)
        found = []
        for limits in ("fo", "lh", "lha"):
            mask = mask_for(layout, limits)
            widths = default_widths(layout, mask, limits, 32)
            team = [closed_formula(int(n), width, actions) for n, width in zip(mask.counts, widths, strict=True)]
            found.append(f"{teacher / flops_per_decision(team):.0f}")
        assert cell == ", ".join(found)


def test_the_code_on_the_page_runs(capsys):
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1)
    scope = {}
    exec(code, scope)
    assert "agent_1" in capsys.readouterr().out
    assert scope["mask"].indices(1) == (0, 1, 4, 5, 6, 7, 8, 9)
