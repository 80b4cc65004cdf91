"""Check that an algorithm can learn from individual rewards."""

from __future__ import annotations

from types import SimpleNamespace


def test_alg_config_supports_reward(args: SimpleNamespace) -> bool:
    """Tell whether the configured algorithm works with the configured kind of reward.

    A mixer and the centralised value functions of COMA and QTRAN need one reward for all agents.
    """
    if args.common_reward:
        return True
    if args.learner in ("coma_learner", "qtran_learner"):
        return False
    return not (args.learner == "q_learner" and getattr(args, "mixer", None) in ("vdn", "qmix"))


test_alg_config_supports_reward.__test__ = False  # type: ignore[attr-defined]  # its name looks like a test to pytest
