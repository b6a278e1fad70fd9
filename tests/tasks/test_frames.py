"""Ill frames are told from good ones by their pixels alone."""

from datetime import UTC, datetime
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from blocks._rtsp import Frame
from tasks._frames import Fault, FrameJudge
from tests.pictures import draw_picture

AT = datetime(2026, 11, 20, 14, 5, tzinfo=UTC)
SIZES = [(320, 240), (1920, 1080)]


def frame(pixels: NDArray[Any], *, is_corrupt: bool = False) -> Frame:
    return Frame(0, AT, None, pixels.astype(np.uint8), is_corrupt)


def scene(seed: int = 1, size: tuple[int, int] = (320, 240)) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.asarray(draw_picture(seed, size))[:, :, ::-1])


def judge_one(pixels: NDArray[Any], *, is_corrupt: bool = False) -> Fault | None:
    return FrameJudge(frozen_after=10).find_fault(frame(pixels, is_corrupt=is_corrupt))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", SIZES)
def test_a_scene_is_a_good_picture(seed: int, size: tuple[int, int]) -> None:
    assert judge_one(scene(seed, size)) is None


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_a_night_or_dusk_scene_is_a_good_picture(share: float) -> None:
    assert judge_one(scene() * share) is None


def test_a_foggy_scene_is_a_good_picture() -> None:
    noise = np.random.default_rng(1).normal(0, 2.5, (240, 320, 1))
    fog = 128 + (scene().astype(float) - 128) * 0.05 + noise
    assert judge_one(np.clip(fog, 0, 255)) is None


def test_a_grey_wall_is_a_good_picture() -> None:
    noise = np.random.default_rng(1).normal(0, 2.5, (240, 320, 1))
    assert judge_one(np.full((240, 320, 3), 128.0) + noise) is None


def test_a_lamp_in_the_dark_is_a_good_picture() -> None:
    night = np.full((240, 320, 3), 4.0)
    cv2.circle(night, (200, 80), 12, (220, 230, 240), -1)
    assert judge_one(night) is None


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shade", [0, 1, 16])
def test_a_black_frame_is_told(shade: int, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 4, (size[1], size[0], 3))
    assert judge_one(np.full((size[1], size[0], 3), shade)) is Fault.BLACK
    assert judge_one(noise + shade) is Fault.BLACK


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shade", [126, 128, 130])
def test_a_grey_frame_is_told(shade: int, size: tuple[int, int]) -> None:
    assert judge_one(np.full((size[1], size[0], 3), shade)) is Fault.GREY


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_frame_whose_rest_is_grey_is_told(share: float, size: tuple[int, int]) -> None:
    pixels = scene(2, size).copy()
    pixels[round(size[1] * (1 - share)) :] = 128
    assert judge_one(pixels) is Fault.GREY


def test_a_frame_that_the_decoder_calls_damaged_is_told_however_it_looks() -> None:
    assert judge_one(scene(), is_corrupt=True) is Fault.CORRUPT


def test_the_same_picture_so_many_times_is_frozen_until_another_one_comes() -> None:
    judge = FrameJudge(frozen_after=3)
    shown = [scene(1), scene(1), scene(1), scene(1), scene(2), scene(2), scene(1)]
    faults = [judge.find_fault(frame(pixels)) for pixels in shown]
    assert faults == [None, None, Fault.FROZEN, Fault.FROZEN, None, None, None]


def test_a_picture_that_a_codec_renders_anew_is_still_the_same() -> None:
    judge = FrameJudge(frozen_after=3)
    chance = np.random.default_rng(1)
    shown = [np.clip(scene(1) + chance.integers(-3, 4, scene(1).shape), 0, 255) for _ in range(5)]
    assert [judge.find_fault(frame(pixels)) for pixels in shown] == [None, None, *[Fault.FROZEN] * 3]


def test_one_changed_pixel_shows_that_the_camera_lives() -> None:
    judge = FrameJudge(frozen_after=2)
    changed = scene(1).copy()
    changed[0, 0, 0] ^= 64
    assert [judge.find_fault(frame(pixels)) for pixels in (scene(1), changed, scene(1))] == [None, None, None]


def test_a_light_that_changes_slowly_shows_that_the_camera_lives() -> None:
    judge = FrameJudge(frozen_after=10)
    assert not any(judge.find_fault(frame(np.clip(scene(1) + step * 1.5, 0, 255))) for step in range(40))


def test_another_resolution_is_another_picture() -> None:
    judge = FrameJudge(frozen_after=2)
    assert judge.find_fault(frame(scene(1))) is None
    assert judge.find_fault(frame(scene(1, (640, 480)))) is None
