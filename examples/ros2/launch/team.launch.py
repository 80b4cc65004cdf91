"""Starts agents of a bundle: `ros2 launch kd_agent team.launch.py bundle:=DIR agents:="0 1" parameters:=team.yaml`."""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


def _nodes(context: LaunchContext) -> list[Node]:
    bundle, agents, parameters = (
        LaunchConfiguration(name).perform(context) for name in ("bundle", "agents", "parameters")
    )
    return [
        Node(
            package="kd_agent",
            executable="agent",
            name=f"kd_agent_{agent}",
            parameters=[parameters, {"bundle": bundle, "agent": int(agent)}],
            output="screen",
        )
        for agent in agents.split()
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe one node for each agent."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("bundle", description="folder of the bundle"),
            DeclareLaunchArgument("agents", default_value="0", description="indices, apart by spaces"),
            DeclareLaunchArgument("parameters", description="YAML with `sensors` of each node, see README.md"),
            OpaqueFunction(function=_nodes),
        ]
    )
