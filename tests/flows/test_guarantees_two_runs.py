"""Two runs of one source at once: the second steps aside at once, and death gives the source back."""

import contextvars
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from blocks._catalog_queries import list_runs
from blocks.library import ImageLibrary
from tests.flows.ingesting import Site, assert_sound, directory, images_of, index_page, ingest, visible_files
from tests.pictures import make_jpeg
from tests.servers import fault
from tests.servers.fault import Exchange, FaultServer

pytestmark = pytest.mark.usefixtures("without_waiting")

T = TypeVar("T")

PROGRAM = """
import sys
from pathlib import Path
from blocks.http_directory import HttpDirectory
from blocks.library import ImageLibrary
from flows.ingest_http_directory import ingest_http_directory
ingest_http_directory(HttpDirectory(base_url=sys.argv[1]), ImageLibrary(folder=Path(sys.argv[2])), max_files=None)
"""


class Gate:
    """An answer that waits until it is let through; `reached` is set when the first request stands before it."""

    def __init__(self, answer: fault.Answer) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self._answer = answer

    def __call__(self, exchange: Exchange) -> bool:
        self.reached.set()
        while not self.open.wait(0.02):
            if exchange.stopped.is_set():
                return False
        return self._answer(exchange)


@contextmanager
def in_thread(work: Callable[[], T]) -> Iterator[Future[T]]:
    """Do `work` in a thread with this one's Prefect settings."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(contextvars.copy_context().run, work)


def make_gated_source(faults: FaultServer) -> Gate:
    gate = Gate(fault.whole(make_jpeg(1)))
    faults.on("/", index_page(["a.jpg", "b.jpg"]))
    faults.on("/a.jpg", gate)
    faults.on("/b.jpg", fault.whole(make_jpeg(2)))
    return gate


def test_the_second_of_two_runs_in_one_process_is_skipped_at_once(
    prefect_api: str, faults: FaultServer, library: ImageLibrary
) -> None:
    gate = make_gated_source(faults)
    source = directory(faults.url, timeout_seconds=60)
    with in_thread(lambda: ingest(source, library)) as first:
        assert gate.reached.wait(30)
        requests = len(faults.requests_for("/"))
        second = ingest(directory(faults.url), library)
        assert not first.done()
        gate.open.set()
        assert first.result(30).report.stored == 2
    assert (second.state.name, second.state.type.value, second.report.status) == ("Skipped", "COMPLETED", "skipped")
    assert len(faults.requests_for("/")) == requests
    assert ingest(source, library).report.status == "no_new_files"
    assert_sound(library)


def test_a_run_killed_in_another_process_gives_the_source_back_at_once_and_the_next_one_finishes(
    prefect_api: str, faults: FaultServer, library: ImageLibrary
) -> None:
    gate = make_gated_source(faults)
    environment = {**os.environ, "PREFECT_API_URL": prefect_api, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", PROGRAM, faults.url, str(library.folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert gate.reached.wait(60)
        source = directory(faults.url)
        assert ingest(source, library).report.status == "skipped"
        process.kill()
        process.wait()
    gate.open.set()
    started = time.monotonic()
    ending = ingest(source, library)
    assert time.monotonic() - started < 20
    assert ending.report.stored + ending.report.unchanged == 2
    assert [run["status"] for run in list_runs(library.catalog())] == ["success", "skipped", "interrupted"]
    assert len(images_of(library)) == 2
    assert_sound(library)


def test_the_same_bytes_from_two_sources_at_once_are_one_image(
    prefect_api: str, site: Site, faults: FaultServer, library: ImageLibrary
) -> None:
    names = [f"{number}.jpg" for number in range(8)]
    faults.on("/", index_page([f"other-{name}" for name in names]))
    for number, name in enumerate(names):
        site.put(name, make_jpeg(number))
        faults.on(f"/other-{name}", fault.whole(make_jpeg(number)))
    with in_thread(lambda: ingest(site.source(layout="one/{name}"), library)) as first:
        second = ingest(directory(faults.url, layout="two/{name}"), library).report
        reports = [first.result(60).report, second]
    assert sum(report.stored for report in reports) == sum(report.duplicate for report in reports) == 8
    assert len(visible_files(library)) == len(images_of(library)) == 8
    assert_sound(library)
