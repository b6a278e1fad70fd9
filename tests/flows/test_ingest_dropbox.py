"""From Dropbox folders into the library: each picture once, in step with the folder, and no secret anywhere else."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from pydantic import SecretStr

from blocks.dropbox_folder import DropboxCredentials, DropboxFolder
from blocks.library import ImageLibrary
from flows.ingest_dropbox import ingest_dropbox
from tests.flows.commands import Command
from tests.flows.ingesting import Ending, assert_sound, images_of, last_run
from tests.flows.test_guarantees_secrets import as_bytes, read_catalog, read_folder, read_what_prefect_knows
from tests.pictures import HTML_PAGE, cut, make_jpeg
from tests.servers import dropbox_api
from tests.servers.dropbox_api import APP_KEY, APP_SECRET, LONG_AGO, REFRESH_TOKEN, DropboxServer, serve_dropbox

pytestmark = pytest.mark.usefixtures("prefect_api", "without_waiting")

ROOT = Path(__file__).parents[2]
DOWNLOADS = ("files/download", "sharing/get_shared_link_file")


@pytest.fixture(scope="module")
def running() -> Iterator[DropboxServer]:
    with serve_dropbox() as server:
        yield server


@pytest.fixture
def server(running: DropboxServer) -> DropboxServer:
    running.reset()
    return running


def dropbox_folder(url: str, **fields: Any) -> DropboxFolder:
    """Return a folder, at the server behind `url`, that does not wait long."""
    secrets = {"app_key": APP_KEY, "app_secret": SecretStr(APP_SECRET)}
    if "path" in fields:
        secrets["refresh_token"] = SecretStr(REFRESH_TOKEN)
    given = {"api_url": url, "content_url": url, "retry_deadline_seconds": 0, "timeout_seconds": 20}
    return DropboxFolder(**{"credentials": DropboxCredentials(**secrets)} | given | fields)


def ingest(source: DropboxFolder | None, library: ImageLibrary | None, **options: Any) -> Ending:
    return Ending(ingest_dropbox(source, library, **{"max_files": None, "return_state": True} | options))


def downloads(server: DropboxServer) -> int:
    return sum(server.count(route) for route in DOWNLOADS)


def test_a_shared_folder_comes_whole_and_once(server: DropboxServer, library: ImageLibrary) -> None:
    server.put("/Cam/Garden/owl.jpg", make_jpeg(1))
    item = server.put("/Cam/Garden/Deep/owl.jpg", make_jpeg(2))
    server.put("/Cam/again.jpg", make_jpeg(1))
    server.put("/Cam/broken.jpg", cut(make_jpeg(3)))
    server.put("/Cam/page.jpg", HTML_PAGE)
    server.put("/Cam/notes.txt", b"no picture")
    source = dropbox_folder(server.url, folder_url=server.share("/Cam"))
    report = ingest(source, library).report
    assert (report.listed, report.stored, report.duplicate, report.quarantined) == (5, 2, 1, 2)
    assert_sound(library)
    [image] = [row for row in images_of(library) if row["key"] == "garden/deep/owl.jpg"]
    assert {name: image["extra"][name] for name in ("provider", "id", "name", "path")} == {
        "provider": "dropbox",
        "id": item.id,
        "name": "owl.jpg",
        "path": "/Garden/Deep/owl.jpg",
    }
    fetched = downloads(server)
    assert ingest(source, library).report.planned == 0
    assert downloads(server) == fetched == 5


def test_a_folder_of_ones_own_is_kept_in_step_by_its_changes(server: DropboxServer, library: ImageLibrary) -> None:
    for number in range(4):
        server.put(f"/Cam/{number}.jpg", make_jpeg(number))
    source = dropbox_folder(server.url, path="/Cam")
    assert ingest(source, library).report.stored == 4
    server.put("/Cam/0.jpg", make_jpeg(0), modified=LONG_AGO.replace(year=2020))  # only touched
    server.put("/Cam/1.jpg", make_jpeg(11))
    server.put("/Cam/new/5.jpg", make_jpeg(5))
    server.remove("/Cam/2.jpg")
    before, fetched = len(server.calls), downloads(server)
    report = ingest(source, library).report
    assert (report.listed, report.stored, report.unchanged, report.vanished) == (3, 2, 1, 1)
    assert downloads(server) == fetched + 2
    assert "files/list_folder" not in server.routes()[before:]
    assert [row["key"] for row in images_of(library, status="vanished")] == ["2.jpg"]
    server.remove("/Cam/new")
    assert ingest(source, library).report.vanished == 1
    assert ingest(source, library).report.status == "no_new_files"
    assert_sound(library)


def test_a_failed_file_is_tried_again_although_nothing_changed(server: DropboxServer, library: ImageLibrary) -> None:
    for number in range(3):
        server.put(f"/Cam/{number}.jpg", make_jpeg(number))
    source = dropbox_folder(server.url, path="/Cam")
    refusal = dropbox_api.answer_with(409, dropbox_api.refuse("path", "restricted_content").body)
    server.fault("files/download", refusal)
    report = ingest(source, library).report
    assert (report.stored, report.failed) == (2, 1)
    [failed] = images_of(library, status="failed")
    assert (failed["reason"], "restricted content" in failed["message"]) == ("forbidden", True)
    assert ingest(source, library).report.stored == 1
    assert_sound(library)


def test_a_token_that_expires_in_mid_run_costs_no_file(server: DropboxServer, library: ImageLibrary) -> None:
    for number in range(12):
        server.put(f"/Cam/{number}.jpg", make_jpeg(number))
    server.page_size = 5
    expire = dropbox_api.before(server.expire_tokens)
    server.fault("files/download", None, None, expire)
    server.fault("files/list_folder/continue", None, expire)
    report = ingest(dropbox_folder(server.url, path="/Cam"), library).report
    assert (report.stored, report.failed) == (12, 0)
    assert server.count("oauth2/token") == 3
    assert_sound(library)


def test_a_file_whose_hash_is_wrong_is_never_stored(server: DropboxServer, library: ImageLibrary) -> None:
    server.put("/Cam/a.jpg", make_jpeg(1))
    server.put("/Cam/b.jpg", make_jpeg(2))
    source = dropbox_folder(server.url, folder_url=server.share("/Cam"))
    server.items["/cam/a.jpg"] = dropbox_api.Item(
        "/Cam/a.jpg", "id:wrong", make_jpeg(1), "0123456789abc", extra={"content_hash": "0" * 64}
    )
    report = ingest(source, library).report
    assert (report.stored, report.failed) == (1, 1)
    [failed] = images_of(library, status="failed")
    assert (failed["key"], failed["reason"]) == ("a.jpg", "digest_mismatch")
    assert_sound(library)


@pytest.mark.parametrize("way", ["own", "shared"])
def test_a_killed_import_goes_on_without_listing_what_it_had_finished(
    server: DropboxServer, library: ImageLibrary, prefect_api: str, way: str
) -> None:
    """Three pages of four folders; the kill comes when the third is asked for, and two are stored."""
    for number in range(12):
        server.put(f"/Cam/{number // 4}/{number}.jpg", make_jpeg(number))
    server.page_size = 4 if way == "shared" else 6
    link = server.share("/Cam")
    place: dict[str, Any] = {"path": "/Cam"} if way == "own" else {"folder_url": link}
    reached, released = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        released.wait(120)

    route, goods = ("files/list_folder/continue", 1) if way == "own" else ("files/list_folder", 3)
    server.fault(route, *[None] * goods, dropbox_api.before(hold))
    program = (
        "import sys, json; from pathlib import Path\n"
        "import blocks._dropbox_listing as listing; listing.MOST_REQUESTS = 1\n"
        "from tests.flows.test_ingest_dropbox import *\n"
        "ingest(dropbox_folder(sys.argv[1], **json.loads(sys.argv[3])), ImageLibrary(folder=Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", program, server.url, str(library.folder), json.dumps(place)]
    environment = {**os.environ, "PREFECT_API_URL": prefect_api}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as run:
        deadline = time.monotonic() + 200
        while not reached.wait(0.1):
            assert run.poll() is None
            assert time.monotonic() < deadline
        run.kill()
    released.set()
    stored = len(images_of(library))
    assert 0 < stored < 12
    before, fetched = len(server.calls), downloads(server)
    source = dropbox_folder(server.url, **place)
    assert ingest(source, library).report.stored == 12 - stored
    assert downloads(server) == fetched + 12 - stored
    again = [call for call in server.calls[before:] if call.route == "files/list_folder"]
    assert [call.argument["path"] for call in again] == ([] if way == "own" else ["/0"])
    assert len(images_of(library)) == 12
    assert_sound(library)


def test_max_files_leaves_the_rest_for_the_next_run(server: DropboxServer, library: ImageLibrary) -> None:
    for number in range(7):
        server.put(f"/Cam/{number}.jpg", make_jpeg(number))
    server.page_size = 2
    source = dropbox_folder(server.url, path="/Cam")
    assert [ingest(source, library, max_files=3).report.stored for _ in range(3)] == [3, 3, 1]
    assert_sound(library)


def test_a_source_that_does_not_let_us_in_fails_the_run_with_what_to_do(
    server: DropboxServer, library: ImageLibrary
) -> None:
    server.put("/Cam/a.jpg", make_jpeg(1))
    ending = ingest(dropbox_folder(server.url, folder_url=server.share("/Cam", password="canary")), library)
    assert ending.state.is_failed()
    assert "set link_password" in str(ending.error)
    assert last_run(library)["status"] == "failed"


def test_the_flow_takes_a_link_a_saved_folder_or_the_one_named_default(
    server: DropboxServer, library: ImageLibrary
) -> None:
    server.put("/Cam/a.jpg", make_jpeg(1))
    server.put("/Cam/sub/b.jpg", make_jpeg(2))
    source = dropbox_folder(server.url, folder_url=server.share("/Cam"))
    both = ingest(source, library, folder_url=SecretStr("https://www.dropbox.com/sh/a/b"))
    assert "not both" in str(both.error)
    assert "No folder is named" in str(ingest(None, library).error)
    assert "no Dropbox folder" in str(ingest(None, library, folder_url=SecretStr("https://example.org/")).error)
    assert "Dropbox Credentials named default" in str(
        ingest(None, library, folder_url=SecretStr("https://www.dropbox.com/sh/a/b")).error
    )
    try:
        source.save("default", overwrite=True)
        assert ingest(None, library, recurse_depth=0).report.stored == 1
        assert ingest(None, library, include=["SUB/*"]).report.stored == 1
        assert {row["source"] for row in images_of(library)} == {"dropbox/default"}
    finally:
        DropboxFolder.delete("default")


@pytest.mark.usefixtures("with_api")
def test_the_command_line_takes_a_saved_folder_and_a_link(
    server: DropboxServer, catchment: Command, tmp_path: Path
) -> None:
    server.put("/Cam/a.jpg", make_jpeg(1))
    link = server.share("/Cam")
    said = catchment("ingest", link, "--library", tmp_path / "library")
    assert (said.code, said.out) == (2, "")
    assert "Dropbox Credentials named default" in said.err
    assert "canary" not in said.err
    said = catchment(
        "ingest", "https://www.dropbox.com/scl/fi/abc/a.jpg?rlkey=canary", "--library", tmp_path / "library"
    )
    assert (said.code, "one file" in said.err, "canary" in said.err) == (2, True, False)
    try:
        DropboxCredentials(app_key=APP_KEY, app_secret=SecretStr(APP_SECRET)).save("of-cli", overwrite=True)
        (tmp_path / "link").write_text(link)
        options = {"folder-url-file": tmp_path / "link", "credentials": "dropbox-credentials/of-cli"}
        addresses = {"api-url": server.url, "content-url": server.url}
        given = [str(part) for name, value in (options | addresses).items() for part in (f"--{name}", value)]
        said = catchment("sources", "add", "dropbox", "of-cli", *given)
        assert (said.code, said.err) == (0, "")
        said = catchment("ingest", "dropbox/of-cli", "--library", tmp_path / "library")
        assert said.code == 0, said.err
        said = catchment("images", "--source", "dropbox/of-cli", "--library", tmp_path / "library", "--format", "json")
        [row] = said.rows
        assert (row["key"], row["source"]) == ("a.jpg", "dropbox/of-cli")
        assert "canary" not in catchment("sources", "show", "dropbox/of-cli").out
    finally:
        DropboxFolder.delete("of-cli")
        DropboxCredentials.delete("of-cli")


def test_no_key_of_a_link_and_no_credential_is_anywhere_but_in_its_block(
    server: DropboxServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("", "prefect", "prefect.flow_runs", "prefect.task_runs", "httpx", "httpcore", "httpcore.http11"):
        caplog.set_level(logging.DEBUG, name)
    library = ImageLibrary(folder=tmp_path / "library")
    for number in range(3):
        server.put(f"/Cam/{number}.jpg", make_jpeg(number))
    locked = server.share("/Cam", password="canary-password-5d1e")
    sources = [
        dropbox_folder(server.url, folder_url=locked, link_password="canary-password-5d1e"),
        dropbox_folder(server.url, folder_url=server.share("/Cam", is_old=True)),
        dropbox_folder(server.url, path="/Cam"),
        dropbox_folder(server.url, folder_url=locked, link_password="canary-wrong-5d1e"),
        dropbox_folder(server.url, path="/Cam", credentials=DropboxCredentials(access_token="canary-dead-5d1e")),
    ]
    denied = dropbox_api.answer_with(409, dropbox_api.refuse("shared_link_access_denied").body)
    server.fault("sharing/get_shared_link_file", denied)
    endings = [ingest(source, library) for source in sources]
    assert [ending.state.is_completed() for ending in endings] == [True, True, True, False, False]
    try:
        for number, source in enumerate(sources[:3]):
            source.save(f"canary-block-{number}", overwrite=True)
        shared = server.shares[locked]
        secrets = [
            *(url.split("/")[-1].partition("?")[0] for url in server.shares),
            *(url.partition("rlkey=")[2].partition("&")[0] for url in server.shares if "rlkey=" in url),
            *server.tokens,
            *(APP_SECRET, REFRESH_TOKEN, shared.password or "", "canary-wrong-5d1e", "canary-dead-5d1e"),
        ]
        await_logs("shared link")
        everything: list[tuple[str, str | bytes]] = [
            ("logs", "\n".join(record.getMessage() + str(record.exc_info) for record in caplog.records)),
            ("states", repr([(ending.state, ending.state.result(raise_on_failure=False)) for ending in endings])),
            ("blocks", "".join(f"{source!r}{source}{source.model_dump_json()}" for source in sources)),
            *read_what_prefect_knows(),
            *read_folder(tmp_path),
            *read_catalog(library),
        ]
    finally:
        for number in range(3):
            DropboxFolder.delete(f"canary-block-{number}")
    sent = "".join(f"{call.argument}{call.headers}" for call in server.calls)
    assert [word for word in secrets if word not in sent and word not in {APP_SECRET, REFRESH_TOKEN}] == []
    found = {place: [word for word in secrets if word.encode() in as_bytes(text)] for place, text in everything}
    assert {place: words for place, words in found.items() if words} == {}


def await_logs(word: str) -> None:
    """Wait until Prefect's server has a log line with `word`: logs are sent every two seconds."""
    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while word not in client._client.post("/logs/filter", json={"limit": 200, "sort": "TIMESTAMP_DESC"}).text:
            assert time.monotonic() < deadline
            time.sleep(0.2)
