"""Networks far from their initial values, episodes for them, and C programs compiled and called."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_core.costs.flops import AgentStep
from kd_marl.deploy import selftest
from kd_marl.deploy.csource import all_files
from kd_marl.deploy.program import AgentC, Named
from kd_marl.deploy.weights import agent_weights, sizes

# Strict enough for any firmware, and without a C library: what a board's build may ask.
FLAGS = (
    *("-std=c99", "-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wmissing-prototypes"),
    *("-Wdouble-promotion", "-Wshadow", "-Wundef", "-Wcast-qual"),
)
OPTIMISATIONS = (("-O2",), ("-O3", "-march=native"), ("-Os",))


def network(inputs, width, n_actions, seed=0, scale=3.0):
    """A network whose logits differ by whole units, as a trained one's do."""
    torch.manual_seed(seed)
    step = AgentStep(inputs, width, n_actions)
    with torch.no_grad():
        step.fc1.weight.mul_(scale)
        step.fc2.weight.mul_(scale)
    return step.eval()


def episodes(inputs, n_actions, count, length, seed=0):
    """Features ``(count, length, inputs)`` and availability ``(count, length, actions)``, never all unavailable."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, length, inputs)).astype(np.float32)
    available = rng.random((count, length, n_actions)) < 0.7
    available[..., 0] |= ~available.any(-1)
    return features, available


def float64_steps(weights, features):
    """Logits ``(episodes, time, actions)`` by the equations of a GRU, in float64 numpy."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    state = np.zeros((len(features), len(w["align.bias"])))

    def sigmoid(x):
        return 1.0 / (1.0 + np.exp(-x))

    logits = []
    for x in np.moveaxis(features.astype(np.float64), 1, 0):
        aligned = np.maximum(x @ w["align.weight"].T + w["align.bias"], 0.0)
        new = np.split(aligned @ w["gru.weight_ih"].T + w["gru.bias_ih"], 3, axis=1)
        old = np.split(state @ w["gru.weight_hh"].T + w["gru.bias_hh"], 3, axis=1)
        reset, update = sigmoid(new[0] + old[0]), sigmoid(new[1] + old[1])
        candidate = np.tanh(new[2] + reset * old[2])
        state = (1.0 - update) * candidate + update * state
        logits.append(state @ w["head.weight"].T + w["head.bias"])
    return np.stack(logits, 1)


def compiler():
    """The C compiler; without one the test is skipped."""
    found = shutil.which("gcc")
    if found is None:
        pytest.skip("gcc is not installed")
    return found


def written(step, prefix="kd_agent_0", name="agent_0", **told):
    """What the C of a network is written from."""
    weights = agent_weights(step)
    inputs, _, n_actions = sizes(weights)
    features = [{"name": f"f{k}", "unit": "m"} for k in range(inputs)]
    return AgentC(weights, Named(".", prefix), "toy", name, features, ["x"] * n_actions, **told)


def write_c(
    folder: Path,
    step,
    prefix="kd_agent_0",
    name="agent_0",
    on_fault="raise",
    noop_action=None,
    calibration=None,
    messages=None,
):
    """The C sources of a network."""
    weights = agent_weights(step)
    folder.mkdir(parents=True, exist_ok=True)
    told = {"on_fault": on_fault, "noop_action": noop_action, "calibration": calibration, "messages": messages}
    for file, data in all_files(written(step, prefix, name, **told)).items():
        (folder / file).write_bytes(data)
    steps = selftest.choose(weights, [], calibration)
    (folder / f"{prefix}_test.inc").write_text(selftest.text(steps, Named(".", prefix), name))
    return folder


# The functions of an agent's header.
PUBLIC = ("act", "init", "last_logits", "logits", "on_fault", "restore", "sample", "save", "seed", "size")
# What `act` may call and what calls nothing more.
LEAVES = ("init", "fault", "within", "exp", "sigmoid", "tanh", "column", "unit", "logit", "sum", "fixed", "sound")


