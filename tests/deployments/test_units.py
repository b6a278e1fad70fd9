"""The compose file, the image's recipe and the systemd units: their structure, where no engine can run them."""

import configparser
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deployments"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "docker-compose.yaml").read_text())
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
UNITS = sorted((FOLDER / "systemd").glob("*.service"))


def test_the_compose_file_has_a_server_a_worker_and_a_database() -> None:
    assert set(COMPOSE["services"]) == {"postgres", "server", "setup", "worker"}
    for service in COMPOSE["services"].values():
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in COMPOSE["volumes"]


def test_no_secret_stands_in_the_compose_file() -> None:
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|AUTH|CONNECTION", name):
                assert re.search(r"\$\{[A-Z_]+:\?", value), f"{name} must come from the environment"


def test_the_server_is_reached_from_this_machine_only() -> None:
    assert COMPOSE["services"]["server"]["ports"] == ["127.0.0.1:4200:4200"]


def test_the_image_runs_as_an_ordinary_user_and_copies_what_exists() -> None:
    assert DOCKERFILE.index("USER catchment") < DOCKERFILE.index("CMD")
    copied = [
        name for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]
    ]
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_the_image_asks_for_extras_that_exist_and_all_that_a_run_may_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = re.search(r'"\.\[([^]]+)\]"', DOCKERFILE)
    assert asked is not None
    assert set(asked[1].split(",")) == set(project["optional-dependencies"]) - {
        "test",
        "dev",
        "browser",
    }  # the image has no browser


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_program_of_the_package_as_an_ordinary_user(unit: Path) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    assert parser["Service"]["User"] == "catchment"
    assert re.match(r"/var/lib/catchment/venv/bin/prefect (server|worker) start ", parser["Service"]["ExecStart"])
    assert parser["Install"]["WantedBy"] == "multi-user.target"
