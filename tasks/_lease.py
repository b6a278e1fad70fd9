"""The right to ingest a source: one holder at a time, across machines, released by death."""

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from blocks._catalog import Catalog
from blocks._errors import CatchmentError

LEASE = timedelta(seconds=90)
"""How long a holder that no longer renews keeps the source, where its death can not be seen from here."""

_LOOK_AGAIN_SECONDS = 0.5

_held: set[str] = set()
"""The holders of this process: one that could not give its source back, the catalog being away, has no place here."""


class AlreadyRunning(CatchmentError):
    """Another run holds the source: let it finish."""


class Lease:
    """The held right; `is_lost` turns true when it could not be renewed in time, and the holder has to stop."""

    def __init__(self) -> None:
        self.is_lost = False


@contextmanager
def hold_lease(catalog: Catalog, source_id: int, source_name: str, wait: timedelta = timedelta(0)) -> Iterator[Lease]:
    """Hold the source for the length of the block, renewing in a thread of its own.

    A holder that is known to be dead (its process is gone from this machine) is put aside at once; one that died
    elsewhere is waited out for `LEASE`. A live one is given `wait` to end.

    Raises:
        AlreadyRunning: another run holds the source.
    """
    holder = _name_holder()
    _held.add(holder)  # before it could be seen in the catalog
    try:
        present = _acquire(catalog, source_id, holder)
        deadline = time.monotonic() + wait.total_seconds()
        while present is not None and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN_SECONDS)
            present = _acquire(catalog, source_id, holder)
        if present is not None:
            raise AlreadyRunning(f"{source_name} is being ingested by another run ({present.rpartition(' ')[0]}).")
        yield from _keeping(catalog, source_id, source_name, holder)
    finally:
        _held.discard(holder)


def _keeping(catalog: Catalog, source_id: int, source_name: str, holder: str) -> Iterator[Lease]:
    lease, done = Lease(), threading.Event()
    keeper = threading.Thread(
        target=_keep, args=(catalog, source_id, holder, lease, done), name=f"lease {source_name}", daemon=True
    )
    keeper.start()
    try:
        yield lease
    finally:
        done.set()
        keeper.join()
        with suppress(CatchmentError):  # it runs out by itself, and must not hide how the run ended
            catalog.release_lease(source_id, holder)


def _acquire(catalog: Catalog, source_id: int, holder: str) -> str | None:
    """Take the source; return None, or the live holder it could not be taken from."""
    present = catalog.acquire_lease(source_id, holder, LEASE)
    if present is not None and _is_dead(present):
        catalog.release_lease(source_id, present)
        present = catalog.acquire_lease(source_id, holder, LEASE)
    return present


def _keep(catalog: Catalog, source_id: int, holder: str, lease: Lease, done: threading.Event) -> None:
    renewed_at = time.monotonic()
    while not done.wait(LEASE.total_seconds() / 4):
        asked_at = time.monotonic()
        try:
            lease.is_lost = not catalog.renew_lease(source_id, holder, LEASE)
            renewed_at = asked_at
        except CatchmentError:  # the lease lasts until its time is up, whether the catalog answers or not
            lease.is_lost = asked_at - renewed_at > LEASE.total_seconds()
        if lease.is_lost:
            return


def _name_holder() -> str:
    """Name this run: host, process-id space, process, its start, and a token, as two runs may share a process."""
    pid = os.getpid()
    return f"{socket.gethostname()} {_pid_space()} {pid} {_start_of(pid)} {uuid.uuid4().hex[:8]}"


def _is_dead(holder: str) -> bool:
    try:
        host, space, pid, start, _ = holder.split(" ")
    except ValueError:
        return False
    if (host, space) != (socket.gethostname(), _pid_space()):
        return False
    return _start_of(int(pid)) != start or (int(pid) == os.getpid() and holder not in _held)


def _pid_space() -> str:
    """Tell containers of one host name apart: a process id means nothing outside its namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot[:8]}-{Path('/proc/self/ns/pid').readlink().name.strip('pid:[]')}"
    except OSError:
        return "-"


def _start_of(pid: int) -> str:
    """Return when process `pid` started, in clock ticks since boot; "gone" if there is none; "alive" if that is all
    that can be seen.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self/stat").exists():
            return "gone"
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return "gone"
        except OSError:
            return "alive"
        return "alive"
    fields = stat.rpartition(")")[2].split()
    return "gone" if fields[0] == "Z" else fields[19]
