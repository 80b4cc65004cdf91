"""The C of an agent under sanitizers, given what no caller should give: nothing is read, written or computed amiss."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from deployed import episodes, network, write_c
from kd_controllers.talking_net import TalkingStep
from kd_marl.deploy.weights import agent_weights
from kd_onboard import int8
from kd_onboard.profile import AgentMessages

DRIVER = Path(__file__).parents[2] / "helpers" / "hostile.c"
SIZES = (5, 7, 3)
INPUTS = 200_000
EVERYTHING = "address,undefined,float-cast-overflow"
BUILDS = [("gcc", EVERYTHING), ("clang", EVERYTHING), ("clang", "memory")]


def built(folder, compiler, *flags):
    """The driver, compiled with the program in a folder; the test is skipped where a sanitizer is not installed."""
    found = shutil.which(compiler)
    if found is None:
        pytest.skip(f"{compiler} is not installed: make boards")
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    words = [
        found,
        "-std=c99",
        "-g",
        "-O1",
        "-DKD_AGENT_SELF_TEST",
        *flags,
        "-fno-sanitize-recover=all",
        "-I",
        str(folder),
    ]
    tried = subprocess.run([*words, "empty.c", "-o", "empty"], cwd=folder, capture_output=True)
    if tried.returncode or subprocess.run([folder / "empty"], capture_output=True).returncode:
        pytest.skip(f"{compiler} {' '.join(flags)} does not run here")
    sources = [str(DRIVER), "kd_agent_0.c"]
    subprocess.run([*words, *sources, "-o", "hostile"], cwd=folder, check=True)
    return folder / "hostile"


def survives(program, inputs, seed=1):
    """Whether it ends well; the number of actions that it took."""
    words = [program, str(inputs), str(seed), str(program.parent / "kd_agent_0_weights.bin")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr[:2000]
    return int(done.stdout)


def written(folder, kind):
    """The C of a network with float32 or int8 weights, or of one that hears two others and is heard."""
    step = network(*SIZES)
    calibration = messages = None
    if kind == "int8":
        calibration = int8.calibrate(agent_weights(step), episodes(SIZES[0], SIZES[2], count=1, length=30)[0][0])
    elif kind in ("talking", "numbers"):
        size = {"bits": 11} if kind == "talking" else {"bits": 20, "number_bits": 4}
        messages = AgentMessages(every=2, latency=1, hears=(1, 2), heard_by=(1,), **size)
        step = TalkingStep(*SIZES, *messages.exchanged).eval()
    return write_c(folder, step, on_fault="hold", calibration=calibration, messages=messages)


FORMS = {
    "fast": (),
    "lean": ("-DKD_AGENT_LEAN_STACK",),
    "loadable": ("-DKD_AGENT_LOADABLE",),
    "wide": ("-march=native",),
}
TRIED = [
    *(("float32", form) for form in FORMS),
    *((kind, form) for kind in ("int8", "talking", "numbers") for form in ("fast", "lean")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "form"), TRIED, ids=[" ".join(pair) for pair in TRIED])
@pytest.mark.parametrize(("compiler", "sanitizers"), BUILDS, ids=["gcc", "clang", "clang memory"])
def test_sanitizers_find_nothing_in_hostile_inputs(tmp_path, compiler, sanitizers, kind, form):
    folder = written(tmp_path, kind)
    acted = survives(built(folder, compiler, f"-fsanitize={sanitizers}", *FORMS[form]), INPUTS)
    assert INPUTS / 10 < acted < INPUTS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("row < KD_AGENT_0_WIDTH", "row <= KD_AGENT_0_WIDTH"),
        ("(number.bits & ~KD_AGENT_0_SIGN) > limit", "(number.bits & ~KD_AGENT_0_SIGN) > 0x7f800000u"),
        ("if (available[action]) {", "if (1) {"),
        ("byte < KD_AGENT_0_MESSAGE_BYTES", "byte <= KD_AGENT_0_MESSAGE_BYTES"),
        ("speaker < KD_AGENT_0_HEARS", "speaker <= KD_AGENT_0_HEARS"),
    ],
    ids=["beyond the end", "infinity", "not available", "beyond the outbox", "beyond the inbox"],
)
def test_the_driver_finds_what_is_planted(tmp_path, right, wrong):
    written(tmp_path, "talking")
    source = tmp_path / "kd_agent_0.c"
    assert right in source.read_text()
    source.write_text(source.read_text().replace(right, wrong))
    with pytest.raises(AssertionError):
        survives(built(tmp_path, "gcc", f"-fsanitize={EVERYTHING}", "-DKD_AGENT_LEAN_STACK"), 20_000)
