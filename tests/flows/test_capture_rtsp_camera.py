"""Frames of a live camera come whole into the library, none lost and none twice, whatever breaks meanwhile."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from blocks._catalog_queries import list_images, list_runs
from blocks._errors import LibraryUnavailable, SourceRefused, SourceUnavailable, WrongUse
from blocks._frame_spool import FrameStory, encode_frame
from blocks.library import ImageLibrary
from blocks.rtsp_camera import RtspCamera
from tasks import capture as captures
from tasks._lease import hold_lease
from tasks.streams import MOST_STREAMS, STREAMS_LIMIT, ensure_streams_limit
from tests.flows.capturing import (
    assert_none_twice,
    camera_at,
    capture,
    count_open_streams,
    in_threads,
    newest_run,
    set_streams_limit,
    shown_numbers,
    spool_of,
    stored_frames,
    wait_until,
)
from tests.flows.ingesting import assert_sound
from tests.servers.rtsp import RtspServer, refuse, serve_rtsp
from tests.servers.rtsp_pictures import draw_picture
from tests.servers.s3 import S3Server, serve_moto

ROOT = Path(__file__).parents[2]
CANARY = "canary-at-the-pit-wall"

PROGRAM = """
import sys
from pathlib import Path
from blocks.library import ImageLibrary
from blocks.rtsp_camera import RtspCamera
from flows.capture_rtsp_camera import capture_rtsp_camera
library = ImageLibrary(folder=Path(sys.argv[2]))
capture_rtsp_camera(RtspCamera(url=sys.argv[1], camera_id="pit-1"), library, "continuous", 3600, 30)
"""


@pytest.fixture(autouse=True)
def streams_limit(prefect_api: str) -> Iterator[None]:
    """As many streams as the registration script allows, none of them open."""
    ensure_streams_limit()
    yield
    with get_client(sync_client=True) as client:
        client.delete_global_concurrency_limit_by_name(STREAMS_LIMIT)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Store what was spooled soon, and try again soon."""
    monkeypatch.setattr(captures, "PAGE_SECONDS", 0.2)
    monkeypatch.setattr(captures, "FIRST_PAUSE_SECONDS", 0.2)


@pytest.fixture
def server() -> Iterator[RtspServer]:
    with serve_rtsp() as running:
        yield running


@pytest.fixture
def dead() -> Iterator[socket]:
    """A port that refuses every connection and nobody else takes, until it is closed for a server to listen on it."""
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken


def test_a_capture_brings_the_frames_of_its_time_each_with_its_clocks_and_camera(
    server: RtspServer, library: ImageLibrary
) -> None:
    camera = camera_at(server.add("/gate", fps=20), camera_id="Pit_1")
    ending = capture(camera, library, duration_seconds=4, fps=1)
    frames = stored_frames(library)
    assert ending.report.stored == len(frames) == 4
    numbers = shown_numbers(library)
    assert_none_twice(numbers)
    assert numbers[-1] - numbers[0] == pytest.approx(60, abs=15)
    day = f"{datetime.now(UTC):%Y/%m}"
    for row in frames:
        assert re.fullmatch(
            rf"frames/{day}/\d\d/Pit_1/\d{{8}}T\d{{6}}\.\d{{6}}Z-[0-9a-f]{{8}}\.jpg", row["storage_key"]
        )
    for row in list_images(library.catalog(), limit=None):
        assert row["camera"] == "Pit_1"
    [shown] = [row for row in frames if row["number"] == numbers[2]]
    captured = datetime.fromisoformat(shown["storage_key"].rpartition("/")[2].partition("-")[0])
    assert abs(captured - server.time_of(numbers[2], 20)) < timedelta(seconds=10)
    assert ending.report.details is not None
    assert {
        name: ending.report.details[name] for name in ("captured", "dropped", "frozen", "reconnects", "waiting")
    } == {
        "captured": 4,
        "dropped": 0,
        "frozen": 0,
        "reconnects": 0,
        "waiting": 0,
    }
    assert ending.report.details["gaps"] == []
    assert newest_run(library)["details"] == ending.report.details
    assert spool_of(camera, library).list_files().is_empty()
    assert_sound(library)


