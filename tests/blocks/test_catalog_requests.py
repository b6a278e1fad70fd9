"""Images are found by what was said of them, and runs by how they stand as requests, on both databases alike."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from blocks._catalog import Catalog, open_catalog
from blocks._catalog_queries import list_images, list_runs
from blocks._catalog_requests import RequestState, describe_files, find_run
from blocks._errors import WrongUse
from blocks._schema import RunStatus
from tests.blocks.catalog_writer import NOW, begin, failed, make_facts, quarantined, stored


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with open_catalog(catalog_url) as catalog:
        yield catalog


def keep(catalog: Catalog, *said: Any) -> None:
    """Store an image for each thing said of one, in order."""
    run_id, source_id = begin(catalog)
    outcomes = [stored(n, facts=replace(make_facts(n), extra=extra)) for n, extra in enumerate(said)]
    catalog.record_outcomes(run_id, source_id, outcomes, now=NOW)


def found(catalog: Catalog, **meta: str) -> set[int]:
    """Return the numbers of the images of which `meta` was said."""
    return {row["size"] - 60_000 for row in list_images(catalog, meta=meta, limit=None)}


def test_values_are_compared_as_people_write_them(catalog: Catalog) -> None:
    keep(
        catalog,
        {"lap": 12, "session": "FP1", "wet": True, "exposure": 0.01, "none": None},
        {"lap": "12", "session": "FP2", "wet": "true", "exposure": 1.0},
        {"lap": 120, "session": "fp1", "wet": False, "exposure": 1e-7, "none": "null"},
        None,
        {"lap": [12], "session": {"a": "FP1"}, "exposure": 123456789012345},
    )
    assert found(catalog, lap="12") == {0, 1}
    assert found(catalog, lap="12.0") == {0}
    assert found(catalog, session="FP1") == {0}
    assert found(catalog, session="FP1", lap="12") == {0}
    assert found(catalog, session="FP1", lap="13") == set()
    assert found(catalog, wet="true") == {0, 1}
    assert found(catalog, wet="false") == {2}
    assert found(catalog, wet="1") == found(catalog, wet="text") == found(catalog, lap="[12]") == set()
    assert found(catalog, exposure="0.010") == {0}
    assert found(catalog, exposure="1") == {1}
    assert found(catalog, exposure="1e-07") == {2}
    assert found(catalog, exposure="123456789012345") == {4}
    assert found(catalog, exposure="nan") == found(catalog, exposure="") == set()
    assert found(catalog, none="null") == {0, 2}
    assert found(catalog, nothing="x") == set()


@pytest.mark.parametrize(
    "key",
    [
        "it's",
        'quo"te',
        "$.lap",
        "a.b",
        "[0]",
        "%s",
        ":key",
        "ü 鳥",
        "a\\b",
        "{a,b}",
        "' OR 1=1 --",
        "\u202ex",
        "x" * 100,
    ],
)
def test_any_key_and_value_is_found_and_none_is_read_as_a_path_or_as_sql(catalog: Catalog, key: str) -> None:
    keep(catalog, {key: key}, {"other": key, "lap": 1, "a": {"b": key}}, [key])
    assert found(catalog, **{key: key}) == {0}
    assert found(catalog, **{key: "else"}) == set()


@pytest.mark.parametrize(
    ("kind", "outcomes", "status", "state"),
    [
        ("upload", [stored(1)], RunStatus.SUCCESS, RequestState.COMPLETED),
        ("upload", [stored(1), failed("a.jpg")], RunStatus.PARTIAL, RequestState.PARTIAL),
        ("upload", [failed("a.jpg"), quarantined("b.jpg")], RunStatus.PARTIAL, RequestState.FAILED),
        ("drop-folder", [failed("a.jpg"), quarantined("b.jpg")], RunStatus.PARTIAL, RequestState.FAILED),
        ("drop-folder", [stored(1), quarantined("b.jpg")], RunStatus.PARTIAL, RequestState.PARTIAL),
        ("drop-folder", [], RunStatus.NO_NEW_FILES, RequestState.COMPLETED),
        ("http-directory", [failed("a.jpg")], RunStatus.PARTIAL, RequestState.PARTIAL),
        ("upload", [stored(1)], RunStatus.CANCELLED, RequestState.CANCELLED),
        ("upload", [stored(1)], RunStatus.FAILED, RequestState.FAILED),
        ("upload", [], RunStatus.NO_NEW_FILES, RequestState.COMPLETED),
        ("upload", [stored(1)], None, RequestState.IN_PROGRESS),
    ],
)
def test_a_run_stands_as_its_request_and_is_found_by_it(
    catalog: Catalog, kind: str, outcomes: list[Any], status: RunStatus | None, state: RequestState
) -> None:
    source_id = catalog.ensure_source("cam", kind, "root", now=NOW)
    run_id = catalog.begin_run(source_id, "0b8f2c1e", now=NOW)
    catalog.record_outcomes(run_id, source_id, outcomes, now=NOW)
    if status is not None:
        catalog.finish_run(run_id, status, now=NOW)
    [run] = list_runs(catalog)
    assert run["state"] == state
    assert [row["run_id"] for row in list_runs(catalog, status=state)] == [run_id]
    is_status_alone = run["status"] not in set(RequestState)
    assert not is_status_alone or [row["run_id"] for row in list_runs(catalog, status=run["status"])] == [run_id]
    others = set(RequestState) - {state}
    assert [row for other in sorted(others) for row in list_runs(catalog, status=other)] == []
    assert find_run(catalog, "0b8f2c1e") == run_id
    assert find_run(catalog, "another") is None


def test_an_unknown_status_is_refused_and_the_known_ones_are_named(catalog: Catalog) -> None:
    with pytest.raises(WrongUse, match="in_progress"):
        list_runs(catalog, status="nonsense")


def test_how_files_stand_is_told_by_key_for_any_number_of_them(catalog: Catalog) -> None:
    run_id, source_id = begin(catalog, "gate")
    names = [f"{number}.jpg" for number in range(2_500)]
    random.Random(1).shuffle(names)
    said = [stored(number, name) for number, name in enumerate(names)]
    catalog.record_outcomes(run_id, source_id, [*said, failed("bad.jpg")], now=NOW)
    known = describe_files(catalog, "gate", [*names, "bad.jpg", "unknown.jpg"])
    assert set(known) == {*names, "bad.jpg"}
    assert (known["bad.jpg"]["state"], known["bad.jpg"]["reason"]) == ("failed", "timeout")
    assert describe_files(catalog, "another", names) == {}
