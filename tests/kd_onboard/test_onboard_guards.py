"""An agent's last lines of defence: a program that is not its own, a choice that is none, numbers that are hidden."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from deployed import FLAGS, compiler, network, write_c
from kd_marl.deploy import export as exporting
from kd_onboard import BackendError, BundleError, FaultError, OnboardAgent, TrustError, read_bundle, serve
from kd_onboard.c_backend import compile_agent
from onboard_bundles import ACTIONS, LIMIT, SEEN, WIDTHS, change_profile, student, write_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundles") / "spread")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ONBOARD_CACHE", str(tmp_path / "compiled"))


def compiled(sources, prefix):
    """A shared library of a toy network's sources."""
    command = [compiler(), *FLAGS, "-O2", "-shared", "-fPIC", f"{prefix}.c", "-o", "agent.so"]
    subprocess.run(command, cwd=sources, check=True)
    return sources / "agent.so"


def test_a_program_of_an_earlier_export_is_refused(folder, tmp_path):
    """It has the same symbols and sizes, loads, and would choose other actions."""
    compiler()
    exporting.export(student(seed=1), tmp_path / "earlier", LIMIT, None, exporting.Options(int8=False, latency=False))
    earlier, now = read_bundle(tmp_path / "earlier"), read_bundle(folder)
    stale = shutil.copy(compile_agent(earlier, earlier.agent(0).c), tmp_path / "stale.so")
    OnboardAgent.load(earlier, 0, "c", library=stale)
    with pytest.raises(
        BackendError, match=r"stale.so does not compute the network of agent 0 .* compile the bundle's C"
    ):
        OnboardAgent.load(now, 0, "c", library=stale)


@pytest.mark.parametrize(("inputs", "actions"), [(len(SEEN[0]), ACTIONS + 4), (len(SEEN[0]) + 30, ACTIONS), (1, 2)])
def test_a_program_of_other_sizes_is_refused_and_writes_nowhere_else(folder, tmp_path, inputs, actions):
    bundle = read_bundle(folder)
    prefix = bundle.agent(0).c.prefix
    library = compiled(write_c(tmp_path / "c", network(inputs, WIDTHS[0], actions), prefix), prefix)
    with pytest.raises(BackendError, match="does not compute the network of agent 0"):
        OnboardAgent.load(bundle, 0, "c", library=library)


def test_a_program_with_the_state_of_the_first_step_only_is_refused(folder, tmp_path):
    """The comparison takes several steps, so a program that forgets is found too."""
    bundle = read_bundle(folder)
    source = tmp_path / "bundle"
    shutil.copytree(folder, source)
    path = source / "c/agent_0/kd_agent_0.c"
    text = path.read_text()
    kept = "agent->state[unit] = KD_AGENT_0_PLUS(next, gates[KD_AGENT_0_WIDTH + unit], agent->state[unit] - next);"
    assert kept in text
    path.write_text(text.replace(kept, kept.replace("agent->state[unit] - next", "0.0f - next")))
    library = compiled(source / "c/agent_0", bundle.agent(0).c.prefix)
    with pytest.raises(BackendError, match="does not compute"):
        OnboardAgent.load(bundle, 0, "c", library=library)


def test_a_program_that_takes_features_as_they_come_is_refused(folder, tmp_path):
    """Agents of this backend do not look at them: it takes longer than the decision."""
    bundle = read_bundle(folder)
    source = tmp_path / "bundle"
    shutil.copytree(folder, source)
    path = source / "c/agent_0/kd_agent_0.c"
    text = path.read_text()
    tested = "        return KD_AGENT_BAD_FEATURE;\n"
    assert tested in text
    path.write_text(text.replace(tested, "        return 0;\n"))
    library = compiled(source / "c/agent_0", bundle.agent(0).c.prefix)
    with pytest.raises(BackendError, match="does not compute"):
        OnboardAgent.load(bundle, 0, "c", library=library)