def test_the_catalog_keeps_the_capture_time_as_the_cameras_and_the_rest_as_extra(
    server: RtspServer, library: ImageLibrary
) -> None:
    assert capture(camera_at(server.add("/gate")), library, mode="single_frame").report.stored == 1
    with library.catalog().reading() as connection:
        query = "SELECT captured_witness, captured_offset_minutes, camera, extra FROM images"
        [(witness, offset, camera, extra)] = connection.exec_driver_sql(query).all()
    run = newest_run(library)
    assert (witness, offset) == ("camera", 0)
    assert camera == f"127.0.0.1-{server.port}-gate"
    assert f'"request": "{run["flow_run_id"]}"' in extra
    assert '"mode": "single_frame"' in extra


def test_black_pictures_are_counted_and_not_stored(server: RtspServer, library: ImageLibrary) -> None:
    report = capture(camera_at(server.add("/dark", scene="black")), library).report
    assert (report.status, report.stored) == ("no_new_files", 0)
    assert report.details is not None
    assert report.details["black"] == report.details["seen"] > 0


@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
def test_a_frozen_camera_is_told_and_its_picture_not_stored_again_and_again(
    codec: str, server: RtspServer, library: ImageLibrary
) -> None:
    camera = camera_at(server.add("/ice", codec=codec))
    stream = server.camera("/ice")
    with in_threads([lambda: capture(camera, library, duration_seconds=5, frozen_after=4)]) as [running]:
        wait_until(lambda: len(stream.sent) > 8, "the stream")
        stream.scene = "frozen"
        report = running.result().report
    assert report.details is not None
    assert report.details["frozen"] > 0
    numbers = shown_numbers(library)
    # H.264 draws the frozen picture better for a while before it stays the same.
    assert 3 <= numbers.count(numbers[-1]) <= (3 if codec == "mjpeg" else 12)
    assert_none_twice(numbers[: numbers.index(numbers[-1])])


def test_one_capture_a_camera_at_a_time(server: RtspServer, library: ImageLibrary) -> None:
    camera = camera_at(server.add("/gate"))
    assert capture(camera, library, mode="single_frame").report.stored == 1
    source_id = library.catalog().ensure_source(camera.source_name, "rtsp-camera", camera.root, now=datetime.now(UTC))
    sessions = server.camera("/gate").sessions
    with hold_lease(library.catalog(), source_id, camera.source_name):
        second = capture(camera, library)
    assert (second.state.name, second.report.status) == ("Skipped", "skipped")
    assert server.camera("/gate").sessions == sessions


def test_a_capture_that_outlives_its_run_still_keeps_others_out(server: RtspServer, library: ImageLibrary) -> None:
    camera = camera_at(server.add("/gate"))
    with spool_of(camera, library).held():
        ending = capture(camera, library)
    assert isinstance(ending.error, SourceUnavailable)
    assert "Another capture of this camera" in str(ending.error)
    assert server.camera("/gate").sessions == 0


def test_without_the_limit_of_streams_no_camera_is_read_and_the_way_out_is_told(
    server: RtspServer, library: ImageLibrary
) -> None:
    camera = camera_at(server.add("/gate"))
    with get_client(sync_client=True) as client:
        client.delete_global_concurrency_limit_by_name(STREAMS_LIMIT)
    ending = capture(camera, library)
    assert isinstance(ending.error, WrongUse)
    assert f"prefect gcl create {STREAMS_LIMIT} --limit {MOST_STREAMS}" in str(ending.error)
    assert server.camera("/gate").sessions == 0
    ensure_streams_limit()
    assert capture(camera, library, mode="single_frame").report.stored == 1


def test_a_limit_that_somebody_has_set_stays_as_it_is() -> None:
    set_streams_limit(3)
    ensure_streams_limit()
    with get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name(STREAMS_LIMIT).limit == 3


