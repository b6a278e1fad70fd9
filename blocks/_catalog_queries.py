"""What people ask of a catalog: which images, which runs, how the sources stand. Plain dicts, instants aware UTC."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, exists, func, or_, select

from blocks._catalog import Catalog, find_source
from blocks._catalog_outcomes import KEPT
from blocks._catalog_requests import has_status, request_state, says
from blocks._errors import WrongUse
from blocks._schema import FileState, files, images, locations, outcomes, runs, sources

Row = dict[str, Any]

VANISHED = "vanished"
"""Beside the values of `FileState`, what `list_images` takes as a status."""

_PAGE = 5_000
_FETCHED = 500
"""Rows asked of the database at a time, so that what is shown of a million costs no more memory than of a few."""

_CANDIDATES = 10

_last_seen = case(
    (files.c.vanished_at.is_not(None), files.c.last_seen),
    (sources.c.last_listed_at > files.c.last_seen, sources.c.last_listed_at),
    else_=files.c.last_seen,
).label("last_seen")


def list_images(catalog: Catalog, *, limit: int | None = 50, **wanted: Any) -> list[Row]:
    """Return the first `limit` images or files of `iter_images`, which takes the same questions."""
    return list(iter_images(catalog, limit=limit, **wanted))


def iter_images(
    catalog: Catalog,
    *,
    source: str | None = None,
    camera: str | None = None,
    location: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    status: str | None = None,
    meta: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> Iterator[Row]:
    """Yield images, the newest capture first, or with a `status` other than `stored` the files that stand so.

    An image is one row, with the source and key where it was first seen, or with its first key in `source` where that
    is asked for. `since` <= capture < `until`, naive, by the camera's own clock. `captured_at` is ISO 8601, with an
    offset only where the camera's is known. `meta`: only images of which what is kept in `extra` says so, by key.

    A file is one row, the last attempted first, with its reason and message; `since` and `until` are then aware and
    compared with the last attempt (`vanished`: with when it was missed).

    Raises:
        WrongUse: there is no such source, location or status, or a date has a zone where none fits, or lacks one.
    """
    states = [*(state.value for state in FileState), VANISHED]
    if status is not None and status not in states:
        raise WrongUse(f"There is no status {status!r}; choose one of {', '.join(states)}.")
    is_about_files = status not in {None, FileState.STORED}
    for moment in (since, until):
        if moment is not None and (moment.tzinfo is not None) != is_about_files:
            raise WrongUse(
                "Attempts are dated in aware instants: give the date a zone."
                if is_about_files
                else "Captures are dated by the camera's own clock: give the date without a zone."
            )
    with catalog.reading() as connection:
        source_id = None if source is None else find_source(connection, source)
        location_id = None if location is None else _find_location(connection, location)
        if is_about_files:
            query, when = _select_files(str(status), source_id), _moment_of(str(status))
            place: ColumnElement[Any] = sources.c.location_id
        else:
            query, when = _select_images(source_id), images.c.captured_local
            place = images.c.location_id
        if camera is not None:
            query = query.where(images.c.camera == camera)
        if meta:
            query = query.where(*says(meta, is_postgres=connection.dialect.name == "postgresql"))
        if location_id is not None:
            query = query.where(place == location_id)
        if since is not None:
            query = query.where(when >= since)
        if until is not None:
            query = query.where(when < until)
        yield from map(_show_capture, _stream(connection, query.limit(limit)))


def describe_image(catalog: Catalog, sha_prefix: str) -> Row:
    """Return all that is known of the image whose digest begins with `sha_prefix`.

    `image`: its row. `provenance`: every file its bytes came from, first seen first; `is_current` tells whether that
    file still holds them. `attempts`: in time order, every attempt that brought it, and those at the same files that
    brought nothing.

    Raises:
        WrongUse: no image begins so, or several do; the message names them.
    """
    prefix = sha_prefix.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{4,64}", prefix):
        raise WrongUse("Name an image by at least the first 4 hexadecimal digits of its SHA-256.")
    with catalog.reading() as connection:
        begins_so = images.c.sha256.between(prefix, prefix.ljust(64, "f"))
        found = list(connection.scalars(select(images.c.sha256).where(begins_so).limit(_CANDIDATES + 1)))
        if not found:
            raise WrongUse(f"The library has no image whose SHA-256 begins with {prefix}.")
        if len(found) > 1:
            more = ", …" if len(found) > _CANDIDATES else ""
            raise WrongUse(f"{prefix} begins several images: {', '.join(sorted(found)[:_CANDIDATES])}{more}.")
        sha256 = found[0]
        image = connection.execute(
            _join_places(select(images, sources.c.name.label("source"), locations.c.name.label("location"))).where(
                images.c.sha256 == sha256
            )
        ).mappings()
        came_from = select(outcomes.c.file_id).where(outcomes.c.sha256 == sha256, outcomes.c.verdict.in_(KEPT))
        provenance = connection.execute(
            select(
                sources.c.name.label("source"),
                *(files.c[name] for name in ("key", "size", "modified", "validator", "state", "extra")),
                files.c.first_seen,
                _last_seen,
                files.c.vanished_at,
                (func.coalesce(files.c.sha256, "") == sha256).label("is_current"),
            )
            .join_from(files, sources)
            .where(files.c.id.in_(came_from))
            .order_by(files.c.first_seen, files.c.id)
        ).mappings()
        attempts = connection.execute(
            _select_outcomes()
            .where(
                outcomes.c.file_id.in_(came_from),
                or_(outcomes.c.sha256 == sha256, outcomes.c.verdict.not_in(KEPT)),
            )
            .order_by(outcomes.c.at, outcomes.c.id)
        ).mappings()
        return {
            "image": _show_capture(image.one()),
            "provenance": [dict(row) for row in provenance],
            "attempts": [dict(row) for row in attempts],
        }


def list_runs(catalog: Catalog, *, limit: int | None = 50, **wanted: Any) -> list[Row]:
    """Return the first `limit` runs of `iter_runs`, which takes the same questions."""
    return list(iter_runs(catalog, limit=limit, **wanted))


def iter_runs(
    catalog: Catalog, *, source: str | None = None, status: str | None = None, limit: int | None = None
) -> Iterator[Row]:
    """Yield runs, the newest first; `status`: only those that have this status or, as requests, stand so.

    Raises:
        WrongUse: there is no such source or status.
    """
    query = _select_runs().order_by(runs.c.id.desc()).limit(limit)
    if status is not None:
        query = query.where(has_status(status))
    with catalog.reading() as connection:
        if source is not None:
            query = query.where(runs.c.source_id == find_source(connection, source))
        yield from _stream(connection, query)


def describe_run(catalog: Catalog, run_id: int, *, limit: int | None = None) -> Row:
    """Return a run with its `files`: what became of each, in the order they were written down.

    Raises:
        WrongUse: there is no such run.
    """
    with catalog.reading() as connection:
        run = connection.execute(_select_runs().where(runs.c.id == run_id)).mappings().one_or_none()
        if run is None:
            raise WrongUse(f"The catalog knows no run {run_id}; list_runs shows those it does.")
        return {**run, "files": list(_stream(connection, _select_run_files(run_id).limit(limit)))}


def iter_run_files(catalog: Catalog, run_id: int) -> Iterator[Row]:
    """Yield what became of each file of a run, in the order they were written down."""
    with catalog.reading() as connection:
        yield from _stream(connection, _select_run_files(run_id))


def list_run_failures(catalog: Catalog, run_id: int, limit: int) -> list[Row]:
    """Return what a run failed at or set aside, at most `limit` files, in the order they were written down."""
    query = _select_run_files(run_id).where(outcomes.c.verdict.not_in(KEPT)).limit(limit)
    with catalog.reading() as connection:
        return list(_stream(connection, query))


def list_sources(catalog: Catalog) -> list[Row]:
    """Return every source by name, with its last run and how many of its files stand how (`files`, `vanished`)."""
    shown = [column for column in sources.c if column.name not in {"location_id", "high_water_mark"}]
    query = select(*shown, locations.c.name.label("location")).outerjoin_from(sources, locations)
    with catalog.reading() as connection:
        counts: dict[int, dict[str, int]] = {}
        by_state = select(files.c.source_id, files.c.state, func.count()).group_by(files.c.source_id, files.c.state)
        for source_id, state, count in connection.execute(by_state):
            counts.setdefault(source_id, {})[state] = count
        gone = select(files.c.source_id, func.count()).where(files.c.vanished_at.is_not(None))
        vanished = {row[0]: int(row[1]) for row in connection.execute(gone.group_by(files.c.source_id))}
        return [
            {
                **row,
                "files": {state.value: counts.get(row["id"], {}).get(state, 0) for state in FileState},
                "vanished": vanished.get(row["id"], 0),
            }
            for row in connection.execute(query.order_by(sources.c.name)).mappings()
        ]


def iter_stored_images(catalog: Catalog) -> Iterator[Row]:
    """Yield sha256, storage_key, size and thumbnail_key of every image, in the order of their digests.

    Reads page by page, so that a check of terabytes holds no transaction open; images stored meanwhile may be missed.
    """
    query = select(images.c.sha256, images.c.storage_key, images.c.size, images.c.thumbnail_key)
    last = ""
    while True:
        with catalog.reading() as connection:
            page = query.where(images.c.sha256 > last).order_by(images.c.sha256).limit(_PAGE)
            rows = connection.execute(page).mappings().all()
        for row in rows:
            yield dict(row)
        if len(rows) < _PAGE:
            return
        last = rows[-1]["sha256"]


def iter_run_thumbnails(catalog: Catalog, run_id: int, limit: int) -> Iterator[Row]:
    """Yield the newest captures that a run stored, at most `limit`, with key, thumbnail_key and captured_at."""
    query = (
        select(
            *(images.c[name] for name in ("sha256", "storage_key", "thumbnail_key", "camera", "width", "height")),
            images.c.captured_local,
            images.c.captured_offset_minutes,
            files.c.key,
        )
        .join_from(outcomes, files)
        .join(images, images.c.sha256 == outcomes.c.sha256)
        .where(outcomes.c.run_id == run_id, outcomes.c.verdict == FileState.STORED)
        .order_by(images.c.captured_local.desc(), files.c.key.desc())
    )
    with catalog.reading() as connection:
        rows = connection.execute(query.limit(limit)).mappings().all()
    yield from map(_show_capture, rows)


def _select_images(source_id: int | None) -> Select[Any]:
    source: ColumnElement[str] = sources.c.name
    key: ColumnElement[str] = images.c.key
    extra: ColumnElement[Any] = images.c.extra
    if source_id is not None:
        here = (files.c.sha256 == images.c.sha256) & (files.c.source_id == source_id)
        source = select(sources.c.name).where(sources.c.id == source_id).scalar_subquery()
        key = select(files.c.key).where(here).order_by(files.c.id).limit(1).scalar_subquery()
        extra = select(files.c.extra).where(here).order_by(files.c.id).limit(1).scalar_subquery()
    shown = ("sha256", "storage_key", "thumbnail_key", "size", "format", "width", "height", "camera", "latitude",
             "longitude", "perceptual_hash", "quality", "owner", "stored_at")  # fmt: skip
    query = _join_places(
        select(
            *(images.c[name] for name in shown),
            images.c.captured_local,
            images.c.captured_offset_minutes,
            images.c.captured_witness.label("captured_at_source"),
            source.label("source"),
            key.label("key"),
            extra.label("extra"),
            locations.c.name.label("location"),
        )
    )
    if source_id is not None:
        query = query.where(exists().where(here))
    return query.order_by(images.c.captured_local.desc(), images.c.sha256.desc())


def _select_files(status: str, source_id: int | None) -> Select[Any]:
    shown = ("key", "size", "modified", "attempts", "reason", "message", "sha256", "first_seen", "attempted_at",
             "vanished_at")  # fmt: skip
    query = (
        select(
            sources.c.name.label("source"),
            files.c.state.label("status"),
            *(files.c[name] for name in shown),
            _last_seen,
            locations.c.name.label("location"),
        )
        .join_from(files, sources)
        .outerjoin(locations, locations.c.id == sources.c.location_id)
        .outerjoin(images, images.c.sha256 == files.c.sha256)
        .order_by(_moment_of(status).desc(), files.c.id.desc())
    )
    if source_id is not None:
        query = query.where(files.c.source_id == source_id)
    return query.where(files.c.vanished_at.is_not(None) if status == VANISHED else files.c.state == status)


def _moment_of(status: str) -> ColumnElement[Any]:
    return files.c.vanished_at if status == VANISHED else files.c.attempted_at


def _select_runs() -> Select[Any]:
    shown = ("kind", "status", "listed", "planned", "stored", "duplicate", "quarantined", "failed", "deferred",
             "unchanged", "vanished", "bytes", "seconds", "started_at", "finished_at", "message",
             "flow_run_id", "details")  # fmt: skip
    named = (runs.c.id.label("run_id"), sources.c.name.label("source"))
    return select(*named, request_state, *(runs.c[name] for name in shown)).join_from(runs, sources)


def _select_outcomes() -> Select[Any]:
    shown = ("run_id", "at", "verdict", "reason", "message", "sha256", "size", "warning")
    return (
        select(
            sources.c.name.label("source"),
            files.c.key,
            *(outcomes.c[name] for name in shown),
            images.c.storage_key,
        )
        .join_from(outcomes, files)
        .join(sources, sources.c.id == files.c.source_id)
        .outerjoin(images, images.c.sha256 == outcomes.c.sha256)
    )


def _select_run_files(run_id: int) -> Select[Any]:
    return _select_outcomes().where(outcomes.c.run_id == run_id).order_by(outcomes.c.id)


def _stream(connection: Connection, query: Select[Any]) -> Iterator[Row]:
    """Yield the rows as the database finds them, never many at once; on PostgreSQL by a cursor of the server."""
    return map(dict, connection.execution_options(yield_per=_FETCHED).execute(query).mappings())


def _join_places(query: Select[Any]) -> Select[Any]:
    joined = query.join_from(images, sources, sources.c.id == images.c.source_id)
    return joined.outerjoin(locations, locations.c.id == images.c.location_id)


def _find_location(connection: Connection, name: str) -> int:
    location_id = connection.scalar(select(locations.c.id).where(locations.c.name == name))
    if location_id is None:
        names = connection.scalars(select(locations.c.name).order_by(locations.c.name).limit(_CANDIDATES))
        raise WrongUse(f"The catalog knows no location {name!r}; it knows {', '.join(names) or 'none yet'}.")
    return int(location_id)


def _show_capture(row: Mapping[Any, Any]) -> Row:
    """Return `row` with `captured_at` in place of the clock's reading and its offset."""
    shown = dict(row)
    if "captured_local" not in shown:
        return shown
    local, minutes = shown.pop("captured_local"), shown.pop("captured_offset_minutes")
    zone = None if minutes is None else timezone(timedelta(minutes=minutes))
    return shown | {"captured_at": local.replace(tzinfo=zone).isoformat()}
