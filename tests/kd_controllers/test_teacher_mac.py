"""The teacher's controller and the baselines: whole sequences, steps, and how actions are chosen."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from kd_controllers.host_policy import HostPolicyMAC
from kd_controllers.random_mac import RandomMAC
from kd_controllers.teacher_mac import TEACHER_INPUTS, TeacherMAC, TeacherSizes, unroll, unroll_packed
from kd_core.errors import UserError
from tiny_stages import ACTIONS, AGENTS, HOST, OBS, STATE, scheme_of


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
        logits, embedding = mac.unroll_inputs(mac.episode_inputs(steps))
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


@pytest.mark.parametrize("use_rnn", [True, False])
def test_agents_with_networks_of_their_own_are_unrolled_each_with_its_own(use_rnn):
    sizes = TeacherSizes(AGENTS, 3, 5, 6, 8, use_rnn, False, False, "obs", agent="rnn_ns")
    agent, inputs = sizes.build(), torch.randn(2, 4, AGENTS, sizes.input_size)
    length = torch.full((2, AGENTS), 4)
    length[0, 0], length[:, -1] = 2, 0
    with torch.no_grad():
        whole, packed = unroll(agent, inputs), unroll_packed(agent, inputs, length)
        _, first = unroll(agent, inputs[:, :2])
        later, _ = unroll(agent, inputs[:, 2:], first[:, -1])
        for i, own in enumerate(agent.agents):
            for found, alone in zip(whole, unroll(own, inputs[:, :, i : i + 1]), strict=True):
                torch.testing.assert_close(found[:, :, i : i + 1], alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(later, whole[0][:, 2:], rtol=0, atol=1e-6)
    taken = (torch.arange(4)[:, None] < length.unsqueeze(1)).unsqueeze(-1)
    for found, full in zip(packed, whole, strict=True):
        torch.testing.assert_close(found, full * taken, rtol=0, atol=1e-6)


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


@pytest.mark.parametrize("use_rnn", [True, False])
def test_packed_sequences_are_each_agents_own_until_it_ends(use_rnn):
    mac, _ = teacher_mac(use_rnn=use_rnn)
    inputs = torch.randn(4, 6, AGENTS, mac.sizes.input_size, generator=torch.Generator().manual_seed(1))
    length = torch.tensor([[3] * AGENTS, [6] * AGENTS, [1] * AGENTS, [5] * AGENTS])
    length[0, 0], length[3, -1] = 0, 2
    with torch.no_grad():
        found = unroll_packed(mac.agent, inputs, length)
        expected = unroll(mac.agent, inputs)
    taken = (torch.arange(6).view(1, -1, 1) < length.unsqueeze(1)).unsqueeze(-1)
    for packed, whole in zip(found, expected, strict=True):
        torch.testing.assert_close(packed, torch.where(taken, whole, 0.0))
