"""What Dropbox's own client accepts, ours is tested against: both list and download the same, side by side.

Against the local server always. Against Dropbox itself where the environment has credentials:

    CATCHMENT_TEST_DROPBOX_APP_KEY, …_APP_SECRET     of an app with the permissions that the README names
    CATCHMENT_TEST_DROPBOX_LINK, …_LINK_PASSWORD     a shared folder with a few pictures
    CATCHMENT_TEST_DROPBOX_REFRESH_TOKEN, …_PATH     a folder of one's own with a few pictures
"""

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from blocks._errors import SourceRefused
from blocks._records import iter_files
from blocks.dropbox_folder import DropboxCredentials, DropboxFolder
from tests.servers import dropbox_api
from tests.servers.dropbox_api import APP_KEY, APP_SECRET, REFRESH_TOKEN, DropboxServer, serve_dropbox

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4
HOSTS = ("DROPBOX_API_HOST", "DROPBOX_API_CONTENT_HOST", "DROPBOX_API_NOTIFY_HOST")


@dataclass(frozen=True, slots=True)
class Vendor:
    """Dropbox's own client, and a folder both clients are pointed at."""

    sdk: Any
    options: Mapping[str, Any]
    source: DropboxFolder
    link: str | None = None
    password: str | None = None
    path: str = ""

    def client(self, **options: Any) -> Any:
        return self.sdk.Dropbox(**{**self.options, **options})

    def list_files(self) -> dict[str, tuple[int, str]]:
        """Return size and content hash of every picture, by the path below the folder, as their client tells."""
        return dict(self._walk(self.client(), self.path))

    def _walk(self, client: Any, folder: str) -> Iterator[tuple[str, tuple[int, str]]]:
        shared = self.sdk.files.SharedLink(self.link, self.password) if self.link else None
        answer = client.files_list_folder(folder, limit=2000, shared_link=shared)
        while True:
            for entry in answer.entries:
                place = f"{folder}/{entry.name}"
                if isinstance(entry, self.sdk.files.FolderMetadata):
                    yield from self._walk(client, place)
                elif self.source.is_wanted(place):
                    yield place[len(self.path) :].lower().lstrip("/"), (entry.size, entry.content_hash)
            if not answer.has_more:
                return
            answer = client.files_list_folder_continue(answer.cursor)

    def download(self, path: str) -> bytes:
        if self.link is None:
            _, response = self.client().files_download(f"{self.path}/{path}")
        else:
            _, response = self.client().sharing_get_shared_link_file(self.link, f"/{path}", self.password)
        return bytes(response.content)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DropboxServer, Any, dict[str, Any]]]:
    """The server over TLS, the SDK imported with its hosts set to it, and the options of its client."""
    folder = tmp_path_factory.mktemp("tls")
    with serve_dropbox(folder) as server, pytest.MonkeyPatch.context() as patch:
        for name in HOSTS:
            patch.setenv(name, server.tls_url.removeprefix("https://"))
        for name in [module for module in sys.modules if module.partition(".")[0] == "dropbox"]:
            patch.delitem(sys.modules, name)
        sdk = pytest.importorskip("dropbox")
        session = sdk.create_session(ca_certs=str(folder / "ca.pem"))
        session.trust_env = False
        patch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        yield server, sdk, {"session": session, "max_retries_on_error": 0, "max_retries_on_rate_limit": 0}
        session.close()
        for name in [module for module in sys.modules if module.partition(".")[0] == "dropbox"]:
            patch.delitem(sys.modules, name)


@pytest.fixture(params=["own", "shared", "locked"])
def vendor(request: pytest.FixtureRequest, local: tuple[DropboxServer, Any, dict[str, Any]]) -> Vendor:
    server, sdk, options = local
    server.reset()
    server.page_size = 3
    for number in range(8):
        server.put(f"/Cam/IMG_{number}.JPG", JPEG + bytes([number]))
        server.put(f"/Cam/Garten ü/{number % 2}/Bild {number}.jpg", JPEG * number)
    server.put("/Cam/notes.txt", b"no picture")
    return make_vendor(server, sdk, options, str(request.param))


def make_vendor(server: DropboxServer, sdk: Any, options: dict[str, Any], way: str) -> Vendor:
    addresses = {"api_url": server.tls_url, "content_url": server.tls_url, "retry_deadline_seconds": 0}
    app: dict[str, Any] = {"app_key": APP_KEY, "app_secret": APP_SECRET}
    if way == "own":
        account = app | {"refresh_token": REFRESH_TOKEN}
        source = DropboxFolder(path="/Cam", credentials=DropboxCredentials(**account), **addresses)
        theirs = app | {"oauth2_refresh_token": REFRESH_TOKEN}
        return Vendor(sdk, options | theirs, source, path="/Cam")
    password = "canary-password" if way == "locked" else None
    link = server.share("/Cam", password=password)
    given = {"folder_url": link, "link_password": password, "credentials": DropboxCredentials(**app)}
    return Vendor(sdk, options | app, DropboxFolder(**given | addresses), link, password)


def compare(vendor: Vendor, tmp_path: Path) -> int:
    """List and download by both clients and return how many files there are."""
    expected = vendor.list_files()
    with vendor.source.connected():
        listed = list(iter_files(vendor.source.list_files()))
        assert {file.key.lower(): (file.size, file.validator) for file in listed} == expected
        for file in listed:
            fetched = vendor.source.download(file, tmp_path / "ours")
            theirs = vendor.download(file.key)
            assert fetched.sha256 == hashlib.sha256(theirs).hexdigest()
            assert dropbox_api.hash_content(theirs) == file.validator
    return len(listed)


