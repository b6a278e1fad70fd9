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
    catalog._database.write(lambda connection: connection.execute(moved))


def forget_image(catalog: Catalog, sha256: str) -> int:
    """Forget an image whose bytes are lost so that the next runs fetch it anew; return from how many files they can.

    Where no source still lists it nothing is changed: what is known of the image is then all that is left.
    """

    def write(connection: Connection) -> int:
        came_from = files.c.sha256 == sha256
        elsewhere = select(sources.c.id).where(sources.c.kind != KEPT_HERE)
        listed = [came_from, files.c.vanished_at.is_(None), files.c.source_id.in_(elsewhere)]
        count = int(connection.execute(select(func.count()).select_from(files).where(*listed)).scalar_one())
        if count:
            again = {"state": FileState.RETRY, "attempts": 0, "sha256": None}
            connection.execute(update(files).where(came_from).values(again))
            connection.execute(delete(images).where(images.c.sha256 == sha256))
        return count

    return catalog._database.write(write)
