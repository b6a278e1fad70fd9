"""Secrets stay in Blocks and requests at the source: canaries in every credential field, searched for everywhere."""

import base64
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL
from prefect_aws import AwsCredentials, MinIOCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr
from sqlalchemy import select

from blocks._schema import metadata
from blocks.http_directory import HttpDirectory
from blocks.library import ImageLibrary
from blocks.remote_folder import RemoteFolder
from tests.flows.ingesting import Ending, assert_sound, directory, images_of, index_page, ingest, visible_files
from tests.pictures import make_jpeg
from tests.servers import fault
from tests.servers.fault import FaultServer, serve_faults
from tests.servers.nginx import serve_nginx
from tests.servers.postgres import Postgres
from tests.servers.s3 import S3Server, serve_moto

pytestmark = pytest.mark.usefixtures("prefect_api", "without_waiting")

CANARIES = {name: f"canary-{name}-7f3a91" for name in ("basic", "wrong", "header", "catalog", "dead", "aws", "minio")}
USER = "ranger"
FORMS = [
    *CANARIES.values(),
    *(base64.b64encode(f"{USER}:{word}".encode()).decode().rstrip("=") for word in CANARIES.values()),
]


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with serve_moto("cameras", "library") as server:
        yield server


def secret(name: str) -> SecretStr:
    return SecretStr(CANARIES[name])


def as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode(errors="replace")


def find_canaries(text: str | bytes) -> list[str]:
    return [form for form in FORMS if form.encode() in as_bytes(text)]


def read_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()


def read_what_prefect_knows() -> Iterator[tuple[str, str | bytes]]:
    """Yield what the API tells anyone, once the last logs have arrived, and the server's database as it lies there."""
    with get_client(sync_client=True) as client:
        for path in ("flow_runs", "task_runs", "artifacts", "logs", "block_documents"):
            limit: dict[str, Any] = {"limit": 200}
            yield path, client._client.post(f"/{path}/filter", json=limit).text
    database = Path(str(PREFECT_SERVER_DATABASE_CONNECTION_URL.value()).partition(":///")[2])
    for path in database.parent.glob(f"{database.name}*"):
        yield str(path), path.read_bytes()


def read_catalog(library: ImageLibrary) -> Iterator[tuple[str, str]]:
    with library.catalog().reading() as connection:
        for table in metadata.sorted_tables:
            yield table.name, str(connection.execute(select(table)).all())


