"""A tree of downloads becomes the camera's own pictures: nothing is lost, nothing twice, nothing removed unproven."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.states import State
from prefect_aws import MinIOCredentials, S3Bucket

from blocks._catalog_captures import read_sources
from blocks._records import Page, RemoteFile, make_listing
from blocks.library import ImageLibrary
from blocks.terminal_camera import TerminalCamera
from flows.tend_download_tree import tend_download_tree
from tasks._organize import Fate, OrganizeReport
from tasks._plan import make_plan, read_known
from tests.flows.ingesting import assert_sound, images_of, last_run, visible_files
from tests.pictures import cut, make_jpeg
from tests.servers.s3 import PASSWORD, USER, serve_moto

pytestmark = pytest.mark.usefixtures("prefect_api")

ROOT = Path(__file__).parents[2]
KEY = "2025-09-01/in_gate/20250901100000_in_gate.jpg"
SMALL = (64, 48)
KILLS = int(os.environ.get("CATCHMENT_TEST_KILLS", "4"))
"""At how many places a move is killed, spread evenly over it."""


def put(tree: Path, name: str, content: bytes) -> Path:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Downloads in three forms, one of them a second time, one broken, and something else."""
    folder = tmp_path / "downloads"
    put(folder, "20250901T100000_in_gate.jpg", make_jpeg(1, SMALL))
    put(folder, "old/20250901101000_out_gate.jpg", make_jpeg(2, SMALL))
    put(folder, "old/2025-09-01T10:20:07-in_gate.jpeg", make_jpeg(3, SMALL))
    put(folder, "copy/20250901100000_in_gate.jpg", make_jpeg(1, SMALL))
    put(folder, "copy/20250901T103000_in_gate.jpg", cut(make_jpeg(4, SMALL)))
    put(folder, "holiday.jpg", make_jpeg(5, SMALL))
    return folder


def organize(tree: Path, library: ImageLibrary, **options: Any) -> OrganizeReport:
    state: State[OrganizeReport] = tend_download_tree(
        TerminalCamera(), tree, library, **{"dry_run": False, "return_state": True} | options
    )
    report = state.result(raise_on_failure=False)
    assert isinstance(report, OrganizeReport), report
    return report


def fates(report: OrganizeReport) -> dict[str, str]:
    return {placing.name: placing.fate.value for placing in report.files}


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_dry_run_shows_everything_and_touches_nothing(tree: Path, library: ImageLibrary) -> None:
    before = files_below(tree)
    report = organize(tree, library, dry_run=True, move=True)
    assert (report.count(Fate.TAKE), report.count(Fate.HERE), report.count(Fate.LEFT)) == (4, 1, 1)
    assert "4 of 6 files would be moved" in report.summary
    assert files_below(tree) == before
    assert not library.folder.exists()


def test_copies_become_the_cameras_own_pictures_and_a_second_run_changes_nothing(
    tree: Path, library: ImageLibrary
) -> None:
    before = files_below(tree)
    report = organize(tree, library)
    assert fates(report) == {
        "20250901T100000_in_gate.jpg": "taken",
        "old/20250901101000_out_gate.jpg": "taken",
        "old/2025-09-01T10:20:07-in_gate.jpeg": "taken",
        "copy/20250901100000_in_gate.jpg": "here",
        "copy/20250901T103000_in_gate.jpg": "left",
        "holiday.jpg": "left",
    }
    assert set(visible_files(library)) == {
        KEY,
        "2025-09-01/out_gate/20250901101000_out_gate.jpg",
        "2025-09-01/in_gate/20250901102007_in_gate.jpg",
    }
    [image] = [row for row in images_of(library, camera="in_gate") if row["key"] == KEY]
    assert (image["captured_at"], image["captured_at_source"], image["source"], image["quality"]) == (
        "2025-09-01T10:00:00-07:00",
        "camera",
        TerminalCamera().source_name,
        "full",
    )
    assert (library.folder / KEY).stat().st_mtime == 1_700_000_000
    [row] = read_sources(library.catalog())
    assert (row.kind, row.root) == ("terminal-camera", TerminalCamera().root)
    assert files_below(tree) == before
    assert_sound(library)
    [kept] = (library.folder / ".catchment/reports").rglob(f"organized_run-{report.run_id}.json")
    assert json.loads(kept.read_bytes())["counts"] == {"take": 0, "taken": 3, "here": 1, "left": 2}

    again = organize(tree, library)
    assert set(fates(again).values()) == {"here", "left"}
    assert {placing.name: placing.why for placing in again.files}["copy/20250901T103000_in_gate.jpg"] == (
        "it was refused before: truncated"
    )
    assert last_run(library)["status"] == "no_new_files"
    assert_sound(library)


