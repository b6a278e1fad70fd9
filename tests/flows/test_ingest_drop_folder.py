"""A drop folder is emptied into accepted/ and rejected/: nothing is lost, and nothing accepted that is not stored."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from blocks._catalog_queries import list_runs
from blocks.library import ImageLibrary
from blocks.remote_folder import RemoteFolder
from flows.ingest_drop_folder import FOLDER_VARIABLE, ingest_drop_folder
from tests.flows.ingesting import Ending, assert_sound, images_of, visible_files
from tests.pictures import HTML_PAGE, cut, make_jpeg

pytestmark = pytest.mark.usefixtures("prefect_api")

ROOT = Path(__file__).parents[2]
SMALL = (160, 120)
KILLS = int(os.environ.get("CATCHMENT_TEST_KILLS", "8"))


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    folder = tmp_path / "drop"
    folder.mkdir()
    return folder


def take(drop: Path, library: ImageLibrary, **options: Any) -> Ending:
    """Run the flow on a folder whose files are taken however new they are."""
    return Ending(ingest_drop_folder(str(drop), library=library, return_state=True, **{"settle_seconds": 0} | options))


def put(drop: Path, name: str, content: bytes | dict[str, Any]) -> Path:
    path = drop / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(content).encode() if isinstance(content, dict) else content)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder`, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_dropped_ends_in_accepted_or_rejected_with_a_reason(drop: Path, library: ImageLibrary) -> None:
    good, page = make_jpeg(1, SMALL), HTML_PAGE
    put(drop, "Cam_1/good.jpg", good)
    put(drop, "Cam_1/good.json", {"session": "FP1", "timestamp_ref": "2026-05-31T14:03:09+02:00", "exposure": 0.5})
    put(drop, "Cam_1/deep/page.jpg", page)
    put(drop, "Cam_1/said.jpg", make_jpeg(2, SMALL))
    put(drop, "Cam_1/said.jpg.json", {"exposure": -1})
    put(drop, "Cam_1/notes.txt", b"not a picture")
    put(drop, "Cam_1/alone.json", {"session": "its picture is still to come"})
    put(drop, "Cam_1/.hidden.jpg", good)
    put(drop, "Cam_1/growing.jpg.part", good[:50])
    put(drop, "nobody.jpg", make_jpeg(3, SMALL))
    put(drop, "not a camera/x.jpg", make_jpeg(4, SMALL))
    report = take(drop, library).report
    assert (report.stored, report.quarantined, report.failed) == (1, 2, 3)
    left = tree(drop)
    assert {name for name in left if not name.startswith("rejected/")} == {
        "accepted/Cam_1/good.jpg",
        "accepted/Cam_1/good.json",
        "Cam_1/alone.json",
        "Cam_1/.hidden.jpg",
        "Cam_1/growing.jpg.part",
    }
    why = {
        name.removeprefix("rejected/").removesuffix(".reason.json"): json.loads(content)
        for name, content in left.items()
        if name.endswith(".reason.json")
    }
    assert {name: row["reason"] for name, row in why.items()} == {
        "Cam_1/deep/page.jpg": "html_page",
        "Cam_1/said.jpg": "bad_metadata",
        "Cam_1/notes.txt": "not_an_image",
        "nobody.jpg": "bad_metadata",
        "not a camera/x.jpg": "bad_metadata",
    }
    assert "exposure" in why["Cam_1/said.jpg"]["message"]
    assert "said.jpg.json" in why["Cam_1/said.jpg"]["message"]
    assert {f"rejected/{name}" for name in why} | {"rejected/Cam_1/said.jpg.json"} == {
        name for name in left if name.startswith("rejected/") and not name.endswith(".reason.json")
    }
    [image] = images_of(library)
    assert (image["camera"], image["captured_at"]) == ("Cam_1", "2026-05-31T14:03:09+02:00")
    assert (image["captured_at_source"], image["extra"]["session"]) == ("camera", "FP1")
    assert image["storage_key"].startswith("frames/2026/05/31/Cam_1/140309-")
    assert_sound(library)
    assert take(drop, library).report.status == "no_new_files"
    assert tree(drop) == left


def test_one_camera_for_all_and_a_saved_folder_and_the_workers_own(
    drop: Path, library: ImageLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(drop, "a.jpg", make_jpeg(1, SMALL))
    assert take(drop, library, camera_id="Pit").report.stored == 1
    put(drop, "b.jpg", make_jpeg(2, SMALL))
    saved = RemoteFolder(url=str(drop), settle_seconds=0)
    ending = Ending(ingest_drop_folder(source=saved, camera_id="Pit", library=library, return_state=True))
    assert ending.report.stored == 1
    put(drop, "c.jpg", make_jpeg(3, SMALL))
    monkeypatch.setenv(FOLDER_VARIABLE, str(drop))
    ending = Ending(ingest_drop_folder(camera_id="Pit", library=library, settle_seconds=0, return_state=True))
    assert ending.report.stored == 1
    assert {row["camera"] for row in images_of(library)} == {"Pit"}
    assert set(tree(drop)) == {f"accepted/{name}.jpg" for name in "abc"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "No drop folder is named"),
        ({"folder": "s3://bucket/drop"}, "by its path"),
        ({"folder": "/no/such/folder"}, "There is no"),
        ({"source": RemoteFolder(url="ftp://127.0.0.1/drop")}, "files in it are moved"),
        ({"folder": "/tmp", "source": RemoteFolder(url="/tmp")}, "not both"),
    ],
)
def test_a_folder_that_can_not_be_one_is_told_in_a_sentence(
    options: dict[str, Any], words: str, library: ImageLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    ending = Ending(ingest_drop_folder(**options, library=library, return_state=True))
    assert ending.state.is_failed()
    assert words in str(ending.error)


def test_a_file_is_left_until_its_writer_and_that_of_its_sidecar_have_finished(
    drop: Path, library: ImageLibrary
) -> None:
    put(drop, "Cam/a.jpg", make_jpeg(1, SMALL))
    os.utime(drop / "Cam/a.jpg", (1, 1))  # a copy that keeps the time of its original is new all the same
    assert take(drop, library, settle_seconds=3600).report.listed == 0
    assert (drop / "Cam/a.jpg").exists()
    deadline = time.monotonic() + 60
    while not (drop / "accepted/Cam/a.jpg").exists():
        assert time.monotonic() < deadline
        take(drop, library, settle_seconds=0.5)
    assert_sound(library)


def test_a_picture_that_is_not_whole_is_given_time_before_it_is_rejected(drop: Path, library: ImageLibrary) -> None:
    picture = make_jpeg(1, SMALL)
    slow = put(drop, "Cam/slow.jpg", cut(picture))
    settled = {"settle_seconds": 0.01}
    deadline = time.monotonic() + 60
    while not take(drop, library, **settled).report.quarantined:
        assert time.monotonic() < deadline
    assert slow.exists(), "its writer may only be slow"
    slow.write_bytes(picture)
    while slow.exists():
        assert time.monotonic() < deadline
        take(drop, library, **settled)
    assert set(tree(drop)) == {"accepted/Cam/slow.jpg"}
    assert len(images_of(library)) == 1


def test_more_than_a_run_takes_is_left_for_the_next(drop: Path, library: ImageLibrary) -> None:
    for number in range(5):
        put(drop, f"Cam/{number}.jpg", make_jpeg(number, SMALL))
    assert take(drop, library, max_files=2).report.deferred == 3
    assert len(tree(drop / "accepted")) == 2
    take(drop, library, max_files=2)
    assert take(drop, library, max_files=2).report.stored == 1
    assert len(tree(drop / "accepted")) == len(tree(drop)) == 5


def test_a_file_over_the_limit_is_rejected_and_never_read(drop: Path, library: ImageLibrary) -> None:
    put(drop, "Cam/large.jpg", make_jpeg(1) + bytes(50_000))
    take(drop, library, max_file_bytes=50_000)
    assert json.loads(tree(drop)["rejected/Cam/large.jpg.reason.json"])["reason"] == "too_large"


def test_names_come_again_and_nothing_that_was_accepted_is_overwritten(drop: Path, library: ImageLibrary) -> None:
    contents = [make_jpeg(seed, SMALL) for seed in (1, 2, 2, 1)]
    for content in contents:
        put(drop, "Cam/x.jpg", content)
        put(drop, "Cam/x.json", {"number": len(content)})
        take(drop, library)
        assert not (drop / "Cam/x.jpg").exists()
    kept = tree(drop / "accepted")
    assert {content for name, content in kept.items() if name.endswith(".jpg")} == set(contents)
    assert len([name for name in kept if name.endswith(".jpg")]) == 2
    assert len(images_of(library)) == 2


def test_two_pictures_share_a_sidecar_until_the_last_is_taken(drop: Path, library: ImageLibrary) -> None:
    put(drop, "Cam/x.jpg", make_jpeg(1, SMALL))
    put(drop, "Cam/x.jpeg", make_jpeg(2, SMALL))
    put(drop, "Cam/x.json", {"session": "FP1"})
    take(drop, library, max_files=1)
    assert (drop / "Cam/x.json").exists()
    take(drop, library, max_files=1)
    assert len(images_of(library, meta={"session": "FP1"})) == 2
    assert set(tree(drop)) == {"accepted/Cam/x.jpg", "accepted/Cam/x.jpeg", "accepted/Cam/x.json"}


@pytest.mark.parametrize(
    "name",
    [b"a b\nc.jpg", "Grüße 鳥.jpg".encode(), b"latin-\xe9.jpg", b"x" * 251 + b".jpg", b"-rf.jpg", b"back\\slash.jpg"],
    ids=repr,
)
def test_hostile_names_are_moved_as_they_are(name: bytes, drop: Path, library: ImageLibrary) -> None:
    path = drop / "Cam" / os.fsdecode(name)
    path.parent.mkdir()
    for content in (make_jpeg(1, SMALL), HTML_PAGE):
        path.write_bytes(content)
        take(drop, library)
        assert not path.exists()
    accepted, rejected = (
        [file.name for file in (drop / place / "Cam").iterdir()] for place in ("accepted", "rejected")
    )
    assert accepted == [path.name]
    assert len(rejected) == 2
    assert path.name in rejected
    assert all(key.startswith("frames/") for key in visible_files(library))


def test_links_are_left_alone(drop: Path, library: ImageLibrary, tmp_path: Path) -> None:
    outside = put(tmp_path, "outside.jpg", make_jpeg(1, SMALL))
    (drop / "Cam").mkdir()
    (drop / "Cam" / "link.jpg").symlink_to(outside)
    assert take(drop, library).report.listed == 0
    assert (drop / "Cam" / "link.jpg").is_symlink()


def note_on(drop: Path, name: str, **said: Any) -> str:
    """Write a note on the move of `name`, with a file under way, as a killed run leaves them; return its name."""
    mark = hashlib.sha256(name.encode()).hexdigest()[:24]
    put(drop, f".catchment-moving/{mark}.file", b"under way")
    note = put(drop, f".catchment-moving/{mark}.json", {"name": name, "state": "x", "place": "accepted"} | said)
    return note.relative_to(drop).as_posix()


def test_no_note_moves_anything_out_of_the_folder(
    drop: Path, library: ImageLibrary, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for folder in (drop, drop / "accepted"):
        folder.mkdir(exist_ok=True)
        (folder / "linked").symlink_to(outside)
    notes = [
        note_on(drop, "Cam/a.jpg", home="../outside/a.jpg"),
        note_on(drop, "Cam/b.jpg", home=f"{outside}/b.jpg"),
        note_on(drop, "Cam/c.jpg", home="accepted/Cam/../../../outside/c.jpg"),
        note_on(drop, "../outside/d.jpg"),
        note_on(drop, "Cam/e.jpg", place="../outside", home="../outside/Cam/e.jpg"),
        note_on(drop, "Cam/f.jpg", sidecar="../outside/f.json", sidecar_state="x"),
        note_on(drop, "linked/g.jpg"),
        note_on(drop, "linked/h.jpg", home="accepted/linked/h.jpg"),
        note_on(drop, "Cam/i.jpg", home=["accepted/Cam/i.jpg"]),
    ]
    put(tmp_path, "secret", b"secret")
    linked = drop / note_on(drop, "Cam/j.jpg", home="accepted/Cam/j.jpg")
    linked.with_suffix(".file").unlink()
    linked.with_suffix(".file").symlink_to(tmp_path / "secret")
    before = tree(drop)
    put(drop, "Cam/good.jpg", make_jpeg(1, SMALL))
    assert take(drop, library).report.stored == 1
    assert tree(drop) == before | {"accepted/Cam/good.jpg": make_jpeg(1, SMALL)}
    assert list(outside.iterdir()) == []
    warned = [record.getMessage() for record in caplog.records if "no note of ours" in record.getMessage()]
    assert all(any(note in line for line in warned) for note in [*notes, linked.name])


@pytest.mark.parametrize("content", [b"{}", b"[]", b"", b"{", b"\xff", b"[" * 100_000, b'{"name": 1}'])
def test_a_stray_note_costs_only_itself(content: bytes, drop: Path, library: ImageLibrary) -> None:
    put(drop, ".catchment-moving/x.json", content)
    (drop / ".catchment-moving" / "folder.json").mkdir()
    os.mkfifo(drop / ".catchment-moving" / "pipe.json")
    put(drop, "Cam/good.jpg", make_jpeg(1, SMALL))
    assert take(drop, library).report.stored == 1
    assert tree(drop) == {".catchment-moving/x.json": content, "accepted/Cam/good.jpg": make_jpeg(1, SMALL)}


def test_no_link_of_a_notes_name_is_written_through(drop: Path, library: ImageLibrary, tmp_path: Path) -> None:
    outside = put(tmp_path, "outside", b"mine")
    put(drop, "Cam/page.jpg", HTML_PAGE)
    mark = hashlib.sha256(b"Cam/page.jpg").hexdigest()[:24]
    for folder, name in ((".catchment-moving", f"{mark}.json"), ("rejected/Cam", "page.jpg.reason.json")):
        (drop / folder).mkdir(parents=True)
        part = f".{hashlib.sha256(name.encode()).hexdigest()[:24]}.part"
        (drop / folder / part).symlink_to(outside)
    assert take(drop, library).report.quarantined == 1
    assert set(tree(drop)) == {"rejected/Cam/page.jpg", "rejected/Cam/page.jpg.reason.json"}
    assert outside.read_bytes() == b"mine"


def test_a_folder_of_notes_that_is_a_link_is_refused(drop: Path, library: ImageLibrary, tmp_path: Path) -> None:
    (drop / ".catchment-moving").symlink_to(tmp_path)
    assert "is a link" in str(take(drop, library).error)


def test_a_time_beyond_the_calendar_costs_only_its_own_picture(drop: Path, library: ImageLibrary) -> None:
    put(drop, "Cam/good.jpg", make_jpeg(1, SMALL))
    put(drop, "Cam/poison.jpg", make_jpeg(2, SMALL))
    put(drop, "Cam/poison.jpg.json", {"timestamp_ref": "0001-01-01T00:00:00+14:00"})
    report = take(drop, library).report
    assert (report.stored, report.failed) == (1, 1)
    assert json.loads(tree(drop)["rejected/Cam/poison.jpg.reason.json"])["reason"] == "bad_metadata"
    [run] = list_runs(library.catalog(), status="partial")
    assert run["state"] == "partial"


def test_what_the_library_could_not_take_stays_where_it_was_dropped(drop: Path, library: ImageLibrary) -> None:
    take(drop, library)  # makes the library
    put(drop, "Cam/a.jpg", make_jpeg(1, SMALL))
    (library.folder / "frames").write_text("in the way of every picture")
    ending = take(drop, library)
    assert ending.report.failed == 1
    assert set(tree(drop)) == {"Cam/a.jpg"}
    (library.folder / "frames").unlink()
    assert take(drop, library).report.stored == 1
    assert set(tree(drop)) == {"accepted/Cam/a.jpg"}


def fill(drop: Path) -> None:
    put(drop, "Cam/a.jpg", make_jpeg(1, SMALL))
    put(drop, "Cam/a.json", {"session": "FP1"})
    put(drop, "Cam/b.jpg", HTML_PAGE)
    put(drop, "Cam/b.jpg.json", {"session": "FP1"})


def outcome(drop: Path, library: ImageLibrary) -> dict[str, Any]:
    """Return all that an undisturbed run leaves, but times and numbers."""
    left = {
        name: json.loads(content)["reason"] if name.endswith(".reason.json") else content
        for name, content in tree(drop).items()
    }
    return {
        "drop": left,
        "library": sorted(visible_files(library).values()),  # their names hold the time they were dropped
        "images": [(row["sha256"], row["extra"]["session"]) for row in images_of(library)],
        "rejected": [(row["key"], row["reason"]) for row in images_of(library, status="quarantined")],
    }


def test_a_run_killed_at_any_change_loses_nothing_and_the_next_ends_as_if_nothing_had_been(
    prefect_api: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "PREFECT_API_URL": prefect_api, "PREFECT_LOGGING_LEVEL": "CRITICAL"}
    command = [sys.executable, "-m", "tests.flows.killed_drop"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def run(place: Path, deadly: int) -> str:
            fill(place / "drop")
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{deadly} {place}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        try:
            whole = tmp_path / "undisturbed"
            word, _, changes = run(whole, 0).partition(" ")
            assert word == "done"
            expected = outcome(whole / "drop", ImageLibrary(folder=whole / "library"))
            assert set(expected["drop"]) == {
                "accepted/Cam/a.jpg", "accepted/Cam/a.json", "rejected/Cam/b.jpg", "rejected/Cam/b.jpg.json",
                "rejected/Cam/b.jpg.reason.json",
            }  # fmt: skip
            for number in sorted({1 + step * int(changes) // KILLS for step in range(KILLS)}):
                place = tmp_path / f"killed-{number}"
                library = ImageLibrary(folder=place / "library")
                assert run(place, number) == "killed", number
                everywhere = set(tree(place / "drop").values())
                assert {make_jpeg(1, SMALL), HTML_PAGE} <= everywhere, number
                if any(name.startswith("accepted/") for name in tree(place / "drop")):
                    assert make_jpeg(1, SMALL) in visible_files(library).values(), number
                take(place / "drop", library)
                assert outcome(place / "drop", library) == expected, number
                assert_sound(library)
                assert "running" not in {row["status"] for row in list_runs(library.catalog())}, number
        finally:
            process.kill()
