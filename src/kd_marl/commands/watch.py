"""`kd-marl watch`: teacher and student side by side, as a page to look at or as a film."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work

DEFAULT_EPISODES = 20


def add(subparsers: Subparsers) -> None:
    """Adds `watch`."""
    parser = add_parser(
        subparsers,
        "watch",
        "Play teacher and student side by side from the same starts, and write one page to watch them with: what each "
        "agent sees, does, and decides otherwise than the teacher.",
        "kd-marl watch results/sacred/kd_student/3m/1 --open\n"
        "  kd-marl watch results/sacred/kd_student/3m/1 results/sacred/kd_student/3m/2 --to both.html\n"
        "  kd-marl watch board_bundle --wasm --open\n"
        "  kd-marl watch results/sacred/kd_student/3m/1 --fail-sensor 1:A@5 --gif failing.gif --pick worst",
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="a student (its Sacred folder, its models folder, or one checkpoint), a bundle's folder, a teacher's "
        "folder or a ready-made teacher's name; at most four panels, their teachers included",
    )
    parser.add_argument(
        "--episodes", type=int, default=DEFAULT_EPISODES, help=f"of each player (default: {DEFAULT_EPISODES})"
    )
    parser.add_argument(
        "--pick",
        default="median",
        metavar="EPISODE",
        help="shown first, and in a film: median (the default), best or worst by the student's return, disagreement, "
        "or a number from 1",
    )
    parser.add_argument(
        "--eyes",
        metavar="AGENT",
        help="through whose eyes to look first, by index or name (default: the first agent's; in a film nobody's)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the episodes (default: the run's, so its own)")
    parser.add_argument(
        "--fail-sensor",
        action="append",
        default=[],
        metavar="AGENT:GROUP[@STEP]",
        help="a block or feature of an agent reads zero, from a step on: 0:E, 1:L0@10; may be repeated",
    )
    parser.add_argument("--teacher", type=Path, metavar="DIR", help="the teacher, if it is no longer where it was")
    parser.add_argument(
        "--to",
        type=Path,
        metavar="FILE",
        help="the page (default: watch.html in the student's Sacred folder; for a bundle, a teacher or several runs "
        "in this folder)",
    )
    parser.add_argument(
        "--wasm",
        action="store_true",
        help="let the C of a bundle's agents decide again in the page, as WebAssembly, and mark where it differs from "
        "what was recorded; needs clang and lld",
    )
    parser.add_argument("--gif", type=Path, metavar="FILE", help="a film instead of the page, or beside it with --to")
    parser.add_argument("--mp4", type=Path, metavar="FILE", help="the same as a video")
    parser.add_argument("--open", action="store_true", help="open what was written in the browser")
    parser.add_argument(
        "--env-config",
        default="",
        metavar="NAME",
        help="as for kd-marl train: for a bundle or an EPyMARL checkpoint that does not tell its environment",
    )
    # What follows `with` is taken out before argparse looks, see cli.py.
    parser.usage = f"{parser.prog} RUN [RUN ...] [options] [with env_args.key=TASK ...]"
    parser.set_defaults(run=Work("kd_marl.watch.command:run", host=True), updates=[])
