"""Emulated boards: on six cores an agent's C plays its recording, and what it takes is within the formulas."""

from __future__ import annotations

import re
from dataclasses import replace

import boards
import pytest

from kd_core.costs.boards import board_names, read_board
from kd_core.costs.footprint import CORES, LEVELS, footprint
from kd_core.errors import UserError

CORE = pytest.mark.parametrize("core", boards.CORES, ids=lambda core: core.key)
# Above the truth at most, at the sizes of students: flash, RAM and, of int8 weights, instructions.
MOST = 1.15


def needed(core):
    """Skip where the core cannot be compiled for or emulated."""
    if tool := core.missing():
        pytest.skip(f"{tool} is not installed: make boards")
    return core


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Untrained agents with a short recording, by their sizes."""
    made = {}

    def agent(*sizes, weights="float32"):
        if (sizes, weights) not in made:
            folder = tmp_path_factory.mktemp("agent")
            made[sizes, weights] = boards.drawn_agent(sizes, folder, episodes=2, steps=3, weights=weights)
        return made[sizes, weights]

    return agent


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@CORE
def test_every_action_is_the_recorded_one_and_the_formulas_are_never_below_the_truth(tmp_path, short, core, level):
    for sizes in ((18, 32, 5), (18, 16, 5), (64, 40, 11)):
        agent = short(*sizes)
        found = boards.row(needed(core), agent, level, boards.play(core, agent, level, tmp_path))
        assert found["actions"] == 6
        assert found["flash"] <= found["flash_told"] <= MOST * found["flash"], sizes
        assert found["ram"] <= found["ram_told"] <= MOST * found["ram"], sizes
        # What the header promises, whatever the core is, and the formula for any core.
        assert found["stack"] <= found["stack_told"] == footprint(*sizes, level).stack
        # An instruction takes a cycle or more, but where two are taken at a time.
        least = 0.5 if core.key == "cortex-m7" else 1.3
        assert all(told >= least * found["instructions"] for told in found["cycles_told"].values()), sizes


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@CORE
def test_int8_takes_its_own_actions_within_its_formulas_and_far_less_without_an_fpu(tmp_path, short, core, level):
    for sizes in ((18, 32, 5), (18, 16, 5), (64, 40, 11), (5, 7, 3)):
        agent = short(*sizes, weights="int8")
        found = boards.row(needed(core), agent, level, boards.play(core, agent, level, tmp_path))
        # No float arithmetic of the compiler's, whatever the core is.
        assert found["actions"] == 6 and found["arithmetic"] == 0
        assert found["instructions"] <= found["instructions_told"] <= MOST * found["instructions"], sizes
        assert found["flash"] <= found["flash_told"] <= MOST * found["flash"], sizes
        # Of so narrow a network the stack is mostly what the compiler saves.
        assert found["ram"] <= found["ram_told"] and (sizes[1] < 16 or found["ram_told"] <= MOST * found["ram"]), sizes
        assert found["stack"] <= found["stack_told"] == footprint(*sizes, level, weights="int8").stack
        least = 0.5 if core.key == "cortex-m7" else 1.3
        assert all(told >= least * found["instructions"] for told in found["cycles_told"].values()), sizes
        if core.key in ("cortex-m0plus", "rv32imc") and sizes[1] in (16, 32):
            in_float = boards.play(core, short(*sizes), level, tmp_path)
            assert 6 * found["instructions"] <= in_float["instructions"]
            assert found["flash"] <= 0.45 * in_float["flash"]


def test_an_untrained_network_decides_alike_with_int8_weights(tmp_path):
    agent = boards.drawn_agent((18, 32, 5), tmp_path / "agent", weights="int8")
    assert 0.99 <= agent.agreement <= 1.0


@pytest.mark.slow
@CORE
def test_an_action_that_is_not_the_recorded_one_ends_it_with_one_line(tmp_path, short, core):
    agent = short(18, 16, 5)
    header = agent.episode.read_text()
    at = header.index("_record_actions[")
    first = re.compile(r"\n    (\d+),")
    broken = header[:at] + first.sub(lambda m: f"\n    {(int(m[1]) + 1) % 5},", header[at:], count=1)
    wrong = replace(agent, episode=tmp_path / "wrong.h")
    wrong.episode.write_text(broken)
    with pytest.raises(UserError, match="only 5 of 6 actions are as recorded"):
        boards.play(needed(core), wrong, "O2", tmp_path)


@pytest.mark.slow
@CORE
def test_the_counter_is_held_to_a_loop_of_known_length(tmp_path, short, core, monkeypatch):
    monkeypatch.setattr(boards, "LOOP_INSTRUCTIONS", boards.LOOP_INSTRUCTIONS + 10)
    with pytest.raises(UserError, match="a loop of 2011 instructions was counted as 200"):
        boards.play(needed(core), short(18, 16, 5), "O2", tmp_path)


@pytest.mark.slow
def test_a_warning_of_the_compiler_or_a_program_that_is_too_large_is_one_line(tmp_path, short):
    core = needed(next(core for core in boards.CORES if core.key == "cortex-m0plus"))
    agent = boards.drawn_agent((18, 16, 5), tmp_path / "agent", episodes=1, steps=2)
    with pytest.raises(UserError, match=r"\Aarm-none-eabi-gcc failed: .*flash"):
        boards.play(replace(core, flash=(0, 4096)), agent, "O2", tmp_path)
    with (agent.folder / f"{agent.prefix}.c").open("a") as program:
        program.write("static int unused;\n")
    with pytest.raises(UserError, match=r"\Aarm-none-eabi-gcc failed: [^\n]+\Z"):
        boards.play(core, agent, "O2", tmp_path)


def test_cores_are_those_of_the_formulas_and_of_the_boards():
    assert tuple(core.key for core in boards.CORES) == CORES
    have = {name: read_board(name).get("core") for name in board_names()}
    assert {name: core.key for core in boards.CORES for name in core.boards} == {k: v for k, v in have.items() if v}


def test_a_missing_compiler_or_recording_is_one_line(tmp_path, monkeypatch, capsys):
    assert boards.main(["--bundle", str(tmp_path)]) == 2
    assert "error: --bundle needs --episode" in capsys.readouterr().err
    monkeypatch.setattr(boards.shutil, "which", lambda tool: None)
    assert boards.main([]) == 2
    said = capsys.readouterr().err
    assert "RV32IMC is left out: riscv64-unknown-elf-gcc is not installed: make boards\n" in said
    assert "error: no compiler or no emulator is installed: make boards\n" in said
    with pytest.raises(UserError, match="Cortex-M4F needs arm-none-eabi-gcc"):
        boards.play(boards.CORES[0], None, "O2", tmp_path)
