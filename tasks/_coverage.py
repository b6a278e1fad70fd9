"""What came of the pictures of some days: figures for every date and camera, and where pictures are missing.

Everything is computed from the catalog, so that it can be printed again at any time.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from blocks._catalog import Catalog
from blocks._catalog_captures import (
    FileRow,
    SearchRow,
    SourceRow,
    iter_attempts_around,
    iter_files_around,
    read_paces,
    read_searches,
    read_sources,
)
from blocks._errors import WrongUse
from blocks._records import Quality
from blocks._terminal_addresses import parse_picture_address
from tasks._filename import parse_file_name
from tasks._gaps import Gap, bounds_of, days_between, find_gaps, find_ranges, learn_cadence, settle_instants

_LEARNED = timedelta(days=14)
"""So long before the asked dates a cadence is learned from."""

_MARGIN = timedelta(days=2)
"""Wall clocks are never further from UTC, or from each other, than this."""


@dataclass(frozen=True, slots=True)
class DayCoverage:
    """What came of one camera's pictures of one local date: found = already there + downloaded + thumbnails + failed.

    `found`: pictures that are known to exist. `already_there`: in full since before the run that is reported on.
    `thumbnails`: here only as thumbnails. `failed`: not here, by reason. `missing`: due by the cadence and not here,
    and `expected` with them and those here; None where no cadence is known. `bytes` came, in `seconds` of the runs'
    time. `probes`: names tried at the source, `hits` of them pictures. `message`: why the date itself failed.
    """

    day: date
    stream: str
    found: int = 0
    already_there: int = 0
    downloaded: int = 0
    thumbnails: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    missing: int | None = None
    bytes: int = 0
    seconds: float = 0.0
    probes: int = 0
    hits: int = 0
    message: str | None = None

    @property
    def expected(self) -> int | None:
        """Return how many pictures there should be by the cadence; None where that is not known."""
        return None if self.missing is None else self.present + self.missing

    @property
    def present(self) -> int:
        """Return how many pictures are here, in full or as thumbnails."""
        return self.already_there + self.downloaded + self.thumbnails

    @property
    def requested(self) -> int:
        """Return how many pictures were to be had: those expected, or those found where these are more."""
        return max(self.found, self.expected or 0)

    @property
    def success_rate(self) -> float | None:
        """Return which share of the requested pictures is here in full, 0-1; None where none was to be had."""
        return (self.already_there + self.downloaded) / self.requested if self.requested else None

    @property
    def hit_rate(self) -> float | None:
        """Return which share of the probes found a picture, 0-1; None where none was spent."""
        return self.hits / self.probes if self.probes else None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a plain mapping, with those that follow from them."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in {"day", "stream"}}
        derived = {name: getattr(self, name) for name in ("requested", "expected", "success_rate", "hit_rate")}
        told = own | derived | {"failed": sum(self.failed.values()), "failed_by_reason": dict(self.failed)}
        told["seconds"] = round(self.seconds, 3)
        return {"date": self.day.isoformat(), "stream": self.stream} | {name: told[name] for name in _FIGURES}


_FIGURES = ("requested", "expected", "found", "already_there", "downloaded", "thumbnails", "failed",
            "failed_by_reason", "missing", "bytes", "seconds", "success_rate", "probes", "hits", "hit_rate",
            "message")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Coverage:
    """What came of a source's pictures from `start` to `end`, local dates in `zone`, both included.

    `run_id`: the run whose doing is told; None: all runs together. `until`: aware, up to when pictures were due.
    `cadences`: seconds between two pictures by camera, None where there is none. `seconds`: of the runs concerned.
    """

    source: str
    run_id: int | None
    start: date
    end: date
    zone: ZoneInfo | None
    until: datetime
    cadences: Mapping[str, float | None]
    days: tuple[DayCoverage, ...]
    gaps: tuple[Gap, ...]
    stored_as: str | None = None

    @property
    def total(self) -> DayCoverage:
        """Return the sum over all dates and cameras, dated by the first."""
        added = ("found", "already_there", "downloaded", "thumbnails", "bytes", "seconds", "probes", "hits")
        sums: dict[str, Any] = {name: sum(getattr(day, name) for day in self.days) for name in added}
        known = [day.missing for day in self.days if day.missing is not None]
        failed: Counter[str] = Counter()
        for day in self.days:
            failed.update(day.failed)
        return DayCoverage(self.start, "", **sums, failed=dict(failed), missing=sum(known) if known else None)

    @property
    def irregular(self) -> list[str]:
        """Return the cameras of which no cadence is known, so that nothing can be missed there."""
        return [stream or "(no camera)" for stream, cadence in self.cadences.items() if cadence is None]

    @property
    def summary(self) -> str:
        """Return one line for people: how much is here."""
        total = self.total
        days = str(self.start) if self.start == self.end else f"{self.start} to {self.end}"
        told = f"{self.source}, {days}: {total.present:,} of {total.requested:,} pictures are here"
        if total.thumbnails:
            told += f", {total.thumbnails:,} of them as thumbnails"
        if total.failed:
            told += f"; {sum(total.failed.values()):,} failed"
        if self.gaps:
            told += f"; {len(self.gaps)} gap{'s' if len(self.gaps) > 1 else ''}, {total.missing or 0:,} missing"
        return told

    def show_instant(self, instant: datetime) -> str:
        """Return an instant as the place's clock shows it, with its offset; without one where the zone is not known."""
        if self.zone is None:
            return instant.replace(tzinfo=None).isoformat(" ", "seconds")
        return instant.astimezone(self.zone).isoformat(" ", "seconds")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        total = self.total.to_dict()
        return {
            "source": self.source,
            "run_id": self.run_id,
            "from": self.start.isoformat(),
            "to": self.end.isoformat(),
            "zone": str(self.zone) if self.zone else None,
            "until": self.show_instant(self.until).replace(" ", "T"),
            "cadence_seconds": dict(self.cadences),
            "total": {name: total[name] for name in _FIGURES if name != "message"},
            "days": [day.to_dict() for day in self.days],
            "gaps": [self.describe_gap(gap) for gap in self.gaps],
        }

    def describe_gap(self, gap: Gap) -> dict[str, Any]:
        """Return a gap as JSON has it, in the place's time."""
        start, end = (self.show_instant(instant).replace(" ", "T") for instant in (gap.start, gap.end))
        seconds = (gap.end - gap.start).total_seconds()
        return {"stream": gap.stream, "from": start, "to": end, "seconds": seconds, "missing": len(gap.missing)}


