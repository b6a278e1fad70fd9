"""Prove that the library still holds what its catalog says, and mend what can be.

Nothing is ever deleted: altered files go to quarantine. Kill it anywhere and start it again.
"""

from typing import cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from blocks._errors import CatchmentError
from blocks.library import ImageLibrary
from tasks._report import escape_cell, markdown_table
from tasks._verify import VerifyReport
from tasks.parameters import Library, Quick, Repair, described
from tasks.tend import verify


@flow(flow_run_name="verify the library")
@described
def tend_library(library: Library = None, quick: Quick = False, repair: Repair = False) -> VerifyReport:
    """Compare every file of the library with the catalog; end Failed while anything is wrong."""
    return cast("VerifyReport", _tend(library, quick=quick, repair=repair))  # Prefect gives the caller the state's data


def _tend(library: ImageLibrary | None, *, quick: bool, repair: bool) -> State[VerifyReport]:
    try:
        report = verify(library or ImageLibrary.default(), quick, repair)
    except CatchmentError as error:
        return Failed(message=str(error), data=error)
    rows = [
        (
            finding.problem,
            escape_cell(finding.key),
            escape_cell(finding.repair or ""),
            escape_cell(finding.message or ""),
        )
        for finding in report.examples
    ]
    findings = markdown_table(["problem", "key", "repair", "message"], rows) if rows else ""
    create_markdown_artifact(f"# {report.summary}\n\n{findings}", key="library-check", description=report.summary)
    if report.is_sound:
        return Completed(message=report.summary, data=report)
    return Failed(message=report.summary, data=report)