def test_a_move_leaves_only_what_the_library_does_not_hold(tree: Path, library: ImageLibrary) -> None:
    report = organize(tree, library, move=True)
    assert files_below(tree) == ["copy/20250901T103000_in_gate.jpg", "holiday.jpg"]
    assert sum(placing.is_removed for placing in report.files) == 4
    assert not (tree / "old").exists()
    assert len(visible_files(library)) == 3
    assert_sound(library)


def test_a_move_after_a_copy_removes_what_is_there_already(tree: Path, library: ImageLibrary) -> None:
    organize(tree, library)
    (library.folder / KEY).write_bytes(b"rotten")
    organize(tree, library, move=True)
    assert files_below(tree) == [
        "20250901T100000_in_gate.jpg",
        "copy/20250901100000_in_gate.jpg",
        "copy/20250901T103000_in_gate.jpg",
        "holiday.jpg",
    ]


def test_other_bytes_of_one_name_are_kept_apart(tree: Path, library: ImageLibrary) -> None:
    put(tree, "other/20250901T100000_in_gate.jpg", make_jpeg(9, SMALL))
    mark = hashlib.sha256(make_jpeg(9, SMALL)).hexdigest()[:8]
    report = organize(tree, library, move=True)
    assert fates(report)["other/20250901T100000_in_gate.jpg"] == "taken"
    stored = visible_files(library)
    assert stored[KEY] == make_jpeg(1, SMALL)
    assert stored[KEY.replace(".jpg", f"~{mark}.jpg")] == make_jpeg(9, SMALL)
    assert_sound(library)


def test_the_camera_finds_what_was_organized_already_there(tree: Path, library: ImageLibrary) -> None:
    """Its own listing, which tells neither size nor time, names the same files."""
    organize(tree, library)
    listed = Page(make_listing([RemoteFile(KEY), RemoteFile(KEY.replace("in_gate", "out_gate"))]), is_start=False)
    plan = make_plan(listed.files, read_known(library, TerminalCamera().source_name, listed))
    assert (plan.unchanged, plan.decisions["key"].to_list()) == (1, [KEY.replace("in_gate", "out_gate")])
    assert images_of(library, status="vanished") == []


def test_a_thumbnail_gives_way_to_the_full_picture_in_one_entry(tmp_path: Path, library: ImageLibrary) -> None:
    tree = tmp_path / "downloads"
    put(tree, "2025-09-01T10:00:00-in_gate-thumbnail.jpeg", make_jpeg(1, (32, 24)))
    organize(tree, library)
    [image] = images_of(library)
    assert (image["quality"], image["key"]) == ("thumbnail", KEY)
    put(tree, "2025-09-01T10:00:00-in_gate.jpeg", make_jpeg(1, SMALL))
    organize(tree, library)
    [image] = images_of(library)
    assert (image["quality"], image["key"]) == ("full", KEY)
    assert list(visible_files(library)) == [KEY]
    assert_sound(library)


