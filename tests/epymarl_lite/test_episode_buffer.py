"""Storage of episodes, as the host contract describes it; run on whichever host `EPYMARL_HOME` selects."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch as th

from conformance import (
    BATCH,
    GROUPS,
    LIMIT,
    N_ACTIONS,
    N_AGENTS,
    STATE,
    contract_host,
    empty_batch,
    empty_buffer,
    scheme,
)

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")  # a checkout's way of indexing
bundled_only = pytest.mark.skipif(bool(os.environ.get("EPYMARL_HOME")), reason="a repair of the bundled runtime")


@pytest.fixture(scope="module")
def host():
    return contract_host()


def numbered(host, size: int, first: int = 0):
    """Episodes whose state is 100 * episode + step, so that a swapped axis or episode shows."""
    batch = empty_batch(host, size=size)
    for t in range(LIMIT + 1):
        rows = [np.full(STATE, 100.0 * (first + e) + t) for e in range(size)]
        batch.update({"state": rows}, ts=t)
    return batch


def test_storage_has_one_tensor_per_key_with_group_and_time(host):
    raw = scheme()
    batch = empty_batch(host)
    assert batch["state"].shape == (BATCH, LIMIT + 1, STATE)
    assert batch["avail_actions"].shape == (BATCH, LIMIT + 1, N_AGENTS, N_ACTIONS)
    assert batch["avail_actions"].dtype == th.int
    assert batch["actions_onehot"].shape == (BATCH, LIMIT + 1, N_AGENTS, N_ACTIONS)
    assert batch["actions_onehot"].dtype == th.float32
    assert batch["filled"].dtype == th.long
    assert not any(batch[key].any() for key in batch.scheme)
    empty_batch(host).scheme["state"]["vshape"] = 0
    assert raw == scheme(), "the scheme that is passed in stays untouched"
    assert batch.scheme["actions_onehot"] == {"vshape": (N_ACTIONS,), "dtype": th.float32, "group": "agents"}


def test_update_marks_filled_only_where_asked_and_refreshes_the_one_hot_twin(host):
    batch = empty_batch(host)
    actions = th.tensor([[[1, 2, 3]], [[4, 0, 1]]])
    batch.update({"state": [np.ones(STATE)] * 2}, bs=[1, 3], ts=2)
    batch.update({"actions": actions}, bs=[0, 4], ts=1, mark_filled=False)
    assert batch["filled"].sum() == 2
    assert batch["filled"][1, 2] == batch["filled"][3, 2] == 1
    assert th.equal(batch["actions"][[0, 4], 1].squeeze(-1), actions.squeeze(1))
    assert th.equal(batch["actions_onehot"][[0, 4], 1].argmax(-1), actions.squeeze(1))
    assert batch["actions_onehot"].sum() == 2 * N_AGENTS


def test_values_may_differ_in_dimensions_of_size_one_only(host):
    batch = empty_batch(host)
    batch.update({"reward": [(1.5,)] * BATCH}, ts=0)
    batch.update({"reward": th.arange(float(BATCH))}, ts=1)
    assert batch["reward"][:, 1, 0].tolist() == list(range(BATCH))
    with pytest.raises(ValueError):
        batch.update({"state": th.zeros(BATCH, STATE + 1)}, ts=0)
    with pytest.raises(KeyError):
        batch.update({"nonsense": th.zeros(BATCH)}, ts=0)


def test_indexing_keeps_dimensions_and_slices_are_views(host):
    batch = numbered(host, BATCH)
    one = batch[2, 3]
    assert (one.batch_size, one.max_seq_length) == (1, 1)
    assert one["state"].shape == (1, 1, STATE)
    assert one["state"][0, 0, 0] == 203
    part = batch[1:3, :4]
    assert (part.batch_size, part.max_seq_length) == (2, 4)
    part["state"][:] = -1
    assert (batch["state"][1:3, :4] == -1).all()
    for picked in ([0, 4], np.array([0, 4])):
        chosen = batch[picked]
        assert chosen.batch_size == 2
        assert chosen["state"][1, 2, 0] == 402
        chosen["state"][:] = -2
    assert batch["state"][4, 2, 0] == 402, "lists and arrays copy"
    with pytest.raises(IndexError):
        batch[:, [0, 1]]
    with pytest.raises(ValueError):
        batch["nonsense"]


def test_a_tuple_of_names_selects_keys(host):
    part = numbered(host, BATCH)[("state", "actions")]
    assert part["state"][3, 1, 0] == 301
    assert set(part.scheme) == {"state", "actions"}
    with pytest.raises(ValueError):
        part["obs"]


def test_the_longest_episode_ends_the_slice(host):
    batch = empty_batch(host)
    for t in range(3):
        batch.update({"state": [np.zeros(STATE)]}, bs=[1], ts=t)
    assert batch.max_t_filled().tolist() == [3]
    assert batch[:, : batch.max_t_filled()].max_seq_length == 3


def test_the_ring_overwrites_its_oldest_episodes_and_splits_at_its_end(host):
    ring = empty_buffer(host, size=7)
    ring.insert_episode_batch(numbered(host, 5))
    assert ring.can_sample(5)
    assert not ring.can_sample(6)
    ring.insert_episode_batch(numbered(host, 5, first=5))
    assert (ring.buffer_index, ring.episodes_in_buffer) == (3, 7)
    assert (ring["state"][:, 0, 0] / 100).tolist() == [7, 8, 9, 3, 4, 5, 6]
    assert ring["filled"].all()


def test_nothing_of_a_longer_episode_is_left_beneath_a_shorter_one(host):
    ring = empty_buffer(host, size=4)
    ring.insert_episode_batch(numbered(host, 4))
    short = empty_batch(host, size=2)
    short.update({"state": th.full((2, 2, STATE), 9.0)}, ts=slice(0, 2))
    ring.insert_episode_batch(short)
    for key, values in short.data.transition_data.items():
        assert th.equal(ring[key][:2], values), key
    assert (ring["filled"][2:] == 1).all()


def test_samples_are_distinct_episodes(host):
    ring = empty_buffer(host, size=7)
    ring.insert_episode_batch(numbered(host, 6))
    assert (ring.sample(6)["state"][:, 0, 0] / 100).tolist() == list(range(6)), "exactly that many: in ring order"
    drawn = ring.sample(4)
    assert drawn.batch_size == 4
    assert len(set(drawn["state"][:, 0, 0].tolist())) == 4
    drawn["state"][:] = -1
    assert (ring["state"] >= 0).all(), "a drawn sample is a copy"


def test_one_hot_encodes_the_last_dimension(host):
    encoder = host.OneHot(out_dim=4)
    assert encoder.infer_output_info((1,), th.long) == ((4,), th.float32)
    assert encoder.transform(th.tensor([[[2]], [[0]]])).tolist() == [[[0, 0, 1, 0]], [[1, 0, 0, 0]]]


def test_running_statistics_match_those_of_everything_seen(host):
    rng = np.random.default_rng(0)
    batches = [rng.normal(3, 2, size=(4, 5, 2)), rng.normal(-1, 1, size=(7, 3, 2))]
    running = host.RunningMeanStd(shape=(2,))
    mean, var, count = np.zeros(2), np.ones(2), 1e-4
    for batch in batches:
        running.update(th.as_tensor(batch, dtype=th.float32))
        rows = batch.reshape(-1, 2)
        k, delta = len(rows), rows.mean(0) - mean
        var = (var * count + rows.var(0, ddof=1) * k + delta**2 * count * k / (count + k)) / (count + k)
        mean, count = mean + delta * k / (count + k), count + k
    np.testing.assert_allclose(running.mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(running.var.numpy(), var, rtol=1e-5)
    assert running.count == pytest.approx(count)


@bundled_only
def test_statistics_survive_a_batch_of_one_row(host):
    running = host.RunningMeanStd(shape=(1,))
    running.update(th.tensor([[5.0]]))
    assert running.mean.item() == pytest.approx(5, rel=1e-3)
    assert th.isfinite(running.var).all()


@bundled_only
def test_normalisation_can_be_undone(host):
    running = host.RunningMeanStd(shape=(3,))
    values = th.randn(20, 3) * 4 + 2
    running.update(values)
    assert running.normalise(values).std(0) == pytest.approx(th.ones(3), rel=1e-3)
    th.testing.assert_close(running.denormalise(running.normalise(values)), values)


@bundled_only
def test_arrays_and_tensor_indices_are_accepted(host):
    batch = empty_batch(host)
    batch.update({"state": np.ones((2, STATE))}, bs=th.tensor([0, 2]), ts=1)
    assert batch["filled"][:, 1, 0].tolist() == [1, 0, 1, 0, 0]
    assert batch[th.tensor([0, 2])].batch_size == 2
    assert batch[th.tensor([True, False, True, True, False])].batch_size == 3
    assert batch[-1].batch_size == 1


@bundled_only
def test_episode_constants_have_no_time_axis(host):
    batch = host.EpisodeBatch(
        {"state": {"vshape": STATE}, "seed": {"vshape": (1,), "episode_const": True, "dtype": th.long}}, {}, 3, 4
    )
    batch.update({"seed": th.tensor([7, 9])}, bs=slice(1, 3))
    assert batch["seed"].shape == (3, 1)
    assert batch["filled"].sum() == 0, "a constant fills no step"
    assert batch[2]["seed"].tolist() == [[9]]


@bundled_only
@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda b, h: b.update({"state": th.zeros(3, STATE)}, ts=0), ValueError, r"'state' has shape \(3, 7\)"),
        (lambda b, h: b.update({"rewards": [0]}, ts=0), KeyError, "'rewards' is not a key of this batch, which has"),
        (lambda b, h: b["rewards"], ValueError, "'rewards' is not a key of this batch, which has"),
        (lambda b, h: b[("obs", "rewards")], KeyError, "'rewards' is not a key"),
        (lambda b, h: h.EpisodeBatch({"filled": {"vshape": 1}}, {}, 1, 1), ValueError, "reserved"),
        (lambda b, h: h.EpisodeBatch({"x": {"vshape": 1, "group": "g"}}, {}, 1, 1), ValueError, "group 'g'"),
        (lambda b, h: empty_buffer(h, 3).sample(1), ValueError, "cannot sample 1 episodes: only 0 are stored"),
        (lambda b, h: h.OneHot(4).infer_output_info((2,), th.long), ValueError, r"expected value shape \(1,\)"),
        (lambda b, h: h.Schedule(1, 0, 5, decay="cubic"), ValueError, "use 'linear' or 'exp'"),
    ],
)
def test_mistakes_are_explained(host, mistake, error, message):
    with pytest.raises(error, match=message):
        mistake(empty_batch(host), host)


@bundled_only
def test_moving_is_in_place(host):
    batch = empty_batch(host)
    assert batch.to("meta") is None
    assert batch["state"].device.type == "meta"
    assert str(batch.device) == "meta"
    assert batch.groups == GROUPS
