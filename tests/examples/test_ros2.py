"""The ROS 2 example without ROS: readings become features by name and unit, and every fault has its outcome."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "ros2"
sys.path.insert(0, str(EXAMPLE))

from kd_agent.control import Control  # noqa: E402

from kd_controllers.messages import Messages  # noqa: E402
from kd_onboard import OnboardAgent  # noqa: E402
from onboard_bundles import LINKS, write_bundle, write_talking_bundle  # noqa: E402


class Clock:
    """Goes on by the next of some steps each time that it is looked at."""

    def __init__(self, *steps):
        self.steps, self.now = list(steps), 0.0

    def __call__(self):
        self.now += self.steps.pop(0) if self.steps else 0.0
        return self.now


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return {mode: write_bundle(folder / mode, on_fault=mode) for mode in ("raise", "hold", "noop")}


def names(agent):
    return [f"{f.name} [{f.unit}]" if f.unit not in (None, "1") else f.name for f in agent.profile.features]


def connected(bundle, max_age_s=0.2, clock=None):
    """Agent 1 with its first two features on one topic and the others on another, in reverse."""
    agent = OnboardAgent.load(bundle, 1)
    listed = names(agent)
    sensors = [f"/a: {', '.join(listed[:2])}", f"/b: {', '.join(listed[:1:-1])}"]
    return Control(agent, sensors, max_age_s, clock or Clock())


def fed(control, rows, now=0.0):
    control.read("/a", rows[:2], now)
    control.read("/b", rows[:1:-1], now)


ROW = np.array([0.5, -1.0, 0.25, 2.0, -0.5], np.float32)


def test_readings_reach_the_features_of_their_names(bundles):
    control, alone = connected(bundles["raise"]), OnboardAgent.load(bundles["raise"], 1)
    for step in range(20):
        row = ROW * np.float32(np.cos(step))
        fed(control, row, now=0.1 * step)
        decision = control.tick(0.1 * step)
        assert decision.fault is None and decision.action == alone.act(row, np.ones(5, bool))
    control.reset()
    alone.reset()
    assert control.tick(2.0).action == alone.act(row, np.ones(5, bool))


def test_the_own_last_action_is_filled_in(bundles):
    agent, alone = (OnboardAgent.load(bundles["raise"], 1) for _ in range(2))
    own = [replace(feature, own_action=action) for action, feature in enumerate(agent.profile.features[3:])]
    agent.profile = replace(agent.profile, features=(*agent.profile.features[:3], *own))
    control, done = Control(agent, [f"/a: {', '.join(names(agent)[:3])}"], 0.2, Clock()), None
    for step in range(20):
        row = ROW[:3] * np.float32(3 * np.cos(step))
        control.read("/a", row, 0.0)
        control.allow([step % 2, 1 - step % 2, 0, 0, 0])
        expected = alone.act(np.float32([*row, done == 0, done == 1]), control._available)
        done = control.tick(0.0).action
        assert done == expected


def test_an_action_that_is_not_available_is_not_taken(bundles):
    control = connected(bundles["raise"])
    fed(control, ROW)
    first = control.tick(0.0).action
    control.reset()
    control.allow([int(action != first) for action in range(5)])
    assert control.tick(0.0).action not in (None, first)
    for wrong in ([1, 1], [2] * 5, [0] * 5):
        control.allow(wrong)
        decision = control.tick(0.0)
        assert decision.action is None and "no action is available" in decision.fault


FAULTS = {
    "late": (lambda control: None, 0.3, "/a is 0.300 s old, at most 0.2 expected"),
    "not finite": (lambda control: control.read("/a", [np.nan, 0.0], 0.1), 0.1, "is nan"),
    "wrong shape": (lambda control: control.read("/b", [1.0], 0.1), 0.1, "/b sent 1 numbers, expected 3"),
}


@pytest.mark.parametrize("mode", ["raise", "hold", "noop"])
@pytest.mark.parametrize(("spoil", "now", "message"), FAULTS.values(), ids=FAULTS)
def test_a_bad_reading_does_what_the_bundle_says_and_passes(bundles, mode, spoil, now, message):
    control = connected(bundles[mode])
    fed(control, ROW)
    before = control.tick(0.0).action
    spoil(control)
    decision = control.tick(now)
    assert message in decision.fault
    assert decision.action == {"raise": None, "hold": before, "noop": control.agent.profile.noop_action}[mode]
    fed(control, ROW, now)
    assert control.tick(now).fault is None
    assert (control.decisions, control.faults) == (3, 1) and message in control.last_fault


@pytest.mark.parametrize("mode", ["raise", "hold", "noop"])
def test_before_its_first_reading_an_agent_holds_nothing(bundles, mode):
    control = connected(bundles[mode])
    control.read("/a", [0.0, 0.0], 0.0)
    decision = control.tick(0.0)
    assert "/b has sent nothing yet" in decision.fault
    assert decision.action == (control.agent.profile.noop_action if mode == "noop" else None)


def test_the_heartbeat_tells_decisions_faults_and_latency(bundles):
    took = [0.001] * 98 + [0.005, 0.009]
    clock = Clock(*(step for one in took for step in (0.0, one)))
    control = connected(bundles["raise"], max_age_s=10.0, clock=clock)
    assert json.loads(control.heartbeat())["latency_ms"]["most"] == 0.0
    fed(control, ROW)
    for _ in took:
        control.tick(1.0)
    told = json.loads(control.heartbeat())
    assert (told["agent"], told["decisions"], told["faults"], told["last_fault"]) == ("agent_1", 100, 0, None)
    assert told["latency_ms"] == {
        "median": pytest.approx(1.0),
        "p99": pytest.approx(9.0),
        "most": pytest.approx(9.0),
    }


def test_topics_that_do_not_fit_the_profile_are_refused_by_name(bundles):
    agent = OnboardAgent.load(bundles["raise"], 1)
    listed = names(agent)
    every = f"/a: {', '.join(listed)}"
    plain = agent.profile.features[0].name
    for sensors, message in (
        ([f"/a: {', '.join(listed[1:])}"], f"no topic for {plain}"),
        ([every, f"/b: {listed[0]}"], "comes from /a and from /b"),
        ([every.replace(listed[0], f"{plain} [furlong]")], r"in \[furlong\], but the bundle has it in"),
        ([every.replace(listed[0], "nothing")], "'nothing' is no feature of agent 1"),
        ([every, "/b"], "expected TOPIC: NAME"),
        ([every, every], "each topic once"),
    ):
        with pytest.raises(ValueError, match=message):
            Control(agent, sensors, 0.2, Clock())
    with pytest.raises(ValueError, match="expected seconds above 0"):
        Control(agent, [every], 0.0, Clock())


def test_the_node_and_its_launch_file_are_python_and_name_what_the_package_has():
    """They need ROS, so they are not run: what can be seen without it is."""
    for file in EXAMPLE.rglob("*.py"):
        compile(file.read_text(), str(file), "exec")
    assert "kd_agent.node:main" in (EXAMPLE / "setup.py").read_text()
    assert all((EXAMPLE / part).exists() for part in ("resource/kd_agent", "launch/team.launch.py", "package.xml"))


def test_agents_that_talk_hear_each_other_as_late_as_in_training(tmp_path):
    """Two nodes beside agents that are given the same messages by hand."""
    radio = Messages(10, LINKS, latency=2)
    bundle = write_talking_bundle(tmp_path / "bundle", radio)
    controls, alone = {}, {}
    for i in (0, 1):
        agent, alone[i] = (OnboardAgent.load(bundle, i) for _ in range(2))
        controls[i] = Control(agent, [f"/a: {', '.join(names(agent))}"], 0.2, Clock())
        assert controls[i].hears == (1 - i,)
    said, available = {0: [], 1: []}, np.ones(5, bool)
    for step in range(12):
        for i, control in controls.items():
            row = np.cos(np.arange(control.agent.profile.inputs) + 3 * step + i).astype(np.float32)
            control.read("/a", row, 0.0)
            decision = control.tick(0.0)
            inbox = [said[1 - i][step - 2] if step >= 2 else None]
            assert (decision.action, decision.message) == alone[i].act(row, available, inbox)
            said[i].append(decision.message)
        for i, control in controls.items():
            # Each third is lost on the way to agent 1.
            if i == 0 or step % 3:
                control.hear(1 - i, list(said[1 - i][step]))
            else:
                said[1 - i][step] = None
    controls[0].hear(1, b"too long by far")
    for _ in range(2):
        controls[0].read("/a", row[:3], 0.0)
        controls[0].tick(0.0)
    assert json.loads(controls[0].heartbeat())["malformed"] == 1
    assert len({message for message in said[0] if message}) > 3
