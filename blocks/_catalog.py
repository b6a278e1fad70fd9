"""The catalog: what every source was seen to hold, which images the library keeps, and what each run did.

It is the ledger that runs are driven by: a file is done when a row here says so, in one transaction with its image.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import polars as pl
from sqlalchemy import BigInteger, ColumnElement, Connection, case, cast, func, or_, select, type_coerce, update

from blocks._catalog_outcomes import MAX_ATTEMPTS, StoredImage, find_images, insert_for, recount_run, write_outcomes
from blocks._database import Database, chunks_of, open_database
from blocks._errors import Reason, WrongUse
from blocks._records import Outcome, Verdict
from blocks._schema import MICROSECOND, FileState, RunStatus, files, images, locations, outcomes, runs, sources

T = TypeVar("T")

KNOWN_SCHEMA: dict[str, pl.DataType] = {
    "key": pl.String(),
    "size": pl.Int64(),
    "modified": pl.Datetime("us", "UTC"),
    "validator": pl.String(),
    "state": pl.String(),
    "attempts": pl.Int64(),
    "reason": pl.String(),
    "vanished": pl.Boolean(),
}
"""Columns of `Catalog.known_files`; `state` holds values of `FileState`."""


def open_catalog(place: str | Path) -> "Catalog":
    """Return the catalog at `place`, made or migrated as needed.

    `place`: the path of a SQLite file, or a URL: `sqlite:////folder/catalog.db` or `postgresql://…`.

    Raises:
        LibraryRefused: the URL is wrong, the login is refused, or a newer catchment wrote the catalog.
        LibraryUnavailable: the database can not be reached now.
    """
    return Catalog(open_database(place))


class Catalog:
    """The catalog's verbs, each one transaction, safe to call from many threads; a context manager that closes it.

    Every verb raises LibraryUnavailable where the database can not be reached now (nothing was changed, and calling
    again is harmless), LibraryRefused where it can not be used as configured, and WrongUse where the caller's values
    break a rule of the schema. Instants (`now`) are aware.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.close()

    def reading(self) -> AbstractContextManager[Connection]:
        """Hold one transaction for reading."""
        return self._database.reading()

    def write(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns after committing it whole; it may be run more than once."""
        return self._database.write(work)

    def upsert_location(
        self,
        name: str,
        latitude: float | None = None,
        longitude: float | None = None,
        description: str | None = None,
    ) -> int:
        """Make or complete the location `name` and return its id; what is None stays as it was. Degrees WGS 84."""
        return self.write(lambda c: _upsert_location(c, name, latitude, longitude, description))

    def ensure_source(
        self, name: str, kind: str, root: str, location: str | None = None, owner: str | None = None, *, now: datetime
    ) -> int:
        """Make the source `name`, or bring it up to date with its Block, and return its id.

        A `location` that does not exist is made. `root` is shown to people: it holds no credential.
        """

        def write(connection: Connection) -> int:
            told = {
                "kind": kind,
                "root": root,
                "owner": owner,
                "location_id": None if location is None else _upsert_location(connection, location),
            }
            insert = insert_for(connection)(sources).values(name=name, created_at=now, **told)
            upsert = insert.on_conflict_do_update(index_elements=["name"], set_=told).returning(sources.c.id)
            return int(connection.execute(upsert).scalar_one())

        return self.write(write)

    def read_high_water_mark(self, source_id: int) -> str | None:
        """Return the source's cursor as it was last moved, or None."""
        return self._database.read(
            lambda c: c.scalar(select(sources.c.high_water_mark).where(sources.c.id == source_id))
        )

    def move_high_water_mark(self, source_id: int, mark: str | None) -> None:
        """Set the source's cursor; move it only after everything before it is stored."""
        self._update_source(sources.c.id == source_id, high_water_mark=mark)

    def acquire_lease(self, source_id: int, holder: str, ttl: timedelta) -> str | None:
        """Take the source for `holder` for `ttl`; return None, or who has it.

        A lease that has run out is taken, and the holder's own is prolonged. The database's clock counts, so machines
        with wrong clocks agree.
        """
        is_free = or_(
            sources.c.lease_until.is_(None), sources.c.lease_until <= self._clock(), sources.c.lease_holder == holder
        )
        while True:
            if self._update_source(
                sources.c.id == source_id, is_free, lease_holder=holder, lease_until=self._clock(ttl)
            ):
                return None
            present = self._database.read(
                lambda c: c.execute(select(sources.c.lease_holder).where(sources.c.id == source_id)).one_or_none()
            )
            if present is None:
                raise WrongUse(f"There is no source {source_id}: call ensure_source first.")
            if present[0] is not None:  # else it was released between the two statements: try again
                return str(present[0])

    def renew_lease(self, source_id: int, holder: str, ttl: timedelta) -> bool:
        """Prolong the lease to `ttl` from now; return False where `holder` has lost it and must stop."""
        return self._update_source(
            sources.c.id == source_id, sources.c.lease_holder == holder, lease_until=self._clock(ttl)
        )

    def release_lease(self, source_id: int, holder: str) -> bool:
        """Give the source back, or free it from a `holder` who is known to be dead.

        Returns False, changing nothing, where `holder` no longer had it.
        """
        return self._update_source(
            sources.c.id == source_id, sources.c.lease_holder == holder, lease_holder=None, lease_until=None
        )

    def begin_run(self, source_id: int, flow_run_id: str | None = None, *, now: datetime, kind: str = "ingest") -> int:
        """Open a run of a source whose lease is held, and return its id.

        Runs of the source that still stand as running ended without a word: they become `interrupted`, with counts
        from their outcomes and the time of the last of them as their end.
        """

        def write(connection: Connection) -> int:
            _interrupt_runs(connection, source_id, now)
            row = {"source_id": source_id, "kind": kind, "flow_run_id": flow_run_id, "started_at": now}
            insert = runs.insert().values(**row, status=RunStatus.RUNNING).returning(runs.c.id)
            return int(connection.execute(insert).scalar_one())

        return self.write(write)

    def note_run(
        self,
        source_id: int,
        status: RunStatus,
        message: str | None = None,
        flow_run_id: str | None = None,
        *,
        now: datetime,
        kind: str = "ingest",
    ) -> int:
        """Write down a run that did nothing (`skipped`, `inactive`) and return its id.

        Other runs and the source's last status are left alone: what keeps this run from working may still be at work.
        """

        def write(connection: Connection) -> int:
            row = {"source_id": source_id, "kind": kind, "flow_run_id": flow_run_id, "message": message}
            ended = {"status": status, "started_at": now, "finished_at": now, "seconds": 0.0}
            run_id = connection.execute(runs.insert().values(**row, **ended).returning(runs.c.id)).scalar_one()
            return int(run_id)

        return self.write(write)

    def plan_run(
        self, run_id: int, *, listed: int, planned: int, deferred: int = 0, unchanged: int = 0, vanished: int = 0
    ) -> None:
        """Write down what the diff decided for a run."""
        counts = {
            "listed": listed,
            "planned": planned,
            "deferred": deferred,
            "unchanged": unchanged,
            "vanished": vanished,
        }
        self.write(lambda c: c.execute(update(runs).where(runs.c.id == run_id).values(counts)))

    def note_details(self, run_id: int, details: Mapping[str, Any]) -> None:
        """Write down what else there is to say of a run, as JSON has it, in place of what was said before."""
        self.write(lambda c: c.execute(update(runs).where(runs.c.id == run_id).values(details=dict(details))))

    def finish_run(self, run_id: int, status: RunStatus, message: str | None = None, *, now: datetime) -> None:
        """Close a run with counts from its outcomes, planned being their sum, and show its end on its source."""

        def write(connection: Connection) -> None:
            row = connection.execute(select(runs.c.source_id, runs.c.started_at).where(runs.c.id == run_id)).first()
            if row is None:
                raise WrongUse(f"There is no run {run_id}.")
            source_id, started_at = row
            seconds = (now - started_at).total_seconds()
            recount_run(connection, run_id, status=status, message=message, finished_at=now, seconds=seconds)
            shown: dict[str, Any] = {"last_status": status, "last_message": message}
            if newest := _newest_pulled(connection, run_id):
                shown |= {"last_pulled_filename": newest, "last_pull_timestamp": now}
            _update(connection, sources.c.id == source_id, **shown)

        self.write(write)

    def known_files(self, source_id: int, keys: Sequence[str] | None = None) -> pl.DataFrame:
        """Return every file the source was seen to hold, or those of the `keys`, columns as in `KNOWN_SCHEMA`.

        Made for a million rows: they stream into columns, and never exist as Python objects all at once.
        """
        modified: ColumnElement[Any] = type_coerce(files.c.modified, BigInteger)
        if self._database.is_postgres:
            modified = cast(func.extract("epoch", files.c.modified) * 1_000_000, BigInteger)
        vanished = case((files.c.vanished_at.is_not(None), 1), else_=0)
        columns = [files.c[name] for name in ("key", "size", "validator", "state", "attempts", "reason")]
        wanted = select(*columns[:2], modified, *columns[2:], vanished).where(files.c.source_id == source_id)
        bare: dict[str, pl.DataType] = KNOWN_SCHEMA | {"modified": pl.Int64(), "vanished": pl.Int64()}
        parts = [pl.DataFrame(schema=bare)]
        asked = [wanted] if keys is None else [wanted.where(files.c.key.in_(few)) for few in chunks_of(keys)]
        with self.reading() as connection:
            # 2,000 at a time stay in the processor's cache: 50,000 take half as long again
            connection = connection.execution_options(yield_per=2_000)
            for rows in (rows for one in asked for rows in connection.execute(one).partitions()):
                values = zip(bare.items(), zip(*rows, strict=True), strict=True)
                parts.append(pl.DataFrame([pl.Series(name, column, dtype=kind) for (name, kind), column in values]))
        return pl.concat(parts).cast(KNOWN_SCHEMA)  # type: ignore[arg-type]

    def known_files_of(self, source_name: str, keys: Sequence[str] | None = None) -> pl.DataFrame:
        """Return what `known_files` does for the source of that name; nothing where the catalog knows none."""
        source_id = self._database.read(lambda c: c.scalar(select(sources.c.id).where(sources.c.name == source_name)))
        return pl.DataFrame(schema=KNOWN_SCHEMA) if source_id is None else self.known_files(source_id, keys)

    def due_keys(self, source_id: int) -> list[str]:
        """Return the keys of the source's files that failed and are to be tried again, unless they have vanished."""
        due = select(files.c.key).where(
            files.c.source_id == source_id,
            files.c.state.in_([FileState.FAILED, FileState.RETRY]),
            files.c.vanished_at.is_(None),
        )
        return self._database.read(lambda c: list(c.scalars(due)))

    def known_images(self, sha256s: Iterable[str]) -> dict[str, StoredImage]:
        """Return where those of the images lie that the library has, by digest."""
        asked = list(sha256s)
        return self._database.read(lambda c: find_images(c, asked))

    def record_outcomes(
        self, run_id: int, source_id: int, said: Sequence[Outcome], *, now: datetime, max_attempts: int = MAX_ATTEMPTS
    ) -> list[Outcome]:
        """Write a batch's outcomes in one transaction and return them, in order, as they stand in the catalog.

        An image that another writer stored first comes back as `duplicate` with that writer's keys: where
        `storage_key` differs from what was passed, the caller's object is superfluous. Where another image has the
        storage key the file comes back as `failed`. A file that fails for the `max_attempts`-th time is parked.
        Recording a batch again counts nothing twice, and what this run has stored stays stored. Where an image that a
        duplicate names was forgotten meanwhile nothing is written and LibraryUnavailable raised: store its bytes.
        """
        return self.write(lambda c: write_outcomes(c, run_id, source_id, said, now, max_attempts))

    def record_listing(
        self,
        source_id: int,
        vanished_keys: Iterable[str] = (),
        returned_keys: Iterable[str] = (),
        *,
        now: datetime,
        is_whole: bool = True,
    ) -> None:
        """Write down what a listing showed: which known files were gone, and which had come back.

        `is_whole`: with it every file of the source has been looked at.
        """
        gone, back = list(vanished_keys), list(returned_keys)

        def write(connection: Connection) -> None:
            listed_at = select(sources.c.last_listed_at).where(sources.c.id == source_id).scalar_subquery()
            here = update(files).where(files.c.source_id == source_id)
            last_seen = case((files.c.last_seen < listed_at, listed_at), else_=files.c.last_seen)
            for keys in chunks_of(gone):
                missed = here.where(files.c.key.in_(keys), files.c.vanished_at.is_(None))
                connection.execute(missed.values(vanished_at=now, last_seen=last_seen))
            for keys in chunks_of(back):
                connection.execute(here.where(files.c.key.in_(keys)).values(vanished_at=None))
            if is_whole:
                _update(connection, sources.c.id == source_id, last_listed_at=now)

        self.write(write)

    def reset_failed(
        self,
        source_name: str | None = None,
        reasons: Iterable[Reason] = (),
        older_than: datetime | None = None,
        newer_than: datetime | None = None,
    ) -> int:
        """Make failed, parked and quarantined files that are still listed be tried again; return how many.

        Only those of the named source, with one of the `reasons` (none: any), last attempted before `older_than` and
        at or after `newer_than`.
        """
        why = list(reasons)

        def write(connection: Connection) -> int:
            tried = [FileState.FAILED, FileState.PARKED, FileState.QUARANTINED]
            chosen: list[ColumnElement[bool]] = [files.c.state.in_(tried), files.c.vanished_at.is_(None)]
            if source_name is not None:
                chosen.append(files.c.source_id == find_source(connection, source_name))
            if why:
                chosen.append(files.c.reason.in_(why))
            if older_than is not None:
                chosen.append(files.c.attempted_at < older_than)
            if newer_than is not None:
                chosen.append(files.c.attempted_at >= newer_than)
            return connection.execute(update(files).where(*chosen).values(state=FileState.RETRY, attempts=0)).rowcount

        return self.write(write)

    def _clock(self, ahead: timedelta = timedelta(0)) -> ColumnElement[Any]:
        """Return the database's present instant plus `ahead`, as its columns of instants keep it."""
        if self._database.is_postgres:
            return func.clock_timestamp() + ahead  # now() would be the start of the transaction, before it waited
        unix_days = func.julianday("now") - 2440587.5  # https://www.sqlite.org/lang_datefunc.html
        return type_coerce(cast(unix_days * 86_400_000_000, BigInteger) + ahead // MICROSECOND, BigInteger)

    def _update_source(self, *where: ColumnElement[bool], **values: Any) -> bool:
        return self.write(lambda connection: _update(connection, *where, **values))


def find_source(connection: Connection, name: str) -> int:
    """Return the id of the source `name`.

    Raises:
        WrongUse: there is none; the message names the sources that are closest.
    """
    source_id = connection.scalar(select(sources.c.id).where(sources.c.name == name))
    if source_id is None:
        names = list(connection.scalars(select(sources.c.name).order_by(sources.c.name)))
        near = get_close_matches(name, names, n=5, cutoff=0.4) or names[:5]
        raise WrongUse(f"The catalog knows no source {name!r}; it knows {', '.join(near) or 'none yet'}.")
    return int(source_id)


def _update(connection: Connection, *where: ColumnElement[bool], **values: Any) -> bool:
    return connection.execute(update(sources).where(*where).values(**values)).rowcount == 1


def _upsert_location(
    connection: Connection,
    name: str,
    latitude: float | None = None,
    longitude: float | None = None,
    description: str | None = None,
) -> int:
    told = {"latitude": latitude, "longitude": longitude, "description": description}
    insert = insert_for(connection)(locations).values(name=name, **told)
    completed = {column: func.coalesce(insert.excluded[column], locations.c[column]) for column in told}
    upsert = insert.on_conflict_do_update(index_elements=["name"], set_=completed).returning(locations.c.id)
    return int(connection.execute(upsert).scalar_one())


def _interrupt_runs(connection: Connection, source_id: int, now: datetime) -> None:
    last_sign = select(func.max(outcomes.c.at)).where(outcomes.c.run_id == runs.c.id).scalar_subquery()
    silent = select(runs.c.id, runs.c.started_at, last_sign).where(
        runs.c.source_id == source_id, runs.c.status == RunStatus.RUNNING
    )
    for run_id, started_at, last_outcome_at in connection.execute(silent).all():
        ended_at = last_outcome_at or started_at
        recount_run(
            connection,
            run_id,
            status=RunStatus.INTERRUPTED,
            message=f"The run ended without a word; found so at {now.isoformat(timespec='seconds')}.",
            finished_at=ended_at,
            seconds=(ended_at - started_at).total_seconds(),
        )


def _newest_pulled(connection: Connection, run_id: int) -> str | None:
    """Return the key of the newest capture that came in a run, or None."""
    came = (
        select(files.c.key)
        .select_from(outcomes)
        .join(files, files.c.id == outcomes.c.file_id)
        .join(images, images.c.sha256 == outcomes.c.sha256)
        .where(outcomes.c.run_id == run_id, outcomes.c.verdict.in_([Verdict.STORED, Verdict.DUPLICATE]))
        .order_by(images.c.captured_local.desc(), files.c.key.desc())
    )
    return connection.scalar(came.limit(1))
