"""Runs of the stages at tiny sizes, shared by the tests that need a teacher or an expert buffer on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from main_server import Finished, MainServer

TASK = "pz-mpe-simple-speaker-listener-v4"
BLOCK = ["batch_size_run=4", "batch_size=4", "buffer_size=4"]
# What makes each stage a matter of seconds.
TINY = {
    "kd_teacher": [*BLOCK, "hidden_dim=16", "t_max=400", "epochs=1", "test_nepisode=4", "eval_episodes=8"],
    "kd_export": [*BLOCK, "buffer_episodes=24", "shard_episodes=8"],
    "kd_student": [
        *BLOCK,
        *("buffer_episodes=24", "shard_episodes=8", "t_max=400", "save_model_interval=100", "updates_per_train=2"),
        *("minibatch_episodes=8", "test_nepisode=4", "eval_episodes=8"),
        # Of the particle environments: JAX, with which their default steps them, takes longer to start than such a run.
        "runner=parallel",
    ],
}

Run = Callable[..., Finished]


def words(config: str, results: Path, *updates: str, task: str = TASK) -> list[str]:
    """The command line of a tiny run of ours; later updates win."""
    own = [f"env_args.key={task}", f"local_results_path={results}", *TINY.get(config, [])]
    return [f"--config={config}", "--env-config=mpe", "with", *own, *updates]


@pytest.fixture(scope="session")
def mains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MainServer]:
    """Runs ``src/main.py``; on the bundled host, whatever EPYMARL_HOME says."""
    server = MainServer(tmp_path_factory.mktemp("mains"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def checkout() -> dict[str, str]:
    """The environment variable that names a real EPyMARL; without one the test is skipped."""
    home = os.environ.get("EPYMARL_HOME")
    if not home:
        pytest.skip("set EPYMARL_HOME to a checkout of EPyMARL")
    return {"EPYMARL_HOME": home}


@pytest.fixture(scope="session")
def tiny_results(mains: MainServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one tiny teacher and its expert buffer."""
    results = tmp_path_factory.mktemp("tiny")
    mains.run(*words("kd_teacher", results, "seed=1")).check()
    mains.run(*words("kd_export", results, "seed=1")).check()
    return results


@pytest.fixture(scope="session")
def tiny_teacher(tiny_results: Path) -> Path:
    """The folder of the tiny teacher: do not change it."""
    return max(tiny_results.glob("models/kd_teacher*/*/teacher.json"), key=lambda file: int(file.parent.name)).parent


@pytest.fixture(scope="session")
def tiny_buffer(tiny_results: Path) -> Path:
    """The tiny teacher's expert buffer: do not change it."""
    return next(tiny_results.glob("buffers/*/*/buffer.json")).parent