@pytest.mark.timeout(600)
def test_ten_cameras_at_once_lose_no_frame_and_an_eleventh_has_its_turn(
    server: RtspServer, library: ImageLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a minute of it, and how many were open at once: python -m tests.benchmarks.bench_capture."""
    cameras = [
        camera_at(server.add(f"/camera-{number}", codec="mjpeg", fps=5), camera_id=f"camera-{number}")
        for number in range(MOST_STREAMS + 1)
    ]
    monkeypatch.setattr(captures, "PAGE_SECONDS", 5.0)
    library.catalog()
    works = [partial(capture, camera, library, duration_seconds=4, fps=1) for camera in cameras]
    most_open: list[int] = []
    with in_threads(works) as endings:
        wait_until(
            lambda: most_open.append(count_open_streams()) or all(ending.done() for ending in endings),
            "the end of all",
            seconds=500,
            every=0.5,
        )
    # From the catalog: on a busy machine Prefect hands back some states without what is in them.
    runs = list_runs(library.catalog(), limit=None)
    assert [(run["status"], run["stored"], run["failed"]) for run in runs] == [("success", 4, 0)] * len(cameras)
    assert [(run["details"]["captured"], run["details"]["dropped"]) for run in runs] == [(4, 0)] * len(cameras)
    assert max(most_open) <= MOST_STREAMS
    assert_sound(library)


def test_a_capture_waits_for_a_place_and_stores_meanwhile_what_an_earlier_one_left(
    server: RtspServer, library: ImageLibrary
) -> None:
    camera = camera_at(server.add("/gate"), camera_id="pit-1")
    fill_spool(camera, library, 2)
    set_streams_limit(1)
    place = ExitStack()
    place.enter_context(concurrency(STREAMS_LIMIT, strict=True))
    with in_threads([lambda: capture(camera, library, mode="single_frame")]) as [running]:
        with place:
            wait_until(lambda: len(stored_frames(library)) == 2, "what was left")
            assert not running.done()
            assert server.camera("/gate").sessions == 0
        assert running.result().report.stored == 3
    assert server.camera("/gate").sessions == 1


def test_what_an_earlier_capture_left_is_stored_though_the_camera_is_dead(library: ImageLibrary) -> None:
    with refuse() as url:
        camera = camera_at(url, camera_id="pit-1")
        fill_spool(camera, library, 5)
        ending = capture(camera, library, reconnects=0)
    assert isinstance(ending.error, SourceUnavailable)
    assert shown_numbers(library) == [0, 1, 2, 3, 4]
    assert spool_of(camera, library).list_files().is_empty()
    run = newest_run(library)
    assert (run["status"], run["stored"], run["message"]) == ("failed", 5, str(ending.error))
    assert_sound(library)


def test_a_frame_that_was_stored_but_not_yet_cleared_away_is_not_stored_again(
    server: RtspServer, library: ImageLibrary
) -> None:
    camera = camera_at(server.add("/gate"), camera_id="pit-1")
    fill_spool(camera, library, 2)
    assert capture(camera, library, mode="single_frame").report.stored == 3
    fill_spool(camera, library, 2)
    again = capture(camera, library, mode="single_frame").report
    assert (again.stored, again.duplicate, again.unchanged) == (1, 0, 2)
    assert spool_of(camera, library).list_files().is_empty()


def test_a_broken_frame_costs_only_itself(server: RtspServer, library: ImageLibrary) -> None:
    camera = camera_at(server.add("/gate"), camera_id="pit-1")
    keys = fill_spool(camera, library, 3)
    broken = spool_of(camera, library).folder / keys[1]
    broken.write_bytes(broken.read_bytes()[:500])
    report = capture(camera, library, mode="single_frame").report
    assert (report.stored, report.quarantined, report.status) == (3, 1, "partial")
    assert spool_of(camera, library).list_files().is_empty()


def test_a_restarted_camera_is_read_again_and_the_gap_is_told(server: RtspServer, library: ImageLibrary) -> None:
    camera = camera_at(server.add("/gate", fps=10))
    with in_threads([lambda: capture(camera, library, duration_seconds=15, reconnects=50)]) as [running]:
        wait_until(lambda: len(server.camera("/gate").sent) > 8, "the stream")
        server.stop()
        sent_before = server.camera("/gate").sent[-1]
        server.start()
        report = running.result().report
    numbers = shown_numbers(library)
    assert_none_twice(numbers)
    assert report.details is not None
    assert report.details["reconnects"] >= 1
    [gap] = report.details["gaps"]
    assert gap["seconds"] > 0
    before = [number for number in numbers if number <= sent_before]
    after = [number for number in numbers if number > sent_before]
    assert before
    assert after
    assert_sound(library)


def test_motion_is_stored_with_the_seconds_before_it(server: RtspServer, library: ImageLibrary) -> None:
    camera = camera_at(server.add("/gate", fps=10))
    stream = server.camera("/gate")
    options = {"mode": "event_driven", "duration_seconds": 15, "fps": 10, "pre_roll_seconds": 1, "cool_down_seconds": 1}
    with in_threads([lambda: capture(camera, library, **options)]) as [running]:
        wait_until(lambda: len(stream.sent) > 30, "a quiet scene")
        began = stream.sent[-1]
        stream.scene = "moving"
        wait_until(lambda: len(stream.sent) > 45, "motion")
        stream.scene = "still"
        report = running.result().report
    numbers = shown_numbers(library)
    assert_none_twice(numbers)
    assert report.details is not None
    assert report.details["events"] >= 1
    assert numbers[0] == pytest.approx(began - 9, abs=5)
    assert numbers[0] < began < numbers[-1]
    assert len(numbers) < report.details["seen"]


def test_a_wrong_password_is_told_at_once_and_stands_nowhere(server: RtspServer, library: ImageLibrary) -> None:
    url = server.add("/gate", login=("me", "right"))
    camera = camera_at(url, username="me", password=SecretStr(CANARY))
    ending = capture(camera, library)
    assert isinstance(ending.error, SourceRefused)
    assert CANARY not in str(ending.error) + str(ending.state) + repr(camera)
    assert not [path for path in library.folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


def test_a_killed_capture_loses_no_spooled_frame_and_stores_none_twice(
    prefect_api: str, server: RtspServer, library: ImageLibrary
) -> None:
    url = server.add("/gate", fps=20)
    camera = camera_at(url, camera_id="pit-1")
    spool = spool_of(camera, library)
    environment = {**os.environ, "PREFECT_API_URL": prefect_api, "PREFECT_LOGGING_LEVEL": "CRITICAL"}
    command = [sys.executable, "-c", PROGRAM, url, str(library.folder)]
    seen: set[str] = set()
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        try:
            wait_until(lambda: list((library.folder / "frames").rglob("*.jpg")), "a stored frame")
            wait_until(lambda: seen.update(spool.list_files()["key"]) or len(seen) > 20, "spooled frames")
        finally:
            process.kill()
    left = set(spool.list_files()["key"])
    server.stop()
    ending = capture(camera, library, reconnects=0)
    assert isinstance(ending.error, SourceUnavailable)
    stored = {row["key"] for row in list_images(library.catalog(), limit=None)}
    assert seen | left <= stored
    assert spool.list_files().is_empty()
    assert_none_twice(shown_numbers(library))
    assert_sound(library)
    assert [run["status"] for run in list_runs(library.catalog())] == ["failed", "interrupted"]


def test_an_outage_of_storage_loses_no_frame_and_the_next_run_stores_what_waits(
    server: RtspServer, tmp_path: Path, dead: socket, without_waiting: None
) -> None:
    port = dead.getsockname()[1]
    camera = camera_at(server.add("/gate", fps=10), camera_id="Pit")
    away = ImageLibrary(folder=tmp_path / "library", bucket=bucket_at(S3Server(f"http://127.0.0.1:{port}")))
    ending = capture(camera, away, duration_seconds=4, fps=1)
    assert isinstance(ending.error, LibraryUnavailable)
    assert "4 frames wait on this machine; the next capture of the camera stores them." in str(ending.error)
    assert len(spool_of(camera, away).list_files()) == 4
    again = capture(camera, away, duration_seconds=2, fps=1)
    assert "6 frames wait on this machine" in str(again.error)
    server.stop()
    dead.close()
    with serve_moto("frames", port=port) as s3:
        assert isinstance(capture(camera, away, reconnects=0).error, SourceUnavailable)
        numbers = shown_numbers(away)
        assert len(numbers) == 6
        assert_none_twice(numbers)
        assert spool_of(camera, away).list_files().is_empty()
        [first, *_] = stored_frames(away)
        noted = s3.client().head_object(Bucket="frames", Key=first["storage_key"])["Metadata"]
        assert noted["camera"] == "Pit"
        assert noted["name"] == first["storage_key"].rpartition("/")[2]
        assert datetime.fromisoformat(noted["captured"]).tzinfo is not None
        assert noted["request"] == str(newest_run(away)["run_id"])


def test_a_catalog_that_is_away_costs_no_frame_either(
    server: RtspServer, library: ImageLibrary, dead: socket, without_waiting: None
) -> None:
    camera = camera_at(server.add("/gate", fps=10))
    nowhere = SecretStr(f"postgresql://me@127.0.0.1:{dead.getsockname()[1]}/catalog")
    away = ImageLibrary(folder=library.folder, catalog_url=nowhere)
    ending = capture(camera, away, duration_seconds=3, fps=1)
    assert isinstance(ending.error, LibraryUnavailable)
    assert "3 frames wait on this machine" in str(ending.error)
    server.stop()
    capture(camera, library, reconnects=0)
    assert len(shown_numbers(library)) == 3


def test_a_capture_goes_on_through_an_outage_of_storage_and_stores_all_of_it_in_the_end(
    server: RtspServer, tmp_path: Path, dead: socket, without_waiting: None
) -> None:
    port = dead.getsockname()[1]
    camera = camera_at(server.add("/gate", fps=10))
    library = ImageLibrary(folder=tmp_path / "library", bucket=bucket_at(S3Server(f"http://127.0.0.1:{port}")))
    options = {"duration_seconds": 600, "fps": 5, "reconnects": 0}
    with in_threads([lambda: capture(camera, library, **options)]) as [running]:
        wait_until(lambda: any(run["status"] == "failed" for run in list_runs(library.catalog())), "the outage")
        assert not running.done()
        dead.close()
        with serve_moto("frames", port=port):
            wait_until(lambda: list_images(library.catalog(), limit=1), "the end of the outage")
            server.stop()
            assert isinstance(running.result().error, SourceUnavailable)
            numbers = shown_numbers(library)
    runs = list_runs(library.catalog())
    assert runs[0]["details"]["captured"] == len(numbers) > 0
    assert runs[0]["details"]["waiting"] == 0
    assert_none_twice(numbers)
    assert len({run["flow_run_id"] for run in runs}) == 1


def fill_spool(camera: RtspCamera, library: ImageLibrary, count: int) -> list[str]:
    """Leave frames in a camera's spool as a killed capture does: the same ones every time."""
    base = datetime(2026, 11, 20, 14, 5, tzinfo=UTC)
    stories = [FrameStory(camera.camera, base + timedelta(seconds=number)) for number in range(count)]
    spool = spool_of(camera, library)
    return [spool.put(encode_frame(draw_picture(number), story), story) for number, story in enumerate(stories)]


def bucket_at(server: S3Server, **fields: Any) -> S3Bucket:
    credentials = AwsCredentials(
        aws_access_key_id=server.user,
        aws_secret_access_key=SecretStr(server.password),
        region_name="us-east-1",
        aws_client_parameters=AwsClientParameters(endpoint_url=server.url),
    )
    return S3Bucket(bucket_name="frames", credentials=credentials, **fields)
