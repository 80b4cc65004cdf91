"""The C of a bundle's agents in a browser: as WebAssembly it decides as it did when the episode was recorded."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from browser import browser_page
from kd_marl.cli import main
from kd_marl.deploy import wasm
from kd_onboard import read_bundle

LIVE = """() => {
  const found = [];
  for (let agent = 0; agent < watch.film.agents.length; agent++) {
    const steps = watch.live(0, agent), take = watch.takes()[0];
    found.push(steps.map((step, t) => [step.action, take.actions.at(t, agent), step.logits.length]));
  }
  return found;
}"""


@pytest.fixture(autouse=True)
def linker():
    if shutil.which("wasm-ld") is None or shutil.which("clang") is None:
        pytest.skip("clang or lld is not installed: make boards")


@pytest.mark.slow
def test_the_students_decide_again_in_the_page_and_a_difference_is_marked(tiny_bundle, tmp_path):
    file = tmp_path / "live.html"
    assert main(["watch", str(tiny_bundle), "--episodes", "2", "--wasm", "--to", str(file)]) == 0
    agents = read_bundle(tiny_bundle).agents
    with browser_page(file.as_uri()) as opened:
        tab = opened.page
        tab.wait_for_selector(".live")
        for episode in range(2):
            tab.evaluate(f"watch.choose({episode})")
            found = tab.evaluate(LIVE)
            assert [len(steps) for steps in found] == [25, 25]
            for steps, agent in zip(found, agents, strict=True):
                assert all(live == recorded and count == agent.n_actions for live, recorded, count in steps)
        assert "so does its C in this page" in tab.inner_text(".live")
        assert "logits: " in tab.get_attribute(".live", "title") and not tab.query_selector(".live.differs")
        tab.evaluate("watch.takes()[0].actions.at = () => 99; watch.go(3)")
        assert "its C in this page does" in tab.inner_text(".live.differs")
        assert not opened.complaints and not opened.outside(file.as_uri())


def test_a_page_without_programs_of_bundles_is_refused(tmp_path, capsys):
    told = ["watch", str(tmp_path), "--wasm"]
    assert main([*told, "--fail-sensor", "0:A"]) == 2
    assert "--wasm is for a page of undisturbed episodes" in capsys.readouterr().err
    assert main([*told, "--gif", "film.gif"]) == 2
    assert "--wasm is for a page of undisturbed episodes" in capsys.readouterr().err


@pytest.mark.parametrize("tool", ["clang", "wasm-ld"])
def test_a_compiler_that_is_missing_is_named(tiny_bundle, monkeypatch, tool):
    found = shutil.which
    monkeypatch.setattr(wasm.shutil, "which", lambda name: None if name == tool else found(name))
    bundle = read_bundle(tiny_bundle)
    with pytest.raises(wasm.UserError, match=f"WebAssembly needs {tool}, which is not installed"):
        wasm.compile_wasm(bundle, bundle.agents[0])


def test_a_program_that_talks_is_refused(tiny_bundle):
    bundle = read_bundle(tiny_bundle)
    with pytest.raises(wasm.UserError, match=r"agent 0 .* hears or sends messages"):
        wasm.compile_wasm(bundle, replace(bundle.agents[0], messages=object()))
