"""`catchment capture` as a person or a script meets it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from pydantic import SecretStr

from blocks._layout import is_hidden
from blocks.library import ImageLibrary
from blocks.rtsp_camera import RtspCamera
from flows.ingest_all_sources import ingest_all_sources
from tasks import capture as captures
from tasks.streams import STREAMS_LIMIT, ensure_streams_limit
from tests.flows.commands import Command
from tests.servers.rtsp import RtspServer, refuse, serve_rtsp

CANARY = "canary-at-the-gate"


@pytest.fixture
def with_cameras(with_api: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Prefect server on which the registration script was run, and frames stored soon."""
    monkeypatch.setattr(captures, "PAGE_SECONDS", 0.5)
    ensure_streams_limit()
    yield
    with get_client(sync_client=True) as client:
        client.delete_global_concurrency_limit_by_name(STREAMS_LIMIT)


@pytest.fixture
def server() -> Iterator[RtspServer]:
    with serve_rtsp() as running:
        yield running


@pytest.mark.usefixtures("with_cameras")
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["https://127.0.0.1/"],
        ["rtsp-camera/"],
        ["rtsp-camera/nobody"],
        ["http-directory/nobody"],
        ["rtsp://"],
        ["rtsp://127.0.0.1/gate", "--mode", "sometimes"],
        ["rtsp://127.0.0.1/gate", "--duration", "0"],
        ["rtsp://127.0.0.1/gate", "--duration", "3601"],
        ["rtsp://127.0.0.1/gate", "--duration", "nan"],
        ["rtsp://127.0.0.1/gate", "--fps", "0"],
        ["rtsp://127.0.0.1/gate", "--fps", "30.5"],
        ["rtsp://127.0.0.1/gate", "--sensitivity", "1.5"],
        ["rtsp://127.0.0.1/gate", "--pre-roll", "-1"],
        ["rtsp://127.0.0.1/gate", "--frozen-after", "1"],
        ["rtsp://127.0.0.1/gate", "--library", "image-library/nobody"],
    ],
    ids=" ".join,
)
def test_wrong_use_ends_with_2_and_a_line_that_says_so(arguments: list[str], catchment: Command) -> None:
    said = catchment("capture", *arguments)
    assert (said.code, said.out) == (2, ""), said
    assert said.err.startswith("error: ")
    assert len(said.err.splitlines()) == 1


@pytest.mark.usefixtures("with_cameras")
def test_a_login_in_the_address_is_refused_and_not_repeated(catchment: Command) -> None:
    for address in (
        f"rtsp://me:{CANARY}@127.0.0.1/gate",
        f"RTSPS://{CANARY}@127.0.0.1",
        f"rtsp://me:a/{CANARY}@host/x",
    ):
        said = catchment("capture", address)
        assert said.code == 2, said
        assert CANARY not in said.out + said.err


@pytest.mark.usefixtures("with_cameras")
def test_one_command_takes_one_frame(catchment: Command, server: RtspServer, tmp_path: Path) -> None:
    said = catchment("capture", server.add("/gate"), "--library", "pictures")
    assert (said.code, said.err) == (0, ""), said
    assert ": 1 stored, " in said.out
    [picture] = [path for path in (tmp_path / "pictures").rglob("*.jpg") if ".catchment" not in path.parts]
    assert not is_hidden(picture.relative_to(tmp_path / "pictures").as_posix())


@pytest.mark.usefixtures("with_cameras")
def test_a_saved_camera_is_captured_by_its_name_and_programs_get_json(catchment: Command, server: RtspServer) -> None:
    url = server.add("/gate", login=("me", CANARY))
    RtspCamera(url=url, username="me", password=SecretStr(CANARY), camera_id="Pit_1").save("cli-pit", overwrite=True)
    try:
        said = catchment("capture", "rtsp-camera/cli-pit", "--mode", "continuous", "--duration", "3", "--fps", "1",
                         "--library", "pictures", "--format", "json")  # fmt: skip
        assert said.code == 0, said
        [report] = said.rows
        assert (report["source"], report["status"], report["stored"]) == ("rtsp-camera/cli-pit", "success", 3)
        assert report["details"]["captured"] == 3
        [row, *_] = catchment("images", "--library", "pictures", "--format", "json").rows
        assert row["camera"] == "Pit_1"
        assert CANARY not in said.out + said.err
    finally:
        RtspCamera.delete("cli-pit")


@pytest.mark.usefixtures("with_cameras")
def test_a_camera_that_is_not_there_ends_with_1(catchment: Command) -> None:
    with refuse() as url:
        said = catchment("capture", url, "--library", "pictures")
    assert (said.code, said.out) == (1, ""), said
    assert said.err.startswith("error: ")
    assert len(said.err.splitlines()) == 1


@pytest.mark.usefixtures("with_cameras")
def test_what_is_listed_is_ingested_and_what_is_live_is_captured(
    catchment: Command, server: RtspServer, tmp_path: Path
) -> None:
    RtspCamera(url=server.add("/gate")).save("cli-live", overwrite=True)
    try:
        said = catchment("ingest", "rtsp-camera/cli-live", "--library", "pictures")
        assert said.code == 2, said
        assert "catchment capture" in said.err
        reports = ingest_all_sources(ImageLibrary(folder=tmp_path / "pictures"))
        assert "rtsp-camera/cli-live" not in {report.source for report in reports}
    finally:
        RtspCamera.delete("cli-live")
    assert server.camera("/gate").sessions == 0
