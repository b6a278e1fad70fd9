"""The catalog's tables: what is known of every source, file, image, run and attempt.

sources ─< files >─ images      a file is a place where bytes were seen, an image is the bytes themselves
   │          └──< outcomes      one attempt at one file in one run: the ledger
   ├─< runs ──────┘ └─< searches one look for the pictures of one camera and day
   └─< probes                    names that were asked for, and what the source said

Instants are `timestamptz` on PostgreSQL and whole microseconds since 1970-01-01 UTC on SQLite
(`datetime(started_at / 1000000, 'unixepoch')` shows one); Python sees aware UTC on both.
"""

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

from blocks._errors import WrongUse
from blocks._records import Quality, TimeWitness, Verdict

HEAD = "0001"
"""The newest migration; a catalog that stands here is opened without reading any."""

VERSION_TABLE = "catchment_version"

LONGEST_NAME = 2_600
"""Bytes of UTF-8: a PostgreSQL index entry holds at most a third of a page (nbtree README)."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class FileState(StrEnum):
    """Where a file of a source stands.

    `retry` is a failure that a person asked to try again, `expired` an image that was kept as long as was asked for.
    """

    STORED = "stored"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"
    FAILED = "failed"
    PARKED = "parked"
    RETRY = "retry"
    EXPIRED = "expired"


class RunStatus(StrEnum):
    """How a run stands or ended; `interrupted` is one that ended without a word, `cancelled` one that was stopped."""

    RUNNING = "running"
    NO_NEW_FILES = "no_new_files"
    SUCCESS = "success"
    PARTIAL = "partial"
    FAILED = "failed"
    SKIPPED = "skipped"
    INACTIVE = "inactive"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"


class ProbeAnswer(StrEnum):
    """What a source said of a name it was asked for: there, not there so soon, or not there and not to be expected."""

    THERE = "there"
    NOT_YET = "not_yet"
    NEVER = "never"


class Instant(TypeDecorator[datetime]):
    """A moment in time: aware in, aware UTC out; a naive one is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime] | TypeEngine[int]:
        """Return `timestamptz` for PostgreSQL and a whole number for SQLite, which has no type for instants."""
        return DateTime(timezone=True) if dialect.name == "postgresql" else BigInteger()

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | int | None:
        """Return `value` as the database keeps it."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise WrongUse("An instant without a zone can not be kept: pass an aware datetime.")
        return value if dialect.name == "postgresql" else (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: datetime | int | None, dialect: Dialect) -> datetime | None:
        """Return what the database keeps as aware UTC."""
        if value is None:
            return None
        return value.astimezone(UTC) if isinstance(value, datetime) else EPOCH + value * MICROSECOND


class Name(TypeDecorator[str]):
    """Text that identifies something: kept to the letter, or refused where a database could not do so."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return `value`, or raise WrongUse for a NUL, a lone surrogate or more than `LONGEST_NAME` bytes."""
        if value is None or (value.isascii() and "\0" not in value and len(value) <= LONGEST_NAME):
            return value
        if "\0" in value:
            raise WrongUse(f"A name with a NUL character can not be kept in the catalog: {value!r:.200}.")
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            raise WrongUse(f"A name with a lone surrogate can not be kept in the catalog: {value!r:.200}.") from error
        if size > LONGEST_NAME:
            raise WrongUse(f"A name of {size:,} bytes is too long for the catalog (at most {LONGEST_NAME:,}).")
        return value


class Words(TypeDecorator[str]):
    """Text for people, often from a stranger's bytes: characters no database takes become U+FFFD."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return `value` without NUL and lone surrogates."""
        return value if value is None else _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)


def _id() -> Column[int]:
    return Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(value.value) for value in values)})", name=column)


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

locations = Table(
    "locations",
    metadata,
    _id(),
    Column("name", Name, nullable=False, unique=True),
    Column("latitude", Double),
    Column("longitude", Double),
    Column("description", Words),
    CheckConstraint("latitude BETWEEN -90 AND 90", name="latitude"),
    CheckConstraint("longitude BETWEEN -180 AND 180", name="longitude"),
)

