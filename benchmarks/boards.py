"""What an agent's C takes on six emulated cores, with float32 and int8 weights, at -O2 and -Os.

    make boards                                        # Debian's compilers and emulators, once
    python benchmarks/boards.py --json boards.json     # untrained networks of a student's sizes
    kd-marl bundle record board_bundle --agent 0 --to episode.h --env-config=mpe with env_args.key=...
    python benchmarks/boards.py --bundle board_bundle --agent 0 --episode episode.h

The program runs bare-metal in QEMU and plays recorded episodes: every action must be the recorded one, or this ends.
With int8 weights that is the action of the same whole numbers in numpy, and beside it stands how many are float32's.

Instructions are those of the costliest decision, counted by the core's own counter (SysTick, minstret) in a clock that
advances with instructions. They are no cycles: QEMU knows no wait states, caches or pipelines. Stack is painted before
each decision. Flash is the agent's program with its weights; arithmetic is what a core without FPU adds. In brackets
stands what `kd_core.costs` tells, in per cent above what was measured.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "src")]

import measured  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from kd_core.costs.boards import own_budget, read_board  # noqa: E402
from kd_core.costs.budget import Budget  # noqa: E402
from kd_core.costs.flops import AgentStep  # noqa: E402
from kd_core.costs.footprint import LEVELS, WEIGHTS, instructions_int8  # noqa: E402
from kd_core.errors import UserError  # noqa: E402
from kd_marl.deploy import csource, replay  # noqa: E402
from kd_marl.deploy import trace as traces  # noqa: E402
from kd_marl.deploy.program import AgentC, Named  # noqa: E402
from kd_marl.deploy.weights import agent_weights  # noqa: E402
from kd_onboard import int8  # noqa: E402
from kd_onboard.bundle import read_bundle  # noqa: E402
from kd_onboard.errors import OnboardError  # noqa: E402

HARNESS = Path(__file__).parent / "boards"
# An agent's program must compile so; the harness, which has assembly and addresses, so far as it can.
STRICT = ("-std=c99", "-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wmissing-prototypes")
STRICT += ("-Wdouble-promotion", "-Wshadow", "-Wundef", "-Wcast-qual")
# The formulas are of these functions; the linker leaves out what a program does not call, as builds for boards do.
SECTIONS = ("-ffunction-sections", "-fdata-sections")
USED = ("act", "init", "logits", "on_fault", "size")
LOOP_INSTRUCTIONS = 2 * 1000 + 1
# Inputs, width and actions of students of simple_spread under `fo`.
SIZES = ((18, 32, 5), (18, 16, 5))
LIMIT_S = 60
_ARM = ("arm-none-eabi", "qemu-system-arm", "arm.c", ("--specs=nano.specs",))
_RISCV = ("riscv64-unknown-elf", "qemu-system-riscv32", "riscv.c", ("--specs=picolibc.specs",))


@dataclass(frozen=True)
class Core:
    """A core, and the emulated board that has it.

    Attributes:
        name: as the table has it.
        boards: of `kd_core.costs.boards` that have it.
        flags: of the compiler.
        machine: of QEMU, with what else it is told.
        flash: where it begins, and its bytes.
        ram: the same.
        family: prefix of the tools, emulator, the harness' file, and flags of the linker.
        tick_ns: of the counter; 0 counts instructions.
    """

    name: str
    boards: tuple[str, ...]
    flags: tuple[str, ...]
    machine: tuple[str, ...]
    flash: tuple[int, int]
    ram: tuple[int, int]
    family: tuple[str, str, str, tuple[str, ...]]
    tick_ns: float = 0.0

    @property
    def key(self) -> str:
        """Name in `kd_core.costs.footprint.CORES`."""
        return self.name.lower().replace("+", "plus")

    @property
    def tools(self) -> tuple[str, str, str]:
        """Compiler, `size` and emulator."""
        return f"{self.family[0]}-gcc", f"{self.family[0]}-size", self.family[1]

    def missing(self) -> str | None:
        """Name a tool that is not installed."""
        return next((tool for tool in self.tools if shutil.which(tool) is None), None)


def _arm(cpu: str, *fpu: str) -> tuple[str, ...]:
    return (f"-mcpu={cpu}", "-mthumb", *(("-mfloat-abi=hard", f"-mfpu={fpu[0]}") if fpu else ()))


_MIB = 1 << 20
# Of stack above all; more would only take longer to paint.
_RAM = 64 << 10
_MPS = ((0x0, 4 * _MIB), (0x20000000, _RAM), _ARM, 40.0)
_VIRT = ((0x80000000, 4 * _MIB), (0x80400000, _RAM), _RISCV)
_NONE = ("-bios", "none")
# The M0 has the M0+'s instructions, and QEMU no board with an M0+.
CORES = (
    Core("Cortex-M4F", ("crazyflie", "nrf52840"), _arm("cortex-m4", "fpv4-sp-d16"), ("-machine", "mps2-an386"), *_MPS),
    Core("Cortex-M7", ("stm32h743",), _arm("cortex-m7", "fpv5-d16"), ("-machine", "mps2-an500"), *_MPS),
    Core(
        "Cortex-M33",
        ("pico2",),
        _arm("cortex-m33", "fpv5-sp-d16"),
        ("-machine", "mps2-an505"),
        *((0x10000000, 4 * _MIB), (0x38000000, _RAM), _ARM, 50.0),
    ),
    Core(
        "Cortex-M0+",
        ("pico",),
        _arm("cortex-m0plus"),
        ("-machine", "microbit"),
        *((0x0, 256 << 10), (0x20000000, 16 << 10), _ARM, 62.5),
    ),
    Core(
        "RV32IMC",
        ("esp32_c3",),
        ("-march=rv32imc", "-mabi=ilp32"),
        ("-machine", "virt", *_NONE, "-cpu", "rv32,a=off,f=off,d=off"),
        *_VIRT,
    ),
    Core(
        "RV32IMAFC",
        (),
        ("-march=rv32imafc", "-mabi=ilp32f"),
        ("-machine", "virt", *_NONE, "-cpu", "rv32,d=off"),
        *_VIRT,
    ),
)
# An instruction takes 2^6 ns, longer than every tick: the counter tells one from the next.
_SHIFT = 6


@dataclass(frozen=True)
class Agent:
    """One agent's C and a recording of it.

    Attributes:
        name: in the table.
        sizes: inputs, width and actions.
        folder: that holds the sources.
        prefix: of the sources.
        episode: the recording's header.
        weights: one of `kd_core.costs.footprint.WEIGHTS`.
        agreement: share of its decisions that are those of the network in float32.
    """

    name: str
    sizes: tuple[int, int, int]
    folder: Path
    prefix: str
    episode: Path
    weights: str = "float32"
    agreement: float | None = 1.0


def drawn_agent(
    sizes: tuple[int, int, int], folder: Path, episodes: int = 4, steps: int = 25, weights: str = "float32"
) -> Agent:
    """Write an untrained network with a recording: features are drawn, actions are those of torch or of int8 numpy."""
    inputs, width, n_actions = sizes
    torch.manual_seed(0)
    step = AgentStep(*sizes).eval()
    with torch.no_grad():
        # Logits a unit apart, as a trained network's are.
        step.fc1.weight.mul_(3.0)
        step.fc2.weight.mul_(3.0)
    named = Named(".", "kd_agent_0")
    features = [{"name": f"f{k}", "unit": None} for k in range(inputs)]
    rng = np.random.default_rng(0)
    seen = rng.standard_normal((episodes, steps, inputs)).astype(np.float32)
    may = rng.random((episodes, steps, n_actions)) < 0.7
    may[..., 0] |= ~may.any(-1)
    _, actions = replay.run(replay.torch_step(step), seen, may, width)
    network, calibration, agreement = agent_weights(step), None, 1.0
    if weights == "int8":
        calibration = int8.calibrate(network, rng.standard_normal((episodes * steps, inputs)).astype(np.float32))
        in_float32 = actions
        _, actions = replay.run(replay.int8_step(int8.quantise(network, calibration)), seen, may, width)
        agreement = float((actions == in_float32)[may.sum(-1) > 1].mean())
    folder.mkdir(parents=True, exist_ok=True)
    program = AgentC(network, named, "drawn", "agent_0", features, ["x"] * n_actions, calibration=calibration)
    for path, text in csource.c_files(program).items():
        (folder / path).write_text(text)
    begins = np.arange(episodes * steps) % steps == 0
    recorded = traces.Trace(begins, seen.reshape(-1, inputs), may.reshape(-1, n_actions), actions.ravel())
    bundle: Any = SimpleNamespace(folder=folder, task=SimpleNamespace(name="drawn"))
    profile: Any = SimpleNamespace(name="agent_0", label="agent_0", c=named, inputs=inputs, n_actions=n_actions)
    episode = folder / "recorded.h"
    episode.write_text(traces.header(recorded, bundle, profile))
    return Agent(f"{inputs} inputs, width {width}", sizes, folder, named.prefix, episode, weights, agreement)


def bundle_agent(folder: Path, key: str, episode: Path) -> Agent:
    """Take an agent of a bundle, and a recording of it by `kd-marl bundle record`.

    Raises:
        UserError: there is no such agent or recording, or the recording is another agent's.
    """
    try:
        bundle = read_bundle(folder)
        profile = bundle.agent(int(key) if key.isdecimal() else key)
    except OnboardError as error:
        raise UserError(str(error)) from None
    if profile.messages is not None:
        raise UserError(f"{profile.label} talks, and only silent agents are played here: give a bundle of silent ones")
    if profile.c is None:
        raise UserError(f"{folder} has no C program of {profile.label}: export it again")
    header = folder / profile.c.header
    if not episode.is_file():
        raise UserError(f"there is no recording {episode}: kd-marl bundle record {folder} --agent {key} --to {episode}")
    if f"#define {header.stem.upper()}_RECORD_STEPS" not in episode.read_text(encoding="utf-8"):
        raise UserError(f"{episode} is no recording of {profile.label}: record it with --agent {key}")
    sizes = (profile.inputs, profile.width, profile.n_actions)
    said = bundle.profile.raw["agents"][profile.index]["c"]
    form = ("float32", 1.0) if profile.c.int8 is None else ("int8", said["int8_agreement"])
    return Agent(profile.label, sizes, header.parent, header.stem, episode.absolute(), *form)


def play(core: Core, agent: Agent, level: str, folder: Path) -> dict[str, Any]:
    """Compile an agent for a core, play its recording, and return what was measured.

    Args:
        core: emulated.
        agent: to play.
        level: one of `kd_core.costs.footprint.LEVELS`.
        folder: to build in, which exists.

    Raises:
        UserError: a tool is missing or refuses, or an action is not the recorded one.
    """
    if tool := core.missing():
        raise UserError(f"{core.name} needs {tool}, which is not installed: make boards")
    gcc, size, emulator = core.tools
    _, _, architecture, libraries = core.family
    (folder / "agent.h").write_text(f'#include "{agent.prefix}.h"\n')
    (folder / "episode.h").write_text(f'#include "{agent.episode}"\n')
    regions = {"flash": core.flash, "ram": core.ram}
    memory = "".join(f"    {name} : ORIGIN = {at:#x}, LENGTH = {size:#x}\n" for name, (at, size) in regions.items())
    (folder / "memory.ld").write_text(f"MEMORY\n{{\n{memory}}}\nINCLUDE {HARNESS / 'link.ld'}\n")
    include = ("-I", str(folder), "-I", str(agent.folder), "-I", str(HARNESS))
    compiled = (gcc, *core.flags, f"-{level}", "-c", "-ffreestanding", *SECTIONS)
    _tool([*compiled, *STRICT, str(agent.folder / f"{agent.prefix}.c"), "-o", "whole.o"], folder)
    wanted = [word for name in USED for word in ("-u", f"{agent.prefix}_{name}")]
    _tool([gcc, *core.flags, "-r", "-nostdlib", "-Wl,--gc-sections", *wanted, "whole.o", "-o", "agent.o"], folder)
    for name in ("replay.c", architecture):
        # Not for size: painting would become a call. The header tells its own form's stack.
        form = ("-O1", *(("-DKD_AGENT_LEAN_STACK",) if level == "Os" else ()))
        words = (gcc, *core.flags, *form, "-c", "-ffreestanding", "-Wall", "-Wextra", "-Werror", *include)
        _tool([*words, str(HARNESS / name), "-o", Path(name).with_suffix(".o").name], folder)
    objects = ("replay.o", f"{Path(architecture).stem}.o", "agent.o")
    linked = (gcc, *core.flags, *libraries, "-nostartfiles", "-Wl,--fatal-warnings", "-T", "memory.ld", *objects)
    _tool([*linked, "-o", "program.elf"], folder)
    shift = _SHIFT if core.tick_ns else 0
    emulated = (emulator, *core.machine, "-display", "none", "-serial", "none", "-monitor", "none")
    emulated += ("-semihosting-config", "enable=on,target=native", "-icount", f"shift={shift}", "-kernel")
    told = _tool([*emulated, "program.elf"], folder, failing=True)
    found = {name: int(value, 16) for name, value in re.findall(r"^(\w+) ([0-9a-f]{8})$", told, re.MULTILINE)}
    if "state" not in found:
        raise UserError(f"{agent.name} on {core.name} at -{level} ended with: {told.strip()[-200:] or 'nothing'}")
    if found["agreed"] != found["steps"]:
        raise UserError(
            f"{agent.name} on {core.name} at -{level}: only {found['agreed']} of {found['steps']} actions are as "
            "recorded"
        )
    per_tick = core.tick_ns / (1 << _SHIFT) if core.tick_ns else 1.0
    # A tick more or less is no whole instruction.
    loop = round(found["loop"] * per_tick)
    if abs(loop - LOOP_INSTRUCTIONS) > 4:
        raise UserError(f"{core.name}: a loop of {LOOP_INSTRUCTIONS} instructions was counted as {loop}: another QEMU?")
    text = _tool([size, "-A", "program.elf"], folder)
    sections = {name: int(count) for name, count in re.findall(r"^\.(\w+)\s+(\d+)", text, re.MULTILINE)}
    arithmetic, library = (sections.get(name, 0) for name in ("arithmetic", "library"))
    return {
        "actions": found["steps"],
        "instructions": round(found["ticks"] * per_tick),
        "stack": found["stack"],
        "stack_told": found["stack_told"],
        "state": found["state"],
        "ram": found["state"] + found["stack"],
        "flash": sections["agent"] + arithmetic + library,
        "arithmetic": arithmetic,
        "library": library,
    }


def _tool(words: Sequence[str], folder: Path, failing: bool = False) -> str:
    """Run a tool and return all that it writes; its failure is one line unless it may fail."""
    name = words[0]
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{name} did not end within {LIMIT_S} seconds: {' '.join(words)}") from None
    text = done.stdout.decode(errors="replace")
    if done.returncode and not failing:
        raise UserError(f"{name} failed: {text.strip().splitlines()[0] if text.strip() else done.returncode}")
    return text


def row(core: Core, agent: Agent, level: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Put beside what was measured what the formulas tell: bytes, and cycles of a decision on each board."""
    soft = max((read_board(name).get("soft_float_bytes", 0) for name in core.boards), default=0)
    told = Budget(level=level, core=core.key, soft_float_bytes=soft, weights=agent.weights).costs(*agent.sizes)
    int8_told = round(instructions_int8(*agent.sizes, level, core.key)) if agent.weights == "int8" else None
    return {
        "agent": agent.name,
        "weights": agent.weights,
        "agreement": agent.agreement,
        "core": core.name,
        "level": level,
        **found,
        "instructions_told": int8_told,
        "flash_told": int(told["flash_bytes"]),
        "ram_told": int(told["ram_bytes"]),
        "cycles_told": {name: cycles(name, agent, level) for name in core.boards},
    }


