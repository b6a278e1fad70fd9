"""What was organized is never asked for again, teaches the camera its rhythm, and stands in the report."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from blocks.library import ImageLibrary
from blocks.terminal_camera import TerminalCamera
from flows.ingest_terminal_camera import ingest_terminal_camera
from flows.tend_download_tree import tend_download_tree
from tasks._coverage import measure_coverage
from tests.flows.ingesting import Ending, assert_sound
from tests.servers.terminal_cdn import by_the_clock, on_day, serve_terminal_cdn

pytestmark = pytest.mark.usefixtures("prefect_api", "without_waiting")

FIRST, SECOND = date(2025, 9, 1), date(2025, 9, 2)


def test_an_organized_day_is_never_fetched_and_the_next_is_found_by_it(library: ImageLibrary, tmp_path: Path) -> None:
    tree = tmp_path / "downloads"
    tree.mkdir()
    taken = by_the_clock([FIRST, SECOND])
    with serve_terminal_cdn() as cdn:
        camera = TerminalCamera(picture_url=cdn.template, streams=["in_gate"], retry_deadline_seconds=0)
        paths = {moment: cdn.put(moment, "in_gate") for moment in taken}
        for moment in on_day(taken, FIRST):
            name = f"{moment.astimezone(camera.zone):%Y%m%dT%H%M%S}_in_gate.jpg"
            (tree / name).write_bytes(cdn.pictures[paths[moment]].content)
        moved = tend_download_tree(camera, tree, library, move=True, dry_run=False)
        assert (moved.summary.partition(",")[0], list(tree.iterdir())) == (
            f"144 of 144 files were taken into {camera.source_name}",
            [],
        )
        ending = Ending(ingest_terminal_camera(camera, FIRST, SECOND, library=library, return_state=True))
        asked = set(cdn.asked("HEAD") + cdn.asked("GET"))
        assert asked & {paths[moment] for moment in on_day(taken, FIRST)} == set()
    run_id = ending.report.run_id
    now = datetime.now(UTC)
    coverage = measure_coverage(library.catalog(), camera.source_name, run_id, FIRST, SECOND, camera.zone, now=now)
    first, second = coverage.days
    assert (first.already_there, first.downloaded, first.missing, first.probes) == (144, 0, 0, 0)
    assert (second.already_there, second.downloaded) == (0, ending.report.stored)
    assert second.hits >= 0.95 * 144
    assert second.downloaded + (second.missing or 0) == 144
    assert second.probes <= 3 * 144
    assert_sound(library)
