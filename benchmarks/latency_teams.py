"""The networks that `latency.py` times: EPyMARL's, ours in torch, and untrained students as a run would leave them."""

from __future__ import annotations

import dataclasses
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from kd_core.host import get_host

# A checkout's start wakes these, and its batches index in a way that torch advises against.
for noisy in ("git", "matplotlib"):
    logging.getLogger(noisy).setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message="Using a non-tuple sequence")
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

HOST = get_host()  # before anything of `envs`: on a checkout the host decides what that package is

from kd_controllers.hetero_mac import HeteroMAC  # noqa: E402
from kd_controllers.student_net import HeteroStudent  # noqa: E402
from kd_core.config import assemble, parse_command  # noqa: E402
from kd_core.costs.flops import AgentStep, closed_formula  # noqa: E402
from kd_envs.hetero_mask.battles import Part  # noqa: E402
from kd_envs.hetero_mask.known_layouts import layout_for  # noqa: E402
from kd_envs.hetero_mask.layouts import FeatureLayout  # noqa: E402
from kd_envs.hetero_mask.mask import ObservationMask  # noqa: E402
from kd_envs.hetero_mask.presets import default_widths, mask_for  # noqa: E402
from kd_marl.runs.student_run import StudentRun  # noqa: E402

TEACHER_WIDTH = 256
EPISODE = 25
RECORDED = 64

# Decisions to make -> seconds of this thread's CPU time that they took: whoever else runs here is not counted.
Timed = Callable[[int], float]


@dataclass(frozen=True)
class Size:
    """A task's sizes.

    Attributes:
        task: its key.
        env: the environment's name in a host's registry.
        inputs: elements of an agent's observation.
    """

    name: str
    task: str
    env: str
    n_agents: int
    inputs: int
    n_actions: int

    @property
    def teacher_inputs(self) -> int:
        """The observation and the agent's one-hot identity, as EPyMARL's MAPPO has it."""
        return self.inputs + self.n_agents


SIZES = (
    Size("spread", "pz-mpe-simple-spread-v3", "gymma", 3, 18, 5),
    Size("8m", "8m", "sc2", 8, 80, 14),
)
# Task -> what StarCraft II's environment says of its observations; the layouts of the others are known by their names.
_UNIT = ("distance", "x", "y", "health")
OBSERVATIONS = {
    "8m": (
        Part("move", None, ("north", "south", "east", "west")),
        Part("E", 8, ("attackable", *_UNIT)),
        Part("A", 7, ("visible", *_UNIT)),
        Part("O", None, ("health",)),
    ),
}