class Stubborn:
    """A backend that always chooses the same."""

    tests_features = False

    def __init__(self, profile, action):
        self.features, self.available = np.zeros(profile.inputs, np.float32), np.zeros(profile.n_actions, bool)
        self.action = action

    def reset(self):
        pass

    def decide(self):
        return self.action


@pytest.mark.parametrize("action", [1, ACTIONS, 99])
def test_an_action_that_is_not_available_is_never_taken(folder, action):
    profile = read_bundle(folder).agent(0)
    available = np.arange(ACTIONS) != 1
    with pytest.raises(FaultError, match=f"chose action {action}, which is not available"):
        OnboardAgent(profile, Stubborn(profile, action), "raise").act(np.zeros(3, np.float32), available)
    noop = OnboardAgent(profile, Stubborn(profile, action), "noop")
    assert noop.act(np.zeros(3, np.float32), available) == profile.noop_action and noop.faults == 1


def test_what_a_masked_array_hides_is_a_fault(folder):
    runner = OnboardAgent.load(folder, 0)
    everything = np.ones(ACTIONS, bool)
    plain = np.ma.masked_array([1.0, 2.0, 3.0])
    assert runner.act(plain, everything) in range(ACTIONS)
    with pytest.raises(FaultError, match=r"feature 1 \(.+\) is nan"):
        runner.act(np.ma.masked_array([1.0, 2.0, 3.0], mask=[0, 1, 0]), everything)
    with pytest.raises(FaultError, match="not all 0 or 1"):
        runner.act(plain, np.ma.masked_array(everything, mask=~everything | (np.arange(ACTIONS) == 2)))


@pytest.mark.parametrize("left", [0, 1000], ids=["nothing", "a part"])
def test_a_cached_program_that_lost_its_end_is_compiled_again(folder, tmp_path, monkeypatch, left):
    """To load it would end the process with SIGBUS, so it is not loaded first."""
    monkeypatch.setenv("KD_ONBOARD_CACHE", str(tmp_path / "cache"))
    bundle = read_bundle(folder)
    library = compile_agent(bundle, bundle.agent(0).c)
    library.write_bytes(library.read_bytes()[:left])
    agent = OnboardAgent.load(folder, 0, "c", trust=True)
    assert 0 <= agent.act(np.zeros(agent.profile.inputs, np.float32), np.ones(ACTIONS, bool)) < ACTIONS
    assert library.stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "message"),
    [("agent_1", "calls two agents 'agent_1', 0 and 1"), ("1", "calls agent 0 '1', which is another agent's number")],
)
def test_no_agent_can_be_taken_for_another(tmp_path, name, message):
    bundle = write_bundle(tmp_path / "bundle")
    change_profile(bundle, lambda profile: profile["agents"][0].update(name=name))
    with pytest.raises(BundleError, match=message):
        read_bundle(bundle)
    change_profile(bundle, lambda profile: profile["agents"][0].update(name="0"))
    assert read_bundle(bundle).agent("0").index == 0


def test_a_path_that_no_file_can_have_is_one_line(folder):
    with pytest.raises(TrustError, match="embedded null"):
        OnboardAgent.load(folder, 0, key="a\0b")
    with pytest.raises(BackendError, match="embedded null"):
        OnboardAgent.load(folder, 0, "c", library="a\0b")


@pytest.mark.parametrize("error", [KeyError, AttributeError, MemoryError])
def test_what_fails_to_become_an_array_is_a_fault(folder, error):
    class Reading:
        def __array__(self, *_, **__):
            raise error("no reading")

    with pytest.raises(FaultError, match=r"features of shape \(\) given"):
        OnboardAgent.load(folder, 0).act(Reading(), np.ones(ACTIONS, bool))


@pytest.mark.parametrize("slots", ["0", "-1", "65537"])
def test_a_process_without_slots_is_refused(folder, slots, capsys):
    with pytest.raises(SystemExit):
        serve.main([str(folder), "--agent", "0", "--slots", slots])
    assert f"--slots {slots}: expected a whole number from 1 to 65536" in capsys.readouterr().err
