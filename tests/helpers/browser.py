"""A headless Chromium for the tests of pages: what a page shows, and that it neither complains nor asks the network.

def test_a_page(tmp_path):
    with browser_page("file:///page.html") as opened:
        assert opened.page.title() == "..."
        opened.page.screenshot(path=tmp_path / "page.png")
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

# Debian's; `make browsers` installs it.
CHROMIUM = os.environ.get("KD_MARL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
# A first start on a busy machine takes long.
PATIENCE_MS = 30_000


@dataclass
class Opened:
    """A page in the browser, and what it has done since it was opened.

    Attributes:
        page: Playwright's page.
        complaints: errors and warnings of its console, uncaught exceptions and dialogs: none in a sound page.
        requests: addresses that it has asked for.
    """

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def outside(self, *allowed: str) -> list[str]:
        """List the requests that begin with none of the addresses: an offline page has none."""
        inside = ("data:", "blob:", "about:", *allowed)
        return [address for address in self.requests if not address.startswith(inside)]


@contextlib.contextmanager
def browser_page(
    address: str = "", *, width: int = 1280, height: int = 800, dark: bool = False, ignore: Sequence[str] = ()
) -> Iterator[Opened]:
    """Open a page in a browser of its own; the test is skipped, with one line, where there is no Chromium.

    Args:
        address: what to open; "" for an empty page.
        width: of the window, in pixels; 390 is a phone.
        height: likewise.
        dark: whether the page is asked for its dark colours.
        ignore: complaints that contain one of these texts do not count.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: make browsers")
    with playwright.sync_playwright() as driver:
        # No sandbox and no /dev/shm: tests run in containers, as root.
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options, timeout=PATIENCE_MS)
        try:
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
            )
            page.set_default_timeout(PATIENCE_MS)
            opened = Opened(page)

            def complain(text: str) -> None:
                if not any(known in text for known in ignore):
                    opened.complaints.append(text)

            def dismiss(dialog: Any) -> None:
                complain(f"dialog: {dialog.message}")
                dialog.dismiss()

            page.on("console", lambda said: complain(said.text) if said.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: complain(str(error)))
            page.on("dialog", dismiss)
            page.on("request", lambda request: opened.requests.append(request.url))
            if address:
                page.goto(address)
            yield opened
        finally:
            browser.close()
