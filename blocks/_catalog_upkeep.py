"""What the upkeep of a library asks of its catalog, and the corrections it makes there."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, select, update

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
