"""Importing without looking for garbage, and as it was before."""

from __future__ import annotations

import gc

import pytest

from kd_core.imports import uncollected


@pytest.mark.parametrize("before", [True, False])
def test_no_garbage_is_looked_for_meanwhile_and_afterwards_all_is_as_before(before):
    was = gc.isenabled()
    (gc.enable if before else gc.disable)()
    try:
        with pytest.raises(ImportError), uncollected():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() is before
    finally:
        (gc.enable if was else gc.disable)()
