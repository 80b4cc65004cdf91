"""The work of `kd-marl watch`: episodes are played, and written as a page or a film."""

from __future__ import annotations

import argparse
import signal
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_core import files, progress
from kd_core.errors import UserError, how_to_install
from kd_core.host import Host, get_host
from kd_learners.settings import check_episodes
from kd_marl.plugin import register
from kd_marl.stress.envs import Trouble
from kd_marl.watch import takes
from kd_marl.watch.cast import Cast, Wish, gathered
from kd_marl.watch.film import Film, check_pick
from kd_marl.watch.live import live_data
from kd_marl.watch.page import page
from kd_marl.watch.sensors import agent_index, failed_sensors
from kd_onboard.bundle import PROFILE as BUNDLE_PROFILE
from kd_onboard.bundle import read_bundle

PAGE = "watch.html"
# Episodes at a time: row i of a block is seeded alike for all, so that one block begins alike for all.
LARGEST_BLOCK = 100


def run(args: argparse.Namespace) -> int:
    """Play the episodes of the command's arguments and write what they ask for; returns the exit status."""
    host = get_host()
    check_episodes(args.episodes)
    check_pick(args.pick, args.episodes)
    if args.seed is not None and args.seed < 0:
        raise UserError(f"--seed {args.seed}: expected a whole number of at least 0")
    if args.wasm and (args.fail_sensor or (not args.to and (args.gif or args.mp4))):
        raise UserError(
            "--wasm is for a page of undisturbed episodes: leave out --fail-sensor, --gif and --mp4, or give --to"
        )
    moving = [(file, suffix) for file, suffix in ((args.gif, "gif"), (args.mp4, "mp4")) if file]
    for file in (args.to, *(file for file, _ in moving)):
        if file:
            files.check_parent(file)
            if file.expanduser().is_dir():
                raise UserError(f"cannot write {file}: it is a folder; give the name of a file")
    targets = [file.expanduser().absolute() for file in (args.to, *(file for file, _ in moving)) if file]
    if len(set(targets)) < len(targets):
        raise UserError(f"{targets[-1]} is named twice among --to, --gif and --mp4: give each a file of its own")
    if moving:
        picture = _drawing([suffix for _, suffix in moving])
    register.register(host)
    progress.remember_terminal()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    written: list[Path] = []
    paged = bool(args.to or not moving)
    wish = Wish(args.runs, args.teacher, args.seed, args.env_config, args.updates, bool(args.fail_sensor))
    try:
        with (
            progress.bar("players", len(args.runs), "player", leave=False) as bar,
            gathered(host, wish, min(args.episodes, LARGEST_BLOCK)) as cast,
        ):
            eyes = None if args.eyes is None else agent_index(args.eyes, cast.mask.layout.agent_names, "--eyes")
            film = _played(host, cast, args, bar)
        episode = film.pick(args.pick)
        if paged:
            target = args.to or _usual_place(cast)
            files.write_bytes(target, page(film, episode, eyes, _live(film, args)).encode())
            written.append(target)
        for file, suffix in moving:
            picture.write(film, episode, eyes, file, suffix)
            written.append(file)
    except KeyboardInterrupt:
        print(f"stopped: {', '.join(map(str, written)) or 'nothing'} was written", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    for note in film.notes:
        print(note, file=sys.stderr)
    if paged:
        print(f"{film.episodes} episodes of {film.task}, written to {written[0]}")
    if moving:
        films = ", ".join(str(file) for file, _ in moving)
        print(f"episode {episode + 1} of {film.episodes} of {film.task}, written to {films}")
    if args.open:
        webbrowser.open(written[0].expanduser().absolute().as_uri())
    return 0


def _live(film: Film, args: argparse.Namespace) -> dict[str, Any] | None:
    """Compile the agents of the bundles among the players for the page, if that is asked for.

    Raises:
        UserError: no player is a bundle, or its C cannot be compiled.
    """
    if not args.wasm:
        return None
    bundles = iter([read_bundle(folder) for folder in args.runs if (Path(folder) / BUNDLE_PROFILE).is_file()])
    players = [next(bundles) if player.kind == "bundle" else None for player in film.players]
    if not any(players):
        raise UserError("--wasm runs the C of a bundle, and none is among the players: kd-marl export writes one")
    return live_data(film.takes, players)


def _drawing(kinds: Sequence[str]) -> Any:
    """Import what draws films, before an episode is played.

    Raises:
        UserError: a package of the extra is not installed.
    """
    try:
        # matplotlib takes a second to import, and pages do without.
        from kd_marl.watch import picture
    except ModuleNotFoundError as error:
        raise UserError(f"this needs {error.name}, which is not installed: {how_to_install('watch')}") from error
    picture.check_installed(kinds)
    return picture


def _played(host: Host, cast: Cast, args: argparse.Namespace, bar: Any) -> Film:
    """Play all episodes with every player; `bar` counts them."""
    failed = failed_sensors(args.fail_sensor, cast.mask.layout)
    block = min(args.episodes, LARGEST_BLOCK)
    bar.total = len(cast.players)
    bar.refresh()
    if not progress.wanted():
        names = ", ".join(player.name.lower() for player in cast.players)
        print(f"playing {args.episodes} episodes each: {names}", file=sys.stderr, flush=True)
    played = []
    for player in cast.players:
        played.append(takes.play(host, player, Trouble(failed), args.episodes, block))
        bar.update()
    first = cast.players[0].args
    return Film(first.map_name, first.env, first.seed, cast.players, played, failed, cast.notes)


def _usual_place(cast: Cast) -> Path:
    """Return where a page goes unasked: into the Sacred folder of the one student, else into the current folder."""
    return cast.folders[0] / PAGE if cast.lone_student else Path(PAGE)
