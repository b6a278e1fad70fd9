"""What the catalog knows of the pictures of one source around some days: those that came, and those that did not."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, case, false, func, or_, select, true, update

from blocks._catalog import Catalog
from blocks._catalog_outcomes import KEPT
from blocks._database import chunks_of
from blocks._schema import FileState, files, images, outcomes, runs, searches, sources

_FETCHED = 2_000

_is_own = and_(images.c.source_id == files.c.source_id, images.c.key == files.c.key)


class FileRow(NamedTuple):
    """A file of a source as it stands, with the image that came from it, if any.

    `size`: bytes, as listed at the last attempt. `captured_local` is naive, `captured_utc` aware or None. `extra`: what
    else its source said of it. `is_own`: the image was first seen as this very file, so its time and camera are this
    file's.
    """

    key: str
    size: int | None
    state: str
    reason: str | None
    attempted_at: datetime
    sha256: str | None
    captured_local: datetime | None
    captured_utc: datetime | None
    camera: str | None
    quality: str | None
    extra: Mapping[str, Any] | None
    is_own: bool


class Attempt(NamedTuple):
    """One outcome of one file: in which run, when it was written down, and how many bytes came."""

    run_id: int
    key: str
    at: datetime
    is_kept: bool
    size: int


class SearchRow(NamedTuple):
    """What looking for the pictures of one camera on one local date cost and brought."""

    day: date
    stream: str
    probes: int
    hits: int
    message: str | None


class SourceRow(NamedTuple):
    """A source as the catalog knows it."""

    id: int
    name: str
    kind: str
    root: str


def read_sources(catalog: Catalog) -> list[SourceRow]:
    """Return every source, by name."""
    query = select(sources.c.id, sources.c.name, sources.c.kind, sources.c.root).order_by(sources.c.name)
    with catalog.reading() as connection:
        return [SourceRow(*row) for row in connection.execute(query)]


def iter_files_around(catalog: Catalog, source_id: int, since: datetime, until: datetime) -> Iterator[FileRow]:
    """Yield the files of a source whose image was captured in `since` <= time < `until`, naive, by the camera's clock.

    With them come all whose own time only their name can tell: those without an image, and those whose bytes the
    library had already from elsewhere.
    """
    query = _select_files(source_id).where(_is_near(since, until)).order_by(files.c.key)
    with catalog.reading() as connection:
        for row in connection.execution_options(yield_per=_FETCHED).execute(query):
            yield FileRow(*row)


def iter_attempts_around(
    catalog: Catalog, source_id: int, since: datetime, until: datetime, run_id: int | None = None
) -> Iterator[Attempt]:
    """Yield every attempt, or those of one run, at the files that `iter_files_around` yields."""
    query = (
        select(outcomes.c.run_id, files.c.key, outcomes.c.at, outcomes.c.verdict.in_(KEPT), outcomes.c.size)
        .join_from(outcomes, files)
        .outerjoin(images, images.c.sha256 == files.c.sha256)
        .where(files.c.source_id == source_id, _is_near(since, until))
    )
    if run_id is not None:
        query = query.where(outcomes.c.run_id == run_id)
    with catalog.reading() as connection:
        for row in connection.execution_options(yield_per=_FETCHED).execute(query):
            yield Attempt(*row)


def read_paces(catalog: Catalog, run_ids: Iterable[int]) -> dict[int, list[tuple[datetime, int]]]:
    """Return for each run the moments at which it wrote down outcomes, in order, with how many.

    The first pair is the run's start, with none.
    """
    paces: dict[int, list[tuple[datetime, int]]] = {}
    with catalog.reading() as connection:
        for few in chunks_of(sorted(set(run_ids))):
            started = select(runs.c.id, runs.c.started_at).where(runs.c.id.in_(few))
            paces.update((run, [(at, 0)]) for run, at in connection.execute(started))
            counted = (
                select(outcomes.c.run_id, outcomes.c.at, func.count())
                .where(outcomes.c.run_id.in_(few))
                .group_by(outcomes.c.run_id, outcomes.c.at)
                .order_by(outcomes.c.run_id, outcomes.c.at)
            )
            for run, at, count in connection.execute(counted):
                paces[run].append((at, count))
    return paces


def read_files(catalog: Catalog, source_id: int, keys: Sequence[str]) -> dict[str, FileRow]:
    """Return how those of the files stand that the catalog knows, by key."""
    found: dict[str, FileRow] = {}
    with catalog.reading() as connection:
        for few in chunks_of(keys):
            rows = connection.execute(_select_files(source_id).where(files.c.key.in_(few)))
            found.update((row[0], FileRow(*row)) for row in rows)
    return found


def make_due(catalog: Catalog, source_id: int, keys: Sequence[str]) -> None:
    """Have the next plan take these files, however they stand: parked, refused, or stored as a mere thumbnail."""

    def write(connection: Connection) -> None:
        for few in chunks_of(keys):
            here = and_(files.c.source_id == source_id, files.c.key.in_(few))
            connection.execute(update(files).where(here).values(state=FileState.RETRY, attempts=0))

    catalog.write(write)


def read_searches(
    catalog: Catalog, source_id: int, start: date, end: date, run_id: int | None = None
) -> list[SearchRow]:
    """Return what looking for pictures from `start` to `end`, both included, came to: in all runs, or in one.

    `message` is that of the last look at the camera's date, None if it was finished.
    """
    query = select(*(searches.c[name] for name in SearchRow._fields)).where(
        searches.c.source_id == source_id, searches.c.day.between(start, end)
    )
    if run_id is not None:
        query = query.where(searches.c.run_id == run_id)
    summed: dict[tuple[date, str], SearchRow] = {}
    with catalog.reading() as connection:
        for row in map(SearchRow._make, connection.execute(query.order_by(searches.c.id))):
            before = summed.get((row.day, row.stream))
            probes, hits = (before.probes, before.hits) if before else (0, 0)
            summed[row.day, row.stream] = row._replace(probes=probes + row.probes, hits=hits + row.hits)
    return list(summed.values())


def _select_files(source_id: int) -> Select[Any]:
    is_own = case((_is_own, true()), else_=false())
    of_file = [files.c[name] for name in ("key", "size", "state", "reason", "attempted_at")]
    of_image = [images.c[name] for name in ("sha256", "captured_local", "captured_utc", "camera", "quality", "extra")]
    query = select(*of_file, *of_image, is_own).outerjoin_from(files, images, images.c.sha256 == files.c.sha256)
    return query.where(files.c.source_id == source_id)


def _is_near(since: datetime, until: datetime) -> ColumnElement[bool]:
    is_captured_then = and_(images.c.captured_local >= since, images.c.captured_local < until)
    return or_(images.c.sha256.is_(None), ~_is_own, is_captured_then)