def test_no_secret_is_anywhere_but_in_its_block(
    faults: FaultServer, s3: S3Server, postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("prefect", "prefect.flow_runs", "prefect.task_runs", "botocore", "httpx", "httpcore", "sqlalchemy"):
        caplog.set_level(logging.DEBUG, name)
    postgres.run(f"CREATE ROLE keeper LOGIN SUPERUSER PASSWORD '{CANARIES['catalog']}'")
    postgres.new_database("canaries")
    aws = AwsCredentials(
        aws_access_key_id="AKIA",
        aws_secret_access_key=secret("aws"),
        region_name="us-east-1",
        aws_client_parameters=AwsClientParameters(endpoint_url=s3.url),
    )
    minio = MinIOCredentials(
        minio_root_user="root",
        minio_root_password=secret("minio"),
        aws_client_parameters=AwsClientParameters(endpoint_url=s3.url),
    )
    in_postgres = ImageLibrary(
        folder=tmp_path / "one",
        bucket=S3Bucket(bucket_name="library", credentials=aws),
        catalog_url=SecretStr(postgres.url("canaries", user="keeper", password=CANARIES["catalog"])),
    )
    dead = ImageLibrary(
        folder=tmp_path / "two", catalog_url=SecretStr(f"postgresql://keeper:{quote(CANARIES['dead'])}@127.0.0.1:1/x")
    )
    refusing = ImageLibrary(
        folder=tmp_path / "three", catalog_url=SecretStr(postgres.url("canaries", user="keeper", password="canary-no"))
    )
    on_disk = ImageLibrary(folder=tmp_path / "four")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "a.jpg").write_bytes(make_jpeg(1))
    s3.client().put_object(Bucket="cameras", Key="b.jpg", Body=make_jpeg(2))
    faults.on("/", index_page(["c.jpg", "d.jpg", "e.jpg"]))
    faults.on("/c.jpg", fault.whole(make_jpeg(3)))
    faults.on("/d.jpg", fault.status(401))
    faults.on("/e.jpg", fault.redirect("http://user:pass@127.0.0.2/e.jpg"))
    endings: list[Ending] = []
    with serve_nginx(tmp_path / "web", users={USER: CANARIES["basic"]}) as nginx:
        basic = directory(nginx.url, auth_type="basic", auth_username=USER, auth_password=secret("basic"))
        wrong = directory(nginx.url, auth_type="basic", auth_username=USER, auth_password=secret("wrong"))
        header = directory(faults.url, auth_type="header", auth_header=SecretStr(f"Bearer {CANARIES['header']}"))
        bucket = RemoteFolder(url="s3://cameras", credentials=minio)
        for source in (basic, wrong, header, bucket):
            endings += [ingest(source, library) for library in (in_postgres, on_disk)]
        endings += [ingest(basic, library) for library in (dead, refusing)]
        blocks = {"basic": basic, "header": header, "bucket": bucket, "in-postgres": in_postgres}
        for name, block in blocks.items():
            block.save(f"canary-block-{name}", overwrite=True)
    assert [ending.state.is_completed() for ending in endings] == [True, True, False, False] + [True] * 4 + [False] * 2
    assert [request.headers["authorization"] for request in faults.requests[:1]] == [f"Bearer {CANARIES['header']}"]
    time.sleep(3)  # Prefect sends its logs every two seconds
    everything: list[tuple[str, str | bytes]] = [
        ("logs", "\n".join(record.getMessage() + str(record.exc_info) for record in caplog.records)),
        ("captured", caplog.text),
        ("states", repr([(ending.state, ending.state.result(raise_on_failure=False)) for ending in endings])),
        ("blocks", "".join(f"{block!r}{block}{block.model_dump_json()}" for block in (*blocks.values(), wrong, dead))),
        *read_what_prefect_knows(),
        *read_folder(tmp_path),
        *read_catalog(in_postgres),
        *read_catalog(on_disk),
    ]
    places = {place for place, content in everything if faults.url.encode() in as_bytes(content)}
    assert places >= {"logs", "states", "blocks", "flow_runs", "task_runs", "artifacts", "sources"}
    assert any(place.endswith((".db", ".db-wal")) for place in places)
    assert {place: found for place, content in everything if (found := find_canaries(content))} == {}
    for name, block in blocks.items():
        type(block).delete(f"canary-block-{name}")


@pytest.mark.parametrize(
    "fields",
    [
        {"auth_type": "basic", "auth_username": "a:b", "auth_password": CANARIES["basic"]},
        {"auth_type": "header", "auth_header": f"Bearer {CANARIES['header']}\n"},
        {"auth_header": CANARIES["header"]},
    ],
)
def test_a_block_that_is_refused_does_not_repeat_its_secret(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="auth_") as refusal:
        HttpDirectory(base_url="https://cameras.example.org/", **fields)  # type: ignore[arg-type]
    assert find_canaries(str(refusal.value) + repr(refusal.value)) == []


def test_no_request_and_no_credential_leaves_the_source(faults: FaultServer, library: ImageLibrary) -> None:
    with serve_faults() as stranger:
        names = ["moved.jpg", "fine.jpg", f"{stranger.url}linked.jpg", f"//127.0.0.1:{stranger.port}/scheme-less.jpg"]
        faults.on("/", index_page(names))
        faults.on("/fine.jpg", fault.whole(make_jpeg(1)))
        faults.on("/moved.jpg", fault.redirect(f"{stranger.url}moved.jpg"))
        stranger.on("/moved.jpg", fault.whole(make_jpeg(2)))
        source = directory(faults.url, auth_type="header", auth_header=secret("header"))
        report = ingest(source, library).report
        faults.on("/", fault.redirect(stranger.url))
        assert ingest(source, library).state.is_failed()
        assert stranger.requests == []
    assert (report.stored, report.failed) == (1, 1)
    [failed] = images_of(library, status="failed")
    assert (failed["key"], failed["reason"]) == ("moved.jpg", "redirected_away")
    assert list(visible_files(library).values()) == [make_jpeg(1)]
    assert_sound(library)
