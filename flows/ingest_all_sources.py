"""Bring what is new from every saved, active source into the library, one source after the other.

A source that fails costs only itself; a kill loses at most the batches in flight.
"""

from typing import cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from blocks._errors import CatchmentError
from blocks._schema import RunStatus
from blocks.library import ImageLibrary
from blocks.source import ImageSource
from tasks._report import IngestReport, report_table
from tasks.parameters import DryRun, Library, MaxFiles, Strict, described
from tasks.run import bounded, ingest
from tasks.sources import load_sources


@flow(flow_run_name="ingest {source.source_name}", task_runner=bounded())
def ingest_source(
    source: ImageSource, library: ImageLibrary | None, max_files: MaxFiles, strict: Strict, dry_run: DryRun
) -> IngestReport:
    """Ingest one source of any kind."""
    return ingest(source, library, max_files=max_files, strict=strict, dry_run=dry_run)


@flow(flow_run_name="ingest all sources")
@described
def ingest_all_sources(
    library: Library = None,
    max_files_per_source: MaxFiles = 10,
    strict: Strict = False,
    dry_run: DryRun = False,
) -> list[IngestReport]:
    """Ingest every new, changed or retried image of every saved source that is active.

    Ends Failed when a source failed, after all the others had their turn; the state's data are the reports.
    """
    sources, broken = load_sources()
    reports = [IngestReport(name, RunStatus.FAILED, message=str(error)) for name, error in broken.items()]
    for source in sources:
        if source.is_live:
            continue
        state = ingest_source(source, library, max_files_per_source, strict, dry_run, return_state=True)
        reports.append(_report_of(state, source))
    create_markdown_artifact(report_table(reports), key="all-sources", description="Every source, this run")
    return cast("list[IngestReport]", _conclude(reports))  # Prefect gives the caller the state's data


def _report_of(state: State[IngestReport], source: ImageSource) -> IngestReport:
    result = state.result(raise_on_failure=False)
    if isinstance(result, IngestReport):
        return result
    message = str(result) if isinstance(result, CatchmentError) else f"unexpected {type(result).__name__}"
    return IngestReport(source.source_name, RunStatus.FAILED, message=message)


def _conclude(reports: list[IngestReport]) -> State[list[IngestReport]]:
    failed = [report.source for report in reports if report.status is RunStatus.FAILED]
    if failed:
        return Failed(message=f"{len(failed)} of {len(reports)} sources failed: {', '.join(failed)}", data=reports)
    return Completed(message=f"{len(reports)} sources, {sum(report.stored for report in reports)} images", data=reports)
