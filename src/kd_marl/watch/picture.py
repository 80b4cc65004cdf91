"""A film as a GIF or a video, for a README or a talk: the worlds of all players, to scale, and their returns."""

from __future__ import annotations

import contextlib
import importlib
import io
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrow, Polygon, Rectangle

from kd_core import files, progress
from kd_core.errors import UserError, how_to_install
from kd_envs.hetero_mask.naming import action_names
from kd_envs.worlds import Shape, World
from kd_marl.watch.film import Film
from kd_marl.watch.sight import Sight, sight
from kd_marl.watch.takes import Take

# What each kind of film is written with.
_NEEDS = {"gif": ("PIL",), "mp4": ("imageio_ffmpeg",)}
_INK, _SOFT, _LINE, _DIFFERS, _FAILED, _EYES = "#1d2127", "#59636e", "#d5d9de", "#b8137d", "#b3261e", "#f2b600"
_KINDS = {"agent": "#0a6cb0", "opponent": "#c8500a", "landmark": "#6d7680", "goal": "#00805d"}
# Red, yellow and green, as on the page.
_LIGHTS = {"r": "#b3261e", "y": "#f2b600", "g": "#00805d"}
_PANELS = ("#8a5a00", "#0a6cb0", "#00805d", "#7a44c9")
_WAYS = {
    "move_left": (-1, 0),
    "move_right": (1, 0),
    "move_down": (0, -1),
    "move_up": (0, 1),
    "west": (-1, 0),
    "east": (1, 0),
    "south": (0, -1),
    "north": (0, 1),
}
# Steps a second, pictures a step, and seconds that the last one stays.
_PACE, _BETWEEN, _END_S = 3, 4, 1.5
_PANEL_INCHES, _DPI = 4.4, 100

Bounds = tuple[float, float, float, float]


def check_installed(kinds: Sequence[str]) -> None:
    """See that the packages are there before an episode is played.

    Raises:
        UserError: one is missing.
    """
    for package in [package for kind in kinds for package in _NEEDS[kind]]:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise UserError(f"this needs {error.name}, which is not installed: {how_to_install('watch')}") from error


def write(film: Film, episode: int, eyes: int | None, file: Path, kind: str) -> None:
    """Write one episode of a film; the file appears whole.

    Args:
        film: what is shown.
        episode: from 0.
        eyes: the agent through whose eyes the worlds are drawn; None: all is drawn as it is.
        file: where to.
        kind: ``gif`` or ``mp4``.

    Raises:
        UserError: the film has no worlds to draw, or the file cannot be written.
    """
    if any(takes[episode].worlds is None for takes in film.takes):
        raise UserError(
            f"how to draw {film.task} is not known, so there is no film of it: give --to FILE for a page, or the "
            "environment a method world()"
        )
    pictures = _pictures(film, episode, eyes)
    data = _gif(film, pictures) if kind == "gif" else _mp4(pictures)
    files.write_bytes(file, data)


