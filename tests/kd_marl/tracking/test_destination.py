"""The server and its password: mistakes in one line that never shows a password, and the places where it may stand."""

from __future__ import annotations

import sys

import pytest

from kd_core import stages
from kd_core.config import parse_command
from kd_core.errors import UserError
from kd_marl.tracking import destination
from kd_marl.tracking.destination import URL_VARIABLE, find, of_run

SECRET = "mongodb://me:s3cret@example.org:27017/?authSource=admin"


@pytest.fixture(autouse=True)
def no_url(monkeypatch):
    monkeypatch.delenv(URL_VARIABLE, raising=False)


def keys(**given):
    return of_run({"tracking": "files", "tracking_url": "", "tracking_db": "kd_marl"}, given)


def test_files_are_enough_unless_a_run_asks_for_more(monkeypatch):
    monkeypatch.setenv(URL_VARIABLE, SECRET)
    assert keys() is None


@pytest.mark.parametrize("url", ["localhost:27017", "mongodb://localhost:27017", "mongodb+srv://example.org"])
def test_a_server_is_named_by_its_url_or_by_host_and_port(url):
    found = keys(tracking="mongo", tracking_url=url, tracking_db="thesis")
    assert found.url == (url if "://" in url else f"mongodb://{url}") and found.database == "thesis"


def test_a_password_comes_from_the_environment_or_from_a_file_of_ones_own(monkeypatch, tmp_path):
    monkeypatch.setenv(URL_VARIABLE, SECRET)
    found = keys(tracking="mongo")
    assert (found.url, found.server) == (SECRET, "example.org:27017") and "s3cret" not in repr(found)
    file = tmp_path / "mongo-url"
    file.write_text(f"{SECRET}-of-file\n")
    file.chmod(0o600)
    assert keys(tracking="mongo", tracking_url=str(file)).url == f"{SECRET}-of-file"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tracking": "foo"}, "tracking=foo: expected files or mongo"),
        ({"tracking": "mong"}, "did you mean 'mongo'"),
        ({"tracking": "mongo"}, "no MongoDB server is named: give tracking_url.*or set KD_MARL_MONGO_URL"),
        ({"tracking": "mongo", "tracking_url": "http://localhost"}, "names no MongoDB server"),
        ({"tracking": "mongo", "tracking_url": "mongodb://"}, "names no MongoDB server"),
        ({"tracking": "mongo", "tracking_url": "localhost:port"}, "mongodb://localhost:port cannot be read"),
        ({"tracking": "mongo", "tracking_url": "localhost:99999"}, "cannot be read"),
        ({"tracking": "mongo", "tracking_url": "mongodb://localhost/?replicaSet"}, "cannot be read"),
        ({"tracking": "mongo", "tracking_url": "/no/such/file"}, "cannot be read: No such file"),
        ({"tracking": "mongo", "tracking_url": "localhost", "tracking_db": "a b"}, "'a b' names no database"),
        (
            {"tracking": "mongo", "tracking_url": "mongodb://localhost/?tls=true&tlsCAFile=/no"},
            "tlsCAFile, that cannot be read",
        ),
        ({"tracking": "mongo", "tracking_url": "localhost", "tracking_db": "a.b"}, "names no database"),
        ({"tracking": "mongo", "tracking_url": "localhost", "tracking_db": "\udcff"}, "names no database"),
        ({"tracking": "mongo", "tracking_url": "localhost", "tracking_db": ""}, "names no database"),
        ({"tracking": "mongo", "tracking_url": "localhost", "tracking_db": "x" * 64}, "expected 1 to 63"),
        ({"tracking": "mongo", "tracking_url": "localhost", "tracking_db": "admin"}, "MongoDB's own database"),
        ({"tracking": "mongo", "tracking_url": SECRET}, "holds a password, which would be recorded"),
        ({"tracking": "mongo", "tracking_url": "me:s3cret@localhost"}, "holds a password"),
        ({"tracking": "mongo", "tracking_url": "mongodb://me:s3cret?/@localhost"}, "holds a password"),
        ({"tracking": "mongo", "tracking_url": "localhost/?tlsCertificateKeyFilePassword=s3cret"}, "holds a password"),
        ({"tracking": "files", "tracking_url": SECRET}, "holds a password"),
    ],
)
def test_a_mistake_is_one_line_without_the_password(given, message):
    with pytest.raises(UserError, match=message) as caught:
        keys(**given)
    assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("mode", "message"), [(0o644, "chmod 600"), (0o660, "chmod 600"), (0o600, "holds no URL")])
