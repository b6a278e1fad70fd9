"""Files that are handed over: each has one verdict, the good ones are stored, and nothing is accepted that is not."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from blocks._catalog_queries import describe_run, list_images, list_runs
from blocks._upload_meta import UploadMeta
from blocks.library import ImageLibrary
from flows.ingest_uploads import ingest_uploads
from tests.flows.ingesting import Ending, assert_sound, images_of, visible_files
from tests.flows.test_guarantees_two_runs import in_thread
from tests.pictures import HTML_PAGE, cut, make_jpeg, make_png_bomb

pytestmark = pytest.mark.usefixtures("prefect_api")

SMALL = (160, 120)


def upload(library: ImageLibrary, *files: Path | str, **options: Any) -> Ending:
    """Hand over `files` as pictures of one camera."""
    given = {"camera_id": "Haas_Pit_1", "files": [str(file) for file in files] or None, "library": library}
    return Ending(ingest_uploads(**given | options, return_state=True))


def verdicts(library: ImageLibrary, run_id: int | None) -> dict[str, tuple[str, str | None]]:
    """Return verdict and reason of every file of a run, by its name in the request."""
    assert run_id is not None
    rows = describe_run(library.catalog(), run_id)["files"]
    return {row["key"].partition("/")[2]: (row["verdict"], row["reason"]) for row in rows}


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_every_file_of_a_request_has_one_verdict_and_one_bad_file_costs_only_itself(
    library: ImageLibrary, tmp_path: Path
) -> None:
    good = [put(tmp_path, f"good{number}.jpg", make_jpeg(number, SMALL)) for number in range(2)]
    os.mkfifo(tmp_path / "pipe.jpg")
    bad = {
        "page.jpg": put(tmp_path, "page.jpg", HTML_PAGE),
        "cut.jpg": put(tmp_path, "cut.jpg", cut(make_jpeg(3, SMALL))),
        "bomb.png": put(tmp_path, "bomb.png", make_png_bomb()),
        "large.jpg": put(tmp_path, "large.jpg", make_jpeg(4) + bytes(100_000)),
        "notes.txt": put(tmp_path, "notes.txt", b"not a picture"),
        "empty.jpg": put(tmp_path, "empty.jpg", b""),
        "pipe.jpg": tmp_path / "pipe.jpg",
        "missing.jpg": tmp_path / "missing.jpg",
        "folder": tmp_path / "folder",
        "nul\ufffd.jpg": "nul\0.jpg",
    }
    (tmp_path / "folder").mkdir()
    ending = upload(library, good[0], *bad.values(), good[1], max_files=20, max_file_bytes=100_000)
    assert (ending.report.stored, ending.report.planned, ending.report.status) == (2, 12, "partial")
    assert verdicts(library, ending.report.run_id) == {
        "good0.jpg": ("stored", None),
        "good1.jpg": ("stored", None),
        "page.jpg": ("quarantined", "html_page"),
        "cut.jpg": ("quarantined", "truncated"),
        "bomb.png": ("quarantined", "too_many_pixels"),
        "large.jpg": ("quarantined", "too_large"),
        "notes.txt": ("quarantined", "not_an_image"),
        "empty.jpg": ("quarantined", "truncated"),
        "pipe.jpg": ("failed", "refused"),
        "missing.jpg": ("failed", "not_found"),
        "folder": ("failed", "refused"),
        "nul\ufffd.jpg": ("failed", "not_found"),
    }
    assert all(path.exists() for path in good), "what is handed over is only read"
    assert_sound(library)


def test_files_beyond_the_limit_are_refused_by_name_and_the_others_stored(
    library: ImageLibrary, tmp_path: Path
) -> None:
    files = [put(tmp_path, f"{number}.jpg", make_jpeg(number, SMALL)) for number in range(4)]
    ending = upload(library, *files, max_files=2)
    assert verdicts(library, ending.report.run_id) == {
        "0.jpg": ("stored", None),
        "1.jpg": ("stored", None),
        "2.jpg": ("failed", "too_many"),
        "3.jpg": ("failed", "too_many"),
    }


def test_ten_files_are_the_limit_where_nobody_says_otherwise(library: ImageLibrary, tmp_path: Path) -> None:
    for number in range(12):
        put(tmp_path / "card", f"{number:02}.jpg", make_jpeg(number, SMALL))
    put(tmp_path / "card", "notes.txt", b"is no image by its name")
    ending = upload(library, folder=str(tmp_path / "card"))
    assert (ending.report.stored, ending.report.failed) == (10, 2)
    assert set(verdicts(library, ending.report.run_id)) == {f"{number:02}.jpg" for number in range(12)}


def test_pictures_lie_by_date_camera_and_time_and_keep_what_was_said_of_them(
    library: ImageLibrary, tmp_path: Path
) -> None:
    still = put(tmp_path, "before.jpg", make_jpeg(1, SMALL, taken="2026:05:31 14:03:09", offset="+02:00"))
    grab = put(tmp_path, "grab", make_jpeg(2, SMALL))
    meta = UploadMeta.model_validate(
        {"session": "FP1", "location": "Pit Lane", "timestamp_ref": "2026-05-31T23:59:58-05:00", "lap": 12}
    )
    assert upload(library, still, grab, meta=meta).report.stored == 2
    rows = {row["captured_at"]: row for row in list_images(library.catalog())}
    assert set(rows) == {"2026-05-31T14:03:09+02:00", "2026-05-31T23:59:58-05:00"}, "EXIF beats what is said of all"
    first = rows["2026-05-31T14:03:09+02:00"]
    assert first["storage_key"] == f"frames/2026/05/31/Haas_Pit_1/140309-{first['sha256'][:8]}.jpg"
    second = rows["2026-05-31T23:59:58-05:00"]
    assert second["storage_key"] == f"frames/2026/05/31/Haas_Pit_1/235958-{second['sha256'][:8]}.jpg"
    assert (second["camera"], second["location"], second["captured_at_source"]) == (
        "Haas_Pit_1",
        "Pit Lane",
        "provider",
    )
    [run] = list_runs(library.catalog())
    assert second["extra"] == {
        "session": "FP1",
        "location": "Pit Lane",
        "timestamp_ref": "2026-05-31T23:59:58-05:00",
        "lap": 12,
        "request_id": run["flow_run_id"],
        "original_name": "grab",
    }
    assert run["details"]["meta"]["session"] == "FP1"
    for wanted, count in [({"session": "FP1"}, 2), ({"lap": "12.0"}, 2), ({"lap": "13"}, 0), ({"nothing": "x"}, 0)]:
        assert len(images_of(library, meta=wanted)) == count, wanted


def test_the_same_picture_handed_over_twice_is_one_image_and_each_time_has_its_verdict(
    library: ImageLibrary, tmp_path: Path
) -> None:
    one = put(tmp_path, "one.jpg", make_jpeg(1, SMALL))
    ending = upload(library, one, one)
    assert sorted(verdicts(library, ending.report.run_id).values()) == [("duplicate", None), ("stored", None)]
    again = upload(library, one)
    assert verdicts(library, again.report.run_id) == {"one.jpg": ("duplicate", None)}
    assert len(images_of(library)) == 1
    assert len(visible_files(library)) == 1


def test_two_pictures_of_one_name_are_kept_apart(library: ImageLibrary, tmp_path: Path) -> None:
    files = [put(tmp_path / folder, "IMG_1.jpg", make_jpeg(seed, SMALL)) for seed, folder in enumerate(("a", "b"))]
    ending = upload(library, *files)
    assert verdicts(library, ending.report.run_id) == {"IMG_1.jpg": ("stored", None), "2/IMG_1.jpg": ("stored", None)}
    assert upload(library, put(tmp_path, "IMG_1.jpg", make_jpeg(7, SMALL))).report.stored == 1
    assert len(images_of(library)) == 3


def test_requests_do_not_take_each_others_files_for_vanished(library: ImageLibrary, tmp_path: Path) -> None:
    for number in range(3):
        assert upload(library, put(tmp_path, f"{number}.jpg", make_jpeg(number, SMALL))).report.vanished == 0
    assert images_of(library, status="vanished") == []


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../../escape.jpg",
        "a b\nc\t.jpg",
        "Grüße 鳥 \u202egpj.exe.jpg",
        "-rf.jpg",
        ".hidden.jpg",
        "CON.jpg",
        f"{'x' * 240}.jpg",
        "back\\slash.jpg",
        "quote'\";--.jpg",
        f"suffix.{'y' * 200}",
        os.fsdecode(b"latin-\xe9.jpg"),
    ],
    ids=repr,
)
def test_hostile_names_stay_inside_their_prefix(name: str, library: ImageLibrary, tmp_path: Path) -> None:
    source = tmp_path / "card" / "deep" / "deeper"
    source.mkdir(parents=True)
    path = source / name
    if path.name not in {"..", ""}:
        path.write_bytes(make_jpeg(1, SMALL))
    # Prefect's API takes no half characters: such a name is given as an address.
    ending = upload(library, path.as_uri() if name.startswith("latin") else str(path))
    keys = [key for key in visible_files(library) if not key.startswith("frames/")]
    assert keys == []
    if ending.report.stored:
        [key] = visible_files(library)
        assert key.split("/")[4] == "Haas_Pit_1"
        assert len(key.split("/")) == 6
        assert key.isascii()
        assert len(images_of(library, meta={"original_name": images_of(library)[0]["extra"]["original_name"]})) == 1
    else:
        assert path.name == ".."
    assert_sound(library)


@pytest.mark.parametrize("camera_id", ["", "../up", "a/b", "a b", ".hidden", "-x", "x" * 101, "näh", "a\0", "a\n"])
def test_a_camera_without_a_safe_name_is_refused_before_anything_is_touched(
    camera_id: str, library: ImageLibrary, tmp_path: Path
) -> None:
    file = put(tmp_path, "a.jpg", make_jpeg(1, SMALL))
    ending = upload(library, file, camera_id=camera_id)
    assert ending.state.is_failed()
    assert not library.folder.exists()


@pytest.mark.parametrize("camera_id", ["a", "x" * 100, "CON", "a..b", "_", "1.2-3_4"])
def test_a_camera_of_any_safe_name_has_its_folder(camera_id: str, library: ImageLibrary, tmp_path: Path) -> None:
    file = put(tmp_path, "a.jpg", make_jpeg(1, SMALL, taken="2026:05:31 14:03:09"))
    assert upload(library, file, camera_id=camera_id).report.stored == 1
    [key] = visible_files(library)
    assert key.startswith("frames/2026/05/31/")
    assert key.split("/")[4].removeprefix("_") == camera_id.removeprefix("_")
    assert images_of(library)[0]["camera"] == camera_id


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "one of the two"),
        ({"files": ["a.jpg"], "folder": "."}, "one of the two"),
        ({"folder": "/no/such/folder"}, "There is no /no/such/folder"),
        ({"folder": "."}, "no image in the folder"),
    ],
)
def test_a_request_without_files_fails_with_a_sentence(
    options: dict[str, Any], words: str, library: ImageLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    ending = upload(library, **options)
    assert ending.state.is_failed()
    assert words in str(ending.error)


def test_a_request_waits_for_another_one_of_its_camera_and_both_are_stored(
    library: ImageLibrary, tmp_path: Path
) -> None:
    files = [put(tmp_path, f"{number}.jpg", make_jpeg(number, SMALL)) for number in range(4)]
    together = threading.Barrier(len(files))

    def hand_over(file: Path) -> Ending:
        together.wait(30)
        return upload(library, file)

    with (
        in_thread(lambda: hand_over(files[1])) as second,
        in_thread(lambda: hand_over(files[2])) as third,
        in_thread(lambda: hand_over(files[3])) as fourth,
    ):
        endings = [hand_over(files[0]), second.result(120), third.result(120), fourth.result(120)]
    assert [ending.report.stored for ending in endings] == [1, 1, 1, 1]
    assert {run["status"] for run in list_runs(library.catalog())} == {"success"}
    assert_sound(library)


def test_a_request_that_waited_in_vain_has_failed_and_says_so(library: ImageLibrary, tmp_path: Path) -> None:
    from datetime import timedelta

    catalog = library.catalog()
    file = put(tmp_path, "a.jpg", make_jpeg(1, SMALL))
    assert upload(library, file).report.stored == 1
    [source_id] = [run["source_id"] for run in _sources(library)]
    assert catalog.acquire_lease(source_id, "elsewhere - 1 1 token", timedelta(minutes=5)) is None
    ending = upload(library, file, wait_seconds=0.1)
    assert ending.state.is_failed()
    assert "another run" in str(ending.error)
    assert list_runs(catalog)[0]["state"] == "failed"
    assert catalog.release_lease(source_id, "elsewhere - 1 1 token")


def _sources(library: ImageLibrary) -> list[dict[str, Any]]:
    from blocks._catalog_queries import list_sources

    return [{"source_id": row["id"]} for row in list_sources(library.catalog())]
