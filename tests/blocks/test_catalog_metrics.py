"""The catalog's figures are those of its rows, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from blocks._catalog import Catalog, open_catalog
from blocks._catalog_metrics import DURATION_BOUNDS, LAG_BOUNDS, read_metrics
from blocks._schema import RunStatus
from tests.blocks.catalog_writer import NOW, begin, duplicate, failed, make_facts, quarantined, stored

HOUR = timedelta(hours=1)


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with open_catalog(catalog_url) as opened:
        yield opened


def test_an_empty_catalog_has_no_figures(catalog: Catalog) -> None:
    found = read_metrics(catalog)
    assert (found.requests, found.files, found.frames, found.durations, found.lags) == ({}, {}, {}, [], [])


def test_figures_are_those_of_the_rows(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog, "north")
    unknown = stored(3, facts=make_facts(3, camera=None, offset_minutes=None))
    said = [stored(1), stored(2), unknown, duplicate(1, "copy.jpg"), failed("f.jpg"), quarantined("q.jpg")]
    catalog.record_outcomes(run_id, source_id, said, now=NOW)
    catalog.finish_run(run_id, RunStatus.PARTIAL, now=NOW + timedelta(seconds=20))
    run_id = catalog.begin_run(source_id, now=NOW + HOUR)
    catalog.finish_run(run_id, RunStatus.NO_NEW_FILES, now=NOW + HOUR + timedelta(seconds=0.25))
    catalog.note_run(source_id, RunStatus.SKIPPED, now=NOW + 2 * HOUR)
    catalog.begin_run(source_id, now=NOW + 3 * HOUR)

    found = read_metrics(catalog)
    [kind] = {kind for kind, _ in found.requests}
    assert found.requests == {(kind, status): 1 for status in ("partial", "no_new_files", "skipped")}
    verdicts = {"stored": 3, "duplicate": 1, "quarantined": 1, "failed": 1}
    assert found.files == {(kind, verdict): count for verdict, count in verdicts.items()}
    assert found.bytes == {(kind,): sum(outcome.size for outcome in said)}
    assert found.frames == {("north gate", kind): 2, ("", kind): 1}
    assert found.waiting == {("north",): 1}
    assert found.last_success == {("north",): NOW + HOUR + timedelta(seconds=0.25)}
    [durations] = found.durations
    assert dict(zip(DURATION_BOUNDS, durations.counts, strict=True)) == {
        bound: (bound >= 0.25) + (bound >= 20) for bound in DURATION_BOUNDS
    }
    assert (durations.count, durations.sum) == (2, 20.25)
    [lags] = found.lags
    assert (lags.count, lags.counts[LAG_BOUNDS.index(604_800.0)]) == (2, 0)
    instants = [NOW - said[number].facts.captured.local.replace(tzinfo=NOW.tzinfo) for number in (0, 1)]  # type: ignore[union-attr]
    assert lags.sum == sum(instant.total_seconds() + 2 * 3600 for instant in instants)
