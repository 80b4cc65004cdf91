"""Arguments of an environment's own constructor are taken as env_args; others are refused with its real ones."""

from __future__ import annotations

import gymnasium
import pytest

from kd_core.config import assemble, parse_command, updated
from kd_core.constructors import arguments
from kd_core.errors import UserError
from kd_core.host import get_host

SPREAD = "pz-mpe-simple-spread-v3"


class Any3(gymnasium.Env):
    def __init__(self, size, **others): ...


gymnasium.register("ConstructorsAny-v0", entry_point=Any3)
gymnasium.register("ConstructorsTwo-v0", entry_point=lambda size, speed=1.0: None)


def configuration(*words):
    command = parse_command(["--config=qmix", "--env-config=mpe", "with", *words])
    return updated(get_host(), assemble(get_host(), command), command)


def test_an_argument_of_the_task_is_taken():
    env_args = configuration(f"env_args.key={SPREAD}", "env_args.N=5")["env_args"]
    assert env_args["N"] == 5
    built = get_host().envs["gymma"](**env_args, seed=1, common_reward=True, reward_scalarisation="sum")
    assert built.get_env_info()["n_agents"] == 5


def test_another_is_refused_with_the_real_ones():
    with pytest.raises(UserError, match=r"unknown key 'env_args\.num_good' in 'with': .*; .* itself takes .*N, .*"):
        configuration(f"env_args.key={SPREAD}", "env_args.num_good=2")


def test_a_mistyped_key_of_ours_is_still_told_the_nearest():
    with pytest.raises(UserError, match=r"unknown key 'env_args\.time_limt' .*did you mean 'env_args\.time_limit'"):
        configuration(f"env_args.key={SPREAD}", "env_args.time_limt=20")


def test_an_environment_that_takes_any_argument_takes_any():
    assert arguments("ConstructorsAny-v0") is None
    assert arguments("vmas-balance") is None
    assert arguments("ConstructorsTwo-v0") == {"size", "speed"}
    assert arguments("NoSuch-v0") == arguments("pz-mpe-no-such-v3") == frozenset()