def _gif(film: Film, pictures: Iterator[np.ndarray]) -> bytes:
    from PIL import Image

    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette(film))
    frames = [Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    lasting = [round(1000 / (_PACE * _BETWEEN))] * len(frames)
    lasting[-1] = round(1000 * _END_S)
    stream = io.BytesIO()
    frames[0].save(
        stream, "GIF", save_all=True, append_images=frames[1:], duration=lasting, loop=0, optimize=True, disposal=1
    )
    return stream.getvalue()


def _palette(film: Film) -> list[int]:
    """Return the colours of a GIF: each that is drawn, pure and in steps towards white."""
    worlds = [world for takes in film.takes for world in (takes[0].worlds or ())[:1]]
    own = {shape.colour for world in worlds for shape in world.shapes if shape.colour}
    drawn = [_INK, _SOFT, _LINE, _DIFFERS, _FAILED, _EYES, *_KINDS.values(), *_LIGHTS.values(), *_PANELS, *sorted(own)]
    shades = max(2, 256 // len(dict.fromkeys(drawn)))
    colours = [
        round(255 + (int(colour[at : at + 2], 16) - 255) * shade / (shades - 1))
        for colour in dict.fromkeys(drawn)
        for shade in range(shades)
        for at in (1, 3, 5)
    ]
    return colours[: 3 * 256]


def _mp4(pictures: Iterator[np.ndarray]) -> bytes:
    import imageio_ffmpeg

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kd-marl-"))
        path, writer, picture = Path(folder) / "film.mp4", None, None
        # JAX warns of every process that starts beside it; this one is another program at once.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
        for picture in pictures:
            if writer is None:
                size = (picture.shape[1], picture.shape[0])
                writer = imageio_ffmpeg.write_frames(
                    str(path), size, fps=_PACE * _BETWEEN, macro_block_size=2, quality=8, ffmpeg_log_level="error"
                )
                writer.send(None)
            writer.send(np.ascontiguousarray(picture))
        assert writer is not None and picture is not None, "a film has pictures"
        for _ in range(round(_END_S * _PACE * _BETWEEN)):
            writer.send(np.ascontiguousarray(picture))
        writer.close()
        return path.read_bytes()


def _pictures(film: Film, episode: int, eyes: int | None) -> Iterator[np.ndarray]:
    """Draw every picture, ``(height, width, 3)`` uint8, of even sizes."""
    takes = [takes[episode] for takes in film.takes]
    longest = max(take.steps for take in takes)
    bounds = frame_of(takes)
    left, bottom, right, top = bounds
    high = _PANEL_INCHES * (top - bottom) / (right - left)
    figure = Figure((_PANEL_INCHES * len(takes), high + 1.35), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2,
        len(takes),
        height_ratios=[high, 0.75],
        left=0.012,
        right=0.988,
        top=0.915,
        bottom=0.075,
        wspace=0.025,
        hspace=0.06,
    )
    worlds = [figure.add_subplot(grid[0, k]) for k in range(len(takes))]
    curves = figure.add_subplot(grid[1, :])
    for ax in (*worlds, curves):
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set_color(_LINE)
    for ax in worlds:
        ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    _lay_out_returns(curves, film, takes, longest)
    with progress.bar("film", longest * _BETWEEN + 1, "picture", leave=False) as bar:
        for number in range(longest * _BETWEEN + 1):
            time = number / _BETWEEN
            for ax in (*worlds, curves):
                # Not clear(), which makes new axes: most of the time of a picture.
                for artist in (*ax.lines, *ax.patches, *ax.texts):
                    artist.remove()
            for k, (ax, take) in enumerate(zip(worlds, takes, strict=True)):
                _draw_world(ax, film, take, bounds, time, eyes)
                _entitle(ax, film, k, take, time)
            _draw_returns(curves, film, takes, longest, time)
            canvas.draw()
            picture = np.asarray(canvas.buffer_rgba())[..., :3]
            yield picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2].copy()
            bar.update()


def frame_of(takes: Sequence[Take]) -> Bounds:
    """Return what all panels show: everything that anything touches in these episodes, with a margin."""
    worlds = [world for take in takes for world in take.worlds or ()]
    shapes = [shape for world in worlds for shape in world.shapes]
    left, right = min(s.x - s.radius for s in shapes), max(s.x + s.radius for s in shapes)
    bottom, top = min(s.y - s.radius for s in shapes), max(s.y + s.radius for s in shapes)
    if not any(shape.full_health for shape in shapes):
        first = worlds[0].bounds
        left, bottom, right, top = min(left, first[0]), min(bottom, first[1]), max(right, first[2]), max(top, first[3])
    margin = 0.06 * max(right - left, top - bottom)
    left, bottom, right, top = left - margin, bottom - margin, right + margin, top + margin
    # Neither a slit nor a tower.
    more = max(0.0, 0.45 * (right - left) - (top - bottom)) / 2
    bottom, top = bottom - more, top + more
    more = max(0.0, (top - bottom) - (right - left)) / 2
    return left - more, bottom, right + more, top


def _entitle(ax: Axes, film: Film, panel: int, take: Take, time: float) -> None:
    player, over = film.players[panel], time >= take.steps
    ending = "" if not over else ", ended" if take.won is None else ", won" if take.won else ", not won"
    ax.set_title(f"{player.name}{ending}", fontsize=12, fontweight="bold", color=_PANELS[panel], loc="left")
    step = min(int(time), take.steps)
    wrong = int(take.differs[step].sum()) if not over and player.kind != "teacher" else 0
    ax.set_title(f"≠ teacher: {wrong}" if wrong else "", fontsize=10, color=_DIFFERS, loc="right")


def _draw_world(ax: Axes, film: Film, take: Take, bounds: Bounds, time: float, eyes: int | None) -> None:
    """Draw one moment between two steps."""
    assert take.worlds is not None, "an episode with worlds"
    now = min(int(time), take.steps)
    part = min(time, take.steps) - now
    world, coming = take.worlds[now], take.worlds[min(now + 1, take.steps)]
    places = [
        (s.x + (later.x - s.x) * part, s.y + (later.y - s.y) * part)
        for s, later in zip(world.shapes, coming.shapes, strict=True)
    ]
    unit = (bounds[2] - bounds[0]) / 100
    _draw_roads(ax, world)
    if now < take.steps:
        for k, shape in enumerate(world.shapes):
            if shape.agent is not None and shape.alive:
                _intend(ax, film, take, now, shape, places[k], unit)
        for attacker, target in coming.attacks:
            (x0, y0), (x1, y1) = places[attacker], places[target]
            colour = _KINDS[world.shapes[attacker].kind]
            ax.plot([x0, x1], [y0, y1], color=colour, linewidth=1.6, zorder=2)
            ax.plot(x0 + (x1 - x0) * (part or 0.5), y0 + (y1 - y0) * (part or 0.5), "o", color=colour, markersize=4)
    for shape, (x, y) in zip(world.shapes, places, strict=True):
        seen: Sight = "all"
        if eyes is not None:
            seen = sight(take, film.layout, film.failed.failed(now), eyes, shape, now)
        _body(ax, shape, x, y, seen, unit)
        if shape.agent is not None and shape.alive and now < take.steps and take.differs[now, shape.agent]:
            _mark(ax, x + shape.radius + unit, y + shape.radius + unit)


def _draw_roads(ax: Axes, world: World) -> None:
    """Draw lanes, the light at the end of each, and vehicles: those that stand are filled."""
    for road in world.roads:
        ax.plot(*zip(*road.points, strict=True), color=_LINE, linewidth=2, zorder=1)
    for x, y, stands in world.vehicles:
        ink = _KINDS["opponent" if stands else "agent"]
        ax.plot(x, y, "o", markersize=2.5, color=ink, fillstyle="full" if stands else "none", zorder=3)
    for road in world.roads:
        if road.light:
            ax.plot(*road.points[-1], "s", markersize=3.5, color=_LIGHTS[road.light], zorder=3)


def _body(ax: Axes, shape: Shape, x: float, y: float, seen: Sight, unit: float) -> None:
    colour, r = shape.colour or _KINDS[shape.kind], max(shape.radius, 0.5 * unit)
    if not shape.alive:
        ax.plot(x, y, "x", color=colour, alpha=0.45, markersize=7, markeredgewidth=2)
        return
    solid = {"none": 0.14, "failed": 0.14, "far": 0.4}.get(seen, 0.92)
    dashed = "--" if seen == "none" else "-"
    edge = _FAILED if seen == "failed" else colour
    look: dict[str, Any] = {"facecolor": (colour, solid), "edgecolor": edge, "linestyle": dashed, "zorder": 4}
    if seen == "failed":
        ax.plot([x - 1.1 * r, x + 1.1 * r], [y - 1.1 * r, y + 1.1 * r], color=_FAILED, linewidth=1.6, zorder=4)
    if shape.kind == "opponent":
        ax.add_patch(Rectangle((x - 0.9 * r, y - 0.9 * r), 1.8 * r, 1.8 * r, **look))
    elif shape.kind in ("landmark", "goal"):
        d = 1.25 * r
        ax.add_patch(Polygon([(x, y + d), (x + d, y), (x, y - d), (x - d, y)], **look))
        if shape.kind == "goal":
            ax.add_patch(Circle((x, y), 2.2 * r, fill=False, edgecolor=_KINDS["goal"], linewidth=2, zorder=3))
    else:
        ax.add_patch(Circle((x, y), r, **look))
    if seen == "self":
        ax.add_patch(Circle((x, y), r + 0.8 * unit, fill=False, edgecolor=_EYES, linewidth=2.5, zorder=3))
    ax.text(x, y, shape.label, ha="center", va="center_baseline", fontsize=8, zorder=5, fontweight="bold",
            color="white" if solid > 0.5 else _INK)  # fmt: skip
    if shape.full_health:
        width, above = max(2.2 * r, 3 * unit), y + r + 0.9 * unit
        ax.add_patch(Rectangle((x - width / 2, above), width, 0.7 * unit, color=_LINE, zorder=4))
        left = width * max(0.0, shape.health or 0.0) / shape.full_health
        ax.add_patch(Rectangle((x - width / 2, above), left, 0.7 * unit, color=colour, zorder=5))


def _mark(ax: Axes, x: float, y: float) -> None:
    """Draw the sign of a decision that differs from the teacher's."""
    ax.plot(x, y, "o", color=_DIFFERS, markersize=11, zorder=6)
    ax.text(x, y, "≠", color="white", fontsize=9, fontweight="bold", ha="center", va="center_baseline", zorder=7)


def _intend(ax: Axes, film: Film, take: Take, step: int, shape: Shape, place: tuple[float, float], unit: float) -> None:
    """Draw where an agent moves, and where its teacher would."""
    agent = shape.agent
    assert agent is not None, "a shape that is an agent"
    if not take.deciding[step, agent]:
        return
    names = action_names(film.env, film.layout.task, film.layout.agent_names[agent], take.available.shape[-1])
    choices = [(take.actions[step, agent], _INK)]
    if take.differs[step, agent] and take.teacher_actions is not None:
        choices.insert(0, (take.teacher_actions[step, agent], _DIFFERS))
    for action, colour in choices:
        name = names[action] or ""
        way = _WAYS.get(name)
        if way:
            x, y = (at + direction * shape.radius for at, direction in zip(place, way, strict=True))
            long = 2.4 * unit
            ax.add_patch(
                FancyArrow(x, y, way[0] * long, way[1] * long, width=0.25 * unit, head_width=1.3 * unit, color=colour)
            )
        elif name.startswith("say_"):
            ax.text(place[0] + 1.5 * shape.radius, place[1], f"says {name[4:]}", color=colour, fontsize=9, va="center")


def _returns(take: Take) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(take.rewards)])


