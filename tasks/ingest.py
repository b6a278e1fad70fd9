"""The five tasks of every ingest: list, diff, download, process, store."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from prefect import get_run_logger, task
from prefect.events import emit_event
from prefect.runtime import task_run

from blocks._records import Page, Verdict
from blocks.library import ImageLibrary
from blocks.source import ImageSource
from tasks._download import Staged, fetch_batch
from tasks._plan import Batch, Plan, drop_long_names, make_plan, read_known
from tasks._process import Processed, inspect_batch
from tasks._store import RunIds, Stored, store_batch
from tasks.policies import INSIDE, OUTSIDE, TRIES


@task(task_run_name="list {source.source_name}", **OUTSIDE)
def list_files(source: ImageSource, mark: str | None = None) -> Page:
    """List every wanted file of `source`, or those of its page after `mark`; whole, or not at all.

    Raises:
        SourceUnavailable: no listing could be had.
        SourceRefused: the source answered with no listing.
    """
    page = source.list_page(mark)
    kept = drop_long_names(page.files)
    get_run_logger().info("%s lists %d files%s", source.root, len(page.files), "" if page.is_last else ", and goes on")
    if too_long := len(page.files) - len(kept):
        get_run_logger().warning("%d names are too long for the catalog: shorten them there", too_long)
    return replace(page, files=kept)


@task(task_run_name="diff", **OUTSIDE)
def diff(page: Page, library: ImageLibrary, source_name: str) -> Plan:
    """Decide about every listed file by comparing it with the catalog.

    Raises:
        LibraryUnavailable: the catalog did not answer.
    """
    plan = make_plan(page.files, read_known(library, source_name, page))
    get_run_logger().info("plan: %s", ", ".join(f"{count} {name}" for name, count in plan.counts.items()))
    return plan


@task(task_run_name="download {batch.title}", **OUTSIDE)
def download(source: ImageSource, batch: Batch, staging: Path) -> Staged:
    """Bring every file of `batch` whole into staging; each failure is its own outcome.

    Raises:
        SourceUnavailable: some files may still come; the next try fetches only those.
    """
    is_last_try = (task_run.run_count or 1) >= TRIES
    staged = fetch_batch(source, batch, staging, is_last_try=is_last_try)
    get_run_logger().info("%s: %d came, %d did not", batch.title, len(staged.files), len(staged.ended))
    return staged


@task(task_run_name="process {staged.title}", **INSIDE)
def process(staged: Staged) -> Processed:
    """Prove every staged file to be a whole image, measure it and draw its thumbnail; each failure is its own."""
    processed = inspect_batch(staged, arrived=datetime.now(UTC))
    accepted, rejected = len(processed.accepted), len(processed.rejected)
    get_run_logger().info("%s: %d accepted, %d rejected", staged.title, accepted, rejected)
    return processed


@task(task_run_name="store {processed.title}", **OUTSIDE)
def store(processed: Processed, source: ImageSource, library: ImageLibrary, ids: RunIds) -> Stored:
    """Put what was accepted into the library and every outcome into the catalog; harmless to repeat.

    Raises:
        LibraryUnavailable: storage or catalog did not answer; nothing of the batch is lost.
    """
    stored = store_batch(processed, source, library, ids, now=datetime.now(UTC))
    get_run_logger().info("%s: %s", processed.title, stored.counts)
    if stored.counts[Verdict.STORED]:
        emit_event(
            event="catchment.image.stored",
            resource={"prefect.resource.id": f"catchment.source.{source.source_name}"},
            payload={"run_id": ids.run_id, "bytes": stored.size, **stored.counts},
        )
    return stored
