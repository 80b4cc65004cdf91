"""Environment workers are watched from their start on."""

import multiprocessing
import os
import time

import pytest

from kd_core.errors import UserError
from kd_marl.processes.workers import workers_watched


def test_a_worker_that_dies_as_soon_as_it_starts_ends_the_run():
    worker = multiprocessing.get_context("fork").Process(target=os._exit, args=(3,), name="Worker-7")
    with pytest.raises(UserError, match=r"environment worker Worker-7 \(exit code 3\) died"), workers_watched():
        worker.start()
        time.sleep(60)


def test_a_worker_that_ends_well_and_one_that_starts_later_are_nobodys_concern():
    context = multiprocessing.get_context("fork")
    with workers_watched():
        context.Process(target=os._exit, args=(0,)).start()
        time.sleep(1.2)
    later = context.Process(target=os._exit, args=(3,))
    later.start()
    later.join()
    assert later.exitcode == 3
