"""The HttpDirectory Block against real web servers and one that misbehaves."""

import base64
import copy
import os
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from prefect.utilities.collections import visit_collection
from pydantic import SecretStr, ValidationError

from blocks import _http_listing
from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._index import Folder, IndexPage
from blocks._records import Listing, RemoteFile, iter_files, make_listing
from blocks.http_directory import HttpDirectory
from tests.servers import fault
from tests.servers.fault import FaultServer, serve_faults
from tests.servers.http_server import serve_http_server
from tests.servers.nginx import serve_nginx

JPEG = b"\xff\xd8\xff\xe0\x00\x10" + bytes(range(256)) * 8 + b"\xff\xd9"
CANARY = "canary-51c9"
ODD_NAMES = [
    "a b.jpg",
    "ü.jpg",
    "100%.jpg",
    "100%25.jpg",
    "a#b.jpg",
    "a?b.jpg",
    "x&y.jpg",
    "a:b.jpg",
    "a;b.jpg",
    "'\".jpg",
]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serve_faults() as running:
        yield running


def directory(url: str, **fields: Any) -> HttpDirectory:
    return HttpDirectory(**{"base_url": url, "timeout_seconds": 10, "retry_deadline_seconds": 0} | fields)


def page(*hrefs: str) -> bytes:
    rows = "".join(f'<a href="{href}">{href}</a> 01-Jul-2026 10:20 {len(JPEG)}\n' for href in hrefs)
    head = '<html><head><title>Index of /</title></head><body><pre><a href="../">../</a>'
    return f"{head}\n{rows}</pre></body></html>".encode()


def index(*hrefs: str) -> fault.Answer:
    return fault.whole(page(*hrefs), content_type="text/html")


def keys(listing: Listing) -> list[str]:
    return sorted(listing["key"])


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG + name.encode())
        os.utime(path, (1_782_900_000, 1_782_900_000))
    return folder


def download_all(source: HttpDirectory, listing: Listing, folder: Path) -> dict[str, bytes]:
    contents = {}
    for number, file in enumerate(iter_files(listing)):
        contents[file.key] = source.download(file, folder / str(number)).path.read_bytes()
    return contents


def test_an_unchanged_directory_costs_one_request(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "b.PNG", "notes.txt", "sub/c.jpg")
    with serve_nginx(tmp_path) as nginx:
        source = directory(nginx.url)
        listing = source.list_files()
        assert keys(listing) == ["a.jpg", "b.PNG"]
        assert next(iter_files(listing.sort("key"))) == RemoteFile(
            "a.jpg",
            len(JPEG) + 5,
            datetime(2026, 7, 1, 10, 0, tzinfo=UTC),
            listing.sort("key")["validator"][0],
        )
        assert source.list_files().equals(listing)
        assert nginx.requests() == ["GET / HTTP/1.1"] * 2


def test_times_are_read_in_the_zone_of_the_server(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    # A zone without summer time: nginx prints a July file in the offset of today.
    with serve_nginx(tmp_path, localtime=True, zone="Asia/Kolkata") as nginx:
        listing = directory(nginx.url, listing_timezone="Asia/Kolkata").list_files()
    assert listing["modified"].to_list() == [datetime(2026, 7, 1, 10, 0, tzinfo=UTC)]


@pytest.mark.parametrize("serve", [serve_nginx, serve_http_server])
def test_every_listed_name_can_be_downloaded(tmp_path: Path, serve: Any) -> None:
    names = [*ODD_NAMES, *(f"fol der#1/{name}" for name in ODD_NAMES)]
    root, staging = fill(tmp_path / "root", *names), tmp_path / "staging"
    with serve(root) as running:
        source = directory(running.url, recurse_depth=1)
        with source.connected():
            contents = download_all(source, source.list_files(), staging)
    assert contents == {name: JPEG + name.encode() for name in names}


def test_names_that_are_not_utf_8_can_be_downloaded(tmp_path: Path) -> None:
    root = tmp_path / "root"
    folder = os.fsencode(root) + b"/\xe9t\xe9"
    os.makedirs(folder)  # noqa: PTH103 - a name that no Path can spell
    for name in (b"a.jpg", b"\xff.jpg"):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(JPEG + name)
    with serve_nginx(root) as nginx:
        source = directory(nginx.url, recurse_depth=1)
        contents = download_all(source, source.list_files(), tmp_path / "staging")
    assert sorted(contents.values()) == sorted([JPEG + b"a.jpg", JPEG + b"\xff.jpg"])


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (0, ["a.jpg"]),
        (1, ["a.jpg", "one/b.jpg"]),
        (2, ["a.jpg", "one/b.jpg", "one/two/c.jpg"]),
        (9, ["a.jpg", "one/b.jpg", "one/two/c.jpg"]),
    ],
)
def test_folders_are_entered_down_to_the_depth_asked_for(tmp_path: Path, depth: int, expected: list[str]) -> None:
    fill(tmp_path, "a.jpg", "one/b.jpg", "one/two/c.jpg")
    with serve_nginx(tmp_path) as nginx:
        assert keys(directory(nginx.url, recurse_depth=depth).list_files()) == expected
        assert len(nginx.requests()) == min(depth, 2) + 1


