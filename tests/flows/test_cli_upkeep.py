"""The commands of whoever runs catchment: figures for Prometheus, health, structured logs, retention."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from blocks.library import ImageLibrary
from flows.cli_metrics import parse_address
from tests.flows.commands import Command
from tests.flows.ingesting import folder_source, ingest
from tests.pictures import make_jpeg

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-P", "-c", "from flows.cli import main; main()"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def filled(library: ImageLibrary, tmp_path: Path, prefect_api: str) -> ImageLibrary:
    """Two images of camera pit-1, a copy of one, and something that is no picture."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, content in {
        "20250901T100000Z_pit-1.jpg": make_jpeg(1),
        "20250901T100001Z_pit-1.jpg": make_jpeg(2),
        "noise.jpg": b"no picture",
    }.items():
        (folder / name).write_bytes(content)
    ingest(folder_source(folder), library)
    (folder / "copy.jpg").write_bytes(make_jpeg(1))
    ingest(folder_source(folder), library)
    return library


def figures(text: str) -> dict[tuple[str, str], float]:
    """The samples of a metrics page by name and label values."""
    return {
        (sample.name, " ".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_prometheus_text_of_what_the_catalog_holds(catchment: Command, filled: ImageLibrary) -> None:
    said = catchment("metrics", "--library", filled.folder)
    assert said.code == 0
    found = figures(said.out)
    assert found["ingestion_requests_total", "remote-folder partial"] == 1
    assert found["ingestion_requests_total", "remote-folder success"] == 1
    assert found["ingestion_frames_total", "pit-1 remote-folder"] == 2
    assert found["ingestion_duplicate_files_total", "remote-folder"] == 1
    assert found["ingestion_quarantined_files_total", "remote-folder"] == 1
    assert found["ingestion_bytes_total", "remote-folder"] > 2 * len(make_jpeg(1))
    assert found["ingestion_request_duration_seconds_count", "remote-folder"] == 2
    assert found["ingestion_request_duration_seconds_bucket", "+Inf remote-folder"] == 2
    assert found["ingestion_capture_to_store_seconds_count", "remote-folder"] == 2


@contextmanager
def serving(library: ImageLibrary, address: str) -> Iterator[str]:
    command = [*PROGRAM, "metrics", "--listen", address, "--library", str(library.folder)]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            lines: list[str] = []
            reader = threading.Thread(target=lambda: lines.append(server.stderr.readline()))  # type: ignore[union-attr]
            reader.start()
            reader.join(60)
            [url] = re.findall(r"http://\S+", lines[0])
            yield url
        finally:
            server.terminate()


def test_metrics_are_served_anew_for_each_who_asks(filled: ImageLibrary, tmp_path: Path) -> None:
    with serving(filled, "127.0.0.1:0") as url:
        first = figures(httpx.get(url, timeout=30).text)
        (tmp_path / "pictures" / "new.jpg").write_bytes(make_jpeg(7))
        ingest(folder_source(tmp_path / "pictures"), filled)
        second = figures(httpx.get(url, timeout=30).text)
    name = ("ingestion_files_total", "remote-folder stored")
    assert (first[name], second[name]) == (2, 3)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:", ":-1", "host:99999999", "no-such-host.invalid:9464"])
def test_an_address_that_can_not_be_listened_on_is_refused(
    catchment: Command, filled: ImageLibrary, address: str
) -> None:
    said = catchment("metrics", "--listen", address, "--library", filled.folder)
    assert said.code == 2
    assert "Traceback" not in said.err


def test_addresses_to_listen_on_are_read_as_people_write_them() -> None:
    assert parse_address("9464") == ("127.0.0.1", 9464)
    assert parse_address("0.0.0.0:80") == ("0.0.0.0", 80)
    assert parse_address("[::1]:9464") == ("::1", 9464)


def test_doctor_ends_with_the_health_of_the_whole(
    catchment: Command, filled: ImageLibrary, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    said = catchment("doctor", "--library", filled.folder, "--format", "json")
    assert (said.code, said.rows[-1]["check"], said.rows[-1]["state"]) == (0, "health", "healthy")


def test_doctor_tells_of_frames_that_wait_too_long(
    catchment: Command, filled: ImageLibrary, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    frame = filled.spool_folder("pit-1") / "frame.jpg"
    frame.write_bytes(make_jpeg(1))
    os.utime(frame, (1_750_000_000, 1_750_000_000))
    rows = catchment("doctor", "--library", filled.folder, "--format", "json").rows
    [spool] = [row for row in rows if row["check"] == "spool"]
    assert (spool["state"], "1 frames wait" in spool["message"]) == ("warning", True)


def test_doctor_is_degraded_while_the_database_is_away(
    catchment: Command, tmp_path: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    library = ImageLibrary(folder=tmp_path / "away", catalog_url="postgresql://catchment@127.0.0.1:1/catchment")
    library.save("away-for-doctor")  # type: ignore[unused-coroutine]
    try:
        said = catchment("doctor", "--library", "image-library/away-for-doctor", "--format", "json")
    finally:
        ImageLibrary.delete("away-for-doctor")  # type: ignore[unused-coroutine]
    assert (said.code, said.rows[-1]["state"]) == (1, "degraded")
    assert "catalog" in said.rows[-1]["message"]


def test_logs_are_json_with_the_run_as_correlation_id_by_one_setting(
    filled: ImageLibrary, tmp_path: Path, prefect_api: str
) -> None:
    setting = {"PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json", "PREFECT_API_URL": prefect_api}
    command = [*PROGRAM, "ingest", str(tmp_path / "pictures"), "--verbose", "--library", str(filled.folder)]
    ended = subprocess.run(command, env=ENVIRONMENT | setting, capture_output=True, text=True, timeout=120)
    logged = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    of_runs = [line for line in logged if line["name"] in {"prefect.flow_runs", "prefect.task_runs"}]
    with filled.catalog().reading() as connection:
        newest = connection.exec_driver_sql("SELECT flow_run_id FROM runs ORDER BY id DESC LIMIT 1").scalar()
    assert {line["flow_run_id"] for line in of_runs} == {newest}


def test_expired_images_are_shown_first_and_removed_on_request(catchment: Command, filled: ImageLibrary) -> None:
    asked = ("expire", "--camera", "pit-1", "--older-than-days", "30", "--library", filled.folder)
    shown = catchment(*asked)
    assert shown.code == 0
    assert "nothing was touched" in shown.err
    [told] = catchment(*asked, "--apply", "--format", "json").rows
    assert told["removed"] == 2
    assert catchment("images", "--library", filled.folder, "--format", "json").rows == []
    assert catchment(*asked[:-3], "0", "--library", filled.folder).code == 2
