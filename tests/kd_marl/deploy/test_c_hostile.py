"""The C of an agent under sanitizers, given what no caller should give: nothing is read, written or computed amiss."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from deployed import episodes, network, write_c
from kd_marl.deploy.weights import agent_weights
from kd_onboard import int8

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
    words = [found, "-std=c99", "-g", "-O1", *flags, "-fno-sanitize-recover=all", "-I", str(folder)]
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("numbers", "form"),
    [("float32", "fast"), ("float32", "lean"), ("float32", "loadable"), ("int8", "fast"), ("int8", "lean")],
    ids=["float32 fast", "float32 lean", "float32 loadable", "int8 fast", "int8 lean"],
)
@pytest.mark.parametrize(("compiler", "sanitizers"), BUILDS, ids=["gcc", "clang", "clang memory"])
def test_sanitizers_find_nothing_in_hostile_inputs(tmp_path, compiler, sanitizers, numbers, form):
    step = network(*SIZES)
    calibration = None
    if numbers == "int8":
        calibration = int8.calibrate(agent_weights(step), episodes(SIZES[0], SIZES[2], count=1, length=30)[0][0])
    write_c(tmp_path, step, on_fault="hold", calibration=calibration)
    flags = {"fast": (), "lean": ("-DKD_AGENT_LEAN_STACK",), "loadable": ("-DKD_AGENT_LOADABLE",)}[form]
    acted = survives(built(tmp_path, compiler, f"-fsanitize={sanitizers}", *flags), INPUTS)
    assert INPUTS / 10 < acted < INPUTS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("row < KD_AGENT_0_WIDTH", "row <= KD_AGENT_0_WIDTH"),
        ("(number.bits & ~KD_AGENT_0_SIGN) > limit", "(number.bits & ~KD_AGENT_0_SIGN) > 0x7f800000u"),
        ("if (available[action]) {", "if (1) {"),
    ],
    ids=["beyond the end", "infinity", "not available"],
)
def test_the_driver_finds_what_is_planted(tmp_path, right, wrong):
    write_c(tmp_path, network(*SIZES))
    source = tmp_path / "kd_agent_0.c"
    assert right in source.read_text()
    source.write_text(source.read_text().replace(right, wrong))
    with pytest.raises(AssertionError):
        survives(built(tmp_path, "gcc", f"-fsanitize={EVERYTHING}", "-DKD_AGENT_LEAN_STACK"), 20_000)
