"""Open the database a catalog lives in, bring it to the newest migration, and tell its errors in our words."""

import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sqlalchemy import Connection, Engine, column, create_engine, event, func, inspect, select, table
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from blocks._errors import CatchmentError, LibraryRefused, LibraryUnavailable, WrongUse
from blocks._schema import HEAD, VERSION_TABLE

T = TypeVar("T")

_PATIENCE_SECONDS = 30.0
_BUSY_SECONDS = 10.0
_MIGRATION_LOCK = 0x6361746368  # "catch": one number for every catchment, as advisory locks have no names
_migrating = threading.Lock()  # Alembic keeps the running migration in module globals

# https://www.postgresql.org/docs/15/errcodes-appendix.html
_CONTENTION = {"40001", "40P01", "55P03"}
_HEALS = ("08", "40", "53", "55", "57", "58")
_LOGIN_REFUSED = re.compile(r"authentication failed|no password|does not exist|pg_hba\.conf|not permitted", re.I)


class Database:
    """One SQLite file or PostgreSQL database; safe to share between threads."""

    def __init__(self, place: str | Path) -> None:
        parsed = _parse(place)
        self.place = _describe(parsed)
        self.is_postgres = parsed.get_backend_name() == "postgresql"
        self._engine = _make_postgres(parsed) if self.is_postgres else _make_sqlite(parsed)
        self._writing = self._engine.execution_options(catchment_begin="BEGIN IMMEDIATE")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Hold one transaction for reading; on SQLite it sees one moment, on PostgreSQL each statement sees its own.

        Raises:
            LibraryUnavailable: the database can not be reached now.
            LibraryRefused: the database can not be used as configured.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except (StatementError, PoolTimeout) as error:
            self._raise(error)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` reads in one transaction; raises as `reading` does."""
        return self._run(self._engine, work)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns after committing it whole; it is run again where another writer stood in its way.

        Raises:
            LibraryUnavailable: the database can not be reached now, or stayed locked; nothing was changed.
            LibraryRefused: the database can not be used as configured.
            WrongUse: `work` breaks a rule of the schema.
        """
        return self._run(self._writing, work)

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._engine.dispose()

    def _run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        pause = 0.02
        while True:
            try:
                with engine.begin() as connection:
                    return work(connection)
            except (StatementError, PoolTimeout) as error:
                if not _is_contention(error) or time.monotonic() > deadline:
                    self._raise(error)
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _raise(self, error: StatementError | PoolTimeout) -> NoReturn:
        if isinstance(error, PoolTimeout):
            raise LibraryUnavailable(f"The catalog ({self.place}) is asked by too many threads at once.") from error
        if isinstance(error.orig, CatchmentError):  # a value that a column type refused
            raise error.orig from None
        if isinstance(error.orig, sqlite3.Error):
            raise _tell_sqlite(self.place, error.orig) from error
        if isinstance(error, DBAPIError) and error.orig is not None:
            raise _tell_postgres(self.place, error.orig) from error
        raise error


def open_database(place: str | Path) -> Database:
    """Return the database at `place`, a URL or a SQLite file's path, brought to the newest migration.

    A SQLite file is made where there is none. A database that stands there already costs one small query. Any number of
    processes may open one at once.

    Raises:
        LibraryRefused: the URL is wrong, the login is refused, or a newer catchment wrote the catalog.
        LibraryUnavailable: the database can not be reached now.
    """
    database = Database(place)
    try:
        if database.read(_read_version) != HEAD:
            with _migrating:
                database.write(lambda connection: _migrate(connection, database))
    except BaseException:
        database.close()
        raise
    return database


def has_schema(place: str | Path) -> bool:
    """Tell whether a catalog was ever made at `place`, a URL or a SQLite file's path; nothing is made.

    Raises:
        LibraryRefused: the URL is wrong, or the login is refused.
        LibraryUnavailable: the database can not be reached now.
    """
    parsed = _parse(place)
    if parsed.get_backend_name() == "sqlite":
        return Path(parsed.database or "").is_file()
    database = Database(place)
    try:
        return database.read(_read_version) is not None
    finally:
        database.close()


def chunks_of(items: Sequence[T], size: int = 1_000) -> Iterator[Sequence[T]]:
    """Yield `items` in runs short enough to stand as parameters of one statement."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _read_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(select(column("version_num")).select_from(table(VERSION_TABLE)))


def _migrate(connection: Connection, database: Database) -> None:
    if database.is_postgres:
        connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
    version = _read_version(connection)
    if version == HEAD:  # another process was quicker
        return
    from alembic import command  # a tenth of a second that only a migration should cost
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "blocks:migrations")
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise LibraryRefused(
            f"The catalog ({database.place}) was written by a newer catchment (its schema is {version}, this one knows "
            f"{HEAD}): upgrade catchment to use it."
        )
    command.upgrade(config, "head")


def _parse(place: str | Path) -> URL:
    if isinstance(place, Path):
        return URL.create("sqlite", database=str(place))
    return _parse_url(place)


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # from None: the parser quotes the text it could not read, and a password may stand in it
        raise LibraryRefused(
            "The catalog's URL can not be read: write sqlite:////folder/catalog.db or "
            "postgresql://user:password@host:5432/database, with special characters of the password percent-encoded."
        ) from None
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
            raise LibraryRefused("The catalog needs a file to live in: write sqlite:////folder/catalog.db.")
        return parsed
    if parsed.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        if "@" in (parsed.host or ""):
            raise LibraryRefused("The catalog's URL can not be read: percent-encode the @ of its password as %40.")
        return parsed.set(drivername="postgresql+psycopg")
    raise LibraryRefused(
        f"A catalog can not live in {parsed.drivername}: its URL starts with sqlite:/// or postgresql://."
    )


def _describe(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return f"SQLite, {url.database}"
    return f"PostgreSQL, {url.database or url.username or ''} at {url.host or 'localhost'}:{url.port or 5432}"


def _make_sqlite(url: URL) -> Engine:
    path = Path(url.database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LibraryRefused(f"The folder of the catalog {path} can not be made: {error.strerror}.") from error
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        # sqlite3 would begin transactions late and commit on its own: https://docs.sqlalchemy.org/en/20/dialects/
        # sqlite.html#serializable-isolation-savepoints-transactional-ddl
        connection.isolation_level = None
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("catchment_begin", "BEGIN"))

    return engine


def _make_postgres(url: URL) -> Engine:
    # https://www.postgresql.org/docs/15/libpq-connect.html: a host that went silent is waited for for hours
    wanted: dict[str, Any] = {"connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 60_000}
    settings = {name: value for name, value in wanted.items() if name not in url.query}
    # psycopg reads instants in the session's zone, where those at the calendar's edges may be out of its range
    settings["options"] = f"{_own_options(url)} -c timezone=UTC".strip()
    try:
        return create_engine(url, connect_args=settings, pool_pre_ping=True, hide_parameters=True)
    except ImportError as error:
        raise LibraryRefused("A catalog in PostgreSQL needs its driver: pip install 'catchment[postgres]'.") from error


def _own_options(url: URL) -> str:
    own = url.query.get("options", "")
    return own if isinstance(own, str) else " ".join(own)


def _is_contention(error: Exception) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else None
    if isinstance(cause, sqlite3.Error):
        return _sqlite_name(cause).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
    return getattr(cause, "sqlstate", None) in _CONTENTION


def _sqlite_name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", None) or ""


def _tell_sqlite(place: str, error: sqlite3.Error) -> CatchmentError:
    # https://www.sqlite.org/rescode.html
    name = _sqlite_name(error)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return LibraryUnavailable(f"The catalog ({place}) stayed locked by another program: try again when it is done.")
    if name.startswith("SQLITE_FULL"):
        return LibraryUnavailable(f"The disk of the catalog ({place}) is full: make room and try again.")
    if name.startswith("SQLITE_IOERR"):
        return LibraryUnavailable(f"The disk of the catalog ({place}) failed to read or write ({error}): check it.")
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
        return LibraryRefused(
            f"The catalog ({place}) can not be opened for writing ({error}): check the path and who may write there."
        )
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return LibraryRefused(
            f"The catalog ({place}) is not a whole SQLite database ({error}): name another file, or restore a backup."
        )
    if name.startswith("SQLITE_CONSTRAINT"):
        return WrongUse(f"The catalog refused a row that breaks its rules: {error}.")
    return LibraryRefused(f"The catalog ({place}) can not be used: {error}.")


def _tell_postgres(place: str, error: BaseException) -> CatchmentError:
    state = getattr(error, "sqlstate", None)
    said = " ".join(str(error).split()).rstrip(".")
    if state is None:  # libpq gives no code for what went wrong before or outside a statement
        if _LOGIN_REFUSED.search(said):
            return LibraryRefused(f"The catalog ({place}) refused the login: {said}. Correct its URL.")
        return LibraryUnavailable(f"The catalog ({place}) can not be reached: {said}. Try again when it runs.")
    if state == "42501":
        return LibraryRefused(f"The catalog ({place}) denies this user what catchment needs: {said}. Grant it.")
    if state == "23503" and getattr(getattr(error, "diag", None), "constraint_name", None) == "fk_files_sha256":
        # `verify --repair` forgot the image between our look at it and our row
        return LibraryUnavailable(f"An image was taken out of the catalog ({place}) just now: try again.")
    if state.startswith("23"):
        return WrongUse(f"The catalog refused a row that breaks its rules: {said}.")
    if state.startswith(("28", "3D")):
        return LibraryRefused(f"The catalog ({place}) refused the login: {said}. Correct its URL.")
    if state.startswith(_HEALS):
        return LibraryUnavailable(f"The catalog ({place}) can not be used now: {said}. Try again later.")
    return LibraryRefused(f"The catalog ({place}) can not be used: {said}.")
