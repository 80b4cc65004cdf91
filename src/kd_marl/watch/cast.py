"""Who plays in a film: students with their teachers, teachers alone, and bundles."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sacred.arg_parser import get_config_updates

from kd_controllers.hetero_mac import HeteroMAC
from kd_controllers.policy_mac import PolicyMAC
from kd_core import checkpoints, files
from kd_core.artifacts import teacher as artifacts
from kd_core.artifacts.teacher import TeacherArtifact
from kd_core.config import assemble, parse_command, task_key
from kd_core.errors import UserError
from kd_core.host import Host
from kd_core.places import ZOO
from kd_core.task import Task
from kd_envs.hetero_mask.mask import ObservationMask
from kd_envs.hetero_mask.presets import mask_for
from kd_learners.frozen_teacher import FrozenTeacher
from kd_learners.value_teacher import frozen_teacher
from kd_marl.deploy import play as bundles
from kd_marl.deploy.agent_process import AgentProcess, join_team
from kd_marl.deploy.settings import play_settings
from kd_marl.runs.folders import results_folders
from kd_marl.runs.student_run import CONFIG_FILE, RUN_FILE, StudentRun, load_student, run_arguments
from kd_marl.stress.measure import find_teacher
from kd_marl.watch.takes import Player
from kd_onboard.bundle import PROFILE, Bundle, read_bundle
from kd_onboard.errors import OnboardError
from kd_runners import environments

MOST_PANELS = 4
# What must be equal for players to begin in the same states.
_SAME = ("env", "map_name", "common_reward", "reward_scalarisation")


@dataclass
class Cast:
    """The players of a film, all on one task.

    Attributes:
        players: teachers first; each opens a panel.
        folders: what each of the user's words named, a student's Sacred folder among them.
        notes: remarks for the viewer.
    """

    players: list[Player]
    folders: list[Path]
    notes: list[str]

    @property
    def lone_student(self) -> bool:
        """Whether the user named one run of a student."""
        return len(self.folders) == 1 and self.players[-1].kind == "student"

    @property
    def mask(self) -> ObservationMask:
        """Return what the first player sees; all players share its layout."""
        return self.players[0].mask


@dataclass(frozen=True)
class Wish:
    """What the user asked for.

    Attributes:
        sources: folders of runs, bundles or teachers, or names of ready-made teachers.
        teacher: where the students' teacher is; None: where it was.
        seed: of the episodes; None: that of the first run.
        environment: ``--env-config``, for a bundle or a checkpoint that does not tell its own; empty: not given.
        updates: what follows ``with``.
        failing: whether sensors fail, the teacher's among them.
    """

    sources: Sequence[str]
    teacher: Path | None = None
    seed: int | None = None
    environment: str = ""
    updates: Sequence[str] = ()
    failing: bool = False


@contextlib.contextmanager
def gathered(host: Host, wish: Wish, block: int) -> Iterator[Cast]:
    """Load all players; a bundle's agents run in processes of their own until the block ends.

    Args:
        host: whose environments are used.
        wish: of the user.
        block: episodes that are played at a time.

    Raises:
        UserError: a source is no run, bundle or teacher, is damaged or unfinished, lacks its teacher, or plays another
            task than the first.
    """
    if wish.updates and not wish.environment:
        raise UserError(f"'with {wish.updates[0]}' needs --env-config=NAME too; a student's run takes neither")
    cast, knowing = Cast([], [], []), 0
    with contextlib.ExitStack() as stack:
        for word in wish.sources:
            folder = Path(word).expanduser()
            if (folder / PROFILE).is_file():
                players = _bundle(host, wish, folder, block, stack, cast.notes)
            elif teacher := _teacher_folder(word):
                folder, players = teacher, [_teacher_alone(host, wish, teacher)]
            else:
                knowing += 1
                if wish.environment and knowing == len(wish.sources):
                    raise UserError(f"{word} is a student's run and knows its environment: leave --env-config out")
                run = load_student(folder)
                folder, players = run.folder, _student(host, wish, run)
            cast.folders.append(folder)
            for player in players:
                _join(cast, player, len(wish.sources))
        _name(cast.players)
        yield cast


def _join(cast: Cast, player: Player, runs: int) -> None:
    """Add a player unless it is a teacher who plays already.

    Raises:
        UserError: it plays another task or environment than the others, or there are too many panels.
    """
    if cast.players:
        first = cast.players[0]
        for key in _SAME:
            was, now = getattr(first.args, key), getattr(player.args, key)
            if was != now:
                raise UserError(f"{player.caption} has {key}={now}, {first.caption} {was}: watch runs of one task")
        was, now = (checkpoints.unseeded(each.args.env_args) for each in (first, player))
        if was != now:
            key = next(key for key in {**was, **now} if was.get(key) != now.get(key))
            raise UserError(
                f"{player.caption} has env_args.{key}={now.get(key)}, {first.caption} {was.get(key)}: watch runs of "
                "one environment"
            )
        # One start for all.
        start = {"seed": first.args.seed, "runner": first.args.runner}
        player = replace(player, args=SimpleNamespace(**{**vars(player.args), **start}))
        if player.kind == "teacher" and any(_same_teacher(player, other) for other in cast.players):
            return
    if len(cast.players) == MOST_PANELS:
        raise UserError(f"{runs} runs and their teachers are more than {MOST_PANELS} panels: give fewer")
    teachers = sum(other.kind == "teacher" for other in cast.players)
    cast.players.insert(teachers if player.kind == "teacher" else len(cast.players), player)


def _same_teacher(one: Player, other: Player) -> bool:
    return other.kind == "teacher" and _weights(one) == _weights(other)


def _weights(player: Player) -> str:
    assert player.teacher is not None, "a teacher's panel has one"
    return player.teacher.artifact.sha256["agent.th"]


def _name(players: list[Player]) -> None:
    """Name the panels: numbered where there are several of a kind."""
    for kind in ("teacher", "student", "bundle"):
        mine = [place for place, player in enumerate(players) if player.kind == kind]
        for number, place in enumerate(mine, 1):
            name = f"{kind.capitalize()} {number}" if len(mine) > 1 else kind.capitalize()
            players[place] = replace(players[place], name=name)


def _student(host: Host, wish: Wish, run: StudentRun) -> list[Player]:
    """Return the student of a run and its teacher."""
    artifact = find_teacher(run, wish.teacher, [run.results, *results_folders()])
    args, task = run_arguments(host, run)
    args = _seeded(args, wish)
    artifacts.check_compatible(artifact, task)
    teacher = frozen_teacher(artifact, args)

    def make(scheme: dict[str, Any], options: Any) -> PolicyMAC:
        mac = HeteroMAC(scheme, None, options, run.mask)
        mac.agent.load_state_dict(run.network.state_dict())
        mac.greedy = True
        return mac

    summary, widths = run.summary, sorted(set(run.network.widths))
    preset = f" ({summary['masks_preset']} masks)" if summary.get("masks_preset") else ""
    width = f"{widths[0]} units wide" if len(widths) == 1 else f"{widths[0]} to {widths[-1]} units wide"
    caption = f"{run.record}: limits {summary['limits']}{preset}, {width}"
    return [
        _teacher(teacher, run.mask, args, wish.failing),
        Player("student", "", caption, run.mask, make, args, teacher),
    ]


def _teacher(teacher: FrozenTeacher, mask: ObservationMask, args: SimpleNamespace, failing: bool) -> Player:
    """Return the panel of a teacher, who sees everything but what fails."""

    def make(scheme: dict[str, Any], options: Any) -> PolicyMAC:
        teacher.mac.greedy = True
        return teacher.mac

    units = teacher.sizes.hidden_dim
    name = teacher.artifact.folder.name
    where = f"{_shortened(teacher.artifact.folder.parent.name)}/{name}" if name.isdigit() else _shortened(name)
    sees = "sees everything but what fails" if failing else "sees everything"
    caption = f"{where}: {sees}, {units} units wide"
    return Player("teacher", "", caption, mask_for(mask.layout, "fo"), make, args, teacher)


def _shortened(name: str) -> str:
    """Leave task and time out of the host's name of a models folder, ``kd_teacher_seed1_TASK_TIME``."""
    run, found, rest = name.partition("_seed")
    return f"{run}{found}{rest.partition('_')[0]} … " if found else name


