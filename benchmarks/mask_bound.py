"""The most that any policy can return in simple_speaker_listener under each preset: what the mask itself costs.

    python benchmarks/mask_bound.py
    python benchmarks/mask_bound.py --episodes 200000 --seed 2
    python benchmarks/mask_bound.py --keep      puts the bounds into what `kd-marl reachable` shows

The reward is minus the squared distance between the listener and the goal landmark, so what a listener cannot know
costs its variance at every step, whatever it does. Here the listener is told more than any policy is: which features
are hidden, which landmark is the goal (before the speaker has said anything), and how far it has moved. Then, an axis
at a time:

- Sees it the goal's coordinate, the distance is known.
- Otherwise it knows the goal only as the prior does, uniform on [-1, 1], and its own start from the landmarks it sees:
  each that it sees at offset a is somewhere on [-1, 1], so the start lies where all of them allow it, uniformly. The
  distance has the sum of both variances and the difference of both means. Nothing later tells more: landmarks stand
  still and nobody runs into anything.

From there the bound lets the listener go to the best guess as fast as the world allows at all: one push a step along
one axis, so that after t steps the two displacements sum to no more than a push along one axis all the time gives. The
return is averaged over drawn episodes; only that average is uncertain.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measured
import numpy as np
import yaml

from kd_core.errors import UserError
from kd_core.places import CONFIG
from kd_envs.hetero_mask import layout_for, mask_for
from kd_marl.runs import reachable

TASK, OBS_SIZE, LANDMARKS, LISTENER = "pz-mpe-simple-speaker-listener-v4", 11, 3, 1
# The task's rules: steps of an episode; agents that are given the reward, which the host sums; and the world's step in
# seconds, share of the velocity that is lost in one, and acceleration of a push.
STEPS, REWARDED, DT, DAMPING, PUSH = 25, 2, 0.1, 0.25, 5.0
SETTINGS = (("fo", "paper"), ("lh", "paper"), ("lh", "random"))


def reach(steps: int) -> np.ndarray:
    """Compute how far constant pushing along an axis has moved the listener: ``(steps,)``, after 1, 2, ... steps."""
    position, velocity, reached = 0.0, 0.0, []
    for _ in range(steps):
        position += velocity * DT
        velocity = velocity * (1 - DAMPING) + PUSH * DT
        reached.append(position)
    return np.array(reached)


def belief(offsets: np.ndarray, seen: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute what can be known of one coordinate of the way to the goal at the start.

    Args:
        offsets: ``(episodes, landmarks)``, each landmark's coordinate relative to the listener.
        seen: the same shape, whether the listener sees it.
        goal: ``(episodes,)``, the goal's index.

    Returns:
        Mean and variance of the goal's offset given what is seen, ``(episodes,)`` each.
    """
    low = np.maximum(-1, np.where(seen, -1 - offsets, -1).max(1))
    high = np.minimum(1, np.where(seen, 1 - offsets, 1).min(1))
    rows = np.arange(len(goal))
    known = seen[rows, goal]
    mean = np.where(known, offsets[rows, goal], -(low + high) / 2)
    variance = np.where(known, 0.0, 1 / 3 + (high - low) ** 2 / 12)
    return mean, variance


