"""One camera's live stream, watched for a time: opened again when it is lost, and ended by the clock.

A lost stream is opened again after growing, jittered waits, so many times in a row and no more; every gap is noted.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from blocks._errors import CatchmentError, SourceRefused, SourceUnavailable
from blocks._rtsp import Frame

STEADY_SECONDS = 10.0
"""A stream that gave frames for so long was well: what happens next is a new trouble with all of its attempts."""

LONGEST_WAIT_SECONDS = 30.0
_GRACE_SECONDS = 5.0


class OpenStream(Protocol):
    """Opens a camera's stream of about `fps` frames a second, which ends when `stopped` is set."""

    def __call__(self, *, fps: float | None, stopped: threading.Event) -> AbstractContextManager[Iterator[Frame]]: ...


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


class WatchedStream:
    """A camera's frames for a time, through every loss of its stream that mends before it is up.

    `stopped` ends it early when it is set. `gaps` and `reconnects` tell what happened on the way.
    """

    def __init__(
        self,
        open_stream: OpenStream,
        *,
        duration_seconds: float,
        fps: float,
        reconnects: int,
        jitter: Callable[[], float],
        first_wait_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.stopped = threading.Event()
        self.gaps: list[Gap] = []
        self.reconnects = 0
        self._open_stream = open_stream
        self._duration_seconds = duration_seconds
        self._fps = fps
        self._most_reconnects = reconnects
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
            self.reconnects += 1

    def _frames_of_one_opening(self) -> Iterator[Frame]:
        with self._open_stream(fps=self._fps, stopped=self.stopped) as frames:
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
            self._end = threading.Timer(self._duration_seconds + _GRACE_SECONDS, self._end_late)
            self._end.daemon = True
            self._end.start()
        elapsed = now - self._first
        if frame.stream_seconds is not None:
            self._ahead = elapsed - frame.stream_seconds if self._ahead is None else self._ahead
            shown = frame.stream_seconds + self._ahead
            # A busy line or machine brings frames late; their own time tells, as long as it is anything like time.
            elapsed = shown if abs(shown - elapsed) <= _GRACE_SECONDS else elapsed
        # The frame that is due right at the end belongs to the time after it.
        return elapsed > 0 and elapsed >= self._duration_seconds - 0.5 / self._fps

    def _end_late(self) -> None:
        self._is_due = True
        self.stopped.set()

    def _may_try_again(self, trouble: CatchmentError, attempts: int) -> bool:
        # A wrong password stays wrong; but a camera that was well before may answer oddly while it starts anew.
        is_answer = isinstance(trouble, SourceRefused) and self._first is None
        return not is_answer and attempts <= self._most_reconnects

    def _wait_before(self, attempt: int) -> float:
        longest: float = min(LONGEST_WAIT_SECONDS, self._first_wait_seconds * 2 ** (attempt - 1))
        return longest * (0.5 + self._jitter() / 2)

    def _gap(self) -> Gap | None:
        """Return the gap that is still open."""
        return self.gaps[-1] if self.gaps and self.gaps[-1].until is None else None

    def _open_gap(self, began_at: datetime, trouble: CatchmentError) -> None:
        if self._gap() is None:
            self.gaps.append(Gap(self._last_at or began_at, None, str(trouble)))

    def _close_gap(self, at: datetime) -> None:
        if gap := self._gap():
            self.gaps[-1] = Gap(gap.since, at, gap.reason)
