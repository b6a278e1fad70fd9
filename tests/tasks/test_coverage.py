"""A report on some days is computed from the catalog alone, and every picture stands in exactly one of its figures."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from blocks._catalog import Catalog, open_catalog
from blocks._catalog_probes import Search, record_search
from blocks._errors import Reason, SourceUnavailable, WrongUse
from blocks._records import CaptureTime, Outcome, Quality, RemoteFile, TimeWitness, Verdict
from blocks._schema import RunStatus
from blocks._terminal_addresses import find_offset, picture_key
from tasks._coverage import Coverage, measure_coverage
from tests.blocks.catalog_writer import make_facts

LA = ZoneInfo("America/Los_Angeles")
DAY, FORWARD, BACK = date(2025, 9, 1), date(2025, 3, 9), date(2025, 11, 2)
LATER = datetime(2026, 6, 1, tzinfo=UTC)
SOURCE = "terminal-camera/apm"


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with open_catalog(catalog_url) as opened:
        yield opened


def slots(day: date, count: int, *, cadence: int = 600, first: timedelta = timedelta(seconds=7)) -> list[datetime]:
    """The instants of a day's first pictures."""
    start = datetime(day.year, day.month, day.day, tzinfo=LA).astimezone(UTC)
    return [start + first + timedelta(seconds=cadence * number) for number in range(count)]


def picture(
    instant: datetime, stream: str = "in_gate", *, quality: Quality = Quality.FULL, content: str | None = None
) -> Outcome:
    local = instant.astimezone(LA).replace(tzinfo=None, fold=0)
    key = picture_key(local, stream)
    sha256 = hashlib.sha256((content or f"{key} {quality} {instant}").encode()).hexdigest()
    facts = replace(
        make_facts(0, camera=stream),
        sha256=sha256,
        size=1_000,
        captured=CaptureTime(local, find_offset(instant, LA), TimeWitness.CAMERA),
        quality=quality,
    )
    return Outcome(
        RemoteFile(key),
        Verdict.STORED,
        sha256=sha256,
        size=facts.size,
        facts=facts,
        storage_key=f"{key}~{sha256[:16]}",
        thumbnail_key=f"thumbnails/{sha256}",
    )


def lost(instant: datetime, stream: str = "in_gate", reason: Reason = Reason.TIMEOUT) -> Outcome:
    local = instant.astimezone(LA).replace(tzinfo=None)
    return Outcome(RemoteFile(picture_key(local, stream)), Verdict.FAILED, reason, "It did not come.")


def run(catalog: Catalog, outcomes: Iterable[Outcome], *, at: datetime = LATER, source: str = SOURCE) -> int:
    """Record a run of one batch that took ten seconds."""
    source_id = catalog.ensure_source(source, "terminal-camera", "https://cdn.example/apm", now=at)
    run_id = catalog.begin_run(source_id, now=at)
    said = list(outcomes)
    catalog.plan_run(run_id, listed=len(said), planned=len(said))
    catalog.record_outcomes(run_id, source_id, said, now=at + timedelta(seconds=10))
    catalog.finish_run(run_id, RunStatus.SUCCESS, now=at + timedelta(seconds=10))
    return run_id


def report(catalog: Catalog, start: date = DAY, end: date | None = None, **options: Any) -> Coverage:
    wanted: dict[str, Any] = {"run_id": None, "zone": LA, "now": LATER} | options
    asked = (wanted.pop("source", SOURCE), wanted.pop("run_id"), start, end or start, wanted.pop("zone"))
    return measure_coverage(catalog, *asked, **wanted)


