"""Measure a poll that finds nothing new, beside rclone and wget2, of which everything listed is already here.

    python -m tests.benchmarks.bench_poll [--files 10000 1000000] [--limit-seconds 600] [--only NAME …]

A server of our own shows one index page as nginx writes it, made as it is sent, answers HEAD and conditional GETs for
the single files, and counts. The contenders, each a process of its own:

    catchment          what the flow does of a poll, list to catalog, without Prefect's engine and server
    catchment ingest   the whole command, which starts a Prefect server of its own on a database that is made already
    rclone copy        into a folder that has every file in its size and time: a HEAD a file
    rclone, names      the same told to look at names only, which sees no change of a file: one request
    wget2 -N           over the same folder: a conditional GET a file

A peer that takes longer than the limit is stopped; one that reads only the start of the page (wget2 1.99.1: 10 MiB)
ends early. Its line then shows, as scaled, the seconds that all files would take at the rate it had, and its memory
so far. Every poll has to be idle: one that fetches a file, or otherwise does not see all of them, ends the benchmark
with exit code 1. `x` is the time beside catchment's.
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from multiprocessing import Array, Process
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_ingest import Figures, apart, measure, read_cpu_seconds
from tests.servers.http_server import find_free_port

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
A_DAY = 1_440
"""A picture a minute: every file has a time and a size of its own, and all of them lie in the past."""

FILL = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from sqlalchemy import text
from blocks._catalog import Catalog
from blocks._schema import files
from blocks.http_directory import HttpDirectory
from blocks.library import ImageLibrary
source, catalog = HttpDirectory(base_url=sys.argv[1]), ImageLibrary(folder=Path(sys.argv[2])).catalog()
now = datetime.now(UTC)
name = source.source_name
source_id = catalog.ensure_source(name, source.get_block_type_slug(), source.root, now=now)
listing = source.list_files()
catalog.write(lambda c: c.execute(text(
    "INSERT INTO images (sha256, size, format, width, height, orientation, captured_local, captured_witness,"
    " perceptual_hash, brightness, sharpness, storage_key, source_id, key, stored_at)"
    f" WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {len(listing) - 1})"
    " SELECT printf('%064x', i), 60000, 'jpeg', 640, 480, 1, '2024-01-01 00:00:00.000000', 'exif',"
    f" '0', 0.5, 100, 'library/' || i, {source_id}, i, 0 FROM n"
)))
def insert(connection):
    for start in range(0, len(listing), 20_000):
        rows = listing[start : start + 20_000].select("key", "size", "modified", "validator").iter_rows(named=True)
        fixed = dict(source_id=source_id, state="stored", attempts=0, first_seen=now, attempted_at=now, last_seen=now)
        connection.execute(
            files.insert(), [row | fixed | {"sha256": f"{number:064x}"} for number, row in enumerate(rows, start)]
        )
catalog.write(insert)
catalog.close()
"""

POLL = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from blocks._schema import RunStatus
from blocks.http_directory import HttpDirectory
from blocks.library import ImageLibrary
from tasks._lease import hold_lease
from tasks._plan import drop_long_names, make_plan, read_known
library, source, now = ImageLibrary(folder=Path(sys.argv[2])), HttpDirectory(base_url=sys.argv[1]), datetime.now(UTC)
catalog, name = library.catalog(), source.source_name
source_id = catalog.ensure_source(name, source.get_block_type_slug(), source.root, now=now)
with hold_lease(catalog, source_id, name), source.connected():
    run_id = catalog.begin_run(source_id, now=now)
    began = [time.perf_counter()]
    listing = drop_long_names(source.list_files())
    began.append(time.perf_counter())
    known = read_known(library, name)
    began.append(time.perf_counter())
    plan = make_plan(listing, known).take(None)
    began.append(time.perf_counter())
    catalog.plan_run(run_id, listed=plan.listed, planned=plan.planned, unchanged=plan.unchanged,
                     vanished=len(plan.vanished))
    catalog.record_listing(source_id, plan.vanished.to_list(), plan.returned.to_list(), now=datetime.now(UTC))
    catalog.finish_run(run_id, RunStatus.NO_NEW_FILES, now=datetime.now(UTC))
    began.append(time.perf_counter())
steps = ", ".join(f"{step} {end - start:.2f}" for step, start, end in zip(
    ("list", "known", "diff", "write"), began, began[1:]))
