"""Logger of a run's numbers: to the console, Sacred and, if asked for, TensorBoard or Weights & Biases."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

from epymarl_lite.utils.errors import ConfigError, MissingPackageError

_INSTALL = "pip install -e '.[track]' in kd-marl's checkout"


class Logger:
    """Logger that stores every number and passes it on to the chosen back ends.

    Attributes:
        console_logger: for messages to people.
        stats: for each key the list of ``(t, value)`` so far.
    """

    def __init__(self, console_logger: logging.Logger) -> None:
        self.console_logger = console_logger
        self.stats: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self._sacred_run: Any = None
        self._tensorboard: Any = None
        self._wandb: Any = None

    def setup_tb(self, directory: str) -> None:
        """Add TensorBoard files in ``directory`` as a back end.

        Raises:
            MissingPackageError: TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingPackageError(f"use_tensorboard=True needs TensorBoard: {_INSTALL}") from error
        self._tensorboard = SummaryWriter(directory)

    def setup_wandb(
        self, config: dict[str, Any], team: str | None, project: str | None, mode: str, group: str | None = None
    ) -> None:
        """Add Weights & Biases as a back end; ``mode`` is ``offline`` or ``online``.

        Raises:
            MissingPackageError: Weights & Biases is not installed.
            ConfigError: a key has an impossible value.
        """
        try:
            import wandb
        except ImportError as error:
            raise MissingPackageError(f"use_wandb=True needs Weights & Biases: {_INSTALL}") from error
        if not team or not project:
            raise ConfigError("use_wandb=True needs wandb_team and wandb_project")
        if mode not in ("offline", "online"):
            raise ConfigError(f"wandb_mode is 'offline' or 'online', not '{mode}'")
        self._wandb = wandb.init(entity=team, project=project, config=config, mode=mode, group=group)  # type: ignore[arg-type]

    def setup_sacred(self, sacred_run: Any) -> None:
        """Add the Sacred run as a back end: its ``info`` lists and its metrics."""
        self._sacred_run = sacred_run

    def log_stat(self, key: str, value: Any, t: int, to_sacred: bool = True) -> None:
        """Log one number.

        Args:
            key: its name.
            value: a number, or a numpy or torch scalar (stored as a plain number).
            t: environment steps so far.
            to_sacred: whether Sacred gets it too.
        """
        value = value.item() if hasattr(value, "item") else value
        self.stats[key].append((t, value))
        if self._tensorboard is not None:
            self._tensorboard.add_scalar(key, value, t)
        if self._wandb is not None:
            self._wandb.log({key: value}, step=t)
        if to_sacred and self._sacred_run is not None:
            info = self._sacred_run.info
            info.setdefault(key, []).append(value)
            info.setdefault(f"{key}_T", []).append(t)
            self._sacred_run.log_scalar(key, value, t)

    def upload_models(self, path: str) -> None:
        """Upload a checkpoint folder to Weights & Biases, if that is a back end."""
        if self._wandb is not None:
            for file in sorted(Path(path).iterdir()):
                self._wandb.save(str(file), base_path=str(Path(path).parent))

    def print_recent_stats(self) -> None:
        """Print the mean of each number's last five entries.

        Raises:
            ValueError: no ``episode`` was logged.
        """
        if not self.stats["episode"]:
            raise ValueError("print_recent_stats needs a logged 'episode'")
        t, episode = self.stats["episode"][-1]
        cells = []
        for key, entries in sorted(self.stats.items()):
            if key == "episode" or not entries:
                continue
            recent = [value for _, value in entries[-5:]]
            number = f"{sum(recent) / len(recent):.4f}"
            cells.append(f"{key + ':':<25}{number:>8}")
        rows = ["   ".join(cells[start : start + 4]) for start in range(0, len(cells), 4)]
        self.console_logger.info("\n".join([f"Recent Stats | t_env: {t:>10} | Episode: {episode:>8}", *rows]))

    def finish(self) -> None:
        """Close TensorBoard and Weights & Biases."""
        if self._wandb is not None:
            self._wandb.finish()
        if self._tensorboard is not None:
            self._tensorboard.close()


def get_logger() -> logging.Logger:
    """Return the run's console logger; other libraries' loggers do not change."""
    logger = logging.getLogger("epymarl")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("[%(levelname)s %(asctime)s] %(name)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger
