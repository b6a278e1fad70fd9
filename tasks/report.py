"""What people see of a run in Prefect's UI and in their terminal: progress while it lasts, a report after it."""

import base64
import io
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

from PIL import Image
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from blocks._catalog_queries import iter_run_thumbnails, list_run_failures
from blocks._errors import CatchmentError
from blocks.library import ImageLibrary
from tasks._plan import Plan
from tasks._report import IngestReport, escape_cell, format_bytes, markdown_table

MAX_PICTURES = 24
"""Most pictures in one report."""

PICTURE_PIXELS = 160
"""Longest side of a picture in a report: some 4 kB of text each in Prefect's database."""

MAX_ROWS = 50
"""Most lines of one table in a report; the command line has the rest."""


def artifact_key(*parts: str) -> str:
    """Return an artifact key: Prefect takes a-z, 0-9 and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


@contextmanager
def best_effort(what: str) -> Iterator[None]:
    """Go on where Prefect's API does not take what is only shown: a run that stored everything has not failed."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever its client stumbles over
        get_run_logger().warning("%s could not be shown: %s", what, type(error).__name__)


class Progress:
    """How far a run is: a progress artifact, renewed at most once a second, and a bar where a terminal is.

    Nothing is shown until there is something to do.
    """

    def __init__(self, source_name: str) -> None:
        self._source_name = source_name
        self._total = 0
        self._done = 0
        self._shown_at = time.monotonic()
        self._artifact: UUID | None = None
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._line = self._bar.add_task(source_name, total=0)

    def expect(self, files: int) -> None:
        """Count `files` more as to be done."""
        if files and not self._total:
            self._bar.start()
            with best_effort("progress"):
                created = create_progress_artifact(
                    progress=0.0, key=artifact_key("progress", self._source_name), description=self._source_name
                )
                self._artifact = cast("UUID", created)  # typed for coroutines too, which this is not
        self._total += files
        self._bar.update(self._line, total=self._total)

    def advance(self, files: int) -> None:
        """Count `files` more as done."""
        self._done += files
        self._bar.advance(self._line, files)
        if time.monotonic() - self._shown_at >= 1:
            self._show()

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        if self._artifact is not None:
            with best_effort("progress"):
                update_progress_artifact(self._artifact, progress=100 * self._done / self._total)

    def close(self) -> None:
        """Show how far the run came, and leave the terminal to others."""
        self._bar.stop()
        self._show()


def publish_plan(plan: Plan, source_name: str) -> None:
    """Publish what a dry run would take, as a markdown artifact."""
    rows = plan.decisions.head(MAX_ROWS).select("decision", "key", "size", "modified").iter_rows()
    cells = [
        (decision, escape_cell(key), "" if size is None else format_bytes(size), modified or "")
        for decision, key, size, modified in rows
    ]
    text = f"# Plan for {escape_cell(source_name)}\n\n{markdown_table(plan.counts, [plan.counts.values()])}\n\n"
    if cells:
        text += markdown_table(["decision", "key", "size", "modified"], cells)
    with best_effort("the plan"):
        create_markdown_artifact(text, key=artifact_key("plan", source_name), description="What a run would take")


def publish_report(report: IngestReport, library: ImageLibrary) -> None:
    """Publish what a run came to, as a markdown artifact written from the catalog: figures, pictures, failures."""
    verdicts = ("planned", "stored", "duplicate", "quarantined", "failed")
    parts = [
        f"# {escape_cell(report.source)}: {report.status.replace('_', ' ')}",
        markdown_table(verdicts, [[getattr(report, name) for name in verdicts]]),
        f"{report.listed} listed: {report.unchanged} unchanged, {report.deferred} deferred; {report.vanished} gone; "
        f"{format_bytes(report.bytes)} in {report.seconds:.1f} s.",
    ]
    if report.message:
        parts.insert(1, escape_cell(report.message))
    if report.details:
        parts.append(markdown_table(("", ""), ((name, escape_cell(value)) for name, value in report.details.items())))
    if report.run_id is not None:
        parts += _describe_files(report.run_id, library)
    key = artifact_key("report", report.source)
    with best_effort("the report"):
        create_markdown_artifact("\n\n".join(parts), key=key, description=report.summary)


def _describe_files(run_id: int, library: ImageLibrary) -> Iterator[str]:
    catalog = library.catalog()
    pictures = [
        (
            _inline_picture(library, row["thumbnail_key"]),
            escape_cell(row["key"]),
            row["captured_at"].replace("T", " "),
            escape_cell(row["camera"] or ""),
        )
        for row in iter_run_thumbnails(catalog, run_id, MAX_PICTURES)
    ]
    if pictures:
        yield "## Stored"
        yield markdown_table(["picture", "key", "captured", "camera"], pictures)
    failures = [
        (row["verdict"], escape_cell(row["key"]), row["reason"] or "", escape_cell(row["message"] or ""))
        for row in list_run_failures(catalog, run_id, MAX_ROWS)
    ]
    if failures:
        yield "## Not stored"
        yield markdown_table(["verdict", "key", "reason", "message"], failures)


def _inline_picture(library: ImageLibrary, thumbnail_key: str) -> str:
    try:
        picture = Image.open(io.BytesIO(library.storage().read_bytes(thumbnail_key)))
        picture.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    except (CatchmentError, OSError):  # a thumbnail that is gone or spoilt must not spoil the run
        return "(no picture)"
    small = io.BytesIO()
    picture.save(small, "JPEG", quality=70)
    return f"![](data:image/jpeg;base64,{base64.b64encode(small.getvalue()).decode()})"
