"""What opening a catalog promises: migrated once, by any number of openers, and plain words where it can not be."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, select, text

from blocks import _database
from blocks._catalog import Catalog, open_catalog
from blocks._catalog_queries import list_sources
from blocks._errors import LibraryRefused, LibraryUnavailable, WrongUse
from blocks._schema import HEAD, VERSION_TABLE, metadata, sources
from tests.servers.postgres import Postgres

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/catalog.db"


def describe_index(index: Any) -> str:
    where = {option: str(value) for option, value in index.get("dialect_options", {}).items()}
    return f"{index['name']} {index['column_names']} {index['unique']} {where}"


def describe_tables(catalog: Catalog) -> dict[str, Any]:
    with catalog.reading() as connection:
        inspector = inspect(connection)
        names = sorted(set(inspector.get_table_names()) - {VERSION_TABLE})
        return {
            name: {
                "columns": [{**column, "type": str(column["type"])} for column in inspector.get_columns(name)],
                "indexes": sorted(describe_index(index) for index in inspector.get_indexes(name)),
                "primary": inspector.get_pk_constraint(name),
                "foreign": sorted(inspector.get_foreign_keys(name), key=lambda key: str(key["name"])),
                "unique": sorted(inspector.get_unique_constraints(name), key=lambda key: str(key["name"])),
                "checks": sorted(inspector.get_check_constraints(name), key=lambda check: str(check["name"])),
            }
            for name in names
        }


def upgrade_by_hand(catalog: Catalog, revision: str) -> None:
    def run(connection: Any) -> None:
        config = Config()
        config.set_main_option("script_location", "blocks:migrations")
        config.attributes["connection"] = connection
        (command.upgrade if revision == "head" else command.downgrade)(config, revision)

    catalog.write(run)


def test_the_migrations_make_the_tables_that_the_code_knows(catalog_url: str) -> None:
    with open_catalog(catalog_url) as catalog:
        migrated = describe_tables(catalog)
        with catalog.reading() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
            assert compare_metadata(context, metadata) == []
        upgrade_by_hand(catalog, "base")
        assert describe_tables(catalog) == {}
        catalog.write(metadata.create_all)
        assert migrated == describe_tables(catalog)


def test_a_catalog_can_be_downgraded_and_upgraded_again(catalog_url: str) -> None:
    with open_catalog(catalog_url) as catalog:
        before = describe_tables(catalog)
        upgrade_by_hand(catalog, "base")
        upgrade_by_hand(catalog, "head")
        assert describe_tables(catalog) == before


def test_the_newest_migration_is_the_one_the_code_names() -> None:
    config = Config()
    config.set_main_option("script_location", "blocks:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_opening_again_changes_nothing_and_is_quick(catalog_url: str) -> None:
    with open_catalog(catalog_url) as catalog:
        catalog.ensure_source("gate", "http", "http://gate.example/", now=NOW)
    seconds = []
    for _ in range(5):
        start = time.thread_time()
        with open_catalog(catalog_url) as catalog:
            seconds.append(time.thread_time() - start)
            assert [source["name"] for source in list_sources(catalog)] == ["gate"]
    assert min(seconds) < 0.02


def test_threads_may_open_a_new_catalog_at_once(catalog_url: str) -> None:
    start = threading.Barrier(6)

    def open_one(number: int) -> int:
        start.wait()
        with open_catalog(catalog_url) as catalog:
            return catalog.ensure_source(f"source {number}", "http", "http://gate.example/", now=NOW)

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(open_one, range(6)))) == 6


def test_processes_may_open_a_new_catalog_at_once(catalog_url: str) -> None:
    script = "import sys; from blocks._catalog import open_catalog; open_catalog(sys.argv[1]).close()"
    openers = [
        subprocess.Popen([sys.executable, "-c", script, catalog_url], stderr=subprocess.PIPE, start_new_session=True)
        for _ in range(3)
    ]
    said = [opener.communicate(timeout=60)[1] for opener in openers]
    assert ([opener.returncode for opener in openers], said) == ([0] * 3, [b""] * 3)


def test_a_migration_that_fails_halfway_leaves_nothing(catalog_url: str) -> None:
    engine = create_engine(catalog_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE runs (id INTEGER)"))
    with pytest.raises(LibraryRefused, match="runs"):
        open_catalog(catalog_url)
    assert inspect(engine).get_table_names() == ["runs"]
    engine.dispose()


def test_a_catalog_of_a_newer_catchment_is_refused_untouched(catalog_url: str) -> None:
    with open_catalog(catalog_url) as catalog:
        catalog.write(lambda c: c.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")))
    with pytest.raises(LibraryRefused, match=r"newer catchment .* 9999.* upgrade catchment"):
        open_catalog(catalog_url)


def test_sqlite_keeps_foreign_keys_writes_ahead_and_waits_for_others(sqlite_url: str) -> None:
    with open_catalog(sqlite_url) as catalog, catalog.reading() as connection:
        names = ("foreign_keys", "journal_mode", "synchronous", "busy_timeout")
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}
    assert pragmas == {"foreign_keys": 1, "journal_mode": "wal", "synchronous": 1, "busy_timeout": 10_000}


def test_the_folder_of_a_sqlite_catalog_is_made(tmp_path: Path) -> None:
    open_catalog(f"sqlite:///{tmp_path}/new/folder/catalog.db").close()
    assert (tmp_path / "new/folder/catalog.db").is_file()


def test_a_path_may_hold_what_a_url_may_not(tmp_path: Path) -> None:
    path = tmp_path / "50% of #7?" / "catalog.db"
    open_catalog(path).close()
    assert path.is_file()


WRONG_URLS = [
    ("", "can not be read"),
    ("s3cret", "can not be read"),
    ("postgresql://ann:s3cret/catalog", "can not be read"),
    ("postgresql://ann:s3c@ret@localhost/catalog", "%40"),
    ("postgresql+asyncpg://ann:s3cret@localhost/catalog", "postgresql://"),
    ("mysql://ann:s3cret@localhost/catalog", "mysql"),
    ("sqlite://", "needs a file"),
    ("sqlite:///:memory:", "needs a file"),
    ("sqlite:///file:catalog?mode=memory&uri=true", "needs a file"),
]


@pytest.mark.parametrize(("url", "advice"), WRONG_URLS)
def test_a_wrong_url_is_refused_without_its_password(url: str, advice: str) -> None:
    with pytest.raises(LibraryRefused, match=advice) as caught:
        open_catalog(url)
    assert_no_secret(caught.value)


def assert_no_secret(error: BaseException | None) -> None:
    while error is not None:
        assert not any(part in f"{error} {error!r}" for part in ("s3cret", "s3c", "ret@"))
        error = error.__cause__


def test_a_login_that_is_refused_says_so_without_the_password(postgres: Postgres) -> None:
    wrong = [
        postgres.url(password="s3cret"),
        postgres.url(user="nobody", password="s3cret"),
        f"postgresql://127.0.0.1:{postgres.port}/postgres?user=catchment&password=s3cret",
    ]
    for url in wrong:
        with pytest.raises(LibraryRefused, match="refused the login") as caught:
            open_catalog(url)
        assert_no_secret(caught.value)
    with pytest.raises(LibraryRefused, match='"nowhere" does not exist'):
        open_catalog(postgres.url("nowhere"))


def test_a_host_that_does_not_answer_is_unavailable() -> None:
    for host in ("127.0.0.1:1", "no-such-host.invalid"):
        with pytest.raises(LibraryUnavailable, match="can not be reached") as caught:
            open_catalog(f"postgresql://ann:s3cret@{host}/catalog")
        assert_no_secret(caught.value)


def test_a_user_who_may_not_make_tables_is_told_so(postgres: Postgres) -> None:
    url = postgres.new_database("guarded")
    postgres.run("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    with pytest.raises(LibraryRefused, match="permission denied"):
        open_catalog(postgres.url("guarded", user="guest", password="guest"))
    postgres.drop_database("guarded")
    open_catalog(url.replace("guarded", "postgres")).close()


def test_a_missing_driver_names_the_extra_to_install() -> None:
    script = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from blocks._catalog import open_catalog\n"
        "open_catalog('postgresql://ann:s3cret@localhost/catalog')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "LibraryRefused" in done.stderr
    assert "pip install 'catchment[postgres]'" in done.stderr
    assert "s3cret@" not in done.stderr.rpartition("LibraryRefused")[2]


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("These are my notes, and they are no database. " * 40)
    with pytest.raises(LibraryRefused, match="not a whole SQLite database"):
        open_catalog(f"sqlite:///{tmp_path}/notes.txt")
    with pytest.raises(LibraryRefused, match="check the path"):
        open_catalog(f"sqlite:///{tmp_path}")
    with pytest.raises(LibraryRefused, match="can not be made"):
        open_catalog(f"sqlite:///{tmp_path}/notes.txt/catalog.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_catalog_that_may_not_be_written_is_refused(sqlite_url: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LibraryRefused, match="who may write"):
        open_catalog(sqlite_url)
    tmp_path.chmod(0o700)


@pytest.fixture
def locked(sqlite_url: str) -> Iterator[tuple[Catalog, sqlite3.Connection]]:
    """A catalog that another program is writing to."""
    with open_catalog(sqlite_url) as catalog:
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        yield catalog, other
        other.close()


def test_a_writer_waits_for_another_and_readers_do_not(locked: tuple[Catalog, sqlite3.Connection]) -> None:
    catalog, other = locked
    assert list_sources(catalog) == []
    done = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    done.start()
    catalog.ensure_source("gate", "http", "http://gate.example/", now=NOW)
    done.join()
    assert len(list_sources(catalog)) == 1


def test_a_catalog_that_stays_locked_is_unavailable(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_catalog(sqlite_url).close()
    monkeypatch.setattr(_database, "_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(_database, "_BUSY_SECONDS", 0.1)
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with open_catalog(sqlite_url) as catalog, pytest.raises(LibraryUnavailable, match="stayed locked"):
        catalog.ensure_source("gate", "http", "http://gate.example/", now=NOW)
    other.close()


def test_a_connection_that_is_lost_is_unavailable_and_the_next_call_finds_a_new_one(postgres: Postgres) -> None:
    url = postgres.new_database("cut_off")
    with open_catalog(url) as catalog:
        with pytest.raises(LibraryUnavailable), catalog.reading() as connection:  # noqa: PT012 - the loss comes between
            postgres.run(f"SELECT pg_terminate_backend({connection.scalar(text('SELECT pg_backend_pid()'))})")
            connection.execute(select(sources))
        catalog.ensure_source("gate", "http", "http://gate.example/", now=NOW)
        postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'cut_off'")
        assert len(list_sources(catalog)) == 1
    postgres.drop_database("cut_off")


def test_a_row_that_breaks_a_foreign_key_is_refused(catalog_url: str) -> None:
    with open_catalog(catalog_url) as catalog:
        with pytest.raises(WrongUse, match="rules"):
            catalog.begin_run(1, now=NOW)
        source_id = catalog.ensure_source("gate", "http", "http://gate.example/", now=NOW)
        catalog.begin_run(source_id, now=NOW)
        with pytest.raises(WrongUse, match="rules"):
            catalog.write(lambda c: c.execute(sources.delete()))


def test_an_instant_without_a_zone_is_refused(catalog_url: str) -> None:
    with open_catalog(catalog_url) as catalog, pytest.raises(WrongUse, match="aware"):
        catalog.ensure_source("gate", "http", "http://gate.example/", now=datetime(2026, 6, 1))  # noqa: DTZ001
