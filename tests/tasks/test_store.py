"""Files go into the library first and into the catalog after; doing it again changes nothing."""

from hashlib import sha256
from pathlib import Path

import pytest
from prefect_aws import MinIOCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from blocks._catalog_queries import describe_run, iter_stored_images
from blocks._errors import LibraryRefused, LibraryUnavailable, WrongUse
from blocks.library import ImageLibrary
from blocks.remote_folder import RemoteFolder
from tasks._store import RunIds, store_batch
from tests.pictures import cut, make_jpeg
from tests.servers.s3 import PASSWORD, USER, serve_moto
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
    refused = f".catchment/quarantine/truncated/{sha256(cut(make_jpeg(2))).hexdigest()[:16]}-c.jpg"
    assert tree == sorted([image["storage_key"], image["thumbnail_key"], refused])
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


def test_a_library_that_can_not_be_used_is_charged_to_no_file(tmp_path: Path) -> None:
    with serve_moto() as server:
        bucket = S3Bucket(
            bucket_name="images",
            credentials=MinIOCredentials(
                minio_root_user=USER,
                minio_root_password=SecretStr(PASSWORD),
                aws_client_parameters=AwsClientParameters(endpoint_url=server.url),
            ),
        )
        library = ImageLibrary(folder=tmp_path / "library", bucket=bucket)
        card = make_card(tmp_path / "card", a=make_jpeg(1), b=make_jpeg(2))
        for _ in range(6):
            ids = begin_run(library, card)
            batch = fetch_and_inspect(card, library.staging_folder("1"), "a.jpg", "b.jpg")
            with pytest.raises(LibraryRefused, match="no bucket"):
                store_batch(batch, card, library, ids, now=NOW)
            assert library.catalog().known_files(ids.source_id).is_empty()
        server.client().create_bucket(Bucket="images")
        assert store_batch(batch, card, library, ids, now=NOW).counts["stored"] == 2
        found = server.client().list_objects_v2(Bucket="images")["Contents"]
        assert sum(entry["Key"].startswith(".catchment/thumbnails/") for entry in found) == 2


def test_a_place_that_can_not_be_had_costs_only_its_file(tmp_path: Path, library: ImageLibrary) -> None:
    card = make_card(tmp_path / "card", a=make_jpeg(1), b=make_jpeg(2))
    card.layout = "{name}/{name}"
    library.folder.mkdir()
    (library.folder / "a.jpg").write_text("in the way")
    ids = begin_run(library, card)
    batch = fetch_and_inspect(card, library.staging_folder("1"), "a.jpg", "b.jpg")
    counts = store_batch(batch, card, library, ids, now=NOW).counts
    assert (counts["stored"], counts["failed"]) == (1, 1)
    assert (library.folder / "a.jpg").read_text() == "in the way"


def test_a_batch_that_the_catalog_did_not_take_is_whole_the_second_time(tmp_path: Path, library: ImageLibrary) -> None:
    card = make_card(tmp_path / "card", a=make_jpeg(1))
    ids = begin_run(library, card)
    batch = fetch_and_inspect(card, library.staging_folder("1"), "a.jpg")
    with pytest.raises(WrongUse):
        store_batch(batch, card, library, RunIds(999, ids.source_id), now=NOW)
    assert store_batch(batch, card, library, ids, now=NOW).counts["stored"] == 1
    [image] = iter_stored_images(library.catalog())
    assert list_tree(library) == sorted([image["storage_key"], image["thumbnail_key"]])
