"""Whatever a run's files hold, a row and its details are made of it, and a browser can read them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import report_runs
from kd_marl.dashboard import rows, shown
from kd_marl.dashboard.folder import curves_of
from kd_marl.dashboard.liveness import Liveness
from kd_marl.dashboard.query import Query
from kd_marl.dashboard.rows import Facts, Progress
from kd_marl.dashboard.server import _clean
from kd_marl.dashboard.source import Store

NAMES = st.sampled_from(
    [
        *("name", "learner", "map_name", "env", "limits", "masks", "seed", "t_max", "command", "env_args", "key"),
        *("status", "start_time", "stop_time", "heartbeat", "host", "hostname", "cpu", "experiment", "dependencies"),
        *("repositories", "commit", "dirty", "fail_trace", "student", "teacher", "random", "policy", "sampled"),
        *("return_mean", "return_std", "win_rate", "retention", "steps", "params", "sees", "agent", "blocks"),
        *("observed", "draw", "values", "algorithm"),
    ]
)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=20),
    st.sampled_from(["RUNNING", "COMPLETED", "kd_mappo_student", "2026-01-01T00:00:00", "9999-12-31T23:59:59+14:00"]),
    st.sampled_from(["python src/main.py --env-config=mpe with a='", "lh"]),
)
JSON = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=6)),
    max_leaves=25,
)
OBJECT = st.dictionaries(NAMES, JSON, max_size=10)


def readable(value):
    """As the server sends it."""
    text = json.dumps(_clean(value), allow_nan=False)
    return json.loads(text)


@given(OBJECT, OBJECT, OBJECT, JSON)
def test_anything_can_be_shown(config, account, summary, metrics):
    facts = Facts(config, account, summary, lineage=summary, buffer=account)
    made = rows.row("a/b", ("a", "b"), facts, Progress(), Liveness(), 1e9)
    assert made.state in ("running", "finished", "interrupted", "broken")
    store = Store()
    store.put(made)
    for sort in ("started", "limits", "seed", "retention"):
        readable(Query(words=("a",), sort=sort).page(store.rows()))
    for part in (
        *(shown.result(summary), shown.sight(summary), shown.masks_command(facts), shown.machine(account)),
        *(shown.times(account), shown.settings(config), rows.command(facts), shown.repeating_command(facts)),
    ):
        readable(part)
    for steps, values in curves_of(metrics if isinstance(metrics, dict) else {}).values():
        assert len(steps) == len(values)


LINE = "python src/main.py --config=kd_student --env-config=mpe"


@pytest.mark.parametrize(
    ("line", "repeats"),
    [
        (LINE, f"{LINE} with seed=5 'teacher=/a b/400'"),
        (f"{LINE} with limits=lh", f"{LINE} with limits=lh seed=5 'teacher=/a b/400'"),
        (f"{LINE} with seed=5", f"{LINE} with seed=5 'teacher=/a b/400'"),
        (f"{LINE} with teacher=train seed=5", f"{LINE} with teacher=train seed=5"),
        (f"{LINE} with 'a=", f"{LINE} with 'a="),
        ("", ""),
    ],
)
def test_a_command_repeats_its_run_with_the_seed_and_the_teacher_that_it_had(line, repeats):
    config = {"command": line, "seed": 5, "learner": "kd_mappo_student"}
    facts = Facts(config, {}, {}, lineage={"teacher": {"path": "/a b/400"}})
    assert shown.repeating_command(facts) == repeats
    assert rows.command(facts) == line, "processes are known by it"


def test_a_teacher_and_a_seed_are_also_taken_from_the_result():
    """Older runs have no lineage, and one that went on has its checkpoint's seed."""
    summary = {"seed": 9, "teacher_artifact": {"path": "zoo/t"}}
    config = {"command": LINE, "seed": 5, "learner": "kd_mappo_student"}
    assert shown.repeating_command(Facts(config, {}, summary)) == f"{LINE} with seed=9 teacher=zoo/t"
    assert shown.repeating_command(Facts({**config, "learner": "ppo_learner"}, {}, summary)) == f"{LINE} with seed=9"


def test_the_result_of_a_student_is_the_table_that_its_run_has_printed(tmp_path):
    folder = report_runs.put(tmp_path, 1, score=0.8, teacher=0.9)
    result = shown.result(json.loads((folder / "summary.json").read_text()))
    cells = {row[0]: row[1:] for row in result["rows"]}
    assert cells["win rate"] == ["90.0 %", "80.0 %", "0.0 %"]
    assert cells["retention"] == ["-", "88.9 %", "-"]
    assert cells["parameters of an agent"] == ["400,000", "7,000", "-"]


def test_the_result_of_a_stock_algorithm_has_its_scores_and_costs(tmp_path):
    folder = report_runs.put(tmp_path, 1, method="qmix", score=0.25)
    result = shown.result(json.loads((folder / "summary.json").read_text()))
    assert result["columns"] == ["", "qmix"]
    assert ["win rate", "25.0 %"] in result["rows"]
    assert ["parameters of an agent", "5,000"] in result["rows"]


def test_a_summary_that_is_none_of_ours_is_said_to_be_damaged():
    assert shown.result({"student": 3})["columns"][1] == "damaged"
    huge = {"policy": {"return_mean": 10**400, "return_std": 1.0}}
    assert shown.result(huge)["columns"][1] == "damaged"
    assert shown.result({}) is None


@pytest.mark.parametrize(("draw", "seen"), [(None, "3"), ([1, 2], "1 to 2"), ([5], "5"), ("x", "3")])
def test_sight_counts_what_an_agent_sees(draw, seen):
    agent = {"agent": "a", "blocks": {"E": [2, 6], "A": [1, 1]}, "observed": 7, "draw": draw}
    assert shown.sight({"sees": [agent]}) == {
        "blocks": ["E", "A"],
        "agents": [{"agent": "a", "blocks": {"E": [2, 6], "A": [1, 1]}, "seen": seen, "of": 7.0}],
    }
