"""The command line and the Sacred experiment.

``python -m epymarl_lite.main --config=<algorithm> --env-config=<environment> [with key=value a.b=value ...]``
"""

from __future__ import annotations

import copy
import difflib
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
import yaml

from epymarl_lite import run as run_module
from epymarl_lite.utils.logging import get_logger
from epymarl_lite.utils.mappings import recursive_dict_update
from epymarl_lite.utils.sacred_import import import_sacred

import_sacred()
from sacred import SETTINGS, Experiment  # noqa: E402
from sacred.observers import FileStorageObserver  # noqa: E402
from sacred.utils import apply_backspaces_and_linefeeds  # noqa: E402

SETTINGS["CAPTURE_MODE"] = "fd"

CONFIG_FOLDER = Path(__file__).resolve().parent / "config"
results_path = str(Path(__file__).resolve().parents[2] / "results")

ex = Experiment("pymarl")
ex.logger = get_logger()  # type: ignore[assignment]  # sacred declares it None
ex.captured_out_filter = apply_backspaces_and_linefeeds  # type: ignore[assignment]


@ex.main
def my_main(_run: Any, _config: Mapping[str, Any], _log: logging.Logger) -> None:
    """Seed all random numbers and run."""
    config = config_copy(_config)
    np.random.seed(config["seed"])
    th.manual_seed(config["seed"])
    config["env_args"]["seed"] = config["seed"]
    run_module.run(_run, config, _log)


def config_copy(config: Any) -> Any:
    """Copy plain dicts and lists deeply, also from Sacred's read-only ones."""
    if isinstance(config, Mapping):
        return {key: config_copy(value) for key, value in config.items()}
    if isinstance(config, list):
        return [config_copy(value) for value in config]
    return copy.deepcopy(config)


def load_yaml(name: str, kind: str = "", folders: Sequence[Path] = (CONFIG_FOLDER,)) -> dict[str, Any]:
    """Read ``<folder>/<kind>/<name>.yaml`` from the first folder that has it.

    Args:
        name: the file's name without suffix, or its absolute path without suffix.
        kind: ``algs``, ``envs`` or nothing.
        folders: the folders to search, in this order.

    Raises:
        FileNotFoundError: no folder has the file.
    """
    for folder in folders:
        path = folder / kind / f"{name}.yaml"
        if path.is_file():
            with open(path, encoding="utf-8") as file:
                return yaml.safe_load(file) or {}
    names = sorted({path.stem for folder in folders for path in (folder / kind).glob("*.yaml")})
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else "valid: " + ", ".join(names)
    raise FileNotFoundError(f"no configuration '{name}' in config/{kind}: {hint}")


def take_flag(params: list[str], flag: str) -> str:
    """Remove the first ``<flag>=<value>`` from ``params`` and return its value.

    Raises:
        ValueError: the flag is missing, or has no equals sign.
    """
    for index, param in enumerate(params):
        if param.startswith(f"{flag}="):
            del params[index]
            return param.partition("=")[2]
        if param == flag:
            raise ValueError(f"write {flag}=<name> with an equals sign")
    raise ValueError(f"{flag}=<name> is missing: for example --config=mappo --env-config=gymma")


def load_config(params: list[str], folders: Sequence[Path] = (CONFIG_FOLDER,)) -> dict[str, Any]:
    """Merge default, environment and algorithm YAML, later ones winning; remove their two flags from ``params``."""
    config = load_yaml("default", folders=folders)
    env = load_yaml(take_flag(params, "--env-config"), "envs", folders)
    alg = load_yaml(take_flag(params, "--config"), "algs", folders)
    if base := alg.pop("base", None):
        alg = recursive_dict_update(load_yaml(base, "algs", folders), alg)
    return recursive_dict_update(recursive_dict_update(config, env), alg)


def map_name_of(config: Mapping[str, Any], params: Sequence[str]) -> str:
    """Return the map or environment key of a run, after the command line's updates."""
    updates = dict(param.split("=", 1) for param in params if "=" in param)
    for key in ("map_name", "key"):
        name = updates.get(f"env_args.{key}") or config["env_args"].get(key)
        if name:
            return str(name)
    return "None"


def main(argv: Sequence[str]) -> None:
    """Run the experiment of a command line; ``argv[0]`` is the program's name."""
    th.set_num_threads(1)
    params = list(argv)
    config = load_config(params)
    ex.add_config(config)
    folder = Path(results_path) / "sacred" / config["name"] / map_name_of(config, params)
    ex.observers.append(FileStorageObserver(str(folder)))
    ex.run_commandline(params)


if __name__ == "__main__":
    main(sys.argv)
