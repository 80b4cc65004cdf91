"""Stage 1's keys, with their checks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kd_core.errors import UserError


@dataclass(frozen=True)
class TeacherSettings:
    """Stage 1's keys of ``kd_teacher.yaml``, where each is explained.

    Raises:
        UserError: the first key with an impossible value.
    """

    lr: float
    critic_lr: float
    lr_final_share: float
    optim_eps: float
    epochs: int
    minibatches: int
    chunk_length: int
    gamma: float
    gae_lambda: float
    eps_clip: float
    entropy_coef: float
    imitation_gap_coef: float
    follower_width: int
    follower_lr: float
    shaping: float
    grad_norm_clip: float
    patience: float
    t_max: int
    autocast: str
    torch_threads: int

    def __post_init__(self) -> None:
        if self.autocast not in ("none", "bfloat16", "auto"):
            raise UserError(f"autocast is '{self.autocast}': choose none, bfloat16 or auto")

    @property
    def half_precision(self) -> bool:
        """Whether to compute in bfloat16."""
        return self.autocast == "bfloat16" or (self.autocast == "auto" and multiplies_bfloat16())


def multiplies_bfloat16() -> bool:
    """Tell whether this CPU has instructions that multiply bfloat16 matrices; without them float32 is faster."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(flags & {"amx_bf16", "avx512_bf16"})