def test_every_picture_stands_in_exactly_one_figure(catalog: Catalog) -> None:
    taken = slots(DAY, 144)
    first = run(catalog, map(picture, taken[:50]))
    second = run(
        catalog,
        [
            *map(picture, taken[50:100]),
            *(picture(instant, quality=Quality.THUMBNAIL) for instant in taken[100:110]),
            *map(lost, taken[110:115]),
            lost(taken[115], reason=Reason.NOT_FOUND),
        ],
        at=LATER + timedelta(hours=1),
    )
    [day] = report(catalog, run_id=second, streams=["in_gate"], cadence=600).days
    assert (day.already_there, day.downloaded, day.thumbnails) == (50, 50, 10)
    assert day.failed == {"timeout": 5, "not_found": 1}
    assert (day.found, day.missing, day.expected, day.requested) == (116, 34, 144, 144)
    assert day.success_rate == 100 / 144
    assert (day.bytes, day.seconds) == (60_000, pytest.approx(10.0))
    [earlier] = report(catalog, run_id=first, cadence=600).days
    assert (earlier.already_there, earlier.downloaded, earlier.bytes) == (50, 50, 50_000)
    [whole] = report(catalog, cadence=600).days
    assert (whole.already_there, whole.downloaded, whole.bytes) == (0, 100, 110_000)
    assert whole.seconds == pytest.approx(20.0)


def test_a_gap_is_one_interval_in_the_terminals_own_time(catalog: Catalog) -> None:
    taken = slots(DAY, 144)
    run(catalog, map(picture, taken[:60] + taken[72:]))
    coverage = report(catalog)
    assert coverage.cadences == {"in_gate": 600.0}
    [told] = coverage.to_dict()["gaps"]
    assert told == {
        "stream": "in_gate",
        "from": "2025-09-01T09:50:07-07:00",
        "to": "2025-09-01T12:00:07-07:00",
        "seconds": 7800.0,
        "missing": 12,
    }
    assert "1 gap, 12 missing" in coverage.summary


@pytest.mark.parametrize(("day", "hours"), [(FORWARD, 23), (BACK, 25)])
def test_days_of_23_and_25_hours_have_no_false_gap_and_hide_none(catalog: Catalog, day: date, hours: int) -> None:
    taken = [instant + timedelta(seconds=number % 37) for number, instant in enumerate(slots(day, hours * 6))]
    run(catalog, map(picture, taken))
    [whole] = report(catalog, day).days
    assert (whole.found, whole.missing, whole.expected) == (hours * 6, 0, hours * 6)
    other = "terminal-camera/other"
    run(catalog, (picture(instant, content=f"{instant}") for instant in taken[:6] + taken[12:]), source=other)
    [cut] = report(catalog, day, source=other, cadence=600).days
    assert (cut.found, cut.missing, cut.expected) == (hours * 6 - 6, 6, hours * 6)


def test_failed_pictures_of_a_changing_day_are_dated_by_their_names(catalog: Catalog) -> None:
    taken = [instant + timedelta(seconds=number % 37) for number, instant in enumerate(slots(BACK, 150))]
    run(catalog, [*map(picture, taken[:75]), *map(lost, taken[75:])])
    [day] = report(catalog, BACK).days
    assert (day.downloaded, sum(day.failed.values()), day.missing) == (75, 75, 75)


def test_a_camera_that_hangs_is_no_gap_although_its_bytes_are_the_same(catalog: Catalog) -> None:
    taken = slots(DAY, 144)
    stuck = [picture(instant, content="the same") for instant in taken[40:60]]
    frozen = [stuck[0], *(replace(one, verdict=Verdict.DUPLICATE, facts=stuck[0].facts) for one in stuck[1:])]
    run(catalog, [*map(picture, taken[:40]), *frozen, *map(picture, taken[60:])])
    [day] = report(catalog).days
    assert (day.downloaded, day.missing) == (144, 0)


