"""From folders elsewhere into the library, on this machine's disk or in S3 with a catalog in PostgreSQL."""

import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from blocks._catalog_queries import iter_stored_images
from blocks.library import ImageLibrary
from blocks.remote_folder import RemoteFolder
from tests.flows.ingesting import LONG_AGO, Site, assert_sound, folder_source, images_of, ingest, last_run
from tests.pictures import cut, make_jpeg
from tests.servers.postgres import Postgres
from tests.servers.s3 import S3Server, serve_moto

pytestmark = pytest.mark.usefixtures("prefect_api", "without_waiting")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with serve_moto("cameras", "library") as server:
        yield server


def put_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (LONG_AGO.timestamp(), LONG_AGO.timestamp()))


def test_a_card_copied_to_a_folder_comes_whole_and_once(tmp_path: Path, library: ImageLibrary) -> None:
    card = tmp_path / "card"
    for number in range(3):
        put_file(card / f"DCIM/10{number}/IMG_000{number}.jpg", make_jpeg(number))
    put_file(card / "DCIM/101/broken.jpg", cut(make_jpeg(9)))
    before = {path: path.read_bytes() for path in card.rglob("*.jpg")}
    report = ingest(folder_source(card), library).report
    assert (report.status, report.stored, report.quarantined) == ("partial", 3, 1)
    assert ingest(folder_source(card), library).report.status == "no_new_files"
    assert {path: path.read_bytes() for path in card.rglob("*.jpg")} == before
    assert_sound(library)


def test_a_file_whose_writer_has_not_finished_waits_for_the_next_run(tmp_path: Path, library: ImageLibrary) -> None:
    card = tmp_path / "card"
    put_file(card / "done.jpg", make_jpeg(1))
    (card / "fresh.jpg").write_bytes(cut(make_jpeg(2)))
    source = folder_source(card, settle_seconds=3600)
    assert ingest(source, library).report.listed == 1
    put_file(card / "fresh.jpg", make_jpeg(2))
    assert ingest(source, library).report.stored == 1
    assert_sound(library)


def test_a_folder_that_is_not_there_fails_the_run_and_forgets_nothing(tmp_path: Path, library: ImageLibrary) -> None:
    card = tmp_path / "card"
    put_file(card / "a.jpg", make_jpeg(1))
    ingest(folder_source(card), library)
    card.rename(tmp_path / "unplugged")
    ending = ingest(folder_source(card), library)
    assert ending.state.is_failed()
    assert "check the path" in str(ending.error)
    assert images_of(library, status="vanished") == []
    assert_sound(library)


def test_a_library_in_a_bucket_with_its_catalog_in_postgres_holds_the_same_promises(
    site: Site, s3: S3Server, postgres: Postgres, tmp_path: Path
) -> None:
    credentials = AwsCredentials(
        aws_access_key_id=s3.user,
        aws_secret_access_key=SecretStr(s3.password),
        region_name="us-east-1",
        aws_client_parameters=AwsClientParameters(endpoint_url=s3.url),
    )
    library = ImageLibrary(
        folder=tmp_path / "work",
        bucket=S3Bucket(bucket_name="library", bucket_folder="main", credentials=credentials),
        catalog_url=SecretStr(postgres.new_database("ingest")),
    )
    client = s3.client()
    for number in range(3):
        client.put_object(Bucket="cameras", Key=f"gate/{number}.jpg", Body=make_jpeg(number))
        site.put(f"{number}.jpg", make_jpeg(number + 1))
    site.put("broken.jpg", cut(make_jpeg(9)))
    cameras = RemoteFolder(url="s3://cameras/gate", endpoint_url=s3.url, credentials=credentials)
    from_bucket, from_web = (ingest(source, library).report for source in (cameras, site.source()))
    assert (from_bucket.stored, from_bucket.status) == (3, "success")
    assert (from_web.stored, from_web.duplicate, from_web.quarantined, from_web.status) == (1, 2, 1, "partial")
    assert [ingest(source, library).report.status for source in (cameras, site.source())] == ["no_new_files"] * 2
    images = list(iter_stored_images(library.catalog()))
    assert {library.storage().hash_object(row["storage_key"]) for row in images} == {row["sha256"] for row in images}
    objects = {found["Key"] for found in client.list_objects_v2(Bucket="library")["Contents"]}
    assert objects == {f"main/{row[name]}" for row in images for name in ("storage_key", "thumbnail_key")}
    assert [path.name[16:] for path in tmp_path.rglob("*") if path.is_file()] == ["-broken.jpg"]
    assert last_run(library)["message"] is None


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a file system that keeps any time")
def test_a_file_of_the_year_33658_keeps_nobody_from_the_library(library: ImageLibrary) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as card:
        for name in ("a.jpg", "b.jpg"):
            put_file(Path(card) / name, make_jpeg(ord(name[0])))
        os.utime(Path(card) / "a.jpg", (1e12, 1e12))
        assert ingest(folder_source(Path(card), recurse_depth=0), library).report.stored == 2
    assert_sound(library)


def test_times_that_only_the_file_system_knows_are_kept_and_called_what_they_are(
    tmp_path: Path, library: ImageLibrary
) -> None:
    put_file(tmp_path / "card" / "a.jpg", make_jpeg(1))
    ingest(folder_source(tmp_path / "card", layout="{name}"), library)
    [image] = images_of(library)
    assert (image["captured_at"], image["captured_at_source"]) == (LONG_AGO.isoformat(), "server")
    assert datetime.fromtimestamp((library.folder / "a.jpg").stat().st_mtime, UTC) == LONG_AGO
