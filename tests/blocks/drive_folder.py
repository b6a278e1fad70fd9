"""Sources that take from a Drive of the test's own."""

from collections.abc import Iterator
from typing import Any

from pydantic import SecretStr

from blocks._records import Listing, Page, RemoteFile, iter_files
from blocks.google_drive import GoogleDriveCredentials, GoogleDriveFolder
from tests.servers.drive import Drive, make_service_account


def key_of(drive: Drive) -> GoogleDriveCredentials:
    """Return the API key: for folders that anyone may see."""
    return GoogleDriveCredentials(api_key=SecretStr(drive.api_key))


def account_of(drive: Drive) -> GoogleDriveCredentials:
    """Return a service account, to which Drive tells changes."""
    return GoogleDriveCredentials(service_account_info=make_service_account(drive))


def user_of(drive: Drive, **fields: Any) -> GoogleDriveCredentials:
    """Return a user's refresh token."""
    given = {
        "client_id": "cameras.apps.googleusercontent.com",
        "client_secret": SecretStr(drive.client_secret),
        "refresh_token": SecretStr(drive.refresh_token),
        "token_url": f"{drive.url}/token",
    }
    return GoogleDriveCredentials(**given | fields)


def folder_of(drive: Drive, root: str, **fields: Any) -> GoogleDriveFolder:
    """Return a folder that is seen with the API key and not tried twice, unless told otherwise."""
    given = {
        "folder_url": drive.link(root),
        "credentials": key_of(drive),
        "api_url": drive.api_url,
        "timeout_seconds": 20,
        "retry_deadline_seconds": 0,
    }
    return GoogleDriveFolder(**given | fields)


def keys(listing: Listing) -> list[str]:
    """Return the keys of a listing, sorted."""
    return sorted(listing["key"])


def names(listing: Listing) -> list[str]:
    """Return the names that a listing's keys end with, sorted."""
    return sorted(key.partition("/")[2] for key in listing["key"])


def files_of(source: GoogleDriveFolder) -> list[RemoteFile]:
    """Return what the source lists."""
    return list(iter_files(source.list_files()))


def pages_from(source: GoogleDriveFolder, mark: str | None = None) -> Iterator[Page]:
    """Yield the pages from `mark` on to the last."""
    page = source.list_page(mark)
    yield page
    while not page.is_last:
        page = source.list_page(page.mark)
        yield page


def last_mark(source: GoogleDriveFolder, mark: str | None = None) -> str:
    """Return where the pages from `mark` on end."""
    *_, page = pages_from(source, mark)
    assert page.mark is not None
    return page.mark
