"""What the catalog promises about sources, leases, runs and listings."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from time import sleep

import polars as pl
import pytest
from sqlalchemy import select

from blocks._catalog import KNOWN_SCHEMA, Catalog, open_catalog
from blocks._catalog_queries import describe_run, list_images, list_runs, list_sources
from blocks._errors import Reason, WrongUse
from blocks._records import RemoteFile
from blocks._schema import RunStatus, locations
from tests.blocks.catalog_writer import NOW, begin, duplicate, failed, quarantined, stored

HOUR = timedelta(hours=1)


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with open_catalog(catalog_url) as opened:
        yield opened


def test_a_source_is_made_once_and_follows_its_block(catalog: Catalog) -> None:
    first = catalog.ensure_source("gate", "http", "http://old.example/", location="north", now=NOW)
    second = catalog.ensure_source("gate", "http", "http://new.example/", location="south", owner="Ann", now=NOW + HOUR)
    assert first == second
    [source] = list_sources(catalog)
    assert (source["root"], source["location"], source["owner"], source["created_at"]) == (
        "http://new.example/", "south", "Ann", NOW,
    )  # fmt: skip


def test_a_location_is_completed_not_emptied(catalog: Catalog) -> None:
    first = catalog.upsert_location("north", latitude=52.5, longitude=13.25)
    assert catalog.upsert_location("north", description="By the gate") == first
    catalog.ensure_source("gate", "http", "http://gate.example/", location="north", now=NOW)
    with catalog.reading() as connection:
        rows = [dict(row) for row in connection.execute(select(locations)).mappings()]
    assert rows == [{"id": first, "name": "north", "latitude": 52.5, "longitude": 13.25, "description": "By the gate"}]


@pytest.mark.parametrize("place", [{"latitude": 91.0}, {"longitude": -181.0}])
def test_a_place_off_the_globe_is_refused(catalog: Catalog, place: dict[str, float]) -> None:
    with pytest.raises(WrongUse, match="rules"):
        catalog.upsert_location("nowhere", **place)


def test_the_high_water_mark_is_kept_as_it_was_moved(catalog: Catalog) -> None:
    _, source_id = begin(catalog)
    assert catalog.read_high_water_mark(source_id) is None
    catalog.move_high_water_mark(source_id, "AAE7-cursor")
    assert catalog.read_high_water_mark(source_id) == "AAE7-cursor"


def test_of_eight_who_want_the_lease_one_gets_it_and_the_others_learn_who(catalog: Catalog) -> None:
    _, source_id = begin(catalog)
    start = threading.Barrier(8)

    def acquire(number: int) -> str | None:
        start.wait()
        return catalog.acquire_lease(source_id, f"holder {number}", HOUR)

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(acquire, range(8)))
    assert said.count(None) == 1
    assert set(said) - {None} == {f"holder {said.index(None)}"}


def test_a_lease_is_its_holders_until_it_runs_out(catalog: Catalog) -> None:
    _, source_id = begin(catalog)
    assert catalog.acquire_lease(source_id, "a", timedelta(milliseconds=400)) is None
    assert catalog.acquire_lease(source_id, "a", timedelta(milliseconds=400)) is None
    assert catalog.acquire_lease(source_id, "b", HOUR) == "a"
    sleep(0.5)
    assert catalog.acquire_lease(source_id, "b", HOUR) is None
    assert not catalog.renew_lease(source_id, "a", HOUR)
    assert not catalog.release_lease(source_id, "a")
    assert catalog.acquire_lease(source_id, "c", HOUR) == "b"


def test_a_renewed_lease_lasts_from_its_renewal(catalog: Catalog) -> None:
    _, source_id = begin(catalog)
    catalog.acquire_lease(source_id, "a", timedelta(milliseconds=200))
    assert catalog.renew_lease(source_id, "a", HOUR)
    sleep(0.3)
    assert catalog.acquire_lease(source_id, "b", HOUR) == "a"
    [source] = list_sources(catalog)
    left = source["lease_until"] - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= HOUR + timedelta(seconds=1)


def test_a_lease_that_was_given_back_or_broken_is_free(catalog: Catalog) -> None:
    _, source_id = begin(catalog)
    catalog.acquire_lease(source_id, "a", HOUR)
    assert not catalog.release_lease(source_id, "somebody else")
    assert catalog.release_lease(source_id, "a")
    assert catalog.acquire_lease(source_id, "b", HOUR) is None
    assert catalog.release_lease(source_id, "b")
    assert catalog.acquire_lease(source_id, "c", HOUR) is None


def test_a_lease_on_an_unknown_source_is_refused(catalog: Catalog) -> None:
    with pytest.raises(WrongUse, match="no source 7"):
        catalog.acquire_lease(7, "a", HOUR)


def test_a_finished_run_adds_up_and_shows_on_its_source(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    catalog.plan_run(run_id, listed=10, planned=6, deferred=1, unchanged=3, vanished=2)
    catalog.record_outcomes(run_id, source_id, [stored(3), stored(1, "zz.jpg"), failed("f.jpg")], now=NOW)
    catalog.record_outcomes(run_id, source_id, [duplicate(1, "d.jpg"), quarantined("q.jpg")], now=NOW)
    catalog.finish_run(run_id, RunStatus.PARTIAL, "1 file failed.", now=NOW + HOUR)
    [run] = list_runs(catalog)
    expected = {
        "run_id": run_id, "source": "gate", "kind": "ingest", "status": "partial", "message": "1 file failed.",
        "listed": 10, "planned": 5, "stored": 2, "duplicate": 1, "quarantined": 1, "failed": 1, "deferred": 2,
        "unchanged": 3, "vanished": 2, "bytes": 60_003 + 60_001 + 60_001 + 7, "seconds": 3600.0,
        "started_at": NOW, "finished_at": NOW + HOUR, "flow_run_id": None,
        "details": None, "state": "partial",
    }  # fmt: skip
    assert run == expected
    [source] = list_sources(catalog)
    assert (source["last_status"], source["last_message"]) == ("partial", "1 file failed.")
    assert (source["last_pulled_filename"], source["last_pull_timestamp"]) == ("IMG_0003.JPG", NOW + HOUR)


def test_a_run_that_brought_nothing_keeps_what_was_pulled_last(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [stored(1)], now=NOW)
    catalog.finish_run(run_id, RunStatus.SUCCESS, now=NOW)
    run_id, _ = begin(catalog)
    catalog.finish_run(run_id, RunStatus.NO_NEW_FILES, now=NOW + HOUR)
    [source] = list_sources(catalog)
    assert (source["last_status"], source["last_pulled_filename"], source["last_pull_timestamp"]) == (
        "no_new_files", "IMG_0001.JPG", NOW,
    )  # fmt: skip


def test_a_run_that_ended_without_a_word_is_closed_by_the_next_with_counts_that_add_up(catalog: Catalog) -> None:
    silent, source_id = begin(catalog)
    begin(catalog, "other")
    catalog.plan_run(silent, listed=5, planned=5)
    catalog.record_outcomes(silent, source_id, [stored(1), failed("f.jpg")], now=NOW + HOUR)
    next_run = catalog.begin_run(source_id, "flow-run-2", now=NOW + 3 * HOUR)
    run = describe_run(catalog, silent)
    assert {name: run[name] for name in ("status", "planned", "stored", "failed", "deferred", "seconds")} == {
        "status": "interrupted", "planned": 2, "stored": 1, "failed": 1, "deferred": 3, "seconds": 3600.0,
    }  # fmt: skip
    assert run["finished_at"] == NOW + HOUR
    assert describe_run(catalog, next_run)["flow_run_id"] == "flow-run-2"
    assert [row["source"] for row in list_runs(catalog, status="running")] == ["gate", "other"]


def test_a_skipped_run_leaves_the_one_that_is_running_alone(catalog: Catalog) -> None:
    running, source_id = begin(catalog)
    catalog.note_run(source_id, RunStatus.SKIPPED, "Another run has the lease.", now=NOW)
    assert [(row["run_id"] == running, row["status"]) for row in list_runs(catalog)] == [
        (False, "skipped"),
        (True, "running"),
    ]


def test_an_unknown_run_can_not_be_finished(catalog: Catalog) -> None:
    with pytest.raises(WrongUse, match="no run 5"):
        catalog.finish_run(5, RunStatus.SUCCESS, now=NOW)


def test_known_files_of_an_empty_source_have_their_columns(catalog: Catalog) -> None:
    _, source_id = begin(catalog)
    known = catalog.known_files(source_id)
    assert known.schema == pl.Schema(KNOWN_SCHEMA)
    assert known.height == 0


def test_known_files_come_back_as_they_were_listed(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    _, other = begin(catalog, "other")
    moments = [
        datetime(2026, 3, 29, 2, 30, 0, 123_456, tzinfo=timezone(timedelta(hours=2))),
        datetime(1969, 7, 20, 20, 17, 40, 1, tzinfo=UTC),
        None,
    ]
    listed = [RemoteFile(f"{number}.jpg", number or None, moment, None) for number, moment in enumerate(moments)]
    said = [replace(stored(number), file=file) for number, file in enumerate(listed)]
    catalog.record_outcomes(run_id, source_id, said, now=NOW)
    known = catalog.known_files(source_id).sort("key")
    assert known.schema == pl.Schema(KNOWN_SCHEMA)
    assert known.select("key", "size", "modified", "validator", "vanished").rows() == [
        (file.key, file.size, file.modified, None, False) for file in listed
    ]
    assert catalog.known_files(other).height == 0
    assert catalog.known_files_of("gate").sort("key").equals(known)
    assert catalog.known_files_of("unknown").schema == known.schema


def test_known_files_of_many_pages_are_all_there(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [failed(f"{number}.jpg") for number in range(2_100)], now=NOW)
    known = catalog.known_files(source_id)
    assert set(known["key"]) == {f"{number}.jpg" for number in range(2_100)}
    assert known.unique(["state", "attempts", "reason"]).select("state", "attempts", "reason").rows() == [
        ("failed", 1, "timeout")
    ]


def test_files_vanish_and_return(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    catalog.record_listing(source_id, now=NOW)
    catalog.record_outcomes(run_id, source_id, [stored(1, "a.jpg"), stored(2, "b.jpg")], now=NOW)
    catalog.record_listing(source_id, now=NOW + HOUR)
    catalog.record_listing(source_id, ["a.jpg"], now=NOW + 2 * HOUR)
    catalog.record_listing(source_id, ["a.jpg"], now=NOW + 3 * HOUR)
    [gone] = list_images(catalog, status="vanished")
    assert (gone["key"], gone["vanished_at"], gone["last_seen"]) == ("a.jpg", NOW + 2 * HOUR, NOW + HOUR)
    assert dict(catalog.known_files(source_id).select("key", "vanished").rows()) == {"a.jpg": True, "b.jpg": False}
    catalog.record_listing(source_id, [], ["a.jpg"], now=NOW + 4 * HOUR)
    assert list_images(catalog, status="vanished") == []
    assert not catalog.known_files(source_id)["vanished"].any()
    assert list_sources(catalog)[0]["last_listed_at"] == NOW + 4 * HOUR


def test_a_file_that_vanished_before_any_later_listing_was_last_seen_when_it_came(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [stored(1, "a.jpg")], now=NOW)
    catalog.record_listing(source_id, ["a.jpg"], now=NOW + HOUR)
    [gone] = list_images(catalog, status="vanished")
    assert gone["last_seen"] == NOW


def test_many_files_may_vanish_at_once(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [failed(f"{number}.jpg") for number in range(1_200)], now=NOW)
    catalog.record_listing(source_id, (f"{number}.jpg" for number in range(1_100)), now=NOW)
    assert list_sources(catalog)[0]["vanished"] == 1_100


def states(catalog: Catalog, source_id: int) -> dict[str, tuple[str, int]]:
    return {row[0]: row[1:] for row in catalog.known_files(source_id).select("key", "state", "attempts").rows()}


def test_a_person_can_ask_for_what_failed_to_be_tried_again(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    said = [failed("f.jpg"), quarantined("q.jpg"), stored(1, "s.jpg"), failed("gone.jpg")]
    catalog.record_outcomes(run_id, source_id, said, now=NOW)
    catalog.record_outcomes(run_id, source_id, [failed("p.jpg")], now=NOW, max_attempts=1)
    catalog.record_listing(source_id, ["gone.jpg"], now=NOW)
    assert catalog.reset_failed() == 3
    assert states(catalog, source_id) == {
        "f.jpg": ("retry", 0),
        "q.jpg": ("retry", 0),
        "p.jpg": ("retry", 0),
        "s.jpg": ("stored", 0),
        "gone.jpg": ("failed", 1),
    }
    [reason] = {row["reason"] for row in list_images(catalog, status="retry")} - {"truncated"}
    assert reason == "timeout"


def test_what_is_tried_again_can_be_narrowed(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    other_run, other = begin(catalog, "other")
    catalog.record_outcomes(run_id, source_id, [failed("old.jpg", Reason.NOT_FOUND)], now=NOW - HOUR)
    catalog.record_outcomes(run_id, source_id, [failed("new.jpg")], now=NOW)
    catalog.record_outcomes(other_run, other, [failed("other.jpg")], now=NOW)
    assert catalog.reset_failed("gate", [Reason.TIMEOUT], older_than=NOW) == 0
    assert catalog.reset_failed("gate", [Reason.NOT_FOUND], older_than=NOW) == 1
    assert catalog.reset_failed("gate", newer_than=NOW) == 1
    assert catalog.reset_failed(reasons=[Reason.TIMEOUT, Reason.NOT_FOUND]) == 1


def test_an_unknown_source_is_answered_with_those_that_are_like_it(catalog: Catalog) -> None:
    begin(catalog, "http-directory/gate")
    with pytest.raises(WrongUse, match="http-directory/gate"):
        catalog.reset_failed("http-directory/gaet")
