"""Handing pictures over from a terminal, and asking after a request: every option, every exit code."""

import json
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

import pytest
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from blocks.library import ImageLibrary
from flows.cli_catalog import _with_urls
from tests.flows.commands import Command
from tests.pictures import HTML_PAGE, make_jpeg
from tests.servers.s3 import serve_moto

SMALL = (160, 120)


@pytest.mark.usefixtures("with_api")
def test_the_request_of_the_documentation_is_stored_found_and_asked_after(catchment: Command, tmp_path: Path) -> None:
    for number, name in enumerate(("before.jpg", "after.jpg")):
        (tmp_path / name).write_bytes(make_jpeg(number, SMALL))
    (tmp_path / "page.jpg").write_bytes(HTML_PAGE)
    said = catchment(
        "upload", "--camera-id", "Haas_Pit_1", "--meta", "session=FP1", "--meta", "location=Pit Lane",
        "--meta", "exposure=0.010", "before.jpg", "after.jpg", "page.jpg", "gone.jpg",
    )  # fmt: skip
    assert (said.code, said.err) == (0, "")
    for word in ("2 stored", "before.jpg", "html_page", "not_found"):
        assert word in said.out
    for meta in ("session=FP1", "location=Pit Lane", "exposure=0.01"):
        assert len(catchment("images", "--meta", meta, "--format", "json").rows) == 2, meta
    assert catchment("images", "--meta", "session=FP2", "--format", "json").rows == []
    assert len(catchment("images", "--location", "Pit Lane", "--format", "json").rows) == 2
    [run] = catchment("runs", "--status", "partial", "--format", "json").rows
    assert catchment("runs", "--status", "failed", "--format", "json").rows == []
    for name in (run["run_id"], run["flow_run_id"]):
        [known] = catchment("status", name, "--format", "json").rows
        assert known["state"] == "partial"
        assert {row["key"].partition("/")[2]: row["verdict"] for row in known["files"]} == {
            "before.jpg": "stored", "after.jpg": "stored", "page.jpg": "quarantined", "gone.jpg": "failed",
        }  # fmt: skip
    assert "partial" in catchment("status", run["run_id"]).out
    assert sorted(path.name for path in tmp_path.glob("*.jpg")) == ["after.jpg", "before.jpg", "page.jpg"]


@pytest.mark.usefixtures("with_api")
def test_a_request_of_which_nothing_was_good_has_failed(catchment: Command, tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(HTML_PAGE)
    said = catchment("upload", "--camera-id", "a", "page.jpg", "--format", "json")
    assert said.code == 1
    [request] = said.rows
    assert (request["state"], request["details"]["camera_id"]) == ("failed", "a")
    [run] = catchment("runs", "--status", "failed", "--format", "json").rows
    assert run["run_id"] == request["run_id"]
    assert catchment("runs", "--status", "completed", "--format", "json").rows == []
    (tmp_path / "good.jpg").write_bytes(make_jpeg(1, SMALL))
    said = catchment("upload", "--camera-id", "a", "good.jpg", "page.jpg", "--strict")
    assert said.code == 1
    assert "1 quarantined" in said.err
    said = catchment("upload", "--camera-id", "a", "good.jpg")
    assert said.code == 0
    assert "1 duplicate" in said.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["upload", "a.jpg"],
        ["upload", "--camera-id", "a"],
        ["upload", "--camera-id", "a", "a.jpg", "--folder", "."],
        ["upload", "--camera-id", "../up", "a.jpg"],
        ["upload", "--camera-id", "a", "a.jpg", "--meta", "session"],
        ["upload", "--camera-id", "a", "a.jpg", "--meta", "exposure=-1"],
        ["upload", "--camera-id", "a", "a.jpg", "--meta", "exposure=nan"],
        ["upload", "--camera-id", "a", "a.jpg", "--meta", "timestamp_ref=1700000000"],
        ["upload", "--camera-id", "a", "a.jpg", "--meta", "request_id=mine"],
        ["upload", "--camera-id", "a", "a.jpg", "--meta", f"note={'x' * 20_000}"],
        ["upload", "--camera-id", "a", "a.jpg", "--max-files", "0"],
        ["upload", "--camera-id", "a", "--folder", "nowhere"],
        ["drop-folder", "nowhere"],
        ["images", "--meta", "session", "--library", "filled"],
        ["images", "--urls", "--expires", "8d", "--library", "filled"],
        ["images", "--urls", "--expires", "soon", "--library", "filled"],
        ["images", "--urls", "--status", "failed", "--library", "filled"],
        ["status", "no-such-run", "--library", "filled"],
        ["status", "00000000-0000-4000-8000-000000000000", "--library", "filled"],
        ["runs", "--status", "nonsense", "--library", "filled"],
    ],
    ids=lambda arguments: " ".join(arguments)[:70],
)
@pytest.mark.usefixtures("with_api")
def test_wrong_use_ends_with_2_and_a_line_that_says_so(
    arguments: list[str], catchment: Command, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(make_jpeg(1, SMALL))
    ImageLibrary(folder=tmp_path / "filled").catalog()
    said = catchment(*arguments)
    assert (said.code, said.out) == (2, ""), said
    assert said.err.startswith("error: ")
    assert len(said.err.splitlines()) == 1
    assert "xxx" not in said.err


@pytest.mark.usefixtures("with_api")
def test_a_folder_library_gives_addresses_that_open(catchment: Command, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(make_jpeg(1, SMALL))
    assert catchment("upload", "--camera-id", "a", "a.jpg").code == 0
    [row] = catchment("images", "--urls", "--format", "json").rows
    assert Path(unquote(urlsplit(row["url"]).path)).read_bytes() == make_jpeg(1, SMALL)
    assert row["url"] in catchment("images", "--urls").out


def test_a_bucket_gives_signed_addresses_that_open_and_expire_and_are_kept_nowhere(tmp_path: Path) -> None:
    with serve_moto("pictures") as server:
        credentials = AwsCredentials(
            aws_access_key_id=server.user,
            aws_secret_access_key=SecretStr(server.password),
            region_name="us-east-1",
            aws_client_parameters=AwsClientParameters(endpoint_url=server.url),
        )
        library = ImageLibrary(
            folder=tmp_path / "library", bucket=S3Bucket(bucket_name="pictures", credentials=credentials)
        )
        library.storage().put_bytes("frames/a b.jpg", b"bytes")
        [row] = _with_urls([{"storage_key": "frames/a b.jpg"}], library, timedelta(minutes=15))
        assert "X-Amz-Expires=900" in row["url"]
        assert "X-Amz-Signature" in row["url"]
        assert server.password not in row["url"]
        with urlopen(row["url"], timeout=20) as answer:
            assert answer.read() == b"bytes"


@pytest.mark.usefixtures("with_api")
def test_the_drop_folder_is_emptied_by_one_command(catchment: Command, tmp_path: Path) -> None:
    (tmp_path / "drop" / "Cam_1").mkdir(parents=True)
    (tmp_path / "drop" / "Cam_1" / "a.jpg").write_bytes(make_jpeg(1, SMALL))
    (tmp_path / "drop" / "Cam_1" / "a.json").write_text(json.dumps({"session": "FP1"}))
    said = catchment("drop-folder", "drop", "--settle-seconds", "0")
    assert (said.code, said.err) == (0, "")
    assert (tmp_path / "drop" / "accepted" / "Cam_1" / "a.jpg").exists()
    assert len(catchment("images", "--meta", "session=FP1", "--format", "json").rows) == 1
