"""What the catalog knows of a camera whose pictures have to be looked for: captures, earlier answers, past searches."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, func, select

from blocks import _schema
from blocks._catalog import Catalog
from blocks._catalog_outcomes import insert_for
from blocks._database import chunks_of
from blocks._errors import CatchmentError
from blocks._records import Quality, TimeWitness
from blocks._schema import FileState, ProbeAnswer, images, probes, searches, sources

_NEAR = 300
"""So many captures before a range, and after it, are enough to learn a rhythm from: two days of one in ten minutes."""


class Probe(NamedTuple):
    """An answer to the question whether there is a picture of that key; instants aware."""

    key: str
    quality: Quality
    answer: ProbeAnswer
    at: datetime
    expires: datetime


class KnownPicture(NamedTuple):
    """A file of a source as it stands; `captured_utc` aware, and None, as `quality`, where no image came of it."""

    key: str
    state: FileState
    captured_utc: datetime | None
    quality: Quality | None


@dataclass(frozen=True, slots=True)
class Search:
    """One look for the pictures of `stream` on the local date `day`, as the table `searches` keeps it."""

    stream: str
    day: date
    method: str
    expected: int = 0
    known: int = 0
    found: int = 0
    probes: int = 0
    hits: int = 0
    error: CatchmentError | None = None


def find_source_id(catalog: Catalog, source_name: str) -> int | None:
    """Return the id of the source of that name, or None where nothing ever came from it."""
    with catalog.reading() as connection:
        return connection.scalar(select(sources.c.id).where(sources.c.name == source_name))


def read_pictures(catalog: Catalog, source_id: int, day: date, stream: str) -> list[KnownPicture]:
    """Return every file of the source whose key lies in that day and stream, by key."""
    query = (
        select(_schema.files.c.key, _schema.files.c.state, images.c.captured_utc, images.c.quality)
        .outerjoin_from(_schema.files, images, images.c.sha256 == _schema.files.c.sha256)
        .where(_schema.files.c.source_id == source_id, *_lies_in(_schema.files.c.key, day, stream))
        .order_by(_schema.files.c.key)
    )
    with catalog.reading() as connection:
        return [
            KnownPicture(key, FileState(state), captured, None if quality is None else Quality(quality))
            for key, state, captured, quality in connection.execute(query)
        ]


def read_captures(catalog: Catalog, source_id: int, stream: str, since: datetime, until: datetime) -> list[datetime]:
    """Return when `stream` took its pictures: all between `since` and `until`, and some before and after; aware UTC."""
    taken = select(images.c.captured_utc).where(
        images.c.source_id == source_id,
        images.c.camera == stream,
        images.c.captured_witness == TimeWitness.CAMERA,
        images.c.captured_utc.is_not(None),
    )
    when = images.c.captured_utc
    parts: list[Select[Any]] = [
        taken.where(when < since).order_by(when.desc()).limit(_NEAR),
        taken.where(when >= since, when < until),
        taken.where(when >= until).order_by(when).limit(_NEAR),
    ]
    with catalog.reading() as connection:
        return sorted({moment for part in parts for moment in connection.scalars(part)})


def read_probes(catalog: Catalog, source_id: int, day: date, stream: str, now: datetime) -> list[Probe]:
    """Return the answers about that day and stream which have not expired at `now`."""
    query = select(probes.c.key, probes.c.quality, probes.c.answer, probes.c.at, probes.c.expires).where(
        probes.c.source_id == source_id, probes.c.expires > now, *_lies_in(probes.c.key, day, stream)
    )
    with catalog.reading() as connection:
        return [
            Probe(key, Quality(quality), ProbeAnswer(answer), at, expires)
            for key, quality, answer, at, expires in connection.execute(query)
        ]


def remember_probes(catalog: Catalog, source_id: int, answers: Sequence[Probe]) -> None:
    """Keep `answers`, in place of earlier ones about the same names."""
    if not answers:
        return

    def write(connection: Connection) -> None:
        for few in chunks_of(list({(answer.key, answer.quality): answer for answer in answers}.values())):
            insert = insert_for(connection)(probes)
            replaced = {name: insert.excluded[name] for name in ("answer", "at", "expires")}
            connection.execute(
                insert.on_conflict_do_update(index_elements=["source_id", "key", "quality"], set_=replaced),
                [answer._asdict() | {"source_id": source_id} for answer in few],
            )

    catalog.write(write)


def drop_expired_probes(catalog: Catalog, source_id: int, now: datetime) -> None:
    """Forget the answers that have expired at `now`."""
    expired = probes.delete().where(probes.c.source_id == source_id, probes.c.expires <= now)
    catalog.write(lambda connection: connection.execute(expired))


def record_search(catalog: Catalog, run_id: int, source_id: int, search: Search, *, now: datetime) -> None:
    """Keep how a look for pictures went; a run that looks again for the same day and stream adds to its probes."""
    error = search.error
    row: dict[str, Any] = {field.name: getattr(search, field.name) for field in fields(search) if field.name != "error"}
    row |= {"reason": error.reason.value, "message": str(error)} if error else {"reason": None, "message": None}

    def write(connection: Connection) -> None:
        insert = insert_for(connection)(searches).values(row | {"run_id": run_id, "source_id": source_id, "at": now})
        replaced: dict[str, Any] = {
            name: insert.excluded[name] for name in ("method", "expected", "found", "reason", "message", "at")
        }
        replaced |= {name: searches.c[name] + insert.excluded[name] for name in ("probes", "hits")}
        connection.execute(insert.on_conflict_do_update(index_elements=["run_id", "stream", "day"], set_=replaced))

    catalog.write(write)


def read_probe_figures(catalog: Catalog, source_name: str, start: date, end: date) -> list[dict[str, Any]]:
    """Return what the searches from `start` to `end`, both included, cost and brought, by date and stream.

    `probes` and `hits` are sums over all runs; `method`, `expected`, `reason` and `message` are those of the last
    search, the latter two None unless it could not be finished.
    """
    query = (
        select(searches)
        .join(sources, sources.c.id == searches.c.source_id)
        .where(sources.c.name == source_name, searches.c.day.between(start, end))
        .order_by(searches.c.day, searches.c.stream, searches.c.id)
    )
    figures: dict[tuple[date, str], dict[str, Any]] = {}
    with catalog.reading() as connection:
        for row in connection.execute(query).mappings():
            earlier = figures.get((row["day"], row["stream"]), {"probes": 0, "hits": 0})
            figures[row["day"], row["stream"]] = {
                "date": row["day"],
                "stream": row["stream"],
                "probes": earlier["probes"] + row["probes"],
                "hits": earlier["hits"] + row["hits"],
                **{name: row[name] for name in ("method", "expected", "reason", "message")},
            }
    return list(figures.values())


def _lies_in(column: ColumnElement[str], day: date, stream: str) -> list[ColumnElement[bool]]:
    prefix = f"{day.isoformat()}/{stream}/"
    # Dates bound the range for the index: collations differ in how they order names, but not digits.
    bounds = [column >= day.isoformat(), column < (day + timedelta(days=1)).isoformat()]
    return [*bounds, func.substr(column, 1, len(prefix)) == prefix]
