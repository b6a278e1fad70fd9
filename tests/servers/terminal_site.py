"""A terminal's web site: a Vue page with live cameras and their history, its API, and the pictures.

with serve_terminal_site(find_builds()) as site:
    site.put("in_gate", datetime(2025, 9, 1, 10, 0, 7))
    site.faults.delay_seconds = 2          # what the page and the API do wrong, read at every request
    ...

The page runs the real builds of Vue and Element Plus from npm. They are kept in the user's cache folder and checked
against the digests below; the repository holds none of them.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime, timedelta
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit
from zoneinfo import ZoneInfo

import pytest

from tests.pictures import make_jpeg
from tests.servers._programs import require_program

ZONE = ZoneInfo("America/Los_Angeles")
NEWEST = "2.14.8"
OLDER = "2.4.4"
"""The releases of Element Plus that tests can ask for: a recent one, and one of 2023."""

_FILES = Path(__file__).with_name("terminal_site_files")
_VUE = "3.5.45"
_DIGESTS = {
    f"vue@{_VUE}": "sha512-3cvsib8m9c0vB24+MDKsgcW4+Da4xaBl9Z/5Tbm2pmSIsRPxcil4cdXjXlVsmJ2g64XJo5h+IRd7rsdGT9pZaw==",
    f"element-plus@{NEWEST}": (
        "sha512-Z4Br45W9b8vWKvVHSTvbS6rRKmsLjmHCPXICJR6osl35+i+S2LCBs4NN8apLBkQiUh0pzS9labK5eCS7yzDhWw=="
    ),
    f"element-plus@{OLDER}": (
        "sha512-TlKubXJgxwhER0dw+8ULn9hr9kZjraV4R6Q/eidwWUwCKxwXYPBGmMKsZ/85tlxlhMYbcLZd/YZh6G3QkHX4fg=="
    ),
}
_BUILDS = {
    "vue": {"dist/vue.global.prod.js": "vue.js"},
    "element-plus": {
        "dist/index.full.min.js": "element-plus.js",
        "dist/index.css": "element-plus.css",
        "dist/locale/de.min.js": "locale/de.js",
        "dist/locale/zh-cn.min.js": "locale/zh-cn.js",
    },
}
_NPM_SECONDS = 180


def find_builds(element_plus: str = NEWEST) -> dict[str, Path]:
    """Return the built files of Vue and Element Plus by their names on the site, fetched by npm the first time.

    Skips the test where npm is missing or brings nothing, or fails it in CI.
    """
    builds = {}
    for package in (f"vue@{_VUE}", f"element-plus@{element_plus}"):
        folder = _find_package(package)
        builds |= {name: folder / name for name in _BUILDS[package.partition("@")[0]].values()}
    return builds


def _find_package(package: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "catchment-tests"
    kept = cache / package
    if kept.is_dir():
        return kept
    npm = require_program("npm")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        _unpack(_fetch(npm, package, Path(scratch)), package, Path(scratch, "whole"))
        with suppress(OSError):  # another test session was first
            Path(scratch, "whole").rename(kept)
    return kept


def _fetch(npm: Path, package: str, scratch: Path) -> Path:
    command = [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", scratch, package]
    try:
        subprocess.run(command, cwd=scratch, check=True, capture_output=True, timeout=_NPM_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        message = f"npm did not bring {package}: {(error.stderr or b'').decode(errors='replace')[-500:]}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    tarball = next(scratch.glob("*.tgz"))
    digest = "sha512-" + base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    assert digest == _DIGESTS[package], f"{package} is not the one these tests were written with"
    return tarball


def _unpack(tarball: Path, package: str, folder: Path) -> None:
    with tarfile.open(tarball) as archive:
        for name, local in _BUILDS[package.partition("@")[0]].items():
            content = archive.extractfile(f"package/{name}")
            assert content is not None
            (folder / local).parent.mkdir(parents=True, exist_ok=True)
            with (folder / local).open("wb") as file:
                shutil.copyfileobj(content, file)


@dataclass(slots=True)
class PageTraits:
    """How the page is built; the browser gets them with the page."""

    section_id: str = "camera-history"
    asks: Literal["named", "epoch", "nameless"] = "named"
    shows_today_in_picker: bool = True
    by_hour: bool = False
    veils: bool = True
    scrolls: bool = False
    reuses_images: bool = False
    keeps_old_on_error: bool = False
    is_deaf: bool = False
    debounce_milliseconds: int = 0
    live_milliseconds: int = 300
    locale: Literal["", "De", "ZhCn"] = ""
    first_weekday: int | None = None


@dataclass(slots=True)
class Faults:
    """What the site does wrong, looked up at every request."""

    never_loads: bool = False
    never_answers_api: bool = False
    is_another_page: bool = False
    page_status: int = 200
    api_status: int = 200
    delay_seconds: float = 0.0
    shows_day_before: bool = False
    shows_other_stream: str | None = None


@dataclass(frozen=True, slots=True)
class TerminalSite:
    """A running site; `url` ends with a slash, `cdn_url` too, and is where its pictures' addresses begin."""

    url: str
    cdn_url: str
    today: date
    traits: PageTraits = field(default_factory=PageTraits)
    faults: Faults = field(default_factory=Faults)
    requests: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    _times: dict[str, set[datetime]] = field(default_factory=dict)

    def reset(self) -> None:
        """Take every picture, fault and changed trait back."""
        self._times.clear()
        for current in (self.traits, self.faults):
            for item in fields(current):
                setattr(current, item.name, item.default)

    @property
    def page_url_template(self) -> str:
        """The history page's address with the field `{stream}`."""
        return f"{self.url}terminal_cameras/apm?streamName={{stream}}#camera-history"

    def put(self, stream: str, *times: datetime) -> list[str]:
        """Publish a picture of `stream` for each wall-clock time, and return their thumbnails' addresses."""
        self._times.setdefault(stream, set()).update(times)
        return [self.thumbnail_url(stream, time) for time in sorted(times)]

    def thumbnail_url(self, stream: str, time: datetime) -> str:
        """Return the address that the page shows for a picture."""
        return f"{self.cdn_url}apm/{time:%Y-%m-%d}/{time.hour}/{time:%Y-%m-%dT%H:%M:%S}-{stream}-thumbnail.jpeg"

    def list_day(self, stream: str, day: date, hour: int | None = None) -> list[str]:
        """Return what the API answers for a day, or one hour of it."""
        first = day - timedelta(days=self.faults.shows_day_before)
        shown = self.faults.shows_other_stream or stream
        times = sorted(t for t in self._times.get(shown, ()) if first <= t.date() <= day and hour in (None, t.hour))
        return [self.thumbnail_url(shown, time) for time in times]


