"""The server that holds a terminal's pictures, on loopback: full ones, thumbnails, and the faults such servers have.

Cameras take about one picture in ten minutes; at which second its name says is a matter of the camera:

- `by_the_clock`: a trigger on the minute, and the time until the picture is done: a few typical delays, each with its
  odds; `drift_seconds_a_day` lets the trigger's clock run slow, `wander_seconds` lets its phase walk at random;
- `after_a_pause`: the next picture begins so long after the last one was done, so that all delays add up.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from blocks._terminal_addresses import local_day, picture_url, thumbnail_url
from tests.pictures import make_jpeg
from tests.servers.fault import Answer, Exchange, FaultServer, Request, head, status

ZONE = ZoneInfo("America/Los_Angeles")
PATH = "apm/{local:%Y-%m-%d}/{hour}/{local:%Y-%m-%dT%H:%M:%S}-{stream}.jpeg"
SOFT_404 = b"<!DOCTYPE html>\n<html><head><title>Not here</title></head><body>" + b"nothing " * 200 + b"</body></html>"

Odds = Mapping[int, float]
TYPICAL: Odds = {7: 0.5, 8: 0.3, 12: 0.15, 19: 0.05}
PAUSES: Odds = {1: 0.2, 2: 0.6, 3: 0.2}


@dataclass(frozen=True, slots=True)
class Picture:
    """One object of the server's."""

    content: bytes
    modified: datetime | None


class TerminalCdn(FaultServer):
    """Holds what `put` gave it; `absent` answers for everything else, and scripts of `on` beat both."""

    def __init__(self) -> None:
        self.pictures: dict[str, Picture] = {}
        self.absent: Answer = status(404)
        self.tells_modified = True
        self.takes_head = True
        super().__init__()

    @property
    def template(self) -> str:
        """The addresses of its pictures, as `TerminalCamera.picture_url`."""
        return self.url + PATH

    def put(self, moment: datetime, stream: str, *, is_thumbnail: bool = False, size: int = 0) -> str:
        """Hold the picture that `stream` took at the instant `moment`; return its path. `size`: bytes at least."""
        path = self.path_of(moment.astimezone(ZONE), stream, is_thumbnail=is_thumbnail)
        base = _draw(is_thumbnail=is_thumbnail)
        content = base + path.encode()
        self.pictures[path] = Picture(content + bytes(max(0, size - len(content))), moment + timedelta(seconds=3))
        return path

    def path_of(self, local: datetime, stream: str, *, is_thumbnail: bool = False) -> str:
        """Return the path of the picture of that wall-clock time."""
        url = picture_url(self.template, local.replace(tzinfo=None), stream)
        return urlsplit(thumbnail_url(url) if is_thumbnail else url).path

    def asked(self, method: str) -> list[str]:
        """Return the paths asked for by `method`, in order."""
        return [unquote(request.path) for request in self.requests if request.method == method]

    def _answer_to(self, request: Request) -> Answer:
        path = unquote(urlsplit(request.path).path)
        if path in self._scripts:
            return super()._answer_to(request)
        with self._lock:
            self.requests.append(request)
        if request.method == "HEAD" and not self.takes_head:
            return _bodiless(status(405))
        picture = self.pictures.get(path)
        if picture is None:
            return _bodiless(self.absent) if request.method == "HEAD" else self.absent
        return self._give(picture)

    def _give(self, picture: Picture) -> Answer:
        def answer(exchange: Exchange) -> bool:
            fields = {"content_type": "image/jpeg"}
            if self.tells_modified and picture.modified:
                fields["last_modified"] = format_datetime(picture.modified.astimezone(UTC), usegmt=True)
            body = b"" if exchange.request.method == "HEAD" else picture.content
            exchange.send(head(200, len(picture.content), **fields) + body)
            return True

        return answer


@contextmanager
def serve_terminal_cdn() -> Iterator[TerminalCdn]:
    """Run a `TerminalCdn` for the length of the `with`."""
    server = TerminalCdn()
    try:
        yield server
    finally:
        server.stop()


def by_the_clock(
    days: Sequence[date],
    delays: Odds = TYPICAL,
    *,
    seed: int = 1,
    step_seconds: int = 600,
    drift_seconds_a_day: float = 0.0,
    wander_seconds: float = 0.0,
    missing: float = 0.0,
) -> list[datetime]:
    """Return the instants of a camera's pictures on these local days, one after the other; `missing`: share of gaps."""
    chance = random.Random(seed)
    begin, end = _bounds(days)
    taken = []
    phase = 0.0
    for beat in range(int((end - begin).total_seconds()) // step_seconds):
        phase += drift_seconds_a_day * step_seconds / 86_400 + chance.gauss(0, wander_seconds)
        delay = chance.choices(list(delays), list(delays.values()))[0]
        if chance.random() >= missing:
            taken.append(begin + timedelta(seconds=beat * step_seconds + int(20 + phase + delay)))
    return [moment for moment in taken if begin <= moment < end]


def after_a_pause(
    days: Sequence[date], delays: Odds = PAUSES, *, seed: int = 1, pause_seconds: int = 600
) -> list[datetime]:
    """Return the instants of the pictures of a camera that pauses after each, on these local days."""
    chance = random.Random(seed)
    moment, end = _bounds(days)
    moment += timedelta(seconds=5)
    taken = []
    while moment < end:
        taken.append(moment)
        delay = chance.choices(list(delays), list(delays.values()))[0]
        moment += timedelta(seconds=pause_seconds + delay)
    return taken


def on_day(moments: Sequence[datetime], day: date) -> list[datetime]:
    """Return those of the instants that lie on a local day."""
    start, end = local_day(day, ZONE)
    return [moment for moment in moments if start <= moment < end]


def locals_of(moments: Sequence[datetime]) -> list[str]:
    """Return instants as their pictures' names tell them, in local time without a zone."""
    return [moment.astimezone(ZONE).replace(tzinfo=None).isoformat() for moment in moments]


def _bounds(days: Sequence[date]) -> tuple[datetime, datetime]:
    return local_day(min(days), ZONE)[0], local_day(max(days), ZONE)[1]


@cache
def _draw(*, is_thumbnail: bool) -> bytes:
    return make_jpeg(2, (64, 48)) if is_thumbnail else make_jpeg(1, (160, 120))


def _bodiless(answer: Answer) -> Answer:
    """Send what `answer` does, but its head only, as a server has to that is asked by HEAD (RFC 9110 §9.3.2)."""

    def answer_head(exchange: Exchange) -> bool:
        sent: list[bytes] = []
        quiet = _Recorder(exchange, sent.append)
        goes_on = answer(quiet)  # type: ignore[arg-type] # it has all of an exchange that an answer uses
        exchange.send(b"".join(sent).partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        return goes_on

    return answer_head


class _Recorder:
    def __init__(self, exchange: Exchange, send: Callable[[bytes], None]) -> None:
        self.request = exchange.request
        self.connection = exchange.connection
        self.stopped = exchange.stopped
        self.send = send
