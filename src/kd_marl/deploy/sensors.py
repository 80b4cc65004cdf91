"""The worth of each sensor: the student's return with it, and with its features at zero, in the same episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from kd_controllers.hetero_mac import HeteroMAC
from kd_core.errors import UserError
from kd_core.host import Host
from kd_envs.hetero_mask.mask import ObservationMask
from kd_marl.evaluation.episodes import PairedEpisodes, Played
from kd_marl.runs.student_run import StudentRun, run_arguments


class _BlindedMAC(HeteroMAC):
    """The student with some of one agent's features at zero, as if that sensor had failed."""

    def __init__(
        self, scheme: Mapping[str, Any], args: Any, mask: ObservationMask, agent: int, hidden: Sequence[int]
    ) -> None:
        super().__init__(scheme, None, args, mask)
        self._blind = (agent, list(hidden))

    def init_hidden(self, batch_size: int) -> None:
        super().init_hidden(batch_size)
        visible = self.visible
        if visible is None:
            visible = torch.from_numpy(self.mask.visible.astype("float32")).expand(batch_size, -1, -1)
        agent, hidden = self._blind
        self.visible = visible.clone()
        self.visible[:, agent, hidden] = 0.0


def measure(host: Host, run: StudentRun, episodes: int) -> list[list[dict[str, Any]]]:
    """Play the greedy student whole, then without each block of features of each agent.

    Args:
        host: whose runner and environments are used.
        run: the student.
        episodes: of each measurement; all begin in the same states, those of the student's own evaluation.

    Returns:
        For each agent one entry a block: ``block``, its ``features``, mean return ``return_with`` and
        ``return_without``, standard deviations over episodes, win rates where there are any, ``episodes``.

    Raises:
        UserError: the task's layout has no blocks, or its environment cannot be built here.
    """
    layout = run.mask.layout
    if not any(agent.blocks for agent in layout.agents):
        raise UserError(f"the features of {layout.task} are in no blocks: leave --measure-sensors out")
    args, _ = run_arguments(host, run)
    paired = PairedEpisodes(host, args, None, episodes)

    def play(agent: int, hidden: Sequence[int], label: str) -> Played:
        def make(scheme: dict[str, Any], options: Any) -> HeteroMAC:
            mac = _BlindedMAC(scheme, options, run.mask, agent, hidden)
            mac.agent.load_state_dict(run.network.state_dict())
            mac.greedy = True
            return mac

        return paired.play(make, masked=False, label=label)

    whole = play(0, [], "all sensors")
    found: list[list[dict[str, Any]]] = []
    for agent, name in enumerate(layout.agent_names):
        names = dict(zip(run.mask.indices(agent), run.mask.names(agent), strict=True))
        found.append([])
        for block, members in layout.agents[agent].blocks.items():
            hidden = [index for index, feature in names.items() if feature in members]
            if not hidden:
                continue
            played = play(agent, hidden, f"{name} without {block}")
            found[-1].append(
                {
                    "block": block,
                    "features": [names[index] for index in hidden],
                    "return_with": float(whole.returns.mean()),
                    "return_with_std": float(whole.returns.std()),
                    "return_without": float(played.returns.mean()),
                    "return_without_std": float(played.returns.std()),
                    "win_rate_with": whole.win_rate,
                    "win_rate_without": played.win_rate,
                    "episodes": episodes,
                }
            )
    return found