def test_a_library_in_s3_takes_a_tree_by_move_too(tree: Path, tmp_path: Path) -> None:
    with serve_moto("pictures") as server:
        credentials = MinIOCredentials(
            minio_root_user=USER,
            minio_root_password=PASSWORD,
            aws_client_parameters={"endpoint_url": server.url},
        )
        bucket = S3Bucket(bucket_name="pictures", credentials=credentials)
        library = ImageLibrary(folder=tmp_path / "library", bucket=bucket)
        report = organize(tree, library, move=True)
        assert report.count(Fate.TAKEN) == 3
        assert files_below(tree) == ["copy/20250901T103000_in_gate.jpg", "holiday.jpg"]
        assert library.storage().read_bytes(KEY) == make_jpeg(1, SMALL)
        [key] = [row["storage_key"] for row in images_of(library, camera="out_gate")]
        assert library.storage().hash_object(key) == hashlib.sha256(make_jpeg(2, SMALL)).hexdigest()


def test_a_tree_in_the_library_fails_with_what_to_do(library: ImageLibrary) -> None:
    library.folder.mkdir()
    state = tend_download_tree(TerminalCamera(), library.folder, library, return_state=True)
    assert state.is_failed()
    assert "organize another folder" in str(state.message)


KILLED = """
import os, signal, sys
from pathlib import Path
from blocks.library import ImageLibrary
from blocks.terminal_camera import TerminalCamera
from flows.tend_download_tree import tend_download_tree
from tasks import run

run.IN_FLIGHT = 1
for line in sys.stdin:  # a process of its own for each, forked from one that has imported all
    deadly, base = line.split()
    process = os.fork()
    if process == 0:
        seen = 0
        def audit(name, details):
            global seen
            is_change = name in {"os.rename", "os.link", "os.remove", "os.rmdir"}
            if is_change and any(base in str(one) for one in details[:2]):
                seen += 1
                if seen == int(deadly):
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(audit)
        library = ImageLibrary(folder=Path(base) / "library")
        tend_download_tree(TerminalCamera(), Path(base) / "downloads", library, move=True, dry_run=False)
        os.write(1, f"{seen}\\n".encode())
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != 0:
        os.write(1, b"killed\\n")
"""
"""Reads lines `number folder` and answers each with how many changes there were, or `killed` before that number."""


def test_a_move_killed_anywhere_loses_nothing_and_the_next_one_completes_it(prefect_api: str, tmp_path: Path) -> None:
    pictures = {f"20250901T10{minute:02}00_in_gate.jpg": make_jpeg(minute, SMALL) for minute in range(0, 40, 10)}
    digests = {hashlib.sha256(content).hexdigest() for content in pictures.values()}
    environment = {**os.environ, "PREFECT_API_URL": prefect_api, "PREFECT_LOGGING_LEVEL": "CRITICAL"}

    def run(number: int, deadly: int) -> tuple[Path, ImageLibrary, str]:
        base = tmp_path / f"run-{number}"
        for name, content in pictures.items():
            put(base / "downloads", f"deep/{name}", content)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{deadly} {base}\n")
        process.stdin.flush()
        return base / "downloads", ImageLibrary(folder=base / "library"), process.stdout.readline().strip()

    with subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=ROOT, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            tree, library, changes = run(0, 0)
            assert (files_below(tree), len(visible_files(library))) == ([], 4)
            for number in range(1, KILLS + 1):
                tree, library, word = run(number, 1 + int(changes) * (number - 1) // KILLS)
                assert word == "killed", number
                held = [path.read_bytes() for path in tree.rglob("*.jpg")] + list(visible_files(library).values())
                assert {hashlib.sha256(content).hexdigest() for content in held} >= digests, number
                organize(tree, library, move=True)
                assert files_below(tree) == [], number
                assert {hashlib.sha256(kept).hexdigest() for kept in visible_files(library).values()} == digests, number
                assert_sound(library)
        finally:
            process.kill()
