"""The collaboration profile: the content of `profile.json` about a team and each of its agents."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from kd_onboard.errors import BundleError
from kd_onboard.fields import Fields, quoted
from kd_onboard.int8 import LEAST_EXPONENT, MOST_EXPONENT, MOST_SHIFT, Calibration

FORMAT = "kd-marl/student-bundle"
VERSION = 1
# Far beyond any team: every agent is checked.
MOST_AGENTS = 1000
# Of a message, and of the time from one to the next or to its hearing: far beyond any radio of a board.
MOST_BITS, MOST_STEPS = 1 << 12, 1 << 16
# Of a number of a message: numbers fill bytes, and a board finds its level among few.
NUMBER_BITS = (1, 2, 4)
ON_FAULT = ("raise", "hold", "noop")
NETWORKS = ("gru",)
# Relative, with forward slashes; no component is "..", hidden, or more than a plain name on any system.
PATH = r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*"

T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """The task that the team was trained for.

    Attributes:
        name: the task, such as ``pz-mpe-simple-spread-v3``.
        env: name of the environment in the host's registry.
        obs_size: length of an agent's padded observation as the environment gives it.
        extended_size: the same with the derived features, the sensors' status and the own last action that follow it.
        episode_limit: steps after which an episode is cut.
    """

    name: str
    env: str
    n_agents: int
    n_actions: int
    obs_size: int
    extended_size: int
    episode_limit: int


@dataclass(frozen=True)
class Feature:
    """One input of an agent's network.

    Attributes:
        index: its place in the extended observation.
        unit: of its value, or None where the environment names none.
        block: the group of features that it belongs to, or None.
        derived_from: the elements of the padded observation whose Euclidean norm it is; None where it is measured.
        own_action: the action for which it is 1 if the agent took it last, else 0; None for any other feature.
        status_of: the index of the feature for which it is 1 while its sensor delivers, else 0; None for any other.
    """

    index: int
    name: str
    unit: str | None
    block: str | None
    derived_from: tuple[int, ...] | None
    own_action: int | None = None
    status_of: int | None = None


@dataclass(frozen=True)
class CSource:
    """An agent's C99 program: ``struct PREFIX``, ``PREFIX_init`` and ``PREFIX_act``, in files named PREFIX.

    Attributes:
        int8: the calibration of its int8 weights; None where they are float32.
    """

    folder: str
    prefix: str
    header: str
    sources: tuple[str, ...]
    int8: Calibration | None = None


@dataclass(frozen=True)
class AgentMessages:
    """What an agent tells others and hears from them.

    Attributes:
        bits: of one message.
        every: steps from one of its messages to its next.
        latency: steps from a message to its hearing.
        hears: agents that it hears, in the order of its inbox.
        heard_by: agents that hear it; without any it says nothing.
        number_bits: of each number of a message; 1: its numbers are signs.
    """

    bits: int
    every: int
    latency: int
    hears: tuple[int, ...]
    heard_by: tuple[int, ...]
    number_bits: int = 1

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> AgentMessages:
        """Build it from the field of `profile.json`."""
        return cls(**{**facts, "hears": tuple(facts["hears"]), "heard_by": tuple(facts["heard_by"])})

    def to_dict(self) -> dict[str, Any]:
        """Return the field of `profile.json`; signs are what messages are made of where it says nothing."""
        facts = {**asdict(self), "hears": list(self.hears), "heard_by": list(self.heard_by)}
        return {key: value for key, value in facts.items() if key != "number_bits" or value > 1}

    @property
    def payload_bytes(self) -> int:
        """Bytes of a message: bit k is bit ``k % 8`` of byte ``k // 8``, and bits behind the last mean nothing."""
        return (self.bits + 7) // 8

    @property
    def numbers(self) -> int:
        """Numbers of a message."""
        return self.bits // self.number_bits

    @property
    def exchanged(self) -> tuple[int, int, int]:
        """Numbers that it hears and says in a step, and the bits of each."""
        return self.numbers * len(self.hears), self.numbers if self.heard_by else 0, self.number_bits


