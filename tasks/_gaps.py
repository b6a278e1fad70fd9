"""When a camera that takes pictures at regular times took none: its cadence, and the intervals without a picture.

Instants are aware; everything is counted in elapsed time, so that days of 23 and 25 hours need no care.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from statistics import fmean
from zoneinfo import ZoneInfo

from blocks._terminal_addresses import find_instants, local_day

TOLERANCE = 1.5
"""So many cadences without a picture are a gap: fewer is the jitter of a camera."""

_FEWEST = 5
"""Fewer intervals than this teach no cadence."""

_NEAR = 0.25
"""Intervals that differ by less than this share of theirs count as the same."""

_REGULAR = 0.25
"""At least this share of the intervals is regular: of pictures taken at random it is under 0.19, a camera of which
every third picture came has 0.33."""

_ROUND = 0.01
"""An interval that is this near to whole minutes, as a share of it, is meant to be so."""

_COVERED = 0.05
"""At least this share of the time lies in regular intervals, or they are those within bursts; the longest intervals,
one in twenty, are outages and do not count."""


@dataclass(frozen=True, slots=True)
class Gap:
    """An interval in which pictures were due and none is here.

    `start`, `end`: aware, the pictures before and after it, or the bounds of what was asked for; `missing`: when
    pictures were due, as far as a cadence can tell.
    """

    stream: str
    start: datetime
    end: datetime
    missing: tuple[datetime, ...]


def learn_cadence(instants: Sequence[datetime]) -> float | None:
    """Return the seconds between two pictures of a camera, from pictures in order; None where there is no cadence.

    It is the most frequent interval, so missing pictures do not stretch it.
    """
    intervals = sorted((after - before).total_seconds() for before, after in pairwise(instants))
    intervals = [seconds for seconds in intervals if seconds > 0]
    if len(intervals) < _FEWEST:
        return None
    first, last, regular = 0, 0, intervals[:0]
    for middle in intervals:
        while intervals[first] < middle * (1 - _NEAR):
            first += 1
        while last < len(intervals) and intervals[last] <= middle * (1 + _NEAR):
            last += 1
        if last - first > len(regular):
            regular = intervals[first:last]
    usual = intervals[: -max(1, len(intervals) // 20)]
    if len(regular) < _REGULAR * len(intervals) or sum(regular) < _COVERED * sum(usual):
        return None
    cadence = fmean(regular)  # what jitter adds to one it takes from the next; a median keeps it
    # Cameras are set to whole minutes; a second off would add up to pictures that were never due.
    minutes = 60.0 * round(cadence / 60)
    return minutes if abs(cadence - minutes) < _ROUND * cadence else round(cadence, 2)


def find_gaps(stream: str, instants: Sequence[datetime], cadence: float, start: datetime, end: datetime) -> list[Gap]:
    """Return where between `start` and `end` more than `TOLERANCE` cadences passed without one of the `instants`.

    `instants`: in order; those shortly before `start` and after `end` tell whether a gap begins or goes on there. A
    day without any picture is one gap.
    """
    step = timedelta(seconds=cadence)
    before = [instant for instant in instants if instant < start][-1:]
    after = [instant for instant in instants if instant >= end][:1]
    if end <= start:
        return []
    inside = [instant for instant in instants if start <= instant < end]
    marks = [*before, *inside, *after]
    gaps = []
    if not before:
        gaps.append(Gap(stream, start, min([*marks[:1], end]), _count_back(marks, step, start, end)))
    for left, right in pairwise(marks):
        gaps.append(Gap(stream, max(left, start), min(right, end), _divide(left, right, step, start, end)))
    if marks and not after:
        gaps.append(Gap(stream, max(marks[-1], start), end, _count_on(marks[-1], step, start, end)))
    return [gap for gap in gaps if gap.missing]


def _divide(left: datetime, right: datetime, step: timedelta, start: datetime, end: datetime) -> tuple[datetime, ...]:
    """Return when pictures were due between two that are here."""
    if right - left <= TOLERANCE * step:
        return ()
    parts = max(2, round((right - left) / step))
    dues = (left + (right - left) * number / parts for number in range(1, parts))
    return tuple(due for due in dues if start <= due < end)


def _count_back(marks: Sequence[datetime], step: timedelta, start: datetime, end: datetime) -> tuple[datetime, ...]:
    """Return when pictures were due before the first that is here, or where there is none, all along."""
    if not marks:
        whole = round((end - start) / step)
        return tuple(start + (end - start) * (number + 0.5) / whole for number in range(whole))
    if marks[0] - start <= TOLERANCE * step:
        return ()
    dues = (marks[0] - step * number for number in range(1, int((marks[0] - start) / step) + 1))
    return tuple(sorted(due for due in dues if start <= due < end))


def _count_on(last: datetime, step: timedelta, start: datetime, end: datetime) -> tuple[datetime, ...]:
    """Return when pictures were due after the last that is here."""
    if end - last <= TOLERANCE * step:
        return ()
    dues = (last + step * number for number in range(1, int((end - last) / step) + 1))
    return tuple(due for due in dues if start <= due < end)


def days_between(start: date, end: date) -> list[date]:
    """Return every date from `start` to `end`, both included."""
    return [start + timedelta(days=number) for number in range((end - start).days + 1)]


def find_ranges(days: Iterable[date]) -> list[tuple[date, date]]:
    """Return the first and last date of every run of successive `days`, which come in order."""
    ranges: list[tuple[date, date]] = []
    for day in days:
        if ranges and day - ranges[-1][1] == timedelta(days=1):
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges


def bounds_of(start: date, end: date, zone: ZoneInfo | None) -> tuple[datetime, datetime]:
    """Return the instants between which the local dates `start` to `end` lie, the end excluded.

    Without a zone dates have 24 hours, and a camera's clock is read as if it showed UTC.
    """
    return local_day(start, zone or ZoneInfo("UTC"))[0], local_day(end, zone or ZoneInfo("UTC"))[1]


def settle_instants(
    locals_: Iterable[datetime], known: Iterable[datetime], zone: ZoneInfo | None, cadence: float | None
) -> dict[datetime, datetime]:
    """Return the instant (UTC) that each wall-clock time means; where it never was on the clock, as if it had been.

    In the hour that the clock shows twice it is the first time round, unless within half a cadence of it there is a
    picture already, one of `known` or of an earlier name: then it is the second.
    """
    settled: dict[datetime, datetime] = {}
    taken = sorted(known)
    near = timedelta(seconds=(cadence or 0) / 2)
    for local in sorted(locals_):
        if zone is None:
            settled[local] = local.replace(tzinfo=UTC)
            continue
        first, *second = find_instants(local, zone) or [local.replace(tzinfo=zone).astimezone(UTC)]
        is_twice = bool(second) and cadence is not None
        if is_twice and _is_crowded(first, taken, near) and not _is_crowded(second[0], taken, near):
            first = second[0]
        settled[local] = first
        if second:
            taken.append(first)
    return settled


def _is_crowded(instant: datetime, taken: Sequence[datetime], near: timedelta) -> bool:
    return any(abs(other - instant) < near for other in taken)