@dataclass(frozen=True, slots=True)
class Picture:
    """A file of the source, the camera it is of, and the instant (aware) its picture was taken."""

    row: FileRow
    stream: str
    instant: datetime


@dataclass(frozen=True, slots=True)
class Effort:
    """What runs did about one file: bytes that came, their share of the runs' time, and whether one kept it."""

    size: int
    seconds: float
    is_kept: bool


def measure_coverage(
    catalog: Catalog,
    source_name: str,
    run_id: int | None,
    start: date,
    end: date,
    zone: ZoneInfo | None,
    streams: Sequence[str] | None = None,
    cadence: float | None = None,
    *,
    now: datetime,
    days: Collection[date] | None = None,
) -> Coverage:
    """Return what came of the pictures of `source_name` from `start` to `end`, as the catalog tells.

    `zone`: whose dates these are; None: dates by the camera's own clock. `streams`: the cameras that were asked for,
    in this order; None: all that are found. `cadence`: seconds between two pictures; None: learned from what is here.
    `days`: the only dates between the two that were asked for; None: all.

    Raises:
        WrongUse: the catalog knows no such source, or the dates are the wrong way round.
    """
    if end < start:
        raise WrongUse(f"{start} is after {end}: give the earlier date first.")
    source_id = find_source(catalog, source_name).id
    window = (
        datetime.combine(start, time()) - _LEARNED - _MARGIN,
        datetime.combine(end, time()) + timedelta(days=1) + _MARGIN,
    )
    asked = [day for day in days_between(start, end) if days is None or day in days]
    opens, closes = bounds_of(start, end, zone)
    until = max(opens, min(closes, now))
    spans = [bounds_of(first, last, zone) for first, last in find_ranges(asked)]
    sightings: defaultdict[str, list[_Sighting]] = defaultdict(list)
    for row in iter_files_around(catalog, source_id, *window):
        sighting = _look_at(row, zone)
        if window[0] <= sighting.local < window[1]:
            sightings[sighting.stream].append(sighting)
    searched = {(row.day, row.stream): row for row in read_searches(catalog, source_id, start, end, run_id)}
    pictures: list[Picture] = []
    cadences: dict[str, float | None] = {}
    for stream in streams or sorted({*sightings, *(row.stream for row in searched.values())}):
        settled, cadences[stream] = _settle(stream, sightings[stream], zone, cadence)
        pictures += settled
    gaps = [
        gap
        for stream, each in cadences.items()
        if each is not None
        for span_start, span_end in spans
        for gap in find_gaps(stream, _instants_here(pictures, stream), each, span_start, min(span_end, until))
    ]
    efforts = read_efforts(catalog, source_id, run_id, *window)
    missing = Counter((_date_of(due, zone), gap.stream) for gap in gaps for due in gap.missing)
    daily: defaultdict[tuple[date, str], list[Picture]] = defaultdict(list)
    for picture in pictures:
        daily[_date_of(picture.instant, zone), picture.stream].append(picture)
    counted = (
        DayCoverage(
            day,
            stream,
            missing=None if cadences[stream] is None else missing[day, stream],
            **_count(daily[day, stream], efforts, is_of_one_run=run_id is not None),
            **_tell_search(searched.get((day, stream))),
        )
        for day in asked
        for stream in cadences
    )
    return Coverage(source_name, run_id, start, end, zone, until, cadences, tuple(counted), tuple(gaps))


