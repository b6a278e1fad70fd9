"""What tests of every floor share."""

import os
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

# Prefect reads these when it is imported: the tests leave the machine's own profile, server and database alone.
os.environ.update(
    PREFECT_HOME=tempfile.mkdtemp(prefix="catchment-tests-"),
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    DO_NOT_TRACK="1",
)
for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "CATCHMENT_LIBRARY"):
    os.environ.pop(name, None)

from tests.servers.postgres import Postgres, running_postgres  # noqa: E402 - after the variables above

_numbers = count(1)


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """The URL of a Prefect server for the whole session, used by flows called in this process."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    # A heartbeat's thread is waited for: it would cost every flow run a second.
    with prefect_test_harness(server_startup_timeout=90), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield PREFECT_API_URL.value()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the whole session."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def catalog_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/catalog.db"
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = f"catalog_{next(_numbers)}"
    yield server.new_database(name)
    server.drop_database(name)
