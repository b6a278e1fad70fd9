"""A Drive file brought whole: proven by its digest, resumed by Range, or its own typed failure."""

import hashlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable
from blocks._records import CaptureTime, Fetched, RemoteFile, TimeWitness
from tests.blocks.drive_folder import account_of, files_of, folder_of, user_of
from tests.pictures import make_jpeg
from tests.servers.drive import Drive, cut_body, error, html_page, other_bytes, serve_drive

BIG = bytes(range(256)) * 12_000


@pytest.fixture
def drive() -> Iterator[Drive]:
    with serve_drive() as server:
        yield server


@pytest.fixture
def root(drive: Drive) -> str:
    return drive.add_folder("cameras")


def fetch(drive: Drive, root: str, destination: Path, **fields: Any) -> Fetched:
    """Download the one file there is."""
    source = folder_of(drive, root, **fields)
    [file] = files_of(source)
    return source.download(file, destination)


def test_a_file_comes_whole_with_all_that_drive_says_of_it(drive: Drive, root: str, tmp_path: Path) -> None:
    content = make_jpeg()
    media = {
        "time": "2026:03:01 10:20:30",
        "location": {"latitude": 52.1, "longitude": 9.36, "altitude": 70},
        "cameraMake": "Ricoh",
    }
    item = drive.add_file("gate/IMG.jpg", content, drive.add_folder("2026", root), imageMediaMetadata=media)
    fetched = fetch(drive, root, tmp_path / "picture")
    assert (tmp_path / "picture").read_bytes() == content
    assert (fetched.sha256, fetched.warning) == (hashlib.sha256(content).hexdigest(), None)
    assert fetched.modified == datetime(2026, 3, 1, 10, 0, 3, tzinfo=UTC)
    assert fetched.claims is not None
    assert fetched.claims.captured == CaptureTime(datetime(2026, 3, 1, 10, 20, 30), None, TimeWitness.PROVIDER)  # noqa: DTZ001
    assert (fetched.claims.latitude, fetched.claims.longitude) == (52.1, 9.36)
    assert fetched.claims.extra == {
        "provider": "google-drive",
        "id": item,
        "name": "gate/IMG.jpg",
        "path": "2026/gate_IMG.jpg",
        "type": "image/jpeg",
        "link": f"https://drive.google.com/file/d/{item}/view",
        "created": "2026-03-01T10:00:03.000Z",
        "modified": "2026-03-01T10:00:03.000Z",
        "revision": drive.items[item]["headRevisionId"],
    }


@pytest.mark.parametrize("time", ["0000:00:00 00:00:00", "1970:01:01 00:00:00", "yesterday", "", None, 17])
def test_a_clock_that_was_never_set_is_no_witness(drive: Drive, root: str, tmp_path: Path, time: object) -> None:
    drive.add_file("a.jpg", make_jpeg(), root, imageMediaMetadata={"time": time})
    claims = fetch(drive, root, tmp_path / "picture").claims
    assert claims is not None
    assert claims.captured is None


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_file_is_gone_on_with_where_it_broke(drive: Drive, root: str, tmp_path: Path, reset: bool) -> None:
    item = drive.add_file("big.jpg", BIG, root)
    drive.script(f"media:{item}", cut_body(2_000_000, reset=reset))
    fetched = fetch(drive, root, tmp_path / "picture", retry_deadline_seconds=60)
    assert (tmp_path / "picture").read_bytes() == BIG
    assert fetched.warning is None
    first, second = drive.asked("media:")
    assert "range" not in first.headers
    assert second.headers["range"].startswith("bytes=")
    assert second.headers["range"] != "bytes=0-"


def test_another_process_goes_on_with_it_too(drive: Drive, root: str, tmp_path: Path) -> None:
    item = drive.add_file("big.jpg", BIG, root)
    drive.script(f"media:{item}", cut_body(2_000_000))
    with pytest.raises(SourceUnavailable) as raised:
        fetch(drive, root, tmp_path / "picture")
    assert raised.value.reason is Reason.CUT_SHORT
    assert not (tmp_path / "picture").exists()
    fetch(drive, root, tmp_path / "picture")
    assert (tmp_path / "picture").read_bytes() == BIG
    assert "range" in drive.asked("media:")[-1].headers
    assert list(tmp_path.iterdir()) == [tmp_path / "picture"]


def test_a_file_that_changed_between_its_parts_is_fetched_anew(drive: Drive, root: str, tmp_path: Path) -> None:
    item = drive.add_file("big.jpg", BIG, root)
    source = folder_of(drive, root, retry_deadline_seconds=60)
    [file] = files_of(source)
    # Of one size, and Drive promises no ETag: only the digest tells.
    drive.script(f"media:{item}", cut_body(2_000_000), other_bytes(BIG[::-1]))
    fetched = source.download(file, tmp_path / "picture")
    assert (tmp_path / "picture").read_bytes() == BIG
    assert fetched.warning is None
    assert ["range" in request.headers for request in drive.asked("media:")] == [False, True, False]


@pytest.mark.parametrize("lost", [(), ("sha256Checksum",)])
def test_other_bytes_than_the_digests_are_kept_with_a_warning(
    drive: Drive, root: str, tmp_path: Path, lost: tuple[str, ...]
) -> None:
    item = drive.add_file("processed.jpg", make_jpeg(1), root)
    for name in lost:
        del drive.items[item][name]
    served = make_jpeg(2)
    drive.script(f"media:{item}", other_bytes(served))
    fetched = fetch(drive, root, tmp_path / "picture")
    assert (tmp_path / "picture").read_bytes() == served
    assert "digest" in str(fetched.warning)
    drive.script(f"media:{item}")
    assert fetch(drive, root, tmp_path / "picture").warning is None


