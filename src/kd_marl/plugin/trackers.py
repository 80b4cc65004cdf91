"""EPyMARL's keys ``use_tensorboard`` and ``use_wandb`` on either host."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from kd_core.errors import UserError, how_to_install, nearest
from kd_core.host import Host

_MODES = ("offline", "online")


def check(config: Mapping[str, Any]) -> None:
    """Refuse what a host would end with a traceback, or only after a while.

    Raises:
        UserError: a package is not installed, or a key of Weights & Biases is missing or impossible.
    """
    if config["use_tensorboard"]:
        _need("torch.utils.tensorboard", "use_tensorboard=True needs TensorBoard")
    if not config["use_wandb"]:
        return
    _need("wandb", "use_wandb=True needs Weights & Biases")
    for key in ("wandb_team", "wandb_project"):
        if not config[key]:
            raise UserError(f"use_wandb=True needs {key}: give {key}=NAME; offline any name will do")
    if (mode := config["wandb_mode"]) not in _MODES:
        raise UserError(f"wandb_mode={mode}: expected offline or online; {nearest(mode, _MODES)}")


def install(host: Host) -> None:
    """Let a checkout write TensorBoard's files with torch where the package it asks for is not installed."""
    if not host.is_bundled and importlib.util.find_spec("tensorboard_logger") is None:
        logger: Any = host.Logger
        logger.setup_tb = _setup_tb


def _setup_tb(logger: Any, directory_name: str) -> None:
    from torch.utils.tensorboard import SummaryWriter  # its tensorboard is of the extra `track`

    writer = SummaryWriter(directory_name)
    logger.tb_logger, logger.use_tb = writer.add_scalar, True
    # A checkout's logger closes nothing.
    atexit.register(writer.close)


def _need(module: str, what: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError:
        raise UserError(f"{what}, which is not installed: {how_to_install('track')}") from None
