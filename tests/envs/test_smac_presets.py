"""Limits of battles: Table I on its four maps, the rule for every other map, widths, and what they save."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kd_core.costs.flops import closed_formula, flops_per_decision
from kd_core.errors import UserError
from kd_envs.hetero_mask import default_widths, mask_for, mask_text
from kd_envs.hetero_mask.presets import FOLDER, LHA_WIDTHS, battle_widths, scaled_widths
from smac_layouts import SIZES, smac_env, smac_layout, smax_layout

# The paper's Table I.
TABLE = {
    "3m": ["E", "A", "AO"],
    "8m": ["E", "E", "E", "A", "A", "EO", "AO", "AE"],
    "5m_vs_6m": ["E", "E", "EOA", "A", "AO"],
    "3s5z": ["E", "EA", "E", "A", "A", "AO", "AO", "EO"],
}
LAYOUTS = [layout for task in TABLE for layout in (smac_layout(task), smax_layout(task, *SIZES[task]))]
IDS = [f"{layout.task}-{layout.obs_size}" for layout in LAYOUTS]


def blocks_seen(mask):
    """The letters of the blocks each agent sees whole; fails where one is seen in part."""
    found = []
    for agent, layout in enumerate(mask.layout.agents):
        names = set(mask.names(agent))
        for letter, features in layout.blocks.items():
            assert not names.intersection(features) or names.issuperset(features), f"part of {letter}"
        found.append({letter for letter, features in layout.blocks.items() if names.issuperset(features)})
    return found


# --- Table I ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS, ids=IDS)
def test_agents_see_their_row_of_table_1_and_the_moves(layout):
    mask = mask_for(layout, "lh", "paper")
    assert blocks_seen(mask) == [set(row) for row in TABLE[layout.task]]
    for agent in range(layout.n_agents):
        assert set(layout.agents[agent].loose) <= set(mask.indices(agent)), "moves are no sensor's"
    assert mask.signature() == mask_for(layout, "lha", "paper").signature()
    assert mask_for(layout, "fo").visible.all()


def test_agent_0_of_3m_sees_the_enemies_and_nothing_else():
    smac, smax = (mask_for(layout, "lh", "paper") for layout in LAYOUTS[:2])
    assert smac.indices(0) == (*range(4), *range(4, 19))
    assert smax.indices(0) == tuple(range(26, 65))
    assert smac.indices(2) == (*range(4), *range(19, 30))
    assert smax.indices(2) == (*range(26), *range(65, 75))


@pytest.mark.parametrize("task", TABLE)
def test_preset_files_hold_the_rows_and_the_widths_that_the_rule_gives(task):
    data = yaml.safe_load((FOLDER / f"{task}.yaml").read_text())
    assert {name: set(row) for name, row in data["paper"].items()} == {
        f"agent_{agent}": set(row) for agent, row in enumerate(TABLE[task])
    }
    for layout in (smac_layout(task), smax_layout(task, *SIZES[task])):
        mask = mask_for(layout, "lha", "paper")
        assert tuple(data["widths"]["paper"].values()) == battle_widths(mask)
        assert default_widths(layout, mask, "lha", 32) == battle_widths(mask)


@pytest.mark.parametrize("layout", LAYOUTS, ids=IDS)
def test_random_shows_half_of_everything_anew_each_episode(layout):
    mask = mask_for(layout, "lha", "random")
    assert mask.draw_per_episode
    half = -(-layout.obs_size // 2)
    draws = [mask.draw(3, episode) for episode in range(5)]
    assert all((draw.sum(1) == half).all() for draw in draws)
    assert not np.array_equal(draws[0], draws[1])
    assert default_widths(layout, mask, "lha", 20) == tuple((32, 24, 16)[agent % 3] for agent in range(layout.n_agents))


# --- The rule for other maps -----------------------------------------------------------------------------------------


def test_the_rule_is_the_tables_own_composition():
    rule = blocks_seen(mask_for(smax_layout("25m", 25, 25), "lh"))
    assert rule[:3] == [set(row) for row in TABLE["3m"]]
    assert sorted(map(sorted, rule[:8])) == sorted(sorted(row) for row in TABLE["8m"])
    assert sum("E" in row for row in rule[:5]) == sum("E" in row for row in TABLE["5m_vs_6m"])
    assert rule[8:16] == rule[:8]


@given(n_agents=st.integers(1, 30), n_enemies=st.integers(1, 30), smac=st.booleans())
def test_every_map_has_limits_and_widths(n_agents, n_enemies, smac):
    layout = smax_layout("mine", n_agents, n_enemies)
    if smac:
        double = type(smac_env("smac", map_name="3m"))
        double.MAPS["mine"] = (n_agents, n_enemies, 2, (1, 0), 10)
        layout = smac_layout("mine")
    mask = mask_for(layout, "lha", "paper")
    rows = blocks_seen(mask)
    assert any("E" in row for row in rows)
    assert all(rows)
    if n_agents > 1:
        assert len({tuple(sorted(row)) for row in rows}) > 1, "heterogeneous"
    widths = default_widths(layout, mask, "lha", 32)
    assert all(LHA_WIDTHS[0] <= width <= LHA_WIDTHS[1] for width in widths)
    for row, width in zip(rows, widths, strict=True):
        assert width == 16 + 8 * ("E" in row) + 8 * (len(row) > 1)


@pytest.mark.parametrize(
    ("package", "env_args", "task"),
    [
        ("smaclite", {"map_name": "2s3z"}, "2s3z"),
        (
            "smacv2",
            {
                "map_name": "10gen_terran",
                "capability_config": {"n_units": 5, "n_enemies": 5, "team_gen": {"unit_types": ["a", "b", "c"]}},
            },
            "10gen_terran",
        ),
    ],
)
def test_maps_outside_the_table_follow_the_rule(package, env_args, task):
    mask = mask_for(smac_layout(task, smac_env(package, **env_args)), "lh")
    assert blocks_seen(mask) == [{"E"}, {"A"}, {"A", "O"}, {"E"}, {"A", "E"}]


def test_terrain_is_hidden_and_the_moves_are_not():
    env = smac_env("smac", map_name="3m", obs_terrain_height=True, obs_pathing_grid=True)
    mask = mask_for(smac_layout("3m", env), "lh")
    assert blocks_seen(mask) == [{"E"}, {"A"}, {"A", "O"}]
    assert mask.indices(0)[:5] == (0, 1, 2, 3, 21)
    assert mask_for(mask.layout, "lh", masks={0: ["T"]}).indices(0) == tuple(range(4, 21))


def test_a_map_of_the_tables_name_with_more_agents_is_refused():
    with pytest.raises(UserError, match="the preset 'paper' of 3m has no row for agent 'agent_3'"):
        mask_for(smax_layout("3m", 4, 3), "lh", "paper")


# --- The user's own, and the table -----------------------------------------------------------------------------------


def test_units_blocks_and_features_are_words_of_a_mask():
    layout = smax_layout("3m", 3, 3)
    mask = mask_for(layout, "lh", "paper", {0: ["O", "E1.health"], "agent_1": ["A0"]})
    assert mask.indices(0) == (39, *range(65, 75))
    assert mask.indices(1) == tuple(range(13))
    assert mask.indices(2) == mask_for(layout, "lh").indices(2)
    # Of the user's own masks: by how many features an agent sees, as on every task.
    assert default_widths(layout, mask, "lha", 32) == scaled_widths(mask) == (16, 16, 32)


def test_the_table_names_whole_units():
    text = mask_text(mask_for(smax_layout("8m", 8, 8), "lh", masks={1: ["A0.x", "A2", "E3", "E4", "E5", "O.health"]}))
    assert "│ 0 agent_0 │ E                " in text
    assert "E0 to E7" in text
    assert "A0.x, A2, E3 to E5, O.health" in text
    smac = mask_text(mask_for(smac_layout("3m"), "lh"))
    assert "move, A0, A1, O.health" in smac
    assert "15 of 30" in smac


# --- What it saves ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS, ids=IDS)
@pytest.mark.parametrize("width", [16, 32])
@pytest.mark.parametrize("limits", ["fo", "lh", "lha"])
def test_a_decision_costs_at_least_28_6_times_less_than_the_teachers(layout, limits, width):
    """The paper's average saving, on every map, against a 256-wide teacher that also gets the agent's index."""
    n_actions = SIZES[layout.task][1] + (6 if layout.feature_names[0][0].startswith("move") else 5)
    mask = mask_for(layout, limits, "paper")
    widths = default_widths(layout, mask, limits, width)
    students = [closed_formula(int(n), w, n_actions) for n, w in zip(mask.counts, widths, strict=True)]
    teacher = closed_formula(layout.obs_size + layout.n_agents, 256, n_actions)
    assert teacher / flops_per_decision(students) >= 28.6
