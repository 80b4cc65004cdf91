"""Assembles the configuration of a command line and executes it in the host's Sacred experiment."""

from __future__ import annotations

import copy
import functools
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import torch
from sacred import stdout_capturing

from kd_core import progress, torch_compiler
from kd_core.config import Command, assemble, sacred_words, typed_updates
from kd_core.errors import UserError
from kd_core.host import Host
from kd_marl.plugin import lifecycle, register
from kd_marl.plugin.observer import RunRecord
from kd_marl.tracking import destination
from kd_marl.tracking.destination import Destination

# The packages of the plug-in that say something while a run lasts.
_OURS = ("kd_core", "kd_learners", "kd_marl", "kd_runners")


def launch(host: Host, command: Command) -> None:
    """Run a command on a host (exits with status 1 when the run fails).

    Raises:
        UserError: the command does not fit the host's and the plug-in's configuration files.
    """
    torch.set_num_threads(1)
    torch_compiler.defer()
    progress.remember_terminal()
    register.register(host)
    config = assemble(host, command)
    updates = typed_updates(config, command)
    tracked = destination.of_run(config, updates)
    lifecycle.install(host, command.line)
    execute(host, command, config, updates, tracked)


def execute(
    host: Host, command: Command, config: dict[str, Any], updates: Mapping[str, Any], tracked: Destination | None
) -> None:
    """Hand the configuration to the host's Sacred experiment and run it (exits with status 1 when the run fails).

    Args:
        host: whose experiment it is.
        command: the command line.
        config: the configuration before the command line's updates.
        updates: those, as their keys take them.
        tracked: the database that the run is sent to beside its files, if any.
    """
    experiment = host.main.ex
    _set_up_logging(experiment.logger)
    # What a library prints may be no UTF-8, or be read when it is half written: neither may cost a run.
    stdout_capturing.NamedTemporaryFile = functools.partial(  # type: ignore[assignment]
        NamedTemporaryFile, encoding="utf-8", errors="backslashreplace"
    )
    # EPyMARL's plot_results.py takes runs for one group if nothing but the key `seed` tells them apart.
    experiment.add_config({**copy.deepcopy(config), "command": command.line_of_any_seed})
    # Where the models and buffers of this run go too.
    results = Path(updates.get("local_results_path", config["local_results_path"])).expanduser().absolute()
    folder = results / "sacred" / config["name"] / config["map_name"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write results to {folder} ({error.strerror or error}): give another local_results_path"
        ) from None
    experiment.observers.append(record := RunRecord(str(folder)))
    if tracked is not None:
        from kd_marl.tracking.follower import Follower  # its pymongo is of the extra `track`

        experiment.observers.append(Follower(tracked, record))
    try:
        experiment.run_commandline(["src/main.py", *sacred_words(command, updates)])
    except lifecycle.OneLineError as error:
        # Sacred's flag --debug lets errors through.
        raise UserError(str(error)) from None


def _set_up_logging(console: logging.Logger) -> None:
    """Show what the plug-in says beside the host, and hush the libraries that a checkout's DEBUG level wakes.

    Args:
        console: the host's logger; where ``KD_MARL_LOG`` names a file, its lines and ours go there instead.
    """
    for noisy in ("git", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    file = os.environ.get(progress.LOG_FILE)
    handler = logging.FileHandler(file, encoding="utf-8") if file else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("[%(levelname)s %(asctime)s] %(name)s %(message)s", "%H:%M:%S"))
    if file:
        console.handlers = [handler]
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").handlers = [handler]
    for name in _OURS:
        ours = logging.getLogger(name)
        if not ours.handlers:
            ours.addHandler(handler)
            ours.propagate = False
            ours.setLevel(logging.INFO)
