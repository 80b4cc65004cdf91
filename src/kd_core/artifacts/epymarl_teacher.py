"""A checkpoint of an EPyMARL algorithm as a teacher: its facts, reconstructed.

Policies are of `mappo`, `ippo`, `maa2c` or `ia2c`; `value_checkpoint.py` has what differs for `qmix`, `vdn` and `iql`.

EPyMARL saves weights only. Sizes come from the tensors' shapes, switches and task from the run's Sacred
`config.json`. The running statistics that give the critic's values their scale are in `moments.th`, which kd-marl adds
to the checkpoints that it saves. Without that file they are left open (None) and are estimated from the expert buffer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kd_core import files
from kd_core.artifacts import value_checkpoint
from kd_core.artifacts.teacher_weights import (
    AGENTS,
    MOMENTS_FILE,
    WEIGHT_FILES,
    StateDict,
    TeacherArtifact,
    load_moments,
    load_state,
    networks,
    weight_files,
)
from kd_core.errors import UserError

_SWITCHES = ("use_rnn", "obs_agent_id", "obs_last_action", "obs_individual_obs")
_NEEDED = ("name", "env_args", "agent", "critic_type", "gamma", *_SWITCHES)
_CRITICS = ("cv_critic", "ac_critic", "cv_critic_ns", "ac_critic_ns")


def load_epymarl_checkpoint(
    folder: Path, *, config: Path | str | None, n_agents: int | None, results_dirs: Iterable[Path | str] = ()
) -> TeacherArtifact:
    """Read the weights and reconstruct the facts of `teacher.json`.

    The run's config tells the kind of teacher: EPyMARL's PPO learner leaves a policy and a critic, its Q learner action
    values and perhaps a mixer.

    Args:
        folder: a checkpoint, usually `results/models/<token>/<steps>`.
        config: the `config.json` of its Sacred run; searched near `folder` if None.
        n_agents: number of agents of its task.
        results_dirs: further `results` folders whose Sacred runs are searched.

    Raises:
        UserError: files, config or the number of agents are missing, or they contradict each other.
    """
    agent_state = load_state(folder / WEIGHT_FILES[0])
    config_path = Path(config).expanduser() if config else find_config(folder, results_dirs)
    settings = files.read_json(config_path)
    if value_checkpoint.learnt_values(settings):
        critic_type = value_checkpoint.critic_of(folder, config_path, settings)
        sizes = value_checkpoint.sizes
    else:
        critic_type = _critic_of(folder, config_path, settings)
        sizes = _sizes
    names = weight_files(critic_type)
    critic_state = load_state(folder / names[1]) if len(names) > 1 else {}
    if n_agents is None and settings["agent"] == "rnn_ns":
        n_agents = networks(agent_state)
    if n_agents is None:
        raise UserError(f"{folder} is an EPyMARL checkpoint, which does not hold its number of agents: give n_agents")
    facts: dict[str, Any] = {
        "task": task_of(settings),
        "env": settings.get("env"),
        "layout": None,
        **sizes(folder, agent_state, critic_state, settings, n_agents),
        # Q learners do not read the individual observations beside the state, and may lack the key.
        **{key: bool(settings.get(key, False)) for key in _SWITCHES},
        "agent": settings["agent"],
        "critic_type": critic_type,
        "teacher_input": "obs",
        "gamma": settings["gamma"],
        "shaping": 0.0,
        "masked": False,
        # Of EPyMARL before it had these keys: what it did then.
        "common_reward": settings.get("common_reward", True),
        "reward_scalarisation": settings.get("reward_scalarisation", "sum"),
        "normalisers": _normalisers(folder, settings),
        "batch_size": settings.get("batch_size", 1),
        "host": "epymarl",
        "host_commit": None,
        "seed": settings.get("seed"),
        "steps": int(folder.name) if folder.name.isdigit() else None,
        "begun_with": None,
        "finished": True,
        "train_seconds": None,
        "tests": [],
        "command": None,
        "test": None,
        "sha256": {name: files.file_sha256(folder / name) for name in names},
    }
    unknown = [name for name, statistics in facts["normalisers"].items() if statistics is None]
    warnings: tuple[str, ...] = ()
    if unknown:
        warnings = (
            f"the EPyMARL checkpoint in {folder} has no {' and '.join(unknown)} statistics: "
            "they will be estimated from the expert buffer, so its advantages are approximate",
        )
    return TeacherArtifact(folder, facts, agent_state, critic_state, warnings)


def _critic_of(folder: Path, config_path: Path, settings: Mapping[str, Any]) -> str:
    """Return the `critic_type` of a PPO learner's run, after checking what its teacher needs.

    Raises:
        UserError: the config lacks a key, or names an agent or a critic that no teacher has.
    """
    if missing := [key for key in _NEEDED if key not in settings]:
        raise UserError(f"{config_path} is no config of an EPyMARL mappo or ippo run: it lacks {', '.join(missing)}")
    if settings["agent"] not in AGENTS or settings["critic_type"] not in _CRITICS:
        raise UserError(
            f"the checkpoint in {folder} has agent {settings['agent']} and critic {settings['critic_type']}: a teacher "
            f"needs agent {' or '.join(AGENTS)} and one of the critics {', '.join(_CRITICS)} (EPyMARL's mappo, ippo, "
            "maa2c or ia2c)"
        )
    return str(settings["critic_type"])


def task_of(settings: Mapping[str, Any]) -> str:
    """Name the task of a run's settings: the environment's map name or, without one, its key."""
    env_args = settings["env_args"]
    task = env_args.get("map_name") or env_args.get("key")
    if not task:
        raise UserError("the Sacred config names no task: expected env_args.map_name or env_args.key in it")
    return str(task)


def find_config(folder: Path, results_dirs: Iterable[Path | str] = ()) -> Path:
    """Find the Sacred `config.json` of the run that wrote `folder`.

    EPyMARL names models `<name>_seed<seed>_<map_name>_<date>` and Sacred runs `sacred/<name>/<map_name>/<id>`. Runs
    repeated with the same name, seed and map are told apart only if they differ in what a teacher needs.

    Raises:
        UserError: none matches, or several that differ.
    """
    resolved = folder.resolve()
    token = resolved.parent.name if resolved.name.isdigit() else resolved.name
    tops = [*resolved.parents, *(parent / "results" for parent in resolved.parents), *map(Path, results_dirs)]
    matches: dict[str, Path] = {}
    for top in dict.fromkeys(tops):
        for path in sorted((top / "sacred").glob("*/*/*/config.json")):
            settings = _readable_settings(path)
            if settings is not None and token.startswith(_token_prefix(settings)):
                matches[repr([settings.get(key) for key in (*_NEEDED, *_VALUES, *_STATISTICS)])] = path
    advice = "give teacher_config=<path of the run's config.json>"
    if not matches:
        raise UserError(f"{folder} has no teacher.json and no Sacred config near it matches {token!r}: {advice}")
    if len(matches) > 1:
        several = " and ".join(str(path) for path in matches.values())
        raise UserError(f"several Sacred runs match {token!r} and they differ ({several}): {advice}")
    return next(iter(matches.values()))


_STATISTICS = ("standardise_rewards", "standardise_returns")
_VALUES = ("learner", "mixer")


def _readable_settings(path: Path) -> dict[str, Any] | None:
    """Read a run's settings; None for a file that is damaged or of another program."""
    try:
        settings = files.read_json(path)
    except UserError:
        return None
    return settings if {"name", "seed", "env_args"} <= settings.keys() else None


