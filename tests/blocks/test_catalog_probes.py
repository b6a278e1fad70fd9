"""Answers that are remembered, and what searches cost, on both databases."""

# ruff: noqa: DTZ001 - names tell wall clocks

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from blocks._catalog import Catalog, open_catalog
from blocks._catalog_probes import (
    Probe,
    Search,
    drop_expired_probes,
    find_source_id,
    read_captures,
    read_pictures,
    read_probe_figures,
    read_probes,
    record_search,
    remember_probes,
)
from blocks._errors import Reason, SourceUnavailable
from blocks._records import CaptureTime, Quality, TimeWitness
from blocks._schema import FileState, ProbeAnswer
from blocks._terminal_addresses import picture_key
from tests.blocks.catalog_writer import begin, failed, make_facts, stored

NOW = datetime(2025, 9, 3, 12, tzinfo=UTC)
DAY = date(2025, 9, 1)


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with open_catalog(catalog_url) as opened:
        yield opened


def key_at(hour: int, stream: str = "in_gate", day: date = DAY) -> str:
    return picture_key(datetime(day.year, day.month, day.day, hour), stream)


def probe(key: str, answer: ProbeAnswer = ProbeAnswer.NEVER, *, hours: int = 1, **fields: Quality) -> Probe:
    return Probe(key, fields.get("quality", Quality.FULL), answer, NOW, NOW + timedelta(hours=hours))


def test_an_answer_is_remembered_for_its_day_and_stream_until_it_expires(catalog: Catalog) -> None:
    _, source_id = begin(catalog)
    mine = [probe(key_at(hour)) for hour in range(3)]
    others = [
        probe(key_at(1, "in_gate_2")),
        probe(key_at(1, day=DAY + timedelta(days=1))),
        probe(key_at(1, day=DAY - timedelta(days=1))),
    ]
    remember_probes(catalog, source_id, [*mine, *others])
    assert sorted(read_probes(catalog, source_id, DAY, "in_gate", NOW)) == sorted(mine)
    assert read_probes(catalog, source_id, DAY, "in_gate", NOW + timedelta(hours=1)) == []
    drop_expired_probes(catalog, source_id, NOW + timedelta(hours=1))
    assert read_probes(catalog, source_id, DAY, "in_gate", NOW) == []


def test_the_last_answer_counts_and_qualities_are_kept_apart(catalog: Catalog) -> None:
    _, source_id = begin(catalog)
    remember_probes(catalog, source_id, [probe(key_at(1), ProbeAnswer.NOT_YET)])
    remember_probes(
        catalog, source_id, [probe(key_at(1), ProbeAnswer.THERE), probe(key_at(1), quality=Quality.THUMBNAIL)]
    )
    remember_probes(catalog, source_id, [])
    kept = {row.quality: row.answer for row in read_probes(catalog, source_id, DAY, "in_gate", NOW)}
    assert kept == {Quality.FULL: ProbeAnswer.THERE, Quality.THUMBNAIL: ProbeAnswer.NEVER}


def test_pictures_and_captures_of_a_stream_are_found_again(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    said = []
    for hour in range(4):
        taken = CaptureTime(datetime(2025, 9, 1, hour), -420, TimeWitness.CAMERA)
        facts = replace(make_facts(hour, camera="in_gate"), captured=taken)
        said.append(stored(hour, key_at(hour), facts=facts))
    catalog.record_outcomes(run_id, source_id, [*said, failed(key_at(9))], now=NOW)
    rows = read_pictures(catalog, source_id, DAY, "in_gate")
    assert [(row.key, row.state) for row in rows] == [
        *((key_at(hour), FileState.STORED) for hour in range(4)),
        (key_at(9), FileState.FAILED),
    ]
    assert rows[0].captured_utc == datetime(2025, 9, 1, 7, tzinfo=UTC)
    assert (rows[0].quality, rows[-1].quality) == (Quality.FULL, None)
    around = read_captures(
        catalog, source_id, "in_gate", datetime(2025, 9, 1, 8, tzinfo=UTC), datetime(2025, 9, 1, 9, tzinfo=UTC)
    )
    assert around == [datetime(2025, 9, 1, 7 + hour, tzinfo=UTC) for hour in range(4)]
    assert read_captures(catalog, source_id, "out_gate", NOW, NOW) == []


def test_figures_add_up_over_runs_and_tell_how_the_last_search_ended(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog)
    error = SourceUnavailable("The page did not load.", reason=Reason.TIMEOUT)
    first = Search("in_gate", DAY, "direct", expected=144, known=0, found=100, probes=200, hits=100, error=error)
    record_search(catalog, run_id, source_id, first, now=NOW)
    [row] = read_probe_figures(catalog, "gate", DAY, DAY)
    assert (row["reason"], row["message"]) == ("timeout", "The page did not load.")
    again = Search("in_gate", DAY, "direct", expected=144, known=0, found=140, probes=60, hits=40)
    record_search(catalog, run_id, source_id, again, now=NOW)
    later, _ = begin(catalog)
    record_search(catalog, later, source_id, Search("in_gate", DAY, "direct", probes=5, hits=4), now=NOW)
    record_search(catalog, later, source_id, Search("in_gate", DAY + timedelta(days=1), "browser"), now=NOW)
    [row] = read_probe_figures(catalog, "gate", DAY, DAY)
    assert (row["date"], row["stream"], row["probes"], row["hits"]) == (DAY, "in_gate", 265, 144)
    assert (row["reason"], row["message"]) == (None, None)
    assert len(read_probe_figures(catalog, "gate", DAY, DAY + timedelta(days=1))) == 2
    assert read_probe_figures(catalog, "nobody", DAY, DAY) == []


def test_a_source_that_never_was_has_no_id(catalog: Catalog) -> None:
    assert find_source_id(catalog, "gate") is None
    _, source_id = begin(catalog)
    assert find_source_id(catalog, "gate") == source_id
