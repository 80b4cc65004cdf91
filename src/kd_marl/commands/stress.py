"""`kd-marl stress`: what failing sensors, late observations, a dead agent or another map leave of a student."""

from __future__ import annotations

from pathlib import Path

from kd_marl.commands.common import Subparsers, add_parser
from kd_marl.work import Work

DEFAULT_EPISODES = 500


def add(subparsers: Subparsers) -> None:
    """Adds `stress`."""
    parser = add_parser(
        subparsers,
        "stress",
        "Play teacher and student side by side under sensor dropout and noise, late observations, a dead agent, on "
        "unseen maps, and, where students talk, with lost, late and jammed messages; stress.json, stress.md and "
        "stress.svg go into the run's Sacred folder.",
        "kd-marl stress results/sacred/kd_student/3m/1\n"
        "  kd-marl stress results/sacred/kd_student/3m/1 --episodes 1000 --dropout 0.1 0.3 --noise --delay 1 --dead\n\n"
        "An option of levels that is given without any leaves its kind out. Interrupted, the same command goes on.",
    )
    parser.add_argument(
        "student", metavar="RUN", type=Path, help="the student: its Sacred folder, its models folder, or one checkpoint"
    )
    parser.add_argument(
        "--episodes",
        type=int,
        default=DEFAULT_EPISODES,
        help=f"of each policy under each disturbance (default: {DEFAULT_EPISODES})",
    )
    parser.add_argument("--dropout", nargs="*", type=float, metavar="P", help="probabilities (default: 0.1 0.2 0.5)")
    parser.add_argument(
        "--noise",
        nargs="*",
        type=float,
        metavar="SIGMA",
        help="in standard deviations of each feature over undisturbed play (default: 0.1 0.2 0.5 1)",
    )
    parser.add_argument("--delay", nargs="*", type=int, metavar="STEPS", help="of the observation (default: 1 2 3)")
    parser.add_argument("--dead", nargs="*", metavar="AGENT", help="by index or name (default: each in turn)")
    parser.add_argument("--maps", nargs="*", metavar="MAP", help="unseen ones (default: all of the same sizes)")
    parser.add_argument(
        "--message-loss", nargs="*", type=float, metavar="P", help="of students that talk (default: 0.1 0.2 0.5)"
    )
    parser.add_argument(
        "--message-delay", nargs="*", type=int, metavar="STEPS", help="beyond the trained latency (default: 1 2)"
    )
    parser.add_argument(
        "--jam",
        nargs="*",
        metavar="AGENT",
        help="who neither sends nor hears, by index or name (default: each in turn)",
    )
    parser.add_argument("--teacher", type=Path, metavar="DIR", help="the teacher, if it is no longer where it was")
    # What follows `with` is taken out before argparse looks, see cli.py.
    parser.usage = f"{parser.prog} RUN [options] [with batch_size_run=N env_args.NAME=VALUE ...]"
    parser.set_defaults(run=Work("kd_marl.stress.command:run", host=True), updates=[])
