"""Run the flow of a source in this process, and look at what came of it."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.states import State

from blocks._catalog_queries import Row, describe_run, iter_stored_images, list_images, list_runs
from blocks._layout import is_hidden
from blocks.http_directory import HttpDirectory
from blocks.library import ImageLibrary
from blocks.remote_folder import RemoteFolder
from blocks.source import ImageSource
from flows.ingest_http_directory import ingest_http_directory
from flows.ingest_remote_folder import ingest_remote_folder
from tasks._report import IngestReport
from tests.servers import fault
from tests.servers.http_server import HttpServer

LONG_AGO = datetime(2026, 3, 1, 10, 20, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Site:
    """A folder that is a directory of a web server."""

    folder: Path
    url: str
    server: HttpServer

    def put(self, name: str, content: bytes, modified: datetime = LONG_AGO) -> Path:
        """Write or replace a file; by default its time is long past, so that only what a test changes differs."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (modified.timestamp(), modified.timestamp()))
        return path

    def requests(self) -> list[str]:
        """Return the paths below this folder that were asked for, in order."""
        folder = self.url.removeprefix(self.server.url.rstrip("/"))
        paths = [line.split(" ")[1] for line in self.server.requests()]
        return [path.removeprefix(folder) for path in paths if path.startswith(folder)]

    def source(self, **fields: Any) -> HttpDirectory:
        """Return this folder as a source."""
        return directory(self.url, **fields)


def directory(url: str, **fields: Any) -> HttpDirectory:
    """Return a source that does not wait long for a server."""
    return HttpDirectory(**{"base_url": url, "timeout_seconds": 10, "retry_deadline_seconds": 0} | fields)


def folder_source(folder: Path, **fields: Any) -> RemoteFolder:
    """Return a folder of this machine as a source that takes files however new they are."""
    return RemoteFolder(**{"url": str(folder), "settle_seconds": 0} | fields)


def index_page(names: Iterable[str], *, date: str = "01-Mar-2026 10:20", size: int | str = "-") -> fault.Answer:
    """Answer with a directory listing of `names` in nginx's manner."""
    rows = "".join(f'<a href="{name}">{name}</a> {date} {size}\n' for name in names)
    head = '<html><head><title>Index of /</title></head><body><h1>Index of /</h1><hr><pre><a href="../">../</a>'
    return fault.whole(f"{head}\n{rows}</pre><hr></body></html>".encode(), content_type="text/html")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a flow ended."""

    state: State[Any]

    @property
    def report(self) -> IngestReport:
        """The report it ended with; anything else fails the test."""
        result = self.state.result(raise_on_failure=False)
        assert isinstance(result, IngestReport), result
        return result

    @property
    def error(self) -> BaseException:
        """The error it ended with; anything else fails the test."""
        result = self.state.result(raise_on_failure=False)
        assert isinstance(result, BaseException), result
        return result


def ingest(source: ImageSource, library: ImageLibrary | None, **options: Any) -> Ending:
    """Run the flow for this kind of source in this process; without `max_files` it takes all."""
    flow = ingest_remote_folder if isinstance(source, RemoteFolder) else ingest_http_directory
    return Ending(flow(source, library, **{"max_files": None, "return_state": True} | options))


def images_of(library: ImageLibrary, **filters: Any) -> list[Row]:
    """Return what the catalog says of images, or with a `status` of files."""
    return list_images(library.catalog(), **filters, limit=None)


def last_run(library: ImageLibrary) -> Row:
    """Return what the catalog says of the newest run, `files` by key."""
    [run] = list_runs(library.catalog(), limit=1)
    files = describe_run(library.catalog(), run["run_id"])["files"]
    assert run["planned"] == run["stored"] + run["duplicate"] + run["quarantined"] + run["failed"] == len(files)
    return {**run, "files": {row["key"]: row for row in files}}


def visible_files(library: ImageLibrary) -> dict[str, bytes]:
    """Return every file in the library's folder that is not catchment's own."""
    root = library.folder
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {key: path.read_bytes() for key, path in found.items() if not is_hidden(key)}


def assert_sound(library: ImageLibrary) -> None:
    """Every image is one whole file where the catalog says, with a thumbnail; nothing else is there, half or whole."""
    catalogued = {row["storage_key"]: row for row in iter_stored_images(library.catalog())}
    assert {key: hashlib.sha256(content).hexdigest() for key, content in visible_files(library).items()} == {
        key: row["sha256"] for key, row in catalogued.items()
    }
    thumbnails = {path.relative_to(library.folder).as_posix() for path in library.folder.rglob("thumbnails/*/*")}
    assert thumbnails == {row["thumbnail_key"] for row in catalogued.values()}
    assert [path for path in library.folder.rglob("*") if ".part" in path.name] == []
    assert list((library.folder / ".catchment" / "staging").glob("*/*")) == []
