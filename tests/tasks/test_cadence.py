"""What can be learned of a camera's rhythm from one day, and what of the next day's names it tells."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from blocks._terminal_addresses import PictureAddress, find_instants, local_day
from blocks._terminal_cdn import Sight
from tasks._cadence import FEWEST, Rhythm
from tasks._probing import Probing, Purse
from tests.servers.terminal_cdn import TYPICAL, ZONE, after_a_pause, by_the_clock, on_day

DAYS = [date(2025, 9, 1), date(2025, 9, 2), date(2025, 9, 3)]
MUCH_LATER = datetime(2026, 1, 1, tzinfo=UTC)


def seconds(moments: Sequence[datetime]) -> list[int]:
    return [int(moment.timestamp()) for moment in moments]


def find_day(known: Sequence[datetime], taken: Sequence[datetime], day: date, budget: int = 3) -> tuple[float, float]:
    """Return which share of a day's pictures is found from what is known, and the probes a picture."""
    there = set(on_day(taken, day))

    def look(address: PictureAddress) -> Sight | None:
        return Sight(None, None) if there & set(find_instants(address.local, ZONE)) else None

    rhythm = Rhythm.learn(seconds(known))
    assert rhythm is not None
    start, end = seconds(local_day(day, ZONE))
    beats = rhythm.beats_between(start, end)
    probing = Probing(look, "in_gate", ZONE, remembered=[], purse=Purse(10_000), thumbnail_share=0.02, now=MUCH_LATER)
    probing.allowance = budget * len(beats)
    probing.walk(rhythm, beats, start, end)
    assert probing.probes <= budget * len(beats)
    assert abs(len(beats) - len(there)) <= 1 + 0.1 * len(there)
    return len(probing.sightings) / len(there), probing.probes / len(there)


CAMERAS: list[tuple[str, Any]] = [
    ("typical delays", lambda seed: by_the_clock(DAYS, seed=seed)),
    ("one picture in twenty missing", lambda seed: by_the_clock(DAYS, seed=seed, missing=0.05)),
    ("a clock that drifts", lambda seed: by_the_clock(DAYS, seed=seed, drift_seconds_a_day=7)),
    ("a clock that drifts fast", lambda seed: by_the_clock(DAYS, seed=seed, drift_seconds_a_day=-40)),
    ("a phase that wanders", lambda seed: by_the_clock(DAYS, {2: 0.6, 3: 0.3, 5: 0.1}, seed=seed, wander_seconds=0.15)),
    ("a pause after each picture", lambda seed: after_a_pause(DAYS, seed=seed)),
    (
        "a pause with uneven delays",
        lambda seed: after_a_pause(DAYS, {1: 0.1, 2: 0.35, 3: 0.3, 4: 0.2, 6: 0.05}, seed=seed),
    ),
    ("four seconds, all alike", lambda seed: by_the_clock(DAYS, dict.fromkeys(range(5, 9), 1.0), seed=seed)),
    ("a picture in five minutes", lambda seed: by_the_clock(DAYS, seed=seed, step_seconds=300)),
]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in CAMERAS])
def test_one_learned_day_tells_95_percent_of_the_next_within_three_probes_a_picture(make: Any, seed: int) -> None:
    taken = make(seed)
    share, probes = find_day(on_day(taken, DAYS[0]), taken, DAYS[1])
    assert share >= 0.95
    assert probes <= 3 * 1.12  # a picture that is missing is looked for, too


@pytest.mark.parametrize(("width", "least"), [(6, 0.7), (8, 0.5), (12, 0.3), (20, 0.15)])
def test_seconds_without_any_pattern_are_found_as_far_as_the_budget_reaches(width: int, least: float) -> None:
    """A second out of N takes (N + 1) / 2 probes: with three a picture no method finds more than 6 / (N + 1)."""
    taken = by_the_clock(DAYS, dict.fromkeys(range(5, 5 + width), 1.0))
    share, _ = find_day(on_day(taken, DAYS[0]), taken, DAYS[1])
    assert least <= share
    whole, _ = find_day(on_day(taken, DAYS[0]), taken, DAYS[1], budget=width)
    assert whole >= 0.95


def test_a_month_away_a_camera_by_the_clock_is_still_told() -> None:
    month = [date(2025, 9, 1) + timedelta(days=number) for number in range(31)]
    taken = by_the_clock(month)
    share, _ = find_day(on_day(taken, month[0]), taken, month[-1])
    assert share >= 0.95
    back, _ = find_day(on_day(taken, month[-1]), taken, month[0])
    assert back >= 0.95


@pytest.mark.parametrize("day", [date(2025, 3, 9), date(2025, 11, 2)])
def test_a_change_of_clocks_has_no_part_in_the_rhythm(day: date) -> None:
    days = [day - timedelta(days=1), day]
    taken = by_the_clock(days)
    names = {moment.astimezone(ZONE).replace(tzinfo=None, fold=0) for moment in on_day(taken, day)}
    share, _ = find_day(on_day(taken, days[0]), taken, day)
    # two pictures of one name are one picture
    assert share >= 0.95 * len(names) / len(on_day(taken, day))


def test_too_little_is_learned_from_as_nothing() -> None:
    taken = seconds(by_the_clock(DAYS[:1]))
    assert Rhythm.learn([]) is None
    assert Rhythm.learn(taken[: FEWEST - 1]) is None
    assert Rhythm.learn(taken[:FEWEST]) is not None
    assert Rhythm.learn([number * number * 977 for number in range(FEWEST)]) is None


def test_a_camera_by_the_clock_is_told_from_one_that_has_to_be_followed() -> None:
    steady, pausing = Rhythm.learn(seconds(by_the_clock(DAYS[:1]))), Rhythm.learn(seconds(after_a_pause(DAYS[:1])))
    assert steady is not None
    assert pausing is not None
    assert (steady.is_steady, pausing.is_steady) == (True, False)
    assert steady.step_seconds == 600
    assert pausing.step_seconds == pytest.approx(602, abs=0.3)


def test_what_is_told_are_likelihoods_the_typical_delays_first() -> None:
    taken = by_the_clock(DAYS[:1])
    rhythm = Rhythm.learn(seconds(taken))
    assert rhythm is not None
    start, end = seconds(local_day(DAYS[1], ZONE))
    [beat, *_] = rhythm.beats_between(start, end)
    told = rhythm.tell(beat)
    likelihoods = [likelihood for likelihood, _ in told]
    assert likelihoods == sorted(likelihoods, reverse=True)
    assert 0.9 < sum(likelihoods) <= 1 + 1e-9
    assert [moment - start - 20 for _, moment in told[:2]] == list(TYPICAL)[:2]
