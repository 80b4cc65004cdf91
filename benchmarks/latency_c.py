"""Compiles a bundle's C beside a harness that times it from inside, and measures what the program takes."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kd_onboard.bundle import Bundle
from kd_onboard.profile import AgentProfile

LEVELS = {"o2": ("-O2",), "o3": ("-O3", "-march=native")}
# What valgrind can run: it knows no AVX-512.
COUNTED = {"o2": ("-O2",), "o3": ("-O3", "-march=x86-64-v3")}
SIZED = ("-Os",)
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror")

_HARNESS = """
#define _POSIX_C_SOURCE 199309L
#define KD_AGENT_PREFIXED_ONLY
#include <time.h>
@INCLUDES@

@STATES@

/* CPU seconds of `decisions` rounds; in each, all of these agents decide, one after the other. */
double kd_bench(long decisions, const float *features, const unsigned char *available, long rows, long *sum)
{
    struct timespec from, to;
    long k, row = 0, total = 0;

@INITS@
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    for (k = 0; k < decisions; k++) {
@ACTS@
        row = row + 1 == rows ? 0 : row + 1;
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    *sum = total;
    return (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
}
"""

_MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include "@HEADER@"

/* A whole program of one agent: as many decisions as its argument says, on numbers that it makes itself. */
int main(int count, char **words)
{
    static struct kd_agent agent;
    float features[KD_AGENT_INPUTS];
    unsigned char available[KD_AGENT_ACTIONS];
    unsigned long seed = 1;
    long left = count > 1 ? atol(words[1]) : 1, sum = 0;
    int i;

    kd_agent_init(&agent);
    for (i = 0; i < KD_AGENT_ACTIONS; i++) {
        available[i] = 1;
    }
    for (; left > 0; left--) {
        for (i = 0; i < KD_AGENT_INPUTS; i++) {
            seed = (seed * 1103515245UL + 12345UL) & 0x7fffffffUL;
            features[i] = (float)seed / 1073741824.0f - 1.0f;
        }
        sum += kd_agent_act(&agent, features, available);
    }
    printf("%ld\\n", sum);
    fflush(stdout);
    /* Whoever measures its memory looks now. */
    return getchar() == EOF ? 0 : 1;
}
"""


def _compile(arguments: Sequence[str]) -> None:
    done = subprocess.run(["cc", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: cc {' '.join(arguments)} failed:\n{done.stderr}")


def library(bundle: Bundle, agents: Sequence[AgentProfile], level: str, folder: Path) -> Path:
    """The programs of some agents with the harness, as one shared library."""
    parts: dict[str, list[str]] = {"INCLUDES": [], "STATES": [], "INITS": [], "ACTS": []}
    sources: list[str] = []
    row_length, start = sum(agent.inputs for agent in agents), 0
    for place, agent in enumerate(agents):
        assert agent.c is not None, "an export has C"
        prefix, name = agent.c.prefix, f"agent_{agent.index}"
        parts["INCLUDES"].append(f'#include "{bundle.folder.absolute() / agent.c.header}"')
        parts["STATES"].append(f"static struct {prefix} {name};")
        parts["INITS"].append(f"    {prefix}_init(&{name});")
        parts["ACTS"].append(
            f"        total += {prefix}_act(&{name}, features + row * {row_length} + {start}, "
            f"available + (row * {len(agents)} + {place}) * {agent.n_actions});"
        )
        start += agent.inputs
        sources += [str(bundle.folder / source) for source in agent.c.sources]
    text = _HARNESS
    for key, lines in parts.items():
        text = text.replace(f"@{key}@", "\n".join(dict.fromkeys(lines)))
    stem = f"bench_{level}_{agents[0].index}_{len(agents)}"
    source, made = folder / f"{stem}.c", folder / f"{stem}.so"
    source.write_text(text)
    flags = [*STRICT, *LEVELS[level], "-shared", "-fPIC"]
    _compile([*flags, "-o", str(made), str(source), *dict.fromkeys(sources), "-lm"])
    return made


def timed(path: Path, features: Sequence[np.ndarray], available: np.ndarray) -> Callable[[int], float]:
    """CPU seconds of a number of decisions, measured inside the program.

    Args:
        path: from `library`.
        features: of each of the library's agents its own, ``(rows, its inputs)`` float32.
        available: ``(rows, agents, actions)``.
    """
    run = decided(path, features, available)
    return lambda decisions: run(decisions)[0]


def decided(path: Path, features: Sequence[np.ndarray], available: np.ndarray) -> Callable[[int], tuple[float, int]]:
    """As `timed`, with the sum of all actions that were chosen."""
    bench = ctypes.CDLL(str(path)).kd_bench
    bench.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.POINTER(ctypes.c_long)]
    bench.restype = ctypes.c_double
    rows = np.ascontiguousarray(np.concatenate(features, axis=1), np.float32)
    allowed = np.ascontiguousarray(available, np.uint8)
    total = ctypes.c_long()

    def run(decisions: int) -> tuple[float, int]:
        seconds = bench(decisions, rows.ctypes.data, allowed.ctypes.data, len(rows), ctypes.byref(total))
        assert 0 <= total.value <= decisions * available.shape[1] * available.shape[2], "no decision was refused"
        return seconds, total.value

    return run


def program(bundle: Bundle, agent: AgentProfile, flags: Sequence[str], folder: Path) -> Path:
    """A whole program of one agent, as a board would have it but for the sensors."""
    assert agent.c is not None, "an export has C"
    stem = "main" + re.sub(r"\W+", "_", "".join(flags))
    source = folder / f"{stem}.c"
    source.write_text(_MAIN.replace("@HEADER@", str(bundle.folder.absolute() / agent.c.header)))
    sources = [str(bundle.folder / path) for path in agent.c.sources]
    _compile([*STRICT, *flags, "-o", str(folder / stem), str(source), *sources, "-lm"])
    return folder / stem


def object_bytes(bundle: Bundle, agent: AgentProfile, folder: Path) -> dict[str, int] | None:
    """``text``, ``data`` and ``bss`` of an agent's own object code at -Os, as `size` says; None without `size`."""
    if shutil.which("size") is None or agent.c is None:
        return None
    made = folder / "agent.o"
    _compile([*STRICT, *SIZED, "-c", "-o", str(made), str(bundle.folder / agent.c.sources[0])])
    return program_bytes(made)


def program_bytes(path: Path) -> dict[str, int] | None:
    """``text``, ``data`` and ``bss`` of a file, as `size` says; None without `size`."""
    if shutil.which("size") is None:
        return None
    done = subprocess.run(["size", str(path)], capture_output=True, text=True, check=True)
    text, data, bss = (int(word) for word in done.stdout.splitlines()[1].split()[:3])
    return {"text": text, "data": data, "bss": bss}


def instructions(bundle: Bundle, agent: AgentProfile, flags: Sequence[str], folder: Path) -> int | None:
    """Instructions of one decision, counted by callgrind inside `act`; None without valgrind."""
    if shutil.which("valgrind") is None or agent.c is None:
        return None
    path, decisions = program(bundle, agent, flags, folder), 200
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [f"--toggle-collect={agent.c.prefix}_act", str(path), str(decisions)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    return round(int(found.group(1)) / decisions) if found and done.returncode == 0 else None
