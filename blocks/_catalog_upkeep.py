"""What the upkeep of a library asks of its catalog, and the corrections it makes there."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, ScalarSelect, case, delete, func, select, update

from blocks._catalog import Catalog
from blocks._database import chunks_of
from blocks._schema import FileState, files, images, sources

KEPT_HERE = "library"
"""Kind and name of the source of images that were found in the library itself; nothing can be fetched from it."""


def count_images(catalog: Catalog) -> int:
    """Return how many images the catalog knows."""
    with catalog.reading() as connection:
        return int(connection.execute(select(func.count()).select_from(images)).scalar_one())


def find_unknown_keys(catalog: Catalog, storage_keys: Sequence[str]) -> list[str]:
    """Return those of `storage_keys` under which the catalog knows no image, in order."""
    known: set[str] = set()
    with catalog.reading() as connection:
        for few in chunks_of(storage_keys):
            known.update(connection.scalars(select(images.c.storage_key).where(images.c.storage_key.in_(few))))
    return [key for key in storage_keys if key not in known]


def relink_image(catalog: Catalog, sha256: str, storage_key: str) -> None:
    """Note that the image's bytes now lie under `storage_key`."""
    moved = update(images).where(images.c.sha256 == sha256).values(storage_key=storage_key)
    catalog.write(lambda connection: connection.execute(moved))


def count_listed_places(catalog: Catalog, sha256: str) -> int:
    """Return how many files that a source still lists the image came from: it can be fetched again from each."""
    with catalog.reading() as connection:
        return _count_listed_places(connection, sha256)


def forget_image(catalog: Catalog, sha256: str) -> int:
    """Forget an image whose bytes are lost so that the next runs fetch it anew; return from how many files they can.

    Where no source still lists it nothing is changed: what is known of the image is then all that is left.
    """

    def write(connection: Connection) -> int:
        count = _count_listed_places(connection, sha256)
        if count:
            again = {"state": FileState.RETRY, "attempts": 0, "sha256": None}
            connection.execute(update(files).where(files.c.sha256 == sha256).values(again))
            connection.execute(delete(images).where(images.c.sha256 == sha256))
        return count

    return catalog.write(write)


def _count_listed_places(connection: Connection, sha256: str) -> int:
    elsewhere = select(sources.c.id).where(sources.c.kind != KEPT_HERE)
    listed = [files.c.sha256 == sha256, files.c.vanished_at.is_(None), files.c.source_id.in_(elsewhere)]
    return int(connection.execute(select(func.count()).select_from(files).where(*listed)).scalar_one())


class Expired(NamedTuple):
    """An image that is older than it was to be kept; `others`: how many further sources it was also seen in."""

    sha256: str
    storage_key: str
    thumbnail_key: str | None
    size: int
    captured_local: datetime
    others: int


def find_expired(catalog: Catalog, camera: str, cutoff: datetime) -> list[Expired]:
    """Return the images of `camera`, by that exact name, that were taken before `cutoff` (aware), oldest first.

    A capture whose zone is unknown counts as old when it is so in every zone.
    """
    naive = cutoff.astimezone(UTC).replace(tzinfo=None)
    is_old = case(
        (images.c.captured_utc.is_not(None), images.c.captured_utc < cutoff),
        else_=images.c.captured_local < naive - timedelta(hours=12),  # UTC-12 is the last to see a day end
    )
    query = (
        select(
            *(images.c[name] for name in ("sha256", "storage_key", "thumbnail_key", "size", "captured_local")),
            _count_sources() - 1,
        )
        .where(images.c.camera == camera, is_old)
        .order_by(images.c.captured_local, images.c.sha256)
    )
    with catalog.reading() as connection:
        return [Expired(*row) for row in connection.execute(query)]


def expire_images(catalog: Catalog, sha256s: Sequence[str], message: str) -> set[str]:
    """Take images out of the catalog for good, and return which: those that no other source refers to.

    Their files stay known as expired, with `message`, so that no run fetches them again.
    """

    def write(connection: Connection) -> set[str]:
        mine = images.c.sha256.in_(sha256s) & (_count_sources() <= 1)
        going = list(connection.scalars(select(images.c.sha256).where(mine)))
        ended = {"state": FileState.EXPIRED, "sha256": None, "reason": None, "message": message}
        connection.execute(update(files).where(files.c.sha256.in_(going)).values(ended))
        return set(connection.scalars(delete(images).where(images.c.sha256.in_(going)).returning(images.c.sha256)))

    return catalog.write(write)


def _count_sources() -> ScalarSelect[int]:
    return select(func.count(files.c.source_id.distinct())).where(files.c.sha256 == images.c.sha256).scalar_subquery()
