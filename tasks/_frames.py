"""Judge single frames of a stream: which are pictures, and which only show that the camera or its line is ill.

A frame is judged as the decoder gives it, before anything is encoded: some two milliseconds for 1920 x 1080.
"""

from enum import StrEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from blocks._rtsp import Frame

_LONGEST_SIDE = 160

_BLACK_BELOW = 24
"""Luma (0-255) that no pixel of a black frame but a few reaches; video black is 16 before and 0 after conversion."""

_GREY = (124, 134)
"""Luma of what decoders paint where data are missing: half of full scale is 128 in full and 130 in video range."""

_GREY_SHARE = 0.25
"""From this share of flat grey rows on a frame is one that lost its data; a lowered gate shows no such grey."""

_FLAT = 1.5
"""Largest deviation of luma in a row that was painted, not seen: sensors are noisier."""

_COLOURLESS = 4.0
"""Largest mean distance between the colours of a pixel of decoder's grey."""

_ROUNDING = 8
"""Largest difference of any value (0-255) between two renderings of one picture: x264 showed 6 between key frames."""

_FEW = 0.002
"""Share of pixels that may outshine black: a clock or a lamp in the picture is more."""


class Fault(StrEnum):
    """Why a frame is not stored; the value is what reports show."""

    CORRUPT = "corrupt"
    BLACK = "black"
    GREY = "grey"
    FROZEN = "frozen"


class FrameJudge:
    """Judges the frames of one stream in order; a frozen picture shows only by those before it.

    `frozen_after`: the same picture so many times in a row, but for the codec's rounding, means that the camera stands
    still; those before are kept, as a quiet scene may well look the same twice.
    """

    def __init__(self, frozen_after: int) -> None:
        self._frozen_after = frozen_after
        self._first: NDArray[np.uint8] | None = None
        self._same = 0

    def find_fault(self, frame: Frame) -> Fault | None:
        """Return why `frame` is no good picture, or None of a good one."""
        is_frozen = self._is_frozen(frame.pixels)
        if frame.is_corrupt:
            return Fault.CORRUPT
        small = _shrink(frame.pixels)
        luma = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        if float(np.mean(luma >= _BLACK_BELOW)) <= _FEW:
            return Fault.BLACK
        if _grey_share(small, luma) >= _GREY_SHARE:
            return Fault.GREY
        return Fault.FROZEN if is_frozen else None

    def _is_frozen(self, pixels: NDArray[np.uint8]) -> bool:
        # Every pixel counts: a clock's last digit, or a sensor's noise, shows that the camera lives.
        if self._first is not None and self._first.shape == pixels.shape:
            is_same = cv2.norm(pixels, self._first, cv2.NORM_INF) <= _ROUNDING
        else:
            is_same = False
        if not is_same:
            self._first, self._same = pixels, 0
        self._same += 1
        return self._same >= self._frozen_after


def _shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return every n-th pixel: averaging would hide the noise that tells what was seen from what was painted."""
    step = max(1, max(pixels.shape[:2]) // _LONGEST_SIDE)
    return np.ascontiguousarray(pixels[::step, ::step])


def _grey_share(small: NDArray[Any], luma: NDArray[Any]) -> float:
    """Return the share of rows that are flat, mid-grey and colourless, as a decoder paints where data are missing."""
    rows = luma.astype(np.float32)
    middle = rows.mean(axis=1)
    colour = (small.max(axis=2).astype(np.float32) - small.min(axis=2)).mean(axis=1)
    is_grey = (rows.std(axis=1) <= _FLAT) & (middle >= _GREY[0]) & (middle <= _GREY[1]) & (colour <= _COLOURLESS)
    return float(is_grey.mean())
