"""Makes the guide's picture of the dashboard: python tests/helpers/dashboard_page.py docs/figures/dashboard.png

The runs are those of the evidence files. Three of them are cut short, so that every state is to be seen.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "helpers")]

import json  # noqa: E402  after the path of our own modules, as all that follow

from browser import browser_page  # noqa: E402
from dashboard_runs import change, served, utc, wait_until  # noqa: E402
from kd_marl.dashboard.folder import FolderSource  # noqa: E402
from kd_marl.runs import evidence  # noqa: E402

TASK, METHODS = "3s5z", ("kd_student", "qmix", "vdn")


def main(figure: Path) -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        for name in ("paper", "smax"):
            evidence.unpack(evidence.read(ROOT / "evidence" / f"{name}.json.xz"), results / "suites")
        cut_short(next(results.glob(f"suites/paper/sacred/ptde/{TASK}/1")), "RUNNING", 0.6)
        cut_short(next(results.glob(f"suites/paper/sacred/ctds/{TASK}/1")), "INTERRUPTED", 0.4)
        cut_short(next(results.glob(f"suites/paper/sacred/offline_kd/{TASK}/1")), "FAILED", 0.1)
        source = FolderSource(results)
        source.title = "results"
        with served(source) as address:
            rows = [r for r in source.store.rows() if (r.task, r.limits) == (TASK, "lh") and r.method in METHODS]
            keys = [row.key for row in sorted(rows, key=lambda row: (METHODS.index(row.method), row.key))]
            chosen = urlencode([("task", TASK), ("limits", "lh"), *(("run", key) for key in keys)])
            with browser_page(f"{address}/#{chosen}", width=1280, height=860) as opened:
                page = opened.page
                wait_until(lambda: page.locator("#charts .scatterlayer .trace").count() >= 2 * len(METHODS))
                page.wait_for_timeout(1500)
                page.screenshot(path=figure)


def cut_short(folder: Path, status: str, share: float) -> None:
    """Leave of a run what there was of it when a share of its steps was done."""
    (folder / "summary.json").unlink()
    metrics = json.loads((folder / "metrics.json").read_text())
    end = share * max(curve["steps"][-1] for curve in metrics.values())
    for curve in metrics.values():
        kept = sum(step <= end for step in curve["steps"])
        curve.update(steps=curve["steps"][:kept], values=curve["values"][:kept])
    (folder / "metrics.json").write_text(json.dumps({name: curve for name, curve in metrics.items() if curve["steps"]}))
    now = time.time()
    # A heartbeat to come: it shall run as long as the picture takes.
    beat = now + 600 if status == "RUNNING" else now - 300
    change(folder / "run.json", status=status, start_time=utc(now - 900), heartbeat=utc(beat), stop_time=None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
