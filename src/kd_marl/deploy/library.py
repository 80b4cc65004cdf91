"""A bundle's C as a library that a build system takes as it is: its sources unchanged, and the files of that system."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from kd_core import files
from kd_core.errors import UserError
from kd_marl.deploy import csource
from kd_marl.deploy.check import check_bundle
from kd_onboard.bundle import Bundle
from kd_onboard.errors import BundleError
from kd_onboard.profile import AgentProfile

TARGETS = ("arduino", "cmake", "esp-idf", "platformio", "zephyr")
_TEMPLATES = Path(__file__).parent / "templates" / "targets"
_OPTIONS = "kd_agent_config.h"
# What is compiled, or included by what is.
_SOURCES = (".c", ".h", ".inc")


def write_library(folder: Path, target: str, to: Path) -> int:
    """Write a library of all agents of a bundle.

    Args:
        folder: the bundle, all of which is checked first.
        target: one of `TARGETS`.
        to: where; it must not exist, or be empty.

    Returns:
        How many files were written.

    Raises:
        UserError: the bundle is faulty, or the folder is not empty or cannot be written.
    """
    if to.is_symlink() or (to.exists() and (not to.is_dir() or any(to.iterdir()))):
        raise UserError(f"{to} is not empty, and a library is written into a folder of its own: give another one")
    try:
        written = _files(check_bundle(folder), target)
    except BundleError as error:
        raise UserError(str(error)) from None
    temporary = files.temporary_name(to)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        for path, data in written.items():
            place = temporary / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        if to.exists():
            to.rmdir()
        temporary.rename(to)
    except OSError as error:
        raise UserError(f"cannot write {to} ({error.strerror or error}): give another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(written)


def _files(bundle: Bundle, target: str) -> dict[str, bytes]:
    """Return the library's files by their paths: sources lie in ``src`` as they lie in the bundle's ``c``."""
    root = Path(csource.TEAM_HEADER).parent
    paths = [path for path in sorted(bundle.profile.files) if path.startswith(f"{root}/") and path.endswith(_SOURCES)]
    found = {f"src/{Path(path).relative_to(root).as_posix()}": bundle.read(path) for path in paths}
    values = _values(bundle, [path for path in found if path.endswith(".c")])
    templates = {f"src/{_OPTIONS}": _TEMPLATES / f"{_OPTIONS}.in"}
    inside = _TEMPLATES / target
    templates |= {path.relative_to(inside).as_posix()[:-3]: path for path in sorted(inside.rglob("*.in"))}
    for path, template in templates.items():
        text = template.read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        found[path] = text.encode()
    return found


def _values(bundle: Bundle, sources: list[str]) -> dict[str, str]:
    """Return the placeholders of the templates; the example is of the first agent."""
    first = bundle.agents[0]
    assert first.c is not None, "the check asks for it"
    # Zephyr's build file lies a folder lower, so it names the root.
    lines = "\n".join(f'        "{path}"' for path in sources)
    radio, buffers = _radio(first)
    return {
        "TASK": _plain(bundle.task.name),
        "NAME": _plain(first.name),
        "VERSION": _version(bundle),
        "PREFIX": first.c.prefix,
        "UPPER": first.c.prefix.upper(),
        "RADIO": radio,
        "RADIO_BUFFERS": buffers,
        "SOURCES": lines,
        "ROOTED_SOURCES": lines.replace('"src/', '"${KD_AGENTS_ROOT}/src/'),
    }


def _radio(agent: AgentProfile) -> tuple[str, str]:
    """Return what a talking agent's ``act`` takes beside features and availability, and the buffers of it."""
    if agent.messages is None or agent.c is None:
        return "", ""
    heard, said, _ = agent.exchanged
    bytes_each = f"{agent.c.prefix.upper()}_MESSAGE_BYTES"
    inbox = f"static unsigned char inbox[{agent.c.prefix.upper()}_HEARS * {bytes_each}];\n" if heard else ""
    outbox = f"static unsigned char outbox[{bytes_each}];\n" if said else ""
    return f", {'inbox' if heard else 'NULL'}, {'outbox' if said else 'NULL'}", inbox + outbox


def _version(bundle: Bundle) -> str:
    """Return the day of the export as a version: later exports have larger ones."""
    day = re.match(r"(\d{4})-(\d\d)-(\d\d)T", str(bundle.profile.provenance["created"]))
    return ".".join(str(int(part)) for part in day.groups()) if day else "1.0.0"


def _plain(text: str) -> str:
    """Return a name that means nothing in C, JSON, YAML, CMake or a properties file."""
    return re.sub(r"[^A-Za-z0-9 ._-]", "_", text)
