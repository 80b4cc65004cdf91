"""A film: the takes of all players in the same episodes, which of them to look at first, and all of it as JSON data."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_core.errors import UserError, nearest
from kd_envs.hetero_mask.layouts import FeatureLayout
from kd_envs.hetero_mask.naming import NO_BLOCK, action_names
from kd_marl.watch.sensors import FailedSensors
from kd_marl.watch.sight import stem
from kd_marl.watch.takes import Player, Take

FORMAT, VERSION = "kd-marl/film", 1
# Words for the blocks of the known layouts.
GROUPS: Mapping[str, str] = {
    "O": "itself",
    "A": "allies",
    "E": "enemies",
    "T": "terrain",
    "L": "landmarks",
    "A(P)": "positions of the others",
    "D(A-A)": "distances to the others",
    "V": "its own velocity",
    "P": "its own position",
    "M": "messages",
    "G": "the goal",
    NO_BLOCK: "in no block",
}
PICKS = ("median", "best", "worst", "disagreement")
# In place of an infinite observation.
_LARGEST = float(np.finfo("f4").max)
# Observations above this size are left out of a page: a browser would not open it.
MOST_OBSERVED_BYTES = 24 << 20


@dataclass(frozen=True)
class Film:
    """Players and their takes.

    Attributes:
        task: the task's name.
        env: the environment's name in the host's registry.
        seed: of the runs that decided the episodes.
        players: one a panel.
        takes: of each player, one an episode; all players' takes of an episode begin in the same state.
        failed: sensors that fail in every episode.
        notes: remarks for the viewer.
    """

    task: str
    env: str
    seed: int
    players: Sequence[Player]
    takes: Sequence[Sequence[Take]]
    failed: FailedSensors
    notes: Sequence[str] = ()

    @property
    def episodes(self) -> int:
        """How many episodes each player plays."""
        return len(self.takes[0])

    @property
    def layout(self) -> FeatureLayout:
        """The features of the task."""
        return self.players[0].mask.layout

    @property
    def leading(self) -> int:
        """The panel whose episodes the picks are of: the first student or bundle, else the teacher."""
        return next((k for k, player in enumerate(self.players) if player.kind != "teacher"), 0)

    def picks(self) -> dict[str, int]:
        """Choose the episodes worth a look, by the leading player's returns and decisions; ties go to the first.

        Returns:
            The episode of each of `PICKS`; without a teacher to differ from there is no ``disagreement``.
        """
        takes = self.takes[self.leading]
        returns = np.array([take.returned for take in takes])
        order = np.argsort(returns, kind="stable")
        found = {
            "median": int(order[(len(order) - 1) // 2]),
            "best": int(returns.argmax()),
            "worst": int(returns.argmin()),
        }
        if takes[0].teacher_actions is not None and self.players[self.leading].kind != "teacher":
            found["disagreement"] = int(np.argmax([take.disagreement for take in takes]))
        return found

    def pick(self, word: str) -> int:
        """Return the episode that a word of ``--pick`` means: one of `PICKS`, or a number from 1.

        Raises:
            UserError: it means none.
        """
        found = self.picks()
        if word in found:
            return found[word]
        if word.isdecimal() and 1 <= int(word) <= self.episodes:
            return int(word) - 1
        raise UserError(f"--pick {word}: expected 1 to {self.episodes}, or a word; {nearest(word, found)}")

    def same_start(self, episode: int) -> bool:
        """Tell whether all players meet the same observations at the beginning of an episode."""
        first = self.takes[0][episode].obs[0]
        return all(np.array_equal(takes[episode].obs[0], first) for takes in self.takes)


def check_pick(word: str, episodes: int) -> None:
    """Refuse a ``--pick`` that means no episode, before any is played.

    Raises:
        UserError: it is no word of `PICKS` and no number of an episode.
    """
    if word not in PICKS and not (word.isdecimal() and 1 <= int(word) <= episodes):
        raise UserError(f"--pick {word}: expected 1 to {episodes}, or a word; {nearest(word, PICKS)}")


def film_data(film: Film) -> dict[str, Any]:
    """Convert a film to JSON data; arrays are packed by :func:`packed`."""
    layout, players = film.layout, film.players
    observed = 2 * sum(take.obs.size for takes in film.takes for take in takes)
    notes = list(film.notes)
    if observed > MOST_OBSERVED_BYTES:
        notes.append(
            "The values of the features are left out: they would make this page too large. Fewer --episodes have them."
        )
    if film.takes[0][0].worlds is None:
        notes.append(
            f"How to draw {film.task} is not known, so there is no picture of its world; all else is shown. "
            "An environment of your own gets one from a method world(), see the guide on watching."
        )
    agents = [
        {
            "name": name,
            "actions": action_names(film.env, layout.task, name, film.takes[0][0].available.shape[-1]),
            "features": [[feature or "", stem(feature or "")] for feature in layout.feature_names[agent]],
            "groups": groups_of(layout, agent),
        }
        for agent, name in enumerate(layout.agent_names)
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "task": film.task,
        "seed": film.seed,
        "leading": film.leading,
        "notes": notes,
        "agents": agents,
        "picks": film.picks(),
        "panels": [{"kind": p.kind, "name": p.name, "caption": p.caption} for p in players],
        "failed": film.failed.since.tolist() if (film.failed.since >= 0).any() else None,
        "failures": failures(film),
        "episodes": [
            {
                "same_start": film.same_start(episode),
                "takes": [take_data(takes[episode], observed <= MOST_OBSERVED_BYTES) for takes in film.takes],
            }
            for episode in range(film.episodes)
        ],
    }


def take_data(take: Take, with_observations: bool) -> dict[str, Any]:
    """Convert a take to JSON data."""
    expert = take.teacher_actions
    return {
        "steps": take.steps,
        "returned": take.returned if math.isfinite(take.returned) else None,
        "won": take.won,
        "disagreement": None if expert is None else take.disagreement,
        "rewards": packed(take.rewards, "f4"),
        "actions": packed(take.actions, "i2"),
        "deciding": packed(take.deciding, "u1"),
        "available": packed(take.available, "u1"),
        "visible": packed(take.visible, "u1"),
        "chances": None if take.chances is None else packed(take.chances, "u2"),
        "teacher_chances": None if take.teacher_chances is None else packed(take.teacher_chances, "u2"),
        "teacher_actions": None if expert is None else packed(expert, "i2"),
        "values": None if take.values is None else packed(take.values, "f4"),
        "messages": None if take.messages is None else packed(take.messages, "i2"),
        "obs": packed(take.obs, "i2s") if with_observations else None,
        "world": None if take.worlds is None else world_data(take),
    }


def world_data(take: Take) -> dict[str, Any]:
    """Convert the worlds of an episode: what never changes once, and positions, health and attacks of every step."""
    assert take.worlds is not None, "an episode with worlds"
    first = take.worlds[0]
    moments = [[(s.x, s.y, s.health or 0.0, float(s.alive)) for s in world.shapes] for world in take.worlds]
    return {
        "bounds": list(first.bounds),
        "shapes": [
            {
                key: getattr(shape, key)
                for key in ("name", "kind", "radius", "agent", "features", "label", "colour", "full_health", "sight")
            }
            for shape in first.shapes
        ],
        "moments": packed(np.array(moments), "f4"),
        "roads": [
            {"name": road.name, "points": road.points, "width": road.width, "features": road.features}
            for road in first.roads
        ],
        "lights": [[road.light for road in world.roads] for world in take.worlds] if first.roads else [],
        "vehicles": [
            [[round(x, 1), round(y, 1), int(stands)] for x, y, stands in world.vehicles] for world in take.worlds
        ],
        # Who attacks in the step that begins at each moment.
        "attacks": [list(map(list, world.attacks)) for world in take.worlds[1:]],
    }


def packed(values: np.ndarray, kind: str) -> dict[str, Any]:
    """Pack an array for a page: base64 of little-endian numbers.

    Args:
        values: any numbers.
        kind: ``f4``, ``i2``, ``u1`` as they are; ``u2``: shares from 0 to 1 in units of 1/65535; ``i2s``: whole numbers
            times a scale that each feature has of its own.

    Returns:
        ``kind``, ``shape``, ``data``, and for ``i2s`` the ``scale``, one for each element of the last two axes.
    """
    found: dict[str, Any] = {"kind": kind, "shape": list(values.shape)}
    if kind == "u2":
        values = np.round(np.clip(values, 0, 1) * 65535)
    if kind == "i2s":
        values = np.nan_to_num(values, posinf=_LARGEST, neginf=-_LARGEST).astype("f8")
        scale = np.abs(values).max(axis=0) / 32767
        values = np.round(values / np.where(scale > 0, scale, 1))
        found["scale"] = [float(f"{part:.6g}") for part in scale.reshape(-1)]
    data = np.ascontiguousarray(values, dtype="<" + kind[:2]).tobytes()
    return {**found, "data": base64.b64encode(data).decode("ascii")}


def failures(film: Film) -> list[str]:
    """Say what fails, a sentence for each agent and step: ``agent_0 reads zero for landmarks (L) from step 10``."""
    layout, since = film.layout, film.failed.since
    found = []
    for agent, name in enumerate(layout.agent_names):
        names = layout.feature_names[agent][: layout.obs_size]
        for step in sorted({int(step) for step in since[agent] if step >= 0}):
            lost = {index for index in np.flatnonzero(since[agent] == step).tolist() if names[index]}
            groups = [
                (f"{group['words']} ({group['name']})" if group["words"] else group["name"], group["features"])
                for group in groups_of(layout, agent)
                if not group["derived"]
            ]
            parts: dict[str, list[int]] = {}
            for index, feature in enumerate(names):
                parts.setdefault(stem(feature or ""), []).append(index)
            single = [(str(names[index]), [index]) for index in sorted(lost)]
            # The largest whole first: a block, a part such as L0, one feature.
            words = []
            for word, features in [*groups, *parts.items(), *single]:
                raw = {index for index in features if index < layout.obs_size}
                if raw and raw <= lost:
                    words.append(word)
                    lost -= raw
            when = f"from step {step}" if step else "from the start"
            found.append(f"{name} reads zero for {', '.join(words)} {when}")
    return found


def groups_of(layout: FeatureLayout, agent: int) -> list[dict[str, Any]]:
    """List an agent's groups of features: name, words, and indices in the extended observation."""
    names = layout.feature_names[agent]
    blocks = {letter: set(members) for letter, members in layout.agents[agent].blocks.items()}
    if loose := {layout.agents[agent].features[index] for index in layout.agents[agent].loose}:
        blocks[NO_BLOCK if blocks else "features"] = {name for name in loose if name}
    return [
        {
            "name": letter,
            "words": GROUPS.get(letter, ""),
            "features": [index for index, name in enumerate(names) if name in members],
            "derived": members <= set(layout.agents[agent].derived),
        }
        for letter, members in blocks.items()
    ]
