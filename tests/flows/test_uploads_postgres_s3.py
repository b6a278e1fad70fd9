"""Uploads with the catalog in PostgreSQL and the pictures in S3, both real, and what holds when one goes away."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import unquote

import psycopg
import pytest
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from blocks._catalog_queries import describe_run, list_images, list_runs
from blocks._upload_meta import UploadMeta
from blocks.library import ImageLibrary
from flows.ingest_drop_folder import ingest_drop_folder
from flows.ingest_uploads import ingest_uploads
from tasks import ingest as tasks_of_an_ingest
from tests.flows.ingesting import Ending
from tests.flows.test_guarantees_two_runs import in_thread
from tests.pictures import HTML_PAGE, make_jpeg
from tests.servers.postgres import Postgres, running_postgres
from tests.servers.rclone import serve_rclone
from tests.servers.s3 import S3Server, serve_moto

pytestmark = pytest.mark.usefixtures("prefect_api")

SMALL = (160, 120)
FILES = 20
_numbers = count(1)


@contextmanager
def serve_rclone_s3(root: Path) -> Iterator[S3Server]:
    (root / "pictures").mkdir(parents=True)
    with serve_rclone(root, "s3", user="tester", password="not-a-secret") as server:
        yield S3Server(server.url.rstrip("/"))


@pytest.fixture(params=["moto", "rclone"])
def s3(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[S3Server]:
    with serve_moto("pictures") if request.param == "moto" else serve_rclone_s3(tmp_path / "s3") as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    name = f"uploads_{next(_numbers)}"
    yield postgres.new_database(name)
    postgres.drop_database(name)


def make_library(folder: Path, database: str, s3: S3Server | None = None) -> ImageLibrary:
    bucket = None
    if s3 is not None:
        credentials = AwsCredentials(
            aws_access_key_id=s3.user,
            aws_secret_access_key=SecretStr(s3.password),
            region_name="us-east-1",
            aws_client_parameters=AwsClientParameters(endpoint_url=s3.url),
        )
        bucket = S3Bucket(bucket_name="pictures", credentials=credentials)
    return ImageLibrary(folder=folder, bucket=bucket, catalog_url=SecretStr(database))


def test_a_request_is_kept_whole_in_a_database_and_a_bucket(s3: S3Server, database: str, tmp_path: Path) -> None:
    library = make_library(tmp_path / "library", database, s3)
    pictures = {"vorher 鳥.jpg": make_jpeg(1, SMALL), "after.jpg": make_jpeg(2, SMALL), "page.jpg": HTML_PAGE}
    for name, content in pictures.items():
        (tmp_path / name).write_bytes(content)
    meta = UploadMeta.model_validate(
        {"session": "FP1", "timestamp_ref": "2026-05-31T14:03:09+02:00", "exposure": 0.01, "night": False}
    )
    files = [str(tmp_path / name) for name in pictures]
    ending = Ending(ingest_uploads("Haas_Pit_1", files, meta=meta, library=library, return_state=True))
    assert (ending.report.stored, ending.report.quarantined) == (2, 1)
    [run] = list_runs(library.catalog())
    for wanted, found in [
        ({"session": "FP1"}, 2),
        ({"exposure": "0.010"}, 2),
        ({"night": "false"}, 2),
        ({"night": "no"}, 0),
        ({"original_name": "vorher 鳥.jpg"}, 1),
        ({"request_id": run["flow_run_id"], "session": "FP1"}, 2),
        ({"it's": "x"}, 0),
    ]:
        assert len(list_images(library.catalog(), meta=wanted)) == found, wanted
    for image in list_images(library.catalog()):
        key = f"frames/2026/05/31/Haas_Pit_1/140309-{image['sha256'][:8]}.jpg"
        assert image["storage_key"] == key
        answer = s3.client().head_object(Bucket="pictures", Key=key)
        noted = {name.lower(): unquote(value) for name, value in answer["Metadata"].items()}
        assert noted["camera"] == "Haas_Pit_1"
        assert noted["captured"] == "2026-05-31T14:03:09+02:00"
        assert noted["name"] == image["extra"]["original_name"]
        assert noted["request"] == str(run["run_id"])
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT json_agg(images)::text || (SELECT json_agg(runs)::text FROM runs) FROM images"
        )
        [[everything]] = rows.fetchall()
    assert "X-Amz" not in everything
    assert "http://" not in everything


@pytest.fixture
def mortal_postgres() -> Iterator[Postgres]:
    """A server of the test's own, to be stopped and started."""
    with running_postgres() as server:
        yield server


