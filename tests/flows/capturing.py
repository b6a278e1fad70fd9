"""Run captures of live cameras in this process, and look at what came of them."""

import contextvars
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

from blocks._catalog_queries import Row, iter_stored_images, list_runs
from blocks._frame_spool import FrameSpool
from blocks.library import ImageLibrary
from blocks.rtsp_camera import RtspCamera
from flows.capture_rtsp_camera import capture_rtsp_camera
from tasks.capture import _name_spool
from tasks.streams import STREAMS_LIMIT
from tests.flows.ingesting import Ending
from tests.servers.rtsp import read_counter

PATIENCE = 90.0


def camera_at(url: str, **fields: Any) -> RtspCamera:
    """Return a camera that is not waited for long."""
    return RtspCamera(**{"url": url, "open_timeout_seconds": 20, "read_timeout_seconds": 20} | fields)


def capture(camera: RtspCamera, library: ImageLibrary, **options: Any) -> Ending:
    """Run the flow in this process; without options a second of all frames that come."""
    given = {"mode": "continuous", "duration_seconds": 1, "fps": 30, "return_state": True} | options
    return Ending(capture_rtsp_camera(camera, library, **given))


@contextmanager
def in_threads(works: Sequence[Callable[[], Ending]]) -> Iterator[list[Future[Ending]]]:
    """Do every work in a thread of its own, with this one's Prefect settings."""
    with ThreadPoolExecutor(len(works)) as pool:
        yield [pool.submit(contextvars.copy_context().run, work) for work in works]


def wait_until(is_so: Callable[[], object], what: str, *, seconds: float = PATIENCE, every: float = 0.05) -> None:
    """Wait until `is_so()`, looked at `every` so many seconds, or fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"{what} did not come in {seconds:g} s"
        time.sleep(every)


def spool_of(camera: RtspCamera, library: ImageLibrary) -> FrameSpool:
    """Return the spool where a camera's frames wait."""
    return FrameSpool(library.spool_folder(_name_spool(camera)))


def stored_frames(library: ImageLibrary) -> list[Row]:
    """Return the catalog's images, in the order they were taken, each with the `number` that its picture shows."""
    rows = [dict(row) for row in iter_stored_images(library.catalog())]
    for row in rows:
        content = np.frombuffer(library.storage().read_bytes(row["storage_key"]), np.uint8)
        row["number"] = read_counter(cv2.imdecode(content, cv2.IMREAD_COLOR))
    return sorted(rows, key=lambda row: str(row["storage_key"]).rpartition("/")[2])


def shown_numbers(library: ImageLibrary) -> list[int]:
    """Return the numbers of the stored pictures in the order they were taken; none of them unreadable."""
    numbers = [row["number"] for row in stored_frames(library)]
    assert None not in numbers
    return numbers


def assert_none_twice(numbers: Sequence[int]) -> None:
    """No picture was stored twice, and none before an earlier one."""
    assert list(numbers) == sorted(set(numbers))


def newest_run(library: ImageLibrary) -> Row:
    """Return what the catalog says of the newest run."""
    [run] = list_runs(library.catalog(), limit=1)
    return run


def set_streams_limit(limit: int) -> None:
    """Let so many streams be open at once, and none be counted as open."""
    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(STREAMS_LIMIT, GlobalConcurrencyLimitUpdate(limit=limit, active_slots=0))


def count_open_streams() -> int:
    """Return how many places of the limit are taken."""
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(STREAMS_LIMIT).active_slots
