"""Import of JAX, only where an environment needs it, with one thread and without its log messages."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import logging
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from kd_core.errors import UserError, how_to_install
from kd_core.imports import uncollected


def available() -> bool:
    """Tell whether JAX and JaxMARL are installed, without importing them."""
    return all(importlib.util.find_spec(package) is not None for package in ("jax", "jaxmarl"))


def load(module: str) -> Any:
    """Import a module of JAX or JaxMARL.

    JAX computes on the CPU with one thread, unless ``JAX_PLATFORMS`` or ``XLA_FLAGS`` say otherwise. The batches are
    small, and the other cores belong to the learner. Compiled functions are cached in the user's cache folder or
    ``JAX_COMPILATION_CACHE_DIR``. Call it in the process that steps the environment, never before a fork.

    Raises:
        UserError: the extra is not installed.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    _keep_compilations()
    messages = logging.getLogger("jax")
    if messages.level == logging.NOTSET:  # the host logs from DEBUG on
        messages.setLevel(logging.WARNING)
    try:
        with uncollected(), _packages_not_run(module):
            return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"SMAX and batched MPE need JaxMARL ({error}): {how_to_install('smax')} (Python 3.11 or newer)"
        ) from None


@contextlib.contextmanager
def _packages_not_run(module: str) -> Iterator[None]:
    """Replace JaxMARL's packages above ``module`` by empty ones within the block, unless they are imported already.

    Their own code imports every environment, which takes seconds, prints, and undoes Sacred's redirection of the
    process's streams. Afterwards they can be imported as usual.
    """
    parts = module.split(".")
    packages = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    spec = importlib.util.find_spec("jaxmarl")
    empty = []
    if packages[:1] == ["jaxmarl"] and spec is not None and spec.submodule_search_locations:
        installed = Path(spec.submodule_search_locations[0]).parent
        for name in packages:
            if name not in sys.modules:
                sys.modules[name] = ModuleType(name)
                sys.modules[name].__path__ = [str(installed.joinpath(*name.split(".")))]
                empty.append(name)
    try:
        yield
    finally:
        for name in empty:
            del sys.modules[name]


def _keep_compilations() -> None:
    """Name a folder for compiled functions: compiling takes longer than the rest of a short run."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        folder = caches.expanduser() / "kd-marl" / "jax" / _processor()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return
    if os.access(folder, os.W_OK):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        # A function is compiled instead if another run is still writing its file, so the warning is needless.
        warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")


def _processor() -> str:
    """Return a name of this processor's features, because JAX may load code that another processor compiled."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        features = platform.processor()
    return hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:16]
