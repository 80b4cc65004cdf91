"""Compiles a bundle's C beside a harness that times it from inside."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kd_core.errors import UserError
from kd_onboard.bundle import Bundle
from kd_onboard.profile import AgentProfile

LEVELS = {"o2": ("-O2",), "o3": ("-O3", "-march=native")}
RADIO_ROWS = 64
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

# As many bytes as every first-level cache holds, read over and over: what it gives is what bounds a decision in C.
_READ_BYTES = 8192
_READS = """
#define _POSIX_C_SOURCE 199309L
#include <time.h>

typedef long long lanes __attribute__((vector_size(32)));
static lanes memory[@BYTES@ / 32];

/* CPU seconds of reading all of it `rounds` times. */
double kd_reads(long rounds, long *sum)
{
    lanes a = {0}, b = {0}, c = {0}, d = {0};
    struct timespec from, to;
    long k, i;

    /* Untouched pages would all be the same one. */
    for (i = 0; i < @BYTES@ / 32; i++) {
        memory[i] = (lanes){i, i, i, i};
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    for (k = 0; k < rounds; k++) {
        for (i = 0; i < @BYTES@ / 32; i += 8) {
            a |= memory[i] | memory[i + 4];
            b |= memory[i + 1] | memory[i + 5];
            c |= memory[i + 2] | memory[i + 6];
            d |= memory[i + 3] | memory[i + 7];
        }
        __asm__ volatile("" ::: "memory");
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    a |= b | c | d;
    *sum = (long)(a[0] + a[3]);
    return (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
}
"""


def compile_library(flags: Sequence[str], library: Path, sources: Sequence[str]) -> Path:
    """Compile sources into a shared library, strictly; return its path.

    Raises:
        UserError: the compiler refuses them.
    """
    arguments = [*STRICT, *flags, "-shared", "-fPIC", "-o", str(library), *sources, "-lm"]
    done = subprocess.run(["cc", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"cc {' '.join(arguments)} failed: {done.stderr.strip()}")
    return library


def library(bundle: Bundle, agents: Sequence[AgentProfile], level: str, folder: Path) -> Path:
    """Compile the programs of some agents with the harness into one shared library."""
    parts: dict[str, list[str]] = {"INCLUDES": [], "STATES": [], "INITS": [], "ACTS": []}
    sources: list[str] = []
    row_length, start = sum(agent.inputs for agent in agents), 0
    for place, agent in enumerate(agents):
        assert agent.c is not None, "an export has C"
        prefix, name = agent.c.prefix, f"agent_{agent.index}"
        parts["INCLUDES"].append(f'#include "{bundle.folder.absolute() / agent.c.header}"')
        parts["STATES"].append(f"static struct {prefix} {name};")
        parts["INITS"].append(f"    {prefix}_init(&{name});")
        radio = ""
        if agent.messages is not None:
            # Every message arrives, and each row's has bits of its own.
            size, heard = f"{prefix.upper()}_MESSAGE_BYTES", max(1, len(agent.messages.hears))
            parts["STATES"].append(
                f"static unsigned char in_{name}[{RADIO_ROWS * heard} * {size}], out_{name}[{size}];"
            )
            parts["INITS"].append(
                f"    for (k = 0; k < (long)sizeof in_{name}; k++) {{\n"
                f"        in_{name}[k] = (unsigned char)(k % {size} == 0 ? 1 : (k * 2654435761u) >> 13);\n    }}"
            )
            radio = f", in_{name} + row % {RADIO_ROWS} * {heard} * {size}, out_{name}"
        parts["ACTS"].append(
            f"        total += {prefix}_act(&{name}, features + row * {row_length} + {start}, "
            f"available + (row * {len(agents)} + {place}) * {agent.n_actions}{radio});"
        )
        start += agent.inputs
        sources += [str(bundle.folder / source) for source in agent.c.sources]
    text = _HARNESS
    for key, lines in parts.items():
        text = text.replace(f"@{key}@", "\n".join(dict.fromkeys(lines)))
    stem = f"bench_{level}_{agents[0].index}_{len(agents)}"
    source = folder / f"{stem}.c"
    source.write_text(text)
    return compile_library(LEVELS[level], folder / f"{stem}.so", [str(source), *dict.fromkeys(sources)])


def timed(path: Path, features: Sequence[np.ndarray], available: np.ndarray) -> Callable[[int], float]:
    """Make a function that measures the CPU seconds of a number of decisions inside the program.

    Args:
        path: from `library`.
        features: of each of the library's agents its own, ``(rows, its inputs)`` float32.
        available: ``(rows, agents, actions)``.
    """
    run = decided(path, features, available)
    return lambda decisions: run(decisions)[0]


def decided(path: Path, features: Sequence[np.ndarray], available: np.ndarray) -> Callable[[int], tuple[float, int]]:
    """Do as `timed`, with the sum of all actions that were chosen."""
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


def read_cache(folder: Path) -> tuple[Callable[[int], float], int]:
    """Make a function that measures CPU seconds of reading the first-level cache, and return the bytes of a read."""
    source = folder / "reads.c"
    source.write_text(_READS.replace("@BYTES@", str(_READ_BYTES)))
    reads = ctypes.CDLL(str(compile_library(LEVELS["o3"], folder / "reads.so", [str(source)]))).kd_reads
    reads.argtypes, reads.restype = [ctypes.c_long, ctypes.POINTER(ctypes.c_long)], ctypes.c_double
    total = ctypes.c_long()
    return lambda rounds: reads(rounds, ctypes.byref(total)), _READ_BYTES
