"""What EPyMARL's loop leaves out, added from outside on either host.

The host's ``run`` and ``run_sequential`` are wrapped, not copied: environments are built with the run's limits, a
worker that dies ends the run, the final weights are saved, and a user's mistake is one line instead of a traceback.

A learner of ours may have methods that EPyMARL does not know: ``check_keys(args)`` and ``prepare_run(args, obs_size)``,
static, before any environment starts; ``finish_run()`` once all steps are taken, before the final save;
``report_run(folder)`` after it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sacred.utils import SacredError

from kd_core import checkpoints, stages
from kd_core.errors import UserError, nearest
from kd_core.host import Host, get_host
from kd_runners import environments


class OneLineError(SacredError):
    """A user's mistake as Sacred prints it: ``error: `` and the message, and exit status 1."""

    # Sacred prints the type's full name before the message.
    __module__ = "builtins"
    __qualname__ = "error"

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error), print_traceback=False, filter_traceback="always")


def install(host: Host) -> None:
    """Wrap the host's ``run`` and ``run_sequential``."""
    sequential = host.run.run_sequential
    host.run.run_sequential = lambda args, logger: run_sequential(host, sequential, args, logger)
    # A checkout's main module holds its own reference to run.
    owner = host.main if callable(getattr(host.main, "run", None)) else host.run
    owner.run = _in_one_line(owner.run, (UserError, *host.plain_errors))


def _in_one_line(run: Callable[..., None], mistakes: tuple[type[Exception], ...]) -> Callable[..., None]:
    def wrapped(_run: Any, _config: dict[str, Any], _log: Any) -> None:
        _config["fingerprint"] = checkpoints.fingerprint(_config)
        # Reports are written beside what Sacred records of this run.
        folders = [observer.dir for observer in _run.observers if getattr(observer, "dir", None)]
        _config["run_folder"] = folders[0] if folders else ""
        try:
            run(_run, _config, _log)
        except mistakes as error:
            raise OneLineError(error) from None

    return wrapped


def run_sequential(host: Host, original: Callable[..., None], args: Any, logger: Any) -> None:
    """The host's loop between our preparation and our end."""
    registries = {"runner": host.runners, "mac": host.controllers, "learner": host.learners}
    for kind, registry in {**registries, "action_selector": host.action_selectors}.items():
        name = getattr(args, kind)
        if name not in registry:
            raise UserError(f"{kind} '{name}' is not registered; {nearest(name, registry)}")
    environments.check_installed(host, args)
    info = environments.probe(host, args)
    args.n_agents, args.n_actions, args.state_shape = info["n_agents"], info["n_actions"], info["state_shape"]
    args.env_episode_limit = info["episode_limit"]
    args.observation_mask = environments.task_mask(args, info)
    if args.checkpoint_path:
        # A checkout's loop would say so in its log and end as if it had run.
        _saved_steps(args.checkpoint_path)
    learner_class = host.learners[args.learner]
    if hasattr(learner_class, "check_keys"):
        learner_class.check_keys(args)
    if not args.evaluate and not hasattr(learner_class, "prepare_run"):
        _check_sizes(args)
    if args.final_evaluation and not hasattr(learner_class, "report_run"):
        _evaluation().check_episodes(args.eval_episodes)
    # The same command means another run once its teacher is another.
    again = (args.resume or args.evaluate) and hasattr(learner_class, "prepare_run")
    teacher = stages.teacher_weights(args) if again else ""
    if args.resume and not args.evaluate and _go_on(args, logger, teacher):
        return
    if args.evaluate and hasattr(learner_class, "report_run"):
        _choose_checkpoint(args, teacher)
    if hasattr(learner_class, "prepare_run"):
        learner_class.prepare_run(args, info["obs_shape"])
    limited = environments.is_limited(args)
    masked = limited and args.mask_at == "environment"
    followed = getattr(args, "imitation_gap_coef", 0.0) != 0.0
    if limited and not masked and not followed and not hasattr(learner_class, "prepare_run"):
        logger.console_logger.warning(
            "limits and masks say what students see; this teacher sees everything. To train one under them, which no "
            "student will take: mask_at=environment"
        )
    build = environments.Factory(host, args, masked)
    with (
        replaced(host.envs, args.env, build),
        captured(host.learners, args.learner, _loads_in_one_line) as learners,
        captured(host.runners, args.runner) as runners,
        workers_watched(),
    ):
        try:
            original(args, logger)
        except BaseException:
            for runner in runners:
                with contextlib.suppress(Exception):
                    runner.close_env()
            raise
    if args.save_replay and args.checkpoint_path and not args.evaluate:
        # The host's loop has only played what it loaded.
        return
    learner, runner = learners[0], runners[0]
    folder = Path(args.checkpoint_path, str(args.load_step)) if args.evaluate else None
    if not args.evaluate:
        if hasattr(learner, "finish_run"):
            learner.finish_run()
        if args.save_model and (hasattr(learner, "finish_run") or not host.is_bundled):
            folder = save(learner, args, runner.t_env)
    if hasattr(learner, "report_run"):
        learner.report_run(folder)
        checkpoints.mark_reported(folder, args)
    elif args.final_evaluation:
        evaluation = _evaluation()
        evaluation.report(args, evaluation.evaluate_alone(args, learner.mac, runner.t_env, masked=True))


