"""Requests that hand over files, and drop folders: what their flows do around an ingest."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from prefect import get_run_logger, task

from blocks._records import Page
from blocks.drop_folder import DropFolder
from blocks.library import ImageLibrary
from blocks.source import ImageSource
from tasks._download import clear_staging
from tasks._drop_moves import sort_files
from tasks._lease import AlreadyRunning, hold_lease
from tasks.ingest import list_files
from tasks.policies import OUTSIDE
from tasks.run import IngestRun


def all_at_once(source: ImageSource, **noted: Any) -> Callable[[IngestRun], Iterator[Page]]:
    """Return the pages of a source that is listed whole though it is no history: what it no longer names is not gone.

    `noted` is written down with the run.
    """

    def list_pages(run: IngestRun) -> Iterator[Page]:
        if noted:
            run.note(noted)
        page = list_files(source, None)
        clear_staging(run.staging, wanted=page.files["key"])
        yield page

    return list_pages


@task(task_run_name="sort {source.root}", **OUTSIDE)
def sort_drop_folder(source: DropFolder, library: ImageLibrary) -> dict[str, int]:
    """Move every dropped file whose verdict stands in the catalog to where it belongs; count them by place.

    Where another run holds the folder nothing is moved: that run does it.

    Raises:
        LibraryUnavailable: the catalog did not answer.
        SourceUnavailable, SourceRefused: the folder can not be listed or written to.
    """
    catalog = library.catalog()
    now = datetime.now(UTC)
    source_id = catalog.ensure_source(
        source.source_name, source.get_block_type_slug(), source.root, source.location, source.owner, now=now
    )
    try:
        with hold_lease(catalog, source_id, source.source_name):
            moved = sort_files(source, catalog, now=now, warn=get_run_logger().warning)
    except AlreadyRunning:
        return {}
    get_run_logger().info("%s: %s", source.root, ", ".join(f"{count} {name}" for name, count in moved.items()))
    return moved
