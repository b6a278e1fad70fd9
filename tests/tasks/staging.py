"""Batches as the flows make them, and a folder to stage them in."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blocks._records import RemoteFile, Rows
from blocks.http_directory import HttpDirectory
from blocks.library import ImageLibrary
from blocks.source import ImageSource
from tasks._download import fetch_batch
from tasks._plan import Batch
from tasks._process import Processed, inspect_batch
from tasks._store import RunIds

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def make_batch(keys: Iterable[str]) -> Batch:
    return Batch(1, 1, Rows(RemoteFile(key) for key in keys))


def make_source(url: str, **fields: Any) -> HttpDirectory:
    return HttpDirectory(**{"base_url": url, "timeout_seconds": 10, "retry_deadline_seconds": 0} | fields)


def begin_run(library: ImageLibrary, source: ImageSource) -> RunIds:
    catalog = library.catalog()
    source_id = catalog.ensure_source(source.source_name, source.get_block_type_slug(), source.root, now=NOW)
    return RunIds(catalog.begin_run(source_id, now=NOW), source_id)


def fetch_and_inspect(source: ImageSource, staging: Path, *keys: str) -> Processed:
    staged = fetch_batch(source, make_batch(keys), staging, is_last_try=True)
    return inspect_batch(staged, arrived=NOW)
