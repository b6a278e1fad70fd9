"""A throwaway PostgreSQL cluster on a free loopback port."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

from tests.servers._programs import require_program

USER = "catchment"
PASSWORD = "pass/word@1"  # what has to be percent-encoded in a URL


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server; `url(database)` names one of its databases with the superuser's login."""

    port: int

    def url(self, database: str = "postgres", *, user: str = USER, password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def run(self, *statements: str, database: str = "postgres") -> None:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def new_database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        self.run(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        self.run(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL server with nothing in it; as user postgres where we are root, which it refuses to run as."""
    initdb, server = require_program("initdb", "postgresql"), require_program("postgres", "postgresql")
    account = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="catchment-pg-"))
    data, log = folder / "data", folder / "log"
    try:
        (folder / "password").write_text(PASSWORD)
        if account:
            for path in (folder, folder / "password"):
                shutil.chown(path, account)
        options = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", f"--username={USER}")
        subprocess.run(
            [initdb, *options, f"--pwfile={folder / 'password'}", data],
            user=account, cwd=folder, check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        port = _free_port()
        settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off",
                    "shared_buffers": "32MB", "max_connections": 60}  # fmt: skip
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [server, "-D", data, *flags],
                user=account, cwd=folder, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            postgres = Postgres(port)
            _wait_until_ready(postgres, process, log)
            yield postgres
        finally:
            process.send_signal(signal.SIGINT)  # fast shutdown: open sessions are ended
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)
                process.wait(timeout=20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_ready(postgres: Postgres, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(postgres.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')}") from None
            time.sleep(0.05)
        else:
            return
