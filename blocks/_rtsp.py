"""Frames of a live camera over RTSP, decoded by FFmpeg as PyAV carries it.

PyAV and not OpenCV's FFmpeg, because it tells causes apart: with OpenCV a wrong password, a wrong path and a dead port
are all "not opened". What PyAV still leaves open is closed here: it counts the open timeout twice, waits for ever for
a name server, and hands the last picture of a silent stream out a whole read timeout late.
"""

import errno
import ssl
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from blocks._errors import CatchmentError, SourceRefused, WrongUse
from blocks._rtsp_address import fill_places
from blocks._rtsp_errors import (
    explain_connection,
    explain_end,
    explain_gibberish,
    explain_missing_video,
    explain_silence,
    explain_stall,
    explain_status,
)
from blocks._rtsp_probe import knock

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer

_LONGEST_LOGIN = 127  # FFmpeg cuts off what is longer, libavformat/rtsp.h: char auth[128]
_LONGEST_DAMAGE_SECONDS = 10.0  # streams that refresh bit by bit have no key frames to end it
_JUMP_SECONDS = 5.0
_GLANCE_SECONDS = 0.1
_HELD_BACK = {"h264", "hevc", "mpeg4"}  # FFmpeg hands a picture of these out when the next one begins to come


@dataclass(frozen=True, slots=True)
class RtspSettings:
    """How one camera is reached. `url` holds no credentials; they go into `username` and `password`, as they are.

    Where they belong into its path it has "{username}" and "{password}". `transport` is always tcp with rtsps://.
    """

    url: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    transport: Literal["tcp", "udp"] = "tcp"
    open_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 10.0
    verify_certificate: bool = True


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a stream.

    `number`: counts every decoded picture of the stream from 0, also those that were not asked for. `received_at`:
    aware UTC, when it came, by this machine's clock. `stream_seconds`: presentation time since the first frame, or
    None where the camera gives none. `pixels`: BGR uint8 (height, width, 3). `is_corrupt`: the decoder found it
    damaged, or it builds on one that was. Pictures have no checksums: damage that decodes by chance is not seen, nor
    what a picture lost whole on its way by UDP does to the next.
    """

    number: int
    received_at: datetime
    stream_seconds: float | None
    pixels: NDArray[np.uint8]
    is_corrupt: bool = False


@contextmanager
def open_stream(settings: RtspSettings, *, fps: float | None, stopped: threading.Event) -> Iterator[Iterator[Frame]]:
    """Open the camera's stream and yield its frames as they come, about `fps` of them a second (None: every one).

    The very first picture is left out where FFmpeg does not let know when it came. The frames end only when `stopped`
    is set: at once while the stream is opened, else at the next picture. Read them without a pause: what is not read
    in time waits in the connection, and is late.

    Raises:
        SourceUnavailable: the camera did not open the stream within its timeout; or, from the frames, it was silent
            for the read timeout, or ended the stream.
        SourceRefused: the camera has answered no, or sends no video.
        WrongUse: PyAV is not installed, or the credentials are too long.
    """
    container = _open_in_time(settings, stopped)
    if container is None:
        yield iter(())
        return
    frames = _read_frames(container, settings, fps, stopped)
    try:
        yield frames
    finally:
        frames.close()
        container.close()


def _open_in_time(settings: RtspSettings, stopped: threading.Event) -> "InputContainer | None":
    """Open in a thread of its own, which is left behind where it does not come back; None when stopped."""
    deadline = time.monotonic() + settings.open_timeout_seconds
    opening: Future[InputContainer] = Future()

    def work() -> None:
        try:
            opening.set_result(_open(settings, deadline))
        except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
            opening.set_exception(error.with_traceback(None))  # its frames hold the password

    threading.Thread(target=work, name="rtsp-open", daemon=True).start()
    while not stopped.is_set() and (left := deadline - time.monotonic()) > 0:
        with suppress(TimeoutError):
            return opening.result(min(left, _GLANCE_SECONDS))
    opening.add_done_callback(_close_late)
    if stopped.is_set():
        return None
    raise explain_silence(settings.url)


def _close_late(opening: "Future[InputContainer]") -> None:
    if opening.exception() is None:
        opening.result().close()


def _compose_address(settings: RtspSettings) -> str:
    address = fill_places(settings.url, settings.username, settings.password)
    if settings.username is None and settings.password is None:
        return address
    login = f"{quote(settings.username or '', safe='')}:{quote(settings.password or '', safe='')}"
    if len(login) > _LONGEST_LOGIN:
        raise WrongUse(
            f"User name and password of {settings.url} are too long for FFmpeg: together at most "
            f"{_LONGEST_LOGIN - 1} letters and digits, others count three times. Give the camera shorter ones."
        )
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{login}@{rest}"


def _open(settings: RtspSettings, deadline: float) -> "InputContainer":
    av, address = _load_av(), _compose_address(settings)
    place = settings.url
    knock(
        fill_places(place, settings.username, settings.password),
        place,
        timeout_seconds=settings.open_timeout_seconds,
        verify_certificate=settings.verify_certificate,
    )
    left = max(deadline - time.monotonic(), _GLANCE_SECONDS)
    options = {
        "rtsp_transport": settings.transport,
        "allowed_media_types": "video",  # sound would pass for a sign of life
        "probesize": "32",  # the first picture and not seconds of them
    }
    if place.startswith("rtsps://") and settings.verify_certificate:
        options |= {"tls_verify": "1"} | _find_authorities()
    failure: CatchmentError
    try:
        container: InputContainer = av.open(
            address, format="rtsp", options=options, timeout=(left, settings.read_timeout_seconds)
        )
    except av.FFmpegError as error:
        failure = _explain_opening(error, place, is_late=time.monotonic() >= deadline - _GLANCE_SECONDS)
    else:
        if container.streams.video and container.streams.video[0].codec_context is not None:
            return container
        container.close()
        failure = explain_missing_video(place)
    # Outside the handler: an error raised there carries FFmpeg's along, and in it the password.
    raise failure


def _load_av() -> Any:
    try:
        import av
        import av.logging
    except ImportError as error:
        raise WrongUse("RTSP cameras need a further package: pip install 'catchment[rtsp]'.") from error
    av.logging.set_level(None)  # FFmpeg's own lines may quote addresses with their passwords
    return av


def _find_authorities() -> dict[str, str]:
    paths = ssl.get_default_verify_paths()
    return {"ca_file": paths.cafile} if paths.cafile else {}


def _explain_opening(error: Exception, place: str, *, is_late: bool) -> CatchmentError:
    statuses = {
        "HTTPBadRequestError": 400,
        "HTTPUnauthorizedError": 401,
        "HTTPForbiddenError": 403,
        "HTTPNotFoundError": 404,
        "HTTPTooManyRequestsError": 503,
        "HTTPServerError": 500,
    }
    name = type(error).__name__
    if name in statuses:
        return explain_status(statuses[name], place)
    if name == "HTTPOtherClientError":
        return SourceRefused(f"{place} refuses to send the stream: check the address and transport of the Block.")
    if is_late or name == "ExitError":
        return explain_silence(place)
    if isinstance(error, OSError) and error.errno == errno.EPROTONOSUPPORT:
        return explain_status(461, place)
    if isinstance(error, OSError):
        return explain_connection(error, place)
    return explain_gibberish(place)


def _read_frames(
    container: "InputContainer", settings: RtspSettings, fps: float | None, stopped: threading.Event
) -> Generator[Frame]:
    av = _load_av()
    place, patience = settings.url, settings.read_timeout_seconds
    pace, damage = _Pace(fps), _Damage()
    is_held_back = container.streams.video[0].codec_context.name in _HELD_BACK
    number, start = 0, None
    came_at = shown_at = time.monotonic()
    begun_at: float | None = None
    packets = container.demux(video=0)
    while not stopped.is_set():
        packet = _next_packet(av, packets)
        now = time.monotonic()
        # FFmpeg answers a silence with the picture it still had, and only then, as long after, with an error.
        if now - came_at >= patience or now - shown_at >= patience:
            raise explain_stall(place, patience)
        if packet is None:
            raise explain_end(place)
        arrived_at, begun_at = begun_at if is_held_back else now, now
        came_at = now
        for frame in _decode(av, packet, damage, now):
            shown_at = now
            is_corrupt = damage.judge(frame, now)
            number += 1
            if arrived_at is None:
                continue
            start = frame.time if start is None else start
            seconds = None if frame.time is None or start is None else frame.time - start
            if pace.is_due(seconds, arrived_at):
                received_at = datetime.now(UTC) - timedelta(seconds=time.monotonic() - arrived_at)
                pixels = cast("NDArray[np.uint8]", frame.to_ndarray(format="bgr24"))
                yield Frame(number - 1, received_at, seconds, pixels, is_corrupt)
                came_at = shown_at = time.monotonic()  # the reader's time is not the camera's


def _next_packet(av: Any, packets: "Iterator[Packet[VideoStream]]") -> "Packet[VideoStream] | None":
    try:
        return next(packets, None)
    except av.FFmpegError:
        return None


def _decode(av: Any, packet: "Packet[VideoStream]", damage: "_Damage", now: float) -> "list[VideoFrame]":
    try:
        return packet.decode()
    except av.FFmpegError:
        damage.note(now)
        return []


class _Damage:
    """What is broken stays broken until a picture comes that builds on no other; the decoder flags the first only."""

    def __init__(self) -> None:
        self._since: float | None = None

    def note(self, now: float) -> None:
        """Know of damage at `now`, in seconds."""
        self._since = now

    def judge(self, frame: "VideoFrame", now: float) -> bool:
        """Tell whether `frame`, the next of the stream, is damaged."""
        if frame.is_corrupt:
            self.note(now)
        elif frame.key_frame or (self._since is not None and now - self._since > _LONGEST_DAMAGE_SECONDS):
            self._since = None
        return self._since is not None


class _Pace:
    """Choose `fps` pictures a second by the stream's own time, which knows no jams; where that jumps, begin anew."""

    def __init__(self, fps: float | None) -> None:
        self._interval = 1 / fps if fps else 0.0
        self._due: float | None = None
        self._drift = 0.0

    def is_due(self, seconds: float | None, now: float) -> bool:
        """Tell whether to take the picture that is shown `seconds` into the stream and came at `now`."""
        if not self._interval:
            return True
        shown = now if seconds is None else seconds
        if self._due is None or abs(now - shown - self._drift) > _JUMP_SECONDS:
            self._due, self._drift = shown, now - shown
        if shown < self._due - self._interval / 10:  # clocks of cameras tremble
            return False
        self._due = max(self._due + self._interval, shown)
        return True
