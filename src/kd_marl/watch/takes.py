"""Plays whole episodes with one policy and notes all that a film shows of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_controllers.hetero_mac import HeteroMAC
from kd_controllers.messages import Radio
from kd_controllers.policy_mac import UNAVAILABLE_LOGIT, PolicyMAC
from kd_controllers.talking_net import TalkingStep, TalkingStudent, bits_of
from kd_core.errors import UserError
from kd_core.host import Host
from kd_envs.hetero_mask.mask import ObservationMask, before
from kd_envs.worlds import World
from kd_learners import batches
from kd_learners.batches import Episodes
from kd_learners.frozen_teacher import FrozenTeacher
from kd_learners.losses import acting_mask
from kd_marl.evaluation.episodes import PairedEpisodes
from kd_marl.processes.workers import workers_watched
from kd_marl.stress.envs import Trouble
from kd_marl.watch.recorder import RUNNER, recording

Maker = Callable[[dict[str, Any], Any], PolicyMAC]


@dataclass(frozen=True)
class Player:
    """A policy that plays in a film.

    Attributes:
        kind: ``teacher``, ``student`` or ``bundle``.
        name: of its panel.
        caption: one line about it.
        mask: what it sees.
        make: its controller.
        args: its run's namespace.
        teacher: who is asked what it would do in this policy's place; a teacher: itself; None: nobody.
    """

    kind: str
    name: str
    caption: str
    mask: ObservationMask
    make: Maker
    args: SimpleNamespace
    teacher: FrozenTeacher | None


@dataclass(frozen=True, eq=False)
class Take:
    """One episode of one player, of T steps.

    Attributes:
        worlds: T + 1 of them; None where the environment tells of none.
        obs: ``(T + 1, agents, features)`` float32, the whole extended observation, whatever the player sees of it.
        visible: ``(agents, features)`` bool: what it sees.
        available: ``(T, agents, actions)`` bool.
        deciding: ``(T, agents)`` bool: the agent lives and has a choice.
        actions: ``(T, agents)`` int64.
        chances: ``(T, agents, actions)`` float32, the policy's own probabilities; None where it tells of none.
        teacher_chances: the teacher's in the same states; None without a teacher.
        values: ``(T + 1, agents)`` float32, the teacher's value of each state, in its critic's unit; None without one.
        rewards: ``(T,)`` float64, summed over agents where each has its own.
        won: whether it was won; None where the environment does not say.
        messages: ``(T, agents, bits)`` float32: 1 or -1 for each bit that an agent sends, 0 where it sends nothing;
            None for a silent team.
    """

    worlds: tuple[World, ...] | None
    obs: np.ndarray
    visible: np.ndarray
    available: np.ndarray
    deciding: np.ndarray
    actions: np.ndarray
    chances: np.ndarray | None
    teacher_chances: np.ndarray | None
    values: np.ndarray | None
    rewards: np.ndarray
    won: bool | None
    messages: np.ndarray | None = None

    @property
    def steps(self) -> int:
        """Its length."""
        return len(self.rewards)

    @property
    def returned(self) -> float:
        """The sum of its rewards."""
        return float(self.rewards.sum())

    @property
    def teacher_actions(self) -> np.ndarray | None:
        """What the teacher would do in the same states, int64 ``(T, agents)``."""
        return None if self.teacher_chances is None else self.teacher_chances.argmax(-1)

    @property
    def differs(self) -> np.ndarray:
        """Where the policy decides otherwise than the teacher would, bool ``(T, agents)``."""
        expert = self.teacher_actions
        return np.zeros_like(self.deciding) if expert is None else self.deciding & (self.actions != expert)

    @property
    def disagreement(self) -> float:
        """The share of decisions that differ from the teacher's."""
        return float(self.differs.sum() / max(1, self.deciding.sum()))


def play(host: Host, player: Player, trouble: Trouble, episodes: int, block: int) -> list[Take]:
    """Play whole episodes greedily.

    Args:
        host: whose environments are used.
        player: who plays.
        trouble: what goes wrong in the episodes.
        episodes: how many.
        block: at most so many of them at a time.

    Raises:
        UserError: ``episodes`` is not positive, or an environment fails.
    """
    args = SimpleNamespace(**{**vars(player.args), "runner": RUNNER, "batch_size_run": block})
    paired = PairedEpisodes(host, args, None, episodes)
    takes: list[Take] = []
    # As the run's own evaluation steps them; battles are alike either way, and fast in one call.
    together = player.args.runner == "vector" or player.args.env == "smax"
    with recording(host, trouble, together) as runners, workers_watched():
        for batch, mac, _ in paired.blocks(player.make, masked=False, label=player.name):
            runner = runners[-1]
            takes += _takes(player, batches.from_host(batch), mac, runner.recorded.worlds, runner.disturbed.won)
    return takes


