"""Hold the library against its catalog: what is missing, altered, orphaned or without a thumbnail, and mend it.

Both are walked page by page, so that a library of any size is checked in flat memory. A run that is storing at this
moment may show its newest files as orphaned: adopting them is harmless, as the run then finds them adopted.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Any, TypeVar

from blocks._catalog_queries import iter_stored_images
from blocks._catalog_upkeep import (
    KEPT_HERE,
    count_images,
    count_listed_places,
    find_unknown_keys,
    forget_image,
    relink_image,
)
from blocks._errors import CatchmentError, LibraryRefused, LibraryUnavailable, Reason
from blocks._layout import make_thumbnail_key
from blocks._records import Outcome, RemoteFile, Verdict
from blocks._schema import RunStatus
from blocks._storage import CHUNK_BYTES, Stored, translate_disk
from blocks.library import ImageLibrary
from tasks._image import BadImage, Inspection, inspect_image

T = TypeVar("T")

_PAGE = 1_000
_READERS = 4
_MOST_ADOPTED_BYTES = 500_000_000


class Problem(StrEnum):
    """What can be wrong with one file of a library."""

    MISSING = "missing"
    ALTERED = "altered"
    UNREADABLE = "unreadable"
    ORPHANED = "orphaned"
    NO_THUMBNAIL = "no_thumbnail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; `repair` tells what was done about it, None that it still is wrong."""

    problem: Problem
    key: str
    sha256: str | None = None
    message: str | None = None
    repair: str | None = None


