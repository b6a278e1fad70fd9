"""An ingest from its lease to its report: the story that every source's flow tells."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import polars as pl
from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from blocks._catalog_queries import describe_run
from blocks._errors import CatchmentError, LibraryUnavailable, SourceUnavailable
from blocks._records import Page
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
from tasks.sources import keep_apart

_WALKING, _STANDING = "+", "="
"""What a kept mark begins with: in the midst of a walk, or after one, when it is what changes are asked from."""

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
    pages: Callable[["IngestRun"], Iterator[Page]] | None = None,
    wait: timedelta = timedelta(0),
) -> IngestReport:
    """Bring every new, changed or retried file of `source` into `library`; call it in a flow and return what it does.

    The flow then ends Completed with the report, named Skipped when another run holds the source and Inactive when the
    source is paused; or Failed, with a sentence that says what to do, when the source or the library failed or `strict`
    was broken. Kill it anywhere: nothing half-written is ever visible, and what was stored stays stored.

    `pages` finds the files in place of the source's own pages. With `wait` another run that holds the source is given
    that long to end, and a run that then still can not begin has Failed.
    """
    state = _ingest(source, library, max_files, pages, wait, strict=strict, dry_run=dry_run)
    return cast("IngestReport", state)  # a flow that returns a state ends in it, and its caller gets the state's data


def _ingest(
    source: ImageSource,
    library: ImageLibrary | None,
    max_files: int | None,
    pages: Callable[["IngestRun"], Iterator[Page]] | None,
    wait: timedelta,
    *,
    strict: bool,
    dry_run: bool,
) -> State[IngestReport]:
    name = source.source_name
    if not source.is_active:
        message = f"{name} is paused; resume it with: catchment sources resume {name}"
        return Completed(name="Inactive", message=message, data=IngestReport(name, RunStatus.INACTIVE, message=message))
    try:
        library = library or ImageLibrary.default()
        keep_apart(source, library)
        if dry_run:
            return _rehearse(source, library, max_files)
        with ingest_run(source, library, wait) as run:
            for page in (pages or IngestRun.list_pages)(run):
                plan = diff(page, library, name).take(run.left_of(max_files))
                for batch in run.pace(plan, page):
                    staged = download.submit(source, batch, run.staging)
                    processed = process.submit(staged, return_state=False)
                    stored = store.submit(processed, source, library, run.ids, return_state=False)
                    run.follow(staged, processed, stored)
    except AlreadyRunning as error:
        if wait:
            return Failed(message=str(error), data=error)
        report = IngestReport(name, RunStatus.SKIPPED, message=str(error))
        return Completed(name="Skipped", message=str(error), data=report)
    except CatchmentError as error:
        return Failed(message=str(error), data=error)
    report = run.report
    if strict and report.failed + report.quarantined:
        message = f"{report.failed} failed and {report.quarantined} quarantined of {report.planned} files"
        advice = f"{name}: {message}; see: catchment status {report.run_id}"
        return Failed(message=message, data=CatchmentError(advice))
    return Completed(message=report.summary, data=report)


def _rehearse(source: ImageSource, library: ImageLibrary, max_files: int | None) -> State[IngestReport]:
    started = time.monotonic()
    with source.connected():
        plan = diff(Page(source.list_files()), library, source.source_name).take(max_files)
    publish_plan(plan, source.source_name)
    report = IngestReport.of_plan(source.source_name, plan, seconds=time.monotonic() - started)
    return Completed(message=report.summary, data=report)


@contextmanager
def ingest_run(source: ImageSource, library: ImageLibrary, wait: timedelta = timedelta(0)) -> Iterator["IngestRun"]:
    """Hold `source` for one run: lease, row in the catalog, connections, staging; end it with a status and a report.

    Another run that holds the source is given `wait` to end.

    Raises:
        AlreadyRunning: another run holds the source; nothing was touched.
        LibraryUnavailable, LibraryRefused: the library can not be used.
    """
    catalog = library.catalog()
    name = source.source_name
    source_id = catalog.ensure_source(
        name, source.kind, source.root, source.location, source.owner, now=datetime.now(UTC)
    )
    try:
        with hold_lease(catalog, source_id, name, wait) as lease, source.connected():
            staging = library.staging_folder(str(source_id))
            clear_staging(staging)
            run_id = catalog.begin_run(source_id, flow_run.get_id(), now=datetime.now(UTC))
            run = IngestRun(source, library, RunIds(run_id, source_id), staging, lease)
            try:
                yield run
                run.end()
            except BaseException as error:
                run.abandon(error)
                raise
    except AlreadyRunning as error:
        status = RunStatus.FAILED if wait else RunStatus.SKIPPED
        catalog.note_run(source_id, status, str(error), flow_run.get_id(), now=datetime.now(UTC))
        raise


class IngestRun:
    """One ingest under way: paces its batches, follows them to their end and adds up what became of them."""

    def __init__(self, source: ImageSource, library: ImageLibrary, ids: RunIds, staging: Path, lease: Lease) -> None:
        self.ids = ids
        self.staging = staging
        self._source = source
        self._library = library
        self._catalog = library.catalog()
        self._lease = lease
        self._in_flight: deque[tuple[PrefectFuture[Any], ...]] = deque()
        self._unanswered = 0
        self._progress = Progress(source.source_name)
        self._plans: Counter[str] = Counter()
        self._walked: list[pl.Series] | None = None
        self._follows_changes = False
        self.report = IngestReport(source.source_name, RunStatus.RUNNING, ids.run_id)

    def end(self) -> None:
        """Wait for what is under way, write down how the run ended, and publish its report.

        Raises:
            SourceUnavailable, LibraryUnavailable: as `pace`; the run has not ended well then.
        """
        self.settle()
        before = self._read_report()
        status = decide_status(planned=before.planned, quarantined=before.quarantined, failed=before.failed)
        self._finish(status, None)

    def note(self, details: Mapping[str, Any]) -> None:
        """Write down what else there is to say of this run, as JSON has it, in place of what was said before."""
        self._catalog.note_details(self.ids.run_id, details)

    def abandon(self, error: BaseException) -> None:
        """End a run that `error` broke, as far as may be: nothing raised here hides it.

        What is under way is waited for, so that nothing is stored after the run and its lease have ended.
        """
        self._source.stop()
        status, message = RunStatus.FAILED, str(error)
        if not isinstance(error, Exception):
            status, message = RunStatus.CANCELLED, "the run was stopped"
        elif not isinstance(error, CatchmentError):
            message = f"unexpected {type(error).__name__}"
        try:
            for stages in self._in_flight:
                stages[-1].wait()
            self._finish(status, message)
        except Exception as failure:  # noqa: BLE001 - the next run finds this one interrupted and tells so
            get_run_logger().warning("the run's end could not be written down: %s", type(failure).__name__)

    def _finish(self, status: RunStatus, message: str | None) -> None:
        self._progress.close()
        self._catalog.finish_run(self.ids.run_id, status, message, now=datetime.now(UTC))
        self.report = self._read_report()
        publish_report(self.report, self._library)

    def _read_report(self) -> IngestReport:
        return IngestReport.of_run(describe_run(self._catalog, self.ids.run_id, limit=0))

    def list_pages(self) -> Iterator[Page]:
        """Yield the source's pages from its high-water mark on, until there are no more or no more files may be taken.

        A walk that was broken off goes on where it was. Of a source that was walked to its end only the changes are
        asked for, unless files wait to be tried again, which changes would not show.
        """
        kept = self._catalog.read_high_water_mark(self.ids.source_id) or ""
        is_standing = kept.startswith(_STANDING)
        mark = None if is_standing and self._catalog.due_keys(self.ids.source_id) else kept[1:] or None
        self._follows_changes = is_standing and mark is not None
        page = list_files(self._source, mark)
        yield page
        while not page.is_last and not self._plans["deferred"]:
            page = list_files(self._source, page.mark)
            yield page

    def left_of(self, max_files: int | None) -> int | None:
        """Return how many of `max_files` this run may still take."""
        return None if max_files is None else max(0, max_files - self._plans["planned"])

    def pace(self, plan: Plan, page: Page) -> Iterator[Batch]:
        """Yield the batches of a page's plan, never more than `IN_FLIGHT` ahead of what is stored.

        Where the page has a mark, all of them are stored before the source's high-water mark moves to it.

        Raises:
            SourceUnavailable: the source stopped answering; what was not tried is left for the next run.
            LibraryUnavailable: storage, catalog or lease was lost.
        """
        vanished = self._find_vanished(plan, page)
        self._plans.update(
            listed=plan.listed,
            planned=plan.planned,
            deferred=plan.count("deferred"),
            unchanged=plan.unchanged,
            vanished=len(vanished),
        )
        self._catalog.plan_run(self.ids.run_id, **self._plans)
        if page.is_whole:
            clear_staging(self.staging, wanted=plan.decisions["key"])
        self._catalog.record_listing(
            self.ids.source_id, vanished, plan.returned.to_list(), now=datetime.now(UTC), is_whole=page.is_last
        )
        self._progress.expect(plan.planned)
        for batch in plan.batches(self._source.files_together):
            while len(self._in_flight) >= IN_FLIGHT:
                self._settle_oldest()
            yield batch
        if page.mark is not None:
            self._move_mark(page, page.mark)

    def _find_vanished(self, plan: Plan, page: Page) -> list[str]:
        """Return the known files that are gone: those a page says so of, and at a walk's end what it did not list."""
        if page.is_whole:
            return plan.vanished.to_list()
        if page.is_start:
            self._walked = []
        gone = plan.vanished.to_list()
        if self._walked is None:
            return gone
        self._walked.append(page.files["key"])
        if not page.is_last:
            return gone
        known = self._catalog.known_files(self.ids.source_id).filter(~pl.col("vanished"))
        return known.join(pl.concat(self._walked).to_frame(), on="key", how="anti")["key"].to_list()

    def _move_mark(self, page: Page, mark: str) -> None:
        """Move the source's high-water mark to the page's, unless something up to there was deferred.

        At its end stands what changes can be asked from. Where files are still to be fetched, or a walk was not made in
        one run and so can not tell what has vanished, the next run walks the source anew.
        """
        self.settle()
        if self._plans["deferred"]:
            return
        if not page.is_last:
            self._catalog.move_high_water_mark(self.ids.source_id, _WALKING + mark)
            return
        due = self._catalog.due_keys(self.ids.source_id)
        clear_staging(self.staging, wanted=due)
        is_walk = page.is_whole or self._walked is not None
        if not due and (is_walk or self._follows_changes):
            self._catalog.move_high_water_mark(self.ids.source_id, _STANDING + mark)
        elif not self._follows_changes:
            self._catalog.move_high_water_mark(self.ids.source_id, None)

    def follow(self, *stages: PrefectFuture[Any]) -> None:
        """Take note of a batch under way by the futures of its stages, first to last."""
        self._in_flight.append(stages)

    def settle(self) -> None:
        """Wait until everything taken so far stands in the catalog.

        Raises:
            SourceUnavailable, LibraryUnavailable: as `pace`.
        """
        while self._in_flight:
            self._settle_oldest()

    def _settle_oldest(self) -> None:
        """Wait for the oldest batch and look at how it ended."""
        # It stays in flight until it is settled: who stops here has to wait for it all the same.
        staged, _, stored = [_result_of(stage) for stage in self._in_flight[0]]
        self._in_flight.popleft()
        if self._lease.is_lost:
            raise LibraryUnavailable(
                f"The hold on {self._source.source_name} could not be renewed, so this run stops; the next goes on."
            )
        self._unanswered = self._unanswered + stored.files if stored.unanswered == stored.files else 0
        if staged.stopped:
            raise SourceUnavailable(staged.stopped)
        if self._unanswered >= SILENCE:
            raise SourceUnavailable(
                f"{self._source.root} stopped answering. What was not tried is left for the next run."
            )
        self._progress.advance(stored.files)


def _result_of(stage: PrefectFuture[Any]) -> Any:
    """Wait for a task and return its result, or raise what it ended with: the first stage that failed tells why."""
    stage.wait()
    result = stage.state.result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    return result
