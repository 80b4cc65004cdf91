"""Worlds: what a picture of an environment is drawn from.

SMAX and the particle environments have theirs. An environment of the user's own gets a picture from one method::

    def world(self) -> dict:
        return {
            "bounds": [0, 0, 8, 8],  # left, bottom, right, top
            "shapes": [
                {"name": "robot 0", "kind": "agent", "agent": 0, "x": 1.5, "y": 2.0, "radius": 0.4},
                {"name": "charger", "kind": "landmark", "x": 7.0, "y": 7.0, "radius": 0.3, "features": ["3", "4"]},
            ],
        }

The keys are the attributes of `World` and `Shape`. All shapes stay, in one order, for a whole episode.
"""

from __future__ import annotations

import dataclasses
import math
import re
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from kd_core.errors import UserError, nearest
from kd_envs.hetero_mask.battles import find_inside

KINDS = ("agent", "opponent", "landmark", "goal")
# MPE's worlds have no walls; agents start between these.
_ARENA = (-1.0, -1.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Shape:
    """One thing in a world; lengths are in the world's unit, y grows upwards.

    Attributes:
        name: what it is called.
        kind: one of `KINDS`.
        x: of its centre.
        y: of its centre.
        radius: of its body.
        agent: the index of the agent that it is; None for anything else.
        features: features of other agents' layouts that are about it, by their names or the parts before the dots.
        label: a few letters to draw in it.
        colour: ``#rrggbb``; empty: that of its kind.
        health: what is left of it; None where it has none.
        full_health: what it began with.
        alive: False: it takes part no longer.
        sight: how far it sees; None: no limit, or unknown.
    """

    name: str
    kind: str
    x: float
    y: float
    radius: float
    agent: int | None = None
    features: tuple[str, ...] = ()
    label: str = ""
    colour: str = ""
    health: float | None = None
    full_health: float | None = None
    alive: bool = True
    sight: float | None = None


@dataclasses.dataclass(frozen=True)
class Road:
    """One lane of a road.

    Attributes:
        name: what it is called.
        points: x and y of its middle line, in the direction of travel.
        width: of the lane.
        light: at its end: "r", "y" or "g"; empty where there is none.
        features: as of a `Shape`.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    width: float
    light: str = ""
    features: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class World:
    """Where everything is at one moment.

    Attributes:
        bounds: left, bottom, right and top of what a picture must show.
        shapes: all things, always in the same order.
        attacks: pairs of indices of shapes: the first attacked the second in the step that led here.
        roads: all lanes, always in the same order.
        vehicles: x, y and whether it stands, of every vehicle; they come and go.
    """

    bounds: tuple[float, float, float, float]
    shapes: tuple[Shape, ...]
    attacks: tuple[tuple[int, int], ...] = ()
    roads: tuple[Road, ...] = ()
    vehicles: tuple[tuple[float, float, bool], ...] = ()


def read_world(env: Any) -> World | None:
    """Return the world of an environment, wrapped or not: that of its ``world()``, or one of a known kind, or None.

    Known are particles, VMAS's scenarios and the warehouses of ``rware``.

    Raises:
        UserError: its ``world()`` gives something else than a world.
    """
    warehouse = find_inside(env, "request_queue")
    if warehouse is not None:
        return _read_warehouse(warehouse)
    found = find_inside(env, "world")
    if found is None:
        return None
    if callable(found.world):
        try:
            given = found.world()
            if isinstance(given, World):
                return given
        except Exception as error:
            line = traceback.extract_tb(error.__traceback__)[-1].lineno
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise UserError(f"world() failed with {reason} (line {line}): correct the environment") from error
        return world_from(given)
    simulated = found.world
    if not (hasattr(simulated, "agents") and hasattr(simulated, "landmarks")):
        return None
    agents, landmarks = simulated.agents, simulated.landmarks
    if hasattr(simulated, "batch_dim"):
        return vmas_world(simulated, 0)
    goals = [_attribute(agent, name) for agent in agents for name in ("goal_a", "goal_b")]
    goal = next((k for k, landmark in enumerate(landmarks) if any(landmark is goal for goal in goals)), None)
    things = [*agents, *landmarks]
    return particle_world(
        [agent.name for agent in agents],
        [[float(part) for part in thing.state.p_pos] for thing in things],
        [float(thing.size) for thing in things],
        [tuple(round(255 * float(part)) for part in landmark.color) for landmark in landmarks],
        goal,
    )


def _label(name: str) -> str:
    """Shorten an agent's name to what fits into its body: ``agent_2`` to 2, ``listener_0`` to L."""
    kind, _, number = name.partition("_")
    return number if kind == "agent" else kind[:1].upper() + number.replace("0", "")


def _attribute(agent: Any, name: str) -> Any:
    try:
        return getattr(agent, name, None)
    except AssertionError:
        # mpe2 asserts that a goal is set where an agent of the same world has none.
        return None


def particle_world(
    agents: Sequence[str],
    positions: Sequence[Sequence[float]],
    radii: Sequence[float],
    colours: Sequence[Sequence[int]],
    goal: int | None,
) -> World:
    """Build a particle world.

    Args:
        agents: their names.
        positions: x and y of the agents, then of the landmarks.
        radii: in the same order.
        colours: red, green and blue of the landmarks, 0 to 255; grey ones have the colour of their kind.
        goal: the landmark that is the goal; None where none is.
    """
    shapes = []
    for k, ((x, y), radius) in enumerate(zip(positions, radii, strict=True)):
        landmark = k - len(agents)
        if landmark < 0:
            kind = "opponent" if agents[k].startswith("adversary") else "agent"
            about = (f"A(P){k}", f"D(A-A){k}", f"M{k}")
            shapes.append(Shape(agents[k], kind, x, y, radius, agent=k, features=about, label=_label(agents[k])))
            continue
        is_goal, colour = landmark == goal, colours[landmark]
        shapes.append(
            Shape(
                f"landmark {landmark}",
                "goal" if is_goal else "landmark",
                x,
                y,
                radius,
                features=(f"L{landmark}", *(["G"] if is_goal else [])),
                colour="" if len(set(colour)) == 1 else "#{:02x}{:02x}{:02x}".format(*colour),
            )
        )
    return World(_ARENA, tuple(shapes))


def _read_warehouse(warehouse: Any) -> World:
    rows, columns = warehouse.grid_size
    robots = [
        (robot.x, robot.y, robot.dir.value, robot.carrying_shelf.id if robot.carrying_shelf else 0)
        for robot in warehouse.agents
    ]
    shelves = [(shelf.x, shelf.y) for shelf in warehouse.shelfs]
    wanted = [shelf in warehouse.request_queue for shelf in warehouse.shelfs]
    return warehouse_world((columns, rows), robots, shelves, wanted, warehouse.goals)


def vmas_world(simulated: Any, row: int) -> World:
    """Build the world of one environment of a batch of VMAS; walls and other bodies that are not round are left out.

    Args:
        simulated: VMAS's world.
        row: the environment's place in the batch.
    """
    shapes: list[Shape] = []
    # Scripted bodies, such as a ball and its opponents, are agents of VMAS but no policy's.
    numbers = {agent.name: number for number, agent in enumerate(simulated.policy_agents)}
    for thing in [*simulated.agents, *simulated.landmarks]:
        radius = getattr(thing.shape, "radius", None)
        if radius is None:
            continue
        x, y = thing.state.pos[row].tolist()
        number = numbers.get(thing.name)
        others = (kind for start, kind in (("agent", "opponent"), ("goal", "goal")) if thing.name.startswith(start))
        kind = "agent" if number is not None else next(others, "landmark")
        colour = "#{:02x}{:02x}{:02x}".format(*(round(255 * float(part)) for part in thing.color[:3]))
        label = "" if number is None else _label(thing.name)
        shapes.append(Shape(thing.name, kind, x, y, radius, agent=number, colour=colour, label=label))
    right, top = (float(side or 1.5) for side in (simulated.x_semidim, simulated.y_semidim))
    return World((-right, -top, right, top), tuple(shapes))


def warehouse_world(
    size: tuple[int, int],
    robots: Sequence[Sequence[int]],
    shelves: Sequence[Sequence[int]],
    wanted: Sequence[bool],
    goals: Sequence[Sequence[int]],
) -> World:
    """Build the world of a warehouse; its first row of cells is at the top.

    Args:
        size: columns and rows.
        robots: column, row, direction (up, down, left, right) and number of the carried shelf (0: none) of each.
        shelves: column and row of each.
        wanted: whether a shelf is requested, in the same order.
        goals: column and row of each.
    """
    columns, rows = size
    shapes = [
        Shape(f"goal {k}", "goal", float(x), float(rows - 1 - y), 0.45, colour="#9aa0a6")
        for k, (x, y) in enumerate(goals)
    ]
    for k, ((x, y), is_wanted) in enumerate(zip(shelves, wanted, strict=True)):
        colour = "#d9822b" if is_wanted else "#c9ccd1"
        shapes.append(Shape(f"shelf {k}", "landmark", float(x), float(rows - 1 - y), 0.4, colour=colour))
    for agent, (x, y, direction, carried) in enumerate(robots):
        label = f"{agent}{'^v<>'[direction]}{'*' if carried else ''}"
        shapes.append(Shape(f"robot {agent}", "agent", float(x), float(rows - 1 - y), 0.3, agent=agent, label=label))
    return World((-0.5, -0.5, columns - 0.5, rows - 0.5), tuple(shapes))


def world_from(given: Any) -> World:
    """Convert what a user's ``world()`` returned.

    Raises:
        UserError: it is no world; the message names the key.
    """
    _check_keys(given, World, "world()")
    if unknown := [key for key in ("roads", "vehicles") if given.get(key)]:
        raise UserError(f"world() has {unknown[0]}: return kd_envs.worlds.World itself, which takes them")
    bounds = given.get("bounds")
    if not _are_numbers(bounds, 4) or not (bounds[0] < bounds[2] and bounds[1] < bounds[3]):
        raise UserError(f"world() has bounds {bounds!r}: expected [left, bottom, right, top]")
    for key in ("shapes", "attacks"):
        if not isinstance(given.get(key, ()), (list, tuple)):
            raise UserError(f"world() has {key} {given[key]!r}: expected a list")
    shapes = [_shape(values, k) for k, values in enumerate(given["shapes"])]
    if not shapes:
        raise UserError("world() has no shapes: give at least one, with name, kind, x, y and radius")
    attacks = []
    for pair in given.get("attacks", ()):
        if not _are_numbers(pair, 2) or not all(k == int(k) and 0 <= k < len(shapes) for k in pair):
            raise UserError(f"world() has the attack {pair!r}: expected two indices of its {len(shapes)} shapes")
        # They may be numpy's.
        attacks.append((int(pair[0]), int(pair[1])))
    return World(tuple(map(float, bounds)), tuple(shapes), tuple(attacks))  # type: ignore[arg-type]


def _shape(values: Any, number: int) -> Shape:
    where = f"shape {number} of world()"
    _check_keys(values, Shape, where)
    features = values.get("features", ())
    if not isinstance(features, (list, tuple)):
        raise UserError(f"{where} has features {features!r}: expected a list of their names")
    shape = {**values, "features": tuple(map(str, features))}
    for key in ("x", "y", "radius", "health", "full_health", "sight"):
        # Coordinates may be numpy's; what is left out is None.
        if key in shape and (shape[key] is not None or key in ("x", "y", "radius")):
            if not _are_numbers([shape[key]], 1):
                raise UserError(f"{where} has {key} {shape[key]!r}: expected a finite number")
            shape[key] = float(shape[key])
    if shape["radius"] < 0:
        raise UserError(f"{where} has radius {shape['radius']:g}: expected 0 or more")
    if (agent := shape.get("agent")) is not None:
        if not _are_numbers([agent], 1) or agent != int(agent) or agent < 0:
            raise UserError(f"{where} has agent {agent!r}: expected the index of an agent, or None")
        shape["agent"] = int(agent)
    if (colour := shape.get("colour")) and not re.fullmatch("#[0-9a-fA-F]{6}", str(colour)):
        raise UserError(f"{where} has colour {colour!r}: expected #rrggbb")
    shape.update(label=str(shape.get("label", "")), colour=str(colour or ""), alive=bool(shape.get("alive", True)))
    if shape["kind"] not in KINDS:
        raise UserError(f"{where} is of kind {shape['kind']!r}; {nearest(str(shape['kind']), KINDS)}")
    return Shape(**{**shape, "name": str(shape["name"])})


def _check_keys(values: Any, kind: type, where: str) -> None:
    """Refuse what is no mapping, has a key too many or lacks one that has no default."""
    known = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(kind)}
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is {type(values).__name__}: expected a dict with {', '.join(known)}")
    for key in values:
        if key not in known:
            raise UserError(f"{where} has the key {key!r}; {nearest(str(key), known)}")
    if missing := [key for key, needed in known.items() if needed and key not in values]:
        raise UserError(f"{where} lacks {', '.join(missing)}")


def _are_numbers(values: Any, count: int) -> bool:
    try:
        return len(values) == count and all(math.isfinite(value) for value in values)
    except (TypeError, OverflowError):
        return False
