"""What a board leaves for one agent, and the widest network that fits it.

Costs are computed by formula, before anything is trained: bytes by `footprint`, FLOPs by `flops`. Time is FLOPs over
the rate at which the board gets through them. `boards` reads budgets from files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kd_core.costs.flops import closed_formula
from kd_core.costs.footprint import LEVELS, WEIGHTS, footprint, instructions_int8
from kd_core.errors import UserError

# Widths are multiples of 4: four floats fill a 128-bit vector register (NEON, SSE, Helium) and every row of weights
# starts at its boundary, so compiled loops leave no rest. A step of 8 would waste up to half of a small board's flash.
WIDTH_STEP = 4
# Beyond the width of the paper's teacher there is nothing to distil.
LARGEST_WIDTH = 256
# A GRU takes three exponentials a unit, which the count of FLOPs leaves out: what the C program spends on each.
GATES, EXPONENTIAL_FLOPS = 3, 16


@dataclass(frozen=True)
class Budget:
    """What one agent may take; None is no limit.

    Attributes:
        board: name of the board, or None for numbers of the user's own.
        flash_bytes: parameters and code.
        ram_bytes: state and stack.
        flops: FLOPs of a decision, multiply-adds counted as two.
        decision_us: microseconds of a decision.
        flops_per_second: what the board gets through in compiled C; needed where ``decision_us`` is.
        level: how the C is compiled, one of `footprint.LEVELS`.
        soft_float_bytes: of the compiler's arithmetic on a core without FPU; 0 with one.
        core: one of `footprint.CORES`, whose code is known best; None is any.
        weights: of the C, one of `footprint.WEIGHTS`. Int8 needs no float arithmetic.
        instructions_per_second: of the int8 form; with it, its time is not taken from ``flops_per_second``.
        weight_bytes_per_second: what the flash delivers to it.
    """

    board: str | None = None
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    flops: int | None = None
    decision_us: float | None = None
    flops_per_second: float | None = None
    level: str = LEVELS[0]
    soft_float_bytes: int = 0
    core: str | None = None
    weights: str = WEIGHTS[0]
    instructions_per_second: float | None = None
    weight_bytes_per_second: float | None = None

    def __post_init__(self) -> None:
        rate = self.flops_per_second or self.instructions_per_second
        assert self.decision_us is None or rate, "a time needs a rate"

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes, for JSON; those of the int8 form only where it is meant."""
        int8 = ("weights", "instructions_per_second", "weight_bytes_per_second")
        return {key: value for key, value in asdict(self).items() if self.weights == "int8" or key not in int8}

    def excess(
        self, inputs: int, width: int, n_actions: int, inbox: int = 0, outbox: int = 0, number_bits: int = 1
    ) -> list[str]:
        """List each limit that a network of these sizes breaks, and by how much; empty if it fits."""
        limits = {
            "flash_bytes": "bytes of flash",
            "ram_bytes": "bytes of RAM",
            "flops": "FLOPs a decision",
            "decision_us": "microseconds a decision",
        }
        costs = self.costs(inputs, width, n_actions, inbox, outbox, number_bits)
        return [
            f"{_number(costs[key])} {what}, {_number(costs[key] - limit)} more than its {_number(limit)}"
            for key, what in limits.items()
            if (limit := getattr(self, key)) is not None and costs[key] > limit
        ]

    def costs(
        self, inputs: int, width: int, n_actions: int, inbox: int = 0, outbox: int = 0, number_bits: int = 1
    ) -> dict[str, float]:
        """Return what a network of these sizes takes that hears and says so many numbers, by the name of each limit."""
        sizes = (inputs, width, n_actions)
        bytes_of = footprint(*sizes, self.level, self.core, self.weights, inbox, outbox)
        flops = closed_formula(*sizes, inbox=inbox, outbox=outbox, number_bits=number_bits)
        if self.weights == "int8" and self.instructions_per_second:
            seconds = instructions_int8(*sizes, self.level, self.core) / self.instructions_per_second
            seconds += bytes_of.weights / (self.weight_bytes_per_second or float("inf"))
        else:
            rate = self.flops_per_second or float("inf")
            seconds = (flops + GATES * EXPONENTIAL_FLOPS * width) / rate
        return {
            "flash_bytes": bytes_of.flash + (self.soft_float_bytes if self.weights == "float32" else 0),
            "ram_bytes": bytes_of.ram,
            "flops": flops,
            "decision_us": 1e6 * seconds,
        }

    def widest(
        self,
        inputs: int,
        n_actions: int,
        largest: int = LARGEST_WIDTH,
        inbox: int = 0,
        outbox: int = 0,
        number_bits: int = 1,
    ) -> int | None:
        """Find the widest network that fits, a multiple of `WIDTH_STEP` up to ``largest``; None if none does."""
        for width in range(largest - largest % WIDTH_STEP, 0, -WIDTH_STEP):
            if not self.excess(inputs, width, n_actions, inbox, outbox, number_bits):
                return width
        return None