def cycles(board: str, agent: Agent, level: str) -> float:
    """Return the cycles that `kd_core.costs` tells of a decision on a board: its microseconds times its clock."""
    # Bytes are no matter here, and a board without FPU would be warned of.
    given = {"board": board, "level": level, "weights": agent.weights, "soft_float_bytes": 0}
    return own_budget(given, board).costs(*agent.sizes)["decision_us"] * read_board(board)["clock_hz"] / 1e6


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Play every agent on every core at every level; what cannot be is said and left out."""
    with tempfile.TemporaryDirectory(prefix="kd-boards-") as place:
        work = Path(place)
        if args.bundle is None:
            forms = [(sizes, form) for sizes in SIZES for form in WEIGHTS]
            agents = [drawn_agent(sizes, work / f"{form}_{sizes[1]}", weights=form) for sizes, form in forms]
        elif args.episode is None:
            raise UserError("--bundle needs --episode, a recording by kd-marl bundle record")
        else:
            agents = [bundle_agent(args.bundle, args.agent, args.episode)]
        here = [core for core in CORES if core.missing() is None]
        for core in CORES:
            if core not in here:
                print(f"{core.name} is left out: {core.missing()} is not installed: make boards", file=sys.stderr)
        if not here:
            raise UserError("no compiler or no emulator is installed: make boards")
        yield {"tools": {tool: version(tool) for core in here for tool in core.tools if not tool.endswith("size")}}
        rows: list[dict[str, Any]] = []
        for agent in agents:
            for core in here:
                for level in LEVELS:
                    rows.append(row(core, agent, level, play(core, agent, level, work)))
        yield {"rows": rows}


def version(tool: str) -> str:
    """Return the first line that a tool says of its version."""
    return _tool([tool, "--version"], HARNESS).splitlines()[0]


def text(result: Mapping[str, Any]) -> str:
    """Write the table; behind what was measured is how far the formula is above it."""
    rows = [
        {
            "agent": line["agent"],
            "weights": line["weights"],
            "core": line["core"],
            "level": f"-{line['level']}",
            "actions alike": f"{line['actions']} of {line['actions']}",
            "as in float32": "-" if line["agreement"] is None else f"{100 * line['agreement']:.1f} %",
            "instructions": _told(line["instructions"], line["instructions_told"]),
            "stack": line["stack"],
            "RAM": f"{line['ram']} ({_above(line['ram_told'], line['ram'])})",
            "float arithmetic": line["arithmetic"],
            "flash": f"{line['flash']} ({_above(line['flash_told'], line['flash'])})",
            "told cycles an instruction": _each(line["cycles_told"], line["instructions"]),
        }
        for line in result["rows"]
    ]
    tools = "; ".join(result["tools"].values())
    return f"{date.today()}; {tools}\n\n{measured.table(rows)}"


def _told(true: float, told: float | None) -> str:
    return str(true) if told is None else f"{true} ({_above(told, true)})"


def _each(cycles_told: Mapping[str, float], instructions: int) -> str:
    return ", ".join(f"{name} {told / instructions:.1f}" for name, told in cycles_told.items()) or "-"


def _above(told: float, true: float) -> str:
    return f"{100 * (told / true - 1):+.0f} %"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = measured.options(__doc__)
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="a bundle; without one untrained networks are played"
    )
    parser.add_argument("--agent", default="0", help="index or name of its agent (0)")
    parser.add_argument("--episode", type=Path, metavar="FILE", help="that agent's recording")
    return measured.command(parser, words, measure, text)


if __name__ == "__main__":
    sys.exit(main())
