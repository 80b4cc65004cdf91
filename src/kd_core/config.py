"""EPyMARL's command line on either host: ``--config=ALG --env-config=ENV [with key=value ...]``.

The configuration is layered as EPyMARL layers it; later layers win. They are ``default.yaml``, the plug-in's own keys
(``config/kd_marl.yaml``), the environment's YAML and the algorithm's YAML. Then come what the latter has under
``per_env`` for the environment's ``env``, and Sacred's ``with`` updates. A name may be one of ours, one of the host's,
or a path to a YAML file.

An algorithm's YAML may state only how it differs from another: ``base: kd_student``. The base is a layer of its own
below it, its ``per_env`` included, so what a variant states holds in every environment. A stock algorithm under
``limits=lha`` gets one layer more, ``config/lha.yaml``: the controller with a width for each agent.
"""

from __future__ import annotations

import copy
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_core import constructors, keys, sacred_flags, yaml_text
from kd_core.errors import UserError, nearest
from kd_core.host import Host
from kd_core.places import CONFIG, CONFIG_NAME, PROGRAM

# The controller with a network of its own for each agent, and those of the hosts that it can stand in for.
OWN_NETWORKS, REPLACEABLE = "hetero_mac", ("basic_mac", "non_shared_mac")
# The environment's variable for the URL of a MongoDB server, password and all.
MONGO_URL = "KD_MARL_MONGO_URL"
# EPyMARL's algorithms that the bundled runtime does not have.
IN_A_CHECKOUT = frozenset(
    ["coma", "coma_ns", "ia2c", "ia2c_ns", "maa2c", "maa2c_ns", "maddpg", "maddpg_ns", "pac_ns", "pac_dcg_ns", "qtran"]
)
_NAMING = "add 'with env_args.key=...' (for example env_args.key=pz-mpe-simple-spread-v3) or env_args.map_name=..."

_PROGRAM = " ".join(PROGRAM)

USAGE = f"""usage: {_PROGRAM} --config=ALG --env-config=ENV [with key=value env_args.key=value ...]

  --config       kd_teacher, kd_export, kd_student or a variant of it ({CONFIG_NAME}/algs), a stock algorithm
                 (mappo, ippo, iql, vdn, qmix), or a YAML path
  --env-config   mpe, gymma, ..., or a YAML path
  with           any key of the YAML files ({CONFIG_NAME}/kd_marl.yaml lists the plug-in's own)

example: distil simple_spread's bundled teacher into students of width 32 that see what the paper's Table II lets them
  {_PROGRAM} --config=kd_student --env-config=mpe with env_args.key=pz-mpe-simple-spread-v3 limits=lh"""


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
        return self._line(self.sacred_arguments)

    @property
    def line_of_any_seed(self) -> str:
        """The same without its seed."""
        return self._line([word for word in self.sacred_arguments if not word.startswith("seed=")])

    def _line(self, arguments: Iterable[str]) -> str:
        flags = [f"--config={self.algorithm}", f"--env-config={self.environment}"]
        return shlex.join([*PROGRAM, *flags, *arguments])


def parse_command(arguments: list[str]) -> Command:
    """Split the plug-in's flags from Sacred's; ``--config X`` and ``--config=X`` are the same.

    Raises:
        UserError: a flag is missing, or has no value or an impossible one.
    """
    rest: list[str] = []
    tracking: list[str] = []
    flags = {"--config": "", "--env-config": ""}
    pending = iter(arguments)
    for argument in pending:
        name, equals, value = argument.partition("=")
        if name in flags:
            flags[name] = value if equals else next(pending, "")
        elif name in ("-m", "--mongo_db"):
            tracking = _tracking_keys(value if equals else next(pending, ""))
        elif name == "local_results_path":
            # Shells differ in whether they expand it here, and not everything that reads it does.
            rest.append(f"{name}={Path(value).expanduser() if value.startswith('~') else value}")
        else:
            rest.append(argument)
    for name, value in flags.items():
        if not value:
            raise UserError(f"{name} is missing: give {name}=NAME ({_PROGRAM} --help shows an example)")
    if tracking:
        # As keys: what a run records of itself repeats it, and the stages that it needs first are tracked alike.
        place = rest.index("with") + 1 if "with" in rest else len(rest)
        rest[place:place] = tracking if "with" in rest else ["with", *tracking]
    sacred_flags.check(rest)
    words, updates = _updates(rest)
    return Command(flags["--config"], flags["--env-config"], words, updates)


