"""Runs of the real flow that kill themselves: each in a process of its own, forked from one that has imported all.

Reads lines `number library` and answers each with `done changes`, or `killed` where the run died (SIGKILL) at the
change with that number. A change is whatever alters the library's folder or its catalog: a file opened for writing,
renamed, linked or removed, a folder made, a transaction committed; the kill comes right before it.

    python -m tests.flows.killed_run SOURCE_FOLDER
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from blocks.library import ImageLibrary
from blocks.remote_folder import RemoteFolder
from flows.ingest_remote_folder import ingest_remote_folder
from tasks import run as runs

# https://docs.python.org/3/library/audit_events.html
CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Changes:
    """Counts the changes under `root` and dies before number `deadly`; 0: never."""

    def __init__(self, root: str, deadly: int) -> None:
        self.count = 0
        self._root = root
        self._deadly = deadly
        sys.addaudithook(self._audit)
        event.listen(Engine, "commit", self._commit)

    def _audit(self, name: str, details: tuple[Any, ...]) -> None:
        is_change = name in CHANGES or (name == "open" and isinstance(details[2], int) and details[2] & WRITING)
        if is_change and any(str(detail).startswith(self._root) for detail in details[:2]):
            if name == "os.mkdir" and Path(details[0]).exists():
                return
            self._add()

    def _commit(self, connection: Connection) -> None:
        rows = connection.connection.dbapi_connection.total_changes  # type: ignore[union-attr]
        if rows != connection.info.get("rows_before", 0):
            connection.info["rows_before"] = rows
            self._add()

    def _add(self) -> None:
        self.count += 1
        if self.count == self._deadly:
            os.kill(os.getpid(), signal.SIGKILL)


def run(source: str, deadly: int, library: str) -> None:
    """Run the flow in a process of its own and tell how it ended."""
    process = os.fork()
    if process == 0:
        changes = Changes(library, deadly)
        place = RemoteFolder(url=source, settle_seconds=0)
        ingest_remote_folder(place, ImageLibrary(folder=Path(library)), max_files=None, return_state=True)
        os.write(1, f"done {changes.count}\n".encode())
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != 0:
        os.write(1, b"killed\n")


if __name__ == "__main__":
    runs.IN_FLIGHT = 1  # one batch after the other, so that the changes of every run come in one order
    for line in sys.stdin:
        number, _, folder = line.rstrip("\n").partition(" ")
        run(sys.argv[1], int(number), folder)
