"""`python src/main.py` with a database, on both hosts: runs of all stages, their parents, and no password anywhere."""

from __future__ import annotations

import pytest

import tracked_runs
from stage_fixtures import words
from tracked_runs import bring_up, content, curves

ACCOUNT = "kd_marl:s3cret-of-this-test"


@pytest.fixture
def host(request):
    return {} if request.param == "bundled" else request.getfixturevalue("checkout")


@pytest.mark.slow
@pytest.mark.parametrize("host", ["bundled", "checkout"], indirect=True)
def test_all_stages_are_in_the_database_with_their_parents_and_without_the_password(host, mains, tmp_path):
    with tracked_runs.served(ACCOUNT) as server:
        database = server.empty()
        variables = {**host, "KD_MARL_MONGO_URL": f"mongodb://{ACCOUNT}@{server.address}"}
        by_keys = ["tracking=mongo", f"tracking_db={database.name}", "seed=1"]
        by_flag = ["seed=1", "-m", database.name]
        ended = [
            mains.run(*words("kd_teacher", tmp_path, *by_keys), env=variables).check(),
            mains.run(*words("kd_export", tmp_path, *by_keys), env=variables).check(),
            mains.run(*words("kd_student", tmp_path, "save_model=True", *by_flag), env=variables).check(),
            mains.run(*words("iql", tmp_path, "t_max=100", "test_nepisode=1", *by_keys), env=variables).check(),
        ]
        runs = {run["info"]["stage"]: run for run in database["runs"].find()}
        assert {stage: run["status"] for stage, run in runs.items()} == dict.fromkeys(
            ("teacher", "buffer", "student", "stock"), "COMPLETED"
        )
        numbers = {stage: run["_id"] for stage, run in runs.items()}
        assert runs["buffer"]["info"]["parents"] == {"teacher": numbers["teacher"]}
        assert runs["student"]["info"]["parents"] == {stage: numbers[stage] for stage in ("teacher", "buffer")}
        assert runs["student"]["result"] == ended[2].summary["student"]["return_mean"]
        assert {"summary.json", "actions.safetensors"} <= {file["name"] for file in runs["student"]["artifacts"]}
        for run in runs.values():
            names = {entry["name"] for entry in run["info"]["metrics"]}
            assert names and names == set(curves(database, run["_id"])) and not names & set(run["info"])
        folders = [file.parent for file in (tmp_path / "sacred").rglob("run.json")]
        assert [bring_up(database, folder) for folder in folders] == [False] * 4
        texts = [str(content(database)), *(run.out + run.err for run in ended)]
    texts += [file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file()]
    assert len(texts) > 20 and not [text for text in texts if "s3cret" in text]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["tracking=foo"], "tracking=foo: expected files or mongo"),
        (["tracking=mongo", "tracking_url=mongodb://me:s3cret@localhost"], "tracking_url holds a password"),
        (["-m", "me:s3cret@localhost:27017:kd"], "takes HOST:PORT:DB or DB"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_recorded(mains, tmp_path, given, message):
    ended = mains.run(*words("mappo", tmp_path, *given))
    assert message in ended.error and "s3cret" not in ended.out + ended.err
    assert not list(tmp_path.iterdir())
