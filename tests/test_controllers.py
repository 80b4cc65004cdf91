"""Controllers: what each agent sees and computes, batched or alone, hidden in the environment or by the controller."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from envs.hetero_mask.presets import scaled_widths
from kd_controllers.hetero_mac import HeteroMAC, read_widths
from kd_controllers.host_policy import HostPolicyMAC
from kd_controllers.random_mac import RandomMAC
from kd_controllers.student_net import HeteroStudent
from kd_controllers.teacher_mac import TEACHER_INPUTS, TeacherMAC, TeacherSizes, unroll
from kd_learners.evaluation import Arena
from kd_marl.errors import UserError
from kd_marl.metrics.flops import agent_flops, closed_formula, parameter_count
from tiny_stages import ACTIONS, AGENTS, HOST, OBS, STATE, described, scheme_of, stage_args

FEATURES = 6
SPREAD, SPEAKER, ADVERSARY = "simple-spread-v3", "simple-speaker-listener-v4", "simple-adversary-v3"


# ------------------------------------------------------------------------------------------------------ the student
@st.composite
def teams(draw):
    """Widths, visible features and sharing of two to four agents; widths and sights repeat often."""
    n_agents = draw(st.integers(2, 4))
    sights = draw(
        st.lists(st.sets(st.integers(0, FEATURES - 1), min_size=1).map(sorted), min_size=2, max_size=2).filter(bool)
    )
    visible = [draw(st.sampled_from([*sights, list(range(FEATURES))])) for _ in range(n_agents)]
    widths = [draw(st.sampled_from([3, 5, 8])) for _ in range(n_agents)]
    return widths, visible, draw(st.sampled_from(["none", "group", "all"]))


def one_by_one(student, obs):
    """Every agent alone, step by step, from its visible features only."""
    batch, time = obs.shape[:2]
    logits = torch.zeros(batch, time, student.n_agents, student.n_actions)
    embedding = torch.zeros(batch, time, student.n_agents, student.max_width)
    for i in range(student.n_agents):
        network, state = student.agent_network(i), torch.zeros(batch, student.widths[i])
        for t in range(time):
            logits[:, t, i], state = network(obs[:, t, i, list(student.visible[i])], state)
            embedding[:, t, i, : student.widths[i]] = state
    return logits, embedding


@given(teams())
def test_all_agents_at_once_compute_what_each_computes_alone(team):
    widths, visible, sharing = team
    student = HeteroStudent(widths, visible, ACTIONS, sharing)
    obs = torch.randn(3, 4, len(widths), FEATURES)
    with torch.no_grad():
        for batched, alone in zip(student.unroll(obs), one_by_one(student, obs), strict=True):
            torch.testing.assert_close(batched, alone, rtol=0, atol=2e-6)


@given(teams(), st.sampled_from([1e3, -1e30]))
def test_hidden_features_never_reach_the_output(team, value):
    widths, visible, sharing = team
    student = HeteroStudent(widths, visible, ACTIONS, sharing)
    obs = torch.randn(2, 3, len(widths), FEATURES)
    changed = obs.clone()
    for i, indices in enumerate(visible):
        changed[:, :, i, [k for k in range(FEATURES) if k not in indices]] = value
    with torch.no_grad():
        for before, after in zip(student.unroll(obs), student.unroll(changed), strict=True):
            assert torch.equal(before, after)


@given(teams())
def test_carrying_the_recurrent_state_equals_the_whole_sequence(team):
    widths, visible, sharing = team
    student = HeteroStudent(widths, visible, ACTIONS, sharing)
    obs = torch.randn(2, 5, len(widths), FEATURES)
    with torch.no_grad():
        logits, embedding = student.unroll(obs)
        hidden = torch.zeros(2, len(widths), student.max_width)
        for t in range(5):
            step_logits, states = student.unroll(obs[:, t : t + 1], hidden)
            hidden = states[:, 0]
            torch.testing.assert_close(step_logits[:, 0], logits[:, t], rtol=0, atol=2e-6)
            torch.testing.assert_close(hidden, embedding[:, t], rtol=0, atol=2e-6)


@given(teams())
def test_the_gradient_of_the_batch_is_that_of_the_agents_alone(team):
    # Without sharing every agent's own network has the gradient that autograd finds for it alone.
    widths, visible, _ = team
    student = HeteroStudent(widths, visible, ACTIONS)
    obs = torch.randn(2, 4, len(widths), FEATURES)
    student.unroll(obs)[0].square().sum().backward()
    for i, group in ((i, g) for g in student.groups for i in g.members):
        network, state, row = student.agent_network(i), torch.zeros(2, widths[i]), group.members.index(i)
        loss = 0.0
        for t in range(4):
            logits, state = network(obs[:, t, i, list(visible[i])], state)
            loss = loss + logits.square().sum()
        loss.backward()
        seen = len(visible[i])
        pairs = [
            (group.aligner_weight.grad[row, :seen].T, network.fc1.weight.grad),
            (group.aligner_bias.grad[row, 0], network.fc1.bias.grad),
            (group.weight_ih.grad[row].T, network.rnn.weight_ih.grad),
            (group.weight_hh.grad[row].T, network.rnn.weight_hh.grad),
            (group.head_weight.grad[row].T, network.fc2.weight.grad),
        ]
        for batched, alone in pairs:
            torch.testing.assert_close(batched, alone, rtol=1e-4, atol=1e-5)


def test_padding_of_the_aligners_stays_zero_in_training():
    student = HeteroStudent([8, 8, 4], [[0, 2, 3, 5], [1], [0, 4]], ACTIONS)
    optimiser = torch.optim.Adam(student.parameters(), lr=0.1)
    for _ in range(5):
        obs = torch.randn(4, 3, 3, FEATURES)
        optimiser.zero_grad()
        logits, embedding = student.unroll(obs)
        (logits.square().sum() + embedding.sum()).backward()
        optimiser.step()
    narrow, wide = student.groups
    assert torch.count_nonzero(wide.aligner_weight[1, 1:]) == 0
    assert torch.count_nonzero(wide.aligner_weight[1, :1]) > 0
    assert narrow.aligner_weight.shape == (1, 2, 4)


@pytest.mark.parametrize(("sharing", "tied"), [("none", set()), ("group", {(0, 1)}), ("all", {(0, 1), (0, 2), (1, 2)})])
def test_sharing_ties_the_body_but_never_the_aligners(sharing, tied):
    # Agents 0, 1, 2 are equally wide, 0 and 1 see the same; agent 3 sees the same with another width.
    student = HeteroStudent([4, 4, 4, 6], [[0, 1], [0, 1], [2], [0, 1]], ACTIONS, sharing)
    networks = [student.agent_network(i) for i in range(4)]
    equal = {
        (i, j)
        for i, j in itertools.combinations(range(3), 2)
        if torch.equal(networks[i].rnn.weight_hh, networks[j].rnn.weight_hh)
        and torch.equal(networks[i].rnn.weight_ih, networks[j].rnn.weight_ih)
        and torch.equal(networks[i].fc2.weight, networks[j].fc2.weight)
    }
    assert equal == tied
    assert not torch.equal(networks[0].fc1.weight, networks[1].fc1.weight)
    sets = {"none": 3, "group": 2, "all": 1}[sharing]

    def body(w):
        return 6 * w * w + 6 * w + w * ACTIONS + ACTIONS

    aligners = 3 * (2 * 4 + 4) + (2 * 6 + 6)
    assert parameter_count(student) == sets * body(4) + body(6) + aligners


@pytest.mark.parametrize(("width", "visible"), [(16, [0, 3]), (32, list(range(FEATURES)))])
def test_an_agents_own_network_has_the_parameters_and_flops_it_needs_and_no_more(width, visible):
    student = HeteroStudent([width, 8], [visible, [1]], ACTIONS)
    network, d_in = student.agent_network(0), len(visible)
    assert parameter_count(network) == d_in * width + width + 6 * width**2 + 6 * width + width * ACTIONS + ACTIONS
    assert agent_flops(network, d_in) == closed_formula(d_in, width, ACTIONS)


def test_an_agent_that_does_not_exist_has_no_network():
    with pytest.raises(IndexError, match="no agent 2: agents are 0 to 1"):
        HeteroStudent([4, 4], [[0], [1]], ACTIONS).agent_network(2)


def test_an_unknown_sharing_names_the_choices():
    with pytest.raises(UserError, match=r"sharing is 'groups'; did you mean 'group'"):
        HeteroStudent([4, 4], [[0], [1]], ACTIONS, "groups")


# ------------------------------------------------------------------------------------------------------- the widths
@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A toy run's namespace with a mask: agent 0 sees its signal, agent 1 all but the noise."""
    masks = "0: [0, 1, 2], 1: [0, 1, 2, 4]"
    return described(stage_args("kd_student", tmp_path_factory.mktemp("toy"), limits="fo", masks=masks))


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
        read_widths(given, toy.observation_mask, "lh", 32)
    assert "\n" not in str(caught.value)


