"""Runs of the drop folder's flow that kill themselves, as `tests.flows.killed_run` does: forked, dead at one change.

Reads lines `number folder`, takes `folder/drop` into `folder/library`, and answers `done changes` or `killed`.

    python -m tests.flows.killed_drop
"""

import os
import sys
from pathlib import Path

from blocks.library import ImageLibrary
from flows.ingest_drop_folder import ingest_drop_folder
from tasks import run as runs
from tests.flows.killed_run import Changes


def run(folder: Path, deadly: int) -> None:
    """Run the flow in a process of its own and tell how it ended."""
    process = os.fork()
    if process == 0:
        changes = Changes(str(folder), deadly)
        library = ImageLibrary(folder=folder / "library")
        ingest_drop_folder(str(folder / "drop"), library=library, settle_seconds=0, return_state=True)
        os.write(1, f"done {changes.count}\n".encode())
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != 0:
        os.write(1, b"killed\n")


if __name__ == "__main__":
    runs.IN_FLIGHT = 1  # one batch after the other, so that the changes of every run come in one order
    for line in sys.stdin:
        number, _, place = line.rstrip("\n").partition(" ")
        run(Path(place), int(number))
