"""A shared Drive folder brought into the library, kept in step, and gone on with after whatever happens in between."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from sqlalchemy import select

from blocks._errors import WrongUse
from blocks._schema import metadata
from blocks.google_drive import GoogleDriveCredentials, GoogleDriveFolder
from blocks.library import ImageLibrary
from flows.ingest_google_drive import ingest_google_drive
from tests.blocks.drive_folder import account_of, folder_of, key_of, user_of
from tests.flows.ingesting import Ending, assert_sound, images_of, last_run, visible_files
from tests.pictures import make_jpeg
from tests.servers.drive import Drive, error, html_page, other_bytes, serve_drive

pytestmark = pytest.mark.usefixtures("prefect_api", "without_waiting")

ROOT = Path(__file__).parents[2]
SMALL = (64, 48)


@pytest.fixture
def drive() -> Iterator[Drive]:
    with serve_drive() as server:
        yield server


@pytest.fixture
def root(drive: Drive) -> str:
    return drive.add_folder("cameras")


def ingest(source: GoogleDriveFolder | None, library: ImageLibrary, **options: Any) -> Ending:
    """Run the flow in this process; without `max_files` it takes all."""
    return Ending(ingest_google_drive(source, library, **{"max_files": None, "return_state": True} | options))


def add_pictures(drive: Drive, folder: str, count: int, start: int = 0) -> list[str]:
    return [
        drive.add_file(f"IMG_{number}.jpg", make_jpeg(number, SMALL), folder) for number in range(start, start + count)
    ]


def test_every_picture_comes_once_with_what_drive_says_of_it(drive: Drive, root: str, library: ImageLibrary) -> None:
    below = drive.add_folder("2026", root)
    first = drive.add_file("IMG.jpg", make_jpeg(1, SMALL), root, imageMediaMetadata={"time": "2026:02:28 23:59:58"})
    second = drive.add_file("IMG.jpg", make_jpeg(2, SMALL), root)
    same = drive.add_file("copy.jpg", make_jpeg(1, SMALL), below)
    drive.add_document("plan", root)
    source = folder_of(drive, root, credentials=account_of(drive))
    report = ingest(source, library).report
    assert (report.planned, report.stored, report.duplicate) == (3, 2, 1)
    assert_sound(library)
    images = {row["key"].partition("/")[0]: row for row in images_of(library)}
    assert images.keys() <= {first, second, same}
    extras = {row["extra"]["id"]: row["extra"] for row in images.values()}
    assert {"name": "IMG.jpg", "path": "IMG.jpg", "type": "image/jpeg"}.items() <= extras[second].items()
    if first in images:  # else the copy came first
        assert images[first]["captured_at_source"] == "provider"
    drive.requests.clear()
    again = ingest(source, library).report
    assert (again.planned, again.vanished) == (0, 0)
    assert [request.route for request in drive.requests] == ["token", "changes"]


def test_one_file_that_drive_holds_back_costs_only_itself(drive: Drive, root: str, library: ImageLibrary) -> None:
    pictures = add_pictures(drive, root, 5)
    reasons = ["downloadQuotaExceeded", "cannotDownloadAbusiveFile"]
    for item, reason in zip(pictures, reasons, strict=False):
        drive.script(f"media:{item}", error(403, reason))
    drive.script(f"media:{pictures[2]}", *[html_page(200)] * 9)
    source = folder_of(drive, root, credentials=account_of(drive))
    report = ingest(source, library).report
    assert (report.stored, report.failed, report.quarantined) == (2, 3, 0)
    rows = last_run(library)["files"]
    told = {key.partition("/")[0]: (row["reason"], row["message"]) for key, row in rows.items() if row["reason"]}
    assert {item: reason for item, (reason, _) in told.items()} == dict(
        zip(pictures, ["refused", "forbidden", "html_page"], strict=False)
    )
    assert all(reason in told[item][1] for item, reason in zip(pictures, reasons, strict=False))
    drive.script(f"media:{pictures[2]}")
    healed = ingest(source, library).report  # the feed tells of no change, and they are fetched all the same
    assert (healed.stored, healed.failed) == (3, 0)
    assert_sound(library)


def test_pictures_that_drive_processed_are_kept_with_a_warning(drive: Drive, root: str, library: ImageLibrary) -> None:
    [item] = add_pictures(drive, root, 1)
    served = make_jpeg(7, SMALL)
    drive.script(f"media:{item}", other_bytes(served))
    assert ingest(folder_of(drive, root), library).report.stored == 1
    assert list(visible_files(library).values()) == [served]
    [row] = last_run(library)["files"].values()
    assert "digest" in str(row.get("message") or row.get("warning"))


@pytest.mark.parametrize("make", [key_of, account_of])
def test_the_library_stays_in_step(drive: Drive, root: str, library: ImageLibrary, make: Any) -> None:
    below = drive.add_folder("below", root)
    moved, changed, binned, _ = add_pictures(drive, root, 4)
    source = folder_of(drive, root, credentials=make(drive))
    ingest(source, library)
    drive.change(moved, parent=below)
    drive.change(changed, content=make_jpeg(50, SMALL))
    drive.change(binned, trashed=True)
    add_pictures(drive, below, 1, start=60)
    drive.requests.clear()
    report = ingest(source, library).report
    assert (report.stored, report.vanished, report.failed) == (2, 1, 0)
    assert len(drive.asked("media:")) == 2  # what only moved is not fetched again
    assert_sound(library)


def test_a_large_folder_comes_page_by_page(
    drive: Drive, root: str, library: ImageLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks._drive_walk.PAGE_FILES", 10)
    drive.largest_page = 10
    add_pictures(drive, root, 35)
    source = folder_of(drive, root)
    report = ingest(source, library).report
    assert (report.listed, report.stored) == (35, 35)
    gone = next(iter(drive.contents))
    drive.delete(gone)
    again = ingest(source, library).report  # whole again, since nobody tells an API key what changed
    assert (again.listed, again.planned, again.vanished) == (34, 0, 1)
    assert_sound(library)


def test_a_capped_run_takes_the_rest_next_time(
    drive: Drive, root: str, library: ImageLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks._drive_walk.PAGE_FILES", 10)
    drive.largest_page = 10
    add_pictures(drive, root, 25)
    source = folder_of(drive, root, credentials=account_of(drive))
    assert [ingest(source, library, max_files=15).report.stored for _ in range(3)] == [15, 10, 0]
    assert_sound(library)


KILLED = """
import sys
import blocks._drive_walk as walk
from pathlib import Path
from blocks.google_drive import GoogleDriveCredentials, GoogleDriveFolder
from blocks.library import ImageLibrary
from flows.ingest_google_drive import ingest_google_drive