def _teacher_folder(word: str) -> Path | None:
    """Return a teacher's folder, or that of a ready-made teacher's name; None for anything else.

    Raises:
        UserError: the folder is the Sacred record of a run that trained one.
    """
    folder = Path(word).expanduser()
    if not folder.is_dir():
        return ZOO / word if (ZOO / word / artifacts.FACTS_FILE).is_file() else None
    if (folder / RUN_FILE).is_file():
        name = files.read_json(folder / CONFIG_FILE).get("name")
        if name == "kd_teacher":
            raise UserError(
                f"{folder} is the record of a teacher's run: give the teacher itself, its folder below results/models"
            )
        return None
    steps = [folder, *(child for child in folder.iterdir() if child.name.isdigit())]
    # A teacher's training leaves checkpoints too.
    told = any((step / artifacts.FACTS_FILE).is_file() for step in steps)
    if not told and any((step / checkpoints.FACTS_FILE).is_file() for step in steps):
        return None
    return folder if any((step / artifacts.WEIGHT_FILES[0]).is_file() for step in steps) else None


def _teacher_alone(host: Host, wish: Wish, folder: Path) -> Player:
    """Return a teacher that is watched without a student."""
    artifact = artifacts.load_teacher(folder, results_dirs=results_folders())
    if artifact.facts["masked"]:
        raise UserError(
            f"{folder} was trained under limits (mask_at=environment), and such a policy is not played here: watch its "
            "students, or a teacher that sees everything"
        )
    args, task, facts = _environment(host, wish, artifact)
    artifacts.check_compatible(artifact, task)
    full = mask_for(environments.task_mask(args, facts).layout, "fo")
    return _teacher(frozen_teacher(artifact, args), full, args, wish.failing)


