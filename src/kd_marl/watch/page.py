"""A film as one HTML page that needs no network."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_marl.watch.film import Film, film_data

_PARTS = Path(__file__).parent
# What would end a script element or start a comment in it; JSON has these as escapes too.
_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def page(film: Film, episode: int, eyes: int | None = None, live: Mapping[str, Any] | None = None) -> str:
    """Write the page, which opens at an episode.

    Args:
        film: what is shown.
        episode: from 0.
        eyes: the agent through whose eyes it is seen at first; None: the first.
        live: from `live_data`: programs that decide again in the page; None: no program runs there.
    """
    shown = {**film_data(film), "first": episode, "eyes": eyes or 0, "live": live}
    data = json.dumps(shown, allow_nan=False, separators=(",", ":"))
    title = f"{film.task}: {', '.join(player.name.lower() for player in film.players)}"
    parts = {
        "TITLE": html.escape(title),
        "WASM": " 'wasm-unsafe-eval'" if live else "",
        "CSS": (_PARTS / "page.css").read_text(encoding="utf-8"),
        "JS": (_PARTS / "page.js").read_text(encoding="utf-8"),
        "FILM": data.translate(_ESCAPES),
    }
    template = (_PARTS / "page.html").read_text(encoding="utf-8")
    # In one pass: what a run is called is never taken for a place of the template.
    return re.sub(r"\[\[(\w+)\]\]", lambda place: parts[place[1]], template)
