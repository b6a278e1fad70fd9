"""A capture under way: one thread decodes, one judges and spools, and between them a queue that never grows.

Where the disk is slower than the camera the oldest frames in the queue give way and are counted. Nothing here knows of
a library: what is spooled is safe, whatever becomes of storing it.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

from blocks._errors import SourceUnavailable
from blocks._frame_spool import FrameFormat, FrameSpool, FrameStory, encode_frame
from blocks._rtsp import Frame
from tasks._frames import Fault, FrameJudge
from tasks._motion import EventGate, MotionDetector
from tasks._stream import OpenStream, WatchedStream

Mode: TypeAlias = Literal["single_frame", "continuous", "event_driven"]

QUEUE_BYTES = 128_000_000
"""Most pixels between decoding and spooling: 20 frames of 1920 x 1080."""

_MOST_GAPS = 100


@dataclass(frozen=True, slots=True)
class CaptureWish:
    """What a capture is to bring.

    `duration_seconds`: of frames, from the first on; in `single_frame` the longest wait for a good one. `fps`: frames a
    second. `reconnects`: how often in a row a lost stream is opened again. `frozen_after`: so many times the same
    picture means a frozen camera. `sensitivity` (0-1), `pre_roll_seconds` and `cool_down_seconds` are for
    `event_driven`. `request` names the wish in every frame.
    """

    mode: Mode = "single_frame"
    duration_seconds: float = 60.0
    fps: float = 1.0
    reconnects: int = 5
    frozen_after: int = 10
    sensitivity: float = 0.5
    pre_roll_seconds: float = 2.0
    cool_down_seconds: float = 5.0
    image_format: FrameFormat = "jpeg"
    jpeg_quality: int = 90
    request: str | None = None


@dataclass(slots=True)
class CaptureCounts:
    """What a capture has come to: of the frames seen some were captured, some dropped, some ill, the rest passed by."""

    seen: int = 0
    captured: int = 0
    dropped: int = 0
    events: int = 0
    faults: dict[Fault, int] = field(default_factory=lambda: dict.fromkeys(Fault, 0))


class FrameQueue:
    """Frames on their way from one thread to another, at most `most_bytes` of pixels: the oldest give way."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._is_closed = False
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> int:
        """Add `frame` and return how many older ones gave way to it."""
        dropped = 0
        with self._changed:
            self._frames.append(frame)
            self._bytes += frame.pixels.nbytes
            while self._bytes > self._most_bytes and len(self._frames) > 1:
                self._bytes -= self._frames.popleft().pixels.nbytes
                dropped += 1
            self._changed.notify()
        return dropped

    def take(self) -> Frame | None:
        """Wait for the oldest frame and return it; None when the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._is_closed)
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._bytes -= frame.pixels.nbytes
            return frame

    def close(self) -> None:
        """Say that no more frames come."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class Capture:
    """Frames on their way from one camera into its spool; a context manager that leaves no thread behind.

    `error` tells, once it is done, why it did not bring what was wished.
    """

    def __init__(
        self,
        open_stream: OpenStream,
        spool: FrameSpool,
        camera: str,
        wish: CaptureWish,
        *,
        queue_bytes: int = QUEUE_BYTES,
        jitter: Callable[[], float] = random.random,
        first_wait_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = CaptureCounts()
        self.error: Exception | None = None
        self._stream = WatchedStream(
            open_stream,
            duration_seconds=wish.duration_seconds,
            fps=wish.fps,
            reconnects=wish.reconnects,
            jitter=jitter,
            first_wait_seconds=first_wait_seconds,
            clock=clock,
        )
        self._spool = spool
        self._camera = camera
        self._wish = wish
        self._queue = FrameQueue(queue_bytes)
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._decode, name=f"decode {camera}", daemon=True),
            threading.Thread(target=self._keep, name=f"spool {camera}", daemon=True),
        ]
        self._is_started = False

    @property
    def is_running(self) -> bool:
        """Tell whether frames may still come into the spool."""
        return self._is_started and not self._done.is_set()

    def describe(self) -> dict[str, Any]:
        """Return what it has come to so far, as JSON has it."""
        counts = self.counts
        return {
            "seen": counts.seen,
            "captured": counts.captured,
            "dropped": counts.dropped,
            **{fault.value: count for fault, count in counts.faults.items()},
            "events": counts.events,
            "reconnects": self._stream.reconnects,
            "gaps": [gap.to_dict() for gap in self._stream.gaps[:_MOST_GAPS]],
        }

    def start(self) -> None:
        """Begin, once."""
        self._is_started = True
        for thread in self._threads:
            thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until everything is spooled, at most `seconds`."""
        if self._is_started:
            self._done.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.stopped.set()
        for thread in self._threads if self._is_started else ():
            thread.join()

    def _decode(self) -> None:
        try:
            for frame in self._stream.frames():
                self.counts.seen += 1
                self.counts.dropped += self._queue.put(frame)
        except Exception as error:  # noqa: BLE001 - who waits for the thread is told
            self.error = self.error or error
        finally:
            self._queue.close()

    def _keep(self) -> None:
        try:
            self._spool_frames()
        except Exception as error:  # noqa: BLE001 - who waits for the thread is told
            self.error = self.error or error
        finally:
            self._stream.stopped.set()
            self._threads[0].join()
            if self._wish.mode == "single_frame":
                self._settle_single_frame()
            self._done.set()

    def _spool_frames(self) -> None:
        """Judge, choose and spool what comes from the queue, until it is closed and empty."""
        judge = FrameJudge(self._wish.frozen_after)
        choose = self._choose_moving() if self._wish.mode == "event_driven" else self._choose_all
        while (frame := self._queue.take()) is not None:
            if fault := judge.find_fault(frame):
                self.counts.faults[fault] += 1
                continue
            for content, story in choose(frame):
                self._spool.put(content, story, self._wish.image_format)
                self.counts.captured += 1
            if self._wish.mode == "single_frame":
                return

    def _choose_all(self, frame: Frame) -> Iterator[tuple[bytes, FrameStory]]:
        yield self._encode(frame)

    def _choose_moving(self) -> Callable[[Frame], Iterator[tuple[bytes, FrameStory]]]:
        detector = MotionDetector(self._wish.sensitivity)
        gate: EventGate[tuple[bytes, FrameStory]] = EventGate(self._wish.pre_roll_seconds, self._wish.cool_down_seconds)

        def choose(frame: Frame) -> Iterator[tuple[bytes, FrameStory]]:
            is_moving = detector.sees_motion(frame.pixels)
            # Frames wait for an event encoded: that takes a tenth of the memory.
            yield from gate.pass_frame(
                lambda event: self._encode(frame, event),
                seconds=frame.received_at.timestamp(),
                is_moving=is_moving,
            )
            self.counts.events = gate.events

        return choose

    def _encode(self, frame: Frame, event: int | None = None) -> tuple[bytes, FrameStory]:
        story = FrameStory(
            camera=self._camera,
            captured_at=frame.received_at,
            stream_seconds=frame.stream_seconds,
            mode=self._wish.mode,
            request=self._wish.request,
            event=event,
        )
        wish = self._wish
        return encode_frame(frame.pixels, story, image_format=wish.image_format, quality=wish.jpeg_quality), story

    def _settle_single_frame(self) -> None:
        if self.counts.captured:
            self.error = None  # whatever became of the stream behind the one that was wished
        elif self.error is None:
            faults = ", ".join(f"{count} {fault}" for fault, count in self.counts.faults.items() if count)
            self.error = SourceUnavailable(
                f"The camera gave no good picture within {self._wish.duration_seconds:g} s "
                f"({self.counts.seen} frames came{': ' * bool(faults)}{faults}); look at what it shows."
            )