def test_widths_by_every_way_to_give_them(toy):
    mask = toy.observation_mask
    assert read_widths(None, mask, "lh", 32) == read_widths("", mask, "fo", 32) == (32, 32)
    assert read_widths(12, mask, "lh", 32) == (12, 12)
    assert read_widths([8, 24], mask, "lha", 32) == (8, 24)
    assert read_widths("auto", mask, "lh", 32) == read_widths(None, mask, "lha", 32) == scaled_widths(mask) == (16, 32)


# --------------------------------------------------------------------- hidden by the environment or by the controller
CASES = {
    "spread, lh paper": (SPREAD, {"limits": "lh"}),
    "adversary, lha paper with derived distances": (ADVERSARY, {"limits": "lha"}),
    "adversary, lh random": (ADVERSARY, {"limits": "lh", "masks_preset": "random"}),
    "spread, lh random, shared": (SPREAD, {"limits": "lh", "masks_preset": "random", "sharing": "all"}),
    "speaker and listener, user's masks": (SPEAKER, {"limits": "fo", "masks": "1: [V, 3, 9]", "widths": [8, 16]}),
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
    described(args)
    trained = HeteroMAC(scheme_of(args), None, args)
    with torch.no_grad():  # Outputs that the features decide, not the initial biases.
        for parameter in trained.parameters():
            parameter.mul_(3.0)

    def make(scheme, options):
        mac = HeteroMAC(scheme, None, options)
        assert mac.masks_here == (options.mask_at == "controller")
        mac.load_state(trained)
        mac.greedy = greedy
        return mac

    played = {}
    for masked in (True, False):
        blocks = Arena(HOST, args, 100).blocks(make, masked, "")
        played[masked] = [(batch["obs"], batch["actions"]) for batch, _, _ in blocks]
    assert sum(len(actions) for _, actions in played[True]) == 100
    for (seen, chosen), (full, as_chosen) in zip(played[True], played[False], strict=True):
        assert torch.equal(chosen, as_chosen)
        assert not torch.equal(seen, full) if seen.shape == full.shape else True
    assert len(torch.cat([actions for _, actions in played[True]]).unique()) > 1


def test_a_masked_environment_hides_nothing_that_an_unmasked_one_shows_under_fo(tmp_path):
    args = described(stage_args("kd_student", tmp_path, limits="fo"))
    mac = HeteroMAC(scheme_of(args), None, args)
    assert [len(mac.mask.indices(i)) for i in range(AGENTS)] == [OBS, OBS]


def test_every_block_of_episodes_gets_masks_of_its_own(tmp_path):
    args = described(stage_args("kd_student", tmp_path, limits="lh", masks_preset="random"))
    mac = HeteroMAC(scheme_of(args), None, args)
    drawn = []
    for episode in range(2):
        mac.init_hidden(3)
        expected = np.stack([mac.mask.draw(args.env_args["seed"] + row, episode) for row in range(3)])
        np.testing.assert_array_equal(mac.visible.numpy().astype(bool), expected)
        drawn.append(mac.visible)
    assert not torch.equal(*drawn)


def test_a_mask_for_another_observation_is_our_own_mistake(tmp_path):
    args = described(stage_args("kd_student", tmp_path, limits="fo"))
    with pytest.raises(AssertionError, match=f"the mask is for observations of {OBS} features, the scheme has 9"):
        HeteroMAC(scheme_of(args, obs_size=9), None, args)


# ------------------------------------------------------------------------------------------------------ the teacher
def episodes_of(batch=3, time=4, seed=0):
    """A host's batch of random episodes, every step filled."""
    generator = torch.Generator().manual_seed(seed)
    args = SimpleNamespace(state_shape=STATE, obs_size=OBS, n_actions=ACTIONS, n_agents=AGENTS, common_reward=True)
    preprocess = {"actions": ("actions_onehot", [HOST.OneHot(out_dim=ACTIONS)])}
    episodes = HOST.EpisodeBatch(scheme_of(args), {"agents": AGENTS}, batch, time, preprocess=preprocess)
    avail = torch.randint(2, (batch, time, AGENTS, ACTIONS), generator=generator)
    avail[..., 1] = 1
    data = {
        "state": torch.randn(batch, time, STATE, generator=generator),
        "obs": torch.randn(batch, time, AGENTS, OBS, generator=generator),
        "avail_actions": avail,
        "actions": torch.randint(ACTIONS, (batch, time, AGENTS, 1), generator=generator),
    }
    episodes.update(data, bs=slice(None), ts=slice(0, time))
    return episodes


def teacher_mac(**changes):
    options = {
        "n_agents": AGENTS,
        "n_actions": ACTIONS,
        "hidden_dim": 8,
        "use_rnn": True,
        "obs_agent_id": True,
        "obs_last_action": False,
        "teacher_input": "obs",
        "agent_output_type": "pi_logits",
        "action_selector": "soft_policies",
        "test_greedy": True,
        "mask_before_softmax": True,
        "agent": "rnn",
        "device": "cpu",
    }
    args = SimpleNamespace(**{**options, **changes})
    return TeacherMAC({"obs": {"vshape": OBS}, "state": {"vshape": STATE}}, None, args), args


@pytest.mark.parametrize("use_rnn", [True, False], ids=["rnn", "mlp"])
@pytest.mark.parametrize("obs_last_action", [True, False], ids=["last action", ""])
@pytest.mark.parametrize("obs_agent_id", [True, False], ids=["id", ""])
@pytest.mark.parametrize("teacher_input", TEACHER_INPUTS)
def test_whole_sequences_equal_the_hosts_agent_step_by_step(teacher_input, obs_agent_id, obs_last_action, use_rnn):
    mac, _ = teacher_mac(
        teacher_input=teacher_input, obs_agent_id=obs_agent_id, obs_last_action=obs_last_action, use_rnn=use_rnn
    )
    episodes = episodes_of()
    time = episodes.max_seq_length
    steps = {"obs": episodes["obs"], "state": episodes["state"], "actions": episodes["actions"].squeeze(-1)}
    with torch.no_grad():
        logits, embedding = mac.unroll(steps)
        mac.init_hidden(episodes.batch_size)
        for row in range(episodes.batch_size):
            for i in range(AGENTS):
                hidden = torch.zeros(1, 8)
                for t in range(time):
                    parts = [episodes["obs"][row, t, i]] if teacher_input != "state" else []
                    parts += [episodes["state"][row, t]] if teacher_input != "obs" else []
                    if obs_last_action:
                        parts.append(episodes["actions_onehot"][row, t - 1, i] if t else torch.zeros(ACTIONS))
                    parts += [torch.eye(AGENTS)[i]] if obs_agent_id else []
                    out, hidden = mac.agent(torch.cat([p.float() for p in parts]).unsqueeze(0), hidden)
                    torch.testing.assert_close(logits[row, t, i], out[0], rtol=0, atol=2e-6)
                    torch.testing.assert_close(embedding[row, t, i], hidden[0], rtol=0, atol=2e-6)
        for t in range(time):
            probs = mac.forward(episodes, t)
            open_logits = logits[:, t].masked_fill(episodes["avail_actions"][:, t] == 0, -torch.inf)
            torch.testing.assert_close(probs, open_logits.softmax(-1), rtol=0, atol=2e-6)


def test_a_carried_state_equals_the_whole_sequence():
    mac, _ = teacher_mac()
    inputs = torch.randn(2, 6, AGENTS, mac.sizes.input_size)
    with torch.no_grad():
        logits, embedding = unroll(mac.agent, inputs)
        _, first = unroll(mac.agent, inputs[:, :2])
        later, states = unroll(mac.agent, inputs[:, 2:], first[:, -1])
    torch.testing.assert_close(later, logits[:, 2:], rtol=0, atol=1e-6)
    torch.testing.assert_close(states, embedding[:, 2:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("obs_last_action", [True, False])
def test_the_teacher_acts_as_the_hosts_own_controller_with_its_weights(obs_last_action):
    ours, args = teacher_mac(obs_last_action=obs_last_action)
    args.mac = "basic_mac"
    batch = episodes_of()
    theirs = HOST.controllers["basic_mac"](batch.scheme, {"agents": AGENTS}, args)
    theirs.agent.load_state_dict(ours.agent.state_dict())
    for mac in (ours, theirs):
        mac.init_hidden(batch.batch_size)
    for t in range(batch.max_seq_length):
        chosen = []
        for mac in (ours, theirs):
            torch.manual_seed(t)
            chosen.append(mac.select_actions(batch, t, 0, test_mode=False))
        assert torch.equal(*chosen)


def test_greedy_takes_the_best_available_action_and_sampling_follows_the_probabilities():
    mac, _ = teacher_mac()
    batch = episodes_of(batch=1)
    avail = batch["avail_actions"][:, 0]
    with torch.no_grad():
        mac.init_hidden(1)
        probs = mac.forward(batch, 0)
    assert torch.equal(probs[avail == 0], torch.zeros(int((avail == 0).sum())))

    def draw(test_mode):
        mac.init_hidden(1)
        return mac.select_actions(batch, 0, 0, test_mode=test_mode)

    assert torch.equal(draw(test_mode=True), probs.argmax(-1))
    counts = sum(torch.nn.functional.one_hot(draw(test_mode=False), ACTIONS) for _ in range(3000))
    torch.testing.assert_close(counts / 3000, probs, rtol=0, atol=0.04)
    mac.greedy = False
    assert len({tuple(draw(test_mode=True).flatten().tolist()) for _ in range(50)}) > 1


def test_only_the_asked_for_episodes_act_but_all_remember():
    mac, _ = teacher_mac()
    batch = episodes_of()
    mac.init_hidden(3)
    assert mac.select_actions(batch, 0, 0, bs=[0, 2], test_mode=True).shape == (2, AGENTS)
    assert mac.hidden_states.shape == (3, AGENTS, 8)


def test_an_unknown_teacher_input_names_the_choices():
    with pytest.raises(UserError, match="teacher_input is 'observation': choose one of obs, state, obs\\+state"):
        TeacherSizes(2, 3, 5, 6, 8, True, True, False, "observation")


# ------------------------------------------------------------------------------------------------------ the baselines
def test_the_random_policy_is_uniform_over_what_is_available():
    _, args = teacher_mac()
    mac, batch = RandomMAC(args), episodes_of(batch=2)
    mac.init_hidden(2)
    avail = batch["avail_actions"][:, 0]
    torch.testing.assert_close(mac.forward(batch, 0), avail / avail.sum(-1, keepdim=True))
    first = torch.stack([mac.select_actions(batch, 0, 0, test_mode=True) for _ in range(200)])
    assert len(first.unique()) > 1
    assert bool(avail.expand(200, -1, -1, -1).gather(-1, first.unsqueeze(-1)).all())


def test_a_stock_controller_is_played_greedily_too():
    _, args = teacher_mac()
    batch = episodes_of()
    stock = HOST.controllers["basic_mac"](batch.scheme, {"agents": AGENTS}, args)
    mac = HostPolicyMAC(stock, args)
    with torch.no_grad():
        mac.init_hidden(3)
        best = mac.forward(batch, 0).masked_fill(batch["avail_actions"][:, 0] == 0, -1).argmax(-1)
        mac.init_hidden(3)
        assert torch.equal(mac.select_actions(batch, 0, 0, test_mode=True), best)
