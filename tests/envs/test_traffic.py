"""Traffic lights: what is waited is SUMO's own count, lights obey their times, and layouts name what is there."""

from __future__ import annotations

import importlib.util
import os
import signal
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import numpy as np
import pytest

from kd_core.errors import UserError
from kd_envs.hetero_mask import mask_for
from kd_envs.hetero_mask.known_layouts import layout_for
from kd_envs.hetero_mask.naming import action_names, features, steps_per_second
from kd_envs.traffic import networks
from kd_envs.traffic.connection import Connection
from kd_envs.traffic.env import TrafficEnv
from kd_envs.traffic.networks import Network
from kd_envs.traffic.simulation import Simulation
from kd_runners.environments import describe

needs_sumo = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("libsumo", "sumo_rl")),
    reason="SUMO is not installed: pip install -e '.[traffic]'",
)
SECONDS = 200


@pytest.fixture
def make():
    """Builds environments, and ends their simulations after the test."""
    built: list[TrafficEnv] = []

    def build(name: str = "cologne3", seconds: int = SECONDS, seed: int = 3, **options) -> TrafficEnv:
        built.append(TrafficEnv(name, episode_seconds=seconds, seed=seed, **options))
        return built[-1]

    yield build
    for env in built:
        env.close()


def play(env: TrafficEnv, seed: int = 0) -> list[tuple]:
    """Random available actions until the end: what each step gave."""
    rng, steps = np.random.default_rng(seed), []
    env.reset()
    while not (steps and (steps[-1][2] or steps[-1][3])):
        steps.append(env.step([rng.choice(np.flatnonzero(row)) for row in env.get_avail_actions()]))
    return steps


def named(env: TrafficEnv) -> list[dict[str, float]]:
    rows = zip(env.layout.feature_names, env.get_obs(), strict=True)
    return [{name: float(x) for name, x in zip(names, row, strict=True) if name} for names, row in rows]


