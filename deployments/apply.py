"""Bring a Prefect server to what `prefect.yaml` says: Blocks, work pool, deployments. Harmless to repeat.

    python -m deployments.apply

It waits for a server that is still starting.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import get_current_settings
from prefect.workers.process import ProcessWorker

from blocks._errors import CatchmentError
from deployments.register_blocks import register_types, save_documents
from flows._services import is_answering

WORK_POOL = "catchment"

PATIENCE_SECONDS = 120.0
"""Longest wait for a server that is starting; a new one makes its database first."""


def await_server() -> None:
    """Return when the configured Prefect server answers.

    Raises:
        CatchmentError: it did not within `PATIENCE_SECONDS`.
    """
    api_url = get_current_settings().api.url
    if api_url is None:
        raise CatchmentError("No Prefect server is configured: set PREFECT_API_URL, or let `catchment up` start one.")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_answering(api_url):
        if time.monotonic() > deadline:
            raise CatchmentError(f"No Prefect server answers at {api_url}: start it, or correct PREFECT_API_URL.")
        time.sleep(0.2)


def find_prefect_yaml() -> Path:
    """Return the path of `prefect.yaml`: in a wheel it lies beside this module, in a checkout one folder up."""
    here = Path(__file__).resolve()
    shipped = here.with_name("prefect.yaml")
    return shipped if shipped.exists() else here.parents[1] / "prefect.yaml"


def ensure_work_pool() -> None:
    """Create the process work pool where it is missing; one that exists keeps its settings."""
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(
                WorkPoolCreate(
                    name=WORK_POOL,
                    type=ProcessWorker.type,
                    description="Runs of catchment, each in a process of its own where the worker is.",
                    base_job_template=ProcessWorker.get_default_base_job_template(),
                )
            )
        except ObjectAlreadyExists:
            return


def deploy() -> None:
    """Apply every deployment of `prefect.yaml`.

    Raises:
        CatchmentError: Prefect refused; its own words stand above on standard error.
    """
    # Prefect's own reader of prefect.yaml has no public function, only the command.
    prefect = [sys.executable, "-P", "-m", "prefect", "--no-prompt"]
    if subprocess.run([*prefect, "deploy", "--all", "--prefect-file", find_prefect_yaml()], check=False).returncode:  # noqa: S603 - a fixed command
        raise CatchmentError("Prefect did not take the deployments; what it says stands above.")


def main() -> int:
    """Register the Blocks, create the work pool, apply the deployments; return the exit code."""
    try:
        await_server()
        register_types()
        for line in save_documents(os.environ):
            sys.stdout.write(f"{line}\n")
        ensure_work_pool()
        sys.stdout.flush()
        deploy()
    except CatchmentError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