walk.PAGE_FILES = 10
link, api_url, key, library = sys.argv[1:]
source = GoogleDriveFolder(folder_url=link, credentials=GoogleDriveCredentials(api_key=key), api_url=api_url)
ingest_google_drive(source, ImageLibrary(folder=Path(library)), max_files=None, return_state=True)
"""


def test_a_killed_import_goes_on_without_listing_what_it_had(
    drive: Drive, root: str, library: ImageLibrary, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive.largest_page = 10
    pictures = add_pictures(drive, root, 40)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, drive.link(root), drive.api_url, drive.api_key, str(library.folder)],
        cwd=ROOT,
        env={**os.environ, "PREFECT_API_URL": prefect_api},
        start_new_session=True,
    )
    drive.script(f"media:{pictures[25]}", lambda handler: os.killpg(process.pid, signal.SIGKILL))
    assert process.wait(180) == -signal.SIGKILL
    drive.requests.clear()
    monkeypatch.setattr("blocks._drive_walk.PAGE_FILES", 10)
    report = ingest(folder_of(drive, root), library).report
    assert report.failed == 0
    assert len(images_of(library)) == 40
    assert_sound(library)
    assert len(drive.asked("list:")) == 2  # of four pages two were done
    assert all(request.query.get("pageToken") for request in drive.asked("list:"))
    assert len(drive.asked("media:")) <= 20


def test_a_token_that_is_withdrawn_in_mid_run_is_fetched_anew(drive: Drive, root: str, library: ImageLibrary) -> None:
    pictures = add_pictures(drive, root, 30)

    def withdraw(handler: Any) -> None:
        drive.revoke_tokens()
        handler._check_caller()

    drive.script(f"media:{pictures[20]}", withdraw)
    report = ingest(folder_of(drive, root, credentials=user_of(drive)), library).report
    assert (report.stored, report.failed) == (30, 0)
    assert len(drive.asked("token")) == 2


def test_credentials_that_end_in_mid_run_are_told_and_lose_nothing(
    drive: Drive, root: str, library: ImageLibrary
) -> None:
    add_pictures(drive, root, 3)
    source = folder_of(drive, root, credentials=user_of(drive))
    drive.refresh_token = "another"
    assert "make a new one" in str(ingest(source, library).error)
    drive.refresh_token = source.credentials.refresh_token.get_secret_value()  # type: ignore[union-attr]
    assert ingest(source, library).report.stored == 3


def test_no_secret_is_left_anywhere(drive: Drive, root: str, library: ImageLibrary) -> None:
    pictures = add_pictures(drive, root, 4)
    drive.need_key(root, "0-canary-resource")
    drive.script(f"media:{pictures[1]}", error(403, "downloadQuotaExceeded"))
    link = drive.link(root, resourcekey="0-canary-resource")
    for make in (key_of, account_of, user_of):
        ingest(folder_of(drive, root, credentials=make(drive), folder_url=link), library)
    secrets = [drive.api_key, drive.client_secret, drive.refresh_token, *drive.tokens, "PRIVATE KEY", "canary"]
    told = [path.read_bytes() for path in library.folder.rglob("*") if path.is_file()]
    with library.catalog().reading() as connection:
        told += [str(connection.execute(select(table)).all()).encode() for table in metadata.sorted_tables]
    with get_client(sync_client=True) as client:
        for path in ("flow_runs", "task_runs", "artifacts", "logs"):
            told.append(client._client.post(f"/{path}/filter", json={"limit": 200}).content)
    assert [secret for secret in secrets for text in told if secret.encode() in text] == []


def test_a_link_is_enough_where_default_credentials_are_saved(
    drive: Drive, root: str, library: ImageLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_pictures(drive, root, 2)
    missing = ingest(None, library, folder_url=drive.link(root)).error
    assert isinstance(missing, WrongUse)
    assert "google-drive-credentials/default" in str(missing)
    monkeypatch.setattr(GoogleDriveFolder.model_fields["api_url"], "default", drive.api_url)
    GoogleDriveFolder.model_rebuild(force=True)
    key_of(drive).save("default")
    try:
        report = ingest(None, library, folder_url=drive.link(root), include=["IMG_1*"]).report
    finally:
        GoogleDriveCredentials.delete("default")
        monkeypatch.undo()
        GoogleDriveFolder.model_rebuild(force=True)
    assert (report.listed, report.stored) == (1, 1)
    assert report.source == f"https://drive.google.com/drive/folders/{root}"


def test_a_run_without_a_folder_says_what_to_name(drive: Drive, root: str, library: ImageLibrary) -> None:
    assert "No folder is named" in str(ingest(None, library).error)
    both = ingest(folder_of(drive, root), library, folder_url=drive.link(root)).error
    assert "not both" in str(both)
    other = ingest(None, library, folder_url="https://example.org/folder/").error
    assert "leads to no Google Drive folder" in str(other)


def test_a_rehearsal_touches_nothing(drive: Drive, root: str, library: ImageLibrary) -> None:
    add_pictures(drive, root, 2)
    report = ingest(folder_of(drive, root), library, dry_run=True).report
    assert report.planned == 2
    assert drive.asked("media:") == []
    assert not library.folder.exists()
