"""What `kd-marl report` does: it finds runs, keeps their evidence, and writes the pages that are asked for."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from kd_core import files
from kd_core.errors import UserError
from kd_core.versions import package_version, source_commit
from kd_marl.report import groups, html, marl_eval, page, provenance, results
from kd_marl.report.drawing import Picture
from kd_marl.report.groups import Groups
from kd_marl.runs import evidence, search
from kd_marl.runs.finished import Run

PAGE, MARKDOWN = "report.html", "report.md"
# Of a checkout: the page of results, its figures, and the README.
_DOCS, _README = "docs", "README.md"


def report(args: argparse.Namespace) -> int:
    """Write the pages that a command line asks for; returns the exit status."""
    write(args.results, args.to, keep=args.keep, unpack=args.unpack, site=args.site)
    return 0


def write(
    sources: Sequence[Path],
    to: Path,
    *,
    keep: Path | None = None,
    unpack: Path | None = None,
    site: Path | None = None,
) -> Groups:
    """Write the report of finished runs, and return the groups that its tables show.

    Args:
        sources: results folders and evidence files.
        to: folder for ``report.html``, ``report.md``, the figures and ``marl_eval.json``.
        keep: folder of the evidence files to which the runs are added.
        unpack: folder for the runs of evidence files as results folders.
        site: checkout whose ``docs/results.md``, ``docs/figures`` and README block are written.

    Raises:
        UserError: nothing is to be reported, or a file cannot be read or written.
    """
    found = search.find(sources)
    for line in found.passed_over:
        print(f"left out: {line}", file=sys.stderr)
    if not found.runs:
        raise UserError(
            f"no finished run among {len(found.passed_over)} in {', '.join(map(str, sources))}: "
            "a run counts once it has written its summary.json"
        )
    grouped = groups.build(found.runs)
    for line in grouped.left_out:
        print(f"left out: {line}", file=sys.stderr)
    if keep is not None:
        names = ", ".join(map(str, evidence.keep(found.runs, keep)))
        print(f"evidence of {len(found.runs)} runs kept in {names}")
    if unpack is not None:
        print(f"{evidence.unpack(found.runs, unpack)} runs unpacked into {unpack}")
    options = {"--to": to, "--keep": keep, "--unpack": unpack, "--site": site}
    given = [str(word) for option in options.items() if option[1] is not None for word in option]
    command = shlex.join(["kd-marl", "report", *map(str, sources), *given])
    built = page.build(grouped, found.passed_over, _facts(command, found.runs))
    pictures = _named(built.pictures)
    pages = {
        **pictures,
        MARKDOWN: built.markdown,
        PAGE: html.page(built.markdown, pictures, page.TITLE),
        marl_eval.FILE: marl_eval.document(grouped),
    }
    _write(to, pages)
    used = sum(len(group.runs) for group in grouped.main.values())
    print(f"{used} runs of {len(found.runs)} with a result, {len(pictures)} figures")
    print(f"written to {to / PAGE}, {to / MARKDOWN} and {to / marl_eval.FILE}")
    if site is not None:
        _site(site, grouped)
    return grouped


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


def _facts(command: str, found: Sequence[Run]) -> list[tuple[str, str]]:
    return [
        ("page made by", f"`{command}`"),
        ("on", f"{datetime.now(timezone.utc):%Y-%m-%d}"),
        ("with", f"kd-marl {package_version('kd-marl')}, commit {source_commit() or 'unknown'}"),
        ("runs found", f"{len(found)} with a result"),
        *provenance.made_with(found),
    ]
