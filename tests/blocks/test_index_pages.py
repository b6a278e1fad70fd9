"""One hard directory as every server lists it: pages kept in tests/blocks/pages, and the servers themselves.

`python -m tests.blocks.test_index_pages` has the servers of this machine write the pages anew.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timezone
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pytest

from blocks._index import IndexPage, IndexReader, parse_index, quote_key, read_index
from tests.servers.apache import serve_apache
from tests.servers.caddy import serve_caddy
from tests.servers.http_server import HttpServer, serve_http_server
from tests.servers.lighttpd import serve_lighttpd
from tests.servers.nginx import serve_nginx
from tests.servers.rclone import RcloneServer, serve_rclone

PAGES = Path(__file__).parent / "pages"
TOKYO = ZoneInfo("Asia/Tokyo")
MODIFIED = datetime(2024, 1, 15, 3, 4, 5, tzinfo=UTC)

FILES = {
    b"IMG_0001.jpg": 59392,
    b"small.jpg": 512,
    b"http:foo.jpg": 59392,
    b"C=N;O=D.jpg": 59392,
    b"?C=N": 59392,
    b"#1 50% off.jpg": 59392,
    b"a&b+c;'q'\"<x>.jpg": 59392,
    b"&amp;.jpg": 59392,
    b"back\\slash.jpg": 59392,
    b" lead.jpg": 59392,
    b"trail.jpg ": 59392,
    b"a%2Fb.jpg": 59392,
    b"~x(1)!*@$,.jpg": 59392,
    b"L" * 60 + b".jpg": 59392,
    "größe 日本語 😀.jpg".encode(): 59392,
    b"caf\xe9.jpg": 2_000_000,
}
FOLDERS = ["a:b", "sub dir", "größe"]
SMALL = {"small.jpg"}

Server = HttpServer | RcloneServer


@dataclass(frozen=True)
class Kind:
    """One way to list: who serves it, what it says of a file's size and time, in which zone.

    `sizes`: the keys whose exact size is told; `seconds`: whether times have them, None where there are no times.
    """

    name: str
    serve: Callable[[Path], AbstractContextManager[Server]]
    suffix: Literal["html", "json", "xml"] = "html"
    content_type: str = "text/html"
    accept: str = "text/html"
    sizes: Literal["all", "small", "none"] = "all"
    seconds: bool | None = True
    zone: ZoneInfo | timezone = UTC
    undecodable: str = "caf%E9.jpg"

    @property
    def path(self) -> Path:
        return PAGES / f"{self.name}.{self.suffix}"

    @property
    def empty_path(self) -> Path:
        return PAGES / f"{self.name}-empty.{self.suffix}"

    def expected(self) -> set[tuple[str, int | None, datetime | None]]:
        modified = None if self.seconds is None else MODIFIED if self.seconds else MODIFIED.replace(second=0)
        keys = {(self.undecodable if raw == b"caf\xe9.jpg" else raw.decode()): size for raw, size in FILES.items()}
        told = {"all": set(keys), "small": SMALL, "none": set()}[self.sizes]
        return {(key, size if key in told else None, modified) for key, size in keys.items()}


def apache(*options: str) -> Callable[[Path], AbstractContextManager[Server]]:
    return partial(serve_apache, options=options, zone="Asia/Tokyo")


LATIN = "text/html;charset=ISO-8859-1"
JSON = "application/json"
MINUTES_TOKYO = {"sizes": "small", "seconds": False, "zone": TOKYO, "content_type": LATIN}
KINDS = [
    Kind("nginx", partial(serve_nginx, autoindex="html"), seconds=False),
    Kind("nginx-human", partial(serve_nginx, exact_size=False), sizes="small", seconds=False),
    Kind("nginx-local", partial(serve_nginx, localtime=True, zone="Asia/Tokyo"), seconds=False, zone=TOKYO),
    Kind("nginx", partial(serve_nginx, autoindex="json"), "json", JSON),
    Kind("nginx", partial(serve_nginx, autoindex="xml"), "xml", "text/xml; charset=utf-8"),
    Kind("fancyindex", partial(serve_nginx, fancyindex=True), seconds=False),
    Kind("fancyindex-human", partial(serve_nginx, fancyindex=True, exact_size=False), sizes="small", seconds=False),
    Kind("apache-list", apache(), content_type=LATIN, sizes="none", seconds=None),
    Kind("apache-fancy", apache("FancyIndexing"), **MINUTES_TOKYO),
    Kind("apache-table", apache("FancyIndexing", "HTMLTable"), **MINUTES_TOKYO),
    Kind("apache-xhtml", apache("FancyIndexing", "HTMLTable", "XHTML"), **MINUTES_TOKYO),
    Kind("apache-icons", apache("FancyIndexing", "IconsAreLinks"), **MINUTES_TOKYO),
    Kind("apache-icons-table", apache("FancyIndexing", "HTMLTable", "IconsAreLinks"), **MINUTES_TOKYO),
    Kind("lighttpd", partial(serve_lighttpd, zone="Asia/Tokyo"), sizes="none", zone=TOKYO),
    Kind("caddy", partial(serve_caddy, zone="Asia/Tokyo"), content_type="text/html; charset=utf-8"),
    Kind("caddy", partial(serve_caddy, zone="Asia/Tokyo"), "json", JSON, JSON),
    Kind("http-server", serve_http_server, sizes="none", seconds=None, undecodable="caf%ED%B3%A9.jpg"),
    Kind("rclone", serve_rclone, content_type="text/html; charset=utf-8"),
]
EMPTY = [kind for kind in KINDS if kind.name in {"nginx", "fancyindex", "lighttpd", "caddy", "http-server", "rclone"}]
EMPTY += [kind for kind in KINDS if kind.name in {"apache-list", "apache-fancy", "apache-table"}]


def kind_id(kind: Kind) -> str:
    return f"{kind.name}-{kind.suffix}"


def plant(root: Path) -> None:
    """Make the directory `cam` that every server lists, and an empty one."""
    for folder in FOLDERS:
        (root / "cam" / folder).mkdir(parents=True)
    for raw in FILES:
        (root / "cam" / os.fsdecode(raw)).write_bytes(content(raw))
    for path in (root / "cam").iterdir():
        os.utime(path, (MODIFIED.timestamp(), MODIFIED.timestamp()))
    (root / "empty").mkdir()


def content(raw: bytes) -> bytes:
    return raw.ljust(FILES[raw], b".")


def get(url: str, accept: str = "*/*") -> tuple[bytes, str | None]:
    """Return body and content type; `url` goes out exactly as it is."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("GET", parts.path, headers={"Accept": accept})
        answer = connection.getresponse()
        assert answer.status == 200, f"{parts.path}: {answer.status}"
        return answer.read(), answer.getheader("Content-Type")
    finally:
        connection.close()


