"""Putting a processed batch into the library: files first, the catalog after, so that a kill leaves at worst a file
that the next run adopts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from blocks._catalog import Catalog
from blocks._errors import CatchmentError, KeyRefused, Reason
from blocks._layout import make_thumbnail_key, render_layout, with_mark
from blocks._records import Outcome, Quality, Verdict
from blocks._storage import Incoming, Storage
from blocks.library import ImageLibrary
from blocks.source import ImageSource
from tasks._download import is_silence
from tasks._process import AcceptedFile, Processed


@dataclass(frozen=True, slots=True)
class RunIds:
    """Where a run's outcomes belong in the catalog."""

    run_id: int
    source_id: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a batch: files by verdict, bytes that came, and how many files nobody answered for."""

    counts: dict[str, int]
    size: int
    unanswered: int

    @property
    def files(self) -> int:
        """Return how many files were dealt with."""
        return sum(self.counts.values())


def store_batch(
    processed: Processed, source: ImageSource, library: ImageLibrary, ids: RunIds, *, now: datetime
) -> Stored:
    """Put accepted files into the library and every outcome into the catalog; harmless to repeat.

    Bytes the catalog knows already are stored no second time; their file becomes one more place where they were seen.

    Raises:
        LibraryUnavailable: storage or catalog did not answer.
        LibraryRefused: storage or catalog can not be used; either way no file is judged, and the next run takes them.
    """
    catalog, storage = library.catalog(), library.storage()
    for rejected in processed.rejected:
        if rejected.path.exists():  # else an earlier try of this task has moved it
            library.quarantine(rejected.path, rejected.outcome.file.key, rejected.outcome.reason or "rejected")
    outcomes = [
        *_store_accepted(processed.accepted, source, catalog, storage, ids),
        *processed.ended,
        *(item.outcome for item in processed.rejected),
    ]
    recorded = catalog.record_outcomes(ids.run_id, ids.source_id, outcomes, now=now)
    _remove_losers(outcomes, recorded, storage)
    for accepted in processed.accepted:
        accepted.path.unlink(missing_ok=True)
        accepted.thumbnail.unlink(missing_ok=True)
    return Stored(
        counts={verdict.value: sum(end.verdict is verdict for end in recorded) for verdict in Verdict},
        size=sum(end.size for end in recorded),
        unanswered=sum(is_silence(end.reason) for end in recorded),
    )


def _store_accepted(
    accepted: Sequence[AcceptedFile], source: ImageSource, catalog: Catalog, storage: Storage, ids: RunIds
) -> Iterator[Outcome]:
    known = catalog.known_images({item.facts.sha256 for item in accepted})
    firsts = {item.facts.sha256: item for item in reversed(accepted) if item.facts.sha256 not in known}
    arrivals = [
        Incoming(
            source=item.path,
            key=_choose_place(item, source),
            sha256=item.facts.sha256,
            size=item.facts.size,
            modified=item.modified,
            content_type=f"image/{item.facts.format}",
            metadata=_describe(item, ids),
        )
        for item in firsts.values()
    ]
    placed: dict[str, str | KeyRefused] = {}
    for sha256, result in zip(firsts, storage.put_files(arrivals), strict=True):
        if isinstance(result, CatchmentError) and not isinstance(result, KeyRefused):
            raise result  # the library's fault, which no file is charged with
        placed[sha256] = result
    kept = [sha256 for sha256, key in placed.items() if isinstance(key, str)]
    storage.put_many({make_thumbnail_key(sha256): firsts[sha256].thumbnail for sha256 in kept})
    for item in accepted:
        sha256 = item.facts.sha256
        is_first = firsts.get(sha256) is item
        key = known[sha256].storage_key if sha256 in known else placed[sha256]
        if isinstance(key, KeyRefused):
            yield Outcome(item.file, Verdict.FAILED, Reason.STORAGE, str(key), sha256, item.facts.size)
            continue
        yield Outcome(
            file=item.file,
            verdict=Verdict.STORED if is_first else Verdict.DUPLICATE,
            sha256=sha256,
            size=item.facts.size,
            facts=item.facts,
            storage_key=key,
            thumbnail_key=make_thumbnail_key(sha256),
            warning=item.warning,
        )


def _describe(item: AcceptedFile, ids: RunIds) -> dict[str, str]:
    """Return what a bucket notes of an image, so that it tells its origin without the catalog, too."""
    captured = item.facts.captured
    zone = None if captured.offset_minutes is None else timezone(timedelta(minutes=captured.offset_minutes))
    told = {
        "name": item.file.name,
        "captured": captured.local.replace(tzinfo=zone).isoformat(),
        "camera": item.facts.camera,
        "request": str(ids.run_id),
    }
    return {name: text for name, text in told.items() if text}


def _choose_place(item: AcceptedFile, source: ImageSource) -> str:
    place = render_layout(
        source.layout,
        source=source.folder_name,
        key=item.file.key,
        name=item.file.name,
        captured=item.facts.captured.local,
        camera=item.facts.camera,
        sha256=item.facts.sha256,
        format=item.facts.format,
    )
    return place if item.facts.quality is Quality.FULL else with_mark(place, f"_{item.facts.quality}")


def _remove_losers(ours: Sequence[Outcome], recorded: Sequence[Outcome], storage: Storage) -> None:
    """Remove what the catalog no longer refers to: stand-ins for a picture that came in full, and files of images that
    another writer catalogued under another key while we stored them.
    """
    for mine, theirs in zip(ours, recorded, strict=True):
        lost = mine.verdict is Verdict.STORED and theirs.verdict is Verdict.DUPLICATE
        if lost and mine.storage_key and mine.storage_key != theirs.storage_key:
            storage.delete(mine.storage_key)
        for key in theirs.superseded:
            storage.delete(key)
