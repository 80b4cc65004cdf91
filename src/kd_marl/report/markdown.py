"""Markdown's tables, lists and folded parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table with its columns aligned for a terminal too; a bar within a cell is escaped."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def bullets(lines: Iterable[str]) -> str:
    """Write a list."""
    return "\n".join(f"- {line}" for line in lines)


def folded(title: str, *paragraphs: str) -> str:
    """Write paragraphs under a title that opens them; nothing without a paragraph."""
    parts = [paragraph for paragraph in paragraphs if paragraph]
    if not parts:
        return ""
    # The attribute makes MkDocs read Markdown inside; GitHub does without it.
    return "\n\n".join([f'<details markdown="1"><summary>{title}</summary>', *parts, "</details>"])


def short(value: float) -> str:
    """Write a large number in three digits: ``14.7k``, ``3.04M``."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"
