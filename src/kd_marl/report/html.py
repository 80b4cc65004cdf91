"""The page as one HTML file that needs nothing else: its Markdown rendered, and every figure inline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

from markdown_it import MarkdownIt

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.5rem 4rem; }
h1, h2, h3 { line-height: 1.2; margin-top: 2.2em; } h1 { margin-top: 0.5em; }
nav { columns: 18rem; font-size: 0.95rem; } nav ul { list-style: none; padding: 0; margin: 0; }
.wide { overflow-x: auto; } figure { margin: 1.2rem 0; } figure svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: 0.8rem; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: 0.25rem 0.5rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #222; vertical-align: bottom; } tr:hover td { background: #f4f6f8; }
details { margin: 1rem 0; padding: 0.3rem 0.8rem; border-left: 3px solid #ddd; } summary { cursor: pointer; }
code { font-size: 0.85em; overflow-wrap: anywhere; } a { color: #0b62a4; }
"""
_HEADING = re.compile(r"<h([23])>(.*?)</h\1>", re.DOTALL)
_FOLD = re.compile(r"<p>&lt;details markdown=&quot;1&quot;&gt;&lt;summary&gt;(.*?)&lt;/summary&gt;</p>", re.DOTALL)
_IMAGE = re.compile(r'<p><img src="([^"]+)" alt="([^"]*)"\s*/?></p>')


def page(markdown: str, pictures: Mapping[str, str], title: str) -> str:
    """Write the HTML.

    Args:
        markdown: the page, its figures as images that stand alone in a paragraph.
        pictures: file name -> SVG of each of them.
        title: of the browser's window.
    """
    body = MarkdownIt("commonmark", {"html": False, "xhtmlOut": True}).enable("table").render(markdown)
    body = _IMAGE.sub(lambda found: _figure(pictures[found[1]], found[2]), body)
    body = _FOLD.sub(r"<details><summary>\1</summary>", body).replace("<p>&lt;/details&gt;</p>", "</details>")
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    body, contents = _anchored(body)
    # After the page's title.
    head, _, rest = body.partition("<h2")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1" />\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"{head}<nav><ul>\n{contents}</ul></nav>\n<h2{rest}</body>\n</html>\n"
    )


def _figure(svg: str, alt: str) -> str:
    """Name the drawing for those who cannot see it."""
    named = f'<svg role="img" aria-label="{alt}" '
    return f"<figure>{svg.replace('<svg ', named, 1)}</figure>"


def _anchored(body: str) -> tuple[str, str]:
    """Give each heading an id, and list the second-level ones."""
    used: set[str] = set()
    entries: list[str] = []

    def anchor(found: re.Match[str]) -> str:
        level, text = found[1], found[2]
        slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"<[^>]*>", "", text).lower()).strip("-")
        name = next(name for name in (slug, *(f"{slug}-{n}" for n in range(2, 1000))) if name not in used)
        used.add(name)
        if level == "2":
            entries.append(f'<li><a href="#{name}">{text}</a></li>\n')
        return f'<h{level} id="{name}">{text}</h{level}>'

    return _HEADING.sub(anchor, body), "".join(entries)
