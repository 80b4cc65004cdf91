"""The multi-agent particle tasks in JAX (JaxMARL): the same tasks as PettingZoo's, many stepped in one call."""

from __future__ import annotations

from kd_envs.mpe.batch import MpeBatch, batched_mpe

__all__ = ["MpeBatch", "batched_mpe"]
