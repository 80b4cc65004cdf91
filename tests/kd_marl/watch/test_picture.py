"""Films as GIF and MP4: as many pictures as steps ask for, of what the takes say."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from kd_core.host import get_host

get_host()  # before anything of ours asks the host for its classes

from kd_core.errors import UserError  # noqa: E402
from kd_envs.worlds import Road  # noqa: E402
from watch_films import film_of, take_of  # noqa: E402

picture = pytest.importorskip("kd_marl.watch.picture")
BLUE, YELLOW, PURPLE, RED = (10, 108, 176), (242, 182, 0), (184, 19, 125), (179, 38, 30)


def pictures_of(film, eyes=None):
    return list(picture._pictures(film, 0, eyes))


def count(image, colour):
    return int((np.abs(image.astype(int) - colour).sum(-1) < 30).sum())


def test_a_film_has_four_pictures_a_step_and_one_of_the_end():
    images = pictures_of(film_of([[take_of(1.0)], [take_of(2.0, actions=[[0, 1, 2]] * 3)]]))
    assert len(images) == 3 * 4 + 1
    assert all(image.shape[0] % 2 == image.shape[1] % 2 == 0 for image in images), "which videos need"
    assert all((one != two).any() for one, two in pairwise(images)), "everything moves"


def test_what_a_picture_shows_is_to_scale():
    take = take_of(1.0)
    (first, *_) = pictures_of(film_of([[take]]))
    left, _, right, _ = picture.frame_of([take])
    # Three agents of radius 0.15 (one under another by 0.14 only), on a panel that is 97.6 % of 440 pixels wide.
    pixels = 0.976 * 440 / (right - left)
    area = count(first[: int(0.75 * first.shape[0])], BLUE) / pixels**2
    assert 0.6 * np.pi * 0.15**2 < area < 3 * np.pi * 0.15**2


def test_eyes_and_differences_are_drawn():
    alike, other = [[0, 0, 0]] * 2, [[1, 1, 1]] * 2
    same = film_of([[take_of(1.0)], [take_of(1.0, actions=alike, expert=alike)]])
    differs = film_of([[take_of(1.0)], [take_of(1.0, actions=alike, expert=other)]])
    assert count(pictures_of(same)[0], PURPLE) == 0 < count(pictures_of(differs)[0], PURPLE)
    assert count(pictures_of(same)[0], YELLOW) == 0 < count(pictures_of(same, eyes=1)[0], YELLOW)


def test_roads_are_drawn_with_their_lights():
    take = take_of(1.0)
    roads = (Road("road", ((-0.9, 0.0), (-0.5, 0.5)), 0.1, light="r"),)
    driven = replace(take, worlds=tuple(replace(world, roads=roads) for world in take.worlds))
    assert count(pictures_of(film_of([[take]]))[0], RED) == 0 < count(pictures_of(film_of([[driven]]))[0], RED)


def test_a_gif_has_them_all_and_one_palette(tmp_path):
    image = pytest.importorskip("PIL.Image")
    film = film_of([[take_of(1.0)], [take_of(2.0)]])
    picture.write(film, 0, None, tmp_path / "a.gif", "gif")
    with image.open(io.BytesIO((tmp_path / "a.gif").read_bytes())) as gif:
        assert gif.n_frames == 2 * 4 + 1 and gif.size[0] == 880
        gif.seek(8)
        assert gif.info["duration"] == 1500
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.slow
def test_an_mp4_is_a_video(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    picture.write(film_of([[take_of(1.0)]]), 0, None, tmp_path / "a.mp4", "mp4")
    frames, _ = ffmpeg.count_frames_and_secs(str(tmp_path / "a.mp4"))
    assert frames == 2 * 4 + 1 + 18


def test_without_a_world_there_is_no_film(tmp_path):
    message = "how to draw pz-mpe-simple-spread-v3 is not known, so there is no film of it: give --to FILE for a page"
    with pytest.raises(UserError, match=re.escape(message)):
        picture.write(film_of([[take_of(1.0, worlds=False)]]), 0, None, tmp_path / "a.gif", "gif")
