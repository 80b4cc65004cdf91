"""What EPyMARL's loop leaves out, added from outside on either host.

The host's ``run`` and ``run_sequential`` are wrapped, not copied. Environments are built with the run's limits. A
worker that dies ends the run, the final weights are saved, and a user's mistake is one line instead of a traceback.
What the run's learner needs of that it says as a `Stage`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sacred.utils import SacredError

from kd_controllers.hetero_mac import HeteroMAC
from kd_core import checkpoints, files, stages
from kd_core.errors import UserError, nearest, of_path
from kd_core.host import Host
from kd_core.task import task_names
from kd_learners.stage import RunContext, Stage, StockAlgorithm
from kd_marl.evaluation import evaluator, result
from kd_marl.plugin import resuming, trackers, weights
from kd_marl.plugin.registries import captured, replaced
from kd_marl.processes.workers import workers_watched
from kd_marl.runs import lineage
from kd_runners import environments

_log = logging.getLogger(__name__)

# A checkout registers these when a learner of theirs is built.
_REGISTERED_LATE = frozenset({"pac_critic", "pac_critic_ns", "pac_dcg_critic_ns"})
# Parts of EPyMARL that the bundled runtime leaves to it.
_IN_A_CHECKOUT = _REGISTERED_LATE | {
    *("coma_learner", "qtran_learner", "actor_critic_learner", "maddpg_learner", "pac_learner", "pac_dcg_learner"),
    *("maddpg_mac", "rnn_feat", "coma_critic", "coma_critic_ns", "maddpg_critic", "maddpg_critic_ns"),
}


class OneLineError(SacredError):
    """A user's mistake as Sacred prints it: ``error: `` and the message, and exit status 1."""

    # Sacred prints the type's full name before the message.
    __module__ = "builtins"
    __qualname__ = "error"

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error), print_traceback=False, filter_traceback="always")


class _StageDone(Exception):  # noqa: N818  it is no error
    """Ends the host's loop: the stage has all that it wanted."""


def install(host: Host, line: str = "") -> None:
    """Wrap the host's ``run`` and ``run_sequential``.

    Args:
        host: the one to change.
        line: the command line that repeats the run, where the configuration has it without its seed.
    """
    sequential = host.run.run_sequential
    host.run.run_sequential = lambda args, logger: run_sequential(host, sequential, args, logger)
    # A checkout's main module holds its own reference to run.
    owner = host.main if callable(getattr(host.main, "run", None)) else host.run
    trackers.install(host)
    owner.run = _in_one_line(owner.run, (UserError, *host.plain_errors), line)


def _in_one_line(run: Callable[..., None], mistakes: tuple[type[Exception], ...], line: str) -> Callable[..., None]:
    def wrapped(_run: Any, _config: dict[str, Any], _log: Any) -> None:
        _config["command"] = line or _config["command"]
        _config["fingerprint"] = checkpoints.fingerprint(_config)
        # Reports are written into Sacred's record of this run.
        folders = [observer.dir for observer in _run.observers if getattr(observer, "dir", None)]
        _config["run_folder"] = folders[0] if folders else ""
        try:
            trackers.check(_config)
            run(_run, _config, _log)
        except mistakes as error:
            raise OneLineError(error) from None
        except OSError as error:
            if (refused := of_path(error)) is None:
                raise
            raise OneLineError(refused) from None
        except AttributeError as error:
            if not isinstance(error.obj, SimpleNamespace):
                raise
            # A configuration of the user's own may lack what the host reads.
            lacks = (
                f"the run reads {error.name}, which its configuration does not have: state it in the file of --config"
            )
            raise OneLineError(UserError(f"{lacks}, or begin that with 'base: NAME' of another algorithm")) from None

    return wrapped


def run_sequential(host: Host, original: Callable[..., None], args: Any, logger: Any) -> None:
    """Run the host's loop between our preparation and our end.

    Args:
        host: whose loop it is.
        original: the host's own ``run_sequential``.
        args: the run's namespace.
        logger: the host's.

    Raises:
        UserError: the run cannot be done as asked, or an environment's worker died.
    """
    _check_names(host, args)
    if len(task_names(args.map_name)) > 1 and not _stage_class(host, args).several_tasks:
        raise UserError(f"{args.name} is for one task, and {args.map_name} are several: only kd_student plays them all")
    context = _describe(host, args)
    if args.save_replay and args.env == "gymma":
        _log.warning("save_replay=True writes nothing: tasks of Gymnasium and PettingZoo have no replays")
    if args.checkpoint_path:
        # A checkout's loop would say so in its log and end as if it had run.
        resuming.saved_steps(args.checkpoint_path)
    stage_class = _stage_class(host, args)
    stage_class.check_keys(args, context)
    # The same command means another run once its teacher is another.
    again = (args.resume or args.evaluate) and stage_class.needs_teacher
    teacher = stages.teacher_weights(args) if again else ""
    if args.resume and not args.evaluate and resuming.go_on(args, logger, teacher):
        return
    if args.evaluate and stage_class.evaluates:
        resuming.choose_checkpoint(args, teacher)
    context = stage_class.prepare(args, context)
    _note_lineage(args, context)
    learner, runner = _loop(host, original, args, logger, context)
    if args.save_replay and args.checkpoint_path and not args.evaluate:
        # The host's loop has only played what it loaded.
        return
    stage = learner if isinstance(learner, Stage) else StockAlgorithm(learner, args, runner.t_env)
    folder = _finish(host, stage, learner, args, runner.t_env)
    _note_lineage(args, context, None if args.evaluate else folder)
    if (compared := stage.compared()) is not None:
        summary, counts = evaluator.evaluate(host, args, context, compared)
        stage.take_result(summary, folder)
        result.report(context.run_folder, summary, counts)
        if stage.evaluates:
            checkpoints.mark_reported(folder, args)