def find_source(catalog: Catalog, name: str) -> SourceRow:
    """Return the source `name` as the catalog knows it.

    Raises:
        WrongUse: it knows none of that name.
    """
    known = {row.name: row for row in read_sources(catalog)}
    if name not in known:
        raise WrongUse(f"The catalog knows no source {name!r}; it knows {', '.join(known) or 'none yet'}.")
    return known[name]


def read_efforts(
    catalog: Catalog, source_id: int, run_id: int | None, since: datetime, until: datetime
) -> dict[str, Effort]:
    """Return what one run, or with None all of them, did about the files around some days, by key.

    A run's time is divided among its files: what passed between two of its batches belongs to the files of the second.
    """
    attempts = list(iter_attempts_around(catalog, source_id, since, until, run_id))
    shares: dict[tuple[int, datetime], float] = {}
    for run, pace in read_paces(catalog, {attempt.run_id for attempt in attempts}).items():
        for (before, _), (at, count) in pairwise(pace):
            shares[run, at] = (at - before).total_seconds() / count
    efforts: dict[str, Effort] = {}
    for attempt in attempts:
        so_far = efforts.get(attempt.key, Effort(0, 0.0, is_kept=False))
        seconds = so_far.seconds + shares[attempt.run_id, attempt.at]
        efforts[attempt.key] = Effort(so_far.size + attempt.size, seconds, so_far.is_kept or attempt.is_kept)
    return efforts


@dataclass(frozen=True, slots=True)
class _Sighting:
    """A file and when its picture was taken: by the wall clock, and if it is certain the instant."""

    row: FileRow
    stream: str
    local: datetime
    instant: datetime | None


def _look_at(row: FileRow, zone: ZoneInfo | None) -> _Sighting:
    """Return when and by which camera a file was taken: its own image tells, or else its name.

    An image that was first seen elsewhere tells nothing: a camera that hangs sends the same bytes at several times.
    """
    if row.is_own and row.captured_local is not None:
        is_certain = (row.extra or {}).get("repeated_hour") != "assumed"
        instant = row.captured_local.replace(tzinfo=UTC) if zone is None else row.captured_utc if is_certain else None
        return _Sighting(row, row.camera or "", row.captured_local, instant)
    name = row.key.rpartition("/")[2]
    if address := parse_picture_address(name):
        return _Sighting(row, address.stream, address.local, None)
    named = parse_file_name(name)
    if named.local is not None:
        return _Sighting(row, named.camera or row.camera or "", named.local, None)
    if row.captured_local is not None:
        instant = row.captured_utc if zone is not None else row.captured_local.replace(tzinfo=UTC)
        return _Sighting(row, row.camera or "", row.captured_local, instant)
    return _Sighting(row, "", row.attempted_at.replace(tzinfo=None), row.attempted_at)


def _settle(
    stream: str, sightings: Sequence[_Sighting], zone: ZoneInfo | None, cadence: float | None
) -> tuple[list[Picture], float | None]:
    """Return a camera's pictures in order, each with its instant, and the seconds between two of them."""
    known = [sighting.instant for sighting in sightings if sighting.instant is not None]
    open_ones = {sighting.local for sighting in sightings if sighting.instant is None}
    if cadence is None:
        rough = settle_instants(open_ones, known, zone, None)
        cadence = learn_cadence(sorted({*known, *rough.values()}))
    settled = settle_instants(open_ones, known, zone, cadence)
    pictures = (Picture(each.row, stream, each.instant or settled[each.local]) for each in sightings)
    return sorted(pictures, key=lambda picture: (picture.instant, picture.row.key)), cadence


def _instants_here(pictures: Iterable[Picture], stream: str) -> list[datetime]:
    return [picture.instant for picture in pictures if picture.stream == stream and picture.row.sha256 is not None]


def _count(pictures: Iterable[Picture], efforts: Mapping[str, Effort], *, is_of_one_run: bool) -> dict[str, Any]:
    """Return the figures of one camera's pictures of one day."""
    figures: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    size, seconds = 0, 0.0
    for picture in pictures:
        row, effort = picture.row, efforts.get(picture.row.key)
        figures["found"] += 1
        if effort is not None:
            size, seconds = size + effort.size, seconds + effort.seconds
        if row.sha256 is None:
            failed[row.reason or row.state] += 1
        elif row.quality == Quality.THUMBNAIL:
            figures["thumbnails"] += 1
        elif is_of_one_run and not (effort and effort.is_kept):
            figures["already_there"] += 1
        else:
            figures["downloaded"] += 1
    return {**figures, "failed": dict(failed), "bytes": size, "seconds": seconds}


def _tell_search(row: SearchRow | None) -> dict[str, Any]:
    return {} if row is None else {"probes": row.probes, "hits": row.hits, "message": row.message}


def _date_of(instant: datetime, zone: ZoneInfo | None) -> date:
    return instant.astimezone(zone or UTC).date()