def read_in_pieces(
    url: str, body: bytes, content_type: str | None, zone: ZoneInfo | timezone, *, size: int
) -> IndexPage:
    reader = IndexReader(url, content_type, zone=zone)
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    return reader.close()


def rows(page: IndexPage) -> set[tuple[str, int | None, datetime | None]]:
    return set(page.files.select("key", "size", "modified").iter_rows())


@pytest.mark.parametrize("kind", KINDS, ids=kind_id)
def test_every_server_s_page_gives_the_same_names_sizes_and_times(kind: Kind) -> None:
    page = parse_index("http://camera.test/cam/", kind.path.read_bytes(), kind.content_type, zone=kind.zone)

    assert rows(page) == kind.expected()
    assert sorted(folder.name for folder in page.folders) == sorted(FOLDERS)


@pytest.mark.parametrize("kind", KINDS, ids=kind_id)
@pytest.mark.parametrize("size", [1, 1000])
def test_both_parsers_read_the_same_from_every_page(kind: Kind, size: int) -> None:
    url, body = "http://camera.test/cam/", kind.path.read_bytes()

    whole = parse_index(url, body, kind.content_type, zone=kind.zone)
    pieces = read_in_pieces(url, body, kind.content_type, kind.zone, size=size)

    assert pieces.files.rows() == whole.files.rows()
    assert pieces.folders == whole.folders