def _updates(words: list[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Read the ``key=value`` words after ``with``, among which Sacred's flags and files of values may stand.

    Returns:
        All words, with each file as ``key=value`` words in its place; and the values by key, typed ones winning.

    Raises:
        UserError: a word has no value and is no file of values, or such a file cannot be read.
    """
    start = words.index("with") + 1 if "with" in words else len(words)
    result, typed, of_files = words[:start], dict[str, str](), dict[str, str]()
    pending = iter(words[start:])
    for word in pending:
        key, equals, value = word.partition("=")
        if word.startswith("-") and word.strip("-"):
            result += [word, *([next(pending, "")] if word in sacred_flags.VALUED else [])]
        elif not key:
            raise UserError(f"'{word}' in 'with' has no key: write key=value without spaces, such as t_max=50")
        elif equals:
            typed[key] = value
            result.append(word)
        elif Path(word).is_file():
            of_files |= keys.as_typed(yaml_text.read_mapping(Path(word)))
        else:
            raise UserError(f"'{word}' in 'with' has no value: write key=value without spaces, such as t_max=50")
    # Sacred takes what is typed before what is in a file, wherever the two stand.
    of_files = {key: value for key, value in of_files.items() if key not in typed}
    result[start:start] = [f"{key}={value}" for key, value in of_files.items()]
    return tuple(result), {**of_files, **typed}


def _tracking_keys(specification: str) -> list[str]:
    """Write Sacred's ``[HOST:PORT:]DB`` as keys.

    Raises:
        UserError: it is nothing of the kind, or names a collection or a priority of Sacred's own observer.
    """
    found = re.fullmatch(r"(?:(?P<server>[\w.-]+:\d+)(?::|$))?(?P<database>[^:!.=]*)", specification)
    if not found or specification in ("", "with"):
        # Not shown: it may hold a password.
        raise UserError("-m (--mongo_db) takes HOST:PORT:DB or DB, such as localhost:27017:kd_marl")
    # Without a server Sacred means its own machine's.
    server = found["server"] or ("" if MONGO_URL in os.environ else "localhost:27017")
    keys = {"tracking": "mongo", "tracking_url": server, "tracking_db": found["database"]}
    return [f"{key}={value}" for key, value in keys.items() if value]


def assemble(host: Host, command: Command, naming: str = _NAMING) -> dict[str, Any]:
    """Build the merged configuration before Sacred's updates, with ``map_name`` set.

    Args:
        host: whose configurations these are.
        command: which of them, and its updates.
        naming: how this command's user names a task, for the message to one who has not.

    Raises:
        UserError: an unknown configuration name, an unreadable YAML file, a variant of nothing or with keys that its
            base does not have, a ``with`` key that no YAML file has, or ``limits=lha`` where it cannot be.
    """
    merge = host.merge
    config = yaml_text.read_mapping(host.config_path / "default.yaml")
    config = merge(config, yaml_text.read_mapping(CONFIG / "kd_marl.yaml"))
    path = _find_config(host, "envs", command.environment)
    config = merge(config, keys.conform(yaml_text.read_mapping(path), config, str(path)))
    if not config["env_args"]:
        raise UserError(f"{path} describes no environment: expected 'env: NAME' and, under 'env_args:', its arguments")
    for path, layer in _algorithm_layers(host, command.algorithm):
        by_environment = _section(layer.pop("per_env", {}), config["env"], str(path))
        layer = keys.conform(layer, config, str(path))
        by_environment = keys.conform(by_environment, config, f"{path}, per_env")
        if "base" in layer:
            _check_variant(path, layer, by_environment, config)
        config = merge(merge(config, layer), by_environment)
    config.pop("base", None)
    config.setdefault("name", path.stem)
    if "learner" not in config:
        raise UserError(f"{path} names no learner: expected 'base: NAME' of another algorithm, or all of its own keys")
    if not config.get("learner", "").startswith("kd_"):
        config = _own_networks(host, config, command)
    _take_constructor_arguments(config, command)
    updates = typed_updates(config, command)
    environment = config["env_args"]
    name = environment.get("map_name") or environment.get("key") or ""
    name = updates.get("env_args.map_name") or updates.get("env_args.key") or name
    if not name:
        raise UserError(f"--env-config={command.environment} needs the task: {naming}")
    config["map_name"] = name
    config["command"] = command.line
    return config


def typed_updates(config: dict[str, Any], command: Command) -> dict[str, Any]:
    """Read a command's ``key=value`` words as their keys take them.

    Args:
        config: the merged configuration below them.
        command: what was typed.

    Returns:
        Dotted key -> value.

    Raises:
        UserError: an unknown key, or a value that its key does not take.
    """
    defaults = dict(keys.flatten(config))
    for key in command.updates:
        _check_key(config, key)
        if deeper := next((name for name in defaults if name.startswith(f"{key}.")), ""):
            raise UserError(f"{key} is a group of keys: give them one by one, such as {deeper}=...")
    return {key: keys.kind_of(key, defaults.get(key)).read(key, value) for key, value in command.updates.items()}


def updated(host: Host, config: dict[str, Any], command: Command) -> dict[str, Any]:
    """Merge a command's ``key=value`` words into a copy of its configuration, as its run will do.

    Raises:
        UserError: an unknown key, or a value that its key does not take.
    """
    layer: dict[str, Any] = {}
    for key, value in typed_updates(config, command).items():
        keys.put(layer, key, value)
    merged: dict[str, Any] = host.merge(copy.deepcopy(config), layer)
    return merged


def sacred_words(command: Command, updates: Mapping[str, Any]) -> list[str]:
    """Return the arguments for Sacred.

    Args:
        command: what was typed.
        updates: of :func:`typed_updates`; each is written so that Sacred reads the same value.
    """
    words = list(command.sacred_arguments)
    start = words.index("with") + 1 if "with" in words else len(words)
    for index in range(start, len(words)):
        key, equals, _ = words[index].partition("=")
        if equals and key in updates and words[index - 1] not in sacred_flags.VALUED:
            words[index] = f"{key}={updates[key]!r}"
    return words


def task_key(host: Host, environment: str) -> str:
    """Return the key that names an environment's task: ``env_args.map_name`` if its YAML has it, else ``env_args.key``.

    Args:
        host: whose configurations are read.
        environment: as ``--env-config``.

    Raises:
        UserError: there is no such configuration.
    """
    env_args = yaml_text.read_mapping(_find_config(host, "envs", environment)).get("env_args") or {}
    return f"env_args.{'map_name' if 'map_name' in env_args else 'key'}"


def plugin_keys() -> frozenset[str]:
    """Return the keys that the plug-in adds to every run."""
    return frozenset(yaml_text.read_mapping(CONFIG / "kd_marl.yaml"))


def _section(sections: Any, environment: str, where: str) -> dict[str, Any]:
    """Return what a file has under ``per_env`` for an environment.

    Raises:
        UserError: that is no mapping of keys to values.
    """
    section = sections.get(environment, {}) if isinstance(sections, dict) else None
    if not isinstance(section, dict):
        raise UserError(f"{where}: per_env names environments, each with lines of the form 'key: value'")
    return section


def _algorithm_layers(host: Host, name: str) -> list[tuple[Path, dict[str, Any]]]:
    """Read an algorithm's YAML below its variants: each file with its content, the bases first."""
    layers: list[tuple[Path, dict[str, Any]]] = []
    wanted, asked_by = name, ""
    while wanted:
        path = _find_config(host, "algs", wanted, asked_by)
        if any(path == known for known, _ in layers):
            chain = " -> ".join(known.stem for known, _ in layers)
            raise UserError(f"{layers[-1][0]} has base: {wanted}, which is a circle ({chain}): give it another base")
        layer = yaml_text.read_mapping(path)
        layers.append((path, layer))
        wanted, asked_by = layer.get("base", ""), str(path)
        if not isinstance(wanted, str):
            raise UserError(f"{path} has base: {wanted!r}: expected the name of a configuration, such as kd_student")
    return layers[::-1]


def _check_variant(path: Path, layer: dict[str, Any], by_environment: dict[str, Any], config: dict[str, Any]) -> None:
    """Refuse a key that nothing below a variant has, which would do nothing, and name the variant's results."""
    layer.setdefault("name", path.stem)
    for key in (*layer, *by_environment):
        if key != "base" and key not in config:
            raise UserError(f"{path} states '{key}', which {layer['base']} does not have: {nearest(key, config)}")


def _own_networks(host: Host, config: dict[str, Any], command: Command) -> dict[str, Any]:
    """Build a stock algorithm's configuration, with ``config/lha.yaml`` if every agent is to have its own network.

    Raises:
        UserError: the algorithm's controller cannot be replaced, or the user asked for what does not go with it.
    """
    asked = {key: value for key, value in command.updates.items() if key in ("limits", "mac", "mask_at")}
    given = {key: keys.kind_of(key, config[key]).read(key, value) for key, value in asked.items()}
    limits, mac = given.get("limits", config["limits"]), given.get("mac", config["mac"])
    if given.get("mask_at", config["mask_at"]) == "controller":
        raise UserError(
            f"mask_at=controller is for students, whose controller hides: leave it out of --config={command.algorithm}"
        )
    if limits != "lha" and mac != OWN_NETWORKS:
        return config
    if "mac" in given and mac != OWN_NETWORKS:
        raise UserError(
            f"limits=lha gives every agent a network of its own width, which mac={mac} does not have: leave mac out, "
            "or use limits=lh"
        )
    if config["mac"] not in (*REPLACEABLE, OWN_NETWORKS):
        raise UserError(
            f"--config={command.algorithm} has a controller of its own ({config['mac']}), so limits=lha cannot give "
            f"every agent a width: use limits=lh, or an algorithm with {' or '.join(REPLACEABLE)}"
        )
    merge, layer = host.merge, yaml_text.read_mapping(CONFIG / "lha.yaml")
    # A YAML of the user's that names the controller itself may say more of what belongs to it.
    merged: dict[str, Any] = merge(layer, config) if config["mac"] == OWN_NETWORKS else merge(config, layer)
    return merged


def _find_config(host: Host, kind: str, name: str, asked_by: str = "") -> Path:
    """Find the YAML file that a name means; ``asked_by`` is the file whose ``base`` it is, if any."""
    folders = [CONFIG / kind, host.config_path / kind]
    candidates = [folder / f"{name}.yaml" for folder in folders]
    own = Path(name).suffix in (".yaml", ".yml")
    if os.sep in name or own:
        path = Path(asked_by).parent / Path(name).expanduser()
        candidates = [path if own else Path(f"{path}.yaml")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    plain = str(Path(name).with_suffix("")) if own else name
    if plain in IN_A_CHECKOUT and host.is_bundled:
        raise UserError(
            f"--config={plain} needs EPyMARL itself, which has more algorithms than the runtime of kd-marl: set "
            "EPYMARL_HOME=/path/to/epymarl"
        )
    known = [path.stem for folder in folders for path in folder.glob("*.yaml")]
    flag = "--config" if kind == "algs" else "--env-config"
    asked = f"{asked_by} has base: {name}" if asked_by else f"{flag}={name}"
    # A file of the user's own is given by its path, with its suffix.
    beside = [f"{plain}{suffix}" for suffix in (".yaml", ".yml")]
    found = [place for place in beside if (Path(asked_by).parent / Path(place).expanduser()).is_file()]
    hint = f"did you mean '{found[0]}'?" if found else nearest(Path(plain).name, known)
    raise UserError(f"{asked}: no such configuration; {hint}")


def _take_constructor_arguments(config: dict[str, Any], command: Command) -> None:
    """Add the arguments of the environment's own constructor that a command names to its configuration.

    Raises:
        UserError: the constructor has no such argument, and there is no such key.
    """
    if config["env"] != "gymma":
        return
    own = config["env_args"]
    named = [key.removeprefix("env_args.") for key in command.updates if key.startswith("env_args.")]
    unknown = [name for name in named if name not in own and "." not in name and name != "seed"]
    if not unknown:
        return
    key = str(command.updates.get("env_args.key") or own.get("key") or "")
    takes = constructors.arguments(key)
    for name in unknown:
        if takes is not None and name not in takes:
            has = f"; {key} itself takes {', '.join(sorted(takes))}" if takes else ""
            hint = nearest(f"env_args.{name}", [f"env_args.{valid}" for valid in (*own, *takes)])
            raise UserError(f"unknown key 'env_args.{name}' in 'with': {hint}{has}")
        own[name] = None


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
