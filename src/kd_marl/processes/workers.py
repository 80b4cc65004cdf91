"""Environment workers, watched while a run lasts."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any

from kd_core.errors import UserError
from kd_core.host import get_host


@contextlib.contextmanager
def workers_watched() -> Iterator[None]:
    """End the run when an environment worker dies: EPyMARL's parallel runner would wait for it for ever.

    A signal of our own, because only a real one ends the main thread's wait for a pipe.

    Raises:
        UserError: a worker died, or the host says plainly what is wrong.
    """
    stop = threading.Event()
    workers: list[BaseProcess] = []
    dead: list[str] = []
    start = BaseProcess.start

    def noted(process: BaseProcess) -> None:
        # From its start on: one that dies at once is no longer among multiprocessing's children at the next look.
        start(process)
        workers.append(process)

    def watch() -> None:
        while not stop.wait(0.5):
            dead.extend(f"{p.name} (exit code {p.exitcode})" for p in workers if p.exitcode not in (None, 0))
            if dead:
                # Let an error that the runner itself noticed come first.
                time.sleep(2.0)
                if not stop.is_set():
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                return

    def give_up(*_: Any) -> None:
        raise UserError(f"environment worker {dead[0]} died; its own error, if it had one, is printed above")

    before = signal.signal(signal.SIGUSR1, give_up)
    threading.Thread(target=watch, daemon=True).start()
    BaseProcess.start = noted  # type: ignore[assignment]
    try:
        yield
    except get_host().plain_errors as error:
        raise UserError(str(error)) from None
    finally:
        stop.set()
        BaseProcess.start = start  # type: ignore[method-assign]
        signal.signal(signal.SIGUSR1, before)