def _lay_out_returns(ax: Axes, film: Film, takes: Sequence[Take], longest: int) -> None:
    """Set what the curves of all moments share: limits, and whose curve is which."""
    every = np.concatenate([_returns(take) for take in takes])
    room = 0.08 * (np.ptp(every) or 1)
    ax.set(xlim=(-0.2, longest + 0.2), ylim=(every.min() - room, every.max() + room))
    curves = [Line2D([], [], color=_PANELS[k], linestyle=_dash(film, k), linewidth=2) for k in range(len(takes))]
    names = [player.name for player in film.players]
    ax.legend(curves, names, loc="upper left", fontsize=8, frameon=False, ncols=len(takes))


def _draw_returns(ax: Axes, film: Film, takes: Sequence[Take], longest: int, time: float) -> None:
    """Draw the returns up to a moment."""
    for k, take in enumerate(takes):
        until = min(int(time), take.steps)
        returns = _returns(take)[: until + 1]
        ax.plot(returns, _dash(film, k), color=_PANELS[k], linewidth=2)
        ax.plot(until, returns[-1], "o", color=_PANELS[k], markersize=4)
    ax.set_xlabel(f"return so far, step {min(int(time), longest)} of {longest}", color=_SOFT, fontsize=9, labelpad=2)


def _dash(film: Film, panel: int) -> Literal["--", "-"]:
    return "--" if film.players[panel].kind == "teacher" else "-"
