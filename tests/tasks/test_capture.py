"""A capture brings what was wished, whatever the stream does; streams here are scripts, so that time is theirs."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from blocks._errors import CatchmentError, LibraryRefused, LibraryUnavailable, SourceRefused, SourceUnavailable
from blocks._frame_spool import FrameSpool, FrameStory, read_story
from blocks._records import iter_files
from blocks._rtsp import Frame
from tasks._capture import Capture, CaptureWish, FrameQueue
from tests.servers.rtsp_pictures import draw_picture, read_counter

Pixels = NDArray[np.uint8]
Step = Pixels | CatchmentError | float | None
"""A picture; an error to raise; seconds that pass on the capture's clock; None: a frame that is damaged."""

PATIENCE = 60.0


class Script:
    """A camera that follows a script: one list of steps for every time that its stream is opened; and its clock."""

    def __init__(self, *openings: Sequence[Step] | Callable[[threading.Event], Iterator[Frame]]) -> None:
        self.openings = list(openings)
        self.seconds = 0.0
        self.opened = 0
        self.yielded = 0
        self.closed = 0
        self.fps: list[float | None] = []

    @contextmanager
    def __call__(self, *, fps: float | None, stopped: threading.Event) -> Iterator[Iterator[Frame]]:
        self.fps.append(fps)
        opening = self.openings[min(self.opened, len(self.openings) - 1)]
        self.opened += 1
        if callable(opening):
            frames = opening(stopped)
        else:
            if opening and isinstance(opening[0], CatchmentError):
                raise opening[0]
            frames = self._play(opening, stopped)
        self.yielded += 1
        try:
            yield frames
        finally:
            self.closed += 1

    def _play(self, steps: Sequence[Step], stopped: threading.Event) -> Iterator[Frame]:
        for number, step in enumerate(steps):
            if isinstance(step, CatchmentError):
                raise step
            if isinstance(step, float | int):
                self.seconds += step
            elif not stopped.is_set():
                pixels = picture(number) if step is None else step
                yield Frame(number, datetime.now(UTC), self.seconds + number / 1000, pixels, is_corrupt=step is None)


def picture(number: int) -> Pixels:
    return draw_picture(number)


def pictures(count: int, first: int = 0) -> list[Step]:
    return [picture(first + number) for number in range(count)]


def stall(stopped: threading.Event) -> Iterator[Frame]:
    """Yield one frame and then none, until somebody ends it."""
    yield Frame(0, datetime.now(UTC), 0.0, picture(0))
    stopped.wait(PATIENCE)


def endless(stopped: threading.Event) -> Iterator[Frame]:
    for number in range(1_000_000):
        if stopped.wait(0.01):
            return
        yield Frame(number, datetime.now(UTC), number / 100, picture(number))


def run(script: Script, folder: Path, *, jitter: Callable[[], float] = lambda: 0.0, **wish: Any) -> Capture:
    """Capture in `folder` until it is done."""
    options = {"mode": "continuous", "duration_seconds": 30.0, "fps": 10.0, "reconnects": 0} | wish
    with Capture(
        script,
        FrameSpool(folder),
        "pit-1",
        CaptureWish(**options),
        jitter=jitter,
        first_wait_seconds=0.01,
        clock=lambda: script.seconds,
    ) as capture:
        capture.start()
        capture.wait(PATIENCE)
        assert not capture.is_running
    assert script.closed == script.yielded
    left = [thread for thread in threading.enumerate() if thread.name.endswith("pit-1")]
    assert not left
    return capture


def spooled(folder: Path) -> list[tuple[int | None, FrameStory]]:
    """Return what each spooled frame shows and tells, oldest first."""
    contents = [(folder / file.key).read_bytes() for file in iter_files(FrameSpool(folder).list_files())]
    stories = [read_story(content) for content in contents]
    shown = [cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) for content in contents]
    assert all(story is not None for story in stories)
    return [(read_counter(pixels), story) for pixels, story in zip(shown, stories, strict=True) if story]


def numbers(folder: Path) -> list[int | None]:
    return [number for number, _ in spooled(folder)]