@dataclass(frozen=True)
class AgentProfile:
    """One agent; paths are relative to the bundle's folder.

    Attributes:
        weights: safetensors files whose tensors together are the network.
        onnx_int8: None where int8 chose too many other actions, or was not tried.
        network: ``gru``.
        inputs: number of features that ``act`` takes.
        actions: a name for each action; None for a number that this agent never uses.
        noop_action: the action that does nothing, or None where no action does.
        draw_sizes: fewest and most features visible in an episode, the others are 0; None: always all.
        flops_per_decision: a multiply-add counts as two.
        latency: measured microseconds, or None.
        sensors: measured return without each sensor; empty if none was tried.
        messages: what it tells and hears; None for a silent agent.
    """

    index: int
    name: str
    role: str
    weights: tuple[str, ...]
    onnx: str | None
    onnx_int8: str | None
    c: CSource | None
    network: str
    width: int
    inputs: int
    features: tuple[Feature, ...]
    actions: tuple[str | None, ...]
    noop_action: int | None
    draw_sizes: tuple[int, int] | None
    parameters: int
    flops_per_decision: float
    weights_bytes: int
    state_bytes: int
    latency: Mapping[str, Any] | None
    sensors: Any
    messages: AgentMessages | None = None

    @property
    def n_actions(self) -> int:
        """Number of its actions, the length of ``available``."""
        return len(self.actions)

    @property
    def exchanged(self) -> tuple[int, int, int]:
        """Numbers that it hears and says in a step, and the bits of each."""
        return (0, 0, 1) if self.messages is None else self.messages.exchanged

    @property
    def label(self) -> str:
        """The agent's name in messages."""
        return f"agent {self.index} ('{self.name}')"

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file of the agent."""
        models = [path for path in (self.onnx, self.onnx_int8) if path]
        program = [] if self.c is None else [self.c.header, *self.c.sources]
        return (*self.weights, *models, *program)


@dataclass(frozen=True)
class FileEntry:
    """Hash and size that a file of the bundle must have."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Profile:
    """The content of `profile.json`; ``raw`` is the parsed JSON."""

    task: Task
    agents: tuple[AgentProfile, ...]
    files: Mapping[str, FileEntry]
    on_fault: str
    measured: Mapping[str, Any]
    provenance: Mapping[str, Any]
    raw: Mapping[str, Any]


def parse_profile(values: dict[str, Any], where: str) -> Profile:
    """Check every field of a profile.

    Args:
        values: the JSON object.
        where: the file's name in messages.

    Raises:
        BundleError: the first fault found.
    """
    top = Fields(values, where)
    found = (values.get("format"), values.get("version"))
    if found != (FORMAT, VERSION) or type(found[1]) is not int:
        raise BundleError(
            f"{where} is of format {quoted(found[0])} version {quoted(found[1])}, expected '{FORMAT}' version "
            f"{VERSION}: export it again, or use the kd-onboard that reads it"
        )
    task = _task(top.object("task"))
    agents = tuple(_agent(fields, i, task) for i, fields in enumerate(top.objects("agents")))
    if len(agents) != task.n_agents:
        raise BundleError(f"{where} describes {len(agents)} agents, but its task has {task.n_agents}: export it again")
    for agent in agents:
        twin = next((other for other in agents[: agent.index] if other.name == agent.name), None)
        if twin is not None:
            raise BundleError(f"{where} calls two agents '{agent.name}', {twin.index} and {agent.index}: rename one")
        if agent.name.isdecimal() and agent.name != str(agent.index):
            raise BundleError(
                f"{where} calls agent {agent.index} '{agent.name}', which is another agent's number: rename it"
            )
    _check_links(agents, where)
    files = {}
    listed = top.object("files")
    for path in listed.values:
        if not re.fullmatch(PATH, path, re.ASCII) or len(path) > 500:
            raise BundleError(f"{where} lists the file {quoted(path)}: expected a plain path inside the bundle")
        entry = listed.object(path)
        files[path] = FileEntry(entry.text("sha256", "[0-9a-f]{64}"), entry.whole("bytes"))
    for agent in agents:
        for path in agent.paths:
            if path not in files:
                raise BundleError(f"{where}: {agent.label} refers to {path}, which 'files' does not list")
    return Profile(
        task=task,
        agents=agents,
        files=files,
        on_fault=top.choice("on_fault", ON_FAULT),
        measured=top.object("measured").values,
        provenance=top.object("provenance").values,
        raw=values,
    )


