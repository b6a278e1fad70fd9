"""Kill a run anywhere: nothing half-written is visible, and the next run ends where an undisturbed one would have."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blocks._catalog_queries import list_runs
from blocks.library import ImageLibrary
from tests.flows.ingesting import assert_sound, directory, folder_source, images_of, index_page, ingest, visible_files
from tests.pictures import cut, make_jpeg
from tests.servers import fault
from tests.servers.fault import FaultServer

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("CATCHMENT_TEST_KILLS", "12"))
"""At how many places a run is killed, spread evenly over it; a number beyond the run's changes means at every one."""


class KilledRuns:
    """The program that runs the flow and dies."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, library: ImageLibrary, deadly: int) -> int | None:
        """Run the flow and return the number of its changes, or None where it was killed before number `deadly`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{deadly} {library.folder}\n")
        self._process.stdin.flush()
        word, _, changes = self._process.stdout.readline().strip().partition(" ")
        assert word in {"done", "killed"}, word
        return int(changes) if word == "done" else None


@contextmanager
def killed_runs(prefect_api: str, source: Path) -> Iterator[KilledRuns]:
    environment = {**os.environ, "PREFECT_API_URL": prefect_api, "PREFECT_LOGGING_LEVEL": "CRITICAL"}
    command = [sys.executable, "-m", "tests.flows.killed_run", str(source)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield KilledRuns(process)
        finally:
            process.kill()


def what_is_kept(library: ImageLibrary) -> dict[str, object]:
    """Return what a library holds, leaving out which of two equal files came first."""
    pen = library.folder / ".catchment" / "quarantine"
    return {
        "files": sorted(hashlib.sha256(content).hexdigest() for content in visible_files(library).values()),
        "images": sorted(row["sha256"] for row in images_of(library)),
        "sources": {
            row["key"]: (row["sha256"], row["reason"])
            for status in ("duplicate", "quarantined", "failed", "parked", "retry")
            for row in images_of(library, status=status)
        },
        "refused": {path.relative_to(pen).as_posix(): path.read_bytes() for path in pen.rglob("*") if path.is_file()},
    }


def test_a_run_killed_at_any_write_leaves_nothing_half_and_the_next_one_ends_as_if_nothing_had_been(
    prefect_api: str, tmp_path: Path
) -> None:
    folder = tmp_path / "card"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(make_jpeg(1))
    (folder / "broken.jpg").write_bytes(cut(make_jpeg(2)))
    source = folder_source(folder)
    with killed_runs(prefect_api, folder) as runs:
        undisturbed = ImageLibrary(folder=tmp_path / "undisturbed")
        changes = runs.run(undisturbed, 0)
        assert changes is not None
        expected = what_is_kept(undisturbed)
        assert_sound(undisturbed)
        places = sorted({1 + number * changes // KILLS for number in range(KILLS)})
        for place in places:
            library = ImageLibrary(folder=tmp_path / f"killed-{place}")
            assert runs.run(library, place) is None, place
            if library.folder.exists():
                assert set(visible_files(library).values()) <= {make_jpeg(1)}, place
            ingest(source, library)
            assert what_is_kept(library) == expected, place
            assert_sound(library)
            assert "running" not in {run["status"] for run in list_runs(library.catalog())}, place


def test_a_download_killed_halfway_is_never_taken_for_the_file(
    prefect_api: str, faults: FaultServer, tmp_path: Path
) -> None:
    """The half file stays a `.part`; the next run joins the rest to it where the server proves it is the same file."""
    picture = make_jpeg(1) + bytes(2_000_000)  # cameras append data of their own
    half = len(picture) // 2
    etag = f'"{hashlib.sha256(picture).hexdigest()[:16]}"'
    faults.on("/", index_page(["a.jpg"]))
    faults.on("/a.jpg", fault.stall(fault.head(200, len(picture), etag=etag) + picture[:half]))
    library = ImageLibrary(folder=tmp_path / "library")
    program = (
        "import sys; from tests.flows.ingesting import *\n"
        "ingest(directory(sys.argv[1]), ImageLibrary(folder=Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", program, faults.url, str(library.folder)]
    environment = {**os.environ, "PREFECT_API_URL": prefect_api}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as run:
        staging = library.folder / ".catchment" / "staging"
        while sum(path.stat().st_size for path in staging.glob("*/*.part")) < half:
            assert run.poll() is None
        run.kill()
    assert visible_files(library) == {}
    faults.on("/a.jpg", fault.whole(picture))
    assert ingest(directory(faults.url), library).report.stored == 1
    assert list(visible_files(library).values()) == [picture]
    assert faults.requests_for("/a.jpg")[-1].headers["range"] == f"bytes={half}-"
    assert_sound(library)