@contextmanager
def serve_terminal_site(
    builds: dict[str, Path], *, today: date = date(2026, 1, 15), cdn_url: str | None = None
) -> Iterator[TerminalSite]:
    """Run a site on a loopback port that takes `today` for today; `cdn_url`: where the pictures are, if not here."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.daemon_threads = True
    url = f"http://127.0.0.1:{server.server_port}/"
    site = TerminalSite(url, cdn_url or url, today)
    server.RequestHandlerClass = partial(_Answers, site, builds)  # type: ignore[assignment]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Answers(BaseHTTPRequestHandler):
    """One connection to the site; `requests` holds a request line before it is answered."""

    protocol_version = "HTTP/1.1"

    def __init__(self, site: TerminalSite, builds: dict[str, Path], *args: Any) -> None:
        self._site = site
        self._builds = builds
        super().__init__(*args)

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _answer(self, body: dict[str, Any]) -> None:
        self._site.requests.append(self.requestline)
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()} | body
        path = unquote(address.path)
        if path == "/terminal_cameras/apm":
            self._send_page()
        elif path == "/api/live":
            self._send_json(self._live(query["stream"]))
        elif path == "/api/history":
            self._send_history(query)
        elif path == "/cameras.js":
            self._send((_FILES / "cameras.js").read_bytes(), "text/javascript")
        elif path.startswith("/builds/") and path.removeprefix("/builds/") in self._builds:
            content = self._builds[path.removeprefix("/builds/")].read_bytes()
            self._send(content, "text/css" if path.endswith(".css") else "text/javascript")
        elif path.startswith("/apm/"):
            self._send(make_jpeg(len(path), (160, 120)), "image/jpeg")
        else:
            self._send(b"<h1>Not found</h1>", "text/html", HTTPStatus.NOT_FOUND)

    def _send_page(self) -> None:
        faults = self._site.faults
        if faults.never_loads:
            self._site.stopped.wait()
        if faults.is_another_page or faults.page_status != HTTPStatus.OK:
            self._send(b"<title>Welcome</title><h1>Welcome</h1>", "text/html", faults.page_status)
            return
        traits = asdict(self._site.traits) | {"today": self._site.today.isoformat()}
        page = (_FILES / "index.html").read_text().replace("/*site*/", json.dumps(traits))
        self._send(page.encode(), "text/html; charset=utf-8")

    def _send_history(self, query: dict[str, Any]) -> None:
        faults = self._site.faults
        if faults.never_answers_api:
            self._site.stopped.wait()
        self._site.stopped.wait(faults.delay_seconds)
        if "from" in query:
            day = datetime.fromtimestamp(query["from"] / 1000, ZONE).date()
        elif "ago" in query:
            day = self._site.today - timedelta(days=int(query["ago"]))
        else:
            day = date.fromisoformat(query["date"])
        hour = int(query["hour"]) if "hour" in query else None
        self._send_json(self._site.list_day(query["stream"], day, hour), faults.api_status)

    def _live(self, stream: str) -> list[str]:
        """Return two pictures of today, as new as the pictures of the History section's last."""
        latest = datetime.combine(self._site.today, datetime.max.time())
        return [self._site.thumbnail_url(stream, latest.replace(microsecond=0, minute=minute)) for minute in (49, 59)]

    def _send_json(self, value: object, status: int = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: int = HTTPStatus.OK) -> None:
        with suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
