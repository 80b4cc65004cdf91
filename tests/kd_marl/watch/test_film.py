"""A film: its picks, its data and its page, which nothing that a run is called can break."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from kd_core.host import get_host

get_host()  # before anything of ours asks the host for its classes

from kd_core.errors import UserError  # noqa: E402
from kd_envs.hetero_mask.known_layouts import layout_for  # noqa: E402
from kd_envs.hetero_mask.presets import mask_for  # noqa: E402
from kd_marl.watch.film import check_pick, film_data, groups_of, packed  # noqa: E402
from kd_marl.watch.page import page  # noqa: E402
from kd_marl.watch.sensors import FailedSensors, failed_sensors  # noqa: E402
from kd_marl.watch.sight import sight  # noqa: E402
from watch_films import HOSTILE, SPREAD, film_of, take_of, world_of  # noqa: E402


def unpacked(values):
    """Numbers as the page reads them."""
    kinds = {"f4": "<f4", "i2": "<i2", "u1": "u1", "u2": "<u2", "i2s": "<i2"}
    found = np.frombuffer(base64.b64decode(values["data"]), kinds[values["kind"]]).reshape(values["shape"])
    if values["kind"] == "u2":
        return found / 65535
    return found * np.reshape(values["scale"], values["shape"][1:]) if "scale" in values else found


# ---- picks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([3.0, 1.0, 2.0], {"median": 2, "best": 0, "worst": 1}),
        ([1.0, 4.0, 2.0, 3.0], {"median": 2, "best": 1, "worst": 0}),
        ([5.0, 5.0], {"median": 0, "best": 0, "worst": 0}),
    ],
)
def test_picks_are_by_the_students_return_and_ties_go_to_the_first(returns, expected):
    film = film_of([[take_of(-value) for value in returns], [take_of(value) for value in returns]])
    assert {name: film.picks()[name] for name in expected} == expected


def test_the_most_disagreement_is_a_share_of_decisions():
    often = take_of(1.0, actions=[[0, 0, 0]] * 2, expert=[[1, 0, 0]] * 2)
    once_of_one = take_of(1.0, actions=[[0, 0, 0]], expert=[[1, 1, 0]])
    film = film_of([[take_of(1.0)] * 2, [often, once_of_one]])
    assert [take.disagreement for take in film.takes[1]] == pytest.approx([1 / 3, 2 / 3])
    assert film.picks()["disagreement"] == 1
    assert "disagreement" not in film_of([[take_of(1.0)]]).picks(), "a teacher alone has nobody to differ from"


def test_an_episode_is_picked_by_word_or_number_from_one():
    film = film_of([[take_of(1.0)] * 3, [take_of(value) for value in (1.0, 3.0, 2.0)]])
    assert [film.pick(word) for word in ("best", "1", "3")] == [1, 0, 2]
    for word in ("0", "4", "bset", "-1", ""):
        with pytest.raises(UserError, match=r"expected 1 to 3, or a word; "):
            film.pick(word)
        with pytest.raises(UserError, match="expected 1 to 3, or a word; "):
            check_pick(word, 3)


# ---- sensors ---------------------------------------------------------------------------------------------------------


def test_a_sensor_is_named_by_block_part_or_feature():
    layout = layout_for(SPREAD, 3, 18)
    failed = failed_sensors(["agent_1:L@4", "0:P", "2:A(P)0.x@1", "1:L0@2", "0:D(A-A)"], layout)
    lost = {
        (agent, layout.feature_names[agent][index]): int(failed.since[agent, index])
        for agent, index in zip(*np.nonzero(failed.since >= 0), strict=True)
    }
    assert lost == {
        **{(1, f"L{k}.{axis}"): 2 if k == 0 else 4 for k in range(3) for axis in "xy"},
        **{(0, f"P.{axis}"): 0 for axis in "xy"},
        (2, "A(P)0.x"): 1,
        # Distances are computed from positions, which is what fails.
        **{(0, f"A(P){k}.{axis}"): 0 for k in (1, 2) for axis in "xy"},
    }
    assert failed.failed(1).sum() == 7 and failed.failed(4).sum() == 13


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("L", "expected AGENT:GROUP or AGENT:GROUP@STEP, for example 1:V@10"),
        ("1:", "expected AGENT:GROUP"),
        ("1:L@soon", "expected AGENT:GROUP"),
        ("1:L@9999999999999999999999", "expected AGENT:GROUP or AGENT:GROUP@STEP"),
        ("7:L", "--fail-sensor 7 is no agent; valid: 0, 1, 2"),
        ("agnet_1:L", "did you mean 'agent_1'"),
        ("1:LL", "--fail-sensor 1:LL: agent 'agent_1' of simple_spread has no feature 'LL'; did you mean"),
    ],
)
def test_a_sensor_that_is_none_is_one_line(word, message):
    with pytest.raises(UserError, match=re.escape(message)):
        failed_sensors([word], layout_for(SPREAD, 3, 18))


def test_a_failed_sensor_stays_failed_and_leaves_the_rest():
    failed = FailedSensors(np.array([[-1, 1]]))
    obs, memory = np.array([[[3.0, 4.0]]], np.float32), ()
    rows = []
    for _ in range(3):
        seen, memory = failed(obs, memory, None)
        rows.append(seen[0, 0].tolist())
    assert rows == [[3, 4], [3, 0], [3, 0]] and obs.tolist() == [[[3, 4]]]


# ---- sight -----------------------------------------------------------------------------------------------------------


def test_what_an_agent_is_shown_of_each_thing():
    layout = layout_for(SPREAD, 3, 18)
    # agent_1 sees its velocity, landmark 0 whole and one coordinate of landmark 1.
    mask = mask_for(layout, "lh", masks={1: ["V", "L0", "L1.x"]})
    take = take_of(1.0, visible=np.pad(mask.visible, ((0, 0), (0, layout.n_features - mask.obs_size))))
    nothing = np.zeros((3, 18), bool)
    world = world_of(take, 0)
    seen = {shape.name: sight(take, layout, nothing, 1, shape, 0) for shape in world.shapes}
    assert seen == {
        "agent_0": "none",
        "agent_1": "self",
        "agent_2": "none",
        "landmark 0": "all",
        "landmark 1": "some",
        "landmark 2": "none",
    }
    lost = failed_sensors(["1:L0"], layout).failed(0)
    assert sight(take, layout, lost, 1, world.shapes[3], 0) == "failed"


# ---- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["f4", "i2", "u1"])
def test_numbers_come_back_as_they_were(kind):
    values = np.arange(24).reshape(2, 3, 4)
    assert (unpacked(packed(values, kind)) == values).all()


def test_shares_and_observations_come_back_within_their_grid():
    rng = np.random.default_rng(0)
    shares = rng.random((5, 2, 3))
    assert unpacked(packed(shares, "u2")) == pytest.approx(shares, abs=1e-5)
    # Each feature has a scale of its own: a large one does not swallow a small one.
    obs = rng.standard_normal((7, 2, 2)) * [1e6, 1e-3]
    assert unpacked(packed(obs, "i2s")) == pytest.approx(obs, rel=1e-3, abs=1e-3 * 1e-3 * 4)
    odd = np.array([[[np.nan, 0.0, np.inf]]])
    assert np.isfinite(unpacked(packed(odd, "i2s"))).all()


def test_groups_list_every_feature_once():
    for layout in (layout_for(SPREAD, 3, 18), layout_for("unknown", 2, 4)):
        for agent in range(layout.n_agents):
            listed = [index for group in groups_of(layout, agent) for index in group["features"]]
            assert sorted(listed) == [k for k, name in enumerate(layout.feature_names[agent]) if name is not None]
    assert [group["name"] for group in groups_of(layout_for("unknown", 2, 4), 0)] == ["features"]


def test_the_data_have_the_positions_of_every_step():
    takes = [take_of(2.0), take_of(1.0)]
    data = film_data(film_of([takes, takes]))
    for episode, take in zip(data["episodes"], takes, strict=True):
        moments = unpacked(episode["takes"][1]["world"]["moments"])
        assert moments.shape == (take.steps + 1, 6, 4)
        for t, world in enumerate(take.worlds):
            assert moments[t, :, 0] == pytest.approx([shape.x for shape in world.shapes])
            assert moments[t, :, 1] == pytest.approx([shape.y for shape in world.shapes])
    assert data["notes"] == []


def test_without_a_world_the_page_says_so_and_a_large_film_leaves_numbers_out(monkeypatch):
    bare = [take_of(1.0, worlds=False)]
    (note,) = film_data(film_of([bare, bare]))["notes"]
    assert "How to draw" in note and "world()" in note
    monkeypatch.setattr("kd_marl.watch.film.MOST_OBSERVED_BYTES", 10)
    data = film_data(film_of([[take_of(1.0)], [take_of(1.0)]]))
    assert data["episodes"][0]["takes"][0]["obs"] is None
    assert "would make this page too large" in data["notes"][0]


def test_a_return_that_is_no_number_is_null():
    take = take_of(float("nan"))
    data = film_data(film_of([[take], [take]]))
    json.dumps(data, allow_nan=False)
    assert data["episodes"][0]["takes"][0]["returned"] is None


# ---- the page --------------------------------------------------------------------------------------------------------


def test_hostile_names_stay_text():
    film = film_of([[take_of(1.0)], [take_of(1.0)]], task=HOSTILE, caption=HOSTILE, notes=[HOSTILE])
    text = page(film, 0)
    assert text.count("<script") == 2 and text.count("</script>") == 2
    assert "<img" not in text and "onerror=alert" not in re.sub(
        r"<script type=.*?</script>|<title>.*?</title>", "", text, flags=re.S
    )
    (block,) = re.findall(r'<script type="application/json" id="film">(.*?)</script>', text, re.S)
    assert not set("<>&\u2028") & set(block)
    data = json.loads(block)
    assert (data["task"], data["panels"][1]["caption"], data["notes"]) == (HOSTILE, HOSTILE, [HOSTILE])


def test_a_page_asks_for_nothing():
    text = page(film_of([[take_of(1.0)], [take_of(1.0)]]), 0)
    assert "default-src 'none'" in text
    # The name of the SVG language is no address that is fetched.
    assert not re.findall(r"https?://[\w.]+", text.replace("http://www.w3.org/2000/svg", ""))
    assert not re.findall(r"\b(?:src|href|url|import|fetch)\b\s*[=(]", text)


def test_the_first_episode_and_agent_are_the_wanted_ones():
    film = film_of([[take_of(1.0)] * 3, [take_of(1.0)] * 3])
    text = page(film, 2, eyes=1)
    data = json.loads(re.findall(r'id="film">(.*?)</script>', text, re.S)[0])
    assert (data["first"], data["eyes"]) == (2, 1)


def test_a_film_knows_its_leading_panel():
    assert film_of([[take_of(1.0)]]).leading == 0
    assert film_of([[take_of(1.0)], [take_of(1.0)]]).leading == 1