def test_a_link_from_a_folder_to_itself_ends(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "one/b.jpg")
    (tmp_path / "one" / "loop").symlink_to(tmp_path)
    with serve_nginx(tmp_path) as nginx:
        listing = directory(nginx.url, recurse_depth=4).list_files()
    assert keys(listing) == ["a.jpg", "one/b.jpg", "one/loop/a.jpg", "one/loop/one/b.jpg", "one/loop/one/loop/a.jpg"]


def test_include_exclude_and_suffixes_decide_what_is_listed(server: FaultServer) -> None:
    server.on("/", index("a.jpg", "b.jpg", "c.JPG", "d.gif", "e", "out/", "in/"))
    server.on("/in/", index("f.jpg", "b.jpg"))
    source = directory(server.url, recurse_depth=1, exclude=["*b.jpg", "out/*"], suffixes=["jpg"])
    assert keys(source.list_files()) == ["a.jpg", "c.JPG", "in/f.jpg"]
    assert [request.path for request in server.requests] == ["/", "/in/"]


def test_links_that_leave_the_directory_are_not_followed(server: FaultServer) -> None:
    server.on(
        "/cam/", index("../../x.jpg", "/y.jpg", "http://other.invalid/cam/z.jpg", "//other.invalid/w/", "/b/", "a.jpg")
    )
    assert keys(directory(f"{server.url}cam/", recurse_depth=3).list_files()) == ["a.jpg"]
    assert len(server.requests) == 1


def test_an_address_without_its_slash_works_here_and_in_another_process(server: FaultServer, tmp_path: Path) -> None:
    server.on("/cam", fault.redirect("/cam/", 301))
    server.on("/cam/", index("a.jpg"))
    server.on("/cam/a.jpg", fault.whole(JPEG))
    source = directory(f"{server.url}cam")
    listing = source.list_files()
    assert listing["locator"].to_list() == [None]
    fresh = directory(f"{server.url}cam")
    assert download_all(fresh, listing, tmp_path) == {"a.jpg": JPEG}
    assert source.root == f"{server.url}cam/"


def test_the_address_of_a_page_in_the_directory_works(server: FaultServer, tmp_path: Path) -> None:
    server.on("/cam/index.html", index("a.jpg"))
    server.on("/cam/a.jpg", fault.whole(JPEG))
    source = directory(f"{server.url}cam/index.html")
    assert download_all(source, source.list_files(), tmp_path) == {"a.jpg": JPEG}
    assert source.root == f"{server.url}cam/"


def test_a_directory_that_has_moved_on_its_server_works_in_another_process(server: FaultServer, tmp_path: Path) -> None:
    server.on("/cam/", fault.redirect("/new place/"))
    server.on("/new%20place/", index("a%20b.jpg", "sub/"))
    server.on("/new%20place/sub/", index("c.jpg"))
    server.on("/new%20place/a%20b.jpg", fault.whole(JPEG))
    server.on("/new%20place/sub/c.jpg", fault.whole(JPEG))
    listing = directory(f"{server.url}cam/", recurse_depth=1).list_files()
    assert download_all(directory(f"{server.url}cam/"), listing, tmp_path) == {"a b.jpg": JPEG, "sub/c.jpg": JPEG}
    assert len(server.requests) == 5


