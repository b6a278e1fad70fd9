"""What people read from a catalog: images, attempts, runs and sources, found by index whatever its size."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from operator import attrgetter
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from blocks import _catalog_queries
from blocks._catalog import Catalog, open_catalog
from blocks._catalog_queries import (
    describe_image,
    describe_run,
    iter_images,
    iter_run_files,
    iter_run_thumbnails,
    iter_stored_images,
    list_images,
    list_run_failures,
    list_runs,
    list_sources,
)
from blocks._errors import Reason, WrongUse
from blocks._schema import RunStatus
from tests.blocks.catalog_writer import NOW, begin, duplicate, failed, make_facts, quarantined, stored

HOUR = timedelta(hours=1)


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with open_catalog(catalog_url) as opened:
        yield opened


@pytest.fixture
def filled(catalog: Catalog) -> Catalog:
    """Two sources; images 1-4, the second also seen in the other source; a failure, a bad picture, one gone."""
    north = catalog.ensure_source("north", "http", "http://north.example/", "north gate", "Ann", now=NOW)
    south = catalog.ensure_source("south", "http", "http://south.example/", "south gate", now=NOW)
    run_id = catalog.begin_run(north, "flow-run-1", now=NOW)
    said = [stored(1), stored(2), stored(3, facts=make_facts(3, camera="other", offset_minutes=None)), failed("f.jpg")]
    catalog.record_outcomes(run_id, north, said, now=NOW)
    catalog.finish_run(run_id, RunStatus.PARTIAL, now=NOW + HOUR)
    run_id = catalog.begin_run(south, now=NOW)
    said = [duplicate(2, "copy.jpg"), stored(4), quarantined("q.jpg")]
    catalog.record_outcomes(run_id, south, said, now=NOW + HOUR)
    catalog.record_listing(south, ["IMG_0004.JPG"], now=NOW + 2 * HOUR)
    catalog.finish_run(run_id, RunStatus.SUCCESS, now=NOW + 3 * HOUR)
    return catalog


def keys(rows: list[dict[str, Any]]) -> list[str]:
    return [row["key"] for row in rows]


def test_images_come_newest_capture_first_each_once(filled: Catalog) -> None:
    assert keys(list_images(filled)) == ["IMG_0004.JPG", "IMG_0003.JPG", "IMG_0002.JPG", "IMG_0001.JPG"]
    assert keys(list_images(filled, limit=1)) == ["IMG_0004.JPG"]


def test_an_image_is_shown_with_what_is_known_of_it(filled: Catalog) -> None:
    row = list_images(filled)[-1]
    assert row == {
        "sha256": make_facts(1).sha256, "source": "north", "key": "IMG_0001.JPG", "size": 60_001, "format": "jpeg",
        "width": 640, "height": 480, "captured_at": "2026-01-01T00:01:00+02:00", "captured_at_source": "exif",
        "camera": "north gate", "latitude": 52.5, "longitude": 13.25, "perceptual_hash": f"{1:016x}",
        "quality": "full", "stored_at": NOW, "storage_key": "library/1.jpg", "thumbnail_key": "thumbnails/1.webp",
        "owner": "Ann", "extra": None, "location": "north gate",
    }  # fmt: skip
    json.dumps(row | {"stored_at": None})


def test_a_capture_whose_zone_is_unknown_is_shown_without_one(filled: Catalog) -> None:
    assert list_images(filled, camera="other")[0]["captured_at"] == "2026-01-01T00:03:00"


def test_a_source_shows_every_image_seen_there_under_its_own_key(filled: Catalog) -> None:
    rows = list_images(filled, source="south")
    assert [(row["source"], row["key"]) for row in rows] == [("south", "IMG_0004.JPG"), ("south", "copy.jpg")]


def test_images_are_found_by_camera_place_and_time(filled: Catalog) -> None:
    start = datetime(2026, 1, 1)  # noqa: DTZ001 - the camera's own clock
    assert keys(list_images(filled, camera="other")) == ["IMG_0003.JPG"]
    assert keys(list_images(filled, location="south gate")) == ["IMG_0004.JPG"]
    minutes = {"since": start + timedelta(minutes=2), "until": start + timedelta(minutes=3)}
    assert keys(list_images(filled, **minutes)) == ["IMG_0002.JPG"]


def test_files_that_are_no_images_are_shown_with_their_reason(filled: Catalog) -> None:
    [row] = list_images(filled, status="failed")
    assert (row["source"], row["key"], row["status"], row["reason"], row["attempts"], row["attempted_at"]) == (
        "north", "f.jpg", "failed", "timeout", 1, NOW,
    )  # fmt: skip
    assert keys(list_images(filled, status="quarantined", since=NOW + HOUR)) == ["q.jpg"]
    assert keys(list_images(filled, status="quarantined", until=NOW + HOUR)) == []
    assert keys(list_images(filled, status="vanished", source="south", camera="north gate")) == ["IMG_0004.JPG"]
    assert keys(list_images(filled, status="duplicate", location="south gate")) == ["copy.jpg"]
    assert keys(list_images(filled, status="stored")) == keys(list_images(filled))


@pytest.mark.parametrize(
    ("wanted", "advice"),
    [
        ({"source": "nroth"}, "north"),
        ({"location": "nowhere"}, "north gate"),
        ({"status": "lost"}, "quarantined"),
        ({"since": NOW}, "without a zone"),
        ({"since": datetime(2026, 1, 1), "status": "failed"}, "give the date a zone"),  # noqa: DTZ001
    ],
)
def test_a_question_that_can_not_be_answered_says_what_can(
    filled: Catalog, wanted: dict[str, Any], advice: str
) -> None:
    with pytest.raises(WrongUse, match=advice):
        list_images(filled, **wanted)


def test_an_image_is_described_with_every_place_and_attempt(filled: Catalog) -> None:
    source_id = filled.ensure_source("north", "http", "http://north.example/", now=NOW)
    run_id = filled.begin_run(source_id, now=NOW)
    filled.record_outcomes(run_id, source_id, [failed("IMG_0002.JPG", Reason.NOT_FOUND)], now=NOW + 4 * HOUR)
    sha256 = make_facts(2).sha256
    known = describe_image(filled, sha256[:8].upper())
    assert (known["image"]["sha256"], known["image"]["captured_at"]) == (sha256, "2026-01-01T00:02:00+02:00")
    assert known["image"]["captured_utc"] == datetime(2025, 12, 31, 22, 2, tzinfo=UTC)
    assert [(row["source"], row["key"], row["is_current"]) for row in known["provenance"]] == [
        ("north", "IMG_0002.JPG", True),
        ("south", "copy.jpg", True),
    ]
    assert [(row["source"], row["verdict"], row["reason"], row["at"]) for row in known["attempts"]] == [
        ("north", "stored", None, NOW),
        ("south", "duplicate", None, NOW + HOUR),
        ("north", "failed", "not_found", NOW + 4 * HOUR),
    ]


def test_a_place_that_holds_other_bytes_by_now_stays_in_the_history(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [stored(1, "latest.jpg")], now=NOW)
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [stored(2, "latest.jpg")], now=NOW + HOUR)
    known = [describe_image(catalog, make_facts(number).sha256) for number in (1, 2)]
    assert [image["provenance"][0]["is_current"] for image in known] == [False, True]
    assert [[row["at"] for row in image["attempts"]] for image in known] == [[NOW], [NOW + HOUR]]


def test_a_prefix_of_several_images_names_them(catalog: Catalog) -> None:
    pairs = pairwise(sorted((make_facts(number) for number in range(1_000)), key=attrgetter("sha256")))
    first, second = next(pair for pair in pairs if pair[0].sha256[:4] == pair[1].sha256[:4])
    run_id, source_id = begin(catalog)
    said = [stored(1, "a.jpg", facts=first), stored(2, "b.jpg", facts=second), stored(3)]
    catalog.record_outcomes(run_id, source_id, said, now=NOW)
    with pytest.raises(WrongUse, match=f"{first.sha256}, {second.sha256}"):
        describe_image(catalog, first.sha256[:4])
    assert describe_image(catalog, first.sha256)["image"]["storage_key"] == "library/1.jpg"


@pytest.mark.parametrize("prefix", ["", "abc", "xyz1", "%", "0" * 65])
def test_what_is_no_prefix_is_refused(catalog: Catalog, prefix: str) -> None:
    with pytest.raises(WrongUse, match="4 hexadecimal"):
        describe_image(catalog, prefix)


def test_an_unknown_image_or_run_is_said_to_be(catalog: Catalog) -> None:
    with pytest.raises(WrongUse, match="begins with 0000"):
        describe_image(catalog, "0000")
    with pytest.raises(WrongUse, match="no run 3"):
        describe_run(catalog, 3)


def test_runs_come_newest_first_and_by_source_or_status(filled: Catalog) -> None:
    assert [(run["source"], run["flow_run_id"]) for run in list_runs(filled)] == [
        ("south", None),
        ("north", "flow-run-1"),
    ]
    assert [run["source"] for run in list_runs(filled, source="north")] == ["north"]
    assert [run["source"] for run in list_runs(filled, status="success")] == ["south"]
    assert len(list_runs(filled, limit=1)) == 1
    with pytest.raises(WrongUse, match="interrupted"):
        list_runs(filled, status="done")


def test_a_run_is_described_with_what_became_of_each_file(filled: Catalog) -> None:
    run_id = list_runs(filled, source="south")[0]["run_id"]
    assert [(row["key"], row["verdict"], row["storage_key"]) for row in describe_run(filled, run_id)["files"]] == [
        ("copy.jpg", "duplicate", "library/2.jpg"),
        ("IMG_0004.JPG", "stored", "library/4.jpg"),
        ("q.jpg", "quarantined", None),
    ]
    assert len(describe_run(filled, run_id, limit=1)["files"]) == 1
    assert keys(list_run_failures(filled, run_id, 10)) == ["q.jpg"]


def test_sources_are_shown_with_how_their_files_stand(filled: Catalog) -> None:
    north, south = list_sources(filled)
    none = dict.fromkeys(["stored", "duplicate", "quarantined", "failed", "parked", "retry", "expired"], 0)
    assert (north["name"], north["files"], north["vanished"]) == ("north", none | {"stored": 3, "failed": 1}, 0)
    assert south["files"] == none | {"stored": 1, "duplicate": 1, "quarantined": 1}
    assert (south["vanished"], south["location"], south["last_listed_at"]) == (1, "south gate", NOW + 2 * HOUR)


@pytest.mark.parametrize("count", [9, 10])
def test_stored_images_are_read_page_by_page_to_the_last(
    catalog: Catalog, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_catalog_queries, "_PAGE", 5)
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [stored(number) for number in range(count)], now=NOW)
    rows = list(iter_stored_images(catalog))
    assert [row["sha256"] for row in rows] == sorted(make_facts(number).sha256 for number in range(count))
    assert set(rows[0]) == {"sha256", "storage_key", "size", "thumbnail_key"}


def test_the_pictures_of_a_run_are_its_newest_captures(filled: Catalog) -> None:
    run_id = list_runs(filled, source="north")[0]["run_id"]
    rows = list(iter_run_thumbnails(filled, run_id, 2))
    assert [(row["key"], row["thumbnail_key"]) for row in rows] == [
        ("IMG_0003.JPG", "thumbnails/3.webp"),
        ("IMG_0002.JPG", "thumbnails/2.webp"),
    ]


@pytest.mark.parametrize("question", [iter_images, lambda catalog: iter_run_files(catalog, 1)], ids=["images", "run"])
def test_a_long_answer_takes_no_more_memory_than_a_short_one(
    catalog: Catalog, question: Callable[[Catalog], Iterator[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_catalog_queries, "_FETCHED", 50)
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [stored(number) for number in range(2_000)], now=NOW)
    assert sum(1 for _ in question(catalog)) == 2_000  # what is read once and kept, such as the statement, is paid for
    tracemalloc.start()
    try:
        assert sum(1 for _ in question(catalog)) == 2_000
        assert tracemalloc.get_traced_memory()[1] < 600_000
    finally:
        tracemalloc.stop()


@contextmanager
def asked() -> Iterator[list[tuple[str, Any]]]:
    """Collect every statement that reads or updates, with its parameters."""
    statements: list[tuple[str, Any]] = []

    def collect(_connection: Any, _cursor: Any, sql: str, parameters: Any, _context: Any, many: bool) -> None:
        if sql.startswith(("SELECT", "UPDATE")) and not many:
            statements.append((sql, parameters))

    event.listen(Engine, "before_cursor_execute", collect)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", collect)


def read_plan(connection: Connection, sql: str, parameters: Any) -> list[str]:
    if connection.dialect.name == "sqlite":
        return [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    connection.execute(text("SET LOCAL enable_seqscan = off"))  # a small table is read whole, whatever its indexes
    connection.execute(text("SET LOCAL enable_sort = off"))
    return [row[0].strip() for row in connection.exec_driver_sql(f"EXPLAIN {sql}", parameters)]


QUESTIONS: list[Callable[[Catalog], object]] = [
    lambda catalog: list_images(catalog),
    lambda catalog: list_images(catalog, source="south"),
    lambda catalog: list_images(catalog, camera="other"),
    lambda catalog: list_images(catalog, location="south gate"),
    lambda catalog: list_images(catalog, since=datetime(2026, 1, 1)),  # noqa: DTZ001
    lambda catalog: list_images(catalog, status="failed"),
    lambda catalog: list_images(catalog, status="parked", source="north"),
    lambda catalog: list_images(catalog, status="vanished"),
    lambda catalog: describe_image(catalog, make_facts(2).sha256[:8]),
    lambda catalog: list_runs(catalog, source="north"),
    lambda catalog: describe_run(catalog, 1),
    lambda catalog: list_sources(catalog),
    lambda catalog: list(iter_stored_images(catalog)),
    lambda catalog: list(iter_run_thumbnails(catalog, 1, 10)),
    lambda catalog: list_run_failures(catalog, 1, 10),
    lambda catalog: catalog.known_files(1),
    lambda catalog: catalog.known_images([make_facts(2).sha256]),
    lambda catalog: catalog.begin_run(1, now=NOW),
    lambda catalog: catalog.record_outcomes(1, 1, [stored(1)], now=NOW),
    lambda catalog: catalog.record_listing(1, ["IMG_0001.JPG"], ["IMG_0002.JPG"], now=NOW),
    lambda catalog: catalog.finish_run(1, RunStatus.SUCCESS, now=NOW),
]


def test_no_question_reads_a_large_table_whole(filled: Catalog) -> None:
    with asked() as statements:
        for question in QUESTIONS:
            question(filled)
    assert len(statements) > len(QUESTIONS)
    with filled.reading() as connection:
        for sql, parameters in statements:
            plan = read_plan(connection, sql, parameters)
            for table in ("files", "images", "outcomes", "runs"):
                whole = {f"SCAN {table}", f"Seq Scan on {table}"}
                assert not [line for line in plan if line.split("  (")[0].removeprefix("->  ") in whole], (sql, plan)
