"""The C of a bundle's agents in the page: it decides again, in the browser, from what the agents were told."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from kd_marl.deploy.wasm import compile_wasm
from kd_marl.watch.film import packed
from kd_marl.watch.takes import Take
from kd_onboard.bundle import Bundle
from kd_onboard.profile import AgentProfile


def live_data(panels: Sequence[Sequence[Take]], bundles: Sequence[Bundle | None]) -> dict[str, Any]:
    """Convert the agents of bundles to JSON data.

    Args:
        panels: of each player its takes.
        bundles: of each player its bundle; None of one that is no bundle.

    Returns:
        ``programs``: of each player, each of its agents' WebAssembly in base64. ``told``: of each player, each of its
        episodes and each agent, the features at every step, packed. Both None where a player is no bundle.

    Raises:
        UserError: there is no compiler, or it fails.
    """
    programs: list[list[str] | None] = []
    told: list[list[list[dict[str, Any]]] | None] = []
    for takes, bundle in zip(panels, bundles, strict=True):
        if bundle is None:
            programs.append(None)
            told.append(None)
            continue
        programs.append([base64.b64encode(compile_wasm(bundle, agent)).decode("ascii") for agent in bundle.agents])
        told.append([[packed(_told(take, agent), "f4") for agent in bundle.agents] for take in takes])
    return {"programs": programs, "told": told}


def _told(take: Take, agent: AgentProfile) -> np.ndarray:
    """Return what an agent was told at every step of an episode, float32 ``(T, inputs)``."""
    found = np.zeros((take.steps, agent.inputs), np.float32)
    for place, feature in enumerate(agent.features):
        if feature.own_action is not None:
            found[1:, place] = take.actions[:-1, agent.index] == feature.own_action
        elif feature.status_of is not None:
            found[:, place] = take.visible[agent.index, feature.status_of]
        elif take.visible[agent.index, feature.index]:
            found[:, place] = take.obs[:-1, agent.index, feature.index]
    return found