def squared_way(ways: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Compute the squared distance that is left after moving by at most a radius in the sum of both axes.

    Args:
        ways: ``(episodes, 2)``.
        radius: ``(steps,)``.

    Returns:
        ``(episodes, steps)``.
    """
    far, near = np.sort(np.abs(ways), axis=1)[:, ::-1].T[..., None]
    left = far + near - radius
    along_both = left**2 / 2
    along_far = (far - radius) ** 2 + near**2
    return np.where(left <= 0, 0.0, np.where(near >= left / 2, along_both, along_far))


def bounds(ways: np.ndarray, seen: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Compute the largest expected return given what is seen: ``(episodes,)``.

    Args:
        ways: ``(episodes, landmarks, 2)``, landmarks relative to the listener at the start.
        seen: the same shape, whether the listener sees that coordinate.
        goal: ``(episodes,)``, the goal's index.
    """
    axes = [belief(ways[..., axis], seen[..., axis], goal) for axis in (0, 1)]
    means = np.stack([mean for mean, _ in axes], axis=1)
    variance = sum(variance for _, variance in axes)
    return -REWARDED * (STEPS * variance + squared_way(means, reach(STEPS)).sum(1))


def drawn_bounds(limits: str, preset: str, episodes: int, seed: int) -> np.ndarray:
    """Compute the `bounds` of episodes: starts and goals as the task draws them, masks as the preset does."""
    layout = layout_for(TASK, n_agents=2, obs_size=OBS_SIZE)
    mask = mask_for(layout, limits=limits, preset=preset)
    names = [str(name) for name in layout.feature_names[LISTENER]]
    columns = [[names.index(f"L{landmark}.{axis}") for axis in "xy"] for landmark in range(LANDMARKS)]
    rng = np.random.default_rng(seed)
    starts = rng.uniform(-1, 1, (episodes, 1, 2))
    ways = rng.uniform(-1, 1, (episodes, LANDMARKS, 2)) - starts
    seen = mask.sample(rng, episodes)[:, LISTENER][:, columns]
    return bounds(ways, seen, rng.integers(LANDMARKS, size=episodes))


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the bound under each setting, with the half-width of its 95 % interval.

    Raises:
        UserError: fewer than two episodes, or a negative seed.
    """
    if args.episodes < 2 or args.seed < 0:
        raise UserError("expected --episodes of at least 2 and --seed of at least 0")
    rows = []
    for limits, preset in SETTINGS:
        found = drawn_bounds(limits, preset, args.episodes, args.seed)
        half = 1.96 * found.std(ddof=1) / np.sqrt(args.episodes)
        masks = "" if limits == "fo" else preset
        rows.append({"limits": limits, "masks": masks, "bound": float(found.mean()), "half_95": float(half)})
    if args.keep:
        keep(rows, args.episodes, args.seed)
    yield {"task": TASK, "episodes": args.episodes, "bounds": rows}


def keep(rows: Sequence[Mapping[str, Any]], episodes: int, seed: int, file: Path = reachable.FILE) -> None:
    """Put the bounds into the list of what can be reached, in place of those that are there.

    They hold for teams that talk too: the speaker has nothing to tell but the goal, which the bound has told already.
    """
    config = yaml.safe_load((CONFIG / "envs" / "mpe.yaml").read_text(encoding="utf-8"))
    setting = reachable.setting_of({**config, "env_args": {**config["env_args"], "key": TASK}})
    bounds = [
        reachable.Reachable(
            setting=setting,
            task=TASK,
            limits=row["limits"],
            masks_preset=row["masks"],
            message_bits=None,
            measure="return_mean",
            value=row["bound"],
            low=row["bound"] - row["half_95"],
            high=row["bound"] + row["half_95"],
            kind=reachable.BOUND,
            runs=0,
            episodes=episodes,
            command=f"python benchmarks/mask_bound.py --episodes {episodes} --seed {seed} --keep",
            date=f"{datetime.now(timezone.utc):%Y-%m-%d}",
        )
        for row in rows
    ]
    known = {entry.place: entry for entry in [*reachable.read(file), *bounds]}
    reachable.write(known.values(), file)


def text(result: Mapping[str, Any]) -> str:
    """Write the bounds, each with the half-width of its 95 % interval."""
    rows = [{**row, **{key: f"{row[key]:.2f}" for key in ("bound", "half_95")}} for row in result["bounds"]]
    head = f"{result['task']}, {result['episodes']} drawn episodes: no policy returns more than"
    return f"{head}\n\n{measured.table(rows)}"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = measured.options(__doc__)
    parser.add_argument("--episodes", type=int, default=1_000_000, help="episodes to average over (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the draws (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="put the bounds into what `kd-marl reachable` shows")
    return measured.command(parser, words, measure, text)


if __name__ == "__main__":
    sys.exit(main())
