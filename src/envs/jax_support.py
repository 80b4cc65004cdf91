"""JAX where an environment needs it, and nowhere else: it must not take the cores from torch, nor talk over the run."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from typing import Any

from kd_marl.errors import UserError


def load(module: str) -> Any:
    """Import a module that uses JAX.

    JAX computes on the CPU with one thread unless ``JAX_PLATFORMS`` or ``XLA_FLAGS`` say otherwise: the batches are
    small, and the other cores belong to the learner. Call it in the process that steps the environment, never before
    a fork.

    Raises:
        UserError: the extra is not installed.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # jaxmarl prints while it is imported
            return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"SMAX and batched MPE need JaxMARL ({error}): pip install 'kd-marl[smax]' (Python 3.11 or newer)"
        ) from None