def _token_prefix(settings: Mapping[str, Any]) -> str:
    """Build the beginning of the name of a run's model folder."""
    env_args = settings["env_args"]
    task = env_args.get("map_name") or env_args.get("key")
    return f"{settings['name']}_seed{settings['seed']}_{task}_"


def _normalisers(folder: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, list[float]] | None]:
    """Return mean 0 and deviation 1 where the run did not standardise, else what was saved; None: nothing was."""
    plain: dict[str, list[float]] = {"mean": [0.0], "std": [1.0]}
    saved = load_moments(folder / MOMENTS_FILE)
    return {
        "reward": saved.get("rew_ms") if settings.get("standardise_rewards", True) else plain,
        "value": saved.get("ret_ms") if settings.get("standardise_returns", False) else plain,
    }


def _sizes(
    folder: Path, agent: StateDict, critic: StateDict, settings: Mapping[str, Any], n_agents: int
) -> dict[str, int | None]:
    """Derive sizes from the first and last layers: inputs are observation, last action and agent id, in this order."""
    own_agents, own_critics = settings["agent"] == "rnn_ns", settings["critic_type"].endswith("_ns")
    actor, valuer = "agents.0." * own_agents, "critics.0." * own_critics
    try:
        hidden_dim, agent_input = agent[f"{actor}fc1.weight"].shape
        n_actions = agent[f"{actor}fc2.weight"].shape[0]
        critic_input = critic[f"{valuer}fc1.weight"].shape[1]
    except KeyError as error:
        raise UserError(f"{folder} holds no EPyMARL rnn agent and critic: the tensor {error} is missing") from error
    last_action = n_actions if settings["obs_last_action"] else 0
    identity = 0 if own_critics else n_agents
    obs_size = agent_input - last_action - (n_agents if settings["obs_agent_id"] else 0)
    state_size: int | None = None
    if settings["critic_type"].startswith("cv_"):
        individual = n_agents * obs_size if settings["obs_individual_obs"] else 0
        state_size = critic_input - individual - n_agents * last_action - identity
        consistent = state_size > 0
    else:
        consistent = critic_input == obs_size + identity
    each = [networks(agent)] * own_agents + [networks(critic)] * own_critics
    if obs_size <= 0 or not consistent or any(count != n_agents for count in each):
        raise UserError(
            f"the shapes in {folder} do not fit {n_agents} agents and the switches of its config: "
            "was it trained on another task or with another config?"
        )
    return {
        "obs_size": obs_size,
        "state_size": state_size,
        "n_agents": n_agents,
        "n_actions": n_actions,
        "hidden_dim": hidden_dim,
    }
