"""Tell when something moves before a camera, and which frames belong to it: some before, all during, some after."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

_LONGEST_SIDE = 320
_SHADOW = 127
"""What MOG2 marks a shadow with: https://docs.opencv.org/4.x/d7/d7b/classcv_1_1BackgroundSubtractorMOG2.html"""

_LEARNING_FRAMES = 5
"""Frames from which the background is learnt before anything is called motion."""

_MEMORY_FRAMES = 200
_MOST_WAITING = 1_000
_LARGEST_SHARE, _SMALLEST_SHARE = 0.2, 0.0005

T = TypeVar("T")


class MotionDetector:
    """Tells of each frame of one stream, in order, whether something moves in it.

    `sensitivity` 0-1: at 0 a fifth of the picture has to change, at 0.5 a hundredth, at 1 one pixel in two thousand.
    Shadows are no motion; what stays becomes background.
    """

    def __init__(self, sensitivity: float) -> None:
        self.smallest_share = _LARGEST_SHARE * (_SMALLEST_SHARE / _LARGEST_SHARE) ** sensitivity
        self._background = cv2.createBackgroundSubtractorMOG2(history=_MEMORY_FRAMES, varThreshold=25)
        self._seen = 0
        self._shape: tuple[int, ...] | None = None

    def sees_motion(self, pixels: NDArray[np.uint8]) -> bool:
        """Tell whether BGR `pixels` differ from the background where it matters, and learn from them."""
        height, width = pixels.shape[:2]
        scale = min(1.0, _LONGEST_SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        luma = cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
        luma = cv2.GaussianBlur(luma, (5, 5), 0)
        if luma.shape != self._shape:  # another resolution is another picture: OpenCV begins anew, and so do we
            self._shape, self._seen = luma.shape, 0
        mask = self._background.apply(luma, learningRate=-1)
        self._seen += 1
        if self._seen <= _LEARNING_FRAMES:
            return False
        # Single pixels are noise; what is left after opening has some extent.
        moving = cv2.morphologyEx((mask > _SHADOW).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        return bool(moving.mean() >= self.smallest_share)


class EventGate(Generic[T]):
    """Lets through the frames of events: `pre_roll_seconds` before motion starts, until `cool_down_seconds` after it.

    Motion that starts again within the cool-down belongs to the same event. `events` counts those that began.
    """

    def __init__(self, pre_roll_seconds: float, cool_down_seconds: float) -> None:
        self.events = 0
        self._pre_roll = pre_roll_seconds
        self._cool_down = cool_down_seconds
        self._waiting: deque[tuple[float, T]] = deque(maxlen=_MOST_WAITING)
        self._open_until: float | None = None

    def pass_frame(self, make: Callable[[int], T], *, seconds: float, is_moving: bool) -> Iterator[T]:
        """Yield what is to be kept, now that a frame was taken at `seconds`, on a clock that goes forward.

        `make` is called with the number of the event, from 1, that the frame belongs to, if it comes to that.
        """
        if is_moving:
            self.events += self._open_until is None
            self._open_until = seconds + self._cool_down
        elif self._open_until is not None and seconds > self._open_until:
            self._open_until = None
        while self._waiting and self._waiting[0][0] < seconds - self._pre_roll:
            self._waiting.popleft()
        if self._open_until is not None:
            while self._waiting:
                yield self._waiting.popleft()[1]
            yield make(self.events)
        elif self._pre_roll:
            self._waiting.append((seconds, make(self.events + 1)))
