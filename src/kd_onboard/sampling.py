"""Drawn actions, with the numbers of the C program: the same seed and the same logits give the same action.

The random numbers are those of PCG32 (O'Neill, 2014). The weight of an action is e^-(how far its logit is below the
largest) times 2^30, in whole numbers, so that no library's exponential and no rounding decides.
"""

from __future__ import annotations

import numpy as np

from kd_onboard.errors import OnboardError

MOST_SEED = (1 << 64) - 1
_MULTIPLIER, _ONE, _TERMS = 6364136223846793005, 1 << 30, 9
# In parts of 2^26: ln 2, and how much is still told from nothing.
_PARTS, _LN2, _FARTHEST = 1 << 26, 46516320, 20.0


class Generator:
    """A generator of random numbers, as ``PREFIX_seed`` of the C program begins it."""

    def __init__(self, seed: int, stream: int = 0) -> None:
        """Seed it.

        Args:
            seed: from 0 to 2^64 - 1.
            stream: in the same range; streams of one seed differ, so give every agent and every robot another.

        Raises:
            OnboardError: one of them is no such number.
        """
        for name, value in (("seed", seed), ("stream", stream)):
            if type(value) is not int or not 0 <= value <= MOST_SEED:
                raise OnboardError(f"the {name} of a generator is {value!a:.40}, expected a whole number below 2^64")
        # Mixed, since close seeds and streams would begin alike.
        self._increment = _mixed(stream) | 1
        self._state = _mixed(seed + self._increment & MOST_SEED)

    def next(self) -> int:
        """Return the next number of 32 bits."""
        old = self._state
        self._state = old * _MULTIPLIER + self._increment & MOST_SEED
        mixed, turns = ((old >> 18 ^ old) >> 27) & 0xFFFFFFFF, old >> 59
        return (mixed >> turns | mixed << (32 - turns & 31)) & 0xFFFFFFFF


def _mixed(value: int) -> int:
    """Mix 64 bits, as SplitMix64 does (Steele, Lea and Flood, 2014)."""
    value = value + 0x9E3779B97F4A7C15 & MOST_SEED
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MOST_SEED
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MOST_SEED
    return value ^ value >> 31


def draw(logits: np.ndarray, available: np.ndarray, generator: Generator) -> int:
    """Draw an action by the softmax of the logits.

    Args:
        logits: float32 ``(actions,)``, finite.
        available: bool ``(actions,)``, at least one of them true.
        generator: where the randomness comes from.

    Returns:
        An available action.
    """
    actions = np.flatnonzero(available)
    with np.errstate(over="ignore"):
        below = (logits[actions].max() - logits[actions]).tolist()
    shift = weight_shift(len(logits))
    weights = [_weight(distance) >> shift for distance in below]
    drawn = generator.next() * sum(weights) >> 32
    return int(actions[np.searchsorted(np.cumsum(weights), drawn, side="right")])


def weight_shift(n_actions: int) -> int:
    """Return how many bits all weights lose, so that the sum over the actions has 32."""
    return max(0, n_actions.bit_length() - 2)


def _weight(below: float) -> int:
    if below >= _FARTHEST:
        return 0
    halvings, rest = divmod(int(below * _PARTS), _LN2)
    power = _ONE
    for term in range(_TERMS, 0, -1):
        power = _ONE - (rest * power >> 26) // term
    return power >> halvings
