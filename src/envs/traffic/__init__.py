"""Traffic lights: road networks in SUMO whose signals are the agents."""

from __future__ import annotations

from kd_envs.traffic.networks import CONTROLS, networks

__all__ = ["CONTROLS", "networks"]
