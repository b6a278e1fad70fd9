"""Measure captures of many cameras at once: RTSP over loopback to frames in the library and its catalog.

    python -m tests.benchmarks.bench_capture [--cameras 11] [--limit 10] [--seconds 30] [--fps 1] [--codec h264]

The cameras are one server's, small pictures ten times a second; every capture is a flow run in a thread of this one
process, as many open at once as the concurrency limit allows. Printed are, for each capture, when its first and last
frame were taken, how many were captured, dropped and stored, and in the end how many streams were open at most and
what CPU time it took. Ends with exit code 1 where a frame was lost, stored twice, or too many streams were open.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

# Prefect reads these when it is imported.
os.environ.update(PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1", PREFECT_LOGGING_LEVEL="ERROR")

from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from blocks._catalog_queries import list_runs
from blocks.library import ImageLibrary
from tasks.streams import ensure_streams_limit
from tests.flows.capturing import (
    camera_at,
    capture,
    count_open_streams,
    in_threads,
    set_streams_limit,
    stored_frames,
    wait_until,
)
from tests.servers.rtsp import serve_rtsp


def main() -> int:
    """Run the captures, print what came of them, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=11)
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--fps", type=float, default=1)
    parser.add_argument("--codec", default="h264", choices=["h264", "mjpeg"])
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="catchment-bench-") as folder,
        prefect_test_harness(server_startup_timeout=90),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
        serve_rtsp() as server,
    ):
        ensure_streams_limit()
        set_streams_limit(given.limit)
        library = ImageLibrary(folder=Path(folder))
        library.catalog()
        cameras = [
            camera_at(server.add(f"/camera-{number}", codec=given.codec, fps=10), camera_id=f"camera-{number:02}")
            for number in range(given.cameras)
        ]
        works = [partial(capture, camera, library, duration_seconds=given.seconds, fps=given.fps) for camera in cameras]
        most_open: list[int] = []
        began = time.monotonic()
        with in_threads(works) as endings:
            wait_until(
                lambda: most_open.append(count_open_streams()) or all(ending.done() for ending in endings),
                "the end of all captures",
                seconds=20 * given.seconds + 600,
                every=0.5,
            )
        seconds = time.monotonic() - began
        wanted = round(given.seconds * given.fps)
        is_good = max(most_open) <= given.limit
        runs = {run["source"]: run for run in list_runs(library.catalog(), limit=None)}
        frames = stored_frames(library)
        for camera in cameras:
            own = [row for row in frames if row["storage_key"].split("/")[4] == camera.camera]
            numbers = [row["number"] for row in own]
            run = runs[camera.source_name]
            if run["details"] is None:
                print(f"{camera.camera} {run['status']} {run['message']}")
                is_good = False
                continue
            is_whole = run["stored"] == len(set(numbers)) == len(numbers) == wanted
            is_good = is_good and is_whole
            times = [row["storage_key"].rpartition("/")[2][9:15] for row in own] or ["-"]
            counts = {name: run["details"][name] for name in ("seen", "captured", "dropped", "waiting")}
            print(
                f"{camera.camera} {run['status']} {times[0]}-{times[-1]} {run['stored']} stored of {wanted}, {counts}"
            )
        usage = resource.getrusage(resource.RUSAGE_SELF)
        print(
            f"{seconds:.1f} s, at most {max(most_open)} streams open, {usage.ru_utime + usage.ru_stime:.1f} s of CPU "
            "in this process, the cameras' own included"
        )
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