def test_both_clients_list_and_download_the_same_from_the_local_server(vendor: Vendor, tmp_path: Path) -> None:
    assert compare(vendor, tmp_path) == 16


def test_both_clients_see_the_same_changes(local: tuple[DropboxServer, Any, dict[str, Any]]) -> None:
    server, sdk, options = local
    server.reset()
    for number in range(4):
        server.put(f"/Cam/{number}.jpg", JPEG)
    vendor = make_vendor(server, sdk, options, "own")
    client = vendor.client()
    cursor = client.files_list_folder("/Cam", recursive=True).cursor
    page = vendor.source.list_page(None)
    server.put("/Cam/new/5.jpg", JPEG)
    server.remove("/Cam/1.jpg")
    entries = client.files_list_folder_continue(cursor).entries
    gone = [entry.name for entry in entries if isinstance(entry, sdk.files.DeletedMetadata)]
    came = [entry.path_lower for entry in entries if isinstance(entry, sdk.files.FileMetadata)]
    changes = vendor.source.list_page(page.mark)
    assert list(changes.gone) == gone == ["1.jpg"]
    assert [f"/cam/{key}" for key in changes.files["key"]] == came == ["/cam/new/5.jpg"]


def test_the_local_servers_refusals_are_those_that_the_vendors_client_knows(
    local: tuple[DropboxServer, Any, dict[str, Any]],
) -> None:
    server, sdk, options = local
    server.reset()
    server.put("/Cam/a.jpg", JPEG)
    own, shared = (make_vendor(server, sdk, options, way) for way in ("own", "shared"))
    client = own.client()
    with pytest.raises(sdk.exceptions.ApiError) as told:
        client.files_list_folder("/Missing")
    assert told.value.error.get_path().is_not_found()
    cursor = client.files_list_folder("/Cam").cursor
    server.forget_cursors()
    with pytest.raises(sdk.exceptions.ApiError) as told:
        client.files_list_folder_continue(cursor)
    assert told.value.error.is_reset()
    with pytest.raises(sdk.exceptions.BadInputError):
        client.files_list_folder("/Cam", recursive=True, shared_link=sdk.files.SharedLink(shared.link))
    with pytest.raises(sdk.exceptions.BadInputError):
        client.files_list_folder("/")
    server.fault("files/list_folder", dropbox_api.limit_rate(7))
    with pytest.raises(sdk.exceptions.RateLimitError) as busy:
        client.files_list_folder("/Cam")
    assert busy.value.backoff == 7
    server.revoke(shared.link or "")
    with pytest.raises(sdk.exceptions.ApiError) as told:
        shared.client().sharing_get_shared_link_metadata(shared.link)
    assert told.value.error.is_shared_link_not_found()
    poor = own.client(oauth2_access_token=server.issue_token(frozenset()), oauth2_refresh_token=None)
    with pytest.raises(sdk.exceptions.AuthError) as denied:
        poor.files_list_folder("/Cam")
    assert denied.value.error.get_missing_scope().required_scope == "files.metadata.read"
    stale = server.issue_token()
    server.expire_tokens()
    with pytest.raises(sdk.exceptions.AuthError) as denied:
        own.client(oauth2_access_token=stale, oauth2_refresh_token=None).files_list_folder("/Cam")
    assert denied.value.error.is_expired_access_token()
    assert len(client.files_list_folder("/Cam").entries) == 1  # theirs renews its token, too
    with pytest.raises(sdk.exceptions.PathRootError):
        client.with_path_root(sdk.common.PathRoot.namespace_id("9")).files_list_folder("/Cam")
    with pytest.raises(sdk.exceptions.AuthError):
        own.client(oauth2_refresh_token="revoked").files_list_folder("/Cam")


def test_a_server_whose_certificate_nobody_vouches_for_is_not_talked_to(
    local: tuple[DropboxServer, Any, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, sdk, options = local
    server.reset()
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(SourceRefused, match="certificate"):
        make_vendor(server, sdk, options, "own").source.list_files()
    assert server.calls == []


def real(name: str) -> str:
    value = os.environ.get(f"CATCHMENT_TEST_DROPBOX_{name}")
    if not value:
        pytest.skip(f"needs Dropbox itself: CATCHMENT_TEST_DROPBOX_{name} is not set")
    return value


def test_both_clients_list_and_download_the_same_of_a_shared_folder_from_dropbox_itself(tmp_path: Path) -> None:
    link, app = real("LINK"), {"app_key": real("APP_KEY"), "app_secret": real("APP_SECRET")}
    password = os.environ.get("CATCHMENT_TEST_DROPBOX_LINK_PASSWORD")
    secret = SecretStr(password) if password else None
    source = DropboxFolder(folder_url=SecretStr(link), link_password=secret, credentials=DropboxCredentials(**app))
    assert compare(Vendor(pytest.importorskip("dropbox"), app, source, link, password), tmp_path) > 0


def test_both_clients_list_and_download_the_same_of_an_own_folder_from_dropbox_itself(tmp_path: Path) -> None:
    path, token = real("PATH"), real("REFRESH_TOKEN")
    app = {"app_key": real("APP_KEY"), "app_secret": real("APP_SECRET")}
    source = DropboxFolder(path=path, credentials=DropboxCredentials(refresh_token=SecretStr(token), **app))
    options = {**app, "oauth2_refresh_token": token}
    vendor = Vendor(pytest.importorskip("dropbox"), options, source, path=path.rstrip("/"))
    assert compare(vendor, tmp_path) > 0
    [nothing] = [source.list_page(source.list_page(None).mark)]
    assert nothing.is_start is False
