"""What tests of the flows share: web sites to take from, a library to fill, and no waiting between tries."""

import gc
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from blocks.library import ImageLibrary
from flows.cli import run
from tasks import ingest as tasks_of_an_ingest
from tests.flows.commands import Command, Said
from tests.flows.ingesting import Site
from tests.servers.fault import FaultServer, serve_faults
from tests.servers.http_server import HttpServer, serve_http_server
from tests.servers.nginx import serve_nginx

_numbers = count(1)


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HttpServer, Path]]:
    """One nginx for the session, and the folder that it serves."""
    root = tmp_path_factory.mktemp("nginx")
    with serve_nginx(root) as server:
        yield server, root


@pytest.fixture
def site(nginx: tuple[HttpServer, Path]) -> Site:
    """A directory of the test's own on a server that lists sizes and dates."""
    server, root = nginx
    name = f"site-{next(_numbers)}"
    (root / name).mkdir()
    return Site(root / name, f"{server.url}{name}/", server)


@pytest.fixture
def bare_site(tmp_path: Path) -> Iterator[Site]:
    """A directory on a server that lists names only."""
    root = tmp_path / "bare"
    root.mkdir()
    with serve_http_server(root) as server:
        yield Site(root, server.url, server)


@pytest.fixture
def faults() -> Iterator[FaultServer]:
    """A server that misbehaves as it is told."""
    with serve_faults() as server:
        yield server


@pytest.fixture
def library(tmp_path: Path) -> ImageLibrary:
    """A library of the test's own, of which nothing is there yet."""
    return ImageLibrary(folder=tmp_path / "library")


@pytest.fixture
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tasks try again at once."""
    for name in ("list_files", "diff", "download", "store"):
        monkeypatch.setattr(getattr(tasks_of_an_ingest, name), "retry_delay_seconds", 0)


@pytest.fixture
def catchment(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """The command line in this process, in a folder of its own; what it sets for its process is undone."""
    before, threshold = dict(os.environ), gc.get_threshold()
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    yield call
    os.environ.clear()
    os.environ.update(before)
    gc.set_threshold(*threshold)


@pytest.fixture
def with_api(prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands use the session's Prefect server instead of starting one each."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
