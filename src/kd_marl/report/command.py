"""What `kd-marl report` does: it finds runs, keeps their evidence, and writes the pages that are asked for."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from envs.hetero_mask.naming import package_version
from kd_core import files
from kd_core.errors import UserError
from kd_core.host import SOURCE_ROOT
from kd_marl.report import groups, html, marl_eval, page, provenance, results
from kd_marl.report.drawing import Picture
from kd_marl.report.groups import Groups
from kd_marl.runs import evidence, search
from kd_marl.runs.finished import Run

PAGE, MARKDOWN = "report.html", "report.md"
# Of a checkout: the page of results, its figures, and the README.
_DOCS, _README = "docs", "README.md"


def report(args: argparse.Namespace) -> int:
    """Write the pages; returns the exit status.

    Args:
        args: ``results`` (results folders and evidence files), ``to``, and ``keep``, ``unpack`` and ``site`` or None.

    Raises:
        UserError: nothing is to be reported, or a file cannot be read or written.
    """
    found = search.find(args.results)
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
    if args.keep is not None:
        names = ", ".join(map(str, evidence.keep(found.runs, args.keep)))
        print(f"evidence of {len(found.runs)} runs kept in {names}")
    if args.unpack is not None:
        print(f"{evidence.unpack(found.runs, args.unpack)} runs unpacked into {args.unpack}")
    built = page.build(grouped, found.passed_over, _facts(args, found.runs))
    pictures = {f"{picture.name}.svg": picture.svg for picture in built.pictures}
    pages = {
        **pictures,
        MARKDOWN: built.markdown,
        PAGE: html.page(built.markdown, pictures, page.TITLE),
        marl_eval.FILE: marl_eval.document(grouped),
    }
    _write(args.to, pages)
    shown = sum(len(group.runs) for group in grouped.main.values())
    print(f"{shown} runs of {len(found.runs)} with a result, {len(pictures)} figures")
    print(f"written to {args.to / PAGE}, {args.to / MARKDOWN} and {args.to / marl_eval.FILE}")
    if args.site is not None:
        _site(args.site, grouped)
    return 0


def _site(root: Path, grouped: Groups) -> None:
    """Write a checkout's page of results, its figures, and the block of its README."""
    text, drawn = results.page(grouped)
    _write(root / _DOCS, {"results.md": text})
    _write(root / _DOCS / results.FIGURES, _named(drawn))
    print(f"written to {root / _DOCS / 'results.md'}")
    readme = root / _README
    old = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    new = results.update_readme(old, grouped, f"{_DOCS}/{results.FIGURES}")
    if new is None:
        print(f"{readme} has no lines {results.README_BEGIN} and {results.README_END}: left as it is", file=sys.stderr)
    elif new != old:
        files.write_bytes(readme, new.encode())
        print(f"written to {readme}")


def _named(pictures: Sequence[Picture]) -> dict[str, str]:
    return {f"{picture.name}.svg": picture.svg for picture in pictures}


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    for name, text in texts.items():
        files.write_bytes(folder / name, text.encode())


def _facts(args: argparse.Namespace, found: Sequence[Run]) -> list[tuple[str, str]]:
    options = [("--to", args.to), ("--keep", args.keep), ("--unpack", args.unpack), ("--site", args.site)]
    given = [str(word) for option in options if option[1] is not None for word in option]
    return [
        ("page made by", f"`{shlex.join(['kd-marl', 'report', *map(str, args.results), *given])}`"),
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
