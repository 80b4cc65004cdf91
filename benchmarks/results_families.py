"""The sections of docs/results.md: families of tasks that are run alike, and the suites that say how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SUITES = Path(__file__).resolve().parents[1] / "suites"


@dataclass(frozen=True)
class Family:
    """Tasks that share a section of the page.

    Attributes:
        name: what ``--family`` calls it; also its folder in the results.
        title: the heading of its section.
        suite: the file with its runs.
    """

    name: str
    title: str
    suite: Path


SMAX = Family("smax", "StarCraft maps (SMAX)", _SUITES / "results_smax.yaml")
MPE = Family("mpe", "Particle environments (MPE)", _SUITES / "results_mpe.yaml")
# In the order of the page.
FAMILIES = {family.name: family for family in (SMAX, MPE)}


def limits_of(setting: str) -> str:
    """The limits of a setting: ``fo``, ``lh`` or ``lha``."""
    return setting.partition("-")[0]


def preset_of(setting: str) -> str:
    """The masks_preset that a setting names: ``paper`` or ``random``; "" where it names none."""
    return setting.partition("-")[2]