def _task(fields: Fields) -> Task:
    task = Task(
        name=fields.text("name"),
        env=fields.text("env"),
        n_agents=fields.whole("n_agents", 1, MOST_AGENTS),
        n_actions=fields.whole("n_actions", 1),
        obs_size=fields.whole("obs_size", 1),
        extended_size=fields.whole("extended_size", 1),
        episode_limit=fields.whole("episode_limit", 1),
    )
    if task.extended_size < task.obs_size:
        fields.fail("extended_size", f"at least obs_size, {task.obs_size}")
    return task


def _agent(fields: Fields, index: int, task: Task) -> AgentProfile:
    if fields.whole("index") != index:
        fields.fail("index", f"{index}, as agents are listed in order")
    inputs, width = fields.whole("inputs", 1), fields.whole("width", 1)
    features = tuple(_feature(part, task) for part in fields.objects("features"))
    if len(features) != inputs or len({feature.index for feature in features}) != inputs:
        fields.fail("inputs", f"the number of its different features, {len(features)}")
    actions = tuple(_name(fields, "actions", value) for value in fields.items("actions"))
    if len(actions) != task.n_actions:
        raise BundleError(f"{fields.where} names {len(actions)} actions, but the task has {task.n_actions}")
    weights = tuple(_path(fields, "weights", value) for value in fields.items("weights", most=8))
    if not weights or len(set(weights)) != len(weights):
        fields.fail("weights", "different files, at least one")
    network = fields.object("network")
    network.choice("activation", ("relu",))
    return AgentProfile(
        index=index,
        name=fields.text("name"),
        role=fields.text("role"),
        weights=weights,
        onnx=_optional(fields, "onnx", lambda: fields.text("onnx", PATH)),
        onnx_int8=_optional(fields, "onnx_int8", lambda: fields.text("onnx_int8", PATH)),
        c=_optional(fields, "c", lambda: _c_source(fields.object("c"), inputs)),
        network=network.choice("type", NETWORKS),
        width=width,
        inputs=inputs,
        features=features,
        actions=actions,
        noop_action=_optional(fields, "noop_action", lambda: fields.whole("noop_action", 0, task.n_actions - 1)),
        draw_sizes=_optional(fields, "draw_sizes", lambda: _draw_sizes(fields, inputs)),
        parameters=fields.whole("parameters"),
        flops_per_decision=fields.number("flops_per_decision"),
        weights_bytes=fields.whole("weights_bytes"),
        state_bytes=fields.whole("state_bytes"),
        latency=_optional(fields, "latency", lambda: fields.object("latency").values),
        sensors=fields.values.get("sensors"),
        # Only agents that talk have this field.
        messages=_messages(fields.object("messages"), index, task) if "messages" in fields.values else None,
    )


def _messages(fields: Fields, index: int, task: Task) -> AgentMessages:
    found = AgentMessages(
        bits=fields.whole("bits", 1, MOST_BITS),
        every=fields.whole("every", 1, MOST_STEPS),
        latency=fields.whole("latency", 1, MOST_STEPS),
        hears=tuple(fields.items("hears", MOST_AGENTS)),
        heard_by=tuple(fields.items("heard_by", MOST_AGENTS)),
        # Bundles of before there were numbers do not say it.
        number_bits=fields.whole("number_bits", 1, NUMBER_BITS[-1]) if "number_bits" in fields.values else 1,
    )
    if found.number_bits not in NUMBER_BITS or found.bits % found.number_bits:
        fields.fail("number_bits", f"1, 2 or 4, and a divisor of bits ({found.bits})")
    for name, others in (("hears", found.hears), ("heard_by", found.heard_by)):
        if not all(type(other) is int and 0 <= other < task.n_agents and other != index for other in others):
            fields.fail(name, f"other agents than {index}, from 0 to {task.n_agents - 1}")
        if sorted(set(others)) != list(others):
            fields.fail(name, "each agent once, in their order")
    if not found.hears and not found.heard_by:
        fields.fail("hears", "another agent, as nobody hears this one either")
    return found