print(f"nothing new among {plan.unchanged} listed files ({steps} s)" if plan.planned == 0 else "NOT IDLE")
"""


class CameraDirectory(asyncio.Protocol):
    """Answers for a directory of `files` pictures; `counts` are the requests and the pictures sent whole."""

    def __init__(self, files: int, counts: Any) -> None:
        self._files = files
        self._counts = counts
        self._asked = b""
        self._page: Iterator[bytes] = iter(())
        self._is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *whole, self._asked = (self._asked + data).split(b"\r\n\r\n")
        for request in whole:
            self._counts[0] += 1
            self._answer(*request.split(b"\r\n", 1))

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._send_page()

    def _answer(self, line: bytes, headers: bytes) -> None:
        method, path, _ = line.split(b" ", 2)
        if path == b"/":
            kind = b"Content-Type: text/html; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
            self._transport.write(b"HTTP/1.1 200 OK\r\n" + kind)
            self._page = iter_page(self._files) if method == b"GET" else iter(())
            self._send_page()
            return
        if not path.startswith(b"/IMG_"):
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        size, modified = describe_picture(int(path[5:12]))
        date = formatdate(modified, usegmt=True).encode()
        if b"if-modified-since: " + date.lower() in headers.lower():
            self._transport.write(b"HTTP/1.1 304 Not Modified\r\nLast-Modified: " + date + b"\r\n\r\n")
            return
        told = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\nLast-Modified: %s\r\n\r\n" % (size, date)
        self._transport.write(b"HTTP/1.1 200 OK\r\n" + told)
        if method == b"GET":
            self._counts[1] += 1
            self._transport.write(bytes(size))

    def _send_page(self) -> None:
        for part in self._page:
            self._transport.write(b"%x\r\n%b\r\n" % (len(part), part))
            if self._is_full:
                return


def iter_page(files: int) -> Iterator[bytes]:
    """Yield nginx's page (ngx_http_autoindex_module.c), a day at a time, and its last, empty chunk."""
    yield b"<html>\r\n<head><title>Index of /</title></head>\r\n<body>\r\n<h1>Index of /</h1><hr><pre>"
    yield b'<a href="../">../</a>\r\n'
    for start in range(0, files, A_DAY):
        day = (FIRST + timedelta(minutes=start)).strftime("%d-%b-%Y")
        names = ((number, f"IMG_{number:07}.jpg") for number in range(start, min(files, start + A_DAY)))
        yield "".join(
            f'<a href="{name}">{name}</a>{"":35} {day} {number % A_DAY // 60:02}:{number % 60:02} '
            f"{describe_picture(number)[0]:19}\r\n"
            for number, name in names
        ).encode()
    yield b"</pre><hr></body>\r\n</html>\r\n"
    yield b""


def describe_picture(number: int) -> tuple[int, int]:
    """Return the size of a picture and when it was written, in seconds since 1970."""
    return 50_000 + number % 20_011, int(FIRST.timestamp()) + 60 * number


