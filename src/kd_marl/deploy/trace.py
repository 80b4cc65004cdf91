"""The trace of one agent in whole episodes, as a C header that a program replays without an environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd_controllers.policy_mac import PolicyMAC
from kd_core.errors import UserError
from kd_core.host import Host
from kd_core.versions import package_version
from kd_envs.hetero_mask.mask import ObservationMask
from kd_learners import batches
from kd_marl.deploy.csource import comment
from kd_marl.evaluation.episodes import PairedEpisodes
from kd_marl.processes.workers import workers_watched
from kd_onboard.agent import OnboardAgent, TalkingAgent
from kd_onboard.bundle import Bundle
from kd_onboard.numpy_backend import program_backend
from kd_onboard.profile import AgentProfile


@dataclass(frozen=True)
class Trace:
    """Episodes of one agent, one after the other.

    Attributes:
        begins: ``(steps,)`` bool: an episode begins here.
        features: ``(steps, inputs)`` float32.
        available: ``(steps, actions)`` bool.
        actions: ``(steps,)`` int64: what it did.
        inbox: ``(steps, speakers * message bytes)`` uint8, what it heard; no columns where it hears nobody.
        outbox: ``(steps, message bytes)`` uint8, what it said; no columns where nobody hears it.
    """

    begins: np.ndarray
    features: np.ndarray
    available: np.ndarray
    actions: np.ndarray
    inbox: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.uint8))
    outbox: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.uint8))


class _Team(PolicyMAC):
    """The host's controller interface around the agents, for one episode at a time."""

    def __init__(self, agents: Sequence[OnboardAgent], args: Any) -> None:
        super().__init__(args)
        self.agent = nn.Identity()
        self._agents = agents
        # What each agent heard and said, step by step.
        self.heard: list[list[list[bytes | None]]] = []
        self.said: list[list[bytes | None]] = []

    def init_hidden(self, batch_size: int) -> None:
        assert batch_size == 1, "one episode at a time"
        self.heard, self.said = [], []
        for agent in self._agents:
            agent.reset()

    def select_actions(
        self, ep_batch: Any, t_ep: int, t_env: int, bs: Any = slice(None), test_mode: bool = False
    ) -> Tensor:
        obs, available = (ep_batch[key][0, t_ep].numpy() for key in ("obs", "avail_actions"))
        self.heard.append([self._inbox(agent.profile) for agent in self._agents])
        actions, said = [], []
        for agent, row, may, inbox in zip(self._agents, obs, available, self.heard[-1], strict=True):
            given = (row[_indices(agent.profile)], may != 0)
            action, message = agent.act(*given, inbox) if isinstance(agent, TalkingAgent) else (agent.act(*given), None)
            actions.append(action)
            said.append(message)
        self.said.append(said)
        return torch.tensor([actions])

    def _inbox(self, agent: AgentProfile) -> list[bytes | None]:
        """Return what an agent hears at this step."""
        if agent.messages is None:
            return []
        when = len(self.said) - agent.messages.latency
        return [self.said[when][speaker] if when >= 0 else None for speaker in agent.messages.hears]


def trace(host: Host, bundle: Bundle, args: Any, mask: ObservationMask, agent: AgentProfile, episodes: int) -> Trace:
    """Play whole episodes, as the agents' C does, and note what one agent met.

    Args:
        host: whose environments and runner are used.
        bundle: the team.
        args: a run's namespace, completed by :func:`kd_marl.deploy.play.prepare`.
        mask: who sees what, as that function says it.
        agent: whose trace it is.
        episodes: how many.

    Raises:
        UserError: ``episodes`` is not positive.
    """
    args.batch_size_run = 1
    paired = PairedEpisodes(host, args, mask, episodes)
    on_fault = bundle.profile.on_fault
    kinds = [OnboardAgent if one.messages is None else TalkingAgent for one in bundle.agents]
    team = [
        kind(one, program_backend(bundle.weights(one), one), on_fault)
        for kind, one in zip(kinds, bundle.agents, strict=True)
    ]
    parts: dict[str, list[np.ndarray]] = {part.name: [] for part in fields(Trace)}
    payload = 0 if agent.messages is None else agent.messages.payload_bytes
    with workers_watched():
        for batch, mac, _ in paired.blocks(lambda _, options: _Team(team, options), masked=True, label="trace"):
            played = batches.from_host(batch)
            steps = int(played.length[0])
            parts["begins"].append(np.arange(steps) == 0)
            parts["features"].append(played.obs[0, :steps, agent.index].numpy()[:, _indices(agent)])
            parts["available"].append(played.avail_actions[0, :steps, agent.index].numpy() != 0)
            parts["actions"].append(played.actions[0, :steps, agent.index].numpy())
            assert isinstance(mac, _Team), "made above"
            heard = [mac.heard[t][agent.index] for t in range(steps)]
            parts["inbox"].append(np.array([_packed(inbox, payload) for inbox in heard], np.uint8).reshape(steps, -1))
            said = [mac.said[t][agent.index : agent.index + 1] if agent.exchanged[1] else [] for t in range(steps)]
            parts["outbox"].append(np.array([_packed(one, payload) for one in said], np.uint8).reshape(steps, -1))
    return Trace(**{name: np.concatenate(rows) for name, rows in parts.items()})