def test_a_stream_that_sent_nothing_is_a_gap_and_a_date_that_failed_says_why(catalog: Catalog) -> None:
    run_id = run(catalog, map(picture, slots(DAY, 144)))
    source_id = catalog.ensure_source(SOURCE, "terminal-camera", "https://cdn.example/apm", now=LATER)
    for stream, probes, hits, error in (
        ("in_gate", 200, 144, None),
        ("out_gate", 9, 0, SourceUnavailable("The page did not load within 30 s.")),
    ):
        search = Search(stream, DAY, "direct", expected=144, found=hits, probes=probes, hits=hits, error=error)
        record_search(catalog, run_id, source_id, search, now=LATER)
    coverage = report(catalog, streams=["in_gate", "out_gate"], cadence=600)
    fine, silent = coverage.days
    assert (fine.probes, fine.hits, fine.hit_rate, fine.message) == (200, 144, 0.72, None)
    assert (silent.requested, silent.success_rate, silent.message) == (144, 0.0, "The page did not load within 30 s.")
    [gap] = coverage.gaps
    assert (gap.stream, len(gap.missing), gap.end - gap.start) == ("out_gate", 144, timedelta(days=1))
    assert coverage.total.requested == 288
    # Nothing is known of its rhythm where nobody says it: it is listed all the same.
    assert report(catalog).irregular == ["out_gate"]


def test_a_cadence_is_learned_from_the_days_before(catalog: Catalog) -> None:
    run(catalog, (picture(instant) for day in range(5) for instant in slots(DAY - timedelta(days=day + 1), 144)))
    [day] = report(catalog).days
    assert (day.found, day.missing, day.requested) == (0, 144, 144)


def test_dates_that_nobody_asked_for_are_neither_listed_nor_missing(catalog: Catalog) -> None:
    run(catalog, map(picture, slots(DAY, 144)))
    third = DAY + timedelta(days=2)
    coverage = report(catalog, DAY, third, days=[DAY, third])
    assert [(day.day, day.missing) for day in coverage.days] == [(DAY, 0), (third, 144)]
    [gap] = coverage.gaps
    assert (gap.end - gap.start, len(gap.missing)) == (timedelta(days=1), 144)


def test_today_is_measured_up_to_now(catalog: Catalog) -> None:
    taken = slots(DAY, 60)
    run(catalog, map(picture, taken))
    [day] = report(catalog, now=taken[-1] + timedelta(seconds=100)).days
    assert (day.found, day.missing) == (60, 0)
    [day] = report(catalog, now=taken[-1] + timedelta(hours=1, seconds=1)).days
    assert day.missing == 6


def test_any_source_whose_images_name_a_camera_has_a_report(catalog: Catalog) -> None:
    """Camera health: of a source without a zone, by the cameras' own clocks."""
    source_id = catalog.ensure_source("http-directory/reserve", "http-directory", "https://reserve.example/", now=LATER)
    run_id = catalog.begin_run(source_id, now=LATER)
    said = []
    for number in [*range(30), *range(40, 96)]:
        local = datetime(2025, 9, 1) + timedelta(minutes=15 * number)  # noqa: DTZ001
        facts = make_facts(number, camera="HAMELN3")
        facts = replace(facts, captured=CaptureTime(local, None, TimeWitness.EXIF))
        key = f"Aufnahme_{local:%y%m%d_%H%M}_HAMELN3.jpg"
        kept = {"sha256": facts.sha256, "size": facts.size, "facts": facts, "storage_key": key}
        said.append(Outcome(RemoteFile(key), Verdict.STORED, **kept))
    said.append(Outcome(RemoteFile("Aufnahme_250901_0745_HAMELN3.jpg"), Verdict.FAILED, Reason.TIMEOUT, "late"))
    catalog.record_outcomes(run_id, source_id, said, now=LATER)
    coverage = report(catalog, source="http-directory/reserve", zone=None)
    [day] = coverage.days
    assert (day.stream, day.downloaded, day.failed, day.missing) == ("HAMELN3", 86, {"timeout": 1}, 10)
    assert [gap["from"] for gap in coverage.to_dict()["gaps"]] == ["2025-09-01T07:15:00"]


def test_an_unknown_source_is_said_to_be_so(catalog: Catalog) -> None:
    run(catalog, [])
    with pytest.raises(WrongUse, match="terminal-camera/apm"):
        report(catalog, source="terminal-camera/nobody")
    with pytest.raises(WrongUse, match="earlier date first"):
        report(catalog, DAY, DAY - timedelta(days=1))
