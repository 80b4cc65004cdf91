"""The trace of one agent in whole episodes, as a C header that a program replays without an environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from envs.hetero_mask.mask import ObservationMask
from kd_controllers.policy_mac import PolicyMAC
from kd_core.host import Host
from kd_core.versions import package_version
from kd_learners import batches
from kd_marl.deploy.csource import comment
from kd_marl.evaluation.episodes import PairedEpisodes
from kd_marl.processes.workers import workers_watched
from kd_onboard.agent import OnboardAgent
from kd_onboard.bundle import Bundle
from kd_onboard.profile import AgentProfile


@dataclass(frozen=True)
class Trace:
    """Episodes of one agent, one after the other.

    Attributes:
        begins: ``(steps,)`` bool: an episode begins here.
        features: ``(steps, inputs)`` float32.
        available: ``(steps, actions)`` bool.
        actions: ``(steps,)`` int64: what it did.
    """

    begins: np.ndarray
    features: np.ndarray
    available: np.ndarray
    actions: np.ndarray


class _Team(PolicyMAC):
    """The host's controller interface around the agents, for one episode at a time."""

    def __init__(self, agents: Sequence[OnboardAgent], args: Any) -> None:
        super().__init__(args)
        self.agent = nn.Identity()
        self._agents = agents

    def init_hidden(self, batch_size: int) -> None:
        assert batch_size == 1, "one episode at a time"
        for agent in self._agents:
            agent.reset()

    def select_actions(
        self, ep_batch: Any, t_ep: int, t_env: int, bs: Any = slice(None), test_mode: bool = False
    ) -> Tensor:
        obs, available = (ep_batch[key][0, t_ep].numpy() for key in ("obs", "avail_actions"))
        rows = zip(self._agents, obs, available, strict=True)
        return torch.tensor([[agent.act(row[_indices(agent.profile)], may != 0) for agent, row, may in rows]])


def trace(host: Host, bundle: Bundle, args: Any, mask: ObservationMask, agent: AgentProfile, episodes: int) -> Trace:
    """Play whole episodes and note what one agent met.

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
    team = [OnboardAgent.load(bundle, profile.index) for profile in bundle.agents]
    parts: dict[str, list[np.ndarray]] = {"begins": [], "features": [], "available": [], "actions": []}
    with workers_watched():
        for batch, _, _ in paired.blocks(lambda _, options: _Team(team, options), masked=True, label="trace"):
            played = batches.from_host(batch)
            steps = int(played.length[0])
            parts["begins"].append(np.arange(steps) == 0)
            parts["features"].append(played.obs[0, :steps, agent.index].numpy()[:, _indices(agent)])
            parts["available"].append(played.avail_actions[0, :steps, agent.index].numpy() != 0)
            parts["actions"].append(played.actions[0, :steps, agent.index].numpy())
    return Trace(**{name: np.concatenate(rows) for name, rows in parts.items()})


def header(trace: Trace, bundle: Bundle, agent: AgentProfile) -> str:
    """Return the trace as C99: sizes, and one array for each of its attributes; floats are exact."""
    steps, episodes = len(trace.actions), int(trace.begins.sum())
    lines = [
        "/*",
        f' * {episodes} episodes of agent "{comment(agent.name)}" of {comment(bundle.task.name)}, recorded by kd-marl '
        f"{package_version('kd-marl')}.",
        " * kd_record_begins is 1 where an episode begins; kd_record_actions is what the agent did.",
        " */",
        "#ifndef KD_RECORD_H",
        "#define KD_RECORD_H",
        "",
        f"#define KD_RECORD_STEPS {steps}",
        f"#define KD_RECORD_INPUTS {agent.inputs}",
        f"#define KD_RECORD_ACTIONS {agent.n_actions}",
        "",
        _array("unsigned char", "begins", [str(int(value)) for value in trace.begins]),
        _array("float", "features[][KD_RECORD_INPUTS]", [_row(row) for row in trace.features]),
        _array("unsigned char", "available[][KD_RECORD_ACTIONS]", [_row(row.astype(int)) for row in trace.available]),
        _array("int", "actions", [str(value) for value in trace.actions]),
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _indices(agent: AgentProfile) -> list[int]:
    return [feature.index for feature in agent.features]


def _array(kind: str, name: str, rows: Sequence[str]) -> str:
    name = name.replace("[]", "[KD_RECORD_STEPS]") if "[]" in name else f"{name}[KD_RECORD_STEPS]"
    return f"static const {kind} kd_record_{name} = {{\n" + "".join(f"    {row},\n" for row in rows) + "};\n"


def _row(values: np.ndarray) -> str:
    if values.dtype.kind == "f":
        return "{" + ", ".join(f"{float(value).hex()}f" for value in values) + "}"
    return "{" + ", ".join(str(value) for value in values) + "}"