def test_a_locator_of_another_server_is_refused(server: FaultServer, tmp_path: Path) -> None:
    with serve_faults() as other:
        file = RemoteFile("a.jpg", locator=other.on("/a.jpg", fault.whole(JPEG)))
        with pytest.raises(SourceRefused, match="list the files again") as caught:
            directory(server.url).download(file, tmp_path / "a.jpg")
        assert caught.value.reason == Reason.REDIRECTED_AWAY
        assert other.requests == []


def test_a_folder_under_two_names_is_listed_once_under_its_own(server: FaultServer) -> None:
    server.on("/", index("2026/", "latest/"))
    server.on("/latest/", fault.redirect("/2026/"))
    server.on("/2026/", index("a.jpg"))
    assert keys(directory(server.url, recurse_depth=1).list_files()) == ["2026/a.jpg"]


def test_a_folder_that_redirects_to_a_place_not_listed_is_no_silent_gap(server: FaultServer) -> None:
    server.on("/", index("a.jpg", "private/"))
    server.on("/private/", fault.redirect("/login/"))
    server.on("/login/", index())
    with pytest.raises(SourceRefused, match=r"add private/\* to exclude") as caught:
        directory(server.url, recurse_depth=1).list_files()
    assert caught.value.reason == Reason.REDIRECTED_AWAY


@pytest.mark.parametrize(
    ("answer", "kind"), [(fault.status(403), SourceRefused), (fault.status(500), SourceUnavailable)]
)
def test_a_listing_without_one_of_its_folders_is_no_listing(
    server: FaultServer, answer: fault.Answer, kind: type
) -> None:
    server.on("/", index("a.jpg", "sub/"))
    server.on("/sub/", answer)
    with pytest.raises(kind):
        directory(server.url, recurse_depth=1).list_files()
    assert keys(directory(server.url, recurse_depth=1, exclude=["sub/*"]).list_files()) == ["a.jpg"]


def test_endless_folders_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http_listing, "MAX_FOLDERS", 50)

    def read_page(url: str) -> tuple[str, IndexPage]:
        return url, IndexPage(make_listing([]), (Folder("x", "./x/"), Folder("y", "./y/")))

    with pytest.raises(SourceRefused, match="lower recurse_depth"):
        _http_listing.walk_directory(
            "http://cam.example/", read_page, depth=30, is_wanted=lambda _: True, is_left_out=lambda _: False
        )


def test_a_listing_cut_short_is_no_listing(server: FaultServer) -> None:
    body = page(*(f"{number}.jpg" for number in range(100)))
    server.on("/", fault.cut(body, 2000, content_type="text/html"))
    with pytest.raises(SourceUnavailable) as caught:
        directory(server.url).list_files()
    assert caught.value.reason == Reason.CUT_SHORT


def test_a_listing_that_fails_once_is_asked_for_again(server: FaultServer) -> None:
    server.on("/", fault.status(503), index("a.jpg"))
    assert keys(directory(server.url, retry_deadline_seconds=5).list_files()) == ["a.jpg"]


def test_a_listing_beyond_its_limit_is_refused(server: FaultServer) -> None:
    server.on("/", index(*(f"{number}.jpg" for number in range(1000))))
    with pytest.raises(SourceRefused, match="max_listing_bytes") as caught:
        directory(server.url, max_listing_bytes=5000).list_files()
    assert caught.value.reason == Reason.TOO_LARGE


def test_a_zipped_listing_is_read(server: FaultServer) -> None:
    server.on("/", fault.zipped(page("a.jpg")))
    assert keys(directory(server.url).list_files()) == ["a.jpg"]
    assert server.requests[0].headers["accept-encoding"] == "gzip"