def header(trace: Trace, bundle: Bundle, agent: AgentProfile) -> str:
    """Return the trace as C99: sizes, and one array for each of its attributes; floats are exact.

    Its names begin with the agent's prefix, so that a program can hold recordings of several agents.

    Raises:
        UserError: the bundle has no C of the agent.
    """
    if agent.c is None:
        raise UserError(f"{bundle.folder} has no C program of {agent.label}: export it again")
    name = f"{agent.c.prefix}_record"
    upper = name.upper()
    steps, episodes = len(trace.actions), int(trace.begins.sum())
    inputs, actions = f"[{upper}_INPUTS]", f"[{upper}_ACTIONS]"
    arrays = [
        ("unsigned char", "begins", "", [str(int(value)) for value in trace.begins]),
        ("float", "features", inputs, [_row(row) for row in trace.features]),
        ("unsigned char", "available", actions, [_row(row.astype(int)) for row in trace.available]),
        ("int", "actions", "", [str(value) for value in trace.actions]),
    ]
    for part, rows in (("inbox", trace.inbox), ("outbox", trace.outbox)):
        if rows.shape[1]:
            arrays.append(("unsigned char", part, f"[{rows.shape[1]}]", [_row(row) for row in rows]))
    lines = [
        "/*",
        f' * {episodes} episodes of agent "{comment(agent.name)}" of {comment(bundle.task.name)}, recorded by kd-marl '
        f"{package_version('kd-marl')}.",
        f" * {name}_begins is 1 where an episode begins; {name}_actions is what the agent did. A program with",
        " * one recording may leave the agent's name out: kd_record_begins. One with several defines",
        " * KD_AGENT_PREFIXED_ONLY.",
        " */",
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        "",
        *(f"#define {upper}_{key} {value}" for key, value in _sizes(steps, agent)),
        "",
        *(
            f"static const {kind} {name}_{part}[{upper}_STEPS]{size} = {{\n"
            + "".join(f"    {row},\n" for row in rows)
            + "};\n"
            for kind, part, size, rows in arrays
        ),
        "#ifndef KD_AGENT_PREFIXED_ONLY",
        "#ifdef KD_RECORD_STEPS",
        '#error "two recordings in one file: define KD_AGENT_PREFIXED_ONLY before them, and use their own names"',
        "#endif",
        *(f"#define KD_RECORD_{key} {upper}_{key}" for key, _ in _sizes(steps, agent)),
        *(f"#define kd_record_{part} {name}_{part}" for _, part, _, _ in arrays),
        "#endif",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _packed(messages: Sequence[bytes | None], payload: int) -> list[int]:
    """Return the bytes of messages as the C has them: a mark, and the bits behind it."""
    return [byte for message in messages for byte in (b"\0" * (1 + payload) if message is None else b"\1" + message)]


def _sizes(steps: int, agent: AgentProfile) -> list[tuple[str, int]]:
    return [("STEPS", steps), ("INPUTS", agent.inputs), ("ACTIONS", agent.n_actions)]


def _indices(agent: AgentProfile) -> list[int]:
    return [feature.index for feature in agent.features]


def _row(values: np.ndarray) -> str:
    if values.dtype.kind == "f":
        return "{" + ", ".join(f"{float(value).hex()}f" for value in values) + "}"
    return "{" + ", ".join(str(value) for value in values) + "}"