def fill(drop: Path) -> dict[str, bytes]:
    pictures = {f"{number:02}.jpg": make_jpeg(number) for number in range(FILES)}
    (drop / "Cam").mkdir(parents=True)
    for name, content in pictures.items():
        (drop / "Cam" / name).write_bytes(content)
    return pictures


def take(drop: Path, library: ImageLibrary) -> Ending:
    return Ending(ingest_drop_folder(str(drop), library=library, settle_seconds=0, return_state=True))


def stop_in_mid_run(server: Postgres, url: str, is_over: threading.Event) -> int:
    """Stop the server once a run has written down some of its files; return how many it had."""
    with psycopg.connect(url, autocommit=True) as connection:
        while not is_over.is_set():
            [[done]] = connection.execute("SELECT count(*) FROM outcomes").fetchall()
            if done >= 2:
                break
            time.sleep(0.005)
    server.stop()
    return int(done)


def assert_all_kept_once(drop: Path, library: ImageLibrary, pictures: dict[str, bytes]) -> None:
    assert {path.name: path.read_bytes() for path in (drop / "accepted" / "Cam").iterdir()} == pictures
    assert list((drop / "Cam").iterdir()) == []
    assert len(list_images(library.catalog(), limit=None)) == FILES
    stored = sorted(library.storage().read_bytes(key) for key, _ in library.storage().list_keys("frames/"))
    assert stored == sorted(pictures.values())


@pytest.mark.parametrize("is_short", [True, False], ids=["short", "long"])
def test_an_outage_of_the_catalog_in_mid_run_loses_nothing(
    is_short: bool,
    mortal_postgres: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A short one is waited out by tasks that are tried again; after a long one the next run goes on."""
    for name in ("list_files", "diff", "download", "store"):
        monkeypatch.setattr(getattr(tasks_of_an_ingest, name), "retry_delay_seconds", 15 if is_short else 0)
    url = mortal_postgres.new_database("mortal")
    library = make_library(tmp_path / "library", url)
    library.catalog()
    drop = tmp_path / "drop"
    pictures = fill(drop)
    is_over = threading.Event()
    with in_thread(lambda: take(drop, library)) as run:
        run.add_done_callback(lambda _: is_over.set())
        done = stop_in_mid_run(mortal_postgres, url, is_over)
        deadline = time.monotonic() + 120
        while is_short and "Retry 1/" not in caplog.text and not is_over.is_set():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if is_short:
            mortal_postgres.start()
        ending = run.result(200)
    assert done < FILES, "the run was over before the outage: take more files"
    if is_short:
        assert ending.report.stored == FILES
    else:
        assert ending.state.is_failed()
        assert "catalog" in str(ending.error)
        accepted = drop / "accepted"
        assert not accepted.exists(), "nothing is accepted that the catalog could not be asked about"
        mortal_postgres.start()
        again = take(drop, library).report
        assert again.failed == again.quarantined == 0
        assert [row["state"] for row in list_runs(library.catalog())] == ["completed", "failed"]
    assert_all_kept_once(drop, library, pictures)
    for row in list_runs(library.catalog()):
        files = describe_run(library.catalog(), row["run_id"])["files"]
        assert {file["verdict"] for file in files} <= {"stored", "duplicate"}