def _environment(host: Host, wish: Wish, artifact: TeacherArtifact) -> tuple[SimpleNamespace, Task, dict[str, Any]]:
    """Build the namespace of a teacher's own run, as its command or the user's gives it."""
    words = shlex.split(artifact.facts.get("command") or "")[2:]
    if wish.environment:
        words = ["--config=kd_teacher", f"--env-config={wish.environment}", "with", *wish.updates]
    if not words:
        raise UserError(
            f"the teacher in {artifact.folder} does not tell its environment: add --env-config=NAME with "
            f"env_args.key={artifact.task}, as in its training"
        )
    updates, _ = get_config_updates(words[words.index("with") + 1 :])
    config = host.merge(assemble(host, parse_command(words)), updates)
    config.setdefault("seed", artifact.facts["seed"] or 0)
    args = SimpleNamespace(**{**config, "device": "cpu", "use_cuda": False})
    args.env_args = {**args.env_args, "seed": args.seed}
    args = _seeded(args, wish)
    task = environments.prepare(host, args)
    return args, task, dict(task.facts)


def _seeded(args: SimpleNamespace, wish: Wish) -> SimpleNamespace:
    return args if wish.seed is None else SimpleNamespace(**{**vars(args), "seed": wish.seed})


# ---- bundles ---------------------------------------------------------------------------------------------------------


