"""One SUMO simulation in a process of its own, because libsumo has only one a process.

Run as a program by `connection.Connection`: requests and replies are pickles on standard input and output. It imports
nothing of ours, so that it starts quickly.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
from collections.abc import Sequence
from typing import Any

_GREEN = "Gg"
# SUMO's length of a car with its gap, in metres.
CAR = 7.5
# Yellow of a signal whose own program has none, in seconds.
_YELLOW = 3
# A detector reaches at least this far up the road where no other signal is in between, in metres.
REACH = 100.0


class Signal:
    """One intersection: its phases, its lanes, and the state of its lights.

    Attributes:
        id: SUMO's.
        greens: the green phases of its own program, one letter a connection.
        yellow: seconds between two of them.
        detectors: for each incoming lane the lanes that its detector covers, its own first.
        exits: the outgoing lanes.
        neighbours: ids of the signals that vehicles reach or come from next.
        movements: for each phase the incoming lanes that it gives way to, each with the outgoing lanes, as indices.
        phase: that is green, or comes after the yellow.
        green: seconds since its green began; negative during yellow.
    """

    def __init__(self, sumo: Any, name: str, before: dict[str, list[str]], controlled: set[str]) -> None:
        self.id = name
        phases = sumo.trafficlight.getAllProgramLogics(name)[0].phases
        self.greens = [phase.state for phase in phases if "y" not in phase.state and set(_GREEN) & set(phase.state)]
        yellows = [phase.duration for phase in phases if "y" in phase.state]
        self.yellow = int(min(yellows, default=_YELLOW))
        links = [link[0] if link else None for link in sumo.trafficlight.getControlledLinks(name)]
        lanes = list(dict.fromkeys(link[0] for link in links if link))
        self.exits = list(dict.fromkeys(link[1] for link in links if link))
        self.detectors = [_upstream(sumo, lane, before, controlled) for lane in lanes]
        self.movements: list[list[tuple[int, list[int]]]] = []
        for state in self.greens:
            # Who has to give way all the same (g) counts only where nobody goes first.
            wanted = "G" if "G" in state else "g"
            served: dict[int, list[int]] = {}
            for link, letter in zip(links, state, strict=True):
                if link and letter == wanted:
                    served.setdefault(lanes.index(link[0]), []).append(self.exits.index(link[1]))
            self.movements.append(list(served.items()))
        self.neighbours: list[str] = []
        self.phase, self.green = 0, 0

    def turn(self, phase: int) -> None:
        """Begin to turn to a phase."""
        if phase != self.phase:
            self._before, self.phase, self.green = self.greens[self.phase], phase, -self.yellow

    def lights(self) -> str:
        """Return the letters of this second."""
        coming = self.greens[self.phase]
        if self.green >= 0:
            return coming
        pairs = zip(self._before, coming, strict=True)
        return "".join("y" if old in _GREEN and new not in _GREEN else old for old, new in pairs)


def _upstream(sumo: Any, lane: str, before: dict[str, list[str]], controlled: set[str]) -> list[str]:
    covered, length = [lane], sumo.lane.getLength(lane)
    while length < REACH and len(before.get(covered[-1], [])) == 1:
        (lane,) = before[covered[-1]]
        if lane in controlled or lane in covered:
            break
        covered.append(lane)
        length += sumo.lane.getLength(lane)
    return covered


class Simulation:
    """A network with its demand.

    Args:
        options: SUMO's command line without seed and times.
        begin: first second of the demand.
        interval: seconds between two decisions.
        min_green: seconds before a green phase may end.
    """

    def __init__(self, options: Sequence[str], begin: int, interval: int, min_green: int) -> None:
        import libsumo

        self._sumo, self._options = libsumo, list(options)
        self._interval, self._min_green = interval, min_green
        self._load(0, begin, libsumo.start)
        self._edges = libsumo.edge.getIDList()
        self._read_signals()

    def _load(self, seed: int, begin: int, how: Any) -> None:
        arguments = [*self._options, "--seed", str(seed), "--begin", str(begin)]
        how(["sumo", *arguments] if how is self._sumo.start else arguments)

    def _read_signals(self) -> None:
        sumo = self._sumo
        names = sumo.trafficlight.getIDList()
        controlled = {lane for name in names for lane in sumo.trafficlight.getControlledLanes(name)}
        before: dict[str, list[str]] = {}
        after: dict[str, list[str]] = {}
        for lane in sumo.lane.getIDList():
            if not lane.startswith(":"):
                after[lane] = [link[0] for link in sumo.lane.getLinks(lane)]
                for following in after[lane]:
                    before.setdefault(following, []).append(lane)
        signals = [Signal(sumo, name, before, controlled) for name in names]
        # One that has nothing to choose runs its own program.
        self.signals = [each for each in signals if len(each.greens) > 1]
        owner = {covered[0]: each for each in self.signals for covered in each.detectors}
        for each in self.signals:
            for other in _next_signals(each.exits, after, owner):
                if other is not each:
                    each.neighbours.append(other.id)
                    other.neighbours.append(each.id)
        order = {each.id: number for number, each in enumerate(self.signals)}
        for each in self.signals:
            each.neighbours = sorted(set(each.neighbours), key=order.__getitem__)

    def facts(self) -> list[dict[str, Any]]:
        """Describe the signals that are agents."""
        keys = ("id", "greens", "detectors", "exits", "neighbours")
        return [{key: getattr(each, key) for key in keys} for each in self.signals]

    def roads(self) -> list[tuple[str, list[tuple[float, float]], float]]:
        """Return every lane outside of junctions: its name, its line and its width, in metres."""
        lane = self._sumo.lane
        return [
            (name, [tuple(point[:2]) for point in lane.getShape(name)], lane.getWidth(name))
            for name in lane.getIDList()
            if not name.startswith(":")
        ]

    def reset(self, seed: int, begin: int, control: str) -> dict[str, Any]:
        """Begin an episode at a second of the demand, with empty roads."""
        self._load(seed, begin, self._sumo.load)
        self._control = control
        self.waited = self.departed = self.arrived = 0
        for each in self.signals:
            each.phase, each.green = 0, 0
            if control != "fixed_time":
                self._sumo.trafficlight.setRedYellowGreenState(each.id, each.lights())
        return self._measured([0] * len(self.signals), 0)

    def step(self, actions: Sequence[int]) -> dict[str, Any]:
        """Play the time of one decision."""
        sumo = self._sumo
        if self._control != "fixed_time":
            if self._control == "max_pressure":
                actions = [self._most_pressed(each) for each in self.signals]
            for each, action in zip(self.signals, actions, strict=True):
                if self._may_turn(each):
                    each.turn(int(action))
        local, everywhere = [0] * len(self.signals), 0
        for _ in range(self._interval):
            if self._control != "fixed_time":
                for each in self.signals:
                    sumo.trafficlight.setRedYellowGreenState(each.id, each.lights())
            sumo.simulationStep()
            for each in self.signals:
                each.green += 1
            self.departed += sumo.simulation.getDepartedNumber()
            self.arrived += sumo.simulation.getArrivedNumber()
            halting = sumo.edge.getLastStepHaltingNumber
            everywhere += sum(map(halting, self._edges)) + len(sumo.simulation.getPendingVehicles())
            halting = sumo.lane.getLastStepHaltingNumber
            for k, each in enumerate(self.signals):
                local[k] += sum(halting(lane) for covered in each.detectors for lane in covered)
        self.waited += everywhere
        return self._measured(local, everywhere)

    def _may_turn(self, each: Signal) -> bool:
        return each.green >= self._min_green

    def _most_pressed(self, each: Signal) -> int:
        """Return the phase of max-pressure control: vehicles of its incoming lanes less those of the lanes ahead."""
        count = self._sumo.lane.getLastStepVehicleNumber
        coming = [sum(map(count, covered)) for covered in each.detectors]
        leaving = [count(lane) for lane in each.exits]
        pressures = [
            sum(coming[lane] - sum(leaving[k] for k in exits) / len(exits) for lane, exits in movements)
            for movements in each.movements
        ]
        # Of equals the one that is green.
        return max(range(len(pressures)), key=lambda phase: (pressures[phase], phase == each.phase))

    def _measured(self, local: list[int], everywhere: int) -> dict[str, Any]:
        """Return what detectors and lights show, and the vehicle-seconds that were waited since the last decision."""
        halting = self._sumo.lane.getLastStepHaltingNumber
        count = self._sumo.lane.getLastStepVehicleNumber
        signals = []
        for each in self.signals:
            queues = [sum(map(halting, covered)) for covered in each.detectors]
            totals = [sum(map(count, covered)) for covered in each.detectors]
            signals.append(
                {
                    "phase": each.phase,
                    "green": each.green,
                    "free": self._may_turn(each),
                    "queues": queues,
                    "moving": [total - queue for total, queue in zip(totals, queues, strict=True)],
                    "exits": [count(lane) for lane in each.exits],
                }
            )
        pending = len(self._sumo.simulation.getPendingVehicles())
        return {
            "signals": signals,
            "local": local,
            "waited": everywhere,
            "pending": pending,
            "total": self.waited,
            "due": self.departed + pending,
            "arrived": self.arrived,
        }

    def close(self) -> None:
        """End the simulation; SUMO writes what it was asked to write."""
        self._sumo.close()

    def scene(self) -> dict[str, Any]:
        """Return what a picture shows: every vehicle's place and whether it stands, and the lights of each lane."""
        sumo = self._sumo
        vehicles = [
            (*sumo.vehicle.getPosition(name)[:2], sumo.vehicle.getSpeed(name) < 0.1)
            for name in sumo.vehicle.getIDList()
        ]
        lights: dict[str, str] = {}
        for each in self.signals:
            state = sumo.trafficlight.getRedYellowGreenState(each.id)
            for link, letter in zip(sumo.trafficlight.getControlledLinks(each.id), state, strict=True):
                if link and "ryg".find(letter.lower()) > "ryg".find(lights.get(link[0][0], "")):
                    lights[link[0][0]] = letter.lower()
        return {"vehicles": vehicles, "lights": lights}


def _next_signals(exits: Sequence[str], after: dict[str, list[str]], owner: dict[str, Signal]) -> list[Signal]:
    found, waiting, seen = [], list(exits), set(exits)
    while waiting:
        lane = waiting.pop()
        if lane in owner:
            found.append(owner[lane])
            continue
        for following in after.get(lane, []):
            if following not in seen:
                seen.add(following)
                waiting.append(following)
    return found


def _serve() -> None:
    # The folder of this file, whose modules are no packages of their own.
    sys.path.pop(0)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # SUMO prints to what was standard output.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    simulation: Any = None
    while True:
        try:
            method, arguments = pickle.load(requests)
        except EOFError:
            if simulation is not None:
                simulation.close()
            return
        try:
            if simulation is None:
                simulation, reply = Simulation(**arguments), None
            else:
                reply = getattr(simulation, method)(**arguments)
            answer = (True, reply)
        except Exception as error:
            answer = (False, f"{type(error).__name__}: {error}")
        pickle.dump(answer, replies)
        replies.flush()


if __name__ == "__main__":
    _serve()
