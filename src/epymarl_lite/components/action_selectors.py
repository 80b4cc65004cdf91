"""Action selectors, which choose an action from an agent's action probabilities or action values."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Protocol

import torch as th

from epymarl_lite.components.epsilon_schedules import DecayThenFlatSchedule


class ActionSelector(Protocol):
    """Chooses actions; built as `Selector(args)`."""

    def __init__(self, args: SimpleNamespace) -> None: ...

    def select_action(
        self, agent_inputs: th.Tensor, avail_actions: th.Tensor, t_env: int, test_mode: bool = False
    ) -> th.Tensor:
        """Choose actions `(batch, agents)`, long, from agent outputs `(batch, agents, actions)`."""
        ...


def _sample(weights: th.Tensor) -> th.Tensor:
    """Draw one index per row of `(..., actions)` in proportion to non-negative weights: `(...)`, long."""
    rows = weights.reshape(-1, weights.shape[-1])
    return th.multinomial(rows, 1).reshape(weights.shape[:-1])


class SoftPoliciesSelector:
    """Samples the given probabilities, also in testing; they must be 0 for unavailable actions."""

    def __init__(self, args: SimpleNamespace) -> None:
        """Accept `args` and read nothing from it."""

    def select_action(
        self, agent_inputs: th.Tensor, avail_actions: th.Tensor, t_env: int, test_mode: bool = False
    ) -> th.Tensor:
        """Choose actions `(batch, agents)` from probabilities `(batch, agents, actions)`."""
        return _sample(agent_inputs)


class MultinomialActionSelector:
    """Samples the probabilities of the available actions; in testing, greedy if `test_greedy` is set."""

    def __init__(self, args: SimpleNamespace) -> None:
        """Read `test_greedy` (default True)."""
        self.test_greedy = getattr(args, "test_greedy", True)

    def select_action(
        self, agent_inputs: th.Tensor, avail_actions: th.Tensor, t_env: int, test_mode: bool = False
    ) -> th.Tensor:
        """Choose actions `(batch, agents)` from probabilities `(batch, agents, actions)`."""
        available = agent_inputs.masked_fill(avail_actions == 0, 0.0)
        if test_mode and self.test_greedy:
            return available.argmax(dim=-1)
        return _sample(available)


class EpsilonGreedyActionSelector:
    """Chooses the best available action, or with probability `epsilon` any available one."""

    def __init__(self, args: SimpleNamespace) -> None:
        """Read `epsilon_start`, `epsilon_finish`, `epsilon_anneal_time` (environment steps), `evaluation_epsilon`."""
        self.schedule = DecayThenFlatSchedule(
            args.epsilon_start, args.epsilon_finish, args.epsilon_anneal_time, decay="linear"
        )
        self.evaluation_epsilon = getattr(args, "evaluation_epsilon", 0.0)
        self.epsilon = self.schedule.eval(0)

    def select_action(
        self, agent_inputs: th.Tensor, avail_actions: th.Tensor, t_env: int, test_mode: bool = False
    ) -> th.Tensor:
        """Choose actions `(batch, agents)` from action values `(batch, agents, actions)`."""
        # The runner logs `epsilon`, so testing must not change it before the next training log.
        self.epsilon = self.schedule.eval(t_env)
        epsilon = self.evaluation_epsilon if test_mode else self.epsilon
        greedy = agent_inputs.masked_fill(avail_actions == 0, -float("inf")).argmax(dim=-1)
        # Both draws are made at every call, so the stream of random numbers does not depend on epsilon.
        explore = th.rand(greedy.shape, device=greedy.device) < epsilon
        return th.where(explore, _sample(avail_actions.float()), greedy)


REGISTRY: dict[str, type[ActionSelector]] = {
    "soft_policies": SoftPoliciesSelector,
    "multinomial": MultinomialActionSelector,
    "epsilon_greedy": EpsilonGreedyActionSelector,
}
