"""The command `kd-marl dashboard`: it says where the page is, mistakes in one line, and ends quietly."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from dashboard_runs import put
from kd_marl.cli import main

PASSWORD = "s3cret"
# Runs the command where a package is not installed.
HIDE = """
import sys
from kd_marl.cli import main

class Missing:
    def find_spec(name, path=None, target=None):
        if name == {package!r}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def started(tmp_path):
    """Start the command; ended with the test."""
    processes = []

    def start(*words):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = subprocess.Popen(
            [sys.executable, "-m", "kd_marl.cli", "dashboard", "--port", "0", "--no-browser", *map(str, words)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_the_page_is_and_ends_quietly(started, tmp_path, number):
    put(tmp_path / "results", 1)
    process = started("results")
    assert process.stdout.readline().strip() == str(tmp_path / "results")
    address = re.match(r"(http://127\.0\.0\.1:\d+/)  \(Ctrl-C ends it\)", process.stdout.readline())[1]
    with urllib.request.urlopen(address, timeout=60) as page:
        assert b"kd-marl" in page.read()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("", "")
    assert process.returncode == (0 if number == signal.SIGINT else -number)


def test_a_port_that_is_taken_is_one_line(tmp_path, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["dashboard", str(tmp_path), "--port", str(port), "--no-browser"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: port {port} of this machine cannot be used (Address already in use)")
    assert f"--port {port + 1}" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing-here"], "there is no folder nothing-here: give a results folder, for example results"),
        (["{here}", "--port", "70000"], "--port is 70000: give a number from 0"),
        (["{here}", "--suite", "none.yaml"], "there is no file none.yaml"),
        (["--db", "kd"], "--db names a database of a server: give --mongo URL too"),
        (["{here}", "--mongo", "mongodb://127.0.0.1", "--db", "kd"], "give a results folder or a database, not both"),
        (["--mongo", "--db", "kd"], "no MongoDB server is named: give --mongo, for example"),
        (
            ["--mongo", f"mongodb://me:{PASSWORD}@127.0.0.1", "--db", "kd"],
            "put the URL into the environment as KD_MARL_MONGO_URL",
        ),
        (
            ["--mongo", "http://127.0.0.1", "--db", "kd"],
            "--mongo names no MongoDB server: expected mongodb://HOST:PORT",
        ),
        (["--mongo", "mongodb://127.0.0.1", "--db", "a/b"], "--db 'a/b' names no database"),
        (["--mongo", "mongodb://127.0.0.1", "--db", "kd", "--suite", "x.yaml"], "--suite is for a results folder"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.delenv("KD_MARL_MONGO_URL", raising=False)
    assert main(["dashboard", *(word.format(here=tmp_path) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert PASSWORD not in error


@pytest.mark.parametrize(("package", "extra", "words"), [
    ("uvicorn", "dashboard", []), ("starlette", "dashboard", []), ("plotly", "dashboard", []),
    ("pymongo", "track", ["--mongo", "mongodb://127.0.0.1", "--db", "kd"]),
])  # fmt: skip
def test_a_missing_package_is_one_line_with_its_extra(tmp_path, package, extra, words):
    hide = HIDE.format(package=package)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", hide, "dashboard", "--no-browser", *(words or [str(tmp_path)])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    what = "MongoDB" if package == "pymongo" else "this"
    assert done.stderr == (
        f"error: {what} needs {package}, which is not installed: pip install -e '.[{extra}]' in kd-marl's checkout\n"
    )


def test_help_ends_with_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["dashboard", "--help"])
    assert capsys.readouterr().out.split("example:\n")[1].startswith("  kd-marl dashboard results\n")


def test_without_a_folder_it_takes_results(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["dashboard"]) == 2
    assert "there is no folder results:" in capsys.readouterr().err


def test_it_listens_on_loopback_only(started, tmp_path):
    process = started(tmp_path)
    process.stdout.readline()
    port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
    listening = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        if state == "0A" and int(local.split(":")[1], 16) == port:
            listening.append(local.split(":")[0])
    assert listening == ["0100007F"]
