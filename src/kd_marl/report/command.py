"""The work of `kd-marl report`: the paper's tables and figures from finished runs, written to files."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from datetime import datetime, timezone

from kd_core import files
from kd_core.errors import UserError
from kd_core.host import SOURCE_ROOT
from kd_core.versions import package_version
from kd_marl.report import groups, html, keep, page, provenance
from kd_marl.runs import finished as runs

PAGE, MARKDOWN = "report.html", "report.md"


def report(args: argparse.Namespace) -> int:
    """Write the pages of the command's arguments; returns the exit status."""
    found = runs.find(args.results)
    for line in found.passed_over:
        print(f"left out: {line}", file=sys.stderr)
    if not found.runs:
        raise UserError(
            f"no finished run among {len(found.passed_over)} in {', '.join(map(str, args.results))}: "
            "a run counts once it has written its summary.json"
        )
    grouped = groups.build(found.runs)
    for line in grouped.left_out:
        print(f"left out: {line}", file=sys.stderr)
    built = page.build(grouped, found.passed_over, _facts(args, found.runs))
    if args.records is not None:
        print(f"records of {keep.keep(found.runs, args.results, args.records)} runs kept in {args.records}")
    try:
        os.makedirs(args.to, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {args.to}: {error.strerror or error}") from error
    pictures = {f"{picture.name}.svg": picture.svg for picture in built.pictures}
    for name, svg in pictures.items():
        files.write_bytes(args.to / name, svg.encode())
    files.write_bytes(args.to / MARKDOWN, built.markdown.encode())
    files.write_bytes(args.to / PAGE, html.page(built.markdown, pictures, page.TITLE).encode())
    shown = sum(len(group.runs) for group in grouped.main.values())
    print(f"{shown} runs of {len(found.runs)} with a result, {len(pictures)} figures")
    print(f"written to {args.to / PAGE} and {args.to / MARKDOWN}")
    return 0


def _facts(args: argparse.Namespace, found: list) -> list[tuple[str, str]]:
    kept = [] if args.records is None else ["--records", str(args.records)]
    command = shlex.join(["kd-marl", "report", *map(str, args.results), "--to", str(args.to), *kept])
    return [
        ("page made by", f"`{command}`"),
        ("on", f"{datetime.now(timezone.utc):%Y-%m-%d}"),
        ("with", f"kd-marl {package_version('kd-marl')}, commit {_commit()}"),
        ("runs found", f"{len(found)} with a result"),
        *provenance.made_with(found),
    ]


def _commit() -> str:
    """The source tree's commit, ``+`` where it has local changes."""
    try:
        head = subprocess.check_output(
            ["git", "rev-parse", "--short", "HEAD"], cwd=SOURCE_ROOT, text=True, stderr=subprocess.DEVNULL
        )
        changed = subprocess.check_output(
            ["git", "status", "--porcelain", "--untracked-files=no"], cwd=SOURCE_ROOT, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+" if changed.strip() else "")
