"""The diff is a set difference: no file is lost to its name, its date or its neighbours."""

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks._catalog_outcomes import MAX_ATTEMPTS
from blocks._records import RemoteFile, make_listing
from tasks._plan import MAX_BATCH_BYTES, Plan, make_plan

KNOWN_SCHEMA = {
    "key": pl.String(),
    "size": pl.Int64(),
    "modified": pl.Datetime("us", "UTC"),
    "validator": pl.String(),
    "state": pl.String(),
    "attempts": pl.Int64(),
    "reason": pl.String(),
    "vanished": pl.Boolean(),
}
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def known(*rows: dict[str, object]) -> pl.DataFrame:
    blank = {"size": None, "modified": None, "validator": None, "state": "stored", "attempts": 0, "reason": None}
    return pl.DataFrame([{**blank, "vanished": False, **row} for row in rows], schema=KNOWN_SCHEMA)


def decide(file: RemoteFile, **row: object) -> str:
    plan = make_plan(make_listing([file]), known({"key": file.key, **row}))
    [*decisions] = plan.decisions["decision"]
    return decisions[0] if decisions else "unchanged"


def test_a_file_is_new_wherever_its_name_and_date_sort() -> None:
    listing = make_listing([RemoteFile("0001.jpg", modified=NOON.replace(year=2001)), RemoteFile("b.jpg")])
    plan = make_plan(listing, known({"key": "b.jpg"}, {"key": "z.jpg"}))
    assert plan.decisions["key"].to_list() == ["0001.jpg"]
    assert plan.vanished.to_list() == ["z.jpg"]


@pytest.mark.parametrize(
    ("listed", "before"),
    [
        (RemoteFile("a.jpg", validator="v2"), {"validator": "v1"}),
        (RemoteFile("a.jpg", size=2), {"size": 1}),
        (RemoteFile("a.jpg", modified=NOON), {"modified": NOON.replace(hour=11)}),
    ],
)
def test_a_file_is_changed_when_any_witness_differs(listed: RemoteFile, before: dict[str, object]) -> None:
    assert decide(listed, **before) == "changed"


def test_a_witness_that_only_one_side_has_proves_no_change() -> None:
    assert decide(RemoteFile("a.jpg", size=5, validator="v1"), modified=NOON) == "unchanged"


@pytest.mark.parametrize("state", ["failed", "retry"])
def test_what_failed_is_tried_again(state: str) -> None:
    assert decide(RemoteFile("a.jpg"), state=state) == "retry"


def test_a_parked_file_stays_until_it_changes() -> None:
    assert decide(RemoteFile("a.jpg", validator="v1"), state="parked", validator="v1") == "unchanged"
    assert decide(RemoteFile("a.jpg", validator="v2"), state="parked", validator="v1") == "changed"


def test_a_file_cut_short_is_tried_again_only_where_the_rest_could_arrive_unseen() -> None:
    cut = {"state": "quarantined", "reason": "truncated", "attempts": 1}
    assert decide(RemoteFile("a.jpg"), **cut) == "retry"
    assert decide(RemoteFile("a.jpg", size=9), size=9, **cut) == "unchanged"
    assert decide(RemoteFile("a.jpg", size=10), size=9, **cut) == "changed"
    assert decide(RemoteFile("a.jpg"), **{**cut, "attempts": MAX_ATTEMPTS}) == "unchanged"


def test_a_file_that_comes_back_is_fetched_unless_the_listing_proves_it_the_same() -> None:
    assert decide(RemoteFile("a.jpg"), vanished=True) == "changed"
    assert decide(RemoteFile("a.jpg", validator="v1"), vanished=True, validator="v1") == "unchanged"
    assert make_plan(make_listing([RemoteFile("a.jpg")]), known({"key": "a.jpg", "vanished": True})).returned.len() == 1


def test_a_file_that_fails_again_and_again_blocks_nobody_and_does_not_starve() -> None:
    bad = [f"bad{number}.jpg" for number in range(20)]
    listing = make_listing(RemoteFile(key) for key in [*bad, *(f"new{number:02}.jpg" for number in range(20))])
    plan = make_plan(listing, known(*({"key": key, "state": "failed"} for key in bad))).take(8)
    assert (plan.count("new"), plan.count("retry"), plan.count("deferred")) == (6, 2, 32)
    assert plan.decisions["decision"].to_list()[:8] == ["new"] * 6 + ["retry"] * 2


def test_a_small_run_is_legible_and_a_large_one_cheap() -> None:
    def sizes(count: int, size: int = 60_000) -> list[int]:
        listing = make_listing(RemoteFile(f"{number}.jpg", size=size) for number in range(count))
        return [len(batch.files) for batch in make_plan(listing, known()).batches()]

    assert sizes(10) == [1] * 10
    assert sizes(10_000) == [200] * 50
    assert max(sizes(100, size=MAX_BATCH_BYTES // 4)) == 4


keys = st.lists(st.text("abc", min_size=1, max_size=2), unique=True, max_size=12)
states = st.sampled_from(["stored", "duplicate", "quarantined", "failed", "parked", "retry"])


@given(listed=keys, before=st.dictionaries(st.text("abc", min_size=1, max_size=2), states), cap=st.integers(1, 8))
def test_every_row_is_in_exactly_one_class(listed: list[str], before: dict[str, str], cap: int) -> None:
    plan = make_plan(make_listing(map(RemoteFile, listed)), known(*({"key": k, "state": s} for k, s in before.items())))
    capped: Plan = plan.take(cap)
    assert capped.planned == min(cap, plan.planned)
    assert capped.planned + capped.count("deferred") + capped.unchanged == len(listed) == capped.listed
    assert set(capped.vanished) == before.keys() - set(listed)
    assert [file.key for batch in capped.batches() for file in batch.files] == capped.decisions["key"].to_list()[
        : capped.planned
    ]
