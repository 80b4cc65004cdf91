"""Compiled functions of JAX whose traces outlive the run, because tracing takes longer than the rest of a short one."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kd_core.errors import UserError
from kd_core.files import write_bytes
from kd_envs.jax_support import load

# What a trace depends on beside the function's name and its arguments: our code and these packages.
_PACKAGES = ("jax", "jaxlib", "jaxmarl", "flax")


def compiled(name: str, build: Callable[[], Callable[..., Any]], *examples: Any) -> Callable[..., Any]:
    """Compile a function for arguments of these shapes; trace it only where no earlier run did.

    Traces lie in a folder beside JAX's own cache of compiled functions, or nowhere if that has no folder.

    Args:
        name: tells this function from others of the same code, such as ``smax/3m/step``.
        build: makes the function, which maps arrays, tuples, lists and dicts to such; called only to trace it.
        examples: arguments.
    """
    jax = load("jax")
    shapes = jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), examples)
    file = _file(f"{name} on {jax.default_backend()} {shapes}")
    export = load("jax.export")
    trace = None
    if file is not None and file.is_file():
        with contextlib.suppress(Exception):  # A damaged file is replaced.
            trace = export.deserialize(bytearray(file.read_bytes()))
    if trace is None:
        trace = export.export(jax.jit(build()))(*examples)
        if file is not None:
            with contextlib.suppress(UserError, OSError):
                file.parent.mkdir(exist_ok=True)
                write_bytes(file, bytes(trace.serialize()))
    return jax.jit(trace.call).lower(*examples).compile()


def _file(name: str) -> Path | None:
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if not folder:
        return None
    digest = hashlib.sha256(f"{name} {_code()}".encode()).hexdigest()
    return Path(folder) / "traces" / f"{digest[:32]}.stablehlo"


@functools.cache
def _code() -> str:
    """Return a digest of the packages' versions and of the source of our environments."""
    found = hashlib.sha256()
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.update(f"{package} {importlib.metadata.version(package)} ".encode())
    here = Path(__file__).parent
    for file in sorted([*here.glob("jax_*.py"), *here.glob("smax/*.py"), *here.glob("mpe/*.py")]):
        found.update(file.read_bytes())
    return found.hexdigest()
