"""Make the catalog: locations, sources, images, files, runs, outcomes, searches, probes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _identity() -> sa.Column[int]:
    return sa.Column("id", _ID, nullable=False)


def _instant(name: str, *, nullable: bool = True) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.DateTime(timezone=True), "postgresql")
    return sa.Column(name, kind, nullable=nullable)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)


def upgrade() -> None:
    """Create every table with its constraints and indexes."""
    op.create_table(
        "locations",
        _identity(),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("latitude", sa.Double()),
        sa.Column("longitude", sa.Double()),
        sa.Column("description", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_locations")),
        sa.UniqueConstraint("name", name=op.f("uq_locations_name")),
        sa.CheckConstraint("latitude BETWEEN -90 AND 90", name=op.f("ck_locations_latitude")),
        sa.CheckConstraint("longitude BETWEEN -180 AND 180", name=op.f("ck_locations_longitude")),
    )
    op.create_table(
        "sources",
        _identity(),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("location_id", _ID),
        sa.Column("owner", sa.Text()),
        _instant("created_at", nullable=False),
        _instant("last_listed_at"),
        sa.Column("last_pulled_filename", sa.Text()),
        _instant("last_pull_timestamp"),
        sa.Column("last_status", sa.Text()),
        sa.Column("last_message", sa.Text()),
        sa.Column("high_water_mark", sa.Text()),
        sa.Column("lease_holder", sa.Text()),
        _instant("lease_until"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sources")),
        sa.UniqueConstraint("name", name=op.f("uq_sources_name")),
        sa.ForeignKeyConstraint(["location_id"], ["locations.id"], name=op.f("fk_sources_location_id")),
        sa.CheckConstraint("(lease_holder IS NULL) = (lease_until IS NULL)", name=op.f("ck_sources_lease")),
    )
    op.create_table(
        "images",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("orientation", sa.Integer(), nullable=False),
        sa.Column("captured_local", sa.DateTime(), nullable=False),
        sa.Column("captured_offset_minutes", sa.Integer()),
        _instant("captured_utc"),
        sa.Column("captured_witness", sa.Text(), nullable=False),
        sa.Column("camera_make", sa.Text()),
        sa.Column("camera_model", sa.Text()),
        sa.Column("camera_serial", sa.Text()),
        sa.Column("camera", sa.Text()),
        sa.Column("latitude", sa.Double()),
        sa.Column("longitude", sa.Double()),
        sa.Column("perceptual_hash", sa.Text(), nullable=False),
        sa.Column("brightness", sa.Double(), nullable=False),
        sa.Column("sharpness", sa.Double(), nullable=False),
        sa.Column("storage_key", sa.Text(), nullable=False),
        sa.Column("thumbnail_key", sa.Text()),
        sa.Column("owner", sa.Text()),
        sa.Column("location_id", _ID),
        sa.Column("quality", sa.Text(), nullable=False),
        sa.Column("extra", sa.JSON()),
        sa.Column("source_id", _ID, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        _instant("stored_at", nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_images")),
        sa.UniqueConstraint("storage_key", name=op.f("uq_images_storage_key")),
        sa.ForeignKeyConstraint(["location_id"], ["locations.id"], name=op.f("fk_images_location_id")),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_images_source_id")),
        sa.CheckConstraint("length(sha256) = 64", name=op.f("ck_images_sha256")),
        sa.CheckConstraint(
            "(captured_offset_minutes IS NULL) = (captured_utc IS NULL)", name=op.f("ck_images_captured")
        ),
        sa.CheckConstraint(
            "captured_witness IN ('camera', 'exif', 'gps', 'file_name', 'video', 'provider', 'server', 'arrival')",
            name=op.f("ck_images_captured_witness"),
        ),
        sa.CheckConstraint("quality IN ('full', 'thumbnail')", name=op.f("ck_images_quality")),
    )
    op.create_index("ix_images_captured", "images", ["captured_local", "sha256"])
    op.create_index("ix_images_source", "images", ["source_id", "captured_local"])
    op.create_index("ix_images_camera", "images", ["camera", "captured_local"])
    op.create_index("ix_images_location", "images", ["location_id", "captured_local"])
    op.create_table(
        "files",
        _identity(),
        sa.Column("source_id", _ID, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger()),
        _instant("modified"),
        sa.Column("validator", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("message", sa.Text()),
        sa.Column("sha256", sa.Text()),
        _instant("first_seen", nullable=False),
        _instant("attempted_at", nullable=False),
        _instant("last_seen", nullable=False),
        _instant("vanished_at"),
        sa.Column("extra", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_files")),
        sa.UniqueConstraint("source_id", "key", name=op.f("uq_files_source_id")),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_files_source_id")),
        sa.ForeignKeyConstraint(["sha256"], ["images.sha256"], name=op.f("fk_files_sha256")),
        sa.CheckConstraint(
            "state IN ('stored', 'duplicate', 'quarantined', 'failed', 'parked', 'retry', 'expired')",
            name=op.f("ck_files_state"),
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_files_attempts")),
        sa.CheckConstraint("state NOT IN ('stored', 'duplicate') OR sha256 IS NOT NULL", name=op.f("ck_files_sha256")),
    )
    op.create_index("ix_files_sha256", "files", ["sha256", "source_id"])
    op.create_index("ix_files_source_state", "files", ["source_id", "state"])
    op.create_index("ix_files_state", "files", ["state", "attempted_at"])
    vanished = sa.text("vanished_at IS NOT NULL")
    op.create_index("ix_files_vanished", "files", ["vanished_at"], sqlite_where=vanished, postgresql_where=vanished)
    op.create_table(
        "runs",
        _identity(),
        sa.Column("source_id", _ID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("message", sa.Text()),
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
        sa.Column("seconds", sa.Double()),
        _instant("started_at", nullable=False),
        _instant("finished_at"),
        sa.Column("flow_run_id", sa.Text()),
        sa.Column("details", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_runs_source_id")),
        sa.CheckConstraint(
            "status IN ('running', 'no_new_files', 'success', 'partial', 'failed', 'skipped', 'inactive', "
            "'interrupted', 'cancelled')",
            name=op.f("ck_runs_status"),
        ),
        sa.CheckConstraint("(status = 'running') = (finished_at IS NULL)", name=op.f("ck_runs_finished")),
        sa.CheckConstraint(
            "finished_at IS NULL OR planned = stored + duplicate + quarantined + failed",
            name=op.f("ck_runs_nothing_dropped"),
        ),
    )
    op.create_index("ix_runs_source", "runs", ["source_id", "id"])
    running = sa.text("status = 'running'")
    op.create_index("ix_runs_running", "runs", ["source_id"], sqlite_where=running, postgresql_where=running)
    op.create_table(
        "outcomes",
        _identity(),
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("file_id", _ID, nullable=False),
        _instant("at", nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("message", sa.Text()),
        sa.Column("sha256", sa.Text()),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("warning", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outcomes")),
        sa.UniqueConstraint("run_id", "file_id", name=op.f("uq_outcomes_run_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_outcomes_run_id")),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name=op.f("fk_outcomes_file_id")),
        sa.CheckConstraint(
            "verdict IN ('stored', 'duplicate', 'quarantined', 'failed')", name=op.f("ck_outcomes_verdict")
        ),
    )
    op.create_index("ix_outcomes_file", "outcomes", ["file_id"])
    op.create_index("ix_outcomes_sha256", "outcomes", ["sha256"])
    op.create_table(
        "searches",
        _identity(),
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("source_id", _ID, nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        _count("expected"),
        _count("known"),
        _count("found"),
        _count("probes"),
        _count("hits"),
        sa.Column("reason", sa.Text()),
        sa.Column("message", sa.Text()),
        _instant("at", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_searches")),
        sa.UniqueConstraint("run_id", "stream", "day", name=op.f("uq_searches_run_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_searches_run_id")),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_searches_source_id")),
    )
    op.create_index("ix_searches_source", "searches", ["source_id", "day"])
    op.create_table(
        "probes",
        sa.Column("source_id", _ID, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("quality", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        _instant("at", nullable=False),
        _instant("expires", nullable=False),
        sa.PrimaryKeyConstraint("source_id", "key", "quality", name=op.f("pk_probes")),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_probes_source_id")),
        sa.CheckConstraint("quality IN ('full', 'thumbnail')", name=op.f("ck_probes_quality")),
        sa.CheckConstraint("answer IN ('there', 'not_yet', 'never')", name=op.f("ck_probes_answer")),
    )


def downgrade() -> None:
    """Drop every table; what they held is gone."""
    for table in ("probes", "searches", "outcomes", "runs", "files", "images", "sources", "locations"):
        op.drop_table(table)