class _Bundle(bundles.BundleMAC):
    """A bundle's agents in an environment that shows everything: each is told what its profile names."""

    def __init__(self, agents: Sequence[AgentProcess], args: Any, mask: ObservationMask) -> None:
        super().__init__(agents, args)
        self._hider = mask
        self._episode = -1

    def init_hidden(self, batch_size: int) -> None:
        """Begin ``batch_size`` episodes, with masks of their own if they are drawn."""
        super().init_hidden(batch_size)
        self._episode += 1
        seed = self.args.env_args["seed"]
        drawn = np.stack([self._hider.draw(seed + row, self._episode) for row in range(batch_size)])
        self.visible = torch.from_numpy(drawn.astype(np.float32))

    def select_actions(
        self, ep_batch: Any, t_ep: int, t_env: int, bs: Any = slice(None), test_mode: bool = False
    ) -> torch.Tensor:
        """Return the actions of the episodes ``bs``, int64 ``(len(bs), agents)``."""
        taken = ep_batch["actions"][:, max(t_ep - 1, 0)].squeeze(-1).unsqueeze(1)
        last = taken if t_ep else torch.full_like(taken, -1)
        seen = self._hider.apply(ep_batch["obs"][:, t_ep : t_ep + 1], last, self.visible)
        now = {"obs": seen, "avail_actions": ep_batch["avail_actions"][:, t_ep : t_ep + 1]}
        return super().select_actions(now, 0, t_env, bs, test_mode)


def _bundle(
    host: Host, wish: Wish, folder: Path, block: int, stack: contextlib.ExitStack, notes: list[str]
) -> list[Player]:
    """Return a bundle's team and, where it is found, its teacher."""
    try:
        bundle = read_bundle(folder)
    except OnboardError as error:
        raise UserError(str(error)) from None
    environment, words = _bundle_environment(host, wish, bundle)
    args = _seeded(play_settings(host, environment, words, bundle.profile), wish)
    mask = bundles.prepare(host, bundle, args)
    agents: list[AgentProcess] = []
    for profile in bundle.agents:
        agents.append(AgentProcess(bundle, profile, "numpy", block))
        stack.callback(agents[-1].close)
    for agent in agents:
        agent.wait_until_ready()
    join_team(agents)
    teacher = _bundle_teacher(wish, bundle, args, notes)
    caption = f"{folder.name}: a bundle, played by kd_onboard"
    player = Player("bundle", "", caption, mask, lambda scheme, options: _Bundle(agents, options, mask), args, teacher)
    return [*([_teacher(teacher, mask, args, wish.failing)] if teacher else []), player]


def _bundle_environment(host: Host, wish: Wish, bundle: Bundle) -> tuple[str, Sequence[str]]:
    """Return ``--env-config`` and the words after ``with``: the user's, or what a bundle's task says.

    Raises:
        UserError: the user gave none, and the task's name could make Python import a module of the bundle's choice.
    """
    if wish.environment:
        return wish.environment, wish.updates
    task = bundle.task
    if task.env not in ("gymma", "smax") or ":" in task.name:
        raise UserError(
            f"the bundle {bundle.folder} plays {task.name} of {task.env}: add --env-config {task.env} with "
            f"env_args.key={task.name} if you trust it"
        )
    environment = "mpe" if task.name.startswith("pz-mpe-") else task.env
    return environment, [f"{task_key(host, environment)}={task.name}", *wish.updates]


def _bundle_teacher(wish: Wish, bundle: Bundle, args: SimpleNamespace, notes: list[str]) -> FrozenTeacher | None:
    """Return the teacher that a bundle's profile names by its hash, if it is here; else a note says so.

    Raises:
        UserError: the teacher that the user gave is another.
    """
    stated = bundle.profile.provenance.get("teacher")
    wanted = stated.get("sha256", {}).get("agent.th") if isinstance(stated, dict) else None
    given = wish.teacher
    places = (
        [artifacts.checkpoint_folder(given.expanduser())]
        if given
        else artifacts.teacher_folders([ZOO, *(folder / "models" for folder in results_folders())])
    )
    folder = next((place for place in places if wanted and artifacts.weights_sha256(place) == wanted), None)
    if folder is None:
        if given:
            raise UserError(f"{places[0]} is not the teacher of the bundle {bundle.folder}: leave --teacher out")
        notes.append("The bundle's teacher is not here, so it plays alone; --teacher DIR says where it is.")
        return None
    return frozen_teacher(artifacts.load_teacher(folder), args)
