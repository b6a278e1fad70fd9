"""Files go into the library first and into the catalog after; doing it again changes nothing."""

from pathlib import Path

import pytest

from blocks._catalog_queries import describe_run, iter_stored_images
from blocks._errors import LibraryRefused, LibraryUnavailable
from blocks.library import ImageLibrary
from blocks.remote_folder import RemoteFolder
from tasks._store import store_batch
from tests.pictures import cut, make_jpeg
from tests.tasks.staging import NOW, begin_run, fetch_and_inspect


@pytest.fixture
def library(tmp_path: Path) -> ImageLibrary:
    return ImageLibrary(folder=tmp_path / "library")


def make_card(folder: Path, **contents: bytes) -> RemoteFolder:
    folder.mkdir()
    for name, content in contents.items():
        (folder / f"{name}.jpg").write_bytes(content)
    return RemoteFolder(url=str(folder), layout="{name}", settle_seconds=0)


def list_tree(library: ImageLibrary) -> list[str]:
    found = (path.relative_to(library.folder).as_posix() for path in library.folder.rglob("*") if path.is_file())
    return sorted(name for name in found if "sqlite" not in name)


def test_storing_a_batch_again_changes_nothing(tmp_path: Path, library: ImageLibrary) -> None:
    card = make_card(tmp_path / "card", a=make_jpeg(1), b=make_jpeg(1), c=cut(make_jpeg(2)))
    ids = begin_run(library, card)
    batch = fetch_and_inspect(card, library.staging_folder("1"), "a.jpg", "b.jpg", "c.jpg", "gone.jpg")
    first = store_batch(batch, card, library, ids, now=NOW)
    assert first.counts == {"stored": 1, "duplicate": 1, "quarantined": 1, "failed": 1}
    tree = list_tree(library)
    [image] = iter_stored_images(library.catalog())
    assert tree == sorted([image["storage_key"], image["thumbnail_key"], ".catchment/quarantine/truncated/c.jpg"])
    assert store_batch(batch, card, library, ids, now=NOW) == first
    assert list_tree(library) == tree
    run = describe_run(library.catalog(), ids.run_id)
    assert [run[name] for name in first.counts] == [1, 1, 1, 1]


def test_a_file_of_a_killed_run_is_adopted_where_it_lies(tmp_path: Path, library: ImageLibrary) -> None:
    card = make_card(tmp_path / "card", a=make_jpeg(1))
    (library.folder).mkdir()
    (library.folder / "a.jpg").write_bytes(make_jpeg(1))
    ids = begin_run(library, card)
    batch = fetch_and_inspect(card, library.staging_folder("1"), "a.jpg")
    assert store_batch(batch, card, library, ids, now=NOW).counts["stored"] == 1
    assert [row["storage_key"] for row in iter_stored_images(library.catalog())] == ["a.jpg"]
    assert [path.name for path in library.folder.glob("*.jpg")] == ["a.jpg"]


def test_what_a_killed_writer_left_of_a_thumbnail_is_cleared_away(library: ImageLibrary) -> None:
    storage, thumbnail = library.storage(), library.folder / "thumbnails" / "t.jpg"
    thumbnail.mkdir(parents=True)  # in the way of the last step, as a kill before it would be
    with pytest.raises(LibraryRefused):
        storage.put_bytes("thumbnails/t.jpg", b"first")
    assert len(list(thumbnail.parent.iterdir())) == 2
    thumbnail.rmdir()
    storage.put_bytes("thumbnails/t.jpg", b"second")
    assert [path.read_bytes() for path in thumbnail.parent.iterdir()] == [b"second"]


def test_a_library_that_does_not_answer_fails_the_batch_and_keeps_it(tmp_path: Path, library: ImageLibrary) -> None:
    card = make_card(tmp_path / "card", a=make_jpeg(1))
    ids = begin_run(library, card)
    batch = fetch_and_inspect(card, library.staging_folder("1"), "a.jpg")
    nowhere = ImageLibrary(folder=library.folder, catalog_url="postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(LibraryUnavailable):
        store_batch(batch, card, nowhere, ids, now=NOW)
    assert store_batch(batch, card, library, ids, now=NOW).counts["stored"] == 1
