"""The student that another one begins with: its weights, carried over to a mask that shows other features.

Inputs are matched by the names of their features. What the ancestor did not see begins with zero weights. What is no
longer seen is left out, as if its sensor delivered zeros. So before its first gradient step the new student acts as
its ancestor would with those sensors dead.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_controllers.hetero_mac import HeteroMAC
from kd_controllers.messages import check_same_radio
from kd_controllers.student_net import HeteroStudent
from kd_controllers.student_registry import make_student
from kd_core import checkpoints, files
from kd_core.errors import UserError
from kd_envs.hetero_mask.mask import ObservationMask

# Parameters of a `WidthGroup` that each of its agents has for itself; the others belong to a parameter set.
_OF_AN_AGENT = ("aligner_bias", "hear_weight")
_NEEDED = ("agent.th", "training.th")


@dataclass(frozen=True)
class Ancestor:
    """A trained student.

    Attributes:
        network: its policies.
        mask: who saw what.
        roles: its U_S, ``(roles, max_width)`` float32.
        facts: ``path`` of its checkpoint and ``sha256`` of its weights.
    """

    network: HeteroStudent
    mask: ObservationMask
    roles: Tensor
    facts: dict[str, str]

    def hand_over(self, mac: HeteroMAC) -> None:
        """Copy the weights into a controller whose agents may see other features.

        Raises:
            UserError: ``sharing`` would now give agents one network that had different ones.
        """
        for group, former in zip(mac.agent.groups, self.network.groups, strict=True):
            _inherit(group, former, mac.mask, self.mask)


def read_ancestor(path: str, args: Any, mac: HeteroMAC) -> Ancestor:
    """Read a checkpoint that a student is to begin with.

    Args:
        path: its folder, ``models/<run>/<steps>``.
        args: the run's namespace.
        mac: the controller of the student that begins with it.

    Raises:
        UserError: it is no student's, of another task, or its widths, actions or messages are others.
    """
    folder = Path(path).expanduser()
    facts = checkpoints.read_checkpoint(folder)
    if "mask" not in facts:
        raise UserError(f"adapt_from={path} is no student's checkpoint: give models/<run of kd_student>/<steps>")
    if facts["task"] != args.map_name:
        raise UserError(f"the student in {path} is of {facts['task']}, and this run's task is {args.map_name}")
    if tuple(facts["widths"]) != mac.agent.widths:
        raise UserError(
            f"the student in {path} has the widths {facts['widths']}, and this run {list(mac.agent.widths)}: set "
            f"widths={facts['widths']}"
        )
    check_same_radio(path, facts, mac.messages)
    mask = ObservationMask.from_dict(facts["mask"])
    network = make_student(args, facts["widths"], [mask.indices(i) for i in range(mask.n_agents)], mac.messages)
    agent, training = (_read(folder / name) for name in _NEEDED)
    try:
        network.load_state_dict(agent)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"the student in {path} has another network than this run's keys ask for: {reason}") from None
    known = {"path": str(folder), "sha256": files.file_sha256(folder / "agent.th")}
    return Ancestor(network, mask, training["student_roles"], known)


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
        raise UserError(f"{file} is missing or damaged: copy the checkpoint whole") from None


@torch.no_grad()
def _inherit(group: Any, former: Any, mask: ObservationMask, former_mask: ObservationMask) -> None:
    """Copy the parameters of the agents of one width."""
    origins = _origins(group.members, group.set_of.tolist(), former.set_of.tolist(), mask.layout.agent_names)
    given = dict(former.named_parameters())
    for name, parameter in group.named_parameters():
        if name == "aligner_weight":
            parameter.zero_()
            for row, agent in enumerate(group.members):
                seen = {feature: place for place, feature in enumerate(former_mask.names(agent))}
                for place, feature in enumerate(mask.names(agent)):
                    if feature in seen:
                        parameter[row, place] = given[name][row, seen[feature]]
        elif name in _OF_AN_AGENT:
            parameter.copy_(given[name])
        else:
            parameter.copy_(given[name][origins])


def _origins(members: Sequence[int], sets: Sequence[int], former: Sequence[int], names: Sequence[str]) -> list[int]:
    """Name for each parameter set the ancestor's that it is copied from.

    Raises:
        UserError: two agents would share what they did not share.
    """
    origins: dict[int, int] = {}
    for row, (own, was) in enumerate(zip(sets, former, strict=True)):
        if origins.setdefault(own, was) != was:
            first = members[sets.index(own)]
            raise UserError(
                f"sharing=group gives {names[first]} and {names[members[row]]} one network under these masks, and "
                "they had two: set sharing=none"
            )
    return [origins[own] for own in range(len(origins))]
