"""The page in a browser: what is drawn is what was recorded, and its controls do what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kd_core.host import get_host

get_host()  # before anything of ours asks the host for its classes

from browser import browser_page  # noqa: E402
from kd_envs.hetero_mask.known_layouts import layout_for  # noqa: E402
from kd_envs.hetero_mask.presets import mask_for  # noqa: E402
from kd_envs.worlds import Road  # noqa: E402
from kd_marl.watch.page import page  # noqa: E402
from kd_marl.watch.sight import sight  # noqa: E402
from watch_films import HOSTILE, SPREAD, film_of, take_of, world_of  # noqa: E402

pytestmark = pytest.mark.slow
LAYOUT = layout_for(SPREAD, 3, 18)
LIMITED = np.pad(mask_for(LAYOUT, "lh", masks={1: ["V", "L0", "L1.x"]}).visible, ((0, 0), (0, 2)))[
    :, : LAYOUT.n_features
]


def written(tmp_path, film, first=0):
    file = tmp_path / "watch.html"
    file.write_text(page(film, first), encoding="utf-8")
    return file.as_uri()


def until(tab, expression):
    """Wait for something to be true: the page's policy forbids what Playwright does for that."""
    for _ in range(200):
        if tab.evaluate(expression):
            return
        tab.wait_for_timeout(20)
    raise AssertionError(f"never true: {expression}")


def example():
    """Three episodes; the student differs in one decision of the second and falls short in the third."""
    student = [
        take_of(3.0, visible=LIMITED),
        take_of(2.0, visible=LIMITED, actions=[[0, 1, 2], [3, 4, 0]], expert=[[0, 1, 2], [3, 2, 0]]),
        take_of(1.0, visible=LIMITED, actions=[[1, 1, 1]] * 4),
    ]
    return film_of([[take_of(3.0)] * 3, student], failed=["1:L0@1"])


def test_the_drawn_positions_are_the_recorded_ones(tmp_path):
    film = example()
    with browser_page(written(tmp_path, film)) as opened:
        tab = opened.page
        for episode in range(3):
            tab.evaluate(f"watch.choose({episode})")
            for step in range(5):
                tab.evaluate(f"watch.go({step})")
                for panel in range(2):
                    take = film.takes[panel][episode]
                    at = min(step, take.steps)
                    drawn = tab.evaluate(f"watch.drawn({panel})")
                    assert drawn["step"] == min(at, max(t[episode].steps for t in film.takes))
                    for shape, told in zip(drawn["shapes"], world_of(take, at).shapes, strict=True):
                        assert shape["name"] == told.name
                        assert (shape["x"], shape["y"]) == pytest.approx((told.x, told.y), abs=1e-6)
                        # To scale, with y upwards.
                        assert shape["px"] == pytest.approx(
                            (told.x - drawn["frame"]["left"]) * drawn["scale"], abs=1e-3
                        )
                        assert shape["py"] == pytest.approx((drawn["frame"]["top"] - told.y) * drawn["scale"], abs=1e-3)
                        assert shape["radius"] == pytest.approx(told.radius * drawn["scale"], rel=1e-5)
        assert opened.complaints == [] and opened.outside(written(tmp_path, film)) == []


def test_the_canvas_has_the_bodies_where_the_page_says_that_it_drew_them(tmp_path):
    with browser_page(written(tmp_path, example())) as opened:
        tab = opened.page
        tab.evaluate("watch.select(-1)")
        for shape in tab.evaluate("watch.drawn(0)")["shapes"][:3]:
            # Beside the letter, inside the circle.
            place = [shape["px"] - 0.7 * shape["radius"], shape["py"]]
            pixel = tab.evaluate(
                "([x, y]) => [...document.querySelector('canvas').getContext('2d')"
                ".getImageData(Math.round(x * devicePixelRatio), Math.round(y * devicePixelRatio), 1, 1).data]",
                place,
            )
            assert np.abs(np.array(pixel[:3]) - (10, 108, 176)).max() < 40, shape["name"]


