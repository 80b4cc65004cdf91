"""The node: topics in, one action out. It was written against the API of rclpy (Humble to Jazzy) and not run here."""

from __future__ import annotations

import time
from functools import partial

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from std_msgs.msg import Float32MultiArray, Int32, String, UInt8MultiArray
from std_srvs.srv import Empty

from kd_agent.control import Control
from kd_onboard import OnboardAgent


class AgentNode(Node):
    """One agent. Callbacks run one after the other, in the one thread of `rclpy.spin`."""

    def __init__(self) -> None:
        super().__init__("kd_agent")
        declared = {
            "bundle": "",
            "agent": 0,
            "backend": "numpy",
            "key": "",
            "trust": False,
            "rate_hz": 10.0,
            "max_age_s": 0.2,
            "hears": "/kd_agent_{}/message",
        }
        given = {name: self.declare_parameter(name, value).value for name, value in declared.items()}
        sensors = self.declare_parameter("sensors", [""]).value
        if not given["rate_hz"] > 0:
            raise ValueError(f"rate_hz is {given['rate_hz']}: expected decisions a second above 0")
        agent = OnboardAgent.load(
            given["bundle"], given["agent"], given["backend"], key=given["key"] or None, trust=given["trust"]
        )
        self._control = Control(agent, [line for line in sensors if line], given["max_age_s"], time.perf_counter)
        self._actions = self.create_publisher(Int32, "~/action", 1)
        self._heartbeats = self.create_publisher(String, "~/heartbeat", 10)
        # A subscription, timer or service lives as long as something refers to it.
        self._alive = [
            self.create_subscription(Float32MultiArray, topic, partial(self._read, topic), qos_profile_sensor_data)
            for topic in self._control.sensors
        ]
        # Messages that were lost are not sent again: a late one is a missing one.
        self._messages = self.create_publisher(UInt8MultiArray, "~/message", qos_profile_sensor_data)
        self._alive += [
            self.create_subscription(
                UInt8MultiArray, given["hears"].format(speaker), partial(self._hear, speaker), qos_profile_sensor_data
            )
            for speaker in self._control.hears
        ]
        self._alive += [
            self.create_subscription(UInt8MultiArray, "~/available", self._allow, 1),
            self.create_timer(1.0 / given["rate_hz"], self._tick),
            self.create_timer(1.0, self._beat),
            self.create_service(Empty, "~/reset", self._reset),
        ]

    def _read(self, topic: str, message: Float32MultiArray) -> None:
        self._control.read(topic, message.data, time.monotonic())

    def _hear(self, speaker: int, message: UInt8MultiArray) -> None:
        self._control.hear(speaker, message.data)

    def _allow(self, message: UInt8MultiArray) -> None:
        self._control.allow(list(message.data))

    def _reset(self, _: Empty.Request, response: Empty.Response) -> Empty.Response:
        self._control.reset()
        return response

    def _tick(self) -> None:
        decision = self._control.tick(time.monotonic())
        if decision.fault is not None:
            self.get_logger().warning(decision.fault, throttle_duration_sec=1.0)
        # Without an action nothing is published: the actuator stops when nothing comes, as it does when this node dies.
        if decision.action is not None:
            self._actions.publish(Int32(data=decision.action))
        if decision.message is not None:
            self._messages.publish(UInt8MultiArray(data=decision.message))

    def _beat(self) -> None:
        self._heartbeats.publish(String(data=self._control.heartbeat()))


def main() -> None:
    """Run the node until it is stopped."""
    rclpy.init()
    try:
        rclpy.spin(AgentNode())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
