"""What the catalog promises about outcomes: each image once, each attempt written down, nothing counted twice."""

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from time import sleep

import pytest
from sqlalchemy import Connection, func, select, update

from blocks._catalog import Catalog, open_catalog
from blocks._catalog_queries import describe_run, iter_stored_images, list_images, list_runs
from blocks._catalog_upkeep import forget_image
from blocks._errors import LibraryUnavailable, Reason, WrongUse
from blocks._records import CaptureTime, Outcome, RemoteFile, TimeWitness, Verdict
from blocks._schema import LONGEST_NAME, RunStatus, files, images, outcomes, runs
from tests.blocks.catalog_writer import NOW, begin, duplicate, failed, make_facts, quarantined, stored


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with open_catalog(catalog_url) as opened:
        yield opened


def states(catalog: Catalog, source_id: int) -> dict[str, tuple[str, int]]:
    known = catalog.known_files(source_id)
    return {row["key"]: (row["state"], row["attempts"]) for row in known.iter_rows(named=True)}


def counts(catalog: Catalog, run_id: int) -> dict[str, int]:
    run = describe_run(catalog, run_id)
    return {name: run[name] for name in ("planned", "stored", "duplicate", "quarantined", "failed", "deferred")}


def test_every_verdict_is_written_down_as_it_was_said(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    said = [stored(1), replace(stored(2), warning="The clock is off."), failed("b.jpg"), quarantined("c.jpg")]
    assert catalog.record_outcomes(run_id, source_id, said, now=NOW) == said
    assert states(catalog, source_id) == {
        "IMG_0001.JPG": ("stored", 0),
        "IMG_0002.JPG": ("stored", 0),
        "b.jpg": ("failed", 1),
        "c.jpg": ("quarantined", 1),
    }
    run = describe_run(catalog, run_id)
    assert [(row["key"], row["verdict"], row["reason"], row["warning"]) for row in run["files"]] == [
        ("IMG_0001.JPG", "stored", None, None),
        ("IMG_0002.JPG", "stored", None, "The clock is off."),
        ("b.jpg", "failed", "timeout", None),
        ("c.jpg", "quarantined", "truncated", None),
    ]
    assert run["bytes"] == 60_001 + 60_002 + 7


def test_an_empty_batch_changes_nothing(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    assert catalog.record_outcomes(run_id, source_id, [], now=NOW) == []


def test_the_same_bytes_from_two_sources_are_one_image_of_two_places(catalog: Catalog) -> None:
    first_run, first = begin(catalog, "first")
    second_run, second = begin(catalog, "second")
    catalog.record_outcomes(first_run, first, [stored(1)], now=NOW)
    [outcome] = catalog.record_outcomes(second_run, second, [duplicate(1, "copy.jpg")], now=NOW)
    assert (outcome.verdict, outcome.storage_key, outcome.thumbnail_key) == (
        Verdict.DUPLICATE, "library/1.jpg", "thumbnails/1.webp",
    )  # fmt: skip
    assert states(catalog, second) == {"copy.jpg": ("duplicate", 0)}
    assert len(list(iter_stored_images(catalog))) == 1


def test_the_same_bytes_twice_in_one_batch_are_stored_once(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    twice = [stored(1, "a.jpg"), stored(1, "b.jpg", place="elsewhere"), duplicate(1, "c.jpg")]
    settled = catalog.record_outcomes(run_id, source_id, twice, now=NOW)
    assert [outcome.verdict for outcome in settled] == ["stored", "duplicate", "duplicate"]
    assert {outcome.storage_key for outcome in settled} == {"library/1.jpg"}


def test_who_comes_second_learns_where_the_first_put_the_bytes(catalog: Catalog) -> None:
    first_run, first = begin(catalog, "first")
    second_run, second = begin(catalog, "second")
    catalog.record_outcomes(first_run, first, [stored(1, place="first")], now=NOW)
    [outcome] = catalog.record_outcomes(second_run, second, [stored(1, place="second")], now=NOW)
    assert (outcome.verdict, outcome.storage_key) == (Verdict.DUPLICATE, "first/1.jpg")
    assert counts(catalog, second_run)["duplicate"] == 1


def test_writers_that_race_for_the_same_images_store_each_once(catalog: Catalog) -> None:
    def write(name: str) -> list[Outcome]:
        run_id, source_id = begin(catalog, name)
        numbers = list(range(60))
        Random(name).shuffle(numbers)
        start.wait()
        settled = []
        for first in range(0, 60, 20):
            batch = [stored(number, place=name) for number in numbers[first : first + 20]]
            settled += catalog.record_outcomes(run_id, source_id, batch, now=NOW)
        return settled

    names = ["a", "b", "c", "d"]
    start = threading.Barrier(len(names))
    with ThreadPoolExecutor(len(names)) as pool:
        settled = [outcome for part in pool.map(write, names) for outcome in part]
    assert Counter(outcome.verdict for outcome in settled) == {Verdict.STORED: 60, Verdict.DUPLICATE: 180}
    places = {image["sha256"]: image["storage_key"] for image in iter_stored_images(catalog)}
    assert len(places) == 60
    assert all(outcome.storage_key == places[outcome.sha256 or ""] for outcome in settled)


def start_writer(url: str, name: str, batches: int, seed: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.blocks.catalog_writer", url, name, str(batches), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def test_processes_that_race_for_the_same_images_store_each_once(catalog_url: str) -> None:
    writers = [start_writer(catalog_url, name, 10, seed) for seed, name in enumerate(["a", "b"])]
    said = [writer.communicate(timeout=60)[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sum(int(words[-1]) for words in said) == 200


def test_a_writer_that_is_killed_leaves_whole_batches_and_true_counts(catalog_url: str) -> None:
    with start_writer(catalog_url, "killed", 1_000, 1) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with open_catalog(catalog_url) as catalog:
            while list_runs(catalog)[0]["stored"] < 60:
                pass
            writer.send_signal(signal.SIGKILL)
            writer.wait(timeout=20)
            [run] = list_runs(catalog)
            assert run["stored"] % 20 == 0
            with catalog.reading() as connection:
                rows = [
                    connection.scalar(select(func.count()).select_from(table)) for table in (images, files, outcomes)
                ]
            assert rows == [run["stored"]] * 3


def test_recording_a_batch_again_counts_nothing_twice(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    said = [stored(1), failed("b.jpg"), quarantined("c.jpg")]
    once = catalog.record_outcomes(run_id, source_id, said, now=NOW)
    again = catalog.record_outcomes(run_id, source_id, said, now=NOW)
    assert again == once
    assert counts(catalog, run_id) | {"planned": 3} == {
        "planned": 3, "stored": 1, "duplicate": 0, "quarantined": 1, "failed": 1, "deferred": 0,
    }  # fmt: skip
    assert states(catalog, source_id)["b.jpg"] == ("failed", 1)


def test_what_a_run_has_stored_stays_stored_when_the_batch_is_tried_again(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [stored(1), stored(2)], now=NOW)
    again = [duplicate(1, "IMG_0001.JPG"), failed("IMG_0002.JPG")]
    settled = catalog.record_outcomes(run_id, source_id, again, now=NOW)
    assert [(o.verdict, o.reason, o.storage_key) for o in settled] == [
        (Verdict.STORED, None, "library/1.jpg"),
        (Verdict.STORED, None, "library/2.jpg"),
    ]
    assert counts(catalog, run_id)["stored"] == 2


def test_a_failure_that_heals_within_the_run_is_replaced(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [failed("a.jpg")], now=NOW)
    catalog.record_outcomes(run_id, source_id, [stored(1, "a.jpg")], now=NOW)
    assert counts(catalog, run_id) | {"planned": 1} == {
        "planned": 1, "stored": 1, "duplicate": 0, "quarantined": 0, "failed": 0, "deferred": 0,
    }  # fmt: skip
    assert states(catalog, source_id) == {"a.jpg": ("stored", 0)}


def test_a_file_that_keeps_failing_is_parked_and_starts_anew_when_it_changes(catalog: Catalog) -> None:
    seen = []
    for outcome in [failed("a.jpg")] * 3 + [failed("a.jpg", validator='"2"'), stored(1, "a.jpg"), failed("a.jpg")]:
        run_id, source_id = begin(catalog)
        catalog.record_outcomes(run_id, source_id, [outcome], now=NOW, max_attempts=3)
        seen.append(states(catalog, source_id)["a.jpg"])
    assert seen == [("failed", 1), ("failed", 2), ("parked", 3), ("failed", 1), ("stored", 0), ("failed", 1)]


def test_one_attempt_is_enough_to_park_where_one_is_allowed(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [failed("a.jpg")], now=NOW, max_attempts=1)
    assert states(catalog, source_id) == {"a.jpg": ("parked", 1)}


def test_a_file_that_changed_and_failed_still_shows_the_image_that_came_from_it(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [stored(1, "a.jpg")], now=NOW)
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [failed("a.jpg", validator='"2"')], now=NOW)
    [row] = list_images(catalog, status="failed")
    assert row["sha256"] == make_facts(1).sha256


def test_a_storage_key_taken_by_other_bytes_costs_only_that_file(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [stored(1)], now=NOW)
    clash = replace(stored(2), storage_key="library/1.jpg")
    settled = catalog.record_outcomes(run_id, source_id, [clash, stored(3)], now=NOW)
    assert [(outcome.verdict, outcome.reason) for outcome in settled] == [
        (Verdict.FAILED, Reason.STORAGE),
        (Verdict.STORED, None),
    ]
    assert len(list(iter_stored_images(catalog))) == 2


def test_a_duplicate_of_an_unknown_image_is_refused_whole(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    with pytest.raises(LibraryUnavailable, match=r"copy\.jpg"):
        catalog.record_outcomes(run_id, source_id, [stored(1), duplicate(2, "copy.jpg")], now=NOW)
    assert states(catalog, source_id) == {}
    assert list(iter_stored_images(catalog)) == []


def test_an_image_that_a_repair_forgot_meanwhile_is_stored_by_the_next_try(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [stored(1, "a.jpg")], now=NOW)
    forgotten = threading.Event()

    def forget_slowly(connection: Connection) -> None:
        connection.execute(update(files).values(state="retry", sha256=None))
        connection.execute(images.delete())
        forgotten.set()
        sleep(0.5)  # long enough for the other writer to come between

    with ThreadPoolExecutor(1) as pool:
        repair = pool.submit(catalog.write, forget_slowly)
        forgotten.wait()
        with pytest.raises(LibraryUnavailable, match="try again"):
            catalog.record_outcomes(run_id, source_id, [duplicate(1, "copy.jpg")], now=NOW)
        repair.result()
    [outcome] = catalog.record_outcomes(run_id, source_id, [stored(1, "copy.jpg")], now=NOW)
    assert outcome.verdict is Verdict.STORED
    assert forget_image(catalog, str(outcome.sha256)) == 1


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Pacific/Kiritimati"])
def test_the_calendars_edges_are_kept_whatever_the_servers_zone(
    catalog_url: str, zone: str, request: pytest.FixtureRequest
) -> None:
    if catalog_url.startswith("postgresql"):
        name = catalog_url.rpartition("/")[2]
        request.getfixturevalue("postgres").run(f"ALTER DATABASE \"{name}\" SET timezone TO '{zone}'")
    edges = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    with open_catalog(catalog_url) as catalog:
        run_id, source_id = begin(catalog)
        for number, edge in enumerate(edges):
            captured = CaptureTime(edge.replace(tzinfo=None), 0, TimeWitness.SERVER)
            said = stored(number, facts=replace(make_facts(number), captured=captured))
            said = replace(said, file=replace(said.file, modified=edge))
            assert catalog.record_outcomes(run_id, source_id, [said], now=edge) == [said]
        assert sorted(catalog.known_files(source_id)["modified"]) == edges
        with catalog.reading() as connection:
            wanted = select(images.c.captured_local, images.c.captured_utc, images.c.stored_at)
            rows = connection.execute(wanted.order_by(images.c.captured_local)).all()
        assert [tuple(row) for row in rows] == [(edge.replace(tzinfo=None), edge, edge) for edge in edges]


def test_a_key_named_twice_is_refused(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    with pytest.raises(WrongUse, match="twice"):
        catalog.record_outcomes(run_id, source_id, [stored(1, "a.jpg"), failed("a.jpg")], now=NOW)


def test_a_late_word_from_an_interrupted_run_keeps_its_counts_true(catalog: Catalog) -> None:
    silent, source_id = begin(catalog)
    catalog.plan_run(silent, listed=4, planned=4)
    begin(catalog)
    catalog.record_outcomes(silent, source_id, [stored(1), failed("b.jpg")], now=NOW)
    assert counts(catalog, silent) == {
        "planned": 2, "stored": 1, "duplicate": 0, "quarantined": 0, "failed": 1, "deferred": 2,
    }  # fmt: skip


ODD_KEYS = [
    "Ωmega/ünïcode 鹿.jpg",
    "a'b\"c;--.jpg",
    "tab\tnew\nline.jpg",
    "e\u0301.jpg",
    "é.jpg",
    "🦌/😀.jpg",
    "%00.jpg",
]


def test_odd_keys_come_back_to_the_letter(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    said = [stored(number, key) for number, key in enumerate(ODD_KEYS)]
    catalog.record_outcomes(run_id, source_id, said, now=NOW)
    assert sorted(catalog.known_files(source_id)["key"]) == sorted(ODD_KEYS)
    assert {row["key"] for row in list_images(catalog)} == set(ODD_KEYS)


@pytest.mark.parametrize("key", ["nul\0.jpg", "surrogate\udce9.jpg", "long" * LONGEST_NAME])
def test_a_key_that_no_database_could_keep_is_refused(catalog: Catalog, key: str) -> None:
    run_id, source_id = begin(catalog)
    with pytest.raises(WrongUse, match="catalog"):
        catalog.record_outcomes(run_id, source_id, [stored(1, key)], now=NOW)


def test_the_longest_key_is_kept(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    random = Random(1)
    key = "".join(random.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(LONGEST_NAME))
    catalog.record_outcomes(run_id, source_id, [stored(1, key)], now=NOW)
    assert catalog.known_files(source_id)["key"].to_list() == [key]


def test_a_strangers_words_never_cost_the_file(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    facts = make_facts(1, camera="cam\0era\udce9")
    catalog.record_outcomes(run_id, source_id, [stored(1, facts=facts)], now=NOW)
    [row] = list_images(catalog)
    assert row["camera"] == "cam\N{REPLACEMENT CHARACTER}era\N{REPLACEMENT CHARACTER}"


def test_an_outcome_of_an_unknown_run_is_refused(catalog: Catalog) -> None:
    _, source_id = begin(catalog)
    with pytest.raises(WrongUse, match="rules"):
        catalog.record_outcomes(999, source_id, [stored(1)], now=NOW)
    assert list(iter_stored_images(catalog)) == []


def test_known_images_tells_where_those_lie_that_are_there(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [stored(number) for number in range(3)], now=NOW)
    asked = [make_facts(number).sha256 for number in range(2_500)]
    assert catalog.known_images(asked) == {
        make_facts(number).sha256: (f"library/{number}.jpg", f"thumbnails/{number}.webp") for number in range(3)
    }


def test_the_same_image_may_come_from_one_key_again_and_again(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    catalog.record_outcomes(run_id, source_id, [stored(1, "latest.jpg")], now=NOW)
    run_id, source_id = begin(catalog)
    file = RemoteFile("latest.jpg", 60_000, NOW, '"2"')
    again = replace(stored(1), file=file)
    [outcome] = catalog.record_outcomes(run_id, source_id, [again], now=NOW + timedelta(hours=1))
    assert outcome.verdict is Verdict.DUPLICATE
    assert catalog.known_files(source_id)["validator"].to_list() == ['"2"']
    catalog.finish_run(run_id, RunStatus.SUCCESS, now=NOW)
    with catalog.reading() as connection:
        assert connection.scalar(select(runs.c.duplicate).where(runs.c.id == run_id)) == 1
