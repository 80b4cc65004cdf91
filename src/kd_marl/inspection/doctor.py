"""The work of `kd-marl doctor`: versions, host, environment packages, and what is wrong with them."""

from __future__ import annotations

import argparse
import importlib.util
import platform
import sys
import warnings

from kd_core.errors import UserError, how_to_install
from kd_core.host import get_host
from kd_core.versions import installed_version
from kd_marl.inspection.facts import print_facts

_REQUIRED = ("torch", "numpy", "gymnasium", "sacred", "safetensors", "ptflops", "scipy", "PyYAML")
# Distribution, module that must be importable, and what it is for.
_ENVIRONMENTS = (
    ("mpe2", "mpe2", "MPE tasks (pz-mpe-...): pip install mpe2"),
    ("pettingzoo", "pettingzoo", "PettingZoo tasks (pz-...): pip install pettingzoo"),
    ("jaxmarl", "jaxmarl", f"SMAX: {how_to_install('smax')}, with Python 3.11 or later"),
    ("libsumo", "libsumo", f"--env-config=traffic: {how_to_install('traffic')}"),
    ("rware", "rware", f"--env-config=warehouse: {how_to_install('grids')}"),
    ("lbforaging", "lbforaging", f"foraging (lbforaging:...): {how_to_install('grids')}"),
    # Of a module within it: a checkout without SMAClite has a placeholder of that name.
    ("smaclite", "smaclite.env", "--env-config=smaclite: install uoe-agents/smaclite from its repository, --no-deps"),
    ("smac", "smac.env", "--env-config=sc2: install oxwhirl/smac from its repository, and StarCraft II"),
    ("smacv2", "smacv2.env", "--env-config=sc2v2: install oxwhirl/smacv2 from its repository, and StarCraft II"),
)


def doctor(args: argparse.Namespace) -> int:
    """Print versions, host, environment packages and problems; returns the exit status."""
    found, notes = problems(), list[str]()
    print_facts(
        [
            ("kd-marl", installed_version("kd-marl") or "run from the source tree"),
            ("python", f"{platform.python_version()} on {platform.platform()}"),
            *((name, installed_version(name) or "not installed") for name in _REQUIRED),
            ("device", _device()),
            ("host", _host(found, notes)),
            *((name, _environment(name, module, purpose)) for name, module, purpose in _ENVIRONMENTS),
        ]
    )
    for note in notes:
        print(f"note: {note}")
    for problem in found:
        print(f"problem: {problem}")
    print("no problems found" if not found else f"{len(found)} problem(s) found")
    return 1 if found else 0


def problems() -> list[str]:
    """List the problems that would break a run here, one line each, with the cure."""
    found = [f"{name} is not installed: run make setup" for name in _REQUIRED if installed_version(name) is None]
    if not (3, 10) <= sys.version_info[:2] <= (3, 14):
        found.append(f"Python {platform.python_version()} is not supported: use 3.10 to 3.14")
    if installed_version("mpe2") and (0,) < _release("pettingzoo") < (1, 24, 4):
        found.append("mpe2 does not import with pettingzoo before 1.24.4: pip install -U pettingzoo")
    if installed_version("pygame") and installed_version("pygame-ce"):
        found.append("pygame and pygame-ce overwrite each other: pip uninstall both, then pip install pygame-ce")
    if installed_version("smac") and not _importable("smac.env"):
        found.append("the package 'smac' is another program than SMAC: pip uninstall smac, then install oxwhirl/smac")
    return found


def _release(distribution: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, (0,) if the distribution is not installed."""
    parts = (installed_version(distribution) or "0").split(".")
    return tuple(int(part) for part in parts[:3] if part.isdigit())


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _device() -> str:
    try:
        # Imported here, since this command also explains a machine that has no torch.
        import torch
    except ImportError:
        return "unknown without torch"
    return f"GPU {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "CPU only"


def _host(found: list[str], notes: list[str]) -> str:
    """Name the EPyMARL underneath; add what breaks it to `found`, and what may be otherwise than tested to `notes`."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            host = get_host()
    except (UserError, ImportError) as error:
        found.append(str(error))
        return "unusable"
    notes.extend(str(note.message) for note in said if "EPyMARL at" in str(note.message))
    if host.is_bundled:
        return "epymarl_lite, the bundled runtime (EPYMARL_HOME is not set)"
    return f"EPyMARL {host.commit or 'of unknown commit'} at {host.config_path.parents[1]}"


def _environment(name: str, module: str, purpose: str) -> str:
    if not _importable(module):
        return f"not installed; for {purpose}"
    return installed_version(name) or "installed"