def test_roads_have_their_lights_and_vehicles_at_every_step(tmp_path):
    """One road across the world: its light is red, then green, and a vehicle stands on it, then is gone."""
    road = Road("road", ((-0.9, 0.0), (0.9, 0.0)), 0.1)
    take = take_of(1.0)
    moments = zip(take.worlds, "rgg", ([(-0.5, 0.0, True)], [], []), strict=True)
    worlds = [
        replace(world, roads=(replace(road, light=light),), vehicles=tuple(cars)) for world, light, cars in moments
    ]
    film = film_of([[replace(take, worlds=tuple(worlds))]])
    with browser_page(written(tmp_path, film), ignore=["willReadFrequently"]) as opened:
        tab = opened.page
        colours = []
        for step in range(2):
            tab.evaluate(f"watch.go({step})")
            drawn = tab.evaluate("watch.drawn(0)")
            for x in (0.9, -0.5):
                place = [(x - drawn["frame"]["left"]) * drawn["scale"], drawn["frame"]["top"] * drawn["scale"]]
                colours.append(
                    tab.evaluate(
                        "([x, y]) => [...document.querySelector('canvas').getContext('2d')"
                        ".getImageData(Math.round(x * devicePixelRatio), Math.round(y * devicePixelRatio), 1, 1).data]",
                        place,
                    )[:3]
                )
        assert opened.complaints == []
    red, standing, green, empty = colours
    expected = [(179, 38, 30), (200, 80, 10), (0, 128, 93), (213, 217, 222)]
    for colour, wanted in zip((red, standing, green, empty), expected, strict=True):
        assert np.abs(np.array(colour) - wanted).max() < 60, (colour, wanted)


def test_what_is_hidden_from_an_agent_is_what_its_mask_hides(tmp_path):
    film = example()
    with browser_page(written(tmp_path, film)) as opened:
        tab = opened.page
        seen = set()
        for agent in range(3):
            tab.evaluate(f"watch.select({agent})")
            for step in (0, 1):
                tab.evaluate(f"watch.go({step})")
                for panel in range(2):
                    take = film.takes[panel][0]
                    lost = film.failed.failed(step)
                    expected = [sight(take, LAYOUT, lost, agent, s, step) for s in world_of(take, step).shapes]
                    assert [s["sight"] for s in tab.evaluate(f"watch.drawn({panel})")["shapes"]] == expected
                    seen.update(expected)
        assert seen == {"none", "some", "all", "self", "failed"}
        tab.evaluate("watch.select(1)")
        tab.evaluate("watch.go(0)")
        chips = tab.locator("#eyes article[data-panel='1'] .groups li").all_inner_texts()
        assert "✓ V, its own velocity" in chips and "✕ P, its own position: hidden" in chips
        assert "◐ L, landmarks: 3 of 6 numbers" in chips
        tab.evaluate("watch.go(1)")
        assert "✕ L, landmarks: failed" in tab.locator("#eyes article[data-panel='1'] .groups li").all_inner_texts()
        cells = tab.locator("#eyes article[data-panel='1'] .cell")
        kinds = {cell.get_attribute("data-feature"): cell.get_attribute("class") for cell in cells.all()}
        assert (kinds["V.x"], kinds["P.x"], kinds["L0.x"], kinds["L1.x"]) == (
            "cell",
            "cell hidden",
            "cell failed",
            "cell",
        )


def test_what_has_failed_is_said_at_the_top_and_looks_otherwise_than_what_is_hidden(tmp_path):
    with browser_page(written(tmp_path, example())) as opened:
        tab = opened.page
        said = tab.locator("#failing").inner_text()
        assert said == "Sensors fail here, for all players alike: agent_1 reads zero for L0 from step 1."
        assert "hidden from that agent" in tab.locator("#legend").inner_text()
        assert "struck through: that agent's sensors" in tab.locator("#legend").inner_text()
        tab.evaluate("watch.select(1)")
        red = (
            "(() => { const canvas = document.querySelector('canvas');"
            " const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
            " let count = 0; for (let k = 0; k < pixels.length; k += 4)"
            " count += Math.abs(pixels[k] - 179) + Math.abs(pixels[k + 1] - 38) + Math.abs(pixels[k + 2] - 30) < 12;"
            " return count; })()"
        )
        assert tab.evaluate(red) == 0
        tab.evaluate("watch.go(1)")
        assert tab.evaluate(red) > 10
    with browser_page(written(tmp_path, film_of([[take_of(1.0)]]))) as opened:
        assert not opened.page.locator("#failing").is_visible()
        assert "struck through" not in opened.page.locator("#legend").inner_text()


