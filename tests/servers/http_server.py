"""Python's own http.server, and what every HTTP server of the tests has in common: an address and a log of requests."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_REQUEST = re.compile(r'"([A-Z]+ [^"]*? HTTP/[\d.]+)"')
_STILL_SECONDS = 0.1


def parse_request_lines(log: str) -> list[str]:
    """Return the request lines of a log in the common or combined format."""
    return _REQUEST.findall(log)


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A server that runs until its context ends; `url` ends with a slash."""

    url: str
    access_log: Path
    parse_log: Callable[[str], list[str]] = parse_request_lines
    flush_log: Callable[[], None] = lambda: None

    def requests(self) -> list[str]:
        """Return the request lines so far, such as `GET /a.jpg HTTP/1.1`, once the log has been still for 0.1 s.

        A server writes its log after it has answered; lines of several connections may stand in any order.
        """
        self.flush_log()
        seen = None
        while seen != (seen := self._read_log()):
            time.sleep(_STILL_SECONDS)
        return self.parse_log(seen)

    def _read_log(self) -> str:
        return self.access_log.read_text(errors="replace") if self.access_log.exists() else ""


def find_free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def private_folder(owner: int | None = None) -> Iterator[Path]:
    """Yield a new folder for a server's own files and remove it at the end; `owner`: user id to give it to."""
    folder = Path(tempfile.mkdtemp(prefix="catchment-server-"))
    try:
        if owner is not None:
            os.chown(folder, owner, owner)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(
    command: Sequence[str | Path], *, port: int, log: Path, env: Mapping[str, str] | None = None, seconds: float = 15
) -> Iterator[int]:
    """Run `command` in a session of its own, yield its process id once `port` accepts, and stop it at the end.

    Raises:
        RuntimeError: the program ended or did not accept within `seconds`; the text holds the end of `log`.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        _await_port(process, port, seconds, log)
        yield process.pid
    finally:
        _stop(process)


def _await_port(process: subprocess.Popen[bytes], port: int, seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            accepted = probe.connect_ex(("127.0.0.1", port)) == 0
        if process.poll() is not None:
            break
        if accepted:
            return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args[0]!r} does not serve: {log.read_text(errors='replace')[-2000:]}")  # type: ignore[index]


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


@contextmanager
def serve_http_server(root: Path) -> Iterator[HttpServer]:
    """Serve `root` by `python -m http.server`: no sizes, no dates, no ranges."""
    port = find_free_port()
    with private_folder() as folder:
        log = folder / "access.log"
        command = [sys.executable, "-u", "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", root]
        with running(command, port=port, log=log):
            yield HttpServer(f"http://127.0.0.1:{port}/", log)
