"""A tree of downloads as the source of one run, and the tasks that decide about its files and remove the originals."""

import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from blocks._catalog_captures import FileRow, make_due, read_files, read_sources
from blocks._errors import LibraryRefused, SourceRefused, SourceUnavailable
from blocks._layout import HIDDEN_FOLDER, make_safe_segment
from blocks._part import PartFile
from blocks._records import (
    CaptureTime,
    Claims,
    Fetched,
    Listing,
    Page,
    Quality,
    RemoteFile,
    Rows,
    TimeWitness,
    is_safe_key,
    make_listing,
)
from blocks._remote import changed_midway, decode_name, translate_local_error
from blocks.library import ImageLibrary
from blocks.source import ImageSource
from tasks._organize import (
    Fate,
    Naming,
    OrganizeReport,
    Placing,
    open_plain,
    plan_tree,
)
from tasks._originals import remove_originals, settle_fates
from tasks._report import escape_cell, markdown_table
from tasks.policies import INSIDE, OUTSIDE
from tasks.report import MAX_ROWS, artifact_key, best_effort
from tasks.run import IngestRun


class DownloadTree(ImageSource):
    """Files that somebody downloaded from a source by other means, standing in for that source during one run.

    In the catalog its files are the source's own: same source, same keys. It is never saved.
    """

    _block_type_name = "Download Tree"
    _block_type_slug = "download-tree"

    folder: Path
    stands_for: str
    kind_of_source: str
    address: str
    short_name: str

    @classmethod
    def of(cls, source: ImageSource, folder: Path) -> "DownloadTree":
        """Return the tree below `folder` in the place of `source`."""
        return cls(
            folder=folder,
            stands_for=source.source_name,
            kind_of_source=source.kind,
            address=source.root,
            short_name=source.folder_name,
            location=source.location,
            owner=source.owner,
            layout=source.layout,
            max_file_bytes=source.max_file_bytes,
        )

    @property
    def kind(self) -> str:
        """The kind of source that the tree stands for."""
        return self.kind_of_source

    @property
    def root(self) -> str:
        """Where the source is that the tree stands for."""
        return self.address

    @property
    def source_name(self) -> str:
        """The name of the source that the tree stands for."""
        return self.stands_for

    @property
    def folder_name(self) -> str:
        """The name, as a folder, of the source that the tree stands for."""
        return self.short_name

    def list_files(self) -> Listing:
        """Return nothing: what of the tree is to be taken is decided beside the catalog, by `survey`."""
        return make_listing([])

    def download(self, file: RemoteFile, destination: Path) -> Fetched:
        """Copy `file` whole to `destination`, through `destination.part`, with what its name says about it."""
        told = json.loads(file.locator or "{}")
        path = unquote_to_bytes(told["path"])
        if not is_safe_key(decode_name(path)):
            raise SourceRefused(f"{file.key} does not lie within the tree.")
        with PartFile(destination, max_bytes=self.max_file_bytes) as part:
            try:
                modified = self._copy(path, file, part)
                digest = part.commit(file.size)
            except (SourceRefused, SourceUnavailable):
                part.discard()
                raise
        captured = CaptureTime(datetime.fromisoformat(told["local"]), told["offset_minutes"], TimeWitness.CAMERA)
        extra = {"repeated_hour": told["repeated_hour"]} if told["repeated_hour"] else None
        claims = Claims(captured=captured, camera=told["stream"], quality=Quality(told["quality"]), extra=extra)
        return Fetched(destination, part.size, digest, modified, claims=claims)

    def _copy(self, path: bytes, file: RemoteFile, part: PartFile) -> datetime:
        try:
            source = open_plain(self.folder, path)
        except OSError as error:
            raise translate_local_error(error, os.fsdecode(path)) from error
        with source:
            before = os.fstat(source.fileno())
            while chunk := _read(source.fileno(), path):
                part.write(chunk)
            after = os.fstat(source.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise changed_midway(file)
        return datetime.fromtimestamp(after.st_mtime, UTC)


def _read(descriptor: int, path: bytes) -> bytes:
    try:
        return os.read(descriptor, 1 << 20)
    except OSError as error:
        raise translate_local_error(error, os.fsdecode(path)) from error


class Organizing:
    """One tree on its way into a library: decides about its files once the run holds the source they stand for."""

    def __init__(self, source: ImageSource, tree: Path, naming: Naming, library: ImageLibrary) -> None:
        self.tree_source = DownloadTree.of(source, tree)
        self.plan: Sequence[Placing] = ()
        self._source = source
        self._tree = tree
        self._naming = naming
        self._library = library

    def find_pages(self, run: IngestRun) -> Iterator[Page]:
        """Yield the files of the tree that are to be taken; they are never all that the source has."""
        catalog, source = self._library.catalog(), self._source
        self.plan = survey(self._tree, self._naming, self._library, source.source_name)
        make_due(catalog, run.ids.source_id, [placing.key for placing in self.plan if placing.is_due and placing.key])
        taken = (placing for placing in self.plan if placing.fate is Fate.TAKE)
        yield Page(make_listing(map(_list_file, taken)), is_last=False, is_start=False)

    def end(self, *, move: bool) -> Sequence[Placing]:
        """Return every file with what has become of it; with `move` the originals of what is stored are removed."""
        name = self._source.source_name
        ended = settle_fates(self.plan, _read_rows(self._library, name, self.plan))
        return remove(self._tree, Rows(ended), self._library, name) if move else ended


def _list_file(placing: Placing) -> RemoteFile:
    """Return the file as a row of a listing: without a time and validator, so that its source may list it as it is."""
    told = {
        "path": quote(placing.path),
        "local": placing.local.isoformat() if placing.local else None,
        "offset_minutes": placing.offset_minutes,
        "repeated_hour": placing.repeated_hour,
        "stream": placing.stream,
        "quality": placing.quality.value,
    }
    return RemoteFile(placing.key or "", placing.size, locator=json.dumps(told))


@task(task_run_name="survey {tree.name}", **OUTSIDE)
def survey(tree: Path, naming: Naming, library: ImageLibrary, source_name: str) -> Rows[Placing]:
    """Decide about every file below `tree` by its name, its bytes and the catalog; nothing is changed.

    Raises:
        LibraryUnavailable: the catalog did not answer.
    """
    plan = plan_for(tree, naming, library, source_name)
    get_run_logger().info("%s: %s", tree, ", ".join(f"{sum(p.fate is fate for p in plan)} {fate}" for fate in Fate))
    return Rows(plan)


def plan_for(tree: Path, naming: Naming, library: ImageLibrary, source_name: str) -> list[Placing]:
    """Return what is to become of every file below `tree` as things stand; where there is no library, none is made."""
    if not library.has_catalog:
        return plan_tree(tree, naming, lambda keys: {})
    catalog = library.catalog()
    ids = {row.name: row.id for row in read_sources(catalog)}
    if source_name not in ids:
        return plan_tree(tree, naming, lambda keys: {})
    return plan_tree(tree, naming, lambda keys: read_files(catalog, ids[source_name], keys))


@task(task_run_name="remove originals from {tree.name}", **INSIDE)
def remove(tree: Path, ended: Rows[Placing], library: ImageLibrary, source_name: str) -> Rows[Placing]:
    """Remove every original whose bytes the library is proven, by reading them again, to hold.

    Raises:
        LibraryUnavailable: catalog or storage did not answer; what was removed until then is safe.
    """
    catalog, storage = library.catalog(), library.storage()

    @cache
    def holds(sha256: str) -> bool:
        place = catalog.known_images([sha256]).get(sha256)
        try:
            return place is not None and storage.hash_object(place.storage_key) == sha256
        except LibraryRefused:  # there is no such object
            return False

    rows = _read_rows(library, source_name, ended)
    removed = Rows(remove_originals(tree, ended, rows, holds))
    get_run_logger().info("%s: %d originals removed", tree, sum(placing.is_removed for placing in removed))
    return removed


def _read_rows(library: ImageLibrary, source_name: str, files: Sequence[Placing]) -> dict[str, FileRow]:
    catalog = library.catalog()
    [source_id] = [row.id for row in read_sources(catalog) if row.name == source_name]
    return read_files(catalog, source_id, sorted({placing.key for placing in files if placing.key}))


def publish_organized(report: OrganizeReport, library: ImageLibrary) -> None:
    """Publish what became of a tree, or is to, as a markdown artifact, and what was done as a JSON file in the library.

    Raises:
        LibraryUnavailable, LibraryRefused: the storage can not be used.
    """
    if report.run_id is not None:
        text = f"{json.dumps(report.to_dict(), indent=1)}\n"
        key = f"{HIDDEN_FOLDER}/reports/{make_safe_segment(report.source)}/organized_run-{report.run_id}.json"
        library.storage().put_bytes(key, text.encode())
    told = [placing for placing in report.files if placing.why or report.run_id is None][:MAX_ROWS]
    rows = [(p.fate.value, escape_cell(p.name), escape_cell(p.key or ""), escape_cell(p.why or "")) for p in told]
    table = markdown_table(["decision", "path", "key", "why"], rows) if rows else ""
    with best_effort("the organized tree"):
        text = f"# {escape_cell(report.summary)}\n\n{table}"
        create_markdown_artifact(text, key=artifact_key("organized", report.source), description=report.summary)
