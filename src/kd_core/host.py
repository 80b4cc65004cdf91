"""The seam: which EPyMARL is underneath, and everything the plug-in takes from it.

Unset ``EPYMARL_HOME``: the bundled runtime, ``epymarl_lite``. Set: that checkout, or an error; never a silent fallback.
Plug-in code asks :func:`get_host` and imports none of the host's bare names (``run``, ``envs``, ``utils``) itself.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from epymarl_lite.utils.errors import ConfigError, EnvironmentFaultError, WorkerDiedError
from epymarl_lite.utils.mappings import recursive_dict_update
from epymarl_lite.utils.sacred_import import import_sacred
from kd_core.errors import UserError
from kd_core.places import SOURCE_ROOT

TESTED_COMMIT = "cbc38c0"

_CHECKOUT_FILES = ("src/main.py", "src/run.py", "src/config/default.yaml", "src/learners/__init__.py")


# Part of a host -> its module, and its name there; the module itself where that is empty.
_PARTS = {
    "main": ("main", ""),
    "run": ("run", ""),
    "learners": ("learners", "REGISTRY"),
    "controllers": ("controllers", "REGISTRY"),
    "envs": ("envs", "REGISTRY"),
    "runners": ("runners", "REGISTRY"),
    "agents": ("modules.agents", "REGISTRY"),
    "critics": ("modules.critics", "REGISTRY"),
    "action_selectors": ("components.action_selectors", "REGISTRY"),
    "EpisodeBatch": ("components.episode_buffer", "EpisodeBatch"),
    "ReplayBuffer": ("components.episode_buffer", "ReplayBuffer"),
    "OneHot": ("components.transforms", "OneHot"),
    "MultiAgentEnv": ("envs", "MultiAgentEnv"),
    "Logger": ("utils.logging", "Logger"),
}


@dataclass(frozen=True, eq=False)
class Host:
    """What an EPyMARL offers a plug-in. The registries are the host's own dicts: adding a key registers it.

    Its parts are imported when they are asked for: a table of masks needs neither torch nor Sacred.

    Attributes:
        name: ``"epymarl_lite"`` or ``"epymarl"``.
        commit: the checkout's git commit, or None if it is unknown or the host is bundled.
        config_path: the host's ``config`` folder (``default.yaml``, ``algs/``, ``envs/``).
        results_path: where the host keeps ``sacred/``.
        plain_errors: what the host raises where the user can mend it, with a message of one line; a checkout has no
            such class.
        merge: merges one configuration into another, in place, and returns it.
        main: module with ``ex``, ``my_main``, ``config_copy``.
        run: module with ``run``, ``run_sequential``, ``args_sanity_check``.
    """

    name: str
    commit: str | None
    config_path: Path
    results_path: Path
    plain_errors: tuple[type[Exception], ...]
    merge: Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any]]
    main: Any = field(init=False, repr=False)
    run: Any = field(init=False, repr=False)
    learners: dict[str, Any] = field(init=False, repr=False)
    controllers: dict[str, Any] = field(init=False, repr=False)
    envs: dict[str, Any] = field(init=False, repr=False)
    runners: dict[str, Any] = field(init=False, repr=False)
    agents: dict[str, Any] = field(init=False, repr=False)
    critics: dict[str, Any] = field(init=False, repr=False)
    action_selectors: dict[str, Any] = field(init=False, repr=False)
    EpisodeBatch: type = field(init=False, repr=False)
    ReplayBuffer: type = field(init=False, repr=False)
    OneHot: type = field(init=False, repr=False)
    MultiAgentEnv: type = field(init=False, repr=False)
    Logger: type = field(init=False, repr=False)

    def __getattr__(self, part: str) -> Any:
        if part not in _PARTS:
            raise AttributeError(f"a host has no part '{part}'")
        path, name = _PARTS[part]
        module = importlib.import_module(f"epymarl_lite.{path}" if self.is_bundled else path)
        vars(self)[part] = getattr(module, name) if name else module
        return vars(self)[part]

    @property
    def is_bundled(self) -> bool:
        """Whether this is the runtime that ships with the plug-in."""
        return self.name == "epymarl_lite"

    def register_starcraft(self, name: str) -> None:
        """Put ``sc2`` or ``sc2v2`` into the registry now: a checkout does it when a runner starts.

        Its runners then leave the entry alone; they would replace what a run has put there.
        """
        if name in self.envs:
            return
        register = {"sc2": "register_smac", "sc2v2": "register_smacv2"}[name]
        getattr(importlib.import_module("envs"), register)()
        for module in ("runners.episode_runner", "runners.parallel_runner"):
            setattr(importlib.import_module(module), register, lambda: None)


@functools.lru_cache(maxsize=1)
def get_host() -> Host:
    """Return the host of this process; a checkout is imported on the first call.

    Raises:
        UserError: ``EPYMARL_HOME`` is set and names no EPyMARL checkout.
    """
    # Without it SDL swallows SIGTERM in environment workers, and they outlive the run (MPE imports pygame).
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    # Nothing is drawn: without this SDL looks for a screen, and complains where there is none.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    for harmless in ("pkg_resources is deprecated", ".*The reward returned by `step", ".*VMAS is not installed"):
        warnings.filterwarnings("ignore", message=harmless)
    home = os.environ.get("EPYMARL_HOME")
    return _load_checkout(Path(home).expanduser().resolve()) if home else _load_bundled()


def add(registry: dict[str, Any], name: str, entry: Any) -> None:
    """Add an entry of ours to a registry of the host's. Safe to call twice.

    Raises:
        ValueError: the host already has another entry of that name.
    """
    if registry.setdefault(name, entry) is not entry:
        raise ValueError(f"the host already registers '{name}' as {registry[name]}: rename one of the two")


def _load_bundled() -> Host:
    return Host(
        name="epymarl_lite",
        commit=None,
        config_path=SOURCE_ROOT / "epymarl_lite" / "config",
        results_path=SOURCE_ROOT.parent / "results",
        plain_errors=(ConfigError, WorkerDiedError, EnvironmentFaultError),
        merge=recursive_dict_update,
    )


def _load_checkout(home: Path) -> Host:
    missing = [name for name in _CHECKOUT_FILES if not (home / name).is_file()]
    if missing:
        raise UserError(
            f"EPYMARL_HOME={home} is no EPyMARL checkout ({missing[0]} is missing): point it at the folder that holds "
            "src/main.py, or unset it to use the bundled runtime"
        )
    commit = _git_commit(home)
    if commit is None or not commit.startswith(TESTED_COMMIT):
        warnings.warn(
            f"EPyMARL at {home} is at commit {commit or 'unknown'}; the plug-in is tested against {TESTED_COMMIT}",
            stacklevel=2,
        )
    source = str(home / "src")
    if source not in sys.path:
        sys.path.insert(0, source)
    if getattr(sys.modules.get("envs"), "__file__", "") is None:
        # Ours, a namespace package imported too early: it would hide the checkout's own.
        del sys.modules["envs"]
    # What its code says to its authors: of PettingZoo's and PyTorch's older interfaces.
    for known in ("Using a non-tuple sequence for multidim", r"The `(action|observation)_spaces` dictionary"):
        warnings.filterwarnings("ignore", message=known)
    # Its main module wakes every logger, and Sacred asks git for the commit.
    logging.getLogger("git").setLevel(logging.WARNING)
    _placeholder("smaclite")
    import_sacred()
    spec = importlib.util.spec_from_file_location("epymarl_main", home / "src" / "main.py")
    assert spec is not None and spec.loader is not None, f"cannot load {home}/src/main.py"
    main = importlib.util.module_from_spec(spec)
    sys.modules["epymarl_main"] = main
    try:
        spec.loader.exec_module(main)
    except ImportError as error:
        raise UserError(
            f"EPYMARL_HOME={home} does not import ({error}): install that checkout's requirements"
        ) from None
    envs = importlib.import_module("envs")
    envs.__path__.append(str(SOURCE_ROOT / "kd_envs"))
    host = Host(
        name="epymarl",
        commit=commit,
        config_path=home / "src" / "config",
        results_path=Path(main.results_path),
        plain_errors=(),
        merge=main.recursive_dict_update,
    )
    vars(host)["main"] = main
    return host


def _placeholder(package: str) -> None:
    """Let a checkout import a package that is not installed; :mod:`kd_runners.environments` refuses its use."""
    if importlib.util.find_spec(package) is None:
        stub = ModuleType(package)
        stub.__doc__ = "placeholder: the package is not installed"
        stub.__spec__ = importlib.util.spec_from_loader(package, loader=None)
        sys.modules[package] = stub


def _git_commit(home: Path) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(home), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
