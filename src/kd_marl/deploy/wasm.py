"""An agent's C as WebAssembly: what a board computes, in a browser."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from kd_core.errors import UserError
from kd_onboard.bundle import Bundle
from kd_onboard.profile import AgentProfile

# Beside the program: its buffers, whose addresses a page asks for, and what compilers may call.
_MODULE = """\
#include "@HEADER@"

static struct kd_agent agent;
static float features[KD_AGENT_INPUTS], logits[KD_AGENT_ACTIONS];
static unsigned char available[KD_AGENT_ACTIONS];

void *memset(void *to, int byte, __SIZE_TYPE__ size)
{
    unsigned char *bytes = to;
    while (size--) {
        *bytes++ = (unsigned char)byte;
    }
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, __SIZE_TYPE__ size)
{
    unsigned char *bytes = to;
    const unsigned char *source = from;
    while (size--) {
        *bytes++ = *source++;
    }
    return to;
}

float *at_features(void) { return features; }
unsigned char *at_available(void) { return available; }
float *at_logits(void) { return logits; }
void begin(void) { kd_agent_init(&agent); }
int decide(void)
{
    const int action = kd_agent_act(&agent, features, available);
    if (action >= 0) {
        kd_agent_last_logits(&agent, logits);
    }
    return action;
}
"""
_EXPORTS = ("at_features", "at_available", "at_logits", "begin", "decide")
_FLAGS = ("--target=wasm32", "-std=c99", "-O3", "-ffreestanding", "-fno-builtin", "-nostdlib", "-Wl,--no-entry", "-Wl,-s")


def compile_wasm(bundle: Bundle, agent: AgentProfile) -> bytes:
    """Compile an agent's C to a WebAssembly module without imports.

    It exports ``memory``; ``at_features``, ``at_available`` and ``at_logits``, the addresses of its buffers; ``begin``
    of an episode; and ``decide``, which returns the action, or a fault of the C header.

    Raises:
        UserError: clang or its linker for WebAssembly is not installed, or fails.
        BundleError: a source is damaged.
    """
    if agent.c is None:
        raise UserError(f"{bundle.folder} has no C program of {agent.label}: export it again")
    for tool, package in (("clang", "clang"), ("wasm-ld", "lld")):
        if shutil.which(tool) is None:
            raise UserError(f"WebAssembly needs {tool}, which is not installed: apt install {package}, or make boards")
    inside = agent.c.folder + "/"
    with tempfile.TemporaryDirectory() as folder:
        for path in bundle.profile.files:
            if path.startswith(inside):
                (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / path).write_bytes(bundle.read(path))
        Path(folder, "module.c").write_text(_MODULE.replace("@HEADER@", agent.c.header), encoding="utf-8")
        exports = [f"-Wl,--export={name}" for name in _EXPORTS]
        words = ["clang", *_FLAGS, *exports, "-o", "module.wasm", "module.c", *agent.c.sources]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
            raise UserError(f"clang cannot compile {agent.c.sources[0]} to WebAssembly: {' '.join(first.split())}")
        return Path(folder, "module.wasm").read_bytes()