def test_every_frame_of_the_wished_time_is_spooled_with_both_its_clocks(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    capture = run(Script([*pictures(8), 60.0, picture(99)]), tmp_path, duration_seconds=50, request="run-7")
    assert capture.error is None
    assert numbers(tmp_path) == list(range(8))
    assert (capture.counts.captured, capture.counts.dropped) == (8, 0)
    stories = [story for _, story in spooled(tmp_path)]
    assert [story.stream_seconds for story in stories] == [number / 1000 for number in range(8)]
    assert all(before <= story.captured_at <= datetime.now(UTC) for story in stories)
    assert {(story.camera, story.mode, story.request) for story in stories} == {("pit-1", "continuous", "run-7")}


def test_the_wished_rate_reaches_the_camera(tmp_path: Path) -> None:
    script = Script([*pictures(1), 30.0, picture(9)])
    run(script, tmp_path, fps=2.5, duration_seconds=20)
    assert set(script.fps) == {2.5}


def test_a_frame_due_at_the_end_belongs_to_the_time_after_it(tmp_path: Path) -> None:
    steps: list[Step] = [step for number in range(8) for step in (picture(number), 4.0)]
    capture = run(Script(steps), tmp_path, duration_seconds=20, fps=0.25)
    assert (capture.error, numbers(tmp_path)) == (None, [0, 1, 2, 3, 4])


def test_frames_that_come_late_are_counted_by_their_own_time(tmp_path: Path) -> None:
    """A busy machine takes the first frame a second late, and brings the last of the wished time late, too."""
    script = Script([])
    late = {0: 1.0, 3: 4.5, 4: 4.6}

    def frames(stopped: threading.Event) -> Iterator[Frame]:
        for number in range(6):
            script.seconds = late.get(number, number)
            yield Frame(number, datetime.now(UTC), float(number), picture(number))

    script.openings = [frames]
    assert run(script, tmp_path, duration_seconds=4, fps=1.0).error is None
    assert numbers(tmp_path) == [0, 1, 2, 3]


def test_a_stream_whose_own_time_is_nonsense_is_timed_by_the_wall(tmp_path: Path) -> None:
    script = Script([])

    def frames(stopped: threading.Event) -> Iterator[Frame]:
        for number in range(9):
            script.seconds = number * 10.0
            yield Frame(number, datetime.now(UTC), 90_000.0 * number if number % 2 else None, picture(number))

    script.openings = [frames]
    assert run(script, tmp_path, duration_seconds=40, fps=0.1).error is None
    assert numbers(tmp_path) == [0, 1, 2, 3]


def test_a_single_frame_is_one_good_one(tmp_path: Path) -> None:
    black = draw_picture(0, "black")
    capture = run(
        Script([black, draw_picture(0, "grey"), None, picture(5), *pictures(9)]), tmp_path, mode="single_frame"
    )
    assert (capture.error, numbers(tmp_path)) == (None, [5])
    assert {fault.value: count for fault, count in capture.counts.faults.items() if count} == {
        "black": 1,
        "grey": 1,
        "corrupt": 1,
    }


def test_a_camera_without_one_good_frame_is_told(tmp_path: Path) -> None:
    capture = run(
        Script([draw_picture(0, "black"), draw_picture(0, "black"), 40.0, *pictures(1)]),
        tmp_path,
        mode="single_frame",
        duration_seconds=30,
    )
    what_came = "The camera gave no good picture within 30 s (2 frames came: 2 black); look at what it shows."
    assert str(capture.error) == what_came
    assert numbers(tmp_path) == []


def test_ill_frames_are_counted_and_not_spooled(tmp_path: Path) -> None:
    steps = [picture(1), draw_picture(0, "black"), picture(2), None, *[picture(8)] * 4, draw_picture(0, "grey")]
    capture = run(Script([*steps, picture(4), SourceUnavailable("gone")]), tmp_path, frozen_after=3)
    assert numbers(tmp_path) == [1, 2, 8, 8, 4]
    counts = capture.describe()
    assert {name: counts[name] for name in ("seen", "captured", "black", "grey", "corrupt", "frozen")} == {
        "seen": 10,
        "captured": 5,
        "black": 1,
        "grey": 1,
        "corrupt": 1,
        "frozen": 2,
    }


def test_a_stream_that_stalls_ends_with_its_time(tmp_path: Path) -> None:
    capture = run(Script(stall), tmp_path, duration_seconds=0.2)
    assert (capture.error, numbers(tmp_path)) == (None, [0])


def test_a_lost_stream_is_opened_again_and_the_gap_is_told(tmp_path: Path) -> None:
    lost = SourceUnavailable("The camera hung up.")
    script = Script([*pictures(2), lost], [lost], [*pictures(2, first=7), 100.0, picture(9)])
    capture = run(script, tmp_path, reconnects=3, duration_seconds=80)
    assert (capture.error, numbers(tmp_path)) == (None, [0, 1, 7, 8])
    assert capture.describe()["reconnects"] == 2
    [gap] = capture.describe()["gaps"]
    times = [story.captured_at.isoformat() for _, story in spooled(tmp_path)]
    assert (gap["since"], gap["until"], gap["reason"]) == (times[1], times[2], "The camera hung up.")


def test_a_stream_that_just_ends_is_a_lost_one(tmp_path: Path) -> None:
    capture = run(
        Script(pictures(2), [*pictures(1, first=5), 100.0, picture(9)]), tmp_path, reconnects=1, duration_seconds=50
    )
    assert (capture.error, numbers(tmp_path)) == (None, [0, 1, 5])
    assert [gap["reason"] for gap in capture.describe()["gaps"]] == ["The camera ended the stream."]


def test_attempts_are_bounded_and_the_cameras_own_words_are_told(tmp_path: Path) -> None:
    script = Script(pictures(2), [SourceUnavailable("Nothing listens on port 554.")])
    capture = run(script, tmp_path, reconnects=3)
    assert isinstance(capture.error, SourceUnavailable)
    assert str(capture.error) == "Nothing listens on port 554."
    assert script.opened == 4
    assert numbers(tmp_path) == [0, 1]
    [gap] = capture.describe()["gaps"]
    assert (gap["until"], gap["reason"]) == (None, "The camera ended the stream.")


def test_attempts_are_bounded_however_long_each_of_them_takes(tmp_path: Path) -> None:
    script = Script(pictures(1), [60.0, SourceUnavailable("It never answers.")])
    capture = run(script, tmp_path, reconnects=3, duration_seconds=3600)
    assert (str(capture.error), script.opened) == ("It never answers.", 4)


def test_a_stream_that_was_well_for_a_while_has_all_of_its_attempts_again(tmp_path: Path) -> None:
    lost = SourceUnavailable("The camera hung up.")
    well: list[Step] = [picture(1), 20.0, picture(2), lost]
    script = Script(well, [lost], well, [lost], [lost])
    capture = run(script, tmp_path, reconnects=2, duration_seconds=3600)
    assert (str(capture.error), script.opened) == ("The camera hung up.", 5)


def test_no_clock_runs_on_when_a_capture_is_done(tmp_path: Path) -> None:
    run(Script([*pictures(2), SourceUnavailable("gone")]), tmp_path, duration_seconds=3600)
    clocks = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    for clock in clocks:
        clock.join(PATIENCE)
    assert not any(clock.is_alive() for clock in clocks)


def test_a_refusal_is_an_answer_and_not_asked_for_again(tmp_path: Path) -> None:
    script = Script([SourceRefused("The password is wrong.")])
    capture = run(script, tmp_path, reconnects=9)
    assert (str(capture.error), script.opened) == ("The password is wrong.", 1)


def test_a_camera_that_was_well_may_answer_oddly_while_it_starts_anew(tmp_path: Path) -> None:
    script = Script(
        pictures(1), [SourceRefused("There is no such stream.")], [*pictures(1, first=4), 100.0, picture(9)]
    )
    capture = run(script, tmp_path, reconnects=2, duration_seconds=50)
    assert (capture.error, numbers(tmp_path)) == (None, [0, 4])


def test_a_camera_that_does_not_come_back_in_time_is_told(tmp_path: Path) -> None:
    def away(stopped: threading.Event) -> Iterator[Frame]:
        stopped.wait(PATIENCE)
        yield from ()

    capture = run(Script(pictures(1), away), tmp_path, reconnects=9, duration_seconds=0.3)
    assert "did not come back in time" in str(capture.error)
    assert [gap["until"] for gap in capture.describe()["gaps"]] == [None]


def test_waits_grow_up_to_a_bound_and_are_jittered(tmp_path: Path) -> None:
    def wait_with(jitter: float, attempt: int) -> float:
        capture = Capture(Script([]), FrameSpool(tmp_path), "pit-1", CaptureWish(), jitter=lambda: jitter)
        return capture._stream._wait_before(attempt)

    assert [wait_with(1.0, attempt) for attempt in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert [wait_with(0.0, attempt) for attempt in range(1, 8)] == [0.5, 1, 2, 4, 8, 15, 15]


def test_a_slow_disk_costs_the_oldest_frames_and_they_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, is_written = threading.Event(), threading.Event()

    class SlowSpool(FrameSpool):
        def put(self, *details: Any) -> str:
            is_written.set()
            assert may_write.wait(PATIENCE)
            return super().put(*details)

    def frames(stopped: threading.Event) -> Iterator[Frame]:
        for number in range(20):
            yield Frame(number, datetime.now(UTC), None, picture(number))
            if number == 0:
                assert is_written.wait(PATIENCE)
        may_write.set()
        raise SourceUnavailable("that was all")

    wish = CaptureWish(mode="continuous", duration_seconds=30, fps=10, reconnects=0)
    room_for_three = 3 * picture(0).nbytes
    with Capture(Script(frames), SlowSpool(tmp_path), "pit-1", wish, queue_bytes=room_for_three) as capture:
        capture.start()
        capture.wait(PATIENCE)
    assert numbers(tmp_path) == [0, 17, 18, 19]
    assert (capture.counts.seen, capture.counts.captured, capture.counts.dropped) == (20, 4, 16)


def test_a_queue_holds_one_frame_however_large_it_is() -> None:
    queue = FrameQueue(10)
    frames = [Frame(number, datetime.now(UTC), None, picture(number)) for number in range(3)]
    assert [queue.put(frame) for frame in frames] == [0, 1, 1]
    queue.close()
    assert queue.take() is frames[2]
    assert queue.take() is None


@pytest.mark.parametrize("wish", [{"mode": "continuous"}, {"mode": "event_driven"}])
def test_leaving_a_capture_ends_it_at_once_and_keeps_what_came(wish: dict[str, Any], tmp_path: Path) -> None:
    script = Script(endless)
    began = time.monotonic()
    with Capture(script, FrameSpool(tmp_path), "pit-1", CaptureWish(duration_seconds=3600, **wish)) as capture:
        capture.start()
        while not capture.counts.seen:
            assert time.monotonic() - began < PATIENCE
            capture.wait(0.01)
    assert not capture.is_running
    assert script.closed == 1
    if wish["mode"] == "continuous":
        assert len(numbers(tmp_path)) == capture.counts.captured == capture.counts.seen - capture.counts.dropped


def test_a_capture_that_was_never_started_leaves_nothing_behind(tmp_path: Path) -> None:
    with Capture(Script(endless), FrameSpool(tmp_path), "pit-1", CaptureWish()) as capture:
        assert not capture.is_running
        capture.wait()


def test_a_disk_that_takes_no_frame_ends_the_capture_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "frames").write_bytes(b"in the way")
    capture = run(Script(endless), tmp_path)
    assert isinstance(capture.error, LibraryRefused | LibraryUnavailable)


def test_an_error_nobody_thought_of_ends_the_capture_and_is_told(tmp_path: Path) -> None:
    def broken(stopped: threading.Event) -> Iterator[Frame]:
        yield Frame(0, datetime.now(UTC), None, picture(0))
        raise ZeroDivisionError

    capture = run(Script(broken), tmp_path, reconnects=5)
    assert isinstance(capture.error, ZeroDivisionError)
    assert numbers(tmp_path) == [0]


def test_motion_is_kept_with_what_came_before_and_after_it(tmp_path: Path) -> None:
    base = datetime(2026, 11, 20, 14, 0, tzinfo=UTC)
    scenes = ["still"] * 20 + ["moving"] * 10 + ["still"] * 60

    def frames(stopped: threading.Event) -> Iterator[Frame]:
        for number, scene in enumerate(scenes):
            pixels = draw_picture(number, "moving" if scene == "moving" else "still")
            yield Frame(number, base + timedelta(seconds=number / 10), number / 10, pixels)
        raise SourceUnavailable("that was all")

    wish = {"mode": "event_driven", "pre_roll_seconds": 0.5, "cool_down_seconds": 1.0, "sensitivity": 0.5}
    capture = run(Script(frames), tmp_path, **wish)
    kept = numbers(tmp_path)
    assert kept[:16] == list(range(15, 31)), kept
    assert None not in kept
    assert kept == list(range(15, 15 + len(kept)))
    assert len(kept) <= 50
    assert {story.event for _, story in spooled(tmp_path)} == {1}
    assert capture.counts.events == 1


def test_without_motion_nothing_is_kept(tmp_path: Path) -> None:
    capture = run(Script([*pictures(60), SourceUnavailable("that was all")]), tmp_path, mode="event_driven")
    assert (numbers(tmp_path), capture.counts.events, capture.counts.seen) == ([], 0, 60)