@torch.no_grad()
def _takes(
    player: Player, played: Episodes, mac: PolicyMAC, worlds: list[list[World | None]], won: np.ndarray
) -> list[Take]:
    """Cut a block of episodes into takes."""
    mask, length = player.mask, played.length
    available = played.avail_actions[:, :-1] != 0
    deciding = acting_mask(played.filled.squeeze(-1), played.avail_actions[:, :-1]).bool()
    expert = values = own = said = None
    if player.teacher is not None:
        steps = {"obs": played.obs[:, :-1], "state": played.state[:, :-1], "actions": played.actions}
        logits, _ = player.teacher.label(steps, length)
        expert, values = _chances(logits, available), player.teacher.values(played)
    if isinstance(mac, HeteroMAC):
        radio = mac.radio(played.avail_actions[:, :-1])
        logits, embedding = mac.unroll(played.obs[:, :-1], mac.visible, before(played.actions), radio)
        own = _chances(logits, available)
        if isinstance(mac.agent, TalkingStudent) and radio is not None:
            said = _said(mac.agent, embedding, radio)
    elif player.kind == "teacher":
        own = expert
    visible = getattr(mac, "visible", None)
    extended = mask.layout.extend(played.obs)
    takes = []
    for row, steps_taken in enumerate(length.tolist()):
        seen = mask.visible if visible is None else visible[row].numpy() > 0

        def cut(values: Tensor | None, more: int = 0, row: int = row, until: int = steps_taken) -> Any:
            return None if values is None else values[row, : until + more].numpy()

        takes.append(
            Take(
                worlds=_whole(worlds[row], extended.shape[2]),
                obs=cut(extended, 1),
                visible=_padded(seen[:, : mask.sensed_size], extended.shape[-1]),
                available=cut(available),
                deciding=cut(deciding),
                actions=cut(played.actions),
                chances=cut(own),
                teacher_chances=cut(expert),
                values=cut(values, 1),
                messages=cut(said),
                rewards=played.reward[row, :steps_taken].double().sum(-1).numpy(),
                won=None if np.isnan(won[row]) else bool(won[row]),
            )
        )
    return takes


def _said(student: TalkingStudent, embedding: Tensor, radio: Radio) -> Tensor:
    """Compute the messages of all agents, ``(batch, time, agents, bits)``, from their embeddings."""
    said = embedding.new_zeros(*embedding.shape[:3], student.messages.bits)
    for agent, width in enumerate(student.widths):
        network = student.agent_network(agent)
        assert isinstance(network, TalkingStep), "an agent that talks"
        if network.speak is not None:
            voice = network.speak(embedding[:, :, agent, :width])
            said[:, :, agent] = bits_of(voice, network.number_bits) * radio.speaks[:, :, agent, None]
    return said


def _chances(logits: Tensor, available: Tensor) -> Tensor:
    """Convert logits to probabilities of the available actions; a row without any is uniform."""
    return torch.softmax(logits.masked_fill(~available, UNAVAILABLE_LOGIT), dim=-1)


def _whole(worlds: list[World | None], agents: int) -> tuple[World, ...] | None:
    """Return an episode's worlds if all are there.

    Raises:
        UserError: their shapes come and go, or one is an agent that there is not.
    """
    found = tuple(world for world in worlds if world is not None)
    if len(found) < len(worlds):
        return None
    names = [shape.name for shape in found[0].shapes]
    for world in found:
        if [shape.name for shape in world.shapes] != names:
            raise UserError("world() gives other shapes from step to step: give all in one order, dead ones too")
        for shape in world.shapes:
            if shape.agent is not None and shape.agent >= agents:
                raise UserError(f"world() says that {shape.name} is agent {shape.agent}: there are {agents}, from 0")
    return found


def _padded(visible: np.ndarray, features: int) -> np.ndarray:
    """Widen a mask that leaves derived features out."""
    return np.pad(visible, ((0, 0), (0, features - visible.shape[1])))
