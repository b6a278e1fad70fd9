"""A library is held against its catalog: whatever is wrong is told, and mended where it can be."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blocks._catalog_queries import describe_image, iter_stored_images
from blocks._layout import make_thumbnail_key
from blocks._records import Outcome, RemoteFile, Verdict
from blocks._schema import RunStatus
from blocks.library import ImageLibrary
from tasks._image import inspect_image
from tasks._verify import Finding, Problem, Verifier, VerifyReport, verify_library
from tests.pictures import make_jpeg

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def library(tmp_path: Path) -> ImageLibrary:
    """A library with a.jpg and b.jpg of one source."""
    library = ImageLibrary(folder=tmp_path / "library")
    fill(library, {"a.jpg": make_jpeg(1, (160, 120)), "b.jpg": make_jpeg(2, (160, 120))})
    return library


def fill(library: ImageLibrary, contents: dict[str, bytes]) -> None:
    catalog, storage = library.catalog(), library.storage()
    source_id = catalog.ensure_source("garden", "http-directory", "http://127.0.0.1/", now=NOW)
    run_id = catalog.begin_run(source_id, now=NOW)
    outcomes = []
    for key, content in contents.items():
        sha256 = hashlib.sha256(content).hexdigest()
        seen = inspect_image(content, key=key, sha256=sha256, modified=None, arrived=NOW)
        storage.put_bytes(f"garden/{key}", content)
        storage.put_bytes(make_thumbnail_key(sha256), seen.thumbnail)
        outcomes.append(
            Outcome(
                RemoteFile(key, len(content)),
                Verdict.STORED,
                sha256=sha256,
                size=len(content),
                facts=seen.facts,
                storage_key=f"garden/{key}",
                thumbnail_key=make_thumbnail_key(sha256),
            )
        )
    catalog.record_outcomes(run_id, source_id, outcomes, now=NOW)
    catalog.finish_run(run_id, RunStatus.SUCCESS, now=NOW)


def path_of(library: ImageLibrary, key: str) -> Path:
    return library.folder / "garden" / key


def check(library: ImageLibrary, *, quick: bool = False, repair: bool = False) -> VerifyReport:
    return verify_library(Verifier(library, quick=quick, repair=repair, now=NOW))


def only(report: VerifyReport) -> Finding:
    [finding] = report.examples
    return finding


def states(library: ImageLibrary) -> dict[str, str]:
    known = library.catalog().known_files_of("garden")
    return dict(known.select("key", "state").iter_rows())


def test_a_whole_library_is_sound(library: ImageLibrary) -> None:
    report = check(library)
    assert (report.images, report.is_sound, report.examples) == (2, True, [])


def test_a_missing_image_is_told_and_its_file_fetched_again_by_the_next_run(library: ImageLibrary) -> None:
    path_of(library, "a.jpg").unlink()
    assert only(check(library)).problem is Problem.MISSING
    assert not check(library).is_sound
    assert check(library, repair=True).is_sound
    assert states(library) == {"a.jpg": "retry", "b.jpg": "stored"}
    assert check(library).examples == []


def test_an_image_that_no_source_lists_any_more_stays_known_and_missing(library: ImageLibrary) -> None:
    sha256 = hashlib.sha256(path_of(library, "a.jpg").read_bytes()).hexdigest()
    source_id = library.catalog().ensure_source("garden", "http-directory", "http://127.0.0.1/", now=NOW)
    library.catalog().record_listing(source_id, ["a.jpg"], now=NOW)
    path_of(library, "a.jpg").unlink()
    report = check(library, repair=True)
    assert not report.is_sound
    assert "can not be fetched again" in str(only(report).message)
    assert describe_image(library.catalog(), sha256)["image"]["sha256"] == sha256


def test_an_altered_image_is_set_aside_whole_and_fetched_again(library: ImageLibrary) -> None:
    path = path_of(library, "a.jpg")
    altered = path.read_bytes()[:-3] + b"\0\0\0"
    path.write_bytes(altered)
    assert check(library, quick=True).is_sound, "sizes alone do not show it"
    report = check(library, repair=True)
    assert (only(report).problem, report.is_sound) == (Problem.ALTERED, True)
    assert not path.exists()
    kept = [file for file in (library.folder / ".catchment" / "quarantine").rglob("*") if file.is_file()]
    assert [file.read_bytes() for file in kept] == [altered]
    assert states(library)["a.jpg"] == "retry"


def test_the_only_copy_stays_where_it_is(library: ImageLibrary) -> None:
    source_id = library.catalog().ensure_source("garden", "http-directory", "http://127.0.0.1/", now=NOW)
    library.catalog().record_listing(source_id, ["a.jpg"], now=NOW)
    path = path_of(library, "a.jpg")
    path.write_bytes(altered := path.read_bytes()[:-3] + b"\0\0\0")
    report = check(library, repair=True)
    assert (only(report).problem, report.is_sound) == (Problem.ALTERED, False)
    assert "can not be fetched again" in str(only(report).message)
    assert path.read_bytes() == altered
    assert not (library.folder / ".catchment" / "quarantine").exists()


def test_another_size_shows_without_reading(library: ImageLibrary) -> None:
    path_of(library, "a.jpg").write_bytes(b"short")
    assert only(check(library, quick=True)).problem is Problem.ALTERED


def test_an_orphaned_image_is_adopted(library: ImageLibrary) -> None:
    content = make_jpeg(3, (160, 120))
    path_of(library, "orphan.jpg").write_bytes(content)
    assert only(check(library)).problem is Problem.ORPHANED
    assert only(check(library, repair=True)).repair == "adopted"
    assert check(library).is_sound
    known = describe_image(library.catalog(), hashlib.sha256(content).hexdigest())
    assert known["image"]["storage_key"] == "garden/orphan.jpg"


def test_an_image_that_someone_moved_is_found_again(library: ImageLibrary) -> None:
    path_of(library, "a.jpg").rename(path_of(library, "moved.jpg"))
    report = check(library, repair=True)
    assert only(report).repair == "it is garden/a.jpg, moved here"
    assert {row["storage_key"] for row in iter_stored_images(library.catalog())} == {"garden/moved.jpg", "garden/b.jpg"}
    assert states(library)["a.jpg"] == "stored"


def test_a_second_copy_and_what_is_no_image_are_told_and_left_alone(library: ImageLibrary) -> None:
    path_of(library, "copy.jpg").write_bytes(path_of(library, "a.jpg").read_bytes())
    path_of(library, "notes.txt").write_text("mine")
    report = check(library, repair=True)
    assert (report.found["orphaned"], report.repaired) == (2, 0)
    assert path_of(library, "copy.jpg").exists()
    assert path_of(library, "notes.txt").read_text() == "mine"


def test_a_missing_thumbnail_is_drawn_anew(library: ImageLibrary) -> None:
    [thumbnail, _] = sorted(library.folder.rglob("thumbnails/*/*.jpg"))
    drawn = thumbnail.read_bytes()
    thumbnail.unlink()
    assert only(check(library)).problem is Problem.NO_THUMBNAIL
    assert check(library, repair=True).is_sound
    assert thumbnail.read_bytes() == drawn


def test_an_empty_thumbnail_is_drawn_anew(library: ImageLibrary) -> None:
    [thumbnail, _] = sorted(library.folder.rglob("thumbnails/*/*.jpg"))
    drawn = thumbnail.read_bytes()
    thumbnail.write_bytes(b"")  # as a power cut may leave it
    assert only(check(library)).problem is Problem.NO_THUMBNAIL
    assert check(library, repair=True).is_sound
    assert thumbnail.read_bytes() == drawn


def test_a_name_that_no_key_can_have_is_told_and_left_alone(library: ImageLibrary) -> None:
    path_of(library, "a\\b.jpg").write_bytes(make_jpeg(3, (160, 120)))
    finding = only(check(library, repair=True))
    assert (finding.problem, finding.repair) == (Problem.ORPHANED, None)
    assert "no storage key" in str(finding.message)
    assert path_of(library, "a\\b.jpg").exists()


def test_an_orphan_of_a_run_that_is_repaired_twice_changes_nothing_the_second_time(library: ImageLibrary) -> None:
    path_of(library, "orphan.jpg").write_bytes(make_jpeg(3, (160, 120)))
    check(library, repair=True)
    before = list(iter_stored_images(library.catalog()))
    assert check(library, repair=True).examples == []
    assert list(iter_stored_images(library.catalog())) == before
