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


@dataclass(slots=True)
class Postgres:
    """A server that can be stopped and started again; `url(database)` names one of its databases.

    The login is the superuser's.
    """

    port: int
    _command: list[str | Path]
    _account: str | None
    _log: Path
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and return when it answers."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                user=self._account, cwd=self._log.parent, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        _wait_until_ready(self, self._process, self._log)

    def stop(self) -> None:
        """End every session and stop the server; harmless to repeat."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)  # fast shutdown: open sessions are ended
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=20)
        self._process = None

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
        postgres = Postgres(port, [server, "-D", data, *flags], account, log)
        try:
            postgres.start()
            yield postgres
        finally:
            postgres.stop()
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