def agent_budget(facts: Mapping[str, Any] | None) -> Budget | None:
    """Build a budget from `Budget.to_dict`."""
    return None if facts is None else Budget(**facts)


def fit_widths(
    budgets: Sequence[Budget],
    names: Sequence[str],
    inputs: Sequence[int],
    n_actions: int,
    largest: int = LARGEST_WIDTH,
    exchanged: Sequence[tuple[int, int, int]] | None = None,
) -> tuple[int, ...]:
    """Find the widest network for each agent.

    Args:
        budgets: one an agent.
        names: of the agents, for messages.
        inputs: how many features each sees.
        n_actions: size of the action space.
        largest: width beyond which none grows.
        exchanged: numbers that each agent hears and says a step, and the bits of each; None: a silent team.

    Raises:
        UserError: an agent fits at no width; says which limits stand in the way and by how much.
    """
    widths, silent = [], [(0, 0, 1)] * len(budgets)
    for i, (budget, name, count, bits) in enumerate(zip(budgets, names, inputs, exchanged or silent, strict=True)):
        width = budget.widest(count, n_actions, largest, *bits)
        if width is None:
            faults = " and ".join(budget.excess(count, WIDTH_STEP, n_actions, *bits))
            raise UserError(
                f"agent {i} ('{name}', {count} inputs, {n_actions} actions) does not fit {_place(budget)}: even "
                f"{WIDTH_STEP} wide it takes {faults}; give it a larger budget, or fewer features"
                + (" or bits" if any(bits[:2]) else "")
            )
        widths.append(width)
    return tuple(widths)


def check_widths(
    budgets: Sequence[Budget],
    names: Sequence[str],
    inputs: Sequence[int],
    widths: Sequence[int],
    n_actions: int,
    exchanged: Sequence[tuple[int, int, int]] | None = None,
) -> None:
    """Refuse widths that the user chose beside a budget and that do not fit it; arguments as for `fit_widths`.

    Raises:
        UserError: the first agent that does not fit.
    """
    sizes = zip(names, inputs, widths, exchanged or [(0, 0, 1)] * len(budgets), strict=True)
    for i, (budget, (name, count, width, bits)) in enumerate(zip(budgets, sizes, strict=True)):
        if faults := budget.excess(count, width, n_actions, *bits):
            raise UserError(
                f"agent {i} ('{name}') of width {width} does not fit {_place(budget)}: it takes "
                f"{' and '.join(faults)}; use widths=auto for the widest that fits"
            )


def _place(budget: Budget) -> str:
    return f"the board {budget.board}" if budget.board else "its budget"


def _number(value: float) -> str:
    """Write whole numbers whole, others rounded up to a tenth, so that an excess never reads 0."""
    return str(int(value)) if value == int(value) else f"{value + 0.05:.1f}"
