"""A capture under way: one thread decodes, one judges and spools, and between them a queue that never grows.

Where the disk is slower than the camera the oldest frames in the queue give way and are counted. A stream that is lost
is opened again after growing, jittered waits; the gap is noted. Nothing here knows of a library: what is spooled is
safe, whatever becomes of storing it.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, Self, TypeAlias

from blocks._errors import CatchmentError, SourceRefused, SourceUnavailable
from blocks._frame_spool import FrameFormat, FrameSpool, FrameStory, encode_frame
from blocks._rtsp import Frame
from tasks._frames import Fault, FrameJudge
from tasks._motion import EventGate, MotionDetector

Mode: TypeAlias = Literal["single_frame", "continuous", "event_driven"]

QUEUE_BYTES = 128_000_000
"""Most pixels between decoding and spooling: 20 frames of 1920 x 1080."""

STEADY_SECONDS = 10.0
"""A stream that gave frames for so long was well: what happens next is a new trouble with all of its attempts."""

LONGEST_WAIT_SECONDS = 30.0
_GRACE_SECONDS = 5.0
_LONGEST_GAP_LIST = 100


class OpenStream(Protocol):
    """Opens a camera's stream of about `fps` frames a second, which ends when `stopped` is set."""

    def __call__(self, *, fps: float | None, stopped: threading.Event) -> AbstractContextManager[Iterator[Frame]]: ...


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


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without a stream, aware UTC; `until` is None where it did not come back."""

    since: datetime
    until: datetime | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the gap as JSON has it."""
        return {
            "since": self.since.isoformat(),
            "until": self.until.isoformat() if self.until else None,
            "seconds": round((self.until - self.since).total_seconds(), 3) if self.until else None,
            "reason": self.reason,
        }


@dataclass(slots=True)
class CaptureCounts:
    """What a capture has come to: of the frames seen some were captured, some dropped, some ill, the rest passed by."""

    seen: int = 0
    captured: int = 0
    dropped: int = 0
    events: int = 0
    reconnects: int = 0
    faults: dict[Fault, int] = field(default_factory=lambda: dict.fromkeys(Fault, 0))
    gaps: list[Gap] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON has them."""
        return {
            "seen": self.seen,
            "captured": self.captured,
            "dropped": self.dropped,
            **{fault.value: count for fault, count in self.faults.items()},
            "events": self.events,
            "reconnects": self.reconnects,
            "gaps": [gap.to_dict() for gap in self.gaps[:_LONGEST_GAP_LIST]],
        }


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
        self._stream = _Stream(open_stream, wish, self.counts, jitter, first_wait_seconds, clock)
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


class _Stream:
    """A camera's frames for as long as was wished, through every loss of its stream that mends in time."""

    def __init__(
        self,
        open_stream: OpenStream,
        wish: CaptureWish,
        counts: CaptureCounts,
        jitter: Callable[[], float],
        first_wait_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.stopped = threading.Event()
        self._open_stream = open_stream
        self._wish = wish
        self._counts = counts
        self._jitter = jitter
        self._first_wait_seconds = first_wait_seconds
        self._clock = clock
        self._first: float | None = None
        self._end: threading.Timer | None = None
        self._flows_since: float | None = None
        self._flowed_until = 0.0
        self._ahead: float | None = None
        self._last_at: datetime | None = None
        self._is_due = False

    def frames(self) -> Iterator[Frame]:
        """Yield frames until time is up or `stopped` is set.

        Raises:
            SourceUnavailable, SourceRefused: the camera could not be had, or was lost and did not come back.
        """
        try:
            yield from self._frames_of_every_opening()
        finally:
            if self._end is not None:
                self._end.cancel()
        if self._is_due and (gap := self._gap()):
            raise SourceUnavailable(f"The camera was lost and did not come back in time: {gap.reason}")

    def _frames_of_every_opening(self) -> Iterator[Frame]:
        attempts = 0
        while True:
            began_at = datetime.now(UTC)
            self._flows_since = self._ahead = None
            try:
                yield from self._frames_of_one_opening()
                trouble: CatchmentError = SourceUnavailable("The camera ended the stream.")
            except (SourceUnavailable, SourceRefused) as error:
                trouble = error
            if self.stopped.is_set() or self._is_due:
                return
            attempts = 1 if self._was_steady() else attempts + 1
            self._open_gap(began_at, trouble)
            if not self._may_try_again(trouble, attempts):
                raise trouble
            if self.stopped.wait(self._wait_before(attempts)):
                return
            self._counts.reconnects += 1

    def _frames_of_one_opening(self) -> Iterator[Frame]:
        with self._open_stream(fps=self._wish.fps, stopped=self.stopped) as frames:
            for frame in frames:
                now = self._clock()
                self._flows_since = now if self._flows_since is None else self._flows_since
                self._flowed_until = now
                self._close_gap(frame.received_at)
                self._is_due = self._is_beyond(frame, now)
                if self._is_due:
                    return
                self._last_at = frame.received_at
                yield frame
                if self.stopped.is_set():
                    return

    def _was_steady(self) -> bool:
        """Tell whether the last opening gave frames for a good while: what comes now is a new trouble."""
        return self._flows_since is not None and self._flowed_until - self._flows_since >= STEADY_SECONDS

    def _is_beyond(self, frame: Frame, now: float) -> bool:
        """Tell whether `frame`, which came `now`, is one too many; the first one starts the clock."""
        if self._first is None:
            self._first = now
            # Without any further frame the clock ends it, a little later: the last one in time may be on its way.
            self._end = threading.Timer(self._wish.duration_seconds + _GRACE_SECONDS, self._end_late)
            self._end.daemon = True
            self._end.start()
        elapsed = now - self._first
        if frame.stream_seconds is not None:
            self._ahead = elapsed - frame.stream_seconds if self._ahead is None else self._ahead
            shown = frame.stream_seconds + self._ahead
            # A busy line or machine brings frames late; their own time tells, as long as it is anything like time.
            elapsed = shown if abs(shown - elapsed) <= _GRACE_SECONDS else elapsed
        # The frame that is due right at the end belongs to the time after it.
        return elapsed > 0 and elapsed >= self._wish.duration_seconds - 0.5 / self._wish.fps

    def _end_late(self) -> None:
        self._is_due = True
        self.stopped.set()

    def _may_try_again(self, trouble: CatchmentError, attempts: int) -> bool:
        # A wrong password stays wrong; but a camera that was well before may answer oddly while it starts anew.
        is_answer = isinstance(trouble, SourceRefused) and self._first is None
        return not is_answer and attempts <= self._wish.reconnects

    def _wait_before(self, attempt: int) -> float:
        longest: float = min(LONGEST_WAIT_SECONDS, self._first_wait_seconds * 2 ** (attempt - 1))
        return longest * (0.5 + self._jitter() / 2)

    def _gap(self) -> Gap | None:
        """Return the gap that is still open."""
        gaps = self._counts.gaps
        return gaps[-1] if gaps and gaps[-1].until is None else None

    def _open_gap(self, began_at: datetime, trouble: CatchmentError) -> None:
        if self._gap() is None:
            self._counts.gaps.append(Gap(self._last_at or began_at, None, str(trouble)))

    def _close_gap(self, at: datetime) -> None:
        if gap := self._gap():
            self._counts.gaps[-1] = Gap(gap.since, at, gap.reason)
