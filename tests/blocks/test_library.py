import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
from prefect_aws import MinIOCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr, ValidationError
from sqlalchemy import create_engine, inspect

from blocks._errors import LibraryRefused
from blocks._local_storage import LocalStorage
from blocks._s3_storage import S3Storage
from blocks.library import ImageLibrary
from tests.servers.postgres import Postgres
from tests.servers.s3 import serve_moto


def bucket(url: str, folder: str = "") -> S3Bucket:
    return S3Bucket(
        bucket_name="images",
        bucket_folder=folder,
        credentials=MinIOCredentials(
            minio_root_user="tester",
            minio_root_password=SecretStr("not-a-secret"),
            aws_client_parameters=AwsClientParameters(endpoint_url=url),
        ),
    )


def test_a_folder_is_all_a_library_needs(tmp_path: Path) -> None:
    library = ImageLibrary(folder=tmp_path / "new" / "library")
    storage = library.storage()
    assert isinstance(storage, LocalStorage)
    assert library.catalog() is library.catalog()
    assert (tmp_path / "new/library/.catchment/catalog.sqlite").is_file()
    assert list(storage.list_keys()) == []
    assert library.location == (tmp_path / "new/library").as_posix()


@pytest.mark.parametrize("name", ["50% of #7?", "%2e", "a?mode=ro", "#", "ü b"])
def test_the_catalog_lies_in_the_folder_whatever_its_name(tmp_path: Path, name: str) -> None:
    library = ImageLibrary(folder=tmp_path / name)
    assert not library.has_catalog
    library.catalog()
    assert library.has_catalog
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / ".catchment/catalog.sqlite").is_file()


def test_a_bucket_takes_the_images_and_the_folder_the_rest(tmp_path: Path) -> None:
    with serve_moto("images") as server:
        library = ImageLibrary(folder=tmp_path, bucket=bucket(server.url, "/of/cameras/"))
        storage = library.storage()
        assert isinstance(storage, S3Storage)
        storage.put_bytes("a.jpg", b"one")
        found = server.client().list_objects_v2(Bucket="images")["Contents"]
        assert [entry["Key"] for entry in found] == ["of/cameras/a.jpg"]
        assert library.storage() is storage
        assert library.location == "s3://images/of/cameras"
        assert library.staging_folder("gate").is_relative_to(tmp_path)
        assert pickle.loads(pickle.dumps(library)).storage() is storage


def test_threads_and_copies_share_one_catalog(tmp_path: Path) -> None:
    library = ImageLibrary(folder=tmp_path)
    copies = [pickle.loads(pickle.dumps(library)) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        catalogs = set(threads.map(lambda copy: id(copy.catalog()), copies))
    assert catalogs == {id(library.catalog())}


def test_home_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ImageLibrary(folder=Path("~/images")).location == f"{tmp_path}/images"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "library").write_text("not a folder")
    with pytest.raises(LibraryRefused, match="A file stands where"):
        ImageLibrary(folder=tmp_path / "library").storage()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LibraryRefused, match="give"):
        ImageLibrary(folder=tmp_path / "library").storage()


def test_a_read_only_disk_is_refused() -> None:
    with pytest.raises(LibraryRefused):
        ImageLibrary(folder=Path("/proc/library")).storage()


def test_staging_folders_of_sources_lie_apart_and_inside(tmp_path: Path) -> None:
    library = ImageLibrary(folder=tmp_path)
    folders = [library.staging_folder(name) for name in ("gate", "../../etc", "a/b")]
    assert [folder.relative_to(tmp_path).as_posix() for folder in folders] == [
        ".catchment/staging/gate",
        ".catchment/staging/_._.._etc",
        ".catchment/staging/a_b",
    ]
    assert all(folder.is_dir() for folder in folders)


def test_a_quarantined_file_is_kept_with_its_reason(tmp_path: Path) -> None:
    library = ImageLibrary(folder=tmp_path)
    staging = library.staging_folder("gate")
    kept = []
    for content in (b"<html>", b"<html>", b"<html> other"):
        path = staging / "a.jpg"
        path.write_bytes(content)
        kept.append(library.quarantine(path, "2026/../.a.jpg", "html_page"))
        assert not path.exists()
    assert kept[0] == kept[1] == f".catchment/quarantine/html_page/{sha256(b'<html>').hexdigest()[:16]}-.a.jpg"
    assert [(tmp_path / key).read_bytes() for key in kept[1:]] == [b"<html>", b"<html> other"]
    assert list(LocalStorage(tmp_path).list_keys()) == []


@pytest.mark.parametrize("keys", [("x.jpg", "x.jpg/y.jpg"), ("x.jpg/y.jpg", "x.jpg"), ("/", "a" * 300)])
def test_one_quarantined_name_is_in_no_others_way(tmp_path: Path, keys: tuple[str, str]) -> None:
    library = ImageLibrary(folder=tmp_path)
    for key in keys:
        path = library.staging_folder("gate") / "a.jpg"
        path.write_bytes(key.encode())
        assert (tmp_path / library.quarantine(path, key, "corrupt")).read_bytes() == key.encode()


def test_a_relative_folder_is_refused_in_a_run_of_a_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "2a5b2a6e-0000-4000-8000-000000000000")
    monkeypatch.setenv("CATCHMENT_LIBRARY", "pictures")
    for library in (ImageLibrary(folder=Path("pictures")), ImageLibrary.default()):
        for use in (library.catalog, library.storage, lambda library=library: library.staging_folder("gate")):
            with pytest.raises(LibraryRefused, match="absolute path"):
                use()
    monkeypatch.setenv("CATCHMENT_LIBRARY", str(tmp_path / "kept"))
    ImageLibrary.default().catalog()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_asking_for_a_catalog_on_a_server_makes_none(postgres: Postgres) -> None:
    url = postgres.new_database("asked")
    library = ImageLibrary(catalog_url=SecretStr(url))
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    assert not library.has_catalog
    assert inspect(engine).get_table_names() == []
    engine.dispose()
    library.catalog().close()
    assert library.has_catalog
    postgres.drop_database("asked")
    assert library.has_catalog, "opening it tells what is wrong"


@pytest.mark.parametrize(("value", "folder"), [(None, "library"), ("", "library"), ("/srv/images", "/srv/images")])
def test_the_default_library_is_the_one_the_environment_names(
    value: str | None, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CATCHMENT_LIBRARY", raising=False)
    if value is not None:
        monkeypatch.setenv("CATCHMENT_LIBRARY", value)
    assert ImageLibrary.default().folder == Path(folder)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("postgresql://me:hunter2@db/images", "postgresql+psycopg://me:hunter2@db/images"),
        ("postgres://db/images", "postgresql+psycopg://db/images"),
        ("sqlite:////srv/catalog.sqlite", "sqlite:////srv/catalog.sqlite"),
        (" ", None),
    ],
)
def test_a_catalog_url_names_its_driver(url: str, kept: str | None) -> None:
    library = ImageLibrary(catalog_url=SecretStr(url))
    assert (library.catalog_url.get_secret_value() if library.catalog_url else None) == kept
    assert "hunter2" not in repr(library) + str(library.model_dump())


def test_an_unknown_database_is_refused_without_its_password() -> None:
    with pytest.raises(ValidationError) as refusal:
        ImageLibrary(catalog_url=SecretStr("mysql://me:hunter2@db/images"))
    assert "postgresql://" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
