"""Stage 2's keys: their values, and what a run of them is refused for before anything is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kd_controllers.hetero_mac import HeteroMAC, student_widths
from kd_controllers.messages import read_messages
from kd_controllers.student_net import check_sharing
from kd_controllers.student_registry import check_agent
from kd_core import stages
from kd_core.errors import UserError
from kd_core.host import get_host
from kd_learners import objective, roles
from kd_learners.comparators import PERSONAL_ONLY, asks_for_personal
from kd_learners.exporter import ExportSettings
from kd_learners.panel import check_several
from kd_learners.settings import check_acting, check_blocks, check_entropy, read_settings
from kd_learners.stage import RunContext

SOURCES = ("expert", "student", "mixed")
DECAYS = ("linear", "geometric")
# Of the C that the students finish for.
QUANTISED = ("int8",)
# Whose an advantage is: the team's, one for all its agents, or each agent's own.
ADVANTAGES = ("shared", "credit")


@dataclass(frozen=True)
class StudentSettings:
    """Stage 2's keys of ``kd_student.yaml``, where each is explained.

    Raises:
        UserError: the first key with an impossible value.
    """

    lr: float
    lr_final_share: float
    distillation_final_share: float
    decay: str
    quantise: str | None
    quantise_share: float
    updates_per_train: int
    minibatch_episodes: int
    distill_on: str
    student_share: float
    student_episodes: int
    gamma: float | None
    gae_lambda: float
    advantage: str
    grad_norm_clip: float
    role_init: str
    n_roles: int
    t_max: int

    def __post_init__(self) -> None:
        if self.distill_on not in SOURCES:
            raise UserError(f"distill_on is '{self.distill_on}': choose one of {', '.join(SOURCES)}")
        if self.advantage not in ADVANTAGES:
            raise UserError(f"advantage is '{self.advantage}': choose one of {', '.join(ADVANTAGES)}")
        if self.quantise not in (None, *QUANTISED):
            raise UserError(f"quantise is '{self.quantise}': choose null or {', '.join(QUANTISED)}")
        if self.role_init not in roles.ROLE_INITS:
            raise UserError(f"role_init is '{self.role_init}': choose one of {', '.join(roles.ROLE_INITS)}")
        if self.decay not in DECAYS:
            raise UserError(f"decay is '{self.decay}': choose one of {', '.join(DECAYS)}")
        one_sided = self.student_episodes_of_a_minibatch in (0, self.minibatch_episodes)
        if self.distill_on == "mixed" and one_sided and 0.0 < self.student_share < 1.0:
            raise UserError(
                f"student_share={self.student_share} of minibatch_episodes={self.minibatch_episodes} is, rounded, "
                f"{self.student_episodes_of_a_minibatch}: choose another share or more episodes"
            )
        if self.decay == "geometric" and min(self.lr_final_share, self.distillation_final_share) <= 0.0:
            raise UserError(
                "decay=geometric never reaches 0: set lr_final_share and distillation_final_share to more than that"
            )

    @property
    def student_episodes_of_a_minibatch(self) -> int:
        """How many episodes of a minibatch are the student's own."""
        share = {"expert": 0.0, "student": 1.0, "mixed": self.student_share}[self.distill_on]
        return round(share * self.minibatch_episodes)

    def share_left(self, final_share: float, t_env: int) -> float:
        """Compute the share left after ``t_env`` steps of a value that decays to ``final_share`` at ``t_max``."""
        done = min(1.0, t_env / self.t_max)
        return final_share**done if self.decay == "geometric" else 1.0 + (final_share - 1.0) * done


def check_keys(args: Any, context: RunContext) -> None:
    """Refuse a run that stage 2 cannot do, before anything is built for it: building may take minutes.

    Raises:
        UserError: the first key with an impossible value.
    """
    controller = get_host().controllers[args.mac]
    if not (isinstance(controller, type) and issubclass(controller, HeteroMAC)) or args.mask_at != "controller":
        raise UserError("kd_mappo_student needs mac=hetero_mac and mask_at=controller: the teacher must see it all")
    check_blocks(args)
    check_acting(args)
    check_entropy(args.teacher_entropy)
    settings = read_settings(StudentSettings, args)
    terms = read_settings(objective.ObjectiveSettings, args)
    read_settings(ExportSettings, args)
    if stages.several(args) or len(context.task.parts) > 1:
        check_several(args, terms, [part.name for part in context.task.parts])
    student_widths(args, context.mask)
    check_agent(args)
    if settings.quantise and (args.agent != "rnn" or args.message_bits):
        raise UserError(
            "quantise=int8 is for the students that C is written of: set agent=rnn and message_bits=0, or quantise=null"
        )
    read_messages(args, context.mask.layout.agent_names)
    if args.adapt_from and args.agent != "rnn":
        raise UserError(f"only agent=rnn begins with another student, not {args.agent}: leave adapt_from out")
    if asks_for_personal(terms) and args.agent != "personal_rnn":
        raise UserError(PERSONAL_ONLY)
    check_sharing(args.sharing)
