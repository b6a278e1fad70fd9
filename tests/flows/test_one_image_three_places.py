"""The same picture in a Google Drive, a Dropbox and a web directory is one image with three provenance rows."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from blocks._catalog_queries import describe_image
from blocks.dropbox_folder import DropboxCredentials, DropboxFolder
from blocks.google_drive import GoogleDriveCredentials, GoogleDriveFolder
from blocks.library import ImageLibrary
from flows.ingest_dropbox import ingest_dropbox
from flows.ingest_google_drive import ingest_google_drive
from flows.ingest_http_directory import ingest_http_directory
from tests.flows.ingesting import Ending, Site, assert_sound, images_of, visible_files
from tests.pictures import make_jpeg
from tests.servers.drive import serve_drive
from tests.servers.dropbox_api import APP_KEY, APP_SECRET, serve_dropbox

pytestmark = pytest.mark.usefixtures("prefect_api", "without_waiting")

PICTURE = make_jpeg(1)


def test_a_picture_in_three_places_is_one_image_with_three_provenance_rows(site: Site, library: ImageLibrary) -> None:
    site.put("gate/owl.jpg", PICTURE)
    with serve_drive() as drive, serve_dropbox() as dropbox:
        shared = drive.add_folder("Shared")
        drive.add_file("Eule.jpg", PICTURE, shared)
        dropbox.put("/Cam/Garden/IMG_0001.JPG", PICTURE)
        places: list[tuple[Callable[..., Any], Any]] = [
            (
                ingest_google_drive,
                GoogleDriveFolder(
                    folder_url=drive.link(shared),
                    credentials=GoogleDriveCredentials(api_key=SecretStr(drive.api_key)),
                    api_url=drive.api_url,
                ),
            ),
            (
                ingest_dropbox,
                DropboxFolder(
                    folder_url=SecretStr(dropbox.share("/Cam")),
                    credentials=DropboxCredentials(app_key=APP_KEY, app_secret=SecretStr(APP_SECRET)),
                    api_url=dropbox.url,
                    content_url=dropbox.url,
                ),
            ),
            (ingest_http_directory, site.source(recurse_depth=1)),
        ]
        for _ in range(2):  # the second time finds nothing new anywhere
            for flow, source in places:
                Ending(flow(source, library, max_files=None, return_state=True)).report  # noqa: B018 - fails unless well
    [image] = images_of(library)
    told = describe_image(library.catalog(), image["sha256"])
    rows = {row["source"]: row["key"] for row in told["provenance"]}
    assert set(rows) == {source.source_name for _, source in places}
    assert [row["is_current"] for row in told["provenance"]] == [True] * 3
    assert {key.rpartition("/")[2] for key in rows.values()} == {"Eule.jpg", "IMG_0001.JPG", "owl.jpg"}
    for _, source in places:
        [seen] = images_of(library, source=source.source_name)
        assert (seen["sha256"], seen["key"]) == (image["sha256"], rows[source.source_name])
    assert list(visible_files(library).values()) == [PICTURE]
    assert_sound(library)