@pytest.mark.parametrize("kind", EMPTY, ids=kind_id)
def test_an_empty_directory_is_a_listing_without_files(kind: Kind) -> None:
    url, body = "http://camera.test/empty/", kind.empty_path.read_bytes()

    for page in (parse_index(url, body, kind.content_type), read_index(url, [body], kind.content_type)):
        assert (len(page.files), page.folders) == (0, ())


@pytest.mark.parametrize("kind", KINDS, ids=kind_id)
def test_every_file_a_server_lists_can_be_fetched_by_the_address_its_page_gave(kind: Kind, tmp_path: Path) -> None:
    plant(tmp_path)
    with kind.serve(tmp_path) as server:
        url = f"{server.url}cam/"
        body, content_type = get(url, kind.accept)
        page = parse_index(url, body, content_type, zone=kind.zone)
        bodies = {get(url + (locator or quote_key(key)))[0] for key, locator in page.files["key", "locator"].rows()}
        empty = parse_index(f"{server.url}empty/", *get(f"{server.url}empty/", kind.accept))
        root = parse_index(server.url, *get(server.url, kind.accept))

    assert rows(page) == kind.expected()
    assert bodies == {content(raw) for raw in FILES}
    assert (len(empty.files), empty.folders) == (0, ())
    assert sorted(folder.name for folder in root.folders) == ["cam", "empty"]


def test_a_changed_file_changes_its_validator_and_no_other(tmp_path: Path) -> None:
    plant(tmp_path)
    with serve_nginx(tmp_path) as server:
        before = parse_index(f"{server.url}cam/", *get(f"{server.url}cam/")).files
        (tmp_path / "cam" / "small.jpg").write_bytes(b"longer than before" * 100)
        after = parse_index(f"{server.url}cam/", *get(f"{server.url}cam/")).files

    old, new = (dict(files["key", "validator"].rows()) for files in (before, after))
    assert [key for key in old if old[key] != new[key]] == ["small.jpg"]


def test_requests_are_counted_by_every_server_s_log(tmp_path: Path) -> None:
    plant(tmp_path)
    for serve in (serve_nginx, serve_apache, serve_lighttpd, serve_caddy, serve_http_server):
        with serve(tmp_path) as server:
            get(f"{server.url}cam/")
            get(f"{server.url}empty/")
            assert sorted(server.requests()) == ["GET /cam/ HTTP/1.1", "GET /empty/ HTTP/1.1"]


@pytest.mark.parametrize("serve", [serve_nginx, serve_apache, serve_lighttpd, serve_caddy])
def test_a_server_with_users_lets_only_them_in(
    serve: Callable[..., AbstractContextManager[HttpServer]], tmp_path: Path
) -> None:
    with serve(tmp_path, users={"warden": "lynx"}) as server:
        connection = HTTPConnection(urlsplit(server.url).netloc, timeout=10)
        connection.request("GET", "/")
        stranger = connection.getresponse()
        stranger.read()
        connection.request("GET", "/", headers={"Authorization": "Basic d2FyZGVuOmx5bng="})
        warden = connection.getresponse()
        warden.read()
        connection.close()

    assert (stranger.status, warden.status) == (401, 200)


def write_pages() -> None:
    """Have every server write its pages."""
    PAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        plant(Path(folder))
        for kind in KINDS:
            with kind.serve(Path(folder)) as server:
                kind.path.write_bytes(get(f"{server.url}cam/", kind.accept)[0])
                if kind in EMPTY:
                    kind.empty_path.write_bytes(get(f"{server.url}empty/", kind.accept)[0])


if __name__ == "__main__":
    write_pages()