@dataclass(slots=True)
class VerifyReport:
    """What a check came to; `examples` are the first findings."""

    images: int = 0
    found: dict[str, int] = field(default_factory=lambda: {problem.value: 0 for problem in Problem})
    repaired: int = 0
    examples: list[Finding] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Tell whether nothing is wrong any more."""
        return sum(self.found.values()) == self.repaired

    @property
    def summary(self) -> str:
        """Return one line for people."""
        told = ", ".join(f"{count} {problem.replace('_', ' ')}" for problem, count in self.found.items() if count)
        mended = f"; {self.repaired} repaired" if self.repaired else ""
        return f"{self.images} images checked: {told or 'all is well'}{mended}"

    def add(self, finding: Finding, most_examples: int = 100) -> None:
        """Count `finding`."""
        self.found[finding.problem] += 1
        self.repaired += finding.repair is not None
        if len(self.examples) < most_examples:
            self.examples.append(finding)


class Verifier:
    """One check of a library, with or without repair.

    `quick` compares sizes only; otherwise every byte is read and hashed. `now`: aware. `on_checked` hears how many
    images more were checked.
    """

    def __init__(
        self,
        library: ImageLibrary,
        *,
        quick: bool = False,
        repair: bool = False,
        now: datetime,
        on_checked: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._library = library
        self._catalog = library.catalog()
        self._storage = library.storage()
        self._quick = quick
        self._repair = repair
        self._now = now
        self._on_checked = on_checked

    @property
    def total(self) -> int:
        """Return how many images there are to check."""
        return count_images(self._catalog)

    def findings(self) -> Iterator[Finding]:
        """Yield whatever is wrong, mended already where `repair` asks for it and it can be.

        Orphans come first: a file that someone moved is then found again before it is missed.

        Raises:
            LibraryUnavailable: storage or catalog does not answer; calling again is harmless.
        """
        yield from self._check_orphans()
        with ThreadPoolExecutor(_READERS, thread_name_prefix="verify") as readers:
            for page in _pages(iter_stored_images(self._catalog)):
                for row, finding in zip(page, readers.map(self._check_image, page), strict=True):
                    if finding is not None:
                        yield self._mend(finding, row) if self._repair else finding
                self._on_checked(len(page))

    def _check_image(self, row: dict[str, Any]) -> Finding | None:
        key, sha256 = row["storage_key"], row["sha256"]
        try:
            stored = self._storage.stat(key)
            if stored is None:
                return Finding(Problem.MISSING, key, sha256)
            if stored.size != row["size"]:
                return Finding(Problem.ALTERED, key, sha256, f"{stored.size:,} bytes where {row['size']:,} were stored")
            if not self._quick and (found := self._storage.hash_object(key)) != sha256:
                return Finding(Problem.ALTERED, key, sha256, f"its bytes hash to {found}")
            if row["thumbnail_key"] and _is_empty(self._storage.stat(row["thumbnail_key"])):
                return Finding(Problem.NO_THUMBNAIL, key, sha256)
        except LibraryRefused as error:
            return Finding(Problem.UNREADABLE, key, sha256, str(error))
        return None

    def _mend(self, finding: Finding, row: dict[str, Any]) -> Finding:
        try:
            if finding.problem is Problem.NO_THUMBNAIL:
                seen = self._inspect(finding.key, row["sha256"])
                self._storage.put_bytes(row["thumbnail_key"], seen.thumbnail)
                return replace(finding, repair="drawn anew")
            if finding.problem is Problem.ALTERED:
                return self._set_aside(finding)
            if finding.problem is Problem.MISSING:
                return self._have_fetched(finding)
        except LibraryUnavailable:
            raise
        except (CatchmentError, BadImage) as error:
            return replace(finding, message=str(error))
        return finding

    def _set_aside(self, finding: Finding) -> Finding:
        """Quarantine an altered image that can be fetched again; one that can not stays: it is the only copy."""
        if not count_listed_places(self._catalog, _digest_of(finding)):
            return _tell_lost(finding)
        copy = self._library.staging_folder("verify") / hashlib.sha256(finding.key.encode()).hexdigest()
        try:
            with self._storage.open(finding.key) as altered, copy.open("wb") as out:
                while chunk := altered.read(CHUNK_BYTES):
                    out.write(chunk)
        except OSError as error:
            raise translate_disk(error, f"a copy of {finding.key}") from error
        kept = self._library.quarantine(copy, finding.key, Reason.DIGEST_MISMATCH)
        self._storage.delete(finding.key)
        return self._have_fetched(replace(finding, message=f"{finding.message}; kept as {kept}"))

    def _have_fetched(self, finding: Finding) -> Finding:
        if count := forget_image(self._catalog, _digest_of(finding)):
            return replace(finding, repair=f"will be fetched again from {count} {'file' if count == 1 else 'files'}")
        return _tell_lost(finding)

    def _check_orphans(self) -> Iterator[Finding]:
        run: tuple[int, int] | None = None
        for page in _pages(self._storage.list_keys()):
            sizes = dict(page)
            for key in find_unknown_keys(self._catalog, list(sizes)):
                finding = Finding(Problem.ORPHANED, key)
                if self._repair:
                    run = run or self._begin_run()
                    finding = self._adopt(finding, sizes[key], *run)
                yield finding
        if run:
            self._catalog.finish_run(run[0], RunStatus.SUCCESS, now=self._now)

    def _begin_run(self) -> tuple[int, int]:
        source_id = self._catalog.ensure_source(KEPT_HERE, KEPT_HERE, self._library.location, now=self._now)
        return self._catalog.begin_run(source_id, now=self._now, kind="verify"), source_id

    def _adopt(self, orphan: Finding, size: int, run_id: int, source_id: int) -> Finding:
        """Let the catalog know a file that lies in the library, unless it is a second copy or no image."""
        if size > _MOST_ADOPTED_BYTES:
            return replace(orphan, message="it is too large to be an image of ours")
        try:
            sha256 = self._storage.hash_object(orphan.key)
            known = self._catalog.known_images([sha256]).get(sha256)
            if known and self._storage.stat(known.storage_key) is None:
                relink_image(self._catalog, sha256, orphan.key)
                return replace(orphan, sha256=sha256, repair=f"it is {known.storage_key}, moved here")
            if known:
                return replace(orphan, sha256=sha256, message=f"a second copy of {known.storage_key}; one may go")
            seen = self._inspect(orphan.key, sha256)
            thumbnail_key = make_thumbnail_key(sha256)
            self._storage.put_bytes(thumbnail_key, seen.thumbnail)
        except LibraryUnavailable:
            raise
        except (CatchmentError, BadImage) as error:
            return replace(orphan, message=str(error))
        adopted = Outcome(
            file=RemoteFile(orphan.key, size),
            verdict=Verdict.STORED,
            sha256=sha256,
            size=size,
            facts=seen.facts,
            storage_key=orphan.key,
            thumbnail_key=thumbnail_key,
        )
        self._catalog.record_outcomes(run_id, source_id, [adopted], now=self._now)
        return replace(orphan, sha256=sha256, repair="adopted")

    def _inspect(self, key: str, sha256: str) -> Inspection:
        content = self._storage.read_bytes(key)
        return inspect_image(content, key=key, sha256=sha256, modified=None, arrived=self._now)


def verify_library(verifier: Verifier) -> VerifyReport:
    """Return what a check of the whole library comes to."""
    report = VerifyReport(images=verifier.total)
    for finding in verifier.findings():
        report.add(finding)
    return report


def _is_empty(thumbnail: Stored | None) -> bool:
    """Tell whether there is no thumbnail; one of 0 bytes is what a power cut leaves."""
    return thumbnail is None or thumbnail.size == 0


def _digest_of(finding: Finding) -> str:
    assert finding.sha256 is not None, "an image of the catalog is known by its digest"  # noqa: S101
    return finding.sha256


def _tell_lost(finding: Finding) -> Finding:
    lost = "no source lists it any more, so it can not be fetched again"
    return replace(finding, message=f"{finding.message}; {lost}" if finding.message else lost)


def _pages(items: Iterable[T]) -> Iterator[Sequence[T]]:
    iterator = iter(items)
    while page := list(islice(iterator, _PAGE)):
        yield page