def test_a_file_that_others_read_or_that_holds_no_url_is_refused(tmp_path, mode, message):
    file = tmp_path / "url"
    file.write_text("mongodb://me:s3cret@localhost and more")
    file.chmod(mode)
    with pytest.raises(UserError, match=message) as caught:
        find(str(file), "kd", "--url", "--db")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("password", ["s3cret/", "1234/s3cret", "1234?s3cret", "s3cret@"])
def test_a_url_of_the_environment_that_cannot_be_read_is_not_shown(monkeypatch, password):
    # A number before the / or ? would pass for a port.
    monkeypatch.setenv(URL_VARIABLE, f"mongodb://me:{password}@localhost:27017")
    with pytest.raises(UserError, match="cannot be read") as caught:
        keys(tracking="mongo")
    assert "s3cret" not in str(caught.value) and "1234" not in str(caught.value)


def test_without_pymongo_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymongo", None)
    with pytest.raises(UserError, match=r"pymongo, which is not installed: pip install -e '\.\[track\]'"):
        keys(tracking="mongo", tracking_url="localhost")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-m", "localhost:27017:kd", "with", "seed=1"], ("localhost:27017", "kd")),
        (["with", "seed=1", "-m", "localhost:27017:kd"], ("localhost:27017", "kd")),
        (["--mongo_db=localhost:27017:kd"], ("localhost:27017", "kd")),
        (["-m", "example.org:27018"], ("example.org:27018", None)),
        (["-m", "kd"], ("localhost:27017", "kd")),
    ],
)
def test_sacreds_own_flag_means_the_keys(words, expected):
    command = parse_command(["--config=mappo", "--env-config=mpe", *words])
    updates = command.updates
    assert (updates["tracking"], updates["tracking_url"], updates.get("tracking_db")) == ("mongo", *expected)
    assert command.sacred_arguments.count("with") == 1 and "-m" not in command.sacred_arguments
    # What the run records of itself repeats it.
    assert f"tracking_url={expected[0]}" in command.line


def test_the_runs_that_a_run_needs_first_are_tracked_alike():
    assert all(stages.is_shared(key) for key in ("tracking", "tracking_url", "tracking_db"))


def test_with_a_url_in_the_environment_the_flag_names_the_database_alone(monkeypatch):
    monkeypatch.setenv(destination.URL_VARIABLE, SECRET)
    updates = parse_command(["--config=mappo", "--env-config=mpe", "-m", "kd"]).updates
    assert "tracking_url" not in updates and keys(**updates).url == SECRET


@pytest.mark.parametrize(
    "form", ["tracking: mongo\ntracking_url: {}\n", '{{"tracking": "mongo", "tracking_url": "{}"}}']
)
def test_a_file_of_values_tracks_a_run_but_holds_no_password(tmp_path, form):
    file = tmp_path / "values.yaml"
    file.write_text(form.format("localhost:27017"))
    words = ["--config=mappo", "--env-config=mpe", "with", str(file)]
    assert keys(**parse_command(words).updates).url == "mongodb://localhost:27017"
    assert parse_command([*words, "tracking=files"]).updates["tracking"] == "files"
    file.write_text(form.format(SECRET))
    with pytest.raises(UserError, match="holds a password"):
        keys(**parse_command(words).updates)


@pytest.mark.parametrize("flag", ["me:s3cret@localhost:27017:kd", "", "localhost:27017:kd.runs:3", "kd!5", "a:b:c:d"])
def test_what_the_flag_cannot_mean_is_one_line(flag):
    with pytest.raises(UserError, match="takes HOST:PORT:DB or DB") as caught:
        parse_command(["--config=mappo", "--env-config=mpe", "-m", flag])
    assert "s3cret" not in str(caught.value)
