"""The methods that a report knows: their names, colours, and which parts of the page they belong to."""

from __future__ import annotations

import re
from dataclasses import dataclass

TEACHER = "kd_teacher"
STUDENT = "kd_student"
# What a mask costs whatever the student (suites/mask_cost.yaml).
WIDE = "kd_student_wide"
BASELINES = ("mappo", "qmix", "vdn")
COMPARATORS = ("ctds", "offline_kd", "ptde")
ABLATIONS = ("kd_student_paper", "kd_no_ppo", "kd_no_kl", "kd_no_ce", "kd_no_structure", "kd_no_role")
LIMITS = ("fo", "lh", "lha")
LIMITS_TITLES = {"fo": "FO", "lh": "LH", "lha": "LH+A"}


@dataclass(frozen=True)
class Look:
    """The look of a method: its title, and a colour that the colour-blind can tell from its neighbours'."""

    title: str
    colour: str


_LOOKS = {
    TEACHER: Look("teacher", "#222222"),
    STUDENT: Look("KD-MARL", "#0072b2"),
    WIDE: Look("KD-MARL, 128 wide", "#8c564b"),
    "mappo": Look("MAPPO", "#d55e00"),
    "qmix": Look("QMIX", "#009e73"),
    "vdn": Look("VDN", "#cc79a7"),
    "ctds": Look("CTDS", "#e69f00"),
    "offline_kd": Look("offline KD", "#56b4e9"),
    "ptde": Look("PTDE", "#882255"),
    "kd_student_paper": Look("KD-MARL, the paper's recipe", "#332288"),
    "kd_no_ppo": Look("KD-MARL without PPO", "#999933"),
    "kd_no_kl": Look("KD-MARL without KL", "#44aa99"),
    "kd_no_ce": Look("KD-MARL without CE", "#aa4499"),
    "kd_no_structure": Look("KD-MARL without structure", "#117733"),
    "kd_no_role": Look("KD-MARL without roles", "#88ccee"),
}
ORDER = (*BASELINES, STUDENT, WIDE, *COMPARATORS, *ABLATIONS)


def look(method: str) -> Look:
    """Return the look of a method; one that is not known goes by its own name, in grey."""
    return _LOOKS.get(method, Look(method, "#777777"))


def place(method: str) -> tuple[int, str]:
    """Make a key that sorts methods in the order of the page, unknown ones last."""
    return (ORDER.index(method) if method in ORDER else len(ORDER), method)


def setting_title(limits: str, sight: str) -> str:
    """Name limits and masks as a table shows them, e.g. ``LH+A, random``."""
    title = LIMITS_TITLES.get(limits, limits)
    return f"{title}, {sight}" if sight else title


def setting_name(task: tuple[str, str], limits: str, sight: str) -> str:
    """Name limits and masks as a command line does; the StarCraft maps' fixed masks need no name."""
    fixed = not sight or (sight == "paper" and family(task) == "StarCraft maps")
    return limits if fixed else f"{limits} {sight}"


def short_task(task: str) -> str:
    """Name a task without its library's prefix and version: ``simple_spread``."""
    if not task.startswith(_PARTICLES):
        return task
    return task.removeprefix(_PARTICLES).rsplit("-v", 1)[0].replace("-", "_")


def file_name(*parts: str) -> str:
    """Make a figure's file name, without its ending, of what it shows; empty parts are left out."""
    return "-".join(re.sub(r"[^0-9A-Za-z.]+", "-", part).strip("-.") for part in parts if part)


_PARTICLES = "pz-mpe-"
_STARCRAFT = {"smax": "SMAX", "sc2": "SMAC", "sc2v2": "SMACv2", "smaclite": "SMAClite"}
# Kinds of tasks that a page takes together, as it calls them and as its figures' files do.
FAMILIES = {"StarCraft maps": "battles", "particles": "particles", "other tasks": "others"}


def family(task: tuple[str, str]) -> str:
    """Find the one of the `FAMILIES` that a task (environment, name) is of."""
    env, name = task
    if env in _STARCRAFT:
        return "StarCraft maps"
    # Gymnasium's wrapper plays much else beside the particles.
    return "particles" if name.startswith(_PARTICLES) else "other tasks"


def task_title(task: tuple[str, str]) -> str:
    """Name a task with its environment: ``3m (SMAX)``."""
    env, name = task
    return f"{short_task(name)} ({'MPE' if family(task) == 'particles' else _STARCRAFT.get(env, env)})"