def test_a_page_that_is_no_listing_is_refused(server: FaultServer) -> None:
    server.on(
        "/",
        fault.status(200, b"<html><title>Sign in</title><form><input type=password></form>", content_type="text/html"),
    )
    with pytest.raises(SourceRefused):
        directory(server.url).list_files()


def test_basic_authentication_opens_the_directory_and_its_files(tmp_path: Path) -> None:
    fill(tmp_path / "root", "a.jpg")
    with serve_nginx(tmp_path / "root", users={"eve": CANARY}) as nginx:
        source = directory(nginx.url, auth_type="basic", auth_username="eve", auth_password=CANARY)
        assert download_all(source, source.list_files(), tmp_path) == {"a.jpg": JPEG + b"a.jpg"}
        wrong = directory(nginx.url, auth_type="basic", auth_username="eve", auth_password=f"no {CANARY}")
        with pytest.raises(SourceRefused, match="check auth_username and auth_password") as caught:
            wrong.list_files()
    assert caught.value.reason == Reason.UNAUTHORIZED
    assert CANARY not in str(caught.value)


def test_credentials_are_sent_as_given(server: FaultServer) -> None:
    server.on("/", index("a.jpg"))
    directory(server.url, auth_type="header", auth_header=f"Bearer {CANARY}").list_files()
    directory(server.url, auth_type="basic", auth_username="ève", auth_password="p:ß").list_files()
    directory(server.url).list_files()
    expected = [f"Bearer {CANARY}", "Basic " + base64.b64encode("ève:p:ß".encode()).decode(), None]
    assert [request.headers.get("authorization") for request in server.requests] == expected


def test_a_directory_redirected_to_another_host_is_refused(server: FaultServer) -> None:
    server.on("/", fault.redirect("http://elsewhere.invalid/"))
    with pytest.raises(SourceRefused, match=r"elsewhere\.invalid") as caught:
        directory(server.url, auth_type="header", auth_header=CANARY).list_files()
    assert caught.value.reason == Reason.REDIRECTED_AWAY


def test_a_file_over_the_limit_of_the_block_is_refused(server: FaultServer, tmp_path: Path) -> None:
    server.on("/a.jpg", fault.whole(JPEG))
    with pytest.raises(SourceRefused, match="max_file_bytes"):
        directory(server.url, max_file_bytes=100).download(RemoteFile("a.jpg"), tmp_path / "a.jpg")


def test_a_run_holds_its_connection_and_each_verb_alone_closes_its_own(server: FaultServer, tmp_path: Path) -> None:
    server.on("/", index("a.jpg"))
    server.on("/a.jpg", fault.whole(JPEG))
    source = directory(server.url)
    with source.connected(), source.connected():
        download_all(source, source.list_files(), tmp_path)
    assert server.accepted == 1
    download_all(source, source.list_files(), tmp_path)
    assert server.accepted == 3


def test_the_request_rate_holds_for_listing_and_files(server: FaultServer, tmp_path: Path) -> None:
    server.on("/", index("a.jpg"))
    server.on("/a.jpg", fault.whole(JPEG))
    source = directory(server.url, requests_per_second=20)
    started = datetime.now(UTC)
    with source.connected():
        listing = source.list_files()
        for _ in range(6):
            download_all(source, listing, tmp_path)
    assert 0.15 < (datetime.now(UTC) - started).total_seconds() < 5


