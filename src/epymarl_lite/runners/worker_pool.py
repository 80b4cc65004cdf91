"""Environments in worker processes, which report their errors and never outlive this process."""

from __future__ import annotations

import multiprocessing as mp
import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import numpy as np
import torch as th

from epymarl_lite.envs.env_group import EnvFactory, EnvGroup, Outcome, Views
from epymarl_lite.runners.shared_arrays import Layout, SharedArrays
from epymarl_lite.utils.errors import ConfigError, EnvironmentFaultError, WorkerDiedError

_CLOSE_SECONDS = 5.0
_WATCH_SECONDS = 1.0


class WorkerError(RuntimeError):
    """An environment failed in its worker process; the worker's traceback is the cause."""


class WorkerPool:
    """Environments distributed in blocks over worker processes.

    A step costs one short message to each process and one back, for any number of environments. Views, rewards and
    flags are exchanged through shared memory.

    Args:
        factories: builders of the environments; sent to the workers, so picklable where processes are not forked.
        n_processes: number of processes; 0: one per available CPU core. There are never more than environments.

    Raises:
        ConfigError: ``n_processes`` is negative.
        WorkerError: an environment cannot be built.
        EnvironmentFaultError: a checked environment does what no learner can use.
        WorkerDiedError: a worker process died.
    """

    def __init__(self, factories: Sequence[EnvFactory], n_processes: int = 0) -> None:
        if n_processes < 0:
            raise ConfigError(f"runner_processes is 0 (one per core) or a number of processes, not {n_processes}")
        self.size = len(factories)
        n_processes = min(n_processes or _available_cores(), self.size)
        bounds = np.linspace(0, self.size, n_processes + 1).astype(int)
        self._blocks = [(int(low), int(high)) for low, high in pairwise(bounds)]
        self._connections: list[Connection] = []
        self._shared: list[SharedArrays] = []
        self.processes: list[Any] = []
        context = mp.get_context()
        os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")  # else pygame's workers ignore being terminated
        try:
            for low, high in self._blocks:
                ours, theirs = context.Pipe()
                arguments = (theirs, list(factories[low:high]))
                process = context.Process(target=_work, args=arguments, daemon=True)
                process.start()
                theirs.close()  # so that reading from a dead worker's pipe ends with EOFError
                self._connections.append(ours)
                self.processes.append(process)
            for worker in range(n_processes):
                self._shared.append(self._receive_shared(worker))
        except BaseException:
            self.close()
            raise

    def reset(self) -> Views:
        """Start an episode in each environment."""
        self._ask_all("reset")
        return Views(*self._gather({worker: high - low for worker, (low, high) in enumerate(self._blocks)})[:3])

    def step(self, rows: Sequence[int], actions: np.ndarray) -> Outcome:
        """Step the environments ``rows`` (ascending) with ``actions`` (k, agents)."""
        edges = np.searchsorted(rows, [low for low, _ in self._blocks] + [self.size])
        counts = {}
        for worker, (low, _) in enumerate(self._blocks):
            start, stop = edges[worker], edges[worker + 1]
            if start < stop:
                self._send(worker, ("step", [row - low for row in rows[start:stop]], actions[start:stop]))
                counts[worker] = stop - start
        replies = [self._receive(worker) for worker in counts]
        infos = [info for _, part in replies for info in part]
        *views, reward, terminated, truncated = self._gather(counts)
        return Outcome(Views(*views), reward[:, : replies[0][0]], terminated, truncated, infos)

    def _gather(self, counts: dict[int, int]) -> list[np.ndarray]:
        # Concatenation copies, since workers overwrite their memory at the next step.
        parts = [[array[:count] for array in self._shared[worker].arrays] for worker, count in counts.items()]
        return [np.concatenate(columns) for columns in zip(*parts, strict=True)]

    def call(self, method: str) -> list[Any]:
        """Call a method without arguments of every environment."""
        return [result for block in self._ask_all("call", method) for result in block]

    def close(self) -> None:
        """Close the environments and end their processes, by force if they do not."""
        for connection in self._connections:
            try:
                connection.send(("close",))
            except (OSError, ValueError):  # already dead
                continue
        deadline = time.monotonic() + _CLOSE_SECONDS
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        for connection in self._connections:
            connection.close()
        self._connections, self._shared, self.processes = [], [], []

    def _ask_all(self, *message: Any) -> list[Any]:
        for worker in range(len(self._blocks)):
            self._send(worker, message)
        return [self._receive(worker) for worker in range(len(self._blocks))]

    def _send(self, worker: int, message: tuple) -> None:
        try:
            self._connections[worker].send(message)
        except (BrokenPipeError, ConnectionResetError):
            self._receive(worker)  # raises the error that it sent, if any
            raise AssertionError("a worker that is gone has sent an answer") from None

    def _receive(self, worker: int) -> Any:
        try:
            ok, result = self._connections[worker].recv()
        except (EOFError, ConnectionResetError):
            self._died(worker)
        if isinstance(result, EnvironmentFaultError):
            raise result
        if not ok:
            last_line, text = result
            raise WorkerError(f"{self._name(worker)} failed: {last_line}") from RuntimeError(f"in the worker:\n{text}")
        return result

    def _receive_shared(self, worker: int) -> SharedArrays:
        layout = self._receive(worker)
        try:
            return SharedArrays.receive(self._connections[worker], layout)
        except (EOFError, ConnectionResetError):
            self._died(worker)

    def _died(self, worker: int) -> NoReturn:
        self.processes[worker].join(_CLOSE_SECONDS)
        code = self.processes[worker].exitcode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit status {code}"
        raise WorkerDiedError(f"{self._name(worker)} ended {how}, without a word: was it killed, or out of memory?")

    def _name(self, worker: int) -> str:
        low, high = self._blocks[worker]
        return f"the worker of environment {low}" if high - low == 1 else f"the worker of environments {low}-{high - 1}"