@needs_sumo
def test_what_is_waited_is_what_sumo_counts_trip_by_trip(tmp_path):
    """Standing on the road, and waiting to enter it: of those who arrived and of those who did not."""
    folder, trips = networks()["cologne1"], tmp_path / "trips.xml"
    demand = folder / "cologne1.rou.xml"
    options = ["-n", str(folder / "cologne1.net.xml"), "-r", str(demand), "--no-warnings"]
    options += ["--tripinfo-output", str(trips), "--tripinfo-output.write-unfinished", "--time-to-teleport", "-1"]
    simulation = Connection(options=options, begin=25200, interval=5, min_green=10)
    simulation.call("reset", seed=1, begin=25200, control="agents")
    for step in range(100):
        measured = simulation.call("step", actions=[step // 40 % 4])
    simulation.close()
    entered = {row.get("id"): row for row in ElementTree.parse(trips).getroot()}
    wished = {trip.get("id"): float(trip.get("depart")) for trip in ElementTree.parse(demand).iter("trip")}
    end = 25200 + 500
    outside = [end - depart for name, depart in wished.items() if depart < end and name not in entered]
    standing = sum(float(row.get("waitingTime")) for row in entered.values())
    delayed = sum(float(row.get("departDelay")) for row in entered.values())
    assert min(len(entered), len(outside)) > 10, "a demand that tests something"
    assert measured["total"] == pytest.approx(standing + delayed + sum(outside), rel=0.01)
    assert (measured["due"], measured["pending"]) == (len(entered) + len(outside), len(outside))


@needs_sumo
def test_an_episode_ends_for_want_of_time_and_its_rewards_are_its_waiting_time(make):
    env = make("2x2grid")
    steps = play(env)
    assert len(steps) == env.episode_limit == SECONDS // 5
    assert not any(terminated for _, _, terminated, _, _ in steps)
    assert [truncated for *_, truncated, _ in steps] == [False] * (len(steps) - 1) + [True]
    score, demand = steps[-1][4], 0.1 * 4 * SECONDS
    assert -sum(reward for _, reward, *_ in steps) * demand == pytest.approx(score["waiting_time"] * score["vehicles"])
    assert all(not info for *_, info in steps[:-1])


@needs_sumo
def test_a_seed_is_an_episode_also_beside_another_simulation(make):
    alone = [reward for _, reward, *_ in play(make("2x2grid", 100))]
    one, other = make("2x2grid", 100), make("2x2grid", 100, seed=4)
    one.reset(), other.reset()
    rng, beside = np.random.default_rng(0), []
    for _ in alone:
        beside.append(one.step([rng.choice(np.flatnonzero(row)) for row in one.get_avail_actions()])[1])
        other.step([0] * 4)
    assert beside == alone
    assert [reward for _, reward, *_ in play(other)] != alone
    other.seed(3)
    assert [reward for _, reward, *_ in play(other)] == alone


@needs_sumo
def test_lights_obey_their_times_and_phases_that_are_not_there_are_not_available(make):
    env = make(min_green=10)
    phases = [len(signal["greens"]) for signal in env.signals]
    assert sorted(phases) == [3, 4, 4] and env.n_actions == 4
    three = phases.index(3)
    env.reset()
    assert [sum(row) for row in env.get_avail_actions()] == [1, 1, 1]
    env.step([0] * 3), env.step([0] * 3)
    assert [sum(row) for row in env.get_avail_actions()] == phases
    assert env.get_avail_actions()[three][3] == 0
    # Three seconds of yellow, so that its green is two seconds old, then seven, then twelve.
    env.step([1] * 3)
    for _ in range(2):
        assert [row.index(1) for row in env.get_avail_actions()] == [1, 1, 1]
        assert [sum(row) for row in env.get_avail_actions()] == [1, 1, 1]
        # Not available: it stays.
        env.step([2] * 3)
    assert [row["own.phase_1"] for row in named(env)] == [1, 1, 1]
    assert [row["own.green"] for row in named(env)] == pytest.approx([12 / 60] * 3)
    assert [sum(row) for row in env.get_avail_actions()] == phases


@needs_sumo
def test_the_layout_names_own_lanes_and_those_of_neighbours_alike(make):
    env = make(seconds=300)
    play(env)
    rows = named(env)
    by_name = dict(zip(env.layout.agent_names, rows, strict=True))
    seen = 0
    for agent, row in zip(env.layout.agents, rows, strict=True):
        for name in (*agent.blocks.get("N", ()), *agent.blocks.get("S", ())):
            stem, _, feature = name.partition(".")
            if name in agent.blocks.get("S", ()):
                assert row[name] == by_name[stem][f"own.{feature}"]
            else:
                (owner,) = [other for other in env.layout.agents if name in other.blocks["L"]]
                assert owner.name != agent.name and row[name] == by_name[owner.name][name]
                seen += row[name] > 0
    assert seen, "queues that a neighbour sees"
    info = describe(env)
    layout = layout_for("cologne3", info["n_agents"], info["obs_shape"], info)
    assert layout == env.layout and layout.obs_size == len(env.get_obs()[0])
    assert len(env.get_state()) == info["state_shape"]
    assert steps_per_second("traffic", layout) == 1 / 5
    assert action_names("traffic", "cologne3", layout.agent_names[0], 4) == [f"phase_{k}" for k in range(4)]


@needs_sumo
def test_under_limits_a_signal_sees_its_own_lights_and_lanes_and_a_detector_may_be_dead(make):
    layout = make().layout
    own, dead = (mask_for(layout, "lh", preset) for preset in ("own", "dead_detector"))
    for agent, blocks in enumerate(entry.blocks for entry in layout.agents):
        assert own.names(agent) == (*blocks["O"], *blocks["L"])
        assert dead.names(agent) == (*blocks["O"], *blocks["L"][2:])
    units = {row["name"]: row["unit"] for row in features(own, 0)}
    assert units[layout.agents[0].blocks["L"][0]] == "10 vehicles"
    with pytest.raises(UserError, match="unknown masks_preset 'dead_detectors'; did you mean 'dead_detector'"):
        mask_for(layout, "lh", "dead_detectors")


@needs_sumo
def test_other_controls_take_the_place_of_the_agents(make):
    for control in ("fixed_time", "max_pressure"):
        env, again = (make("cologne1", control=control) for _ in range(2))
        assert [step[1] for step in play(env, 0)] == [step[1] for step in play(again, 1)], "actions change nothing"


def test_max_pressure_serves_the_longest_queues_that_have_room_ahead():
    """Two phases: lane a leads to x, lane b to y and z alike."""
    counts = {"a": 4, "b": 5, "x": 0, "y": 0, "z": 4}
    simulation = object.__new__(Simulation)
    simulation._sumo = SimpleNamespace(lane=SimpleNamespace(getLastStepVehicleNumber=counts.__getitem__))
    signal = SimpleNamespace(
        detectors=[["a"], ["b"]],
        exits=["x", "y", "z"],
        movements=[[(0, [0])], [(1, [1, 2])]],
        greens=["G", "G"],
        phase=1,
    )
    assert simulation._most_pressed(signal) == 0, "4 - 0 against 5 - (0 + 4) / 2"
    counts["z"] = 2
    assert simulation._most_pressed(signal) == 1, "of equals the one that is green"


@needs_sumo
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cologne2"}, "map_name 'cologne2' is no road network; did you mean"),
        ({"seconds": 9000}, "an episode of 9000 s in decisions of 5 s does not fit into the 3600 s of cologne3"),
        ({"decision_seconds": 0}, "env_args.decision_seconds is 0: expected a whole number of seconds of at least 1"),
        ({"control": "fixed"}, "unknown env_args.control 'fixed'; did you mean 'fixed_time'"),
        ({"sumocfg": "nowhere.sumocfg"}, "nowhere.sumocfg cannot be read as a SUMO configuration"),
    ],
)
def test_a_mistake_is_one_line(make, options, message):
    with pytest.raises(UserError, match=message) as error:
        make(**options)
    assert "\n" not in str(error.value)


