"""Gaps are told from elapsed time alone: jitter makes none, a change of the clock makes none and hides none."""

from datetime import UTC, date, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks._terminal_addresses import find_offset
from tasks._gaps import bounds_of, find_gaps, learn_cadence, settle_instants

LA = ZoneInfo("America/Los_Angeles")
SUMMER, FORWARD, BACK = date(2025, 9, 1), date(2025, 3, 9), date(2025, 11, 2)


def shots(day: date, *, cadence: int = 600, jitter: int = 60, seed: int = 1, zone: ZoneInfo = LA) -> list[datetime]:
    """Every picture of a whole local day, its seconds varying."""
    start, end = bounds_of(day, day, zone)
    random = Random(seed)
    count = int((end - start).total_seconds()) // cadence
    return [start + timedelta(seconds=cadence * n + random.randint(0, jitter)) for n in range(count)]


@pytest.mark.parametrize(("day", "hours"), [(SUMMER, 24), (FORWARD, 23), (BACK, 25)])
def test_a_whole_day_has_no_gap_however_many_hours_it_has(day: date, hours: int) -> None:
    taken = shots(day)
    assert len(taken) == hours * 6
    assert find_gaps("in_gate", taken, 600, *bounds_of(day, day, LA)) == []


@pytest.mark.parametrize(("day", "hours"), [(SUMMER, 24), (FORWARD, 23), (BACK, 25)])
def test_a_day_without_pictures_is_one_gap_of_all_that_were_due(day: date, hours: int) -> None:
    start, end = bounds_of(day, day, LA)
    [gap] = find_gaps("in_gate", [], 600, start, end)
    assert (gap.start, gap.end, len(gap.missing)) == (start, end, hours * 6)


@pytest.mark.parametrize("day", [SUMMER, FORWARD, BACK])
def test_every_hour_that_is_missing_shows_also_around_a_change_of_the_clock(day: date) -> None:
    taken, (start, end) = shots(day), bounds_of(day, day, LA)
    for first in range(0, len(taken) - 6, 3):
        left = taken[:first] + taken[first + 6 :]
        [gap] = find_gaps("in_gate", left, 600, start, end)
        assert len(gap.missing) == 6, first
        gone = taken[first : first + 6]
        assert all(abs(due - lost) < timedelta(minutes=5) for due, lost in zip(gap.missing, gone, strict=True))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sets(st.integers(0, 143), max_size=60))
def test_missing_pictures_are_counted_one_by_one(seed: int, gone: set[int]) -> None:
    taken = shots(SUMMER, seed=seed)
    left = [instant for number, instant in enumerate(taken) if number not in gone]
    gaps = find_gaps("in_gate", left, 600, *bounds_of(SUMMER, SUMMER, LA))
    found = sum(len(gap.missing) for gap in gaps)
    # The first and the last of a range are told only by its bounds, half a cadence of which is nobody's fault.
    assert len(gone) - 2 <= found <= len(gone)
    if not gone & {0, 143}:
        assert found == len(gone)


def test_a_gap_over_midnight_is_one_and_is_cut_at_the_asked_days() -> None:
    before, after = shots(date(2025, 9, 1))[:-12], shots(date(2025, 9, 2))[12:]
    both = bounds_of(date(2025, 9, 1), date(2025, 9, 2), LA)
    [gap] = find_gaps("in_gate", before + after, 600, *both)
    assert len(gap.missing) == 24
    for day in (1, 2):
        start, end = bounds_of(date(2025, 9, day), date(2025, 9, day), LA)
        [part] = find_gaps("in_gate", before + after, 600, start, end)
        assert len(part.missing) == 12
        assert start <= part.start < part.end <= end


def test_what_is_not_due_yet_is_not_missing() -> None:
    start, _ = bounds_of(SUMMER, SUMMER, LA)
    taken = [instant for instant in shots(SUMMER) if instant < start + timedelta(hours=5)]
    assert find_gaps("in_gate", taken, 600, start, start + timedelta(hours=5)) == []
    [gap] = find_gaps("in_gate", taken, 600, start, start + timedelta(hours=6))
    assert len(gap.missing) == 6


@pytest.mark.parametrize(("cadence", "jitter"), [(600, 60), (60, 10), (300, 100), (3600, 400)])
@pytest.mark.parametrize("share", [1.0, 0.7, 0.5, 0.35])
def test_a_cadence_is_learned_although_pictures_are_missing(cadence: int, jitter: int, share: float) -> None:
    random = Random(7)
    taken = [
        instant
        for day in range(1, 6)
        for instant in shots(date(2025, 9, day), cadence=cadence, jitter=jitter, seed=day)
        if random.random() < share
    ]
    learned = learn_cadence(taken)
    assert learned is not None
    assert abs(learned - cadence) < 0.1 * cadence


def test_pictures_taken_at_random_or_in_bursts_have_no_cadence() -> None:
    random = Random(3)
    start = datetime(2025, 9, 1, tzinfo=UTC)
    at_random = sorted(start + timedelta(seconds=random.uniform(0, 500_000)) for _ in range(800))
    bursts = [
        start + timedelta(seconds=offset + second)
        for offset in sorted(random.uniform(0, 500_000) for _ in range(100))
        for second in range(3)
    ]
    assert learn_cadence(at_random) is None
    assert learn_cadence(bursts) is None
    assert learn_cadence(at_random[:5]) is None
    assert learn_cadence([]) is None


def test_wall_clocks_become_instants_once_where_an_hour_comes_twice() -> None:
    taken = shots(BACK)
    clocks = [instant.astimezone(LA).replace(tzinfo=None, fold=0) for instant in taken]
    assert len(set(clocks)) == len(clocks)
    settled = settle_instants(clocks, [], LA, 600)
    back = sorted(settled.values())
    assert len(back) == 150
    assert find_gaps("in_gate", back, 600, *bounds_of(BACK, BACK, LA)) == []
    pairs = zip(clocks, taken, strict=True)
    left = [clock for clock, instant in pairs if find_offset(instant, LA) == -420 or clock.hour > 1]
    gaps = find_gaps("in_gate", sorted(settle_instants(left, [], LA, 600).values()), 600, *bounds_of(BACK, BACK, LA))
    assert sum(len(gap.missing) for gap in gaps) == 6