def test_without_any_digest_a_cut_file_starts_over(drive: Drive, root: str, tmp_path: Path) -> None:
    item = drive.add_file("big.jpg", BIG, root)
    for name in ("sha256Checksum", "md5Checksum", "headRevisionId"):
        del drive.items[item][name]
    drive.script(f"media:{item}", cut_body(2_000_000))
    assert fetch(drive, root, tmp_path / "picture", retry_deadline_seconds=60).warning is None
    assert ["range" in request.headers for request in drive.asked("media:")] == [False, False]


@pytest.mark.parametrize(
    ("answer", "kind", "reason", "words"),
    [
        (error(403, "downloadQuotaExceeded"), SourceRefused, Reason.REFUSED, "downloaded too often"),
        (error(403, "cannotDownloadAbusiveFile"), SourceRefused, Reason.FORBIDDEN, "malware or abuse"),
        (error(403, "cannotDownloadFile"), SourceRefused, Reason.FORBIDDEN, "allow downloads"),
        (error(403, "fileNotDownloadable"), SourceRefused, Reason.REFUSED, "Google document"),
        (error(403, "insufficientFilePermissions"), SourceRefused, Reason.FORBIDDEN, "not shared"),
        (error(404, "notFound"), SourceRefused, Reason.NOT_FOUND, "not there"),
        (error(403, "userRateLimitExceeded"), SourceUnavailable, Reason.RATE_LIMITED, "too many requests"),
        (html_page(200), SourceUnavailable, Reason.HTML_PAGE, "web page in place of its bytes"),
        (html_page(200, b"<html>" + bytes(5_000)), SourceUnavailable, Reason.HTML_PAGE, "web page"),
        (error(500, "internalError"), SourceUnavailable, Reason.SERVER_ERROR, "trouble of its own"),
    ],
)
def test_each_refusal_is_that_files_own_and_says_why(
    drive: Drive, root: str, tmp_path: Path, answer: Any, kind: type[CatchmentError], reason: Reason, words: str
) -> None:
    item = drive.add_file("a.jpg", make_jpeg(), root)
    drive.script(f"media:{item}", answer)
    with pytest.raises(kind, match=words) as raised:
        fetch(drive, root, tmp_path / "picture")
    assert raised.value.reason is reason
    assert list(tmp_path.iterdir()) == []


def test_a_quota_page_of_the_files_own_size_is_still_no_picture(drive: Drive, root: str, tmp_path: Path) -> None:
    content = make_jpeg()
    item = drive.add_file("a.jpg", content, root)
    page = b"<!DOCTYPE html><html>".ljust(len(content))
    drive.script(f"media:{item}", html_page(200, page))
    with pytest.raises(SourceUnavailable, match="web page"):
        fetch(drive, root, tmp_path / "picture")


def test_a_file_larger_than_allowed_is_not_fetched(drive: Drive, root: str, tmp_path: Path) -> None:
    drive.add_file("big.jpg", BIG, root)
    with pytest.raises(SourceRefused) as raised:
        fetch(drive, root, tmp_path / "picture", max_file_bytes=1_000_000)
    assert raised.value.reason is Reason.TOO_LARGE
    assert list(tmp_path.iterdir()) == []


def test_a_row_of_another_source_is_refused(drive: Drive, root: str, tmp_path: Path) -> None:
    for locator in (None, "", "https://example.org/a.jpg", "[]", "{}"):
        with pytest.raises(SourceRefused, match="not listed by Google Drive"):
            folder_of(drive, root).download(RemoteFile("1abc/a.jpg", locator=locator), tmp_path / "picture")


def test_a_resource_key_is_shown_for_the_bytes_too(drive: Drive, root: str, tmp_path: Path) -> None:
    item = drive.add_file("a.jpg", make_jpeg(), root)
    drive.need_key(item, "0-key")
    fetch(drive, root, tmp_path / "picture")
    assert drive.asked("media:")[-1].headers["x-goog-drive-resource-keys"] == f"{item}/0-key"


def test_a_token_that_runs_out_in_mid_run_is_renewed_by_one_thread_for_all(
    drive: Drive, root: str, tmp_path: Path
) -> None:
    for number in range(6):
        drive.add_file(f"{number}.jpg", make_jpeg(number, (64, 48)), root)
    source = folder_of(drive, root, credentials=account_of(drive), connections=6)
    with source.connected():
        files = files_of(source)
        drive.revoke_tokens()
        fetched: dict[str, Fetched] = {}
        threads = [
            threading.Thread(
                target=lambda file=file: fetched.update({file.key: source.download(file, tmp_path / file.name)})
            )
            for file in files
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(fetched) == 6
    assert len(drive.asked("token")) == 2


def test_a_token_near_its_end_is_renewed_before(drive: Drive, root: str, tmp_path: Path) -> None:
    drive.add_file("a.jpg", make_jpeg(), root)
    drive.lifetime_seconds = 0
    source = folder_of(drive, root, credentials=user_of(drive))
    with source.connected():
        drive.lifetime_seconds = 3600
        [file] = files_of(source)
        source.download(file, tmp_path / "picture")
    assert 1 <= len(drive.asked("token")) <= 2
    assert {request.headers.get("authorization") for request in drive.asked("media:")} == {
        f"Bearer {list(drive.tokens)[-1]}"
    }
