"""`catchment up`, started as a person does, with a real server, worker and camera."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows._demo_camera import draw_pictures, serve_pictures
from tests.servers.http_server import find_free_port

ROOT = Path(__file__).parents[2]
START_SECONDS = 200
RUN_SECONDS = 120


@dataclass(frozen=True)
class Up:
    """A running `catchment up` and a camera for it."""

    process: subprocess.Popen[str]
    api: httpx.Client
    folder: Path
    port: int
    said: str

    @property
    def library(self) -> Path:
        return self.folder / "library"


def start_up(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "CATCHMENT_"))}
    environment = {
        **kept,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        **variables,
    }
    command = [sys.executable, "-P", "-c", "from flows.cli import main; main()", "up", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def camera() -> Iterator[str]:
    with serve_pictures(draw_pictures(3)) as address:
        yield address


@pytest.fixture(scope="module")
def up(camera: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder, port = tmp_path_factory.mktemp("up"), find_free_port()
    variables = {"CATCHMENT_HTTP_DIRECTORY__WEIR__BASE_URL": camera}
    process = start_up(folder, "--port", str(port), "--library", "library", **variables)
    assert process.stdout is not None
    said = ""
    deadline = time.monotonic() + START_SECONDS
    for line in process.stdout:
        said += line
        if line.startswith("stop") or time.monotonic() > deadline:
            break
    else:
        logs = {log.name: log.read_text()[-3000:] for log in folder.rglob("*.log")}
        pytest.fail(f"up ended with {process.wait()}: {said} {process.stderr and process.stderr.read()} {logs}")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/", trust_env=False, timeout=30) as api:
        yield Up(process, api, folder, port, said)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def ask(up: Up, path: str, **body: Any) -> Any:
    # Prefect's server answers 503 while its SQLite is locked.
    deadline = time.monotonic() + 30
    while (answer := up.api.post(path, json=body)).status_code == 503 and time.monotonic() < deadline:
        time.sleep(0.5)
    answer.raise_for_status()
    return answer.json()


def await_end(up: Up, run_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        run: dict[str, Any] = up.api.get(f"flow_runs/{run_id}").json()
        if run["state_type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}:
            return run
        time.sleep(0.3)
    logs = {log.name: log.read_text()[-3000:] for log in up.library.rglob("*.log")}
    raise AssertionError(f"the run did not end: {run['state']} {logs}")


def test_it_says_where_the_ui_the_library_and_the_logs_are(up: Up) -> None:
    assert f"http://127.0.0.1:{up.port}\n" in up.said
    assert f"library   {up.library}\n" in up.said
    assert f"logs      {up.library / '.catchment' / 'logs'}\n" in up.said
    assert len(up.said.splitlines()) < 15


def test_every_deployment_can_be_seen(up: Up) -> None:
    names = {deployment["name"] for deployment in ask(up, "deployments/filter")}
    assert names >= {"ingest-all-sources", "ingest-http-directory", "ingest-remote-folder", "tend-library"}


def test_the_server_really_plans_the_hourly_runs(up: Up) -> None:
    deadline = time.monotonic() + 60
    runs: list[dict[str, Any]] = []
    while not runs and time.monotonic() < deadline:
        runs = ask(up, "flow_runs/filter", deployments={"name": {"any_": ["ingest-all-sources"]}})
        time.sleep(0.3)
    assert {run["expected_start_time"][14:19] for run in runs} == {"00:00"}


def test_a_source_from_the_environment_is_ingested_by_a_run_that_the_api_starts(up: Up) -> None:
    deployment = up.api.get("deployments/name/ingest-http-directory/ingest-http-directory").json()
    parameters = {"source": {"$ref": {"block_document_slug": "http-directory/weir"}}, "max_files": 2}
    run = ask(up, f"deployments/{deployment['id']}/create_flow_run", parameters=parameters)
    ended = await_end(up, run["id"])
    assert (ended["state_type"], ended["state"]["message"].split(": ")[1][:8]) == ("COMPLETED", "2 stored")
    assert len(list((up.library / "weir").rglob("*.jpg"))) == 2


def test_the_deployment_of_all_sources_takes_what_is_left(up: Up) -> None:
    deployment = up.api.get("deployments/name/ingest-all-sources/ingest-all-sources").json()
    run = ask(up, f"deployments/{deployment['id']}/create_flow_run")
    assert await_end(up, run["id"])["state_type"] == "COMPLETED"
    assert len(list((up.library / "weir").rglob("*.jpg"))) == 3


def register(up: Up, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "PREFECT_API_URL": f"http://127.0.0.1:{up.port}/api",
        **variables,
    }
    command = [sys.executable, "-P", "-m", "deployments.register_blocks"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


def test_registering_again_changes_only_what_the_environment_names_and_prints_no_value(up: Up) -> None:
    prefix, secret = "CATCHMENT_HTTP_DIRECTORY__GATE__", "canary-4711"
    first = {"BASE_URL": "https://gate.example.org/", "AUTH_TYPE": "basic", "AUTH_USERNAME": "me", "INCLUDE": '["a*"]'}
    done = register(up, **{prefix + name: value for name, value in {**first, "AUTH_PASSWORD": secret}.items()})
    assert done.returncode == 0, done.stderr
    assert "saved http-directory/gate (auth_password, auth_type, auth_username, base_url, include)" in done.stdout
    again = register(up, **{prefix + "OWNER": "Weser station"})
    saved = up.api.get(
        "block_types/slug/http-directory/block_documents/name/gate", params={"include_secrets": True}
    ).json()["data"]
    assert (saved["owner"], saved["auth_password"], saved["include"]) == ("Weser station", secret, ["a*"])
    wrong = register(up, **{prefix + "AUTH_HEADER": secret, prefix + "AUTH_HEADRE": secret})
    assert (wrong.returncode, "AUTH_HEADRE: there is no field" in wrong.stderr) == (2, True)
    assert secret not in done.stdout + done.stderr + again.stdout + wrong.stdout + wrong.stderr


def test_a_second_one_on_the_same_port_says_what_runs_there(up: Up) -> None:
    second = start_up(up.folder, "--port", str(up.port))
    _, complaint = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"A Prefect server already runs at http://127.0.0.1:{up.port}/api" in complaint


def test_a_port_that_something_else_has_is_an_error_of_one_line(camera: str, tmp_path: Path) -> None:
    second = start_up(tmp_path, "--port", str(httpx.URL(camera).port))
    _, complaint = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "choose another by --port" in complaint
    assert len(complaint.splitlines()) == 1


def test_ctrl_c_stops_everything_in_good_order(up: Up) -> None:
    """The last test of this file: nothing runs afterwards."""
    started = find_family(up.process.pid)
    assert len(started) >= 3
    up.process.send_signal(signal.SIGINT)
    _, complaint = up.process.communicate(timeout=60)
    assert (up.process.returncode, complaint) == (0, "")
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []


def find_family(pid: int) -> list[int]:
    """Return a process and all its descendants, from /proc."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(after_name[1])
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family
