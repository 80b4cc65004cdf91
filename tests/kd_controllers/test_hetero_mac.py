"""The students' controller: its widths, and masks in the environment or in the controller."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kd_controllers.hetero_mac import HeteroMAC, read_widths
from kd_core.errors import UserError
from kd_envs.hetero_mask.presets import scaled_widths
from kd_marl.evaluation.episodes import PairedEpisodes
from tiny_stages import AGENTS, HOST, OBS, described, scheme_of, stage_args

SPREAD, SPEAKER, ADVERSARY = "simple-spread-v3", "simple-speaker-listener-v4", "simple-adversary-v3"


# ------------------------------------------------------------------------------------------------------- the widths
@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The mask of a toy run: agent 0 sees its signal, agent 1 all but the noise."""
    masks = "0: [0, 1, 2], 1: [0, 1, 2, 4]"
    return described(stage_args("kd_student", tmp_path_factory.mktemp("toy"), limits="fo", masks=masks)).mask


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([16, 32, 16], "widths has 3 numbers, but toy-signals-v0 has 2 agents"),
        ([16], "widths has 1 numbers"),
        ([16, 2.5], r"widths is \[16, 2.5\]: expected a list such as"),
        ([16, 0], r"widths is \[16, 0\]"),
        ([16, True], r"widths is \[16, True\]"),
        ("atuo", "widths is 'atuo': expected .* or auto"),
        (-4, "widths is -4"),
        (True, "widths is True"),
        (2.5, "widths is 2.5"),
        ({"a": 3, "b": 4}, "widths is"),
    ],
)
def test_wrong_widths_are_refused_in_one_line(toy, given, message):
    with pytest.raises(UserError, match=message) as caught:
        read_widths(given, toy, "lh", 32)
    assert "\n" not in str(caught.value)


def test_widths_by_every_way_to_give_them(toy):
    assert read_widths(None, toy, "lh", 32) == read_widths("", toy, "fo", 32) == (32, 32)
    assert read_widths(12, toy, "lh", 32) == (12, 12)
    assert read_widths([8, 24], toy, "lha", 32) == (8, 24)
    assert read_widths("auto", toy, "lh", 32) == read_widths(None, toy, "lha", 32) == scaled_widths(toy) == (16, 32)


# --------------------------------------------------------------------- hidden by the environment or by the controller
CASES = {
    "spread, lh paper": (SPREAD, {"limits": "lh"}),
    "adversary, lha paper with derived distances": (ADVERSARY, {"limits": "lha"}),
    "adversary, lh random": (ADVERSARY, {"limits": "lh", "masks_preset": "random"}),
    "spread, lh random, shared": (SPREAD, {"limits": "lh", "masks_preset": "random", "sharing": "all"}),
    "adversary, lh random, own action": (
        ADVERSARY,
        {"limits": "lh", "masks_preset": "random", "own_action": True},
    ),
    "spread, lha paper, own action": (SPREAD, {"limits": "lha", "own_action": True}),
    "speaker and listener, user's masks": (SPEAKER, {"limits": "fo", "masks": "1: [V, 3, 9]", "widths": [8, 16]}),
    "spread, lh paper, messages": (SPREAD, {"limits": "lh", "message_bits": 6}),
    "adversary, lha random, late messages in turns": (
        ADVERSARY,
        {"limits": "lha", "masks_preset": "random", "message_bits": 3, "message_latency": 2, "message_every": 3},
    ),
    "spread, lh random, messages and sensor status": (
        SPREAD,
        {"limits": "lh", "masks_preset": "random", "message_bits": 4, "sensor_status": True, "own_action": True},
    ),
    "spread, one agent's mask and the rest random": (
        SPREAD,
        {"limits": "lh", "masks_preset": "random", "masks": "2: [V, P]"},
    ),
}


@pytest.mark.parametrize("greedy", [True, False], ids=["greedy", "sampled"])
@pytest.mark.parametrize("case", CASES)
def test_masked_environment_and_masking_controller_choose_the_same_actions(case, greedy, tmp_path):
    task, updates = CASES[case]
    args = stage_args(
        "kd_student", tmp_path, "mpe", env_args={"key": f"pz-mpe-{task}"}, **{"batch_size_run": 10, **updates}
    )
    context = described(args)
    trained = HeteroMAC(scheme_of(args), None, args, context.mask)
    with torch.no_grad():  # Outputs that the features decide, not the initial biases.
        for parameter in trained.parameters():
            parameter.mul_(3.0)

    def make(scheme, options):
        mac = HeteroMAC(scheme, None, options, context.mask)
        assert mac.masks_here == (options.mask_at == "controller")
        mac.load_state(trained)
        mac.greedy = greedy
        return mac

    played = {}
    for masked in (True, False):
        blocks = PairedEpisodes(HOST, args, context.environment_mask, 100).blocks(make, masked, "")
        played[masked] = [(batch["obs"], batch["actions"]) for batch, _, _ in blocks]
    assert sum(len(actions) for _, actions in played[True]) == 100
    for (seen, chosen), (full, as_chosen) in zip(played[True], played[False], strict=True):
        assert torch.equal(chosen, as_chosen)
        assert not torch.equal(seen, full) if seen.shape == full.shape else True
    assert len(torch.cat([actions for _, actions in played[True]]).unique()) > 1


def test_a_masked_environment_hides_nothing_that_an_unmasked_one_shows_under_fo(tmp_path):
    args = stage_args("kd_student", tmp_path, limits="fo")
    mask = described(args).mask
    mac = HeteroMAC(scheme_of(args), None, args, mask)
    assert [len(mac.mask.indices(i)) for i in range(AGENTS)] == [OBS, OBS]


def test_every_block_of_episodes_gets_masks_of_its_own(tmp_path):
    args = stage_args("kd_student", tmp_path, limits="lh", masks_preset="random")
    mask = described(args).mask
    mac = HeteroMAC(scheme_of(args), None, args, mask)
    drawn = []
    for episode in range(2):
        mac.init_hidden(3)
        expected = np.stack([mac.mask.draw(args.env_args["seed"] + row, episode) for row in range(3)])
        np.testing.assert_array_equal(mac.visible.numpy().astype(bool), expected)
        drawn.append(mac.visible)
    assert not torch.equal(*drawn)


def test_a_mask_for_another_observation_is_our_own_mistake(tmp_path):
    args = stage_args("kd_student", tmp_path, limits="fo")
    mask = described(args).mask
    with pytest.raises(AssertionError, match=f"the mask is for observations of {OBS} features, the scheme has 9"):
        HeteroMAC(scheme_of(args, obs_size=9), None, args, mask)
