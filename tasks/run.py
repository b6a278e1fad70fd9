"""An ingest from its lease to its report: the story that every source's flow tells."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from blocks._catalog import Catalog
from blocks._catalog_queries import describe_run
from blocks._errors import CatchmentError, LibraryUnavailable, SourceUnavailable
from blocks._schema import RunStatus
from blocks.library import ImageLibrary
from blocks.source import ImageSource
from tasks._download import SILENCE, clear_staging
from tasks._lease import AlreadyRunning, Lease, hold_lease
from tasks._plan import Batch, Plan
from tasks._report import IngestReport, decide_status
from tasks._store import RunIds
from tasks.ingest import diff, download, list_files, process, store
from tasks.report import Progress, publish_plan, publish_report

IN_FLIGHT = 4
"""Most batches between download and store at once: memory and staging stay flat, and a kill loses at most these."""


def bounded() -> TaskRunner[PrefectFuture[Any]]:
    """Return a task runner with a thread for each of the three stages of every batch in flight."""
    return cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(max_workers=3 * IN_FLIGHT))


def ingest(
    source: ImageSource,
    library: ImageLibrary | None,
    *,
    max_files: int | None,
    strict: bool = False,
    dry_run: bool = False,
) -> IngestReport:
    """Bring every new, changed or retried file of `source` into `library`; call it in a flow and return what it does.

    The flow then ends Completed with the report, named Skipped when another run holds the source and Inactive when the
    source is paused; or Failed, with a sentence that says what to do, when the source or the library failed or `strict`
    was broken. Kill it anywhere: nothing half-written is ever visible, and what was stored stays stored.
    """
    state = _ingest(source, library, max_files, strict=strict, dry_run=dry_run)
    return cast("IngestReport", state)  # a flow that returns a state ends in it, and its caller gets the state's data


def _ingest(
    source: ImageSource, library: ImageLibrary | None, max_files: int | None, *, strict: bool, dry_run: bool
) -> State[IngestReport]:
    name = source.source_name
    if not source.is_active:
        message = f"{name} is paused; resume it with: catchment sources resume {name}"
        return Completed(name="Inactive", message=message, data=IngestReport(name, RunStatus.INACTIVE, message=message))
    try:
        library = library or ImageLibrary.default()
        if dry_run:
            return _rehearse(source, library, max_files)
        with ingest_run(source, library) as run:
            plan = diff(list_files(source), library, name).take(max_files)
            for batch in run.pace(plan):
                staged = download.submit(source, batch, run.staging)
                processed = process.submit(staged, return_state=False)
                stored = store.submit(processed, source, library, run.ids, return_state=False)
                run.follow(staged, processed, stored)
    except AlreadyRunning as error:
        report = IngestReport(name, RunStatus.SKIPPED, message=str(error))
        return Completed(name="Skipped", message=str(error), data=report)
    except CatchmentError as error:
        return Failed(message=str(error), data=error)
    report = run.report
    if strict and report.failed + report.quarantined:
        message = f"{report.failed} failed and {report.quarantined} quarantined of {report.planned} files"
        return Failed(
            message=message, data=CatchmentError(f"{name}: {message}; see: catchment status {run.ids.run_id}")
        )
    return Completed(message=report.summary, data=report)


def _rehearse(source: ImageSource, library: ImageLibrary, max_files: int | None) -> State[IngestReport]:
    started = time.monotonic()
    with source.connected():
        plan = diff(list_files(source), library, source.source_name).take(max_files)
    publish_plan(plan, source.source_name)
    report = IngestReport.of_plan(source.source_name, plan, seconds=time.monotonic() - started)
    return Completed(message=report.summary, data=report)


@contextmanager
def ingest_run(source: ImageSource, library: ImageLibrary) -> Iterator["IngestRun"]:
    """Hold `source` for one run: lease, row in the catalog, connections, staging; end it with a status and a report.

    Raises:
        AlreadyRunning: another run holds the source; nothing was touched.
        LibraryUnavailable, LibraryRefused: the library can not be used.
    """
    catalog = library.catalog()
    name = source.source_name
    source_id = catalog.ensure_source(
        name, source.get_block_type_slug(), source.root, source.location, source.owner, now=datetime.now(UTC)
    )
    with hold_lease(catalog, source_id, name) as lease, source.connected():
        staging = library.staging_folder(str(source_id))
        clear_staging(staging)
        run_id = catalog.begin_run(source_id, flow_run.get_id(), now=datetime.now(UTC))
        run = IngestRun(source, catalog, source_id, run_id, staging, lease)
        status: RunStatus = RunStatus.FAILED
        message: str | None = "the run was stopped"
        try:
            yield run
            status, message = run.status, None
        except CatchmentError as error:
            message = str(error)
            raise
        except Exception as error:
            message = f"unexpected {type(error).__name__}"
            raise
        finally:
            run.wait_for_batches()
            catalog.finish_run(run_id, status, message, now=datetime.now(UTC))
            publish_report(run.report, library)


class IngestRun:
    """One ingest under way: paces its batches, follows them to their end and adds up what became of them."""

    def __init__(
        self, source: ImageSource, catalog: Catalog, source_id: int, run_id: int, staging: Path, lease: Lease
    ) -> None:
        self.ids = RunIds(run_id, source_id)
        self.staging = staging
        self._source = source
        self._catalog = catalog
        self._lease = lease
        self._in_flight: deque[tuple[PrefectFuture[Any], ...]] = deque()
        self._unanswered = 0

    @property
    def report(self) -> IngestReport:
        """Return what the catalog says of this run."""
        return IngestReport.of_run(describe_run(self._catalog, self.ids.run_id, limit=0))

    @property
    def status(self) -> RunStatus:
        """Return how the run ends if nothing but single files failed."""
        report = self.report
        return decide_status(planned=report.planned, quarantined=report.quarantined, failed=report.failed)

    def pace(self, plan: Plan) -> Iterator[Batch]:
        """Yield the plan's batches, never more than `IN_FLIGHT` ahead of what is stored.

        Raises:
            SourceUnavailable: the source stopped answering; what was not tried is left for the next run.
            LibraryUnavailable: storage, catalog or lease was lost.
        """
        self._catalog.plan_run(
            self.ids.run_id,
            listed=plan.listed,
            planned=plan.planned,
            deferred=plan.count("deferred"),
            unchanged=plan.unchanged,
            vanished=len(plan.vanished),
        )
        self._catalog.record_listing(
            self.ids.source_id, plan.vanished.to_list(), plan.returned.to_list(), now=datetime.now(UTC)
        )
        with Progress(self._source.source_name, plan.planned) as progress:
            for batch in plan.batches():
                while len(self._in_flight) >= IN_FLIGHT:
                    progress.advance(self._settle_oldest())
                yield batch
            while self._in_flight:
                progress.advance(self._settle_oldest())

    def follow(self, *stages: PrefectFuture[Any]) -> None:
        """Take note of a batch under way by the futures of its stages, first to last."""
        self._in_flight.append(stages)

    def wait_for_batches(self) -> None:
        """Wait for whatever is still under way, so that nothing is stored after the run has ended."""
        for stages in self._in_flight:
            stages[-1].wait()
        self._in_flight.clear()

    def _settle_oldest(self) -> int:
        """Wait for the oldest batch and return how many of its files were dealt with."""
        staged, _, stored = [_result_of(stage) for stage in self._in_flight.popleft()]
        if self._lease.is_lost:
            raise LibraryUnavailable(
                f"The hold on {self._source.source_name} could not be renewed, so this run stops; the next goes on."
            )
        self._unanswered = self._unanswered + stored.files if stored.unanswered == stored.files else 0
        if staged.untried or self._unanswered >= SILENCE:
            raise SourceUnavailable(
                f"{self._source.root} stopped answering; what was not tried is left for the next run."
            )
        return int(stored.files)


def _result_of(stage: PrefectFuture[Any]) -> Any:
    """Wait for a task and return its result, or raise what it ended with: the first stage that failed tells why."""
    stage.wait()
    result = stage.state.result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    return result
