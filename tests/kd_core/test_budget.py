"""Budgets: what fits a board is told before anything is trained, and each agent is as wide as its own board allows."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deployed import compiled_bytes, network, write_c
from kd_controllers.talking_net import TalkingStep
from kd_core import checkpoints
from kd_core.costs.boards import FOLDER, board_names, read_board, read_budget
from kd_core.costs.budget import LARGEST_WIDTH, WIDTH_STEP, Budget, agent_budget, check_widths, fit_widths
from kd_core.costs.footprint import LEVELS, footprint, instructions_int8
from kd_core.errors import UserError
from kd_marl.cli import main
from kd_onboard.profile import AgentMessages
from onboard_bundles import change_profile
from stage_fixtures import words

NAMES = ("scout", "carrier", "relay")
# Compilers for boards, beside the one of this machine: tools and flags.
CORES = {
    "here": (),
    "cortex-m4f": ("arm-none-eabi", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    "cortex-m0plus": ("arm-none-eabi", "-mcpu=cortex-m0plus", "-mthumb"),
    "rv32imc": ("riscv64-unknown-elf", "-march=rv32imc", "-mabi=ilp32"),
}


def parameters(inputs, width, actions):
    """Of an aligner, a GRU and a head, counted matrix by matrix."""
    return (inputs + 1) * width + 3 * (2 * width * width + 2 * width) + (width + 1) * actions


def flops(inputs, width, actions):
    """As ptflops counts: weights, biases, the ReLU and 7 element-wise operations a unit of the GRU, each as two."""
    return 2 * (parameters(inputs, width, actions) + width + 7 * width)


def flash_bytes(inputs, width, actions):
    """Weights, with one bias a gate, and the code at -O2: 76 bytes for each line of the unrolled products."""

    def lines(rows):
        return (16 if rows >= 16 else 0) + (4 if rows % 16 >= 4 else 0) + (1 if rows % 4 else 0)

    return 4 * (parameters(inputs, width, actions) - 2 * width) + 2048 + 76 * (lines(inputs) + 5 * lines(width))


SIZES = [(1, 4, 1), (6, 8, 3), (11, 8, 5), (128, 4, 30), (18, 12, 5), (18, 44, 5), (100, 64, 14), (40, 132, 9)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("core", CORES)
def test_what_a_width_is_told_to_take_is_never_below_what_the_compiler_makes(tmp_path, core, level):
    command, size = (), "size"
    if core != "here":
        tools, *flags = CORES[core]
        gcc, size = shutil.which(f"{tools}-gcc"), f"{tools}-size"
        if gcc is None:
            pytest.skip(f"{tools}-gcc is not installed: make boards")
        command = [gcc, *flags]
    for sizes in SIZES:
        write_c(tmp_path, network(*sizes))
        flash, ram = compiled_bytes(tmp_path, sizes[1], command, size, level=level)
        # A board with a byte less than the program takes is told so, and the estimate is no guess that is never met.
        one_less = Budget(flash_bytes=flash - 1, level=level), Budget(ram_bytes=ram - 1, level=level)
        assert all(budget.excess(*sizes) for budget in one_less), sizes
        if core != "here":
            assert Budget(flash_bytes=flash - 1, level=level, core=core).excess(*sizes), sizes
        more = (7168, 1152) if level == "O2" else (1152, 256)
        assert not Budget(flash_bytes=flash + more[0], ram_bytes=ram + more[1], level=level).excess(*sizes), sizes


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("core", ["here", "rv32imc"])
def test_speaking_and_hearing_are_part_of_what_a_width_takes(tmp_path, core, level):
    command, size = (), "size"
    if core != "here":
        tools, *flags = CORES[core]
        if (gcc := shutil.which(f"{tools}-gcc")) is None:
            pytest.skip(f"{tools}-gcc is not installed: make boards")
        command, size = [gcc, *flags], f"{tools}-size"
    for width, bits, number_bits in ((8, 9, 1), (40, 32, 1), (8, 20, 2), (40, 32, 4)):
        speakers, numbers = (1, 2), bits // number_bits
        exchanged = (numbers * len(speakers), numbers, number_bits)
        step = TalkingStep(6, width, 5, *exchanged).eval()
        write_c(tmp_path, step, messages=AgentMessages(bits, 1, 1, speakers, (1,), number_bits))
        flash, ram = compiled_bytes(tmp_path, width, command, size, level=level)
        named = None if core == "here" else core
        one_less = (
            Budget(flash_bytes=flash - 1, level=level, core=named),
            Budget(ram_bytes=ram + 3, level=level, core=named),
        )
        assert all(budget.excess(6, width, 5, *exchanged) for budget in one_less), (width, bits)
        told = footprint(6, width, 5, level, named, inbox=exchanged[0], outbox=exchanged[1])
        assert told.weights == 4 * sum(parameter.numel() for parameter in step.parameters())
        assert told.flash - footprint(6, width, 5, level, named).flash >= 4 * 3 * numbers * width


def test_an_agent_that_talks_is_as_wide_as_its_board_leaves_room_beside_its_messages():
    budget = Budget(flash_bytes=30_000)
    (silent,) = fit_widths([budget], ["a"], [8], 5)
    (talking,) = fit_widths([budget], ["a"], [8], 5, exchanged=[(32, 16)])
    assert talking < silent and not budget.excess(8, talking, 5, 32, 16)
    assert budget.excess(8, talking + WIDTH_STEP, 5, 32, 16)
    with pytest.raises(UserError, match=r"of width \d+ does not fit its budget"):
        check_widths([budget], ["a"], [8], [silent], 5, exchanged=[(32, 16)])
    with pytest.raises(UserError, match="give it a larger budget, or fewer features or bits"):
        fit_widths([budget], ["a"], [8], 5, exchanged=[(4000, 2000)])


def test_the_level_and_a_missing_fpu_are_part_of_a_budget(tmp_path, caplog):
    fast, small = (
        read_budget(write(tmp_path, {"all": {"board": "nrf52840", "level": level}}), ["a"]).agents[0]
        for level in LEVELS
    )
    assert (fast.level, small.level) == LEVELS and fast.flops_per_second > small.flops_per_second
    sizes = (18, 32, 5)
    assert fast.costs(*sizes)["flash_bytes"] > small.costs(*sizes)["flash_bytes"]
    assert fast.costs(*sizes)["decision_us"] < small.costs(*sizes)["decision_us"]
    assert "no FPU" not in caplog.text
    (soft,) = read_budget("pico", ["a"]).agents
    assert "the board pico has no FPU" in caplog.text
    code = footprint(*sizes, core="cortex-m0plus").flash
    assert soft.costs(*sizes)["flash_bytes"] == code + soft.soft_float_bytes
    assert soft.soft_float_bytes >= 4000 and soft.flops_per_second < fast.flops_per_second / 5
    with pytest.raises(UserError, match="level is 'O3', expected O2 or Os"):
        read_budget(write(tmp_path, {"all": {"board": "nrf52840", "level": "O3"}}), ["a"])


@pytest.mark.parametrize("name", board_names())
def test_int8_weights_take_a_fraction_of_a_board_and_no_float_arithmetic(tmp_path, caplog, name):
    whole, small = (
        read_budget(write(tmp_path, {"all": {"board": name, "weights": form, "level": level}}), ["a"]).agents[0]
        for form, level in (("float32", "O2"), ("int8", "Os"))
    )
    caplog.clear()
    assert read_budget(write(tmp_path, {"all": {"board": name, "weights": "int8"}}), ["a"]).agents[0].core == small.core
    assert "no FPU" not in caplog.text
    sizes = (18, 32, 5)
    of_float, of_int8 = whole.costs(*sizes), small.costs(*sizes)
    assert of_int8["flash_bytes"] == footprint(*sizes, "Os", small.core, "int8").flash < 0.45 * of_float["flash_bytes"]
    assert of_int8["ram_bytes"] < of_float["ram_bytes"] and of_int8["flops"] == of_float["flops"]
    if whole.soft_float_bytes:
        assert of_int8["decision_us"] < of_float["decision_us"] / 6
    assert agent_budget(small.to_dict()) == small and agent_budget(whole.to_dict()) == whole
    assert "weights" not in whole.to_dict()
    assert small.widest(18, 5) >= whole.widest(18, 5)


def test_a_rate_of_one_s_own_times_int8_too(tmp_path):
    own = {"board": "pico", "weights": "int8", "flops_per_second": 1e6}
    (budget,) = read_budget(write(tmp_path, {"all": own}), ["a"]).agents
    assert budget.costs(18, 32, 5)["decision_us"] == Budget(flops_per_second=1e6).costs(18, 32, 5)["decision_us"]
    bare = {"decision_us": 900, "weights": "int8", "clock_hz": 1e8, "cycles_per_instruction": 2, "core": "rv32imc"}
    (budget,) = read_budget(write(tmp_path, {"all": bare}), ["a"]).agents
    expected = instructions_int8(18, 32, 5, core="rv32imc") * 2 / 1e8 * 1e6
    assert budget.costs(18, 32, 5)["decision_us"] == pytest.approx(expected)


def test_a_core_that_is_known_costs_less_than_any_core_and_an_unknown_one_is_refused(tmp_path):
    (known,) = read_budget("nrf52840", ["a"]).agents
    (unknown,) = read_budget(write(tmp_path, {"all": {"board": "nrf52840", "core": None}}), ["a"]).agents
    assert (known.core, unknown.core) == ("cortex-m4f", None)
    for key in ("flash_bytes", "ram_bytes"):
        assert known.costs(18, 32, 5)[key] < unknown.costs(18, 32, 5)[key]
    with pytest.raises(UserError, match="core is 'cortex-m4'; did you mean 'cortex-m4f'"):
        read_budget(write(tmp_path, {"all": {"board": "nrf52840", "core": "cortex-m4"}}), ["a"])


@given(
    inputs=st.integers(1, 200),
    actions=st.integers(1, 40),
    flash=st.integers(3000, 3_000_000),
    most_flops=st.integers(500, 2_000_000),
    rate=st.floats(1e5, 1e9),
    largest=st.integers(WIDTH_STEP, 300),
)
def test_the_widest_that_fits_fits_and_the_next_does_not(inputs, actions, flash, most_flops, rate, largest):
    budget = Budget(flash_bytes=flash, flops=most_flops, decision_us=1000.0, flops_per_second=rate)

    def fits(width):
        # 48 a unit: three exponentials of 16.
        us = 1e6 * (flops(inputs, width, actions) + 48 * width) / rate
        return (
            flash_bytes(inputs, width, actions) <= flash
            and flops(inputs, width, actions) <= most_flops
            and us <= 1000.0
        )

    width = budget.widest(inputs, actions, largest)
    if width is None:
        assert not fits(WIDTH_STEP)
    else:
        assert width % WIDTH_STEP == 0 and 0 < width <= largest and fits(width)
        assert width + WIDTH_STEP > largest or not fits(width + WIDTH_STEP)


def test_each_agent_gets_the_widest_network_of_its_own_board():
    budgets = [Budget(flash_bytes=36 * 1024), Budget(ram_bytes=2200), Budget(flops=20_000)]
    widths = fit_widths(budgets, NAMES, [18, 9, 4], 5)
    assert widths == tuple(budget.widest(count, 5) for budget, count in zip(budgets, [18, 9, 4], strict=True))
    assert len(set(widths)) == 3
    check_widths(budgets, NAMES, [18, 9, 4], widths, 5)
    with pytest.raises(
        UserError, match="agent 1 \\('carrier'\\) of width 64 does not fit its budget: it takes"
    ) as caught:
        check_widths(budgets, NAMES, [18, 9, 4], [widths[0], 64, widths[2]], 5)
    assert "bytes of RAM" in str(caught.value) and "\n" not in str(caught.value)


def test_an_agent_that_fits_at_no_width_is_told_which_limits_and_by_how_much():
    needed = flash_bytes(18, 4, 5)
    tight = Budget(board="pico2", flash_bytes=2500, flops=flops(18, 4, 5) - 7, ram_bytes=10**6)
    with pytest.raises(UserError) as caught:
        fit_widths([Budget(flops=10**6), tight], NAMES[:2], [18, 18], 5)
    message = str(caught.value)
    assert "agent 1 ('carrier', 18 inputs, 5 actions) does not fit the board pico2: even 4 wide" in message
    assert f"{needed} bytes of flash, {needed - 2500} more than its 2500" in message
    assert "7 more than its" in message and "RAM" not in message and "\n" not in message


@pytest.mark.parametrize("name", board_names())
def test_every_board_is_explained_and_takes_an_agent_of_ordinary_size(name):
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    for above, line in pairwise(lines):
        if not line.startswith("#"):
            assert above.startswith("# "), f"no comment above '{line}'"
    board = read_board(name)
    assert {"name", "processor", "flash_bytes", "ram_bytes", "clock_hz", "flash_share", "ram_share"} <= set(board)
    (budget,) = read_budget(name, ["agent"]).agents
    assert budget.flash_bytes == int(board["flash_bytes"] * board["flash_share"])
    assert budget.flops_per_second == pytest.approx(2 * board["clock_hz"] / board["cycles_per_multiply_add"])
    assert 16 <= budget.widest(18, 5) <= LARGEST_WIDTH


def write(folder: Path, content) -> Path:
    path = folder / "budget.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_a_file_names_agents_by_index_range_or_name_and_all_names_the_rest(tmp_path):
    path = write(tmp_path, {"agents": {"0-1": "nrf52840", "relay": {"flops": "2e4"}}, "largest_width": 40})
    team = read_budget(path, NAMES)
    assert [budget.board for budget in team.agents] == ["nrf52840", "nrf52840", None]
    assert team.agents[2] == Budget(flops=20_000) and team.largest_width == 40
    rest = read_budget(write(tmp_path, {"all": "pico2", "agents": {1: {"ram_bytes": 4096}}}), NAMES)
    assert [budget.board for budget in rest.agents] == ["pico2", None, "pico2"]
    assert rest.agents[1] == Budget(ram_bytes=4096) and rest.largest_width == LARGEST_WIDTH


def test_a_board_s_numbers_may_be_replaced_and_one_s_own_are_not_shared_with_firmware(tmp_path):
    own = {"board": "pico2", "flash_bytes": 65536, "decision_us": None, "ram_share": 0.5}
    (budget,) = read_budget(write(tmp_path, {"all": own}), ["agent"]).agents
    assert budget.flash_bytes == 65536
    assert budget.ram_bytes == read_board("pico2")["ram_bytes"] // 2
    assert budget.decision_us is None and budget.board == "pico2"


FAULTS = {
    "cannot read the budget": None,
    "is no valid YAML": "agents: {0: [",
    "is no budget: write 'all: pico2'": "pico2",
    "unknown key 'agent'; did you mean 'agents'": {"agent": {}},
    "unknown key 'ram_byte'; did you mean 'ram_bytes'": {"all": {"ram_byte": 1}},
    "there is no board 'nrf5284'; did you mean 'nrf52840'": {"all": "nrf5284"},
    "says nothing of agent 1 ('carrier')": {"agents": {0: "pico2", 2: "pico2"}},
    "names agent 1 twice": {"all": "pico2", "agents": {"0-1": "pico2", "carrier": "pico2"}},
    "names agent '3', but there are agents 0 to 2": {"all": "pico2", "agents": {3: "pico2"}},
    "names agent '2-1'": {"all": "pico2", "agents": {"2-1": "pico2"}},
    "names agent 'True'": {"all": "pico2", "agents": {True: "pico2"}},
    "flash_bytes is -1, expected a positive number": {"all": {"flash_bytes": -1}},
    "ram_bytes is True, expected a positive number": {"all": {"ram_bytes": True}},
    "flops is 'many', expected a positive number": {"all": {"flops": "many"}},
    "flash_share is 25, expected a share between 0 and 1": {"all": {"board": "pico2", "flash_share": 25}},
    "decision_us needs flops_per_second": {"all": {"decision_us": 100}},
    "limits nothing": {"all": {"clock_hz": 1e6}},
    "[1] is no budget": {"all": [1]},
    "weights is 'int4', expected float32 or int8, the form of the C": {"all": {"board": "pico", "weights": "int4"}},
    "largest_width is 2": {"all": "pico2", "largest_width": 2},
    "agents is 'pico2', expected agents and their boards": {"agents": "pico2"},
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_budget_that_is_none_is_refused_in_one_line(tmp_path, message):
    content = FAULTS[message]
    path = tmp_path / "missing.yaml" if content is None else write(tmp_path, content)
    with pytest.raises(UserError) as caught:
        read_budget(path, NAMES)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_only_reports_or_hurries_a_run_does_not_make_it_another():
    config = {"lr": 0.1, "env_args": {"key": "x"}, "log_interval": 5, "local_results_path": "results"}
    moved = {**config, "log_interval": 50, "local_results_path": "/elsewhere", "runner_processes": 4}
    assert (
        checkpoints.fingerprint(config)
        == checkpoints.fingerprint(moved)
        != checkpoints.fingerprint({**config, "lr": 0.2})
    )


@pytest.fixture(scope="module")
def fitted(mains, tiny_teacher, tiny_buffer, tmp_path_factory):
    """The command, budget file, result and bundle of a student whose two agents have different boards."""
    folder = tmp_path_factory.mktemp("fitted")
    path = write(folder, {"agents": {"speaker_0": {"flash_bytes": 6000}, 1: {"flops": 3000, "ram_bytes": 8192}}})
    found = [f"teacher={tiny_teacher}", f"expert_buffer={tiny_buffer}"]
    command = words("kd_student", folder / "results", *found, "seed=1", "limits=lh", "widths=auto", f"budget={path}")
    summary = mains.run(*command).check().summary
    (models,) = (folder / "results" / "models").iterdir()
    assert main(["export", str(models), "--to", str(folder / "bundle"), "--no-latency", "--no-int8"]) == 0
    return command, path, summary, folder / "bundle"


def test_a_student_is_as_wide_as_its_boards_allow_and_its_bundle_says_so(fitted, capsys):
    _, path, summary, bundle = fitted
    names = [agent["name"] for agent in json.loads((bundle / "profile.json").read_text())["agents"]]
    team = read_budget(path, names)
    assert summary["widths"] == list(fit_widths(team.agents, names, summary["inputs"], 5))
    agents = json.loads((bundle / "profile.json").read_text())["agents"]
    assert [agent["budget"] for agent in agents] == [budget.to_dict() for budget in team.agents]
    assert main(["bundle", "check", str(bundle)]) == 0
    assert "within its own budget" in capsys.readouterr().out


def test_a_bundle_that_no_longer_fits_its_budget_is_refused(fitted, tmp_path, capsys):
    folder = tmp_path / "bundle"
    shutil.copytree(fitted[3], folder)
    change_profile(folder, lambda values: values["agents"][1]["budget"].update(flops=100))
    assert main(["bundle", "check", str(folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("faulty: ") and "agent 1 ('listener_0')" in line and "more than its 100" in line


def test_a_bundle_can_be_checked_against_another_board(fitted, tmp_path, capsys):
    bundle = str(fitted[3])
    assert main(["bundle", "check", bundle, "--budget", "nrf52840"]) == 0
    assert "within nrf52840" in capsys.readouterr().out
    small = write(tmp_path, {"all": {"flash_bytes": 3000}})
    assert main(["bundle", "check", bundle, "--budget", str(small)]) == 1
    assert "bytes of flash" in capsys.readouterr().err
    assert main(["bundle", "check", bundle, "--budget", "nrf5284"]) == 2
    assert "did you mean 'nrf52840'?" in capsys.readouterr().err


def test_a_run_refuses_what_does_not_fit_and_a_budget_that_has_changed(fitted, mains, tmp_path):
    command, path, _, _ = fitted
    line = mains.run(*command, "widths=64").error
    assert "does not fit its budget" in line and "use widths=auto" in line
    content = path.read_text()
    try:
        path.write_text("all: {flash_bytes: 2100}")
        assert "even 4 wide it takes" in mains.run(*command).error
        path.write_text("all: pico2")
        assert (
            "give the limits, widths and budget of the run that saved them"
            in mains.run(*command, "evaluate=True").error
        )
    finally:
        path.write_text(content)
