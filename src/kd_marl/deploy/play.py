"""Plays a bundle in the environment of a host, each agent in a process that is told its own features and no others.

The episodes are those in which a run evaluates its student: same seeds, same runner, same blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd_controllers.policy_mac import PolicyMAC
from kd_core.errors import UserError
from kd_core.host import Host
from kd_core.task import task_names
from kd_envs.hetero_mask.known_layouts import layout_for
from kd_envs.hetero_mask.mask import SENSOR_STATUS, ObservationMask, own_action_names
from kd_marl.deploy.agent_process import AgentProcess, BadRadio, join_team
from kd_marl.evaluation.episodes import PairedEpisodes, Played
from kd_marl.processes.workers import workers_watched
from kd_onboard.bundle import Bundle
from kd_runners import environments


class RadioCount:
    """Counts the messages that were due at the steps that were played, and those that were heard.

    Attributes:
        due: messages that were sent, one for each hearer, and whose step of hearing was played.
        heard: those of them that were heard.
    """

    def __init__(self, agents: Sequence[AgentProcess], delay: int = 0) -> None:
        self._messages = [agent.profile.messages for agent in agents]
        self._delay, self._spoke = delay, list[np.ndarray]()
        self.due = self.heard = 0

    def begin(self, slots: int) -> None:
        """Begin so many episodes."""
        self._slots = slots
        self._spoke = []

    def add(self, slots: np.ndarray, answers: Sequence[np.ndarray]) -> None:
        """Add the next step of some episodes: the answers of all agents."""
        spoke = np.zeros((len(answers), self._slots), bool)
        for i, (messages, answer) in enumerate(zip(self._messages, answers, strict=True)):
            if messages is None:
                continue
            spoke[i, slots] = answer["spoke"] != 0
            self.heard += int(answer["heard"].sum())
            said = len(self._spoke) - messages.latency - self._delay
            if said >= 0:
                self.due += int(self._spoke[said][list(messages.hears)][:, slots].sum())
        self._spoke.append(spoke)


class BundleMAC(PolicyMAC):
    """The host's controller interface around the agents' processes."""

    def __init__(self, agents: Sequence[AgentProcess], args: Any, count: RadioCount | None = None) -> None:
        super().__init__(args)
        self.agent = nn.Identity()
        self._agents = agents
        self._indices = [[feature.index for feature in agent.profile.features] for agent in agents]
        self._slots = np.arange(0)
        self._count = count or RadioCount(agents)

    def init_hidden(self, batch_size: int) -> None:
        """Begin ``batch_size`` episodes."""
        self._slots = np.arange(batch_size)
        for agent in self._agents:
            agent.reset(batch_size)
        self._count.begin(batch_size)

    def select_actions(
        self, ep_batch: Any, t_ep: int, t_env: int, bs: Any = slice(None), test_mode: bool = False
    ) -> Tensor:
        """Return the actions of the episodes ``bs``, int64 ``(len(bs), agents)``."""
        slots = self._slots[bs]
        obs = ep_batch["obs"][:, t_ep][bs].numpy()
        available = ep_batch["avail_actions"][:, t_ep][bs].numpy()
        for i, agent in enumerate(self._agents):
            agent.ask(slots, obs[:, i, self._indices[i]], available[:, i] != 0)
        answers = [agent.reply() for agent in self._agents]
        self._count.add(slots, answers)
        return torch.from_numpy(np.stack([answer["action"] for answer in answers], axis=1).astype(np.int64))


def play_bundle(
    host: Host,
    bundle: Bundle,
    args: Any,
    mask: ObservationMask,
    episodes: int,
    backend: str,
    key: Path | None = None,
    trust: bool = False,
    sample: int | None = None,
    radio: BadRadio | None = None,
) -> tuple[Played, RadioCount]:
    """Play whole episodes.

    Args:
        host: whose environments and runner are used.
        bundle: the team.
        args: a run's namespace, see :func:`prepare`.
        mask: who sees what, as :func:`prepare` says it.
        episodes: how many.
        backend: of `kd_onboard`.
        key: file of the public key that must have signed the bundle, or None.
        trust: run its C although no key vouches for it.
        sample: seed with which actions are drawn; None: each agent takes its best one.
        radio: what the messages of a talking team go through; None: they are neither lost nor late.

    Returns:
        What the team scored, and its messages.

    Raises:
        UserError: an agent's process cannot start, dies, or is given what it cannot act on.
    """
    paired = PairedEpisodes(host, args, mask, episodes)
    agents: list[AgentProcess] = []
    try:
        for profile in bundle.agents:
            agents.append(AgentProcess(bundle, profile, backend, paired.block, key, trust, sample, radio))
        for agent in agents:
            agent.wait_until_ready()
        join_team(agents)
        count = RadioCount(agents, 0 if radio is None else radio.delay)

        def team(scheme: dict[str, Any], options: Any) -> PolicyMAC:
            return BundleMAC(agents, options, count)

        with workers_watched():
            return paired.play(team, masked=True, label=f"bundle, {backend}"), count
    finally:
        for agent in agents:
            agent.close()


def prepare(host: Host, bundle: Bundle, args: Any) -> ObservationMask:
    """Complete a namespace with its environment's sizes, and see that the bundle was made for it.

    Args:
        host: whose environments are used.
        bundle: the team.
        args: the configuration as a namespace, with ``map_name``, ``seed`` and ``device``.

    Returns:
        Who sees what, from the bundle's profile: whatever the keys would say.

    Raises:
        UserError: the environment cannot be built here, or is another than the bundle's.
    """
    task = bundle.task
    if args.map_name not in (task.name, *task_names(task.name)):
        raise UserError(f"the bundle {bundle.folder} plays {task.name}, not {args.map_name}: give its own task")
    here = environments.prepare(host, args)
    for name in ("n_agents", "n_actions", "obs_size"):
        if getattr(here, name) != getattr(task, name):
            raise UserError(
                f"{task.name} has {name} {getattr(here, name)} here, the bundle {bundle.folder} was made for "
                f"{getattr(task, name)}: use the environment's settings of its run"
            )
    return bundle_mask(bundle, here.facts)


def bundle_mask(bundle: Bundle, info: Mapping[str, Any]) -> ObservationMask:
    """Build the mask from the profile alone.

    Args:
        bundle: the team.
        info: what its environment says of itself, which names a battle's features.

    Raises:
        UserError: the profile's features are not those of the task's layout in this version.
    """
    task = bundle.task
    layout = layout_for(task.name, task.n_agents, task.obs_size, info)
    visible = np.zeros((task.n_agents, max(layout.n_features, task.extended_size)), bool)
    every = [feature for agent in bundle.agents for feature in agent.features]
    # The status of the sensors begins where the features end, with that of feature 0.
    starts = {feature.index - feature.status_of for feature in every if feature.status_of is not None}
    sensed = min(starts, default=layout.n_features)
    for agent in bundle.agents:
        names = layout.feature_names[agent.index][:sensed]
        status = tuple(f"{SENSOR_STATUS}{name}" for name in names) if starts else ()
        names += status + own_action_names(task.n_actions)
        for feature in agent.features:
            here = names[feature.index] if feature.index < len(names) else None
            if here != feature.name:
                raise UserError(
                    f"{agent.label} of {bundle.folder} reads feature {feature.index} as '{feature.name}', which this "
                    f"version calls '{here}': export the bundle again"
                )
            visible[agent.index, feature.index] = True
    sizes = [agent.draw_sizes for agent in bundle.agents]
    drawn = [size for size in sizes if size is not None]
    draw_sizes = drawn if len(drawn) == len(sizes) else None
    own_actions = task.n_actions if any(feature.own_action is not None for feature in every) else 0
    return ObservationMask(layout, visible[:, :sensed], draw_sizes, "bundle", own_actions, bool(starts))
