"""From a terminal's picture server into the library: found by date and stream, within a budget, each failing alone."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks._catalog_probes import read_probe_figures
from blocks._catalog_queries import list_runs
from blocks._errors import SourceRefused, WrongUse
from blocks._terminal_addresses import find_instants, picture_key
from blocks.library import ImageLibrary
from blocks.terminal_camera import TerminalCamera
from flows.ingest_terminal_camera import ingest_terminal_camera
from tests.flows.ingesting import Ending, assert_sound, images_of, last_run, visible_files
from tests.servers import fault
from tests.servers.terminal_cdn import (
    SOFT_404,
    ZONE,
    TerminalCdn,
    after_a_pause,
    by_the_clock,
    locals_of,
    on_day,
    serve_terminal_cdn,
)

pytestmark = pytest.mark.usefixtures("prefect_api", "without_waiting")

ROOT = Path(__file__).parents[2]
FIRST, SECOND, THIRD = date(2025, 8, 31), date(2025, 9, 1), date(2025, 9, 2)
TAKEN = by_the_clock([FIRST, SECOND, THIRD], step_seconds=1800)
"""One picture in half an hour: 48 a day."""


@pytest.fixture
def cdn() -> Iterator[TerminalCdn]:
    with serve_terminal_cdn() as server:
        yield server


def camera_of(cdn: TerminalCdn, **fields: Any) -> TerminalCamera:
    quick = {"picture_url": cdn.template, "streams": ["in_gate"], "retry_deadline_seconds": 0, "timeout_seconds": 10}
    return TerminalCamera(**quick | fields)


def ingest(camera: TerminalCamera, library: ImageLibrary, *days: date, **options: Any) -> Ending:
    state = ingest_terminal_camera(camera, dates=list(days), library=library, return_state=True, **options)
    return Ending(state)


def learn(camera: TerminalCamera, library: ImageLibrary, taken: list[datetime], day: date) -> None:
    """Bring a day whose times somebody knows."""
    times = locals_of(on_day(taken, day))
    report = ingest(camera, library, day, known_times=times).report
    assert report.stored == len(times) * len(camera.streams)


def keys_of(moments: list[datetime], stream: str = "in_gate") -> set[str]:
    return {picture_key(moment.astimezone(ZONE).replace(tzinfo=None, fold=0), stream) for moment in moments}


def test_a_learned_day_brings_the_next_across_a_months_end_for_every_stream(
    cdn: TerminalCdn, library: ImageLibrary
) -> None:
    streams = ["in_gate", "out_gate"]
    for stream in streams:
        for moment in TAKEN:
            cdn.put(moment, stream)
    camera = camera_of(cdn, streams=streams)
    learn(camera, library, TAKEN, FIRST)
    before = len(cdn.asked("HEAD"))
    report = ingest(camera, library, SECOND, THIRD).report
    assert (str(report.status), report.stored) == ("success", 192)
    assert len(cdn.asked("HEAD")) - before <= 3 * 192 + 1
    assert set(visible_files(library)) == keys_of(TAKEN) | keys_of(TAKEN, "out_gate")
    rows = images_of(library, camera="out_gate")
    assert len(rows) == 144
    assert {(row["captured_at_source"], row["captured_at"][-6:]) for row in rows} == {("camera", "-07:00")}
    assert_sound(library)


def test_a_second_run_asks_for_nothing_and_changes_nothing(cdn: TerminalCdn, library: ImageLibrary) -> None:
    for moment in TAKEN[:90]:  # the camera broke on the second day
        cdn.put(moment, "in_gate")
    camera = camera_of(cdn)
    learn(camera, library, TAKEN, FIRST)
    assert ingest(camera, library, SECOND).report.stored == 42
    before, files = len(cdn.requests), visible_files(library)
    report = ingest(camera, library, FIRST, SECOND).report
    assert (str(report.status), report.unchanged, report.planned) == ("no_new_files", 90, 0)
    asked_again = len(cdn.requests) - before
    assert asked_again <= 3 * 6 + 1  # for what is missing other names are tried, never the same
    assert len(cdn.asked("HEAD")) == len(set(cdn.asked("HEAD"))) + cdn.asked("HEAD").count(cdn.asked("HEAD")[0]) - 1
    assert visible_files(library) == files


def test_figures_of_every_search_are_kept(cdn: TerminalCdn, library: ImageLibrary) -> None:
    for moment in TAKEN:
        cdn.put(moment, "in_gate")
    camera = camera_of(cdn)
    learn(camera, library, TAKEN, FIRST)
    ingest(camera, library, SECOND)
    first, second = read_probe_figures(library.catalog(), camera.source_name, FIRST, SECOND)
    assert (first["date"], first["stream"], first["probes"], first["hits"]) == (FIRST, "in_gate", 48, 48)
    assert (second["expected"], second["hits"]) == (48, 48)
    assert 48 <= second["probes"] <= 144


@pytest.mark.parametrize(("day", "hours"), [(date(2025, 3, 9), 23), (date(2025, 11, 2), 25)])
def test_days_of_changed_clocks_are_whole_and_every_instant_is_right(
    cdn: TerminalCdn, library: ImageLibrary, day: date, hours: int
) -> None:
    before = day - timedelta(days=1)
    taken = by_the_clock([before, day], {7: 1.0, 8: 1.0}, step_seconds=1800, seed=4)
    for moment in taken:
        cdn.put(moment, "in_gate")
    camera = camera_of(cdn)
    learn(camera, library, taken, before)
    assert ingest(camera, library, day).report.status == "success"
    names = keys_of(on_day(taken, day))  # two pictures of one name are one
    assert 2 * hours - 2 <= len(names) <= 2 * hours
    shown = [row for row in images_of(library) if row["key"].startswith(day.isoformat())]
    assert {row["key"] for row in shown} == names
    instants = {datetime.fromisoformat(row["captured_at"]).astimezone(UTC) for row in shown}
    assert instants <= set(on_day(taken, day))
    assert len(instants) == len(names)


def test_a_thumbnail_is_replaced_by_its_picture_when_a_later_run_finds_it(
    cdn: TerminalCdn, library: ImageLibrary
) -> None:
    moment = TAKEN[0]
    [name] = locals_of([moment])
    cdn.put(moment, "in_gate", is_thumbnail=True)
    camera = camera_of(cdn)
    assert ingest(camera, library, FIRST, known_times=[name]).report.stored == 1
    [row] = images_of(library)
    assert row["quality"] == "thumbnail"
    cdn.put(moment, "in_gate")
    with library.catalog().reading() as connection:
        remembered = connection.exec_driver_sql("SELECT answer FROM probes WHERE quality = 'full'").scalar()
    assert remembered == "never"  # so old a picture is not to be expected any more, until the answer expires
    library.catalog().write(lambda connection: connection.exec_driver_sql("UPDATE probes SET expires = 0"))
    report = ingest(camera, library, FIRST, known_times=[name]).report
    assert report.stored == 1
    [row] = images_of(library)
    assert (row["quality"], row["key"]) == ("full", *keys_of([moment]))
    assert_sound(library)
    assert ingest(camera, library, FIRST, known_times=[name]).report.status == "no_new_files"


def test_a_page_in_a_pictures_place_is_no_picture(cdn: TerminalCdn, library: ImageLibrary) -> None:
    for moment in TAKEN:
        cdn.put(moment, "in_gate")
    cdn.absent = fault.status(200, SOFT_404, content_type="image/jpeg")
    camera = camera_of(cdn)
    learn(camera, library, TAKEN, FIRST)
    report = ingest(camera, library, SECOND).report
    assert (str(report.status), report.stored, report.quarantined) == ("success", 48, 0)


def test_a_date_that_fails_costs_only_itself_and_comes_with_the_next_run(
    cdn: TerminalCdn, library: ImageLibrary
) -> None:
    for moment in TAKEN:
        cdn.put(moment, "in_gate")
    camera = camera_of(cdn)
    learn(camera, library, TAKEN, FIRST)
    broken = [cdn.path_of(moment.astimezone(ZONE), "in_gate") for moment in on_day(TAKEN, SECOND)]
    for path in broken:
        cdn.on(path, fault.status(503))
    report = ingest(camera, library, SECOND, THIRD).report
    assert (str(report.status), report.stored) == ("partial", 48)
    assert "1 of 2 dates and streams" in str(report.message)
    assert "2025-09-01 in_gate" in str(report.message)
    assert last_run(library)["status"] == "partial"
    [failed, _] = read_probe_figures(library.catalog(), camera.source_name, SECOND, THIRD)
    assert failed["reason"] == "server_error"
    strict = ingest(camera, library, SECOND, THIRD, strict=True)
    assert strict.state.is_failed()
    for path in broken:
        del cdn._scripts[path]
    assert ingest(camera, library, SECOND, THIRD).report.stored == 48


def test_where_no_date_can_be_searched_the_run_has_failed(cdn: TerminalCdn, library: ImageLibrary) -> None:
    for moment in on_day(TAKEN, FIRST):
        cdn.put(moment, "in_gate")
    camera = camera_of(cdn)
    learn(camera, library, TAKEN, FIRST)
    cdn.absent = fault.status(403)
    ending = ingest(camera, library, SECOND, THIRD)
    assert ending.state.is_failed()
    assert isinstance(ending.error, SourceRefused)
    assert "403" in str(ending.error)
    cdn.absent = fault.status(404)
    for moment in TAKEN:
        cdn.put(moment, "in_gate")
    assert ingest(camera, library, SECOND).report.stored == 48  # a blocked run has remembered no absence


def test_where_nothing_was_learned_the_way_to_learn_is_told(cdn: TerminalCdn, library: ImageLibrary) -> None:
    ending = ingest(camera_of(cdn), library, FIRST)
    assert isinstance(ending.error, WrongUse)
    assert "--method browser" in str(ending.error)
    assert "--time" in str(ending.error)
    assert cdn.requests == []
    cdn.put(TAKEN[0], "in_gate")
    assert ingest(camera_of(cdn), library, FIRST, known_times=locals_of(TAKEN[:1])).report.stored == 1
    assert "Too little" in str(ingest(camera_of(cdn), library, FIRST).error)  # and no silent "nothing new"


def test_the_total_budget_is_kept_over_all_dates_and_what_it_left_comes_later(
    cdn: TerminalCdn, library: ImageLibrary
) -> None:
    for moment in TAKEN:
        cdn.put(moment, "in_gate")
    camera = camera_of(cdn)
    learn(camera, library, TAKEN, FIRST)
    before = len(cdn.asked("HEAD"))
    report = ingest(camera, library, SECOND, THIRD, max_probes=50).report
    assert len(cdn.asked("HEAD")) - before <= 50 + 1  # and one to learn how the server says no
    assert 10 <= report.stored <= 50
    assert ingest(camera, library, SECOND, THIRD).report.stored == 96 - report.stored


def test_so_many_of_a_date_are_the_first_ones(cdn: TerminalCdn, library: ImageLibrary) -> None:
    for moment in TAKEN:
        cdn.put(moment, "in_gate")
    camera = camera_of(cdn)
    learn(camera, library, TAKEN, FIRST)
    before = len(cdn.asked("HEAD"))
    assert ingest(camera, library, SECOND, max_images_per_date=5).report.stored == 5
    assert len(cdn.asked("HEAD")) - before <= 3 * 5 + 1
    assert keys_of(on_day(TAKEN, SECOND)[:5]) <= set(visible_files(library))


def test_a_camera_that_has_to_be_followed_is_followed_day_by_day(cdn: TerminalCdn, library: ImageLibrary) -> None:
    taken = after_a_pause([FIRST, SECOND, THIRD], pause_seconds=1800)
    for moment in taken:
        cdn.put(moment, "in_gate")
    camera = camera_of(cdn)
    learn(camera, library, taken, FIRST)
    report = ingest(camera, library, SECOND, THIRD).report
    assert report.stored >= 0.95 * len([*on_day(taken, SECOND), *on_day(taken, THIRD)])


def test_a_dry_run_finds_and_touches_nothing(cdn: TerminalCdn, library: ImageLibrary) -> None:
    for moment in TAKEN:
        cdn.put(moment, "in_gate")
    camera = camera_of(cdn)
    learn(camera, library, TAKEN, FIRST)
    files, probes = visible_files(library), _count_probes(library)
    fetched = len(cdn.asked("GET"))
    report = ingest(camera, library, SECOND, dry_run=True).report
    assert (str(report.status), report.planned) == ("planned", 48)
    assert len(cdn.asked("GET")) == fetched
    assert len(list_runs(library.catalog())) == 1
    assert (visible_files(library), _count_probes(library)) == (files, probes)
    empty = ImageLibrary(folder=library.folder / "nowhere")
    times = locals_of(on_day(TAKEN, FIRST)[:3])
    assert ingest(camera, empty, FIRST, known_times=times, dry_run=True).report.planned == 3
    assert not empty.folder.exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"start_date": THIRD, "end_date": FIRST}, "before it starts"),
        ({"dates": [date(2999, 1, 1)]}, "in the future"),
        ({"streams": ["out_gate"]}, "no stream 'out_gate'"),
        ({"known_times": ["noon"]}, "is no time"),
    ],
)
def test_wrong_use_is_said_at_once(cdn: TerminalCdn, library: ImageLibrary, options: dict[str, Any], told: str) -> None:
    ending = Ending(ingest_terminal_camera(camera_of(cdn), library=library, return_state=True, **options))
    assert isinstance(ending.error, WrongUse)
    assert told in str(ending.error)
    assert not library.folder.exists()
    assert cdn.requests == []


def test_pictures_of_this_very_day_are_asked_for_again_before_long(cdn: TerminalCdn, library: ImageLibrary) -> None:
    now = datetime.now(UTC)
    today = now.astimezone(ZONE).date()
    taken = by_the_clock([today - timedelta(days=2), today], {7: 1.0}, step_seconds=3600)
    past = [moment for moment in taken if moment < now]
    for moment in past:
        cdn.put(moment, "in_gate")
    camera = camera_of(cdn)
    learn(camera, library, taken, today - timedelta(days=2))
    ingest(camera, library, today - timedelta(days=1), today)
    assert keys_of(past) <= set(visible_files(library))
    future = {path for path in cdn.asked("HEAD") if path.startswith(f"/apm/{today}")}
    assert all(instant <= datetime.now(UTC) for path in future for instant in _instants_of(path))


def _count_probes(library: ImageLibrary) -> int:
    with library.catalog().reading() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM probes").scalar_one())


def _instants_of(path: str) -> list[datetime]:
    local = datetime.fromisoformat(path.rpartition("/")[2][:19])
    return find_instants(local, ZONE)


def test_a_run_killed_in_the_middle_of_its_range_goes_on_and_asks_for_nothing_again(
    prefect_api: str, cdn: TerminalCdn, library: ImageLibrary
) -> None:
    for moment in TAKEN:
        cdn.put(moment, "in_gate")
    camera = camera_of(cdn)
    learn(camera, library, TAKEN, FIRST)
    last = cdn.path_of(on_day(TAKEN, THIRD)[-1].astimezone(ZONE), "in_gate")
    picture = cdn.pictures[last].content
    program = (
        "import sys; from datetime import date; from pathlib import Path\n"
        "from blocks.library import ImageLibrary; from blocks.terminal_camera import TerminalCamera\n"
        "from flows.ingest_terminal_camera import ingest_terminal_camera\n"
        "camera = TerminalCamera(picture_url=sys.argv[1], streams=['in_gate'])\n"
        f"ingest_terminal_camera(camera, dates=[date({SECOND:%Y, %-m, %-d}), date({THIRD:%Y, %-m, %-d})], "
        "library=ImageLibrary(folder=Path(sys.argv[2])), return_state=True)"
    )
    cdn.on(last, _head_then_stall(picture))
    command = [sys.executable, "-c", program, cdn.template, str(library.folder)]
    environment = {**os.environ, "PREFECT_API_URL": prefect_api, "PREFECT_LOGGING_LEVEL": "CRITICAL"}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as run:
        deadline = time.monotonic() + 120
        while not [request for request in cdn.requests_for(last) if request.method == "GET"]:
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        run.kill()
    del cdn._scripts[last]
    before = len(cdn.asked("HEAD"))
    report = ingest(camera, library, SECOND, THIRD).report
    assert report.stored + report.unchanged == 96
    assert set(visible_files(library)) == keys_of(TAKEN)
    assert len(cdn.asked("HEAD")) - before <= 50  # at most the date whose search was not finished
    assert_sound(library)
    assert "running" not in {row["status"] for row in list_runs(library.catalog())}


def _head_then_stall(picture: bytes) -> fault.Answer:
    def answer(exchange: fault.Exchange) -> bool:
        if exchange.request.method == "HEAD":
            exchange.send(fault.head(200, len(picture), content_type="image/jpeg"))
            return True
        return fault.stall(fault.head(200, len(picture), content_type="image/jpeg") + picture[:100])(exchange)

    return answer