def _evaluation() -> Any:
    # Imported late: it needs the host's packages, which a module of kd_marl must not load by itself.
    from kd_marl.evaluation import evaluator as evaluation

    return evaluation


def _go_on(args: Any, logger: Any, teacher: str) -> bool:
    """Point the host's own loading at the checkpoint to go on from; True if that run has already finished."""
    point = checkpoints.newest(args, _seed_asked_for(args), teacher)
    say = logger.console_logger.info
    if point is None:
        say("resume=True: nothing to go on from, starting from the beginning")
        return False
    if point.reported:
        say(f"resume=True: this run has finished already, its result is {point.folder}")
        return True
    _take_seed(args, point.seed)
    args.checkpoint_path, args.load_step = str(point.folder.parent), point.t_env
    # The run's curves are whole in the record that its result will lie in.
    for name, value, step in checkpoints.logged_before(args, point):
        logger.log_stat(name, value, step)
    if point.finished:
        say(f"resume=True: this run is trained, only its evaluation is left: {point.folder}")
        args.evaluate = True
        return False
    say(f"resume=True: going on from {point.folder}")
    # The environments and masks of the run's first episodes would otherwise come again.
    args.env_args["seed"] = (point.seed + point.t_env) % 2**31
    return False


def _seed_asked_for(args: Any) -> int | None:
    """The seed that the command line names; None if it names none and Sacred drew one."""
    return args.seed if any(word.startswith("seed=") for word in shlex.split(args.command)) else None


def _take_seed(args: Any, seed: int) -> None:
    """Make ``seed`` the run's, as the host's main module did with the one that the run was given."""
    if seed != args.seed:
        args.seed = args.env_args["seed"] = seed
        np.random.seed(seed)
        torch.manual_seed(seed)


def _saved_steps(folder: str) -> list[int]:
    """The steps that a folder of checkpoints has one of.

    Raises:
        UserError: it has none.
    """
    steps = [int(path.name) for path in Path(folder).glob("*") if path.name.isdigit()]
    if not steps:
        raise UserError(f"checkpoint_path={folder} holds no saved steps (folders such as 50000)")
    return steps


