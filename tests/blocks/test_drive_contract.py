"""What Google's own client gets from a Drive, ours gets: from the test's Drive, and from Google's where there are keys.

Against the real service, with credentials from the environment:

    CATCHMENT_TEST_DRIVE_FOLDER=https://drive.google.com/drive/folders/…   CATCHMENT_TEST_DRIVE_API_KEY=…
"""

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError
from googleapiclient.http import MediaIoBaseDownload
from pydantic import SecretStr

from blocks._drive_links import parse_folder_link
from blocks._errors import CatchmentError
from blocks.google_drive import GoogleDriveCredentials, GoogleDriveFolder
from tests.blocks.drive_folder import files_of, folder_of
from tests.pictures import make_jpeg
from tests.servers.drive import Drive, error, serve_drive

FOLDER_VARIABLE, KEY_VARIABLE = "CATCHMENT_TEST_DRIVE_FOLDER", "CATCHMENT_TEST_DRIVE_API_KEY"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder, seen by Google's client and by ours."""

    root: str
    theirs: Any
    ours: GoogleDriveFolder


@pytest.fixture
def drive() -> Iterator[Drive]:
    with serve_drive() as server:
        yield server


@pytest.fixture(params=["local", "google"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A folder with pictures: the test's own, or the one that the environment names."""
    if request.param == "google":
        link, key = os.environ.get(FOLDER_VARIABLE), os.environ.get(KEY_VARIABLE)
        if not link or not key:
            pytest.skip(f"{FOLDER_VARIABLE} and {KEY_VARIABLE} are not set")
        credentials = GoogleDriveCredentials(api_key=SecretStr(key))
        root = parse_folder_link(link).id
        with open_theirs(key) as theirs:
            yield Place(root, theirs, GoogleDriveFolder(folder_url=link, credentials=credentials))
        return
    drive: Drive = request.getfixturevalue("drive")
    root = fill(drive)
    with open_theirs(drive.api_key, f"{drive.api_url}/") as theirs:
        yield Place(root, theirs, folder_of(drive, root))


def open_theirs(key: str, endpoint: str | None = None) -> Any:
    options = {"api_endpoint": endpoint} if endpoint else None
    return build("drive", "v3", static_discovery=True, developerKey=key, client_options=options)


def fill(drive: Drive) -> str:
    drive.largest_page = 3
    root = drive.add_folder("cameras")
    below = drive.add_folder("it's 2026\\03", root)
    for number in range(7):
        drive.add_file(f"IMG_{number}.jpg", make_jpeg(number, (64, 48)), root if number % 2 else below)
    drive.add_document("plan", root)
    return root


def list_with_theirs(service: Any, folder: str) -> Iterator[dict[str, Any]]:
    request = service.files().list(
        q=f"'{folder}' in parents and trashed=false",
        fields="nextPageToken,files(id,name,mimeType,size,md5Checksum)",
        pageSize=1000,
        supportsAllDrives=True,
        includeItemsFromAllDrives=True,
    )
    while request is not None:
        answer = request.execute()
        for item in answer["files"]:
            if item["mimeType"].endswith(".folder"):
                yield from list_with_theirs(service, item["id"])
            elif "md5Checksum" in item:
                yield item
        request = service.files().list_next(request, answer)


def download_with_theirs(service: Any, item: str) -> bytes:
    content = io.BytesIO()
    download = MediaIoBaseDownload(
        content, service.files().get_media(fileId=item, supportsAllDrives=True), chunksize=1000
    )
    done = False
    while not done:
        _, done = download.next_chunk()
    return content.getvalue()


def test_both_list_the_same_files(place: Place) -> None:
    theirs = {item["id"]: (item["name"], int(item["size"])) for item in list_with_theirs(place.theirs, place.root)}
    ours = {file.key.partition("/")[0]: (file.name, file.size) for file in files_of(place.ours)}
    wanted = {item: told for item, told in theirs.items() if place.ours.is_wanted(f"{item}/{told[0]}")}
    assert ours == wanted


def test_both_download_the_same_bytes(place: Place, tmp_path: Path) -> None:
    for file in files_of(place.ours)[:3]:
        fetched = place.ours.download(file, tmp_path / "picture")
        theirs = download_with_theirs(place.theirs, file.key.partition("/")[0])
        assert fetched.sha256 == hashlib.sha256(theirs).hexdigest()
        assert fetched.size == len(theirs)
        assert fetched.warning is None


def test_the_official_client_follows_changes_there(drive: Drive) -> None:
    root = drive.add_folder("cameras")
    drive.tokens["token"] = float("inf")
    with open_theirs(drive.api_key, f"{drive.api_url}/") as service:
        start = service.changes().getStartPageToken(supportsAllDrives=True)
        start.headers["authorization"] = "Bearer token"
        token = start.execute()["startPageToken"]
        added = drive.add_file("a.jpg", make_jpeg(), root)
        drive.delete(added)
        asked = service.changes().list(
            pageToken=token, fields="newStartPageToken,changes(fileId,removed,file(id,name))"
        )
        asked.headers["authorization"] = "Bearer token"
        answer = asked.execute()
    assert answer["changes"] == [{"fileId": added, "removed": True}]
    assert answer["newStartPageToken"] != token


@pytest.mark.parametrize(
    ("status", "reason"), [(403, "downloadQuotaExceeded"), (403, "cannotDownloadAbusiveFile"), (404, "notFound")]
)
def test_refusals_are_of_the_form_that_the_official_client_reads(
    drive: Drive, tmp_path: Path, status: int, reason: str
) -> None:
    root = drive.add_folder("cameras")
    picture = drive.add_file("a.jpg", make_jpeg(), root)
    source = folder_of(drive, root)
    [file] = files_of(source)
    drive.script(f"media:{picture}", error(status, reason), error(status, reason))
    with open_theirs(drive.api_key, f"{drive.api_url}/") as service, pytest.raises(HttpError) as theirs:
        download_with_theirs(service, picture)
    assert theirs.value.status_code == status
    assert theirs.value.error_details[0]["reason"] == reason
    with pytest.raises(CatchmentError, match=reason):
        source.download(file, tmp_path / "picture")