@needs_sumo
def test_a_network_that_sumo_refuses_and_a_simulation_that_dies_are_one_line(make, tmp_path):
    (tmp_path / "a.rou.xml").write_text('<routes><trip id="1" depart="0" from="nowhere" to="b"/></routes>')
    config, roads = tmp_path / "a.sumocfg", networks()["cologne1"] / "cologne1.net.xml"
    config.write_text(f'<c><net-file value="{roads}"/><route-files value="a.rou.xml"/></c>')
    with pytest.raises(UserError, match=r"SUMO failed: .*'nowhere'"):
        make("mine", sumocfg=str(config))
    env = make()
    env.reset()
    os.kill(env._connection._process.pid, signal.SIGKILL)
    with pytest.raises(UserError, match="SUMO failed: its process ended with status -9"):
        env.step([0] * 3)


def test_without_sumo_one_line_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libsumo" else find(name))
    with pytest.raises(UserError, match=r"env 'traffic' needs libsumo, which is not installed: pip install .*traffic"):
        TrafficEnv("cologne1")


def test_the_demand_is_counted_from_its_files(tmp_path):
    """Two trips in time and one too late, and flows by number, rate, period and chance."""
    file = tmp_path / "a.rou.xml"
    flows = ['number="3"', 'vehsPerHour="36"', 'period="10"', 'period="exp(0.2)"', 'probability="0.5"']
    trips = [f'<trip id="{k}" depart="{depart}"/>' for k, depart in enumerate(("100.0", "0:02:00", "300"))]
    rows = [f'<flow id="f{k}" begin="100" end="200" {flow}/>' for k, flow in enumerate(flows)]
    file.write_text(f"<routes>{''.join(trips + rows)}</routes>")
    assert Network("a", file, (file,), 100, 100).vehicles() == pytest.approx(2 + 3 + 1 + 10 + 20 + 50)
