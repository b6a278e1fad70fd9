"""Motion is told from noise, dusk and shadows, and an event holds what came before, during and after."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tasks._motion import EventGate, MotionDetector
from tests.pictures import draw_picture

Pixels = NDArray[np.uint8]
ROOM = np.ascontiguousarray(np.asarray(draw_picture(4, (640, 480)))[:, :, ::-1])


def room(seed: int, *, light: float = 1.0, square: tuple[int, int] | None = None) -> Pixels:
    """Return the room with a sensor's noise, and somebody in it."""
    picture = ROOM.copy()
    if square:
        cv2.rectangle(picture, square, (square[0] + 120, square[1] + 160), (240, 250, 230), -1)
    noise = np.random.default_rng(seed).normal(0, 2.0, picture.shape)
    return np.clip(picture * light + noise, 0, 255).astype(np.uint8)


def learnt(sensitivity: float = 0.5, frames: int = 20) -> MotionDetector:
    detector = MotionDetector(sensitivity)
    assert not any(detector.sees_motion(room(seed)) for seed in range(frames))
    return detector


def test_somebody_walking_in_is_motion_and_an_empty_room_is_none() -> None:
    detector = learnt()
    assert [detector.sees_motion(room(100 + step, square=(60 + 40 * step, 150))) for step in range(5)] == [True] * 5
    after = [detector.sees_motion(room(200 + step)) for step in range(20)]
    assert not any(after[-5:])


def test_nothing_is_motion_while_the_background_is_learnt() -> None:
    detector = MotionDetector(1.0)
    assert not any(detector.sees_motion(room(step, square=(60 + 40 * step, 150))) for step in range(5))


def test_noise_is_no_motion_however_sensitive() -> None:
    learnt(1.0, frames=60)


def test_dusk_is_no_motion() -> None:
    detector = learnt()
    assert not any(detector.sees_motion(room(step, light=1 - step * 0.004)) for step in range(60))


def test_sensitivity_tells_how_large_motion_has_to_be() -> None:
    small = ROOM.copy()
    cv2.rectangle(small, (300, 200), (330, 230), (240, 250, 230), -1)  # a three-hundredth of the picture
    seen = {sensitivity: learnt(sensitivity).sees_motion(small) for sensitivity in (0.0, 0.5, 0.8, 1.0)}
    assert seen == {0.0: False, 0.5: False, 0.8: True, 1.0: True}


def test_another_resolution_begins_anew() -> None:
    detector = learnt()
    assert not detector.sees_motion(cv2.resize(room(1), (320, 200)))
    assert not detector.sees_motion(room(2))


def gate_of(pre_roll: float, cool_down: float, motion: str) -> tuple[list[tuple[int, int]], int]:
    """Return what passes of frames a second apart, as (event, second), and how many events there were."""
    gate: EventGate[tuple[int, int]] = EventGate(pre_roll, cool_down)
    passed = [
        kept
        for second, mark in enumerate(motion)
        for kept in gate.pass_frame(lambda event, at=second: (event, at), seconds=second, is_moving=mark == "#")
    ]
    return passed, gate.events


def test_an_event_has_its_pre_roll_its_motion_and_its_cool_down() -> None:
    assert gate_of(2, 1, "....##....") == ([(1, second) for second in (2, 3, 4, 5, 6)], 1)


def test_motion_within_the_cool_down_belongs_to_the_same_event() -> None:
    assert gate_of(0, 3, "#..#......") == ([(1, second) for second in range(7)], 1)


def test_every_event_has_a_number_and_no_frame_belongs_to_two() -> None:
    passed, events = gate_of(3, 1, "..#....#..")
    assert passed == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6), (2, 7), (2, 8)]
    assert events == 2


@pytest.mark.parametrize("motion", ["", ".", "....."])
def test_without_motion_nothing_passes(motion: str) -> None:
    assert gate_of(5, 5, motion) == ([], 0)


def test_without_a_pre_roll_idle_frames_are_not_even_made() -> None:
    made: list[int] = []
    gate: EventGate[None] = EventGate(0, 0)
    for second in range(10):
        list(gate.pass_frame(made.append, seconds=second, is_moving=False))
    assert made == []
