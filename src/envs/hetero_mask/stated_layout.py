"""What is wrong with the layout that an environment states itself, by the key ``layout`` of its facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from kd_core.errors import UserError
from kd_envs.hetero_mask.layouts import FeatureLayout

_KEYS = ("task", "obs_size", "agents")
_AGENT_KEYS = ("name", "features", "blocks", "derived")
_EXAMPLE = "docs/tutorials/own-environment.md has a whole one"


def layout_fault(info: Mapping[str, Any]) -> str:
    """Return the first fault of a stated layout in one line; empty if it has none, or none is stated.

    Args:
        info: the environment's facts: ``n_agents``, ``obs_shape`` and perhaps ``layout``.
    """
    if "layout" not in info:
        return ""
    try:
        return next(_faults(info["layout"], info["n_agents"], info["obs_shape"]), "")
    except (TypeError, ValueError, AttributeError) as error:
        return f"layout cannot be read ({' '.join(str(error).split())}): {_EXAMPLE}"


def _faults(stated: Any, n_agents: int, obs_size: int) -> Iterator[str]:
    absent = [key for key in _KEYS if key not in stated]
    if absent:
        yield f"layout lacks {', '.join(absent)}: {_EXAMPLE}"
    if stated["obs_size"] != obs_size:
        yield f"layout has obs_size {stated['obs_size']}, but obs_shape is {obs_size}: correct either"
    if len(stated["agents"]) != n_agents:
        yield f"layout has {len(stated['agents'])} agents, but n_agents is {n_agents}: correct either"
    for index, agent in enumerate(stated["agents"]):
        yield from _agent_faults(f"agent {index} of layout", agent, obs_size)
    layout = FeatureLayout.from_dict(stated)
    for preset, rows in layout.presets.items():
        if len(rows) != n_agents:
            yield f"preset {preset} of layout has {len(rows)} rows: expected {n_agents}, one for each agent"
        for index, words in enumerate(rows):
            if not words:
                yield f"preset {preset} of layout shows agent {index} nothing: name a block or a feature"
            for word in words:
                try:
                    layout.find(index, word)
                except UserError as error:
                    yield f"preset {preset} of layout: {error}"


def _agent_faults(called: str, agent: Mapping[str, Any], obs_size: int) -> Iterator[str]:
    absent = [key for key in _AGENT_KEYS if key not in agent]
    if absent:
        yield f"{called} lacks {', '.join(absent)}: {_EXAMPLE}"
    if len(agent["features"]) != obs_size:
        yield (
            f"{called} has {len(agent['features'])} features, but obs_shape is {obs_size}:"
            " name each number, with None for padding"
        )
    counts = Counter(name for name in agent["features"] if name is not None)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        yield f"{called} has two features {twice[0]!r}: give each a name of its own"
    known = {*counts, *(name for name, _ in agent["derived"])}
    for block, names in agent["blocks"].items():
        strangers = [name for name in names if name not in known]
        if strangers:
            yield f"{called} has no feature {strangers[0]!r}, which its block {block} names: correct either"
