"""`catchment ingest`, `ingest-all` and `list`: the flows of the sources, run here and now."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any

from cyclopts import Parameter
from prefect.client.schemas.objects import State
from pydantic import Field

from blocks._catalog_queries import list_run_failures
from blocks._records import Page
from blocks._schema import RunStatus
from blocks.library import ImageLibrary
from blocks.source import ImageSource
from flows._table import Format as Style
from flows._table import Row, print_fields, print_rows
from flows.cli_options import Format, Library, Verbose, open_library, open_source, with_help
from flows.cli_server import prefect_api
from flows.ingest_all_sources import ingest_all_sources, ingest_source
from flows.ingest_dropbox import ingest_dropbox
from flows.ingest_google_drive import ingest_google_drive
from flows.ingest_http_directory import ingest_http_directory
from flows.ingest_remote_folder import ingest_remote_folder
from tasks._plan import Plan, drop_long_names, make_plan, read_known
from tasks._report import IngestReport
from tasks.parameters import DryRun, MaxFiles, Strict
from tasks.sources import keep_apart

Source = Annotated[str, Parameter(help="A saved source (http-directory/NAME), an address, or a folder.")]
Recurse = Annotated[
    int | None, Field(ge=0, description="How many folders down to look; without it what the source says.")
]

_FLOWS: dict[str, Callable[..., Any]] = {
    "dropbox": ingest_dropbox,
    "google-drive": ingest_google_drive,
    "http-directory": ingest_http_directory,
    "remote-folder": ingest_remote_folder,
    "rtsp-camera": partial(ingest_source, dry_run=False),  # which says that capture is what a live camera needs
    "terminal-camera": partial(ingest_source, dry_run=False),  # what the page shows now; days: download-range
}
_FIGURES = ("status", "planned", "stored", "duplicate", "quarantined", "failed", "deferred", "unchanged", "bytes")
_MOST_FAILURES = 20


@with_help
def ingest(
    source: Source,
    /,
    *,
    max_files: MaxFiles = None,
    recurse: Recurse = None,
    library: Library = None,
    dry_run: DryRun = False,
    strict: Strict = False,
    style: Format = "table",
    verbose: Verbose = False,
) -> int:
    """Bring every new, changed or retried image of SOURCE into the library.

    Kill it at any point and start it again: nothing half-written is ever visible, and what was stored stays stored.
    """
    if dry_run:
        place, home = open_source(source, recurse), open_library(library, must_exist=False)
        keep_apart(place, home)
        return _show_plan(place, home, max_files, style)
    with prefect_api():
        place, home = open_source(source, recurse), open_library(library, must_exist=False)
        flow = _FLOWS[place.get_block_type_slug()]
        state: State[IngestReport] = flow(place, home, max_files=max_files, strict=strict, return_state=True)
    _print_report(_result(state), home, style)
    return 0


@with_help
def ingest_all(
    *,
    max_files_per_source: MaxFiles = None,
    library: Library = None,
    dry_run: DryRun = False,
    strict: Strict = False,
    style: Format = "table",
    verbose: Verbose = False,
) -> int:
    """Bring what is new from every saved, active source; one that fails does not touch the next."""
    with prefect_api():
        home = open_library(library, must_exist=False)
        state: State[list[IngestReport]] = ingest_all_sources(
            home, max_files_per_source, strict=strict, dry_run=dry_run, return_state=True
        )
    reports = _result(state)
    if not reports:
        print("No source is saved: add one with catchment sources add.", file=sys.stderr)  # noqa: T201
    print_rows((report.to_dict() for report in reports), ("source", *_FIGURES, "message"), style=style)
    for report in reports:
        if report.status is RunStatus.FAILED:
            print(f"error: {report.source}: {report.message}", file=sys.stderr)  # noqa: T201
    return int(any(report.status is RunStatus.FAILED for report in reports))


@with_help
def list_source(source: Source, /, *, recurse: Recurse = None, style: Format = "table") -> int:
    """Show every file that SOURCE holds and an ingest would look at; nothing is fetched or written down."""
    place = open_source(source, recurse)
    columns = ("key", "size", "modified", "validator")
    with place.connected():
        listing = place.list_files()
    print_rows(listing.select(columns).iter_rows(named=True), columns, style=style)
    return 0


def _result(state: State[Any]) -> Any:
    """Return what a flow returned, or raise what it ended with."""
    result = state.result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    return result


def _print_report(report: IngestReport, library: ImageLibrary, style: Style) -> None:
    if report.status in {RunStatus.SKIPPED, RunStatus.INACTIVE}:
        print(report.message, file=sys.stderr)  # noqa: T201
    if style == "json":
        print_fields(report.to_dict(), style=style)
        return
    if report.status in {RunStatus.SKIPPED, RunStatus.INACTIVE}:
        return
    print(report.summary)  # noqa: T201
    if report.status is RunStatus.NO_NEW_FILES or report.run_id is None:
        return
    print()  # noqa: T201
    print_rows([report.to_dict()], _FIGURES)
    if report.failed + report.quarantined:
        print()  # noqa: T201
        failures = list_run_failures(library.catalog(), report.run_id, _MOST_FAILURES)
        print_rows(failures, ("verdict", "key", "reason", "message"))
        if report.failed + report.quarantined > _MOST_FAILURES:
            print(f"… all of them: catchment status {report.run_id}")  # noqa: T201


def _show_plan(source: ImageSource, library: ImageLibrary, max_files: int | None, style: Style) -> int:
    """Print what an ingest would take; no flow, no server, and not even the library's folder is made."""
    with source.connected():
        page = Page(drop_long_names(source.list_files()))
    plan = make_plan(page.files, read_known(library, source.source_name, page)).take(max_files)
    print_rows(_iter_decisions(plan), ("decision", "key", "size", "modified"), style=style)
    if style == "table":
        told = ", ".join(f"{count} {name}" for name, count in plan.counts.items())
        print(f"{source.source_name}: {told}; nothing was touched", file=sys.stderr)  # noqa: T201
    return 0


def _iter_decisions(plan: Plan) -> Iterator[Row]:
    return plan.decisions.select("decision", "key", "size", "modified").iter_rows(named=True)
