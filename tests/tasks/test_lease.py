"""One run at a time holds a source, and death gives it back."""

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from blocks._catalog import Catalog, open_catalog
from tasks._lease import AlreadyRunning, hold_lease


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with open_catalog(catalog_url) as catalog:
        yield catalog


def make_source(catalog: Catalog) -> int:
    return catalog.ensure_source("cam", "http-directory", "http://127.0.0.1/", now=datetime.now(UTC))


def test_the_second_of_two_runs_is_told_at_once_and_the_next_one_may(catalog: Catalog) -> None:
    source_id = make_source(catalog)
    with hold_lease(catalog, source_id, "cam"), pytest.raises(AlreadyRunning), hold_lease(catalog, source_id, "cam"):
        pytest.fail("two runs hold one source")
    with hold_lease(catalog, source_id, "cam") as lease:
        assert not lease.is_lost


def test_a_killed_run_gives_its_source_back_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    with open_catalog(url) as catalog:
        source_id = make_source(catalog)
        program = (
            "import time; from blocks._catalog import open_catalog; from tasks._lease import hold_lease\n"
            f"with hold_lease(open_catalog({url!r}), {source_id}, 'cam'): print('held', flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None
            assert run.stdout.readline() == "held\n"
            with pytest.raises(AlreadyRunning), hold_lease(catalog, source_id, "cam"):
                pytest.fail("two runs hold one source")
            run.kill()
        started = time.monotonic()
        with hold_lease(catalog, source_id, "cam"):
            assert time.monotonic() - started < 5


def test_a_lease_that_can_not_be_renewed_in_time_is_known_to_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks._lease.LEASE", timedelta(seconds=0.4))
    path = tmp_path / "catalog.db"
    with open_catalog(path) as catalog:
        with hold_lease(catalog, make_source(catalog), "cam") as lease:
            with closing(sqlite3.connect(path)) as other:
                other.execute("UPDATE sources SET lease_holder = 'somebody else'")
                other.commit()
            deadline = time.monotonic() + 5
            while not lease.is_lost and time.monotonic() < deadline:
                time.sleep(0.02)
        assert lease.is_lost


def test_a_live_run_is_given_time_to_end_where_that_is_asked_for(catalog: Catalog) -> None:
    source_id = make_source(catalog)
    taken, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with hold_lease(catalog, source_id, "cam"):
            taken.set()
            may_end.wait(60)

    first = threading.Thread(target=hold)
    first.start()
    assert taken.wait(30)
    with pytest.raises(AlreadyRunning), hold_lease(catalog, source_id, "cam", timedelta(seconds=0.1)):
        pytest.fail("two runs hold one source")
    threading.Timer(0.3, may_end.set).start()
    with hold_lease(catalog, source_id, "cam", timedelta(seconds=60)) as lease:
        assert not first.is_alive() or may_end.is_set()
        assert not lease.is_lost
    first.join(30)


def test_a_run_of_this_process_that_could_not_give_its_source_back_is_known_to_be_over(catalog: Catalog) -> None:
    source_id = make_source(catalog)
    with hold_lease(catalog, source_id, "cam"), catalog.reading() as connection:
        holder = str(connection.scalar(text("SELECT lease_holder FROM sources")))
    assert catalog.acquire_lease(source_id, holder, timedelta(minutes=5)) is None, "as if it had not been released"
    with hold_lease(catalog, source_id, "cam") as lease:
        assert not lease.is_lost
