"""The task families of docs/results.md: their tasks, the limits they are run under, and the words of their runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SEEDS, MORE_SEEDS = (1, 2, 3), (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Family:
    """Tasks that are run alike and share a section of the page.

    Attributes:
        name: what ``--family`` calls it; also its folder in the results and its environment's YAML.
        title: the heading of its section.
        task_key: the key that names a task on the command line.
        tasks: the names of its tasks, which are also those of their bundled teachers.
        settings: name -> the words of a run that say who sees what.
        seeds: setting -> the seeds of its students; a baseline has the first three.
        student_words: what every student's run is given besides.
        baseline_of: setting -> the setting whose baselines it is compared with; empty: no baselines.
        baseline_words: what every baseline's run is given besides.
    """

    name: str
    title: str
    task_key: str
    tasks: tuple[str, ...]
    settings: Mapping[str, tuple[str, ...]]
    seeds: Mapping[str, tuple[int, ...]]
    student_words: tuple[str, ...] = ()
    baseline_of: Mapping[str, str] = field(default_factory=dict)
    baseline_words: tuple[str, ...] = ()


SMAX = Family(
    name="smax",
    title="StarCraft maps (SMAX)",
    task_key="env_args.map_name",
    tasks=("3m", "8m", "5m_vs_6m", "3s5z"),
    settings={"fo": ("limits=fo", "hidden_dim=16"), "lh": ("limits=lh",), "lha": ("limits=lha",)},
    seeds={"fo": SEEDS, "lh": MORE_SEEDS, "lha": MORE_SEEDS},
    student_words=("eval_episodes=2000",),
)

MPE = Family(
    name="mpe",
    title="Particle environments (MPE)",
    task_key="env_args.key",
    tasks=("pz-mpe-simple-speaker-listener-v4", "pz-mpe-simple-spread-v3", "pz-mpe-simple-adversary-v3"),
    settings={
        "fo": ("limits=fo",),
        "lh-paper": ("limits=lh", "masks_preset=paper"),
        "lh-random": ("limits=lh", "masks_preset=random"),
        "lha-paper": ("limits=lha", "masks_preset=paper"),
        "lha-random": ("limits=lha", "masks_preset=random"),
    },
    seeds={"fo": SEEDS, "lh-paper": SEEDS, "lh-random": MORE_SEEDS, "lha-paper": SEEDS, "lha-random": MORE_SEEDS},
    student_words=("eval_episodes=1000",),
    # lha hides what lh hides, and a baseline has one width, so it shares lh's.
    baseline_of={
        "fo": "fo",
        "lh-paper": "lh-paper",
        "lh-random": "lh-random",
        "lha-paper": "lh-paper",
        "lha-random": "lh-random",
    },
    # A baseline's network is as wide as the widest student.
    baseline_words=("hidden_dim=32", "runner=vector", "eval_episodes=1000", "final_evaluation=True", "use_cuda=False"),
)

# In the order of the page.
FAMILIES = {family.name: family for family in (SMAX, MPE)}


def limits_of(setting: str) -> str:
    """The limits of a setting: ``fo``, ``lh`` or ``lha``."""
    return setting.partition("-")[0]


def preset_of(setting: str) -> str:
    """The masks_preset that a setting names: ``paper`` or ``random``; "" where it names none."""
    return setting.partition("-")[2]