@dataclass(frozen=True)
class Students:
    """Untrained students of one task.

    Attributes:
        size: the task's sizes.
        limits: ``fo``, ``lh`` or ``lha``.
        mask: who sees what.
        widths: one an agent.
    """

    size: Size
    limits: str
    mask: ObservationMask
    widths: tuple[int, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """Number of features that each agent sees."""
        return tuple(len(self.mask.indices(agent)) for agent in range(self.size.n_agents))

    @property
    def widest(self) -> int:
        """The agent with the most features times width: what one agent costs is not that of one that sees little."""
        return max(range(self.size.n_agents), key=lambda agent: self.inputs[agent] * self.widths[agent])

    def flops(self, agents: Sequence[int]) -> int:
        """FLOPs of one decision of each of these agents."""
        return sum(closed_formula(self.inputs[i], self.widths[i], self.size.n_actions) for i in agents)

    def seen(self, shown: Recorded, agent: int) -> np.ndarray:
        """What an agent sees of what is shown: ``(RECORDED, its inputs)`` float32, contiguous."""
        return shown.features[:, agent].take(self.mask.indices(agent), axis=1)


def students(size: Size, limits: str, width: int) -> Students:
    """The students that a run under these limits has.

    Args:
        size: the task.
        limits: ``fo``, ``lh`` or ``lha``, with the preset of the paper.
        width: of all, but under ``lha``, which gives each its own.
    """
    layout = layout_of(size)
    mask = mask_for(layout, limits)
    return Students(size, limits, mask, default_widths(layout, mask, limits, width))


def layout_of(size: Size) -> FeatureLayout:
    """What the features of the task's observations mean."""
    return layout_for(size.task, size.n_agents, size.inputs, {"observation": OBSERVATIONS.get(size.task, ())})


@dataclass(frozen=True)
class Recorded:
    """What the agents are shown again and again.

    Attributes:
        features: ``(RECORDED, agents, inputs)`` float32.
        available: ``(RECORDED, agents, actions)`` bool, at least one each.
    """

    features: np.ndarray
    available: np.ndarray


def recorded(size: Size, seed: int = 0) -> Recorded:
    """Random features, and two thirds of the actions available."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((RECORDED, size.n_agents, size.inputs)).astype(np.float32)
    available = rng.random((RECORDED, size.n_agents, size.n_actions)) < 2 / 3
    available[..., 0] = True
    return Recorded(features, available)


def select_actions(mac: Any, size: Size, agents: Sequence[int], inputs: int) -> Timed:
    """``mac.select_actions`` as the host's runner calls it: one environment, gradients recorded, episode by episode.

    Args:
        mac: a controller of the host or ours.
        size: the task.
        agents: whom it decides for.
        inputs: elements of an observation that it is given.
    """
    agents = list(agents)
    groups = {"agents": len(agents)}
    batch = HOST.EpisodeBatch(_scheme(size, inputs), groups, 1, EPISODE + 1, device="cpu")
    shown = recorded(size)
    for t in range(EPISODE):
        obs = np.zeros((len(agents), inputs), np.float32)
        obs[:, : size.inputs] = shown.features[t, agents]
        batch.update({"obs": [obs], "avail_actions": [shown.available[t, agents].astype(np.int32)]}, ts=t)

    def run(decisions: int) -> float:
        started = time.thread_time()
        for k in range(decisions):
            t = k % EPISODE
            if t == 0:
                mac.init_hidden(1)
            mac.select_actions(batch, t_ep=t, t_env=0, test_mode=True)
        return time.thread_time() - started

    return run


def host_timed(size: Size, width: int, n_agents: int) -> Timed:
    """EPyMARL's controller with its recurrent network.

    Args:
        size: the task.
        width: of the network.
        n_agents: all, or 1: then the observation is as much longer as the identity is shorter, for the same network.
    """
    inputs = size.teacher_inputs - n_agents
    args = _args("mappo", size, n_agents)
    args.hidden_dim, args.agent = width, "rnn"
    torch.manual_seed(0)
    mac = HOST.controllers["basic_mac"](_scheme(size, inputs), {"agents": n_agents}, args)
    return select_actions(mac, size, range(n_agents), inputs)


def student_timed(team: Students, agents: Sequence[int]) -> Timed:
    """Our torch controller with some of the students, each with its own view and width."""
    size, whole = team.size, team.mask
    layout = dataclasses.replace(whole.layout, agents=tuple(whole.layout.agents[i] for i in agents))
    args = _args("kd_student", size, len(agents))
    mask = ObservationMask(layout, whole.visible[list(agents)], origin=whole.origin)
    args.widths, args.mask_at = [team.widths[i] for i in agents], "environment"
    return select_actions(HeteroMAC(_scheme(size, size.inputs), None, args, mask), size, agents, size.inputs)


def teacher_network(size: Size) -> AgentStep:
    """EPyMARL's teacher as one network that can be exported."""
    torch.manual_seed(0)
    return AgentStep(size.teacher_inputs, TEACHER_WIDTH, size.n_actions).eval()


def untrained_run(
    task: str,
    env: str,
    mask: ObservationMask,
    widths: Sequence[int],
    n_actions: int,
    seed: int = 0,
    limits: str = "fo",
) -> StudentRun:
    """A student with random weights, as `kd_marl.runs.student_run.load_student` would find a trained one.

    Args:
        task: its key.
        env: the environment's name.
        mask: who sees what.
        widths: of the agents.
        n_actions: size of the action space.
        seed: of the weights.
        limits: that the mask and the widths come from.
    """
    torch.manual_seed(seed)
    visible = [mask.indices(agent) for agent in range(mask.n_agents)]
    scored = {"return_mean": 0.0, "return_std": 0.0, "win_rate": None}
    return StudentRun(
        checkpoint=Path("untrained/0"),
        facts={"task": task, "seed": seed, "command": "", "teacher": {"path": "", "sha256": {"agent.th": "0" * 64}}},
        config={
            "env": env,
            "env_args": {},
            "sharing": "none",
            "runner": "episode",
            "batch_size_run": 1,
            "common_reward": True,
            "reward_scalarisation": "sum",
            "temperature": 1.0,
        },
        summary={
            **{name: scored for name in ("student", "teacher", "random")},
            "episodes": 1,
            "retention": None,
            "agreement": 0.0,
            "limits": limits,
            "masks_preset": None if limits == "fo" else mask.origin,
        },
        commit=None,
        record="",
        network=HeteroStudent(widths, visible, n_actions).eval(),
        mask=mask,
        roles=torch.zeros(1, max(widths)),
    )


def _scheme(size: Size, inputs: int) -> dict[str, Any]:
    return {
        "obs": {"vshape": inputs, "group": "agents"},
        "avail_actions": {"vshape": (size.n_actions,), "group": "agents", "dtype": torch.int},
    }


def _args(algorithm: str, size: Size, n_agents: int) -> SimpleNamespace:
    words = [f"--config={algorithm}", "--env-config=gymma", "with", f"env_args.key={size.task}"]
    config = assemble(HOST, parse_command(words))
    return SimpleNamespace(**{**config, "n_agents": n_agents, "n_actions": size.n_actions, "device": "cpu"})
