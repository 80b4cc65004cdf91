"""StarCraft's micromanagement maps without StarCraft: SMAX (JaxMARL) against its heuristic enemy."""

from __future__ import annotations

from kd_envs.smax.batch import SmaxBatch
from kd_envs.smax.simulator import SmaxFacts, map_facts

__all__ = ["SmaxBatch", "SmaxFacts", "map_facts"]