def test_worlds_are_level_however_long_a_caption_is(tmp_path):
    film = example()
    film.players[0] = replace(film.players[0], caption="a caption that wraps " * 12)
    with browser_page(written(tmp_path, film)) as opened:
        tops = [canvas.bounding_box()["y"] for canvas in opened.page.locator("canvas").all()]
        assert len(tops) == 2 and tops[0] == pytest.approx(tops[1])


def test_on_a_phone_the_controls_leave_the_first_world_in_sight(tmp_path):
    with browser_page(written(tmp_path, example()), width=390, height=844) as opened:
        bar = opened.page.locator("#controls").bounding_box()
        assert bar["height"] < 56
        world = opened.page.locator("canvas").first.bounding_box()
        assert bar["y"] - world["y"] > 0.5 * world["height"]
        assert opened.page.locator("#step").inner_text() == "0/2"
        buttons = opened.page.locator("#controls button:visible").all()
        assert len(buttons) == 3
        assert all(min(button.bounding_box()[side] for side in ("width", "height")) >= 30 for button in buttons)


def test_differences_from_the_teacher_are_marked(tmp_path):
    with browser_page(written(tmp_path, example(), first=1)) as opened:
        tab = opened.page
        odd = tab.locator("#curves rect.odd")
        assert odd.count() == 1
        assert (odd.get_attribute("data-agent"), odd.get_attribute("data-step")) == ("1", "1")
        assert odd.locator("title").text_content() == "step 1, agent_1: move_up, the teacher would move_right"
        odd.click()
        assert tab.evaluate("[watch.state.step, watch.state.agent]") == [1, 1]
        doing = tab.locator("#eyes article[data-panel='1'] .doing").inner_text()
        assert doing == "does move_up ≠ the teacher, in its place, would move_right"
        assert "1 of 3" in tab.locator("#panels article").nth(1).inner_text()
        assert "as the teacher" not in tab.locator("#eyes article[data-panel='0'] .doing").inner_text()


def test_messages_are_bits_in_the_agents_card(tmp_path):
    said = np.array([[[1, -1, 1], [0, 0, 0], [-1, -1, 1]]] * 2, np.float32)
    with browser_page(written(tmp_path, film_of([[take_of(1.0)], [take_of(1.0, messages=said)]]))) as opened:
        tab = opened.page
        doing = tab.locator("#eyes article[data-panel='1'] .doing")
        assert doing.inner_text().endswith("; sends 101")
        tab.evaluate("watch.select(1)")
        assert doing.inner_text().endswith("; sends nothing")
        assert "sends" not in tab.locator("#eyes article[data-panel='0'] .doing").inner_text()
        assert opened.complaints == []