def _choose_checkpoint(args: Any, teacher: str) -> None:
    """``evaluate=True``: the step to load, and where no ``checkpoint_path`` is given, the newest of the same command.

    The checkpoint's seed is the run's, so that the result is known to be its own.

    Raises:
        UserError: there is none, or it is of another seed than the one asked for.
    """
    # The host's own evaluation comes first and cannot be skipped: the least that it can play.
    args.test_nepisode = 1
    if args.checkpoint_path:
        steps = _saved_steps(args.checkpoint_path)
        args.load_step = min(steps, key=lambda step: abs(step - (args.load_step or max(steps))))
        folder, asked = Path(args.checkpoint_path, str(args.load_step)), _seed_asked_for(args)
        if (folder / checkpoints.FACTS_FILE).is_file():
            seed = checkpoints.read_checkpoint(folder)["seed"]
            if asked not in (None, seed):
                raise UserError(f"{folder} was trained with seed={seed}, not {asked}: leave seed out")
            _take_seed(args, seed)
        return
    point = checkpoints.newest(args, _seed_asked_for(args), teacher)
    if point is None:
        raise UserError(
            "evaluate=True found no checkpoint of this configuration and teacher: "
            "give checkpoint_path=<folder with saved steps>"
        )
    _take_seed(args, point.seed)
    args.checkpoint_path, args.load_step = str(point.folder.parent), point.t_env


def save(learner: Any, args: Any, t_env: int) -> Path:
    """Write a learner's models where the host's loop writes them."""
    folder = Path(args.local_results_path) / "models" / args.unique_token / str(t_env)
    os.makedirs(folder, exist_ok=True)
    learner.save_models(str(folder))
    return folder


def _check_sizes(args: Any) -> None:
    """Refuse sizes with which the host's loop would run to its end and learn nothing, or not from what it played.

    Raises:
        UserError: minibatches, or blocks of episodes, are larger than the buffer.
    """
    for key, what in (("batch_size", "nothing would ever be learnt"), ("batch_size_run", "episodes would be lost")):
        if getattr(args, key) > args.buffer_size:
            raise UserError(
                f"{key} is {getattr(args, key)} and buffer_size {args.buffer_size}, so {what}: set buffer_size to at "
                f"least {getattr(args, key)}"
            )


def _loads_in_one_line(learner: Any) -> None:
    """Let a learner refuse weights of another network in one line, as ours do by themselves."""
    load = learner.load_models

    def checked(path: str) -> None:
        try:
            load(path)
        except UserError:
            raise
        except (RuntimeError, FileNotFoundError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"{path} holds no weights of this configuration ({reason}): give the keys of the run that saved them"
            ) from None

    learner.load_models = checked


@contextlib.contextmanager
def replaced(registry: dict[str, Any], key: str, entry: Any) -> Iterator[None]:
    """Within the block, ``registry[key]`` is ``entry``."""
    before = registry[key]
    registry[key] = entry
    try:
        yield
    finally:
        registry[key] = before


@contextlib.contextmanager
def captured(
    registry: dict[str, Any], key: str, change: Callable[[Any], None] = lambda made: None
) -> Iterator[list[Any]]:
    """Within the block, everything that ``registry[key]`` builds is changed and also put into the list."""
    build, built = registry[key], []

    def capture(*positional: Any, **named: Any) -> Any:
        built.append(build(*positional, **named))
        change(built[-1])
        return built[-1]

    with replaced(registry, key, capture):
        yield built


@contextlib.contextmanager
def workers_watched() -> Iterator[None]:
    """End the run when an environment worker dies: EPyMARL's parallel runner would wait for it for ever.

    A signal of our own, because only a real one ends the main thread's wait for a pipe.

    Raises:
        UserError: a worker died.
    """
    stop = threading.Event()
    dead: list[str] = []

    def watch() -> None:
        seen: set[Any] = set()
        while not stop.wait(0.5):
            seen.update(multiprocessing.active_children())
            dead.extend(f"{p.name} (exit code {p.exitcode})" for p in seen if p.exitcode not in (None, 0))
            if dead:
                # Let an error that the runner itself noticed come first.
                time.sleep(2.0)
                if not stop.is_set():
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                return

    def give_up(*_: Any) -> None:
        raise UserError(f"environment worker {dead[0]} died; its own error, if it had one, is printed above")

    before = signal.signal(signal.SIGUSR1, give_up)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except get_host().plain_errors as error:
        raise UserError(str(error)) from None
    finally:
        stop.set()
        signal.signal(signal.SIGUSR1, before)
