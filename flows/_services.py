"""Programs that run for as long as this one does, each with its output in a file of its own."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import httpx

from blocks._http import is_loopback

_GRACE_SECONDS = 20.0


class Service:
    """One program, started at once, in a session of its own so that a Ctrl-C reaches only who started it."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """Return the program's exit code (negative: the signal that ended it), or None while it runs."""
        return self._process.poll()

    def stop(self, grace_seconds: float = _GRACE_SECONDS) -> None:
        """Ask the program to end, and after `grace_seconds` make it and everything in its process group end."""
        if self.exit_code is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class StopSignals:
    """Whether someone asked this process to end: Ctrl-C, a service manager, or a terminal that closed."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    @property
    def asked(self) -> bool:
        """Tell whether it is time to end."""
        return self._asked.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds` and tell whether it is time to end."""
        return self._asked.wait(seconds)

    @contextlib.contextmanager
    def watching(self) -> Iterator["StopSignals"]:
        """Take the signals for the length of the block instead of dying of them; only in the main thread."""
        previous = {
            number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self._asked.set()


def is_answering(api_url: str) -> bool:
    """Tell whether a Prefect server answers at `api_url` at all; one that wants a password does, too."""
    # Prefect's own client tries again with growing delays, which is no way to wait for a start.
    try:
        answer = httpx.get(f"{api_url}/health", timeout=5, trust_env=not is_loopback(httpx.URL(api_url).host))
    except httpx.HTTPError:
        return False
    return answer.status_code in {200, 401}