def _work(connection: Connection, factories: list[EnvFactory]) -> None:
    """Serve one block of environments until told to close, or until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and closes the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_with_parent, args=(os.getppid(),), daemon=True).start()
    th.set_num_threads(1)  # one core per worker; a forked OpenMP pool would hang
    _seed_globals(factories[0])
    group: EnvGroup | None = None
    try:
        group = EnvGroup(factories)
        shared = SharedArrays.new(_layout(group))
        connection.send((True, shared.layout))
        shared.send(connection)
        _serve(group, connection, shared)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    except EnvironmentFaultError as error:
        connection.send((False, EnvironmentFaultError(str(error))))
    except Exception as error:
        last_line = traceback.format_exception_only(error)[-1].strip()
        connection.send((False, (last_line, traceback.format_exc())))
    finally:
        if group is not None:
            group.close()
        connection.close()


def _layout(group: EnvGroup) -> Layout:
    """Return the layout of a step's arrays: views, rewards (at most one per agent), terminated, truncated."""
    info = group.call("get_env_info")[0]
    agents = (group.size, info["n_agents"])
    return [
        ((group.size, info["state_shape"]), "float32"),
        ((*agents, info["obs_shape"]), "float32"),
        ((*agents, info["n_actions"]), "int32"),
        (agents, "float64"),
        ((group.size,), "bool"),
        ((group.size,), "bool"),
    ]


def _serve(group: EnvGroup, connection: Connection, shared: SharedArrays) -> None:
    """Answer until told to close; a step's arrays are written to memory that the parent reads after the answer."""
    while (message := connection.recv())[0] != "close":
        result = getattr(group, message[0])(*message[1:])
        if isinstance(result, Views):
            shared.write(*result)
            result = None
        elif isinstance(result, Outcome):
            views, reward, terminated, truncated, infos = result
            shared.write(*views, reward, terminated, truncated)
            result = reward.shape[1], infos
        connection.send((True, result))


def _leave_with_parent(parent: int) -> None:
    """End this process soon after its parent has ended, even if other processes hold the pipe open."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def _seed_globals(factory: EnvFactory) -> None:
    """Seed the global generators, on which environments may draw; forked workers would share one stream."""
    seed = getattr(factory, "keywords", {}).get("seed")
    if seed is not None:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        th.manual_seed(seed)


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