def test_controls_and_keys(tmp_path):
    with browser_page(written(tmp_path, example())) as opened:
        tab = opened.page

        def step():
            return tab.evaluate("watch.state.step")

        tab.locator("#forward").click()
        assert step() == 1 and tab.locator("#step").inner_text() == "step 1 of 2"
        tab.locator("#back").click()
        assert step() == 0
        tab.locator("#last").click()
        assert step() == 2
        tab.locator("#first").click()
        assert step() == 0
        tab.locator("#scrub").fill("1")
        assert step() == 1
        tab.locator("#scrub").evaluate("node => node.blur()")
        for key, expected in (("Home", 0), ("ArrowRight", 1), ("End", 2), ("ArrowLeft", 1)):
            tab.keyboard.press(key)
            assert step() == expected, key
        tab.keyboard.press("2")
        assert tab.evaluate("watch.state.agent") == 2
        tab.keyboard.press("Escape")
        assert tab.evaluate("watch.state.agent") == -1 and tab.locator("#eyes article").count() == 0
        tab.keyboard.press("n")
        assert tab.evaluate("watch.state.episode") == 1 and step() == 0
        tab.keyboard.press("p")
        tab.keyboard.press("+")
        assert tab.evaluate("[watch.state.episode, watch.state.speed]") == [0, 8]
        # Played to its end, it stops there; played again, it begins again.
        tab.keyboard.press("Space")
        until(tab, "watch.state.step === 2 && !watch.state.playing")
        tab.locator("#speed").select_option("1")
        tab.locator("#play").click()
        until(tab, "watch.state.playing && watch.state.step > 0.2 && watch.state.step < 2")
        tab.locator("#play").click()
        assert not tab.evaluate("watch.state.playing") and step() == int(step())
        assert opened.complaints == []


def test_an_episode_is_chosen_by_what_it_is_or_by_its_number(tmp_path):
    with browser_page(written(tmp_path, example())) as opened:
        tab = opened.page
        texts = tab.locator("#episode option").all_inner_texts()
        assert texts[:4] == [
            "the median: episode 2, return 2.00",
            "the best: episode 1, return 3.00",
            "the worst: episode 3, return 1.00",
            "the most disagreement: episode 2, 17 % otherwise",
        ]
        tab.locator("#episode").select_option(index=2)
        assert tab.evaluate("watch.state.episode") == 2
        assert tab.locator("#step").inner_text() == "step 0 of 4"
        assert "Student: return 1.00 in 4 steps" in tab.locator("#caption").inner_text()
        tab.locator("#episode").select_option(label="episode 1, return 3.00")
        assert tab.evaluate("watch.state.episode") == 0


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, True)])
def test_no_width_scrolls_sideways_and_nothing_complains(tmp_path, width, dark):
    with browser_page(written(tmp_path, example()), width=width, dark=dark) as opened:
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        shades = opened.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (max(shades[:3]) < 60) is dark
        assert opened.complaints == []


def test_hostile_names_are_shown_as_they_are(tmp_path):
    film = film_of([[take_of(1.0)], [take_of(1.0)]], task=HOSTILE, caption=HOSTILE, notes=[HOSTILE])
    with browser_page(written(tmp_path, film)) as opened:
        assert opened.page.locator("#notes li").text_content() == HOSTILE
        assert opened.page.locator("#panels .caption").first.text_content() == HOSTILE
        assert opened.page.evaluate("document.title").startswith("</script><script>alert(1)")
        assert opened.complaints == [] and opened.outside(written(tmp_path, film)) == []


def test_without_a_world_everything_else_is_there(tmp_path):
    bare = [take_of(1.0, worlds=False)]
    with browser_page(written(tmp_path, film_of([bare, bare]))) as opened:
        tab = opened.page
        assert tab.locator("canvas").count() == 0
        assert "How to draw" in tab.locator("#notes").inner_text()
        tab.evaluate("watch.go(1)")
        assert tab.locator("#eyes article").count() == 2 and "1.00" in tab.locator("#panels").inner_text()
        assert opened.complaints == []


def test_the_page_of_a_real_student(tiny_student, tmp_path):
    from kd_marl.cli import main

    file = tmp_path / "real.html"
    assert main(["watch", str(tiny_student.record), "--episodes", "2", "--to", str(file)]) == 0
    with browser_page(file.as_uri()) as opened:
        tab = opened.page
        tab.evaluate("watch.go(3)")
        for panel in range(2):
            drawn = tab.evaluate(f"watch.drawn({panel})")["shapes"]
            told = tab.evaluate(
                f"(() => {{ const m = watch.takes()[{panel}].world.moments;"
                " return [0, 1, 2, 3, 4].map((k) => [m.at(3, k, 0), m.at(3, k, 1)]); })()"
            )
            assert [[shape["x"], shape["y"]] for shape in drawn] == told
        assert opened.complaints == [] and opened.outside(file.as_uri()) == []
