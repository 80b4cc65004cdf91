"""The team's value of its agents' values, and what each agent's adds to it, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_core.host import get_host
from kd_learners import mixers
from tiny_stages import STATE
from value_runs import EMBED, INNER, mixer_state, numpy_team_value


def drawn(agents, seed):
    generator = np.random.default_rng(seed)
    return 3.0 * generator.standard_normal(agents), generator.standard_normal(STATE)


@given(agents=st.integers(1, 5), layers=st.sampled_from([1, 2]), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_qmix_mixes_and_weighs_as_numpy_does(agents, layers, seed):
    mixer = mixer_state(layers, agents, seed=seed)
    q, state = drawn(agents, seed)
    double = {name: value.double() for name, value in mixer.items()}
    value = mixers.team_value(torch.from_numpy(q), torch.from_numpy(state), double)
    np.testing.assert_allclose(value, numpy_team_value(q, state, mixer), rtol=1e-12, atol=1e-12)
    weights = mixers.agent_weights(torch.from_numpy(q), torch.from_numpy(state), double)
    step = 1e-6 * np.eye(agents)
    slopes = [
        (numpy_team_value(q + one, state, mixer) - numpy_team_value(q - one, state, mixer)) / 2e-6 for one in step
    ]
    np.testing.assert_allclose(weights, slopes, rtol=1e-5, atol=1e-7)
    assert (weights >= 0).all()


@pytest.mark.parametrize("layers", [1, 2])
def test_a_whole_batch_is_mixed_as_the_host_mixes_it(layers):
    from types import SimpleNamespace

    host = get_host()
    if host.name != "epymarl_lite":
        pytest.skip("the bundled host's mixer")
    from epymarl_lite.modules.mixers.qmix import QMixer

    sizes = {"mixing_embed_dim": EMBED, "hypernet_layers": layers, "hypernet_embed": INNER}
    theirs = QMixer(SimpleNamespace(n_agents=3, state_shape=STATE, **sizes))
    q, state = torch.randn(2, 4, 3), torch.randn(2, 4, STATE)
    torch.testing.assert_close(mixers.team_value(q, state, theirs.state_dict()), theirs(q, state).squeeze(-1).detach())


def test_without_weights_the_team_s_value_is_vdn_s_sum():
    q = torch.tensor([[1.0, -4.0, 2.5]])
    assert mixers.team_value(q, torch.zeros(1, STATE), {}).tolist() == [-0.5]
    assert mixers.agent_weights(q, torch.zeros(1, STATE), {}).tolist() == [[1.0, 1.0, 1.0]]
