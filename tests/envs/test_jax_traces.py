"""Traces of compiled functions that outlive a run."""

import numpy as np
import pytest

pytest.importorskip("jaxmarl", reason="batches in JAX need the extra smax")

from kd_envs.jax_traces import compiled


def double(name, built):
    """The compiled function that doubles, and notes when it is traced."""

    def build():
        built.append(name)
        return lambda numbers: {"twice": 2 * numbers}

    return compiled(name, build, np.zeros(3, np.float32))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    return tmp_path / "traces"


def doubles(function):
    return np.asarray(function(np.array([1, 2, 3], np.float32))["twice"]).tolist() == [2.0, 4.0, 6.0]


def test_a_function_is_traced_once_and_then_read(folder):
    built = []
    assert doubles(double("a", built)) and doubles(double("a", built)) and built == ["a"]
    assert doubles(double("b", built)) and built == ["a", "b"]
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"no trace", None])
def test_a_damaged_trace_is_made_anew(folder, content):
    built = []
    double("a", built)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert doubles(double("a", built)) and built == ["a", "a"]
    assert doubles(double("a", built)) and built == ["a", "a"]


def test_without_a_folder_nothing_is_kept(folder, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    built = []
    assert doubles(double("a", built)) and doubles(double("a", built)) and built == ["a", "a"]
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_no_fault(folder):
    folder.write_text("a file")
    built = []
    assert doubles(double("a", built)) and built == ["a"]
