"""Prefect's own server for the length of one command, where none is configured: started early, quiet, never orphaned.

Prefect would start the same one by itself, but only when a flow begins, after two seconds of imports that here run
beside it, and with its log on the user's terminal.
"""

import atexit
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import AF_INET, SOCK_STREAM, socket
from typing import IO

from blocks._errors import CatchmentError

STARTUP_SECONDS = 90.0
"""Longest wait for a server; the first one ever on a machine makes Prefect's database, which takes ten."""

_SETTINGS = {
    # Nothing but the runs of this command is scheduled, late, paused or triggered here.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_CLEANUP_RECONCILER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
}


SHARED_LINK = re.compile(r"https://(drive|docs)\.google\.com/|https://(www\.)?dropbox\.com/", re.IGNORECASE)
"""Where a link begins that people share a folder by: to open it takes credentials, and these are saved Blocks."""

_own: "OwnServer | None" = None


class OwnServer:
    """A Prefect server that this process started and stops at its exit."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
        self.api_url = f"http://127.0.0.1:{port}/api"
        self._process = process
        self._log = log

    def wait_until_ready(self) -> None:
        """Return when the server answers.

        Raises:
            CatchmentError: it ended, or did not answer within `STARTUP_SECONDS`.
        """
        deadline = time.monotonic() + STARTUP_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            # An unproxied look: HTTP_PROXY is meant for the world outside.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with suppress(OSError, urllib.error.URLError), opener.open(f"{self.api_url}/health", timeout=10):
                return
            time.sleep(0.02)
        raise CatchmentError(f"Prefect's server did not start: {self._last_words()}")

    def stop(self) -> None:
        """Stop the server and wait for its end; harmless to repeat."""
        if self._process.stdin:
            self._process.stdin.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it said nothing; `prefect server start` may tell more"


def start_own_server() -> OwnServer | None:
    """Start a server and make it this process's Prefect API; None where the user has configured one.

    Call it before anything of Prefect is imported; it returns at once, while the server is still starting.

    Raises:
        CatchmentError: Prefect's home folder, where the server keeps its database, can not be made.
    """
    global _own
    if is_api_configured():
        return None
    try:
        _home().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CatchmentError(
            f"Prefect's home folder {_home()} can not be made ({error.strerror}): set PREFECT_HOME to one that can."
        ) from error
    with socket(AF_INET, SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = tempfile.TemporaryFile(prefix="catchment-server-")  # noqa: SIM115 - lives as long as the server
    process = subprocess.Popen(  # noqa: S603 - our own file, by this very Python
        [sys.executable, "-P", str(Path(__file__).with_name("_prefect_server.py")), str(port)],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env={**_SETTINGS, **os.environ, "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"},
        start_new_session=True,  # Ctrl-C is for the run, which then still has its server to say so
    )
    _own = OwnServer(process, port, log)
    atexit.register(_own.stop)
    os.environ["PREFECT_API_URL"] = _own.api_url
    return _own


def has_own_server() -> bool:
    """Tell whether this process uses a server of its own."""
    return _own is not None


def await_api() -> None:
    """Return when Prefect's API answers: our own server's, or the one the user has configured.

    Raises:
        CatchmentError: it does not.
    """
    if _own is not None:
        _own.wait_until_ready()
    elif is_api_configured():
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            error = client.api_healthcheck()
        if error is not None:
            raise CatchmentError(
                f"Prefect's API at {client.api_url} does not answer ({type(error).__name__}): start it, or unset "
                "PREFECT_API_URL (prefect config unset PREFECT_API_URL) to run without."
            )


@contextmanager
def prefect_api() -> Iterator[None]:
    """Hold what a flow needs of Prefect's API; our own server watches no heartbeats, so none are sent to it.

    A heartbeat thread is joined when its flow ends and then sleeps: a second of every run.

    Raises:
        CatchmentError: the API does not answer.
    """
    await_api()
    if _own is None:
        yield
        return
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def is_api_configured() -> bool:
    """Tell whether Prefect's settings name an API; Prefect itself is asked only where one could be set.

    https://docs.prefect.io/v3/concepts/settings-and-profiles: environment, .env, prefect.toml, pyproject.toml, profile.
    """
    if os.environ.get("PREFECT_API_URL"):
        return True
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or _home() / "profiles.toml").expanduser()
    witnesses = {Path(".env"): "PREFECT", Path("prefect.toml"): "url", Path("pyproject.toml"): "tool.prefect"}
    if not any(_mentions(path, word) for path, word in (witnesses | {profiles: "PREFECT_API_URL"}).items()):
        return False
    from prefect.settings import get_current_settings

    return bool(get_current_settings().api.url)


def _home() -> Path:
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()


def _mentions(path: Path, word: str) -> bool:
    try:
        return word in path.read_text(errors="replace")
    except OSError:
        return False
