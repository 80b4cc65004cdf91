"""The ROS 2 package `kd_agent`, for colcon."""

from setuptools import setup

setup(
    name="kd_agent",
    version="0.1.0",
    packages=["kd_agent"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/kd_agent"]),
        ("share/kd_agent", ["package.xml"]),
        ("share/kd_agent/launch", ["launch/team.launch.py"]),
    ],
    install_requires=["setuptools", "numpy"],
    zip_safe=False,
    entry_points={"console_scripts": ["agent = kd_agent.node:main"]},
)
