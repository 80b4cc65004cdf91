"""What a decision costs: parameters, FLOPs and microseconds of teacher, student, or any policy of the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from kd_controllers.hetero_mac import HeteroMAC
from kd_core.costs import flops
from kd_learners.frozen_teacher import FrozenTeacher

TIMED_DECISIONS = 300


def pair_costs(
    teacher: FrozenTeacher, student: HeteroMAC, teacher_length: float, student_length: float
) -> dict[str, float]:
    """Compute parameters, FLOPs and microseconds of both; parameters and FLOPs per decision are means over the agents.

    Args:
        teacher: the frozen teacher.
        student: the trained controller.
        teacher_length: mean steps of its episodes.
        student_length: the same of the student's.
    """
    with _on_cpu(teacher.mac, student):
        agents = range(student.n_agents)
        sizes = teacher.sizes
        whole = flops.AgentStep(sizes.input_size, sizes.hidden_dim, sizes.n_actions, sizes.use_rnn)
        networks = [student.agent.agent_network(i) for i in agents]
        inputs = [len(student.mask.indices(i)) for i in agents]
        of_teacher = [flops.agent_flops(whole, sizes.input_size)] * student.n_agents
        of_student = [flops.agent_flops(net, d_in) for net, d_in in zip(networks, inputs, strict=True)]
        teacher_input = torch.zeros(1, 1, student.n_agents, sizes.input_size)
        student_input = torch.zeros(1, 1, student.n_agents, student.mask.obs_size)
        state = student.initial_hidden(1)
        per_decision = {
            "teacher": flops.flops_per_decision(of_teacher),
            "student": flops.flops_per_decision(of_student),
        }
        return {
            "params_teacher": flops.parameter_count(whole),
            "params_student": float(np.mean([flops.parameter_count(net) for net in networks])),
            "flops_per_decision_teacher": per_decision["teacher"],
            "flops_per_decision_student": per_decision["student"],
            "flops_ratio": per_decision["teacher"] / per_decision["student"],
            "flops_per_episode_teacher": flops.flops_per_episode(of_teacher, teacher_length),
            "flops_per_episode_student": flops.flops_per_episode(of_student, student_length),
            "decision_us_teacher": _microseconds(lambda: teacher.mac.unroll_inputs(teacher_input)),
            "decision_us_student": _microseconds(lambda: student.agent.advance(student_input, state)),
        }


def policy_costs(mac: Any, n_agents: int, length: float) -> dict[str, float]:
    """Compute the same of one policy; empty for a network that is not an input layer ``fc1`` with what follows it.

    Args:
        mac: its controller, the host's or ours.
        n_agents: size of the team.
        length: mean steps of its episodes.
    """
    with _on_cpu(mac):
        networks, decide = _networks(mac, n_agents)
        if not networks:
            return {}
        counted = [flops.agent_flops(network, d_in) for network, d_in in networks]
        return {
            "params": float(np.mean([flops.parameter_count(network) for network, _ in networks])),
            "flops_per_decision": flops.flops_per_decision(counted),
            "flops_per_episode": flops.flops_per_episode(counted, length),
            "decision_us": _microseconds(decide),
        }


def _networks(mac: Any, n_agents: int) -> tuple[list[tuple[nn.Module, int]], Callable[[], Any]]:
    """Return each agent's network with its number of inputs, and a joint decision of the team."""
    agent = mac.agent
    if hasattr(agent, "agent_network"):
        each = [(agent.agent_network(i), len(mac.mask.indices(i))) for i in range(n_agents)]
        nothing = torch.zeros(1, 1, n_agents, mac.mask.obs_size)
        state = mac.initial_hidden(1)
        return each, lambda: agent.advance(nothing, state)
    # A list where nothing is shared, else one network for all.
    own = list(getattr(agent, "agents", [agent]))
    if not all(hasattr(network, "fc1") for network in own):
        return [], lambda: None
    rows = torch.zeros(n_agents, own[0].fc1.in_features)
    hidden = agent.init_hidden()
    hidden = hidden.unsqueeze(0) if len(own) > 1 else hidden.expand(n_agents, -1)
    shared = own * n_agents if len(own) == 1 else own
    return [(network, network.fc1.in_features) for network in shared], lambda: agent(rows, hidden)


@contextmanager
def _on_cpu(*macs: Any) -> Iterator[None]:
    """Move controllers' networks to the CPU for a block: boards have no GPU, and there a clock stops too early."""
    devices = [(mac.agent, parameter.device) for mac in macs for parameter in islice(mac.agent.parameters(), 1)]
    for agent, _ in devices:
        agent.cpu()
    try:
        yield
    finally:
        for agent, device in devices:
            agent.to(device)


@torch.no_grad()
def _microseconds(decide: Callable[[], Any]) -> float:
    """Measure the median time of one joint decision of the team, one environment, in PyTorch."""
    times = []
    for _ in range(TIMED_DECISIONS):
        started = time.perf_counter()
        decide()
        times.append(time.perf_counter() - started)
    return 1e6 * float(np.median(times))
