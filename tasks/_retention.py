"""Remove what was kept as long as it was asked for: object and row together, and never what someone else also has."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from blocks._catalog_upkeep import KEPT_HERE, Expired, expire_images, find_expired, find_unknown_keys
from blocks._database import chunks_of
from blocks._layout import HIDDEN_FOLDER
from blocks._storage import Storage
from blocks.library import ImageLibrary
from tasks._lease import hold_lease

_JOURNAL = f"{HIDDEN_FOLDER}/expiring.json"
_WAIT = timedelta(minutes=2)
MAX_EXAMPLES = 100


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What a retention came to; `removed` images and `bytes`, `kept` because another source also refers to them.

    `is_rehearsal`: nothing was touched, and `removed` is what would go. `examples`: the oldest of them.
    """

    camera: str
    cutoff: datetime
    is_rehearsal: bool
    removed: int
    bytes: int
    kept: int
    examples: Sequence[Expired]

    @property
    def summary(self) -> str:
        """Return one line for people."""
        verb = "would go" if self.is_rehearsal else "removed"
        kept = f"; {self.kept} stay, as another source has them too" if self.kept else ""
        day = self.cutoff.isoformat(timespec="minutes").replace("+00:00", "Z")
        return f"{self.camera}: {self.removed} images from before {day} {verb}, {self.bytes:,} bytes{kept}"


def expire(library: ImageLibrary, camera: str, *, days: int, now: datetime, is_rehearsal: bool) -> RetentionReport:
    """Remove the images that `camera`, by that exact name, took more than `days` days before `now` (aware).

    The rows go first, so that nothing can come to refer to an image that is going; what is going is written down
    before, so that a killed run's objects are removed by the next.

    Raises:
        AlreadyRunning: another retention of this library is under way.
        LibraryUnavailable: storage or catalog did not answer; calling again goes on.
    """
    catalog, cutoff = library.catalog(), now - timedelta(days=days)
    old = find_expired(catalog, camera, cutoff)
    alone = [image for image in old if not image.others]
    removed = alone
    if not is_rehearsal:
        source_id = catalog.ensure_source(KEPT_HERE, KEPT_HERE, library.location, now=now)
        with hold_lease(catalog, source_id, f"the retention of {library.location}", wait=_WAIT):
            removed = list(_remove(library, alone, f"expired: taken more than {days} days before {now:%Y-%m-%d}"))
    return RetentionReport(
        camera=camera,
        cutoff=cutoff,
        is_rehearsal=is_rehearsal,
        removed=len(removed),
        bytes=sum(image.size for image in removed),
        kept=len(old) - len(removed),
        examples=removed[:MAX_EXAMPLES],
    )


def _remove(library: ImageLibrary, images: Sequence[Expired], message: str) -> Iterator[Expired]:
    catalog, storage = library.catalog(), library.storage()
    _finish_killed_run(library, storage)
    for batch in chunks_of(images):
        places = {image.sha256: _places(image) for image in batch}
        storage.put_bytes(_JOURNAL, json.dumps(list(places.values())).encode())
        gone = expire_images(catalog, list(places), message)
        _delete_unknown(library, storage, [places[sha256] for sha256 in gone])
        yield from (image for image in batch if image.sha256 in gone)
    storage.delete(_JOURNAL)


def _finish_killed_run(library: ImageLibrary, storage: Storage) -> None:
    if storage.stat(_JOURNAL) is None:
        return
    _delete_unknown(library, storage, json.loads(storage.read_bytes(_JOURNAL)))


def _places(image: Expired) -> list[str]:
    return [key for key in (image.storage_key, image.thumbnail_key) if key]


def _delete_unknown(library: ImageLibrary, storage: Storage, places: Sequence[Sequence[str]]) -> None:
    """Delete objects, each only if the catalog still knows none there: the same bytes may have been stored anew."""
    for keys in places:
        if find_unknown_keys(library.catalog(), keys[:1]):
            for key in keys:
                storage.delete(key)
