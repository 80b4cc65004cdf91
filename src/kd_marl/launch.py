"""EPyMARL's command line on either host: ``--config=ALG --env-config=ENV [with key=value ...]``.

The configuration is layered as EPyMARL layers it, later wins: ``default.yaml``, the plug-in's own keys
(``config/kd_marl.yaml``), the environment's YAML, the algorithm's YAML, what that has under ``per_env`` for the
environment's ``env``, then Sacred's ``with`` updates. A name may be one of ours, one of the host's, or a path to a YAML
file.
"""

from __future__ import annotations

import copy
import logging
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kd_marl.errors import UserError, nearest
from kd_marl.host import SOURCE_ROOT, Host

PLUGIN_CONFIG = SOURCE_ROOT / "config"

USAGE = """usage: python src/main.py --config=ALG --env-config=ENV [with key=value env_args.key=value ...]

  --config       kd_teacher, kd_export, kd_student, a stock algorithm (mappo, ippo, iql, vdn, qmix), or a YAML path
  --env-config   mpe, gymma, ..., or a YAML path
  with           any key of the YAML files (src/config/kd_marl.yaml lists the plug-in's own)

example: distil simple_spread's bundled teacher into students of width 32 that see what the paper's Table II lets them
  python src/main.py --config=kd_student --env-config=mpe with env_args.key=pz-mpe-simple-spread-v3 limits=lh"""


@dataclass(frozen=True)
class Command:
    """A parsed command line: which YAML files, and the rest for Sacred."""

    algorithm: str
    environment: str
    sacred_arguments: tuple[str, ...]
    updates: dict[str, str] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The command line that repeats this run."""
        flags = [f"--config={self.algorithm}", f"--env-config={self.environment}"]
        return shlex.join(["python", "src/main.py", *flags, *self.sacred_arguments])


def parse_command(arguments: list[str]) -> Command:
    """Split the plug-in's flags from Sacred's; ``--config X`` and ``--config=X`` are the same.

    Raises:
        UserError: a flag is missing or has no value.
    """
    rest: list[str] = []
    flags = {"--config": "", "--env-config": ""}
    pending = iter(arguments)
    for argument in pending:
        name, equals, value = argument.partition("=")
        if name in flags:
            flags[name] = value if equals else next(pending, "")
        elif name == "masks" and value.startswith("{"):
            # As text: Sacred would take a dictionary for nested keys, of which masks has none.
            rest.append(f"masks={value!r}")
        else:
            rest.append(argument)
    for name, value in flags.items():
        if not value:
            raise UserError(f"{name} is missing: give {name}=NAME (python src/main.py --help shows an example)")
    words = rest[rest.index("with") + 1 :] if "with" in rest else []
    updates = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith("-"))
    return Command(flags["--config"], flags["--env-config"], tuple(rest), updates)


def assemble(host: Host, command: Command) -> dict[str, Any]:
    """The merged configuration before Sacred's updates, with ``map_name`` set.

    Raises:
        UserError: an unknown configuration name, an unreadable YAML file, or a ``with`` key that no YAML file has.
    """
    merge = host.main.recursive_dict_update
    config = _read_yaml(host.config_path / "default.yaml")
    config = merge(config, _read_yaml(PLUGIN_CONFIG / "kd_marl.yaml"))
    config = merge(config, _find_config(host, "envs", command.environment))
    config = merge(config, _find_config(host, "algs", command.algorithm))
    config = merge(config, config.pop("per_env", {}).get(config["env"], {}))
    for key in command.updates:
        _check_key(config, key)
    environment = config["env_args"]
    name = environment.get("map_name") or environment.get("key") or ""
    name = command.updates.get("env_args.map_name") or command.updates.get("env_args.key") or name
    if not name:
        raise UserError(
            f"--env-config={command.environment} needs the task: add 'with env_args.key=...' "
            "(for example env_args.key=pz-mpe-simple-spread-v3) or env_args.map_name=..."
        )
    config["map_name"] = name
    config["command"] = command.line
    return config


def plugin_keys() -> frozenset[str]:
    """The keys that the plug-in adds to every run."""
    return frozenset(_read_yaml(PLUGIN_CONFIG / "kd_marl.yaml"))


def execute(host: Host, command: Command, config: dict[str, Any]) -> None:
    """Hand the configuration to the host's Sacred experiment and run it (exits with status 1 when the run fails)."""
    from kd_marl.run_record import RunRecord

    _set_up_logging()
    experiment = host.main.ex
    experiment.add_config(copy.deepcopy(config))
    local = command.updates.get("local_results_path")
    results = Path(local).expanduser().absolute() if local else host.results_path
    folder = results / "sacred" / config["name"] / config["map_name"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write results to {folder} ({error.strerror or error}): give another local_results_path"
        ) from None
    experiment.observers.append(RunRecord(str(folder)))
    experiment.run_commandline(["src/main.py", *command.sacred_arguments])


def _set_up_logging() -> None:
    """Show what the plug-in says beside the host, and hush the libraries that a checkout's DEBUG level wakes."""
    for noisy in ("git", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    ours = logging.getLogger("kd_marl")
    if not ours.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("[%(levelname)s %(asctime)s] %(name)s %(message)s", "%H:%M:%S"))
        ours.addHandler(handler)
        ours.propagate = False
        ours.setLevel(logging.INFO)


def _find_config(host: Host, kind: str, name: str) -> dict[str, Any]:
    folders = [PLUGIN_CONFIG / kind, host.config_path / kind]
    candidates = [folder / f"{name}.yaml" for folder in folders]
    if os.sep in name:
        path = Path(name).expanduser()
        candidates = [path if path.suffix == ".yaml" else path.with_name(path.name + ".yaml")]
    for candidate in candidates:
        if candidate.is_file():
            return _read_yaml(candidate)
    known = [path.stem for folder in folders for path in folder.glob("*.yaml")]
    flag = "--config" if kind == "algs" else "--env-config"
    raise UserError(f"{flag}={name}: no such configuration; {nearest(name, known)}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is no valid YAML ({reason}): correct the file") from None


def _check_key(config: dict[str, Any], key: str) -> None:
    """Refuse an unknown ``with`` key before Sacred does, with the nearest valid ones."""
    level: Any = config
    for depth, part in enumerate(key.split(".")):
        if key == "seed" or (depth and level is None):
            return
        if not isinstance(level, dict) or part not in level:
            prefix = ".".join(key.split(".")[:depth])
            valid = [f"{prefix}.{name}" if prefix else name for name in level] if isinstance(level, dict) else []
            raise UserError(f"unknown key '{key}' in 'with': {nearest(key, [*valid, 'seed'])}")
        # A dictionary that is empty in the YAML (masks: {}) is the user's to fill.
        level = None if level[part] == {} else level[part]
