"""Files of a Dropbox folder: whole and proven by their content hash, continued after a cut, refused in plain words."""

import hashlib
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from blocks._dropbox import encode_header, hash_content, parse_time
from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._records import RemoteFile, iter_files
from blocks.dropbox_folder import DropboxCredentials, DropboxFolder
from tests.servers import dropbox_api
from tests.servers.dropbox_api import APP_KEY, APP_SECRET, REFRESH_TOKEN, DropboxServer, serve_dropbox

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4
BIG = b"\xff\xd8\xff\xe0" + bytes(range(251)) * 40_000  # three blocks of 4 MiB
ROUTES = {"own": "files/download", "shared": "sharing/get_shared_link_file"}


@pytest.fixture(scope="module")
def running() -> Iterator[DropboxServer]:
    with serve_dropbox() as server:
        yield server


@pytest.fixture
def server(running: DropboxServer) -> DropboxServer:
    running.reset()
    return running


@pytest.fixture(params=["own", "shared"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make_source(server: DropboxServer, way: str, **fields: Any) -> DropboxFolder:
    secrets = {"app_key": APP_KEY, "app_secret": SecretStr(APP_SECRET)}
    place: dict[str, Any] = {"path": "/Cam"} if way == "own" else {"folder_url": server.share("/Cam")}
    if way == "own":
        secrets["refresh_token"] = SecretStr(REFRESH_TOKEN)
    addresses = {"api_url": server.url, "content_url": server.url}
    waits = {"timeout_seconds": 20, "retry_deadline_seconds": 60}
    return DropboxFolder(**{"credentials": DropboxCredentials(**secrets)} | place | addresses | waits | fields)


def only_file(source: DropboxFolder) -> RemoteFile:
    [file] = iter_files(source.list_files())
    return file


def test_a_file_comes_whole_with_what_dropbox_says_of_it(server: DropboxServer, way: str, tmp_path: Path) -> None:
    taken = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    item = server.put("/Cam/Garden/Eule Nr. 1 ü.jpg", JPEG, taken)
    source = make_source(server, way)
    fetched = source.download(only_file(source), tmp_path / "out")
    assert fetched.path.read_bytes() == JPEG
    assert (fetched.size, fetched.sha256) == (len(JPEG), hashlib.sha256(JPEG).hexdigest())
    assert (fetched.modified, fetched.warning) == (taken, None)
    assert fetched.claims is not None
    assert dict(fetched.claims.extra or {}) == {
        "provider": "dropbox",
        "id": item.id,
        "name": "Eule Nr. 1 ü.jpg",
        "path": "/Cam/Garden/Eule Nr. 1 ü.jpg" if way == "own" else "/Garden/Eule Nr. 1 ü.jpg",
        "revision": item.rev,
        "content_hash": hash_content(tmp_path / "out"),
        "modified": "2026-02-03T04:05:06Z",
        "uploaded": "2026-03-01T10:20:00Z",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("size", [0, 1, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, (8 << 20) + 5])
def test_the_content_hash_is_that_of_the_vendors_page(size: int, tmp_path: Path) -> None:
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    (tmp_path / "file").write_bytes(content)
    assert hash_content(tmp_path / "file") == dropbox_api.hash_content(content)


def test_the_content_hash_of_nothing_is_that_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert hash_content(tmp_path / "file") == hashlib.sha256(b"").hexdigest()


def test_a_cut_download_goes_on_where_it_was(server: DropboxServer, way: str, tmp_path: Path) -> None:
    server.put("/Cam/a.jpg", BIG)
    source = make_source(server, way)
    file = only_file(source)
    server.fault(ROUTES[way], dropbox_api.cut_after(3_000_000), dropbox_api.cut_after(4_000_000))
    assert source.download(file, tmp_path / "out").path.read_bytes() == BIG
    ranges = [call.headers.get("range") for call in server.calls if call.route == ROUTES[way]]
    assert ranges == [None, "bytes=3000000-", "bytes=7000000-"]
    assert not any("if-range" in call.headers for call in server.calls)


def test_a_download_cut_in_an_earlier_run_goes_on_where_it_was(server: DropboxServer, way: str, tmp_path: Path) -> None:
    server.put("/Cam/a.jpg", BIG)
    source = make_source(server, way, retry_deadline_seconds=0)
    file = only_file(source)
    server.fault(ROUTES[way], dropbox_api.cut_after(3_000_000))
    with pytest.raises(SourceUnavailable) as told:
        source.download(file, tmp_path / "out")
    assert told.value.reason is Reason.CUT_SHORT
    assert not (tmp_path / "out").exists()
    assert make_source(server, way).download(file, tmp_path / "out").path.read_bytes() == BIG
    assert server.calls[-1].headers["range"] == "bytes=3000000-"


def test_the_rest_of_another_revision_is_never_joined(server: DropboxServer, way: str, tmp_path: Path) -> None:
    server.put("/Cam/a.jpg", BIG)
    source = make_source(server, way)
    file = only_file(source)
    newer = BIG[:2_000_000] + bytes(reversed(BIG[2_000_000:]))
    change = dropbox_api.before(lambda: server.put("/Cam/a.jpg", newer))
    server.fault(ROUTES[way], dropbox_api.cut_after(3_000_000), change)
    fetched = source.download(file, tmp_path / "out")
    assert fetched.path.read_bytes() == newer
    assert "changed since it was listed" in (fetched.warning or "")


def test_bytes_that_do_not_have_their_content_hash_are_fetched_again(
    server: DropboxServer, way: str, tmp_path: Path
) -> None:
    server.put("/Cam/a.jpg", JPEG)
    source = make_source(server, way)
    file = only_file(source)
    server.fault(ROUTES[way], dropbox_api.corrupt())
    assert source.download(file, tmp_path / "out").path.read_bytes() == JPEG
    server.fault(ROUTES[way], *[dropbox_api.corrupt()] * 3)
    with pytest.raises(SourceUnavailable, match="content hash") as told:
        source.download(file, tmp_path / "other")
    assert told.value.reason is Reason.DIGEST_MISMATCH
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_token_that_expires_before_a_download_is_renewed_once(server: DropboxServer, tmp_path: Path) -> None:
    server.put("/Cam/a.jpg", JPEG)
    source = make_source(server, "own")
    with source.connected():
        file = only_file(source)
        server.expire_tokens()
        assert source.download(file, tmp_path / "out").size == len(JPEG)
    assert server.count("oauth2/token") == 2


def test_many_threads_renew_a_token_once(server: DropboxServer, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for number in range(24):
        server.put(f"/Cam/{number}.jpg", JPEG + bytes([number]))
    source = make_source(server, "own", connections=8)
    with source.connected():
        files = list(iter_files(source.list_files()))
        server.expire_tokens()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda file: source.download(file, tmp_path / file.name), files))
    assert len(list(tmp_path.iterdir())) == 24
    assert server.count("oauth2/token") == 2


def test_quotas_are_waited_out(server: DropboxServer, way: str, tmp_path: Path) -> None:
    server.put("/Cam/a.jpg", JPEG)
    source = make_source(server, way)
    file = only_file(source)
    server.fault(ROUTES[way], dropbox_api.limit_rate(0, is_json=False), dropbox_api.hang_up())
    assert source.download(file, tmp_path / "out").size == len(JPEG)


def test_a_web_page_in_place_of_the_file_is_told_by_its_content(
    server: DropboxServer, way: str, tmp_path: Path
) -> None:
    server.put("/Cam/a.jpg", JPEG)
    source = make_source(server, way, retry_deadline_seconds=0)
    file = only_file(source)
    server.fault(ROUTES[way], dropbox_api.answer_html())
    with pytest.raises(SourceUnavailable) as told:
        source.download(file, tmp_path / "out")
    assert told.value.reason is Reason.HTML_PAGE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tags", "text", "reason"),
    [
        (("path", "not_found"), "not there any more", Reason.NOT_FOUND),
        (("path", "restricted_content"), "restricted content", Reason.FORBIDDEN),
        (("path", "unsupported_content_type"), "does not hand out", Reason.REFUSED),
        (("unsupported_file",), "only exports", Reason.REFUSED),
        (("shared_link_not_found",), "revoked", Reason.NOT_FOUND),
        (("shared_link_access_denied",), "password", Reason.FORBIDDEN),
        (("unsupported_link_type",), "browser", Reason.REFUSED),
        (("shared_link_is_directory",), "folder now", Reason.REFUSED),
        (("unsupported_parameter_field",), "by path", Reason.FORBIDDEN),
    ],
)
def test_what_dropbox_refuses_is_that_files_own_failure(
    server: DropboxServer, way: str, tags: tuple[str, ...], text: str, reason: Reason, tmp_path: Path
) -> None:
    server.put("/Cam/a.jpg", JPEG)
    source = make_source(server, way)
    file = only_file(source)
    server.fault(ROUTES[way], dropbox_api.answer_with(409, dropbox_api.refuse(*tags).body))
    with pytest.raises(SourceRefused, match=text) as told:
        source.download(file, tmp_path / "out")
    assert told.value.reason is reason
    assert str(told.value).startswith("a.jpg ")


def test_a_document_of_a_web_app_is_refused_without_asking(server: DropboxServer, way: str, tmp_path: Path) -> None:
    server.put("/Cam/drawing.jpg", JPEG, is_downloadable=False)
    source = make_source(server, way)
    file = only_file(source)
    with pytest.raises(SourceRefused, match="only exports") as told:
        source.download(file, tmp_path / "out")
    assert told.value.reason is Reason.UNSUPPORTED_FORMAT
    assert server.count(ROUTES[way]) == 0


def test_a_file_over_the_limit_is_not_begun(server: DropboxServer, way: str, tmp_path: Path) -> None:
    server.put("/Cam/a.jpg", BIG)
    source = make_source(server, way, max_file_bytes=1_000_000)
    with pytest.raises(SourceRefused) as told:
        source.download(only_file(source), tmp_path / "out")
    assert told.value.reason is Reason.TOO_LARGE
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_was_listed_wrong_is_said(server: DropboxServer, way: str, tmp_path: Path) -> None:
    server.put("/Cam/a.jpg", JPEG, size=5)
    source = make_source(server, way)
    fetched = source.download(only_file(source), tmp_path / "out")
    assert fetched.path.read_bytes() == JPEG
    assert "where the listing said 5" in (fetched.warning or "")


def test_a_file_whose_size_and_hash_are_unknown_comes_all_the_same(
    server: DropboxServer, way: str, tmp_path: Path
) -> None:
    server.put("/Cam/a.jpg", JPEG, size=10**30, content_hash=[1])
    source = make_source(server, way)
    fetched = source.download(only_file(source), tmp_path / "out")
    assert (fetched.path.read_bytes(), fetched.warning) == (JPEG, None)


@pytest.mark.parametrize(
    "locator",
    [None, "", "https://example.org/a.jpg", "{}", "[1]", "[" * 100_000, '{"id": 5, "path": [], "rev": "1"}'],
)
def test_a_file_that_another_kind_of_source_listed_is_refused(
    server: DropboxServer, way: str, tmp_path: Path, locator: str | None
) -> None:
    server.make_folder("/Cam")
    source = make_source(server, way)
    with pytest.raises(SourceRefused, match="not listed by a Dropbox folder"):
        source.download(RemoteFile("a.jpg", len(JPEG), locator=locator), tmp_path / "out")
    assert server.calls == []


def test_a_password_goes_with_every_download_of_its_link(server: DropboxServer, tmp_path: Path) -> None:
    server.put("/Cam/a.jpg", JPEG)
    link = server.share("/Cam", password="canary-right")
    source = make_source(server, "shared", folder_url=link, link_password="canary-right")
    assert source.download(only_file(source), tmp_path / "out").size == len(JPEG)


def test_a_moved_file_is_still_found(server: DropboxServer, tmp_path: Path) -> None:
    server.put("/Cam/a.jpg", JPEG)
    source = make_source(server, "own")
    file = only_file(source)
    server.move("/Cam/a.jpg", "/Cam/b.jpg")
    assert source.download(file, tmp_path / "out").size == len(JPEG)


@pytest.mark.parametrize("text", ["a\x7fb", "ü€😀", 'quote"back\\slash', "new\nline"])
def test_any_name_fits_into_a_header(text: str) -> None:
    header = encode_header({"path": text})
    assert header.isascii()
    assert header.isprintable()
    assert json.loads(header) == {"path": text}


@pytest.mark.parametrize("text", [None, "", "yesterday", "2026-03-01T10:20:00", 5])
def test_a_time_that_is_none_is_unknown(text: object) -> None:
    assert parse_time(text) is None


def test_neither_the_links_key_nor_a_credential_is_in_any_log(
    server: DropboxServer, way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """httpcore writes response headers at DEBUG, and in Dropbox's stands the link with its key."""
    for name in ("", "httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
        caplog.set_level(logging.DEBUG, name)
    server.put("/Cam/a.jpg", JPEG)
    source = make_source(server, way)
    source.download(only_file(source), tmp_path / "out")
    assert "/2/" in caplog.text
    assert "receive_response_headers.complete" in caplog.text
    assert "canary" not in caplog.text.lower()