def serve(port: int, files: int, counts: Any) -> None:
    """Serve until the process is ended."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: CameraDirectory(files, counts), "127.0.0.1", port, backlog=128)
        await server.serve_forever()

    asyncio.run(run())


@dataclass(frozen=True, slots=True)
class Server:
    """The server, by its address, with a look at its counts since the last look: requests, pictures, CPU seconds."""

    url: str
    look: Callable[[], tuple[int, int, float]]


@contextmanager
def serving(files: int) -> Iterator[Server]:
    """Run the server in a process of its own."""
    counts = Array("q", 2, lock=False)
    port = find_free_port()
    process = Process(target=serve, args=(port, files, counts), daemon=True)
    process.start()
    last = [0, 0, 0.0]

    def look() -> tuple[int, int, float]:
        now = [*counts, read_cpu_seconds(process.pid or 0)]
        requests, pictures, cpu = (value - before for value, before in zip(now, last, strict=True))
        last[:] = now
        return int(requests), int(pictures), cpu

    time.sleep(0.5)
    try:
        yield Server(f"http://127.0.0.1:{port}/", look)
    finally:
        process.terminate()
        process.join()


def fill_folder(folder: Path, files: int) -> None:
    """Make every picture with its size and time, as holes that take no room on disk."""
    folder.mkdir()
    os.chdir(folder)
    for number in range(files):
        size, modified = describe_picture(number)
        name = f"IMG_{number:07}.jpg"
        os.mknod(name)
        os.truncate(name, size)
        os.utime(name, (modified, modified))


def find_contenders(url: str, library: Path, complete: Path) -> dict[str, list[str]]:
    """Return the command of every contender that is installed, by name."""
    rclone, wget2 = shutil.which("rclone"), shutil.which("wget2")
    command = [sys.executable, "-c", "from flows.cli import main; main()", "ingest", url, "--library", str(library)]
    contenders = {"catchment": [sys.executable, "-c", POLL, url, str(library)], "catchment ingest": command}
    if rclone:
        copy = [rclone, "copy", ":http:", str(complete), "--http-url", url, "--config", os.devnull, "-v"]
        contenders["rclone, names"] = [*copy, "--http-no-head", "--ignore-existing"]
        contenders["rclone copy"] = copy
    if wget2:
        flags = ["-q", "-r", "-np", "-nd", "-N", "--max-threads", "8", "-A", "jpg"]
        contenders["wget2 -N"] = [wget2, *flags, "-P", str(complete), url]
    return contenders


def compare(files: int, scratch: Path, limit_seconds: float, only: list[str], environment: dict[str, str]) -> list[str]:
    """Print a line a contender and return the names of those whose poll was not idle."""
    busy = []
    library, complete = scratch / "library", scratch / "complete"
    with serving(files) as server:
        contenders = find_contenders(server.url, library, complete)
        chosen = {name: contenders[name] for name in contenders if not only or name in only}
        prepare(server.url, library, complete, files, has_peers=any("catchment" not in name for name in chosen))
        print(f"\n{files:,} listed files")
        titles = ("wall s", "x", "requests", "CPU s", "server's", "peak MB")
        print(f"{'':16} {' '.join(f'{title:>9}' for title in titles)}")
        ours: Figures | None = None
        server.look()
        for name, command in chosen.items():
            took = measure(command, environment, limit_seconds)
            requests, pictures, server_cpu = server.look()
            ours = took if name == "catchment" else ours
            is_idle = pictures == 0 and took.exit_code in {0, -9}
            seconds, note = took.wall, ""
            if "catchment" in name:
                is_idle = is_idle and requests == 1 and f"nothing new among {files} listed" in took.said
                note = took.said
            elif took.exit_code == -9 or (name == "wget2 -N" and requests < files):
                seconds = took.wall * files / max(1, requests)
                note = f"scaled: it saw {requests:,} names in {took.wall:.0f} s"
            elif "rclone" in name:
                is_idle = is_idle and f"Checks: {files} / {files}," in took.said
            if not is_idle:
                busy.append(f"{name} of {files:,}")
                note = f"NOT IDLE, {pictures} fetched: {took.said}"
            times = f"{seconds / ours.wall:9.1f}" if ours else f"{'':9}"
            print(
                f"{name:16} {seconds:9.1f} {times} {requests:9,} {took.cpu:9.1f} {server_cpu:9.1f} {took.peak:9,.0f}"
                f"  {note}",
                flush=True,
            )
    return busy


def prepare(url: str, library: Path, complete: Path, files: int, *, has_peers: bool) -> None:
    """Fill the catalog, and for peers the folder, with every file of the page."""
    filled = measure([sys.executable, "-c", FILL, url, str(library)])
    if filled.exit_code:
        raise RuntimeError(f"the catalog was not filled: {filled.said}")
    if has_peers:
        apart(fill_folder, complete, files)


def make_prefect_database(scratch: Path) -> dict[str, str]:
    """Return an environment for the command with a Prefect database that is made already, once for all its runs."""
    environment = {"PREFECT_HOME": str(scratch / "prefect"), "PREFECT_API_URL": ""}
    with serving(1) as server:
        library = scratch / "first"
        measure([sys.executable, "-c", FILL, server.url, str(library)])
        measure(find_contenders(server.url, library, library)["catchment ingest"], environment)
    return environment


def main() -> None:
    """Print a table for every number of files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--limit-seconds", type=float, default=600)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    busy = []
    with tempfile.TemporaryDirectory(prefix="catchment-bench-") as name:
        environment = make_prefect_database(Path(name))
        for files in options.files:
            scratch = Path(name) / str(files)
            scratch.mkdir()
            busy += compare(files, scratch, options.limit_seconds, options.only, environment)
            apart(shutil.rmtree, scratch)
    if busy:
        sys.exit(f"These polls were not idle: {', '.join(busy)}.")


if __name__ == "__main__":
    main()