def test_copies_share_the_connection_and_pickles_open_their_own(server: FaultServer) -> None:
    server.on("/", index("a.jpg"))
    source = directory(server.url, auth_type="header", auth_header=CANARY)
    with source.connected():
        for copied in (
            source.model_copy(),
            copy.deepcopy(source),
            visit_collection(source, lambda value: value, return_data=True),
        ):
            assert copied == source
            assert keys(copied.list_files()) == ["a.jpg"]
        assert server.accepted == 1
        revived = pickle.loads(pickle.dumps(source))
        assert keys(revived.list_files()) == ["a.jpg"]
        assert server.accepted == 2
        assert CANARY not in repr(source) + source.model_dump_json()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_url": f"http://eve:{CANARY}@127.0.0.1/"}, "put them in auth_username and auth_password"),
        ({"base_url": f"http://127.0.0.1/?token={CANARY}"}, "must not have a query"),
        ({"base_url": "http://127.0.0.1/#top"}, "fragment"),
        ({"base_url": "ftp://127.0.0.1/"}, "must begin with http"),
        ({"base_url": "127.0.0.1/cam"}, "must begin with http"),
        ({"base_url": "http://"}, "name a server"),
        ({"base_url": "http://127.0.0.1:port/"}, "base_url is no address"),
        ({"base_url": "http://127.0.0.1/\n"}, None),
        ({"auth_type": "basic", "auth_password": CANARY}, "needs auth_username and auth_password"),
        ({"auth_type": "basic", "auth_username": "eve"}, "needs auth_username and auth_password"),
        ({"auth_type": "basic", "auth_username": "e:ve", "auth_password": CANARY}, "auth_username must not"),
        ({"auth_type": "header"}, "needs auth_header"),
        ({"auth_type": "header", "auth_header": f"{CANARY}\r\nX-Evil: 1"}, "auth_header must be one line"),
        ({"auth_type": "header", "auth_header": f"{CANARY} "}, "auth_header must be one line"),
        ({"auth_username": "eve", "auth_password": CANARY}, "only sent with auth_type basic"),
        ({"auth_header": CANARY}, "only sent with auth_type header"),
        ({"listing_timezone": "Europe/Atlantis"}, "listing_timezone is no IANA zone"),
        ({"listing_timezone": "../etc/passwd"}, "listing_timezone is no IANA zone"),
        ({"recurse_depth": -1}, "recurse_depth"),
        ({"requests_per_second": 0}, "requests_per_second"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
    ],
)
def test_a_wrong_setting_is_named_without_its_secret(fields: dict[str, Any], message: str | None) -> None:
    settings = {"base_url": "http://127.0.0.1/"} | fields
    if message is None:
        assert HttpDirectory(**settings).base_url == "http://127.0.0.1/"
        return
    with pytest.raises(ValidationError, match=message) as caught:
        HttpDirectory(**settings)
    assert CANARY not in str(caught.value)


def test_credentials_over_plain_http_have_to_be_allowed() -> None:
    secret = {"auth_type": "header", "auth_header": SecretStr(CANARY)}
    with pytest.raises(ValidationError, match="allow_insecure_auth"):
        HttpDirectory(base_url="http://cam.example/", **secret)
    for url in ("https://cam.example/", "http://localhost:8080/", "http://127.0.0.9/", "http://[::1]/"):
        assert HttpDirectory(base_url=url, **secret).auth_type == "header"
    assert HttpDirectory(base_url="http://cam.example/", allow_insecure_auth=True, **secret).allow_insecure_auth


@pytest.mark.parametrize(
    ("base_url", "root"),
    [
        ("http://cam.example", "http://cam.example/"),
        ("http://cam.example/a/b", "http://cam.example/a/b/"),
        ("http://cam.example/a%20b/", "http://cam.example/a%20b/"),
        ("http://cam.example/a/index.PHP", "http://cam.example/a/"),
        ("http://cam.example/2026.07", "http://cam.example/2026.07/"),
    ],
)
def test_the_root_is_the_directory_with_its_slash(base_url: str, root: str) -> None:
    assert HttpDirectory(base_url=base_url).root == root


def test_the_block_tells_how_to_load_it() -> None:
    assert 'HttpDirectory.load("BLOCK_NAME")' in str(HttpDirectory.get_code_example())
    assert HttpDirectory.get_block_type_slug() == "http-directory"
    described = [name for name, field in HttpDirectory.model_fields.items() if not field.description]
    assert described == []


def test_a_page_of_several_megabytes_is_listed_whole(server: FaultServer) -> None:
    server.on("/", index(*(f"{number:06d}.jpg" for number in range(50_000))))
    listing = directory(server.url).list_files()
    assert (len(listing), listing["size"].sum()) == (50_000, 50_000 * len(JPEG))
    assert listing.filter(pl.col("locator").is_not_null()).is_empty()
