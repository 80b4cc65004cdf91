"""The page in a browser: what a user does with it, and that nothing of a run is ever executed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from browser import browser_page
from dashboard_runs import ask, change, put, put_buffer, served, wait_until, write_curves
from kd_marl.dashboard.folder import FolderSource

pytestmark = pytest.mark.slow

# Plotly's styles for maps, which the page's policy refuses: no map is drawn.
MAPS = ["Applying inline style violates"]
STEPS = [0, 250, 500, 750, 1000]


def curve(seed):
    return {"test_return_mean": (STEPS, [seed * 10 + step / 100 for step in STEPS]), "loss": (STEPS, [1.0] * 5)}


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    for seed in (1, 2, 3):
        put(folder, seed, seed=seed, curves=curve(seed), score=0.5 + seed / 10)
        put(folder, seed, method="mappo", seed=seed, curves=curve(-seed))
    put(folder, 9, task="3s5z", status="RUNNING", curves=curve(5))
    put(folder, 8, method="kd_teacher", status="FAILED", curves={})
    return folder


def rows(page):
    return page.locator("#runs tbody tr")


def shown(page, column):
    """The texts of a column of the table."""
    return [text.strip() for text in page.locator(f"#runs tbody td:nth-child({column})").all_inner_texts()]


def lines(page, metric="test_return_mean"):
    """The plotted lines of a chart, without bands: first run -> steps and values."""
    script = """metric => {
        const figure = [...document.querySelectorAll('#charts figure')].find(f => f.dataset.metric === metric);
        if (!figure || !figure.lastChild.data) return {};
        const drawn = figure.lastChild.data.filter(trace => trace.meta);
        return Object.fromEntries(drawn.map(trace => [trace.meta.keys.join(' '), [[...trace.x], [...trace.y]]]));
    }"""
    return page.evaluate(script, metric)


def test_runs_are_filtered_sorted_selected_and_drawn(results):
    with served(FolderSource(results)) as address, browser_page(address, ignore=MAPS) as opened:
        page = opened.page
        page.wait_for_selector("#runs tbody tr")
        assert rows(page).count() == 8
        assert page.locator("#live").inner_text() == "live"
        # Filters.
        page.fill("#text", "mappo seed=2")
        wait_until(lambda: rows(page).count() == 1)
        assert page.locator("#count").inner_text() == "1 of 8 runs"
        page.click("#reset")
        wait_until(lambda: rows(page).count() == 8)
        page.select_option("#stage", "student")
        page.click("#states button:has-text('finished')")
        wait_until(lambda: rows(page).count() == 3)
        assert set(shown(page, 3)) == {"kd_student"}
        # Sorts.
        page.click("th button:has-text('Win rate')")
        wait_until(lambda: shown(page, 9) == ["80.0 %", "70.0 %", "60.0 %"])
        page.click("th button:has-text('Win rate')")
        wait_until(lambda: shown(page, 9) == ["60.0 %", "70.0 %", "80.0 %"])
        assert page.locator("th[aria-sort=ascending]").inner_text() == "Win rate"
        # Selects, each run by itself: what is plotted is what the runs have logged.
        page.click("#clear")
        page.click("#by-run")
        for number in (1, 2, 3):
            page.locator(f"tr[data-key='sacred/kd_student/3m/{number}'] input").check()
        wait_until(lambda: page.locator("#legend li").count() == 3)
        wait_until(lambda: len(lines(page)) == 3)
        for number in (1, 2, 3):
            logged = json.loads((results / f"sacred/kd_student/3m/{number}/metrics.json").read_text())
            own = logged["test_return_mean"]
            assert lines(page)[f"sacred/kd_student/3m/{number}"] == [own["steps"], own["values"]]
        # And their mean.
        page.click("#by-seed")
        wait_until(lambda: len(lines(page)) == 1)
        (mean,) = lines(page).values()
        assert mean == [STEPS, [20 + step / 100 for step in STEPS]]
        # The address holds what was chosen.
        again = page.evaluate("location.href")
        page.goto("about:blank")
        page.goto(again)
        wait_until(lambda: len(lines(page)) == 1)
        assert rows(page).count() == 3
        assert opened.complaints == []
        assert opened.outside(address) == []


def test_a_run_is_seen_growing_and_ending(results):
    folder = results / "sacred" / "kd_student" / "3s5z" / "9"
    with served(FolderSource(results)) as address, browser_page(address, ignore=MAPS) as opened:
        page = opened.page
        # The newest is chosen by itself.
        wait_until(lambda: [line[0][-1] for line in lines(page).values()] == [1000])
        row = page.locator("tr[data-key='sacred/kd_student/3s5z/9']")
        assert "running" in row.inner_text()
        write_curves(folder, {"test_return_mean": ([*STEPS, 1250], [*curve(5)["test_return_mean"][1], 99.5])})
        wait_until(lambda: [line[1][-1] for line in lines(page).values()] == [99.5])
        wait_until(lambda: "99.50" in row.inner_text())
        change(folder / "run.json", status="COMPLETED")
        wait_until(lambda: "finished" in row.inner_text())
        assert opened.complaints == []


def test_a_run_opens_with_its_result_sight_and_command(results):
    with served(FolderSource(results)) as address, browser_page(address, ignore=MAPS) as opened:
        page = opened.page
        page.locator("tr[data-key='sacred/kd_student/3m/2'] td.name button").first.click()
        page.wait_for_selector("#result")
        command = json.loads((results / "sacred/kd_student/3m/2/config.json").read_text())["command"]
        assert page.locator("#command").inner_text() == f"{command} teacher=src/zoo/made-up"
        assert "retention" in page.locator("#result").inner_text()
        cells = page.locator("#sight tbody tr").first.locator("td").all_inner_texts()
        assert cells == ["agent_0", "2 of 4", "all", "hidden", "8 of 12"]
        assert "run 2 began" in page.locator("#output").inner_text()
        page.keyboard.press("Escape")
        assert not page.locator("#run").is_visible()
        page.locator("tr[data-key='sacred/kd_teacher/3m/8'] td.name button").first.click()
        page.wait_for_selector("#run .state[data-state=broken]")
        assert opened.complaints == []


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_it_fits_a_screen_and_a_phone(results, width, dark):
    with served(FolderSource(results)) as address, browser_page(address, width=width, dark=dark, ignore=MAPS) as opened:
        page = opened.page
        wait_until(lambda: lines(page))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for plot in page.locator(".plot").all():
            assert plot.bounding_box()["width"] <= width
            assert plot.locator(".main-svg").first.bounding_box()["width"] <= plot.bounding_box()["width"] + 1


def test_progress_is_steps_of_t_max_or_episodes_of_a_buffer(tmp_path):
    put(tmp_path, 1, settings={"t_max": 2000}, curves={"loss": ([0, 2500], [1.0, 1.0])})
    million = {"settings": {"t_max": 1_000_000}, "curves": {"loss": ([0, 62_700], [1.0, 1.0])}}
    put(tmp_path, 2, status="RUNNING", **million)
    put_buffer(tmp_path, 3, episodes=200, mean=-80.81, status="RUNNING")
    put(tmp_path, 4, settings={"t_max": 3000}, curves={"loss": ([0, 1000], [1.0, 1.0])})
    with served(FolderSource(tmp_path)) as address, browser_page(address, ignore=MAPS) as opened:
        expected = {"2,500 of 2,000", "62.7 k of 1 M", "200 of 500 episodes", "3,000"}
        wait_until(lambda: set(shown(opened.page, 7)) == expected)
        assert opened.page.locator("tr[data-key$='kd_export/3m/3'] td:nth-child(8)").inner_text() == "-80.81"


def test_the_axis_of_a_share_ends_at_0_and_1(tmp_path):
    points = {"agreement": 0.2, "test_battle_won_mean": 0.5, "retention": 0.9, "retention_normalised": -0.5}
    put(tmp_path, 1, curves={name: ([1000], [value]) for name, value in points.items()})
    metrics = "&".join(f"metric={name}" for name in points)
    with (
        served(FolderSource(tmp_path)) as address,
        browser_page(f"{address}/#run=sacred/kd_student/3m/1&{metrics}", ignore=MAPS) as opened,
    ):
        wait_until(lambda: all(lines(opened.page, name) for name in points))
        ends = opened.page.evaluate(
            "Object.fromEntries([...document.querySelectorAll('#charts figure')]"
            ".map(f => [f.dataset.metric, f.lastChild.layout.yaxis.range]))"
        )
        assert ends["agreement"] == ends["test_battle_won_mean"] == ends["retention"] == [-0.02, 1.02]
        assert ends["retention_normalised"] == pytest.approx([-0.53, 1.03])


def test_a_phone_shows_state_method_return_and_retention_first(results):
    with served(FolderSource(results)) as address, browser_page(address, width=390, ignore=MAPS) as opened:
        page = opened.page
        page.wait_for_selector("#runs tbody tr")
        titles = [text.strip() for text in page.locator("#runs th").all_inner_texts()]
        assert titles[1:5] == ["State", "Method", "Return", "Retention"]
        row = page.locator("tr[data-key='sacred/kd_student/3m/1']")
        last = row.locator("td:nth-child(5)")
        assert (row.locator("td:nth-child(4)").inner_text(), last.inner_text()) == ("6.00", "66.7 %")
        box = last.bounding_box()
        assert box["x"] + box["width"] <= page.locator(".scroll:has(#runs)").bounding_box()["width"] + 22
        row.locator("td.name button").first.click()
        page.wait_for_selector("#result")
        one_line = page.locator("#result td.number").first.bounding_box()["height"]
        assert one_line < 2 * 20, "a number is not broken"
        page.click("#close")
        page.set_viewport_size({"width": 1280, "height": 800})
        wait_until(lambda: page.locator("#runs th").nth(3).inner_text().strip() == "Task")
        assert opened.complaints == []


def test_an_empty_folder_says_how_to_begin(tmp_path):
    (tmp_path / "results").mkdir()
    with served(FolderSource(tmp_path / "results")) as address, browser_page(address, ignore=MAPS) as opened:
        opened.page.wait_for_selector("#empty:visible")
        assert "python src/main.py --config=kd_student" in opened.page.locator("#empty").inner_text()
        put(tmp_path / "results", 1)
        opened.page.wait_for_selector("#runs tbody tr")
        assert not opened.page.locator("#empty").is_visible()


def test_the_page_says_that_the_server_has_ended(results):
    with browser_page(ignore=[*MAPS, "ERR_CONNECTION", "Failed to load"]) as opened:
        with served(FolderSource(results)) as address:
            opened.page.goto(address)
            opened.page.wait_for_selector("#runs tbody tr")
        opened.page.wait_for_selector("#live[data-state=gone]")
        assert rows(opened.page).count() == 8, "what was known stays"


# ---- hostile runs ----------------------------------------------------------------------------------------------------

SCRIPTS = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "\"><svg onload=\"window.hacked = 1\">",
    "javascript:window.hacked=1",
    "<a href='javascript:window.hacked=1'>click</a>",
    "</script><script>window.hacked=1</script>",
    "{{constructor.constructor('window.hacked=1')()}}",
]  # fmt: skip


def test_no_script_of_a_run_is_executed(tmp_path):
    for number, script in enumerate(SCRIPTS, start=1):
        points = ([0, 1, 2], [1.0, 2.0, 3.0])
        name = script.replace("/", "|")
        own = {"name": script, "map_name": script, "limits": script, "lr": script, "command": script, script: script}
        folder = put(
            tmp_path / name, number, method=name, task=name, settings=own, curves={script: points, "loss": points}
        )
        agent = {"agent": script, "blocks": {script: [1, 2]}, "observed": 2, "draw": None}
        change(folder / "summary.json", sees=[agent], algorithm=script)
        if number % 2:
            change(folder / "run.json", status="FAILED", fail_trace=[script], host={"hostname": script, "cpu": script})
            change(folder / "summary.json", student=None)
        (folder / "cout.txt").write_text(script * 3)
    with served(FolderSource(tmp_path)) as address, browser_page(address, ignore=MAPS) as opened:
        page = opened.page
        page.wait_for_selector("#runs tbody tr")
        assert rows(page).count() == len(SCRIPTS)
        for box in page.locator("#runs tbody input").all():
            box.check()
        page.click("#metric-menu summary")
        wait_until(lambda: page.locator("#metrics input").count() == len(SCRIPTS) + 1)
        for number in range(len(SCRIPTS)):
            page.locator("#metrics label", has_text=SCRIPTS[number]).first.locator("input").check()
            page.wait_for_timeout(100)
        wait_until(lambda: page.locator("#charts figure").count() > len(SCRIPTS) / 2)
        page.click("#curves-title")
        point = page.locator(".plot .points path").nth(1).bounding_box()
        page.mouse.move(point["x"] + 2, point["y"] + 2)
        page.wait_for_selector(".hoverlayer .hovertext")
        for at in range(len(SCRIPTS)):
            rows(page).nth(at).locator("td.name button").first.click()
            page.wait_for_selector("#output")
            page.locator("#run summary").click()
            page.click("#close")
        page.wait_for_timeout(500)
        assert page.evaluate("window.hacked") is None
        assert (
            page.locator("main img, main iframe, main object, main a, main script, dialog script, dialog img").count()
            == 0
        )
        assert opened.complaints == []
        assert opened.outside(address) == []


def test_even_a_page_with_markup_in_it_would_run_no_script(results):
    """The policy alone would stop it."""
    with served(FolderSource(results)) as address, browser_page(address) as opened:
        page = opened.page
        page.wait_for_selector("#runs tbody tr")
        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = 1\">')")
        page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hacked = 1'}))"
        )
        page.wait_for_timeout(500)
        assert page.evaluate("window.hacked") is None
        assert any("Content Security Policy" in said for said in opened.complaints)


# ---- many runs, and a real one ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ten_thousand(tmp_path_factory):
    results = tmp_path_factory.mktemp("many")
    folder = put(results, 1)
    texts = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".json"}
    for number in range(2, 10_001):
        other = results / "sacred" / "kd_student" / f"task{number % 50}" / str(number)
        other.mkdir(parents=True)
        for name, text in texts.items():
            (other / name).write_bytes(text)
    return results


def test_ten_thousand_runs_are_paged_and_searched(ten_thousand):
    with served(FolderSource(ten_thousand)) as address, browser_page(address, ignore=MAPS) as opened:
        page = opened.page
        wait_until(lambda: rows(page).count() == 100)
        assert page.locator("#count").inner_text() == "10,000 runs"
        page.click("#next")
        wait_until(lambda: page.locator("#range").inner_text() == "101 to 200 of 10,000")
        page.fill("#text", "task7/7")
        expected = sum(number % 50 == 7 and str(number).startswith("7") for number in range(2, 10_001))
        wait_until(lambda: page.locator("#count").inner_text() == f"{expected} of 10,000 runs")
        assert rows(page).count() == min(100, expected)


@pytest.mark.strict
def test_ten_thousand_runs_open_in_under_two_seconds(ten_thousand):
    """From the moment that nothing is read yet until the browser shows the first rows and the count of all."""
    with browser_page(ignore=MAPS) as opened:
        page = opened.page
        page.goto("about:blank")
        begun = time.perf_counter()
        with served(FolderSource(ten_thousand), wait=False) as address:
            page.goto(address)
            wait_until(lambda: rows(page).count() == 100)
            first = time.perf_counter() - begun
            wait_until(lambda: page.locator("#count").inner_text() == "10,000 runs")
            opening = time.perf_counter() - begun
    print(f"of 10,000 runs the first 100 are open after {first:.2f} s, all are counted after {opening:.2f} s")
    assert opening < 2


def test_a_training_is_watched_and_killed(tmp_path, source_root, monkeypatch):
    """A real run: its curve grows on the page, and after kill -9 it is interrupted, not running for ever."""
    monkeypatch.setattr("kd_marl.dashboard.liveness.QUIET_S", 2.0)
    results = tmp_path / "results"
    results.mkdir()
    words = [
        *("--config=kd_teacher", "--env-config=mpe", "with", "env_args.key=pz-mpe-simple-spread-v3", "seed=1"),
        *("t_max=1000000", "batch_size_run=2", "batch_size=2", "buffer_size=2", "test_nepisode=2", "hidden_dim=16"),
        *("test_interval=100", "log_interval=100", "runner_log_interval=100", "learner_log_interval=100"),
        f"local_results_path={results}",
    ]
    with served(FolderSource(results)) as address, browser_page(address, ignore=MAPS) as opened:
        page = opened.page
        with open(tmp_path / "said", "wb") as said:
            run = subprocess.Popen(
                [sys.executable, "src/main.py", *words], cwd=source_root.parent, stdout=said, stderr=said,
                start_new_session=True,
            )  # fmt: skip
        try:
            wait_until(lambda: page.locator(".state[data-state=running]").count() == 1, patience=120)
            wait_until(lambda: any(len(steps) > 1 for steps, _ in lines(page).values()), patience=120)
            before = max(len(steps) for steps, _ in lines(page).values())
            wait_until(lambda: max(len(steps) for steps, _ in lines(page).values()) > before, patience=120)
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            wait_until(lambda: page.locator("#runs .state[data-state=interrupted]").count() == 1, patience=60)
            # Its very last heartbeat may be read only now, and counts for QUIET_S.
            wait_until(lambda: "resume=True" in json.loads(ask(f"{address}/api/runs")[2])["rows"][0]["note"])
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
        assert opened.complaints == []