sources = Table(
    "sources",
    metadata,
    _id(),
    Column("name", Name, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("root", Words, nullable=False),
    Column("location_id", ForeignKey("locations.id")),
    Column("owner", Words),
    Column("created_at", Instant, nullable=False),
    Column("last_listed_at", Instant),
    Column("last_pulled_filename", Words),
    Column("last_pull_timestamp", Instant),
    Column("last_status", Text),
    Column("last_message", Words),
    Column("high_water_mark", Words),
    Column("lease_holder", Name),
    Column("lease_until", Instant),
    CheckConstraint("(lease_holder IS NULL) = (lease_until IS NULL)", name="lease"),
)

images = Table(
    "images",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("format", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("orientation", Integer, nullable=False),
    Column("captured_local", DateTime, nullable=False),
    Column("captured_offset_minutes", Integer),
    Column("captured_utc", Instant),
    Column("captured_witness", Text, nullable=False),
    Column("camera_make", Words),
    Column("camera_model", Words),
    Column("camera_serial", Words),
    Column("camera", Words),
    Column("latitude", Double),
    Column("longitude", Double),
    Column("perceptual_hash", Text, nullable=False),
    Column("brightness", Double, nullable=False),
    Column("sharpness", Double, nullable=False),
    Column("storage_key", Name, nullable=False, unique=True),
    Column("thumbnail_key", Name),
    Column("owner", Words),
    Column("location_id", ForeignKey("locations.id")),
    Column("quality", Text, nullable=False),
    Column("extra", JSON(none_as_null=True)),
    Column("source_id", ForeignKey("sources.id"), nullable=False),
    Column("key", Name, nullable=False),
    Column("stored_at", Instant, nullable=False),
    CheckConstraint("length(sha256) = 64", name="sha256"),
    CheckConstraint("(captured_offset_minutes IS NULL) = (captured_utc IS NULL)", name="captured"),
    _one_of("captured_witness", TimeWitness),
    _one_of("quality", Quality),
    Index("ix_images_captured", "captured_local", "sha256"),
    Index("ix_images_source", "source_id", "captured_local"),
    Index("ix_images_camera", "camera", "captured_local"),
    Index("ix_images_location", "location_id", "captured_local"),
)
"""`source_id` and `key` tell where the bytes were first seen; every other place is in `files` and `outcomes`."""

files = Table(
    "files",
    metadata,
    _id(),
    Column("source_id", ForeignKey("sources.id"), nullable=False),
    Column("key", Name, nullable=False),
    Column("size", BigInteger),
    Column("modified", Instant),
    Column("validator", Words),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("reason", Text),
    Column("message", Words),
    Column("sha256", ForeignKey("images.sha256")),
    Column("first_seen", Instant, nullable=False),
    Column("attempted_at", Instant, nullable=False),
    Column("last_seen", Instant, nullable=False),
    Column("vanished_at", Instant),
    Column("extra", JSON(none_as_null=True)),
    UniqueConstraint("source_id", "key"),
    _one_of("state", FileState),
    CheckConstraint("attempts >= 0", name="attempts"),
    CheckConstraint("state NOT IN ('stored', 'duplicate') OR sha256 IS NOT NULL", name="sha256"),
    Index("ix_files_sha256", "sha256", "source_id"),
    Index("ix_files_source_state", "source_id", "state"),
    Index("ix_files_state", "state", "attempted_at"),
    Index(
        "ix_files_vanished",
        "vanished_at",
        sqlite_where=text("vanished_at IS NOT NULL"),
        postgresql_where=text("vanished_at IS NOT NULL"),
    ),
)
"""`size`, `modified`, `validator`: as listed when the file was last attempted. `sha256`: the last image that came from
here; `extra`: what the source says of it here. `last_seen` is written only on attempts and when the file vanishes;
until then the source's last listing tells."""

runs = Table(
    "runs",
    metadata,
    _id(),
    Column("source_id", ForeignKey("sources.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("message", Words),
    _count("listed"),
    _count("planned"),
    _count("stored"),
    _count("duplicate"),
    _count("quarantined"),
    _count("failed"),
    _count("deferred"),
    _count("unchanged"),
    _count("vanished"),
    _count("bytes"),
    Column("seconds", Double),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("flow_run_id", Name),
    Column("details", JSON(none_as_null=True)),
    _one_of("status", RunStatus),
    CheckConstraint("(status = 'running') = (finished_at IS NULL)", name="finished"),
    CheckConstraint(
        "finished_at IS NULL OR planned = stored + duplicate + quarantined + failed", name="nothing_dropped"
    ),
    Index("ix_runs_source", "source_id", "id"),
    Index(
        "ix_runs_running",
        "source_id",
        sqlite_where=text("status = 'running'"),
        postgresql_where=text("status = 'running'"),
    ),
)

outcomes = Table(
    "outcomes",
    metadata,
    _id(),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("file_id", ForeignKey("files.id"), nullable=False),
    Column("at", Instant, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("reason", Text),
    Column("message", Words),
    Column("sha256", Text),
    Column("size", BigInteger, nullable=False),
    Column("warning", Words),
    UniqueConstraint("run_id", "file_id"),
    _one_of("verdict", Verdict),
    Index("ix_outcomes_file", "file_id"),
    Index("ix_outcomes_sha256", "sha256"),
)
"""`sha256` is no foreign key: bytes that were quarantined have a digest and no image."""

searches = Table(
    "searches",
    metadata,
    _id(),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("source_id", ForeignKey("sources.id"), nullable=False),
    Column("stream", Name, nullable=False),
    Column("day", Date, nullable=False),
    Column("method", Text, nullable=False),
    _count("expected"),
    _count("known"),
    _count("found"),
    _count("probes"),
    _count("hits"),
    Column("reason", Text),
    Column("message", Words),
    Column("at", Instant, nullable=False),
    UniqueConstraint("run_id", "stream", "day"),
    Index("ix_searches_source", "source_id", "day"),
)
"""One run's look for the pictures of one camera on one local day: `expected` by its rhythm, `known` before, `found`
anew by `probes`, of which `hits` were answered with a picture; `reason`, `message` where it could not be finished."""

probes = Table(
    "probes",
    metadata,
    Column("source_id", ForeignKey("sources.id"), primary_key=True),
    Column("key", Name, primary_key=True),
    Column("quality", Text, primary_key=True),
    Column("answer", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("expires", Instant, nullable=False),
    _one_of("quality", Quality),
    _one_of("answer", ProbeAnswer),
)
"""Names that were computed and asked for, so that none is asked for again before its answer `expires`."""
