"""What the catalog says of the runs so far, added up for those who watch them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import BigInteger, ColumnElement, Select, case, cast, func, select, type_coerce

from blocks._catalog import Catalog
from blocks._schema import FileState, RunStatus, files, images, runs, sources

DURATION_BOUNDS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)
"""Upper bounds, in seconds, of the classes that runs are counted in by their length."""

LAG_BOUNDS = (1.0, 5.0, 15.0, 60.0, 300.0, 3600.0, 21_600.0, 86_400.0, 604_800.0)
"""Upper bounds, in seconds, of the classes that images are counted in by the time from capture to store."""


Figures: TypeAlias = dict[tuple[str, ...], int]
"""A figure for each combination of label values."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values lie at or below each bound, all of them (`count`), and their sum."""

    labels: tuple[str, ...]
    counts: tuple[int, ...]
    count: int
    sum: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures by label values, in the order of the labels.

    `requests`: finished runs by (kind of source, status). `durations`: their seconds, by kind. `files`: files by
    (kind, verdict). `bytes`: bytes that came, by kind. `frames`: images by (camera, kind); what a retention has removed
    counts no more. `lags`: seconds from capture to store, by kind, of images whose capture instant is known. `waiting`:
    files that will be tried again, by source. `last_success`: when a source's last good run ended, by source; UTC.
    """

    requests: Figures
    durations: list[Histogram]
    files: Figures
    bytes: Figures
    frames: Figures
    lags: list[Histogram]
    waiting: Figures
    last_success: dict[tuple[str, ...], datetime]


def read_metrics(catalog: Catalog) -> Metrics:
    """Return the catalog's figures as they stand, all from one moment.

    Raises:
        LibraryUnavailable: the database can not be reached now.
    """
    kind = sources.c.kind
    verdicts = ("stored", "duplicate", "quarantined", "failed")
    with catalog.reading() as connection:
        is_postgres = connection.dialect.name == "postgresql"
        finished = [runs.c.finished_at.is_not(None)]
        requests = connection.execute(
            _by_kind(select(kind, runs.c.status, func.count()).select_from(runs))
            .where(*finished)
            .group_by(kind, runs.c.status)
        )
        sums = connection.execute(
            _by_kind(
                select(kind, *(func.sum(runs.c[name]) for name in (*verdicts, "bytes"))).select_from(runs)
            ).group_by(kind)
        ).all()
        durations = connection.execute(
            _by_kind(select(kind, *_classes(runs.c.seconds, DURATION_BOUNDS)).select_from(runs))
            .where(runs.c.seconds.is_not(None), runs.c.status.not_in([RunStatus.SKIPPED, RunStatus.INACTIVE]))
            .group_by(kind)
        )
        frames = connection.execute(
            select(func.coalesce(images.c.camera, ""), kind, func.count())
            .join_from(images, sources, images.c.source_id == sources.c.id)
            .group_by(images.c.camera, kind)
        )
        lag = _seconds(images.c.stored_at, is_postgres=is_postgres) - _seconds(
            images.c.captured_utc, is_postgres=is_postgres
        )
        lags = connection.execute(
            select(kind, *_classes(lag, LAG_BOUNDS))
            .join_from(images, sources, images.c.source_id == sources.c.id)
            .where(images.c.captured_utc.is_not(None), images.c.captured_utc <= images.c.stored_at)
            .group_by(kind)
        )
        waiting = connection.execute(
            select(sources.c.name, func.count())
            .join_from(files, sources)
            .where(files.c.state.in_([FileState.FAILED, FileState.RETRY]), files.c.vanished_at.is_(None))
            .group_by(sources.c.name)
        )
        good = [RunStatus.SUCCESS, RunStatus.NO_NEW_FILES]
        last_success = connection.execute(
            select(sources.c.name, func.max(runs.c.finished_at))
            .join_from(runs, sources)
            .where(runs.c.status.in_(good))
            .group_by(sources.c.name)
        )
        return Metrics(
            requests={(row[0], row[1]): row[2] for row in requests},
            durations=[_histogram(row) for row in durations],
            files={
                (row[0], verdict): int(count) for row in sums for verdict, count in zip(verdicts, row[1:5], strict=True)
            },
            bytes={(row[0],): int(row[5]) for row in sums},
            frames={(row[0], row[1]): row[2] for row in frames},
            lags=[_histogram(row) for row in lags],
            waiting={(row[0],): row[1] for row in waiting},
            last_success={(row[0],): row[1] for row in last_success},
        )


def _by_kind(query: Select[Any]) -> Select[Any]:
    return query.join(sources, sources.c.id == runs.c.source_id)


def _seconds(instant: ColumnElement[Any], *, is_postgres: bool) -> ColumnElement[Any]:
    if is_postgres:
        return func.extract("epoch", instant)
    return cast(type_coerce(instant, BigInteger), BigInteger) / 1_000_000.0


def _classes(value: ColumnElement[Any], bounds: Sequence[float]) -> list[ColumnElement[Any]]:
    within = [func.sum(case((value <= bound, 1), else_=0)) for bound in bounds]
    return [*within, func.count(), func.sum(value)]


def _histogram(row: Sequence[Any]) -> Histogram:
    kind, *counts, count, total = row
    return Histogram((kind,), tuple(map(int, counts)), count, float(total))
