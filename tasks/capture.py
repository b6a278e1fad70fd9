"""A capture from its lease to its report: frames spooled from a live camera, and stored from there as they come."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from hashlib import sha256
from typing import Any, cast

import polars as pl
from prefect.client.schemas.objects import State
from prefect.states import Failed

from blocks._errors import CatchmentError, LibraryRefused, LibraryUnavailable
from blocks._frame_spool import FrameSpool
from blocks._records import Page
from blocks._schema import FileState
from blocks.library import ImageLibrary
from blocks.rtsp_camera import RtspCamera
from tasks._capture import Capture, CaptureWish
from tasks._report import IngestReport
from tasks.run import IngestRun, ingest
from tasks.streams import hold_stream

PAGE_SECONDS = 5.0
"""How often what was spooled is stored while the capture goes on."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 10.0, 300.0
"""Waits before storing is tried again while the library fails and the capture goes on."""

_SAFE = [FileState.STORED.value, FileState.DUPLICATE.value, FileState.QUARANTINED.value]
"""States of files whose bytes the library or its quarantine has, so that the spool need not."""


def capture(camera: RtspCamera, library: ImageLibrary | None, wish: CaptureWish) -> IngestReport:
    """Capture frames of `camera` into `library`; call it in a flow and return what it does.

    Frames that an earlier capture left in the spool are stored first, whether the camera answers or not. Where storing
    fails the capture is made all the same, to its end; storing is tried again, and what is left waits for the next run.
    """
    return cast("IngestReport", _capture(camera, library, wish))  # as `ingest`: the caller gets the state's data


def _capture(camera: RtspCamera, library: ImageLibrary | None, wish: CaptureWish) -> State[IngestReport]:
    try:
        library = library or ImageLibrary.default()
        folder = library.spool_folder(_name_spool(camera))
    except CatchmentError as error:
        return Failed(message=str(error), data=error)
    spool, source = FrameSpool(folder), camera.with_spool(folder)
    with ExitStack() as held, Capture(camera.open_stream, spool, camera.camera, wish) as frames:
        feed = _Feed(frames, spool, library, held)
        pause = FIRST_PAUSE_SECONDS
        while True:
            ending = cast("State[IngestReport]", ingest(source, library, max_files=None, pages=feed.pages))
            if isinstance(ending.data, LibraryUnavailable | LibraryRefused) and not feed.is_begun:
                try:  # what the camera shows now is gone tomorrow; the library may be back by then
                    feed.begin()
                except CatchmentError as error:
                    return Failed(message=str(error), data=error)
            if not frames.is_running:
                return _tell_waiting(ending, spool)
            frames.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


class _Feed:
    """Hands the frames in a spool to the runs that store them, and takes out of it what the catalog has."""

    def __init__(self, capture: Capture, spool: FrameSpool, library: ImageLibrary, held: ExitStack) -> None:
        self._capture = capture
        self._spool = spool
        self._library = library
        self._held = held
        self.is_begun = False

    def pages(self, run: IngestRun) -> Iterator[Page]:
        """Yield what an earlier run left in the spool and what the capture brings, as it comes.

        What was left does not wait for a place for the stream. A later run of the same capture goes on with it.

        Raises:
            WrongUse: there is no limit of streams.
            SourceUnavailable, SourceRefused: the camera could not be had, or was lost; what came is stored.
        """
        offered: set[str] = set()
        if not self.is_begun:
            with suppress(CatchmentError):  # it is tried again when what was left is stored, and then says why
                self.begin(waits=False)
        yield from self._offer(run, offered)
        if not self.is_begun:
            self.begin()
        while self._capture.is_running:
            self._capture.wait(PAGE_SECONDS)
            yield from self._offer(run, offered)
        self._held.close()  # the place is free, and the spool another's to fill
        yield from self._offer(run, offered, is_last=True)
        if isinstance(error := self._capture.error, CatchmentError):
            raise type(error)(f"{error}{self._tell_captured()}", reason=error.reason) from error
        if error is not None:
            raise error

    def begin(self, *, waits: bool = True) -> None:
        """Begin the capture, as soon as there is a place for its stream.

        Raises:
            SpoolBusy: another capture of this camera goes on.
            StreamsBusy: there is no place now, and it `waits` for none.
            WrongUse: there is no limit of streams.
        """
        with ExitStack() as taken:
            taken.enter_context(self._spool.held())
            taken.enter_context(hold_stream(waits=waits))
            self._held.enter_context(taken.pop_all())
        self.is_begun = True
        self._capture.start()

    def _offer(self, run: IngestRun, offered: set[str], *, is_last: bool = False) -> Iterator[Page]:
        """Yield a page of the frames that this run was not offered yet, and when they are stored clear them away."""
        files = self._spool.list_files().filter(~pl.col("key").is_in(offered))
        if files.is_empty() and not is_last:
            return
        offered.update(files["key"])
        # A mark makes the run store the page before it asks for the next.
        yield Page(files, mark=None if files.is_empty() else files["key"][-1], is_last=is_last, is_start=False)
        known = self._library.catalog().known_files(run.ids.source_id, files["key"].to_list())
        self._spool.remove(known.filter(pl.col("state").is_in(_SAFE))["key"])
        run.note(self._describe())

    def _describe(self) -> dict[str, Any]:
        return {**self._capture.describe(), "waiting": len(self._spool.list_files())}

    def _tell_captured(self) -> str:
        captured = self._capture.counts.captured
        return f" {captured} frames were captured before." if captured else ""


def _tell_waiting(ending: State[IngestReport], spool: FrameSpool) -> State[IngestReport]:
    """Return how the capture ended, which of a failed library's says how many frames wait for it."""
    error = ending.data
    if not isinstance(error, LibraryUnavailable | LibraryRefused):
        return ending
    try:
        waiting = len(spool.list_files())
    except CatchmentError:
        return ending
    if not waiting:
        return ending
    message = f"{error} {waiting} frames wait on this machine; the next capture of the camera stores them."
    return Failed(message=message, data=type(error)(message, reason=error.reason))


def _name_spool(camera: RtspCamera) -> str:
    """Return the name of a camera's spool, the same in every run: a folder's name alone could be two cameras'."""
    return f"{camera.folder_name}-{sha256(camera.source_name.encode()).hexdigest()[:8]}"
