"""`catchment organize` and `catchment report` as an analyst types them, and the report that a run leaves behind."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect_aws import MinIOCredentials, S3Bucket

from blocks.library import ImageLibrary
from blocks.terminal_camera import TerminalCamera
from flows.cli_report import print_coverage
from tasks._coverage import Coverage
from tasks.coverage import publish_coverage
from tests.flows.commands import Command
from tests.pictures import make_jpeg
from tests.servers.s3 import PASSWORD, USER, serve_moto

SMALL = (64, 48)
SOURCE = TerminalCamera().source_name
DAY = date(2025, 9, 1)

pytestmark = pytest.mark.usefixtures("with_api")


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """Four hours of a camera, one picture in ten minutes, one hour of which is missing."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    for number in [*range(9), *range(15, 24)]:
        hour, minute = 10 + number // 6, 10 * (number % 6)
        (folder / f"20250901T{hour}{minute:02}0{number % 7}_in_gate.jpg").write_bytes(make_jpeg(number, SMALL))
    (folder / "holiday.jpg").write_bytes(make_jpeg(99, SMALL))
    return folder


def test_from_a_tree_of_downloads_to_a_report(catchment: Command, downloads: Path) -> None:
    shown = catchment("organize", downloads)
    assert shown.code == 0
    assert "18 of 19 files would be copied" in shown.out
    assert "nothing was touched; --apply does it" in shown.err
    assert not Path("library").exists()
    rows = catchment("organize", downloads, "--format", "json").rows
    assert [row["path"] for row in rows if row["decision"] == "left"] == ["holiday.jpg"]
    assert list(rows[0]) == ["decision", "path", "key", "size", "is_removed", "why"]

    done = catchment("organize", downloads, "--apply", "--move")
    assert (done.code, done.err) == (0, "")
    assert "18 of 19 files were taken" in done.out
    assert "18 originals removed" in done.out
    assert [line for line in done.out.splitlines() if "holiday.jpg" in line and "left" in line]
    assert [path.name for path in downloads.iterdir()] == ["holiday.jpg"]

    report = catchment("report", "--from", "2025-09-01", "--cadence", "600")
    assert (report.code, report.err) == (0, "")
    assert "2025-09-01 11:20:01-07:00" in report.out
    [told] = catchment("report", "--source", SOURCE, "--from", DAY, "--to", DAY, "--format", "json").rows
    assert (told["zone"], told["cadence_seconds"]) == ("America/Los_Angeles", {"in_gate": 600.0})
    [day] = told["days"]
    assert (day["date"], day["stream"], day["downloaded"], day["failed"]) == ("2025-09-01", "in_gate", 18, 0)
    assert [(gap["from"], gap["to"], gap["missing"]) for gap in told["gaps"]] == [
        ("2025-09-01T00:00:00-07:00", "2025-09-01T10:00:00-07:00", 60),
        ("2025-09-01T11:20:01-07:00", "2025-09-01T12:30:01-07:00", 6),
        ("2025-09-01T13:50:02-07:00", "2025-09-02T00:00:00-07:00", 60),
    ]
    assert day["expected"] == 18 + 126
    month = catchment("report", "--from", "2025-09-01", "--to", "2025-09-30", "--format", "json").rows[0]
    assert len(month["days"]) == 30


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "--from", "yesterday"],
        ["report", "--from", "2025-09-02", "--to", "2025-09-01"],
        ["report", "--to", "2999-01-01"],
        ["report", "--source", "terminal-camera/nobody"],
        ["report", "--zone", "Mars/Olympus"],
        ["report", "--cadence", "0"],
        ["report", "--cadence", "nan"],
        ["report", "--library", "nowhere"],
        ["organize", "nowhere"],
        ["organize", "."],
        ["organize", "library"],
        ["organize", "downloads", "--source", "http-directory"],
        ["organize", "downloads", "--source", "downloads"],
    ],
    ids=" ".join,
)
def test_wrong_use_ends_with_2_and_a_line_that_says_so(
    arguments: list[str], catchment: Command, downloads: Path, tmp_path: Path
) -> None:
    catalog = ImageLibrary(folder=tmp_path / "library").catalog()
    catalog.ensure_source(SOURCE, "terminal-camera", SOURCE, now=datetime.now(UTC))
    said = catchment(*arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: ")
    assert len(said.err.splitlines()) <= 2


@flow
def publish(library: ImageLibrary, run_id: int | None) -> Coverage:
    camera = TerminalCamera()
    return publish_coverage(library, SOURCE, run_id, DAY, DAY, camera.zone, ["in_gate", "out_gate"], 600)


def test_the_report_of_a_run_is_kept_as_a_file_and_an_artifact_and_printed(
    catchment: Command, downloads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catchment("organize", downloads, "--apply")
    library = ImageLibrary(folder=tmp_path / "library")
    coverage = publish(library, 1)
    assert coverage.stored_as is not None
    assert json.loads((library.folder / coverage.stored_as).read_bytes()) == coverage.to_dict()
    assert catchment("verify").code == 0
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(like_="coverage-%"))
        artifacts = client.read_artifacts(artifact_filter=wanted)  # other tests of this session leave theirs too
    line = "| in\\_gate | 2025-09-01 11:20:01-07:00 | 2025-09-01 12:30:01-07:00 | 6 |"
    assert any(line in str(artifact.data) for artifact in artifacts)
    capsys.readouterr()
    print_coverage(coverage, "json")
    assert json.loads(capsys.readouterr().out) == coverage.to_dict()
    asked = ["--from", DAY, "--run", "1", "--stream", "in_gate", "--stream", "out_gate", "--cadence", "600"]
    assert catchment("report", *asked, "--format", "json").rows == [coverage.to_dict()]
    print_coverage(coverage)
    assert "2025-09-01 11:20:01-07:00" in capsys.readouterr().out


def test_the_zone_of_the_last_report_is_remembered(catchment: Command, downloads: Path, tmp_path: Path) -> None:
    catchment("organize", downloads, "--apply")
    library = ImageLibrary(folder=tmp_path / "library")

    @flow
    def publish_elsewhere() -> None:
        publish_coverage(library, SOURCE, None, DAY, DAY, TerminalCamera(timezone="Europe/Berlin").zone)

    publish_elsewhere()
    [told] = catchment("report", "--from", DAY, "--format", "json").rows
    assert told["zone"] == "Europe/Berlin"
    assert catchment("report", "--from", DAY, "--zone", "UTC", "--format", "json").rows[0]["zone"] == "UTC"


@pytest.mark.usefixtures("prefect_api")
def test_the_report_lies_in_a_bucket_where_the_library_is_one(tmp_path: Path) -> None:
    with serve_moto("pictures") as server:
        credentials = MinIOCredentials(
            minio_root_user=USER, minio_root_password=PASSWORD, aws_client_parameters={"endpoint_url": server.url}
        )
        bucket = S3Bucket(bucket_name="pictures", credentials=credentials)
        library = ImageLibrary(folder=tmp_path / "library", bucket=bucket)
        library.catalog().ensure_source(SOURCE, "terminal-camera", SOURCE, now=datetime.now(UTC))
        coverage = publish(library, None)
        assert coverage.stored_as is not None
        kept = json.loads(library.storage().read_bytes(coverage.stored_as))
        assert (kept["total"]["missing"], len(kept["gaps"])) == (288, 2)
        assert list(library.storage().list_keys()) == []
