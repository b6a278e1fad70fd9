"""A request made over HTTP, as a program without any of our code makes it: create_flow_run with curl, and an event."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.deployments.runner import RunnerDeployment
from prefect.events import emit_event

from blocks.library import ImageLibrary
from deployments.apply import find_prefect_yaml
from flows.ingest_uploads import ingest_uploads
from tests.flows.commands import Command
from tests.flows.ingesting import images_of
from tests.pictures import HTML_PAGE, make_jpeg
from tests.servers._programs import require_program

ROOT = Path(__file__).parents[2]
NAME = "ingest-uploads/ingest-uploads"


@pytest.fixture
def deployment(prefect_api: str) -> Iterator[str]:
    """The id of the deployment as prefect.yaml has it, but that no worker is needed to run it."""
    [told] = [
        item
        for item in yaml.safe_load(find_prefect_yaml().read_text())["deployments"]
        if item["name"] == "ingest-uploads"
    ]
    made = RunnerDeployment(
        name=told["name"],
        flow_name=ingest_uploads.name,
        entrypoint=told["entrypoint"],
        parameters=told.get("parameters", {}),
        enforce_parameter_schema=True,
    )
    made._parameter_openapi_schema = ingest_uploads.parameters
    deployment_id = made.apply()
    yield str(deployment_id)
    with get_client(sync_client=True) as client:
        client.delete_deployment(deployment_id)


def post(url: str, content: dict[str, Any]) -> dict[str, Any]:
    """POST by curl, as the README does, and return what was answered."""
    curl = str(require_program("curl"))
    command = [curl, "-s", "-X", "POST", "-H", "Content-Type: application/json", "-d", json.dumps(content), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.usefixtures("with_api")
def test_a_request_by_curl_is_pending_then_done_and_asked_after_by_its_flow_run(
    deployment: str, prefect_api: str, catchment: Command, tmp_path: Path
) -> None:
    for name, content in {"before.jpg": make_jpeg(1, (160, 120)), "page.jpg": HTML_PAGE}.items():
        (tmp_path / name).write_bytes(content)
    library = ImageLibrary(folder=tmp_path / "library")
    library.catalog()
    parameters = {
        "camera_id": "Haas_Pit_1",
        "files": [str(tmp_path / "before.jpg"), str(tmp_path / "page.jpg")],
        "meta": {"session": "FP1", "timestamp_ref": "2026-05-31T14:03:09+02:00", "lap": 12},
    }
    created = post(f"{prefect_api}/deployments/{deployment}/create_flow_run", {"parameters": parameters})
    run_id = created["id"]
    [known] = catchment("status", run_id, "--format", "json").rows
    assert (known["state"], known["files"]) == ("pending", [])
    environment = {
        **os.environ,
        "PREFECT_API_URL": prefect_api,
        "CATCHMENT_LIBRARY": str(library.folder),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "prefect", "flow-run", "execute", run_id]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    [known] = catchment("status", run_id, "--format", "json").rows
    assert (known["state"], known["flow_run_id"]) == ("partial", run_id)
    assert sorted(row["verdict"] for row in known["files"]) == ["quarantined", "stored"]
    [image] = images_of(library, meta={"session": "FP1", "lap": "12"})
    assert image["captured_at"] == "2026-05-31T14:03:09+02:00"


def test_a_request_that_can_not_be_is_refused_when_it_is_made(deployment: str, prefect_api: str) -> None:
    url = f"{prefect_api}/deployments/{deployment}/create_flow_run"
    for parameters in (
        {"files": ["/a.jpg"]},
        {"camera_id": "../up", "files": ["/a.jpg"]},
        {"camera_id": "a", "files": ["/a.jpg"], "max_files": 0},
        {"camera_id": "a", "files": ["/a.jpg"], "meta": {"exposure": -1}},
    ):
        assert "detail" in post(url, {"parameters": parameters}), parameters


def test_an_event_starts_a_request_with_what_it_carries(deployment: str, prefect_api: str, tmp_path: Path) -> None:
    """The recipe of the README, but for the deployment's id, which it asks Prefect for."""
    told = {
        name: {"__prefect_kind": "json", "value": {"__prefect_kind": "jinja", "template": template}}
        for name, template in {
            "camera_id": "{{ event.payload.camera_id | tojson }}",
            "files": "{{ event.payload.files | tojson }}",
            "meta": "{{ event.payload.meta | tojson }}",
        }.items()
    }
    name = f"pictures are ready {tmp_path.name}"
    event = f"pitwall.pictures.ready.{tmp_path.name}"
    payload = {"camera_id": "Haas_Pit_1", "files": [f'/{tmp_path.name}/it\'s "one".jpg'], "meta": {"session": "FP1"}}
    automation = Automation.model_validate(
        {
            "name": name,
            "trigger": {"type": "event", "posture": "Reactive", "expect": [event], "threshold": 1, "within": 0},
            "actions": [
                {"type": "run-deployment", "source": "selected", "deployment_id": deployment, "parameters": told}
            ],
        }
    ).create()
    try:
        deadline = time.monotonic() + 120
        with get_client(sync_client=True) as client:
            only = DeploymentFilter(id=DeploymentFilterId(any_=[UUID(deployment)]))
            while not (runs := client.read_flow_runs(deployment_filter=only)):
                assert time.monotonic() < deadline
                # Again and again: a server that was just told of the automation may not look at events by it yet.
                emit_event(event=event, resource={"prefect.resource.id": "camera.Haas_Pit_1"}, payload=payload)
                time.sleep(1)
        assert {name: runs[0].parameters[name] for name in payload} == payload
    finally:
        with get_client(sync_client=True) as client:
            client.delete_automation(automation.id)
