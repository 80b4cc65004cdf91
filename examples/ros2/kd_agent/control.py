"""What a node does, without ROS: readings of sensors become features, features an action, and faults are said.

An agent that talks is also given what others said, and says something itself. A message is heard at the first tick
after it came in if the bundle's ``latency`` is 1, and ``latency`` - 1 ticks later otherwise.

Times are seconds of one clock that never goes back.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kd_onboard import FaultError, OnboardAgent, TalkingAgent

# Of the latest decisions: what percentiles of latency are taken of.
REMEMBERED = 1000


@dataclass
class Sensor:
    """One topic.

    Attributes:
        topic: its name.
        places: of its numbers among the agent's features.
        values: of its latest message that had the right shape.
        at: when that came; None: never.
        trouble: of its latest message, or None.
    """

    topic: str
    places: list[int]
    values: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    at: float | None = None
    trouble: str | None = None


@dataclass(frozen=True)
class Decision:
    """What came out of one tick.

    Attributes:
        action: to be carried out now; None: none, the robot must look after itself.
        fault: what was wrong, or None. With an action it is that of the bundle's `on_fault`.
        message: to be sent to those that hear the agent; None: it says nothing.
    """

    action: int | None
    fault: str | None
    message: bytes | None = None


class Control:
    """One agent between its sensors and its actuator."""

    def __init__(
        self, agent: OnboardAgent, sensors: Sequence[str], max_age_s: float, clock: Callable[[], float]
    ) -> None:
        """Connect topics to features.

        Args:
            agent: the agent.
            sensors: of each topic ``TOPIC: NAME [UNIT], NAME [UNIT], ...``, in the order of its numbers.
            max_age_s: an older reading is a fault.
            clock: tells seconds; latency is taken by it.

        Raises:
            ValueError: a feature has no topic, or two, or another unit, or is none of the agent's.
        """
        if not max_age_s > 0:
            raise ValueError(f"max_age_s is {max_age_s}: expected seconds above 0")
        self.agent, self.max_age_s, self._clock = agent, max_age_s, clock
        profile = agent.profile
        messages = profile.messages
        # Of each agent that is heard: the messages of the latest ticks, the oldest first, and what came since.
        self._heard: dict[int, deque[bytes | None]] = {
            speaker: deque(maxlen=messages.latency) for speaker in (messages.hears if messages else ())
        }
        self._arrived: dict[int, bytes] = {}
        self._own_action = {
            feature.own_action: place
            for place, feature in enumerate(profile.features)
            if feature.own_action is not None
        }
        places = {feature.name: place for place, feature in enumerate(profile.features) if feature.own_action is None}
        self.sensors: dict[str, Sensor] = {}
        taken: dict[int, str] = {}
        for line in sensors:
            topic, _, listed = line.partition(":")
            topic = topic.strip()
            if not topic or not listed.strip() or topic in self.sensors:
                raise ValueError(f"sensor '{line}': expected TOPIC: NAME [UNIT], NAME [UNIT], ... and each topic once")
            self.sensors[topic] = Sensor(topic, [])
            for word in listed.split(","):
                name, unit = re.fullmatch(r"\s*(.*?)\s*(?:\[(.*)\])?\s*", word).groups()
                if name not in places:
                    raise ValueError(f"{topic}: '{name}' is no feature of {profile.label}; it has {', '.join(places)}")
                place = places[name]
                expected = profile.features[place].unit
                if (unit or None) != (None if expected == "1" else expected):
                    raise ValueError(
                        f"{topic}: '{name}' in [{unit or ''}], but the bundle has it in [{expected or ''}]"
                    )
                if place in taken:
                    raise ValueError(f"'{name}' comes from {taken[place]} and from {topic}: name one of them")
                taken[place] = topic
                self.sensors[topic].places.append(place)
        if lacking := [name for name, place in places.items() if place not in taken]:
            raise ValueError(f"no topic for {', '.join(lacking)} of {profile.label}")
        self._features = np.full(profile.inputs, np.nan, np.float32)
        # A number that this agent never uses has no name.
        self._available = np.array([name is not None for name in profile.actions])
        self._usable = self._available.copy()
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self.decisions = self.faults = 0
        self.last_fault: str | None = None
        self.reset()

    def reset(self) -> None:
        """Begin an episode: the agent forgets, and has done nothing yet. Readings stay."""
        self.agent.reset()
        self._done: int | None = None
        self._arrived.clear()
        for messages in self._heard.values():
            messages.clear()

    def read(self, topic: str, values: Sequence[float], now: float) -> None:
        """Take a message of a sensor; one of another length is a fault until the next."""
        sensor = self.sensors[topic]
        found = np.asarray(values, np.float32)
        if found.shape != (len(sensor.places),):
            sensor.trouble = f"{topic} sent {found.size} numbers, expected {len(sensor.places)}"
            return
        sensor.values, sensor.at, sensor.trouble = found, now, None

    @property
    def hears(self) -> tuple[int, ...]:
        """Indices of the agents whose messages :meth:`hear` takes."""
        return tuple(self._heard)

    def hear(self, speaker: int, message: Sequence[int]) -> None:
        """Take what an agent said, as bytes; of several between two ticks the last counts."""
        self._arrived[speaker] = bytes(message)

    def allow(self, available: Sequence[int]) -> None:
        """Take which actions are available from now on: 0 or 1 for each."""
        found = np.asarray(available)
        if found.shape == self._available.shape and np.isin(found, (0, 1)).all():
            self._available = self._usable & found.astype(bool)
        else:
            # The agent refuses it, as any availability in which nothing is allowed.
            self._available = np.zeros_like(self._usable)

    def tick(self, now: float) -> Decision:
        """Decide from the latest readings."""
        began = self._clock()
        fault = None
        for sensor in self.sensors.values():
            trouble = sensor.trouble or self._lateness(sensor, now)
            fault = fault or trouble
            self._features[sensor.places] = np.nan if trouble else sensor.values
        for action, place in self._own_action.items():
            self._features[place] = float(action == self._done)
        before, message = self.agent.faults, None
        try:
            action: int | None
            if isinstance(self.agent, TalkingAgent):
                action, message = self.agent.act(self._features, self._available, self._inbox())
            else:
                action = self.agent.act(self._features, self._available)
        except FaultError as error:
            action, fault = None, f"{fault}; {error}" if fault else str(error)
        if fault is None and self.agent.faults > before:
            fault = self.agent.last_fault
        self._done = action
        self.decisions += 1
        if fault is not None:
            self.faults, self.last_fault = self.faults + 1, fault
        self._latencies.append(self._clock() - began)
        return Decision(action, fault, message)

    def _inbox(self) -> list[bytes | None]:
        """Return the messages that are heard at this tick; None where none is."""
        for speaker, messages in self._heard.items():
            messages.append(self._arrived.pop(speaker, None))
        return [messages[0] if len(messages) == messages.maxlen else None for messages in self._heard.values()]

    def _lateness(self, sensor: Sensor, now: float) -> str | None:
        if sensor.at is None:
            return f"{sensor.topic} has sent nothing yet"
        age = now - sensor.at
        return (
            None if age <= self.max_age_s else f"{sensor.topic} is {age:.3f} s old, at most {self.max_age_s} expected"
        )

    def heartbeat(self) -> str:
        """Write as JSON how the agent does: what was decided, what failed, and milliseconds of the latest decisions."""
        taken = sorted(self._latencies) or [0.0]
        state: dict[str, Any] = {
            "agent": self.agent.profile.name,
            "decisions": self.decisions,
            "faults": self.faults,
            "last_fault": self.last_fault,
            "latency_ms": {
                "median": 1e3 * taken[len(taken) // 2],
                "p99": 1e3 * taken[min(len(taken) - 1, len(taken) * 99 // 100)],
                "most": 1e3 * taken[-1],
            },
        }
        if isinstance(self.agent, TalkingAgent):
            state["malformed"] = self.agent.malformed
        return json.dumps(state)