class Program:
    """An agent's C, compiled as a shared library."""

    def __init__(self, folder: Path, step, *flags, prefix="kd_agent_0"):
        self.inputs, self.width, self.n_actions = sizes(agent_weights(step))
        library = folder / f"agent{''.join(flags).replace('=', '-')}.so"
        subprocess.run([compiler(), *FLAGS, *flags, "-fPIC", "-c", f"{prefix}.c"], cwd=folder, check=True)
        # Linked without the flags: one linked with -ffast-math flushes the whole process's subnormal numbers to 0.
        link = [compiler(), "-shared", "-o", str(library), f"{prefix}.o"]
        subprocess.run(link, cwd=folder, check=True)
        program = ctypes.CDLL(str(library))
        names = ("init", "act", "logits", "on_fault", "size", "last_logits", "seed", "sample", "save", "restore")
        self._functions = {name: getattr(program, f"{prefix}_{name}") for name in names}
        self._init, self._act, self._logits, self._on_fault, self.size = (self._functions[name] for name in names[:5])
        self._functions["seed"].argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
        self._functions["restore"].argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        self.generator = np.zeros(2, np.uint64)
        # Only with their macros.
        self.test = getattr(program, f"{prefix}_test", None)
        self._load = getattr(program, f"{prefix}_load", None)
        # The struct: its state, and whether it was initialised and its last action.
        self.struct = np.zeros(self.size() // 4, np.float32)
        self.state = self.struct[:-2]

    def reset(self):
        self._init(_pointer(self.struct))

    def act(self, features, available):
        given = np.ascontiguousarray(features, np.float32), np.ascontiguousarray(available, np.uint8)
        return self._act(_pointer(self.struct), *map(_pointer, given))

    def logits(self, features):
        """The status, and the logits it wrote."""
        written = np.full(self.n_actions, np.nan, np.float32)
        given = np.ascontiguousarray(features, np.float32)
        return self._logits(_pointer(self.struct), _pointer(given), _pointer(written)), written

    def last_logits(self):
        """The status, and the logits of the decision before."""
        written = np.full(self.n_actions, np.nan, np.float32)
        return self._functions["last_logits"](_pointer(self.struct), _pointer(written)), written

    def seed(self, seed, stream=0):
        self._functions["seed"](_pointer(self.generator), seed, stream)

    def sample(self, features, available):
        given = np.ascontiguousarray(features, np.float32), np.ascontiguousarray(available, np.uint8)
        return self._functions["sample"](_pointer(self.struct), *map(_pointer, given), _pointer(self.generator))

    def save(self):
        """The status, and the bytes that were written."""
        written = np.zeros(28 + 4 * self.width, np.uint8)
        status = self._functions["save"](_pointer(self.struct), _pointer(written))
        return status, written.tobytes()

    def restore(self, data):
        return self._functions["restore"](_pointer(self.struct), data, len(data))

    def load(self, data, size=None, offset=0):
        """Give the program a file of weights, which begins ``offset`` bytes behind a multiple of 16."""
        self.buffer = np.zeros(len(data) + 32, np.uint8)
        start = -self.buffer.ctypes.data % 16 + offset
        self.buffer[start : start + len(data)] = np.frombuffer(data, np.uint8)
        address = ctypes.c_void_p(self.buffer.ctypes.data + start)
        return self._load(address, ctypes.c_size_t(len(data) if size is None else size))

    def on_fault(self, available):
        return self._on_fault(_pointer(self.struct), _pointer(np.ascontiguousarray(available, np.uint8)))


def compiled_bytes(folder: Path, width, command=(), size="size", prefix="kd_agent_0", level="O2", state=None):
    """Flash and RAM of a program: all of its sections, and its state with the deepest stack of ``act``.

    Args:
        folder: of its sources.
        width: of its state.
        command: compiler and flags in place of gcc's own.
        size: the tool that tells sections.
        prefix: of its symbols.
        level: it is compiled at.
        state: bytes of its struct; None: of one with float32 weights.
    """
    words = [*(command or [compiler()]), *FLAGS, f"-{level}", "-ffreestanding", "-fstack-usage"]
    words += ["-ffunction-sections", "-fdata-sections"]
    subprocess.run([*words, "-c", f"{prefix}.c", "-o", "agent.o"], cwd=folder, check=True)
    # What the formulas are of: a linker leaves out the functions that a program does not call.
    used = [word for name in ("act", "init", "logits", "on_fault", "size") for word in ("-u", f"{prefix}_{name}")]
    link = [*(command or [compiler()]), "-r", "-nostdlib", "-Wl,--gc-sections", *used, "agent.o", "-o", "used.o"]
    subprocess.run(link, cwd=folder, check=True)
    sections = subprocess.run([size, "used.o"], cwd=folder, check=True, capture_output=True, text=True).stdout
    text, data, bss = (int(number) for number in sections.splitlines()[1].split()[:3])
    assert data == bss == 0
    # `act` calls `step`, and `choose` calls `head` or `logit`; all call leaves, or `row`, which does. Any of them may
    # have been put into its caller.
    frames = {
        name.removeprefix(f"{prefix}_"): int(n)
        for name, n in re.findall(r":(\w+)\t(\d+)\tstatic", (folder / "agent.su").read_text())
    }
    act, step, choose = (frames.pop(name, 0) for name in ("act", "step", "choose"))
    row = frames.pop("row", 0)
    head = max(frames.pop("head", 0), frames.pop("logit", 0))
    leaf = max(n for name, n in frames.items() if name in LEAVES or name.startswith("add_"))
    return text, (4 * width + 8 if state is None else state) + act + row + leaf + max(step, choose + head)


def _pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)
