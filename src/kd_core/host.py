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
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from epymarl_lite.utils.sacred_import import import_sacred
from kd_core.errors import UserError
from kd_core.places import SOURCE_ROOT

TESTED_COMMIT = "cbc38c0"

_CHECKOUT_FILES = ("src/main.py", "src/run.py", "src/config/default.yaml", "src/learners/__init__.py")


@dataclass(frozen=True)
class Host:
    """What an EPyMARL offers a plug-in. The registries are the host's own dicts: adding a key registers it.

    Attributes:
        name: ``"epymarl_lite"`` or ``"epymarl"``.
        commit: the checkout's git commit, or None if it is unknown or the host is bundled.
        config_path: the host's ``config`` folder (``default.yaml``, ``algs/``, ``envs/``).
        results_path: where the host keeps ``sacred/``.
        main: module with ``ex``, ``my_main``, ``recursive_dict_update``, ``config_copy``.
        plain_errors: what the host raises where the user can mend it, with a message of one line; a checkout has no
            such class.
        run: module with ``run``, ``run_sequential``, ``args_sanity_check``.
    """

    name: str
    commit: str | None
    config_path: Path
    results_path: Path
    main: Any
    run: Any
    learners: dict[str, Any]
    controllers: dict[str, Any]
    envs: dict[str, Any]
    runners: dict[str, Any]
    agents: dict[str, Any]
    critics: dict[str, Any]
    action_selectors: dict[str, Any]
    EpisodeBatch: type
    ReplayBuffer: type
    OneHot: type
    MultiAgentEnv: type
    Logger: type
    plain_errors: tuple[type[Exception], ...]

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
    """Return the host of this process, loaded on the first call.

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
    # A checkout imports it at once.
    import_sacred()
    home = os.environ.get("EPYMARL_HOME")
    return _load_checkout(Path(home).expanduser().resolve()) if home else _load_bundled()


def _load_bundled() -> Host:
    main = importlib.import_module("epymarl_lite.main")
    return _collect("epymarl_lite", None, SOURCE_ROOT / "epymarl_lite" / "config", main, prefix="epymarl_lite.")


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
    return _collect("epymarl", commit, home / "src" / "config", main, prefix="")


def _collect(name: str, commit: str | None, config_path: Path, main: ModuleType, prefix: str) -> Host:
    def module(path: str) -> Any:
        return importlib.import_module(prefix + path)

    errors = module("utils.errors") if name == "epymarl_lite" else None
    return Host(
        name=name,
        commit=commit,
        config_path=config_path,
        results_path=Path(main.results_path),
        main=main,
        run=module("run"),
        learners=module("learners").REGISTRY,
        controllers=module("controllers").REGISTRY,
        envs=module("envs").REGISTRY,
        runners=module("runners").REGISTRY,
        agents=module("modules.agents").REGISTRY,
        critics=module("modules.critics").REGISTRY,
        action_selectors=module("components.action_selectors").REGISTRY,
        EpisodeBatch=module("components.episode_buffer").EpisodeBatch,
        ReplayBuffer=module("components.episode_buffer").ReplayBuffer,
        OneHot=module("components.transforms").OneHot,
        MultiAgentEnv=module("envs").MultiAgentEnv,
        Logger=module("utils.logging").Logger,
        plain_errors=(errors.ConfigError, errors.WorkerDiedError, errors.EnvironmentFaultError) if errors else (),
    )


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