def _check_links(agents: tuple[AgentProfile, ...], where: str) -> None:
    """Check that agents agree on their messages and on who hears whom.

    Raises:
        BundleError: two of them do not.
    """
    talking = [(agent, agent.messages) for agent in agents if agent.messages is not None]
    for agent, own in talking:
        first, others = talking[0]
        for key in ("bits", "number_bits", "every", "latency"):
            if getattr(own, key) != getattr(others, key):
                raise BundleError(
                    f"{where}: {first.label} and {agent.label} disagree on messages: {key} {getattr(others, key)} and "
                    f"{getattr(own, key)}; export the bundle again"
                )
        for mine, theirs in (("hears", "heard_by"), ("heard_by", "hears")):
            for other in (agents[i] for i in getattr(own, mine)):
                if other.messages is None or agent.index not in getattr(other.messages, theirs):
                    raise BundleError(
                        f"{where}: {agent.label} and {other.label} disagree on a link: the first has the other in "
                        f"'{mine}', but is not in its '{theirs}'; export the bundle again"
                    )


def _feature(fields: Fields, task: Task) -> Feature:
    index = fields.whole("index", 0, task.extended_size - 1)
    # Only the inputs of an own last action have this field.
    own_action = fields.whole("own_action", 0, task.n_actions - 1) if "own_action" in fields.values else None
    if own_action is not None and index != (place := task.extended_size - task.n_actions + own_action):
        fields.fail("index", f"{place}, as the own last action comes last")
    # Nor has any input but a sensor's status this one.
    most = max(0, index - task.obs_size)
    status_of = fields.whole("status_of", 0, most) if "status_of" in fields.values else None
    sources = _optional(fields, "derived_from", lambda: tuple(fields.items("derived_from", most=100)))
    told = own_action is not None or status_of is not None
    if (sources is None) != (index < task.obs_size or told):
        fields.fail("derived_from", f"null for the environment's own {task.obs_size} elements, else their list")
    if sources is not None and not (
        sources and all(type(source) is int and 0 <= source < task.obs_size for source in sources)
    ):
        fields.fail("derived_from", f"indices from 0 to {task.obs_size - 1}")
    return Feature(
        index=index,
        name=fields.text("name"),
        unit=_optional(fields, "unit", lambda: fields.text("unit")),
        block=_optional(fields, "block", lambda: fields.text("block")),
        derived_from=sources,
        own_action=own_action,
        status_of=status_of,
    )


def _c_source(fields: Fields, inputs: int) -> CSource:
    folder = fields.text("folder", PATH)
    header = fields.text("header", PATH)
    sources = tuple(_path(fields, "sources", value) for value in fields.items("sources", most=100))
    if not sources:
        fields.fail("sources", "at least one file")
    for path in (header, *sources):
        if not path.startswith(folder + "/"):
            raise BundleError(f"{fields.where}: {path} is outside its folder {folder}")
    # Only programs with int8 weights have this field.
    int8 = _calibration(fields.object("int8"), inputs) if "int8" in fields.values else None
    return CSource(folder, fields.text("prefix", "[A-Za-z_][A-Za-z0-9_]*"), header, sources, int8)


def _calibration(fields: Fields, inputs: int) -> Calibration:
    found = fields.items("exponents")
    sound = all(type(power) is int and LEAST_EXPONENT <= power <= MOST_EXPONENT for power in found)
    if len(found) != inputs or not sound:
        fields.fail("exponents", f"{inputs} whole numbers from {LEAST_EXPONENT} to {MOST_EXPONENT}, one a feature")
    return Calibration(tuple(found), fields.whole("align_shift", 1, MOST_SHIFT))


def _draw_sizes(fields: Fields, inputs: int) -> tuple[int, int]:
    sizes = fields.items("draw_sizes")
    if len(sizes) != 2 or not all(type(size) is int for size in sizes) or not 1 <= sizes[0] <= sizes[1] <= inputs:
        fields.fail("draw_sizes", f"null, or [low, high] from 1 to {inputs}")
    return sizes[0], sizes[1]


def _path(fields: Fields, name: str, value: Any) -> str:
    if type(value) is not str or len(value) > 500 or not re.fullmatch(PATH, value, re.ASCII):
        fields.fail(name, "plain paths inside the bundle")
    return value


def _name(fields: Fields, name: str, value: Any) -> str | None:
    if value is not None and (type(value) is not str or len(value) > 1000 or not value.isprintable()):
        fields.fail(name, "names, or null for an action that only fills up")
    return value


def _optional(fields: Fields, name: str, read: Callable[[], T]) -> T | None:
    return None if fields.is_null(name) else read()
