"""What became of a tree's files, and the removal of those whose bytes the library is proven to hold."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from blocks._catalog_captures import FileRow
from blocks._records import Quality
from tasks._organize import Fate, Placing, hash_file, join_path


def settle_fates(plan: Iterable[Placing], rows: Mapping[str, FileRow]) -> list[Placing]:
    """Return the files of `plan` with what the catalog says has become of those that were to be taken."""
    return [_settle_fate(placing, rows.get(placing.key or "")) for placing in plan]


def _settle_fate(placing: Placing, row: FileRow | None) -> Placing:
    if placing.fate is not Fate.TAKE:
        return placing
    is_stand_in = row is not None and placing.quality is Quality.FULL and row.quality == Quality.THUMBNAIL
    if row is None or row.sha256 is None or is_stand_in:
        why = f"it was not stored ({row.reason})" if row and row.reason else "it was not stored"
        return replace(placing, fate=Fate.LEFT, why=why)
    return replace(placing, fate=Fate.TAKEN)


def remove_originals(
    tree: Path, ended: Iterable[Placing], rows: Mapping[str, FileRow], holds: Callable[[str], bool]
) -> Iterator[Placing]:
    """Remove each file whose bytes the library is proven to hold, and yield every file as it stands then.

    `holds` tells whether the library's storage, read now, has the bytes of a digest. Folders that become empty by it
    are removed too; those that were empty before stay.
    """
    emptied: set[bytes] = set()
    for placing in ended:
        if placing.fate is Fate.LEFT:
            yield placing
            continue
        objection = _find_objection(tree, placing, rows.get(placing.key or ""), holds)
        if objection is not None:
            yield replace(placing, why=objection)
            continue
        try:
            os.unlink(join_path(tree, placing.path))  # noqa: PTH108 - pathlib takes no bytes
        except OSError as error:
            yield replace(placing, why=f"it can not be removed ({error.strerror})")
            continue
        emptied.add(placing.path.rpartition(b"/")[0])
        yield replace(placing, is_removed=True)
    _remove_emptied(tree, emptied)


def _find_objection(tree: Path, placing: Placing, row: FileRow | None, holds: Callable[[str], bool]) -> str | None:
    """Return why the file must not be removed; None where the library has its bytes."""
    if row is None or row.sha256 is None:
        return "the library does not have it"
    hashed = hash_file(tree, placing)
    if hashed.sha256 is None:
        return hashed.why
    if hashed.sha256 != row.sha256:
        return "it is not what the library has under its name"
    return None if holds(row.sha256) else "the library does not hold its bytes as it should: catchment verify"


def _remove_emptied(tree: Path, folders: set[bytes]) -> None:
    for folder in sorted(folders, key=len, reverse=True):
        above = folder
        with suppress(OSError):  # it is not empty
            while above:
                os.rmdir(join_path(tree, above))  # noqa: PTH106 - pathlib takes no bytes
                above = above.rpartition(b"/")[0]
