"""A stage of the pipeline: the interface of our learners to the code that wraps EPyMARL's loop.

EPyMARL asks a learner for ``train``, ``cuda``, ``save_models`` and ``load_models``. `Stage` adds what happens before
the first environment starts and after the last step. Stock algorithms take part through `StockAlgorithm`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kd_core.artifacts.teacher import TeacherArtifact
from kd_core.errors import UserError
from kd_core.task import Task
from kd_envs.hetero_mask.mask import ObservationMask
from kd_learners.frozen_teacher import FrozenTeacher


@dataclass(frozen=True)
class RunContext:
    """The facts of a run that are known before its first environment starts.

    Attributes:
        task: the task's name and sizes.
        mask: the features that each agent sees.
        limited: whether some agent sees less than everything.
        run_folder: the folder of the run's results.
        teacher: the teacher that the stage learns from or plays; None where it needs no teacher.
        buffer_folder: of the expert buffer that the stage reads or writes; None where it does neither.
        more_teachers: those that label beside ``teacher``, which the student is compared with.
        more_buffers: their expert buffers.
    """

    task: Task
    mask: ObservationMask
    limited: bool
    run_folder: Path
    teacher: TeacherArtifact | None = None
    buffer_folder: Path | None = None
    more_teachers: tuple[TeacherArtifact, ...] = ()
    more_buffers: tuple[Path, ...] = ()

    @property
    def environment_mask(self) -> ObservationMask | None:
        """The mask that an environment applies, or None where the run is not limited."""
        return self.mask if self.limited else None


@dataclass(frozen=True)
class Compared:
    """The policies that a finished stage wants evaluated.

    Attributes:
        mac: the trained controller, the host's or ours.
        teacher: compared with a student, beside random play; None: the policy is evaluated alone.
        masked: whether a policy that is evaluated alone plays under the run's limits.
        steps: environment steps that it was trained for.
        more_teachers: those of the further tasks of a run on several, ``teacher`` being that of the first.
    """

    mac: Any
    steps: int
    teacher: FrozenTeacher | None = None
    masked: bool = True
    more_teachers: Sequence[FrozenTeacher] = ()


class Stage:
    """Default answers to the calls of the wrapped loop; a learner overrides those in which it differs.

    Attributes:
        needs_teacher: whether `prepare` locates a teacher; then the teacher is part of the run's identity.
        several_tasks: whether a run on several tasks has this stage.
        evaluates: whether the stage ends with a result of its own, which ``evaluate=True`` computes again.
        done: whether the stage needs no more steps before ``t_max``: the loop ends at the next block.
    """

    needs_teacher: ClassVar[bool] = False
    several_tasks: ClassVar[bool] = False
    evaluates: ClassVar[bool] = False
    done: bool = False

    @classmethod
    def check_keys(cls, args: Any, context: RunContext) -> None:
        """Refuse a run that this stage cannot do, before anything is built for it.

        Raises:
            UserError: the first key with an impossible value.
        """

    @classmethod
    def prepare(cls, args: Any, context: RunContext) -> RunContext:
        """Locate what the stage needs, or have it made, and return the context with it.

        Raises:
            UserError: something that the stage needs is missing or does not fit.
        """
        return context

    def finish(self) -> None:
        """End the training: called once after the last step, before the final save."""

    def compared(self) -> Compared | None:
        """Name the policies to evaluate at the end, or None where nothing is evaluated."""
        return None

    def take_result(self, summary: dict[str, Any], folder: Path | None) -> None:
        """Use the result of the evaluation.

        Args:
            summary: the content of ``summary.json``.
            folder: the final checkpoint; None where nothing was saved.
        """


class StockAlgorithm(Stage):
    """A learner of the host, which is evaluated if ``final_evaluation=True`` asks for it.

    Args:
        learner: the host's.
        args: the run's namespace.
        steps: environment steps that it was trained for.
    """

    def __init__(self, learner: Any, args: Any, steps: int) -> None:
        self._learner, self._args, self._steps = learner, args, steps

    @classmethod
    def check_keys(cls, args: Any, context: RunContext) -> None:
        """Refuse sizes with which the host's loop would learn nothing, or not from all that it played.

        Raises:
            UserError: the first key with an impossible value.
        """
        check_sizes(args)

    def compared(self) -> Compared | None:
        """Name the algorithm's own policy, under the run's limits."""
        return Compared(self._learner.mac, self._steps) if self._args.final_evaluation else None


def check_sizes(args: Any) -> None:
    """Refuse sizes with which the host's loop would learn nothing, or lose episodes that it played.

    Raises:
        UserError: minibatches, or blocks of episodes, are larger than the buffer.
    """
    if args.evaluate:
        return
    for key, what in (("batch_size", "nothing would ever be learnt"), ("batch_size_run", "episodes would be lost")):
        if getattr(args, key) > args.buffer_size:
            raise UserError(
                f"{key} is {getattr(args, key)} and buffer_size {args.buffer_size}, so {what}: set buffer_size to at "
                f"least {getattr(args, key)}"
            )