def _check_names(host: Host, args: Any) -> None:
    """Refuse a runner, controller, learner or other part that nobody has registered.

    Raises:
        UserError: the first such name, or a runner with which the controller cannot play.
    """
    registries = {"runner": host.runners, "mac": host.controllers, "learner": host.learners}
    registries |= {"action_selector": host.action_selectors}
    if args.learner in host.learners and _stage_class(host, args) is StockAlgorithm:
        registries |= {"agent": host.agents, "critic_type": host.critics}
    for kind, registry in registries.items():
        # Some algorithms have no critic, or a controller that selects actions itself.
        name = getattr(args, kind, None)
        if name is None or name in registry or (not host.is_bundled and name in _REGISTERED_LATE):
            continue
        has = "EPyMARL itself has it: set EPYMARL_HOME=/path/to/epymarl, or "
        elsewhere = has if host.is_bundled and name in _IN_A_CHECKOUT else ""
        raise UserError(f"{kind} '{name}' is not registered; {elsewhere}{nearest(name, registry)}")
    plays = inspect.signature(host.controllers[args.mac].select_actions).parameters
    if args.runner != "episode" and "bs" not in plays:
        raise UserError(f"mac '{args.mac}' plays one episode at a time: set runner=episode and batch_size_run=1")


def _describe(host: Host, args: Any) -> RunContext:
    """Ask the environment for its sizes, and say what limits the run."""
    task = environments.prepare(host, args)
    mask = environments.task_mask(args, task.facts)
    folder = Path(args.run_folder or args.local_results_path)
    return RunContext(task, mask, environments.is_limited(args), folder)


def _note_lineage(args: Any, context: RunContext, model: Path | None = None) -> None:
    """Write into the run's folder what it learns from and, at its end, the checkpoint that it has made."""
    if args.run_folder:
        teacher = context.teacher
        facts = {"path": str(teacher.folder), "sha256": teacher.sha256["agent.th"]} if teacher else None
        lineage.write(context.run_folder, lineage.stage(vars(args)), facts, context.buffer_folder, model)


def _stage_class(host: Host, args: Any) -> type[Stage]:
    learner = host.learners[args.learner]
    return learner if isinstance(learner, type) and issubclass(learner, Stage) else StockAlgorithm


def _loop(host: Host, original: Callable[..., None], args: Any, logger: Any, context: RunContext) -> tuple[Any, Any]:
    """Run the host's loop under the run's limits; returns its learner and runner."""
    masked = context.environment_mask if args.mask_at == "environment" else None
    learner_class: Any = host.learners[args.learner]
    mac_class: Any = host.controllers[args.mac]
    if _stage_class(host, args) is not StockAlgorithm:
        learner_class = functools.partial(learner_class, context=context)
    if isinstance(mac_class, type) and issubclass(mac_class, HeteroMAC):
        mac_class = functools.partial(mac_class, mask=context.mask)
    learners: list[Any] = []
    runners: list[Any] = []

    def end_when_done(runner: Any) -> None:
        play = runner.run

        def run(test_mode: bool = False) -> Any:
            if not test_mode and learners and getattr(learners[0], "done", False):
                raise _StageDone
            return play(test_mode=test_mode)

        runner.run = run

    with (
        replaced(host.envs, args.env, environments.Factory(host, args, masked)),
        replaced(host.controllers, args.mac, mac_class),
        replaced(host.learners, args.learner, learner_class),
        captured(host.learners, args.learner, learners, _keeps_weights_whole),
        captured(host.runners, args.runner, runners, end_when_done),
        workers_watched(),
    ):
        try:
            original(args, logger)
        except BaseException as end:
            for runner in runners:
                with contextlib.suppress(Exception):
                    runner.close_env()
            if isinstance(end, OSError) and end.errno in files.DISK_FULL:
                raise UserError(f"disk full ({end.filename or args.local_results_path}): free some space") from None
            if isinstance(end, ModuleNotFoundError) and not host.is_bundled:
                raise UserError(
                    f"{args.name} needs the package '{end.name}', which is not installed: pip install {end.name}"
                ) from None
            if not isinstance(end, _StageDone):
                raise
    return learners[0], runners[0]


def _finish(host: Host, stage: Stage, learner: Any, args: Any, t_env: int) -> Path | None:
    """End the training and save its final weights; returns the checkpoint that the result is of, if there is one."""
    if args.evaluate:
        return Path(args.checkpoint_path, str(args.load_step))
    stage.finish()
    # The bundled host saves the last weights of a stock algorithm itself.
    if args.save_model and (stage is learner or not host.is_bundled):
        return save(learner, args, t_env)
    return None


def save(learner: Any, args: Any, t_env: int) -> Path:
    """Write a learner's models where the host's loop writes them."""
    folder = Path(args.local_results_path) / "models" / args.unique_token / str(t_env)
    os.makedirs(folder, exist_ok=True)
    learner.save_models(str(folder))
    return folder


def _keeps_weights_whole(learner: Any) -> None:
    """Let a learner of the host write its weights whole or not at all, and refuse others' in one line, as ours do."""
    if not isinstance(learner, Stage):
        weights.saved_whole(learner)
    weights.loaded_in_one_line(learner)
