"""What prefect.yaml promises, checked without a server."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import Flow, load_flow_from_entrypoint

from deployments.apply import WORK_POOL, find_prefect_yaml

ROOT = Path(__file__).parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load(find_prefect_yaml().read_text())["deployments"]
FLOW_FILES = sorted(
    path.stem for path in (ROOT / "flows").glob("*.py") if path.name.startswith(("ingest_", "capture_", "tend_"))
)

of_every_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])


@pytest.mark.parametrize("module", FLOW_FILES)
def test_every_flow_has_a_deployment(module: str) -> None:
    assert f"flows.{module}.{module}" in [deployment["entrypoint"] for deployment in DEPLOYMENTS]


@of_every_deployment
def test_its_entrypoint_is_a_flow_of_an_installed_module(deployment: dict[str, Any]) -> None:
    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(importlib.import_module(module), name)
    assert isinstance(flow, Flow)
    assert load_flow_from_entrypoint(deployment["entrypoint"]).name == flow.name
    assert deployment["name"].removesuffix("-nightly") == flow.name


@of_every_deployment
def test_its_parameters_are_the_flows_own_and_within_their_bounds(deployment: dict[str, Any]) -> None:
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    schema = flow.parameters.model_dump()
    given = deployment.get("parameters", {})
    assert set(given) <= set(schema["properties"])
    # A source or camera is chosen when a run is started; everything else has a default.
    asked = set(schema.get("required") or []) - set(given)
    assert asked <= {"source", "camera", "camera_id", "tree"}
    if not asked:
        flow.validate_parameters(given)


@of_every_deployment
def test_every_parameter_is_described_in_the_form(deployment: dict[str, Any]) -> None:
    schema = load_flow_from_entrypoint(deployment["entrypoint"]).parameters.model_dump()
    undescribed = [name for name, field in schema["properties"].items() if not field.get("description")]
    assert undescribed == []


@of_every_deployment
def test_its_schedule_parses_and_no_change_of_clocks_skips_or_repeats_it(deployment: dict[str, Any]) -> None:
    for schedule in deployment.get("schedules", []):
        cron = CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
        assert cron.timezone == "UTC" or re.fullmatch(r"\d+ [4-9] \* \* \*", schedule["cron"])
        assert re.fullmatch(r"[a-z]+", schedule["slug"])


def test_all_sources_are_taken_hourly_ten_files_each() -> None:
    deployment = next(deployment for deployment in DEPLOYMENTS if deployment["name"] == "ingest-all-sources")
    assert deployment["parameters"] == {"max_files_per_source": 10}
    assert [schedule["cron"] for schedule in deployment["schedules"]] == ["0 * * * *"]


@of_every_deployment
def test_no_slot_of_prefect_is_held_because_a_killed_worker_would_keep_it(deployment: dict[str, Any]) -> None:
    assert "concurrency_limit" not in deployment  # the catalog's lease keeps two runs apart, and death gives it back


@of_every_deployment
def test_it_runs_in_the_work_pool_that_catchment_makes(deployment: dict[str, Any]) -> None:
    assert deployment["work_pool"]["name"] == WORK_POOL
    assert "description" in deployment
    assert "catchment" in deployment["tags"]


def test_no_step_pulls_code_because_workers_have_the_package() -> None:
    assert yaml.safe_load(find_prefect_yaml().read_text())["pull"] == []
