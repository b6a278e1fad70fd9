"""What is to become of a tree of downloads: which files go where in the library, and which stay, and why.

Links are never followed; a file is only ever read, until it is proven that the library holds its bytes.
"""

import os
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

from blocks._catalog_captures import FileRow
from blocks._errors import WrongUse
from blocks._layout import with_short_hash
from blocks._records import Quality
from blocks._remote import is_passed_over
from blocks._schema import FileState
from blocks._storage import hash_stream
from blocks._terminal_addresses import find_instants, find_offset, parse_picture_address, picture_key
from blocks.library import ImageLibrary
from tasks._gaps import learn_cadence, settle_instants

_MARK = re.compile(r"(?:~[0-9a-f]{8,64}| ?\(\d{1,3}\))(?=\.\w+$)", re.ASCII)
"""What a library and a browser put behind a name that was taken."""


_STORED_THUMBNAIL = re.compile(rf"_{Quality.THUMBNAIL}(?=\.\w+$)", re.ASCII)
"""How a library marks a thumbnail."""


class Fate(StrEnum):
    """What becomes of a file: `take` is to bring it into the library, `taken` has; `here`: the library has its bytes
    already; `left` leaves it alone.
    """

    TAKE = "take"
    TAKEN = "taken"
    HERE = "here"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Placing:
    """A file of the tree and what is to become of it.

    `path`: relative to the tree, as the disk spells it. `key`: of the picture at its source; None where it is left.
    `local`, `offset_minutes`, `stream`, `quality`: what its name says; `repeated_hour`: how one of two instants was
    chosen that its name may mean. `sha256`: hex, where it had to be known.
    `is_due`: the catalog knows its key, and has to be told to take it all the same. `is_removed`: it is gone from here.
    """

    path: bytes
    fate: Fate
    why: str | None = None
    size: int = 0
    key: str | None = None
    local: datetime | None = None
    offset_minutes: int | None = None
    repeated_hour: str | None = None
    stream: str | None = None
    quality: Quality = Quality.FULL
    sha256: str | None = None
    is_due: bool = False
    is_removed: bool = False

    @property
    def name(self) -> str:
        """Return the path as text."""
        return os.fsdecode(self.path)

    def to_dict(self) -> dict[str, Any]:
        """Return what people are shown."""
        return {
            "decision": self.fate.value,
            "path": self.name,
            "key": self.key,
            "size": self.size,
            "is_removed": self.is_removed,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class OrganizeReport:
    """What became of a tree of downloads, or with `run_id` None what is to; `files` in the order of their paths."""

    source: str
    folder: str
    is_move: bool
    files: Sequence[Placing]
    run_id: int | None = None
    message: str | None = None

    def count(self, fate: Fate) -> int:
        """Return how many files have that fate."""
        return sum(placing.fate is fate for placing in self.files)

    @property
    def summary(self) -> str:
        """Return one line for people."""
        if self.message is not None:
            return self.message
        if self.run_id is None:
            verb = "moved" if self.is_move else "copied"
            told = f"{self.count(Fate.TAKE)} of {len(self.files)} files would be {verb} into {self.source}"
        else:
            told = f"{self.count(Fate.TAKEN)} of {len(self.files)} files were taken into {self.source}"
        told += f", {self.count(Fate.HERE)} are there already, {self.count(Fate.LEFT)} stay as they are"
        removed = sum(placing.is_removed for placing in self.files)
        return f"{told}; {removed} originals removed" if removed else told

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        return {
            "source": self.source,
            "folder": self.folder,
            "run_id": self.run_id,
            "is_move": self.is_move,
            "counts": {fate.value: self.count(fate) for fate in Fate},
            "removed": sum(placing.is_removed for placing in self.files),
            "message": self.message,
            "files": [placing.to_dict() for placing in self.files],
        }


@dataclass(frozen=True, slots=True)
class Naming:
    """How pictures are named: the zone of their wall clock, what marks a thumbnail, and which suffixes are images'."""

    zone: ZoneInfo
    thumbnail_suffix: str
    suffixes: Sequence[str]


Known = Callable[[Sequence[str]], Mapping[str, FileRow]]
"""Tells how those of the keys stand that the catalog knows."""


def check_tree(folder: Path, library: ImageLibrary) -> Path:
    """Return the folder of downloads, or raise where it is none, or is entangled with the library.

    Raises:
        WrongUse: it is no folder, lies in the library, or the library lies in it.
    """
    tree, home = folder.expanduser().resolve(), library.folder.expanduser().resolve()
    if not tree.is_dir():
        raise WrongUse(f"There is no folder {folder} to organize.")
    if tree.is_relative_to(home):
        raise WrongUse(f"{tree} lies in the library {home}: organize another folder, or name another library.")
    if home.is_relative_to(tree):
        raise WrongUse(f"The library {home} lies in {tree}: name the folders of downloads in it, or another library.")
    return tree


def plan_tree(tree: Path, naming: Naming, known: Known) -> list[Placing]:
    """Decide about every file below `tree`, in the order of their paths; nothing is changed.

    Files of one name and time are one picture if their bytes agree; else each but one gets a key marked with its
    hash, the same in every run. Of a picture that is here in full no thumbnail is taken.
    """
    named = _settle_offsets([_read_name(found, naming) for found in walk_tree(tree)], naming.zone)
    groups: defaultdict[str, list[Placing]] = defaultdict(list)
    decided = [placing for placing in named if placing.key is None]
    for placing in named:
        if placing.key is not None:
            groups[placing.key].append(placing)
    rows = known(list(groups))
    marked: list[Placing] = []
    for key, group in groups.items():
        decided += _leave_thumbnails(group, rows.get(key))
        wanted = _choose(group, rows.get(key))
        plain, other = _tell_apart(tree, key, wanted, rows.get(key))
        decided += plain
        marked += other
    rows = known([placing.key for placing in marked if placing.key])
    decided += (_compare_marked(placing, rows.get(placing.key or "")) for placing in marked)
    return sorted(decided, key=lambda placing: placing.path)


def walk_tree(tree: Path) -> Iterator[Placing]:
    """Yield every entry below `tree` that is no folder; those that can not be taken with the reason why."""
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(join_path(tree, folder)) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            yield Placing(folder or b".", Fate.LEFT, f"it can not be read ({error.strerror})")
            continue
        for entry in entries:
            path = folder + b"/" + entry.name if folder else entry.name
            if entry.is_symlink():
                yield Placing(path, Fate.LEFT, "it is a link, which is not followed")
            elif is_passed_over(os.fsdecode(entry.name)):
                yield Placing(path, Fate.LEFT, "it is hidden or unfinished by its name")
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            else:
                yield _look_at(path, entry)


def _look_at(path: bytes, entry: os.DirEntry[bytes]) -> Placing:
    try:
        facts = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Placing(path, Fate.LEFT, f"it can not be read ({error.strerror})")
    if not stat.S_ISREG(facts.st_mode):
        return Placing(path, Fate.LEFT, "it is no file")
    return Placing(path, Fate.TAKE, size=facts.st_size)


def _read_name(found: Placing, naming: Naming) -> Placing:
    if found.fate is Fate.LEFT:
        return found
    name = _MARK.sub("", found.name.rpartition("/")[2])
    name = _STORED_THUMBNAIL.sub(naming.thumbnail_suffix, name) if naming.thumbnail_suffix else name
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    if suffix not in naming.suffixes:
        return replace(found, fate=Fate.LEFT, why="it is no image by its name")
    address = parse_picture_address(name, naming.thumbnail_suffix)
    if address is None:
        return replace(found, fate=Fate.LEFT, why="its name tells no time and stream")
    return replace(
        found,
        key=picture_key(address.local, address.stream, "jpg" if suffix == "jpeg" else suffix),
        local=address.local,
        stream=address.stream,
        quality=Quality.THUMBNAIL if address.is_thumbnail else Quality.FULL,
    )


def _settle_offsets(named: Sequence[Placing], zone: ZoneInfo) -> list[Placing]:
    """Return the files with the offset of their wall clock; in an hour that came twice their spacing tells which."""
    times: defaultdict[str, set[datetime]] = defaultdict(set)
    for placing in named:
        if placing.stream is not None and placing.local is not None:
            times[placing.stream].add(placing.local)
    settled: dict[tuple[str, datetime], datetime] = {}
    for stream, locals_ in times.items():
        cadence = learn_cadence(sorted(settle_instants(locals_, [], zone, None).values()))
        instants = settle_instants(locals_, [], zone, cadence)
        settled.update(((stream, local), instant) for local, instant in instants.items())
    return [
        placing
        if placing.stream is None or placing.local is None
        else _date(placing, settled[placing.stream, placing.local], zone)
        for placing in named
    ]


def _date(placing: Placing, instant: datetime, zone: ZoneInfo) -> Placing:
    """Return the file with its offset: none where clocks were put forward over its time."""
    means = find_instants(placing.local, zone) if placing.local else []
    repeated = None if len(means) < 2 else "assumed" if instant == means[0] else "spacing"
    return replace(placing, offset_minutes=find_offset(instant, zone) if means else None, repeated_hour=repeated)


def _leave_thumbnails(group: Sequence[Placing], row: FileRow | None) -> list[Placing]:
    """Return the thumbnails of a picture that is here, or in the tree, in full."""
    is_here = row is not None and row.sha256 is not None and row.quality == Quality.FULL
    if not is_here and all(placing.quality is Quality.THUMBNAIL for placing in group):
        return []
    why = "it is the thumbnail of a picture that is there in full"
    return [replace(p, fate=Fate.LEFT, why=why) for p in group if p.quality is Quality.THUMBNAIL]


def _choose(group: Sequence[Placing], row: FileRow | None) -> list[Placing]:
    """Return the files of one picture that are to be looked at: those in full, or the thumbnails if that is all."""
    full = [placing for placing in group if placing.quality is Quality.FULL]
    return full or ([] if _leave_thumbnails(group, row) else list(group))


def _tell_apart(
    tree: Path, key: str, group: Sequence[Placing], row: FileRow | None
) -> tuple[list[Placing], list[Placing]]:
    """Decide about the files that claim one key; return those decided, and those that get a marked key."""
    if len(group) == 1 and (row is None or row.sha256 is None):
        return [_decide_lone(group[0], row)], []
    decided: list[Placing] = []
    alike: defaultdict[str, list[Placing]] = defaultdict(list)
    for placing in sorted(group, key=lambda each: each.path):
        hashed = hash_file(tree, placing)
        if hashed.sha256 is None:
            decided.append(hashed)
        else:
            alike[hashed.sha256].append(hashed)
    known = None if row is None else row.sha256
    is_stand_in = row is not None and row.quality == Quality.THUMBNAIL and group[0].quality is Quality.FULL
    owner = known if known and not is_stand_in else next(iter(alike), None)
    apart: list[Placing] = []
    for sha256, (first, *copies) in alike.items():
        own_key = key if sha256 in {known, owner} else with_short_hash(key, sha256)
        if sha256 == known:
            decided.append(replace(first, fate=Fate.HERE, why="the library has it"))
        elif sha256 == owner:
            decided.append(replace(first, is_due=row is not None))
        else:
            apart.append(replace(first, key=own_key, why="other bytes have its name"))
        why = f"its bytes are those of {first.name}"
        decided += (replace(copy, fate=Fate.HERE, key=own_key, why=why) for copy in copies)
    return decided, apart


def _decide_lone(placing: Placing, row: FileRow | None) -> Placing:
    """Decide about a file whose key no image has."""
    if row is not None and row.state == FileState.QUARANTINED and row.size == placing.size:
        return replace(placing, fate=Fate.LEFT, why=f"it was refused before: {row.reason}")
    return replace(placing, is_due=row is not None)


def _compare_marked(placing: Placing, row: FileRow | None) -> Placing:
    if row is None or row.sha256 is None:
        return _decide_lone(placing, row)
    if row.sha256 == placing.sha256:
        return replace(placing, fate=Fate.HERE, why="the library has it")
    return replace(placing, fate=Fate.LEFT, why=f"other bytes have its name and {placing.key} too")


def hash_file(tree: Path, placing: Placing) -> Placing:
    """Return the file with its SHA-256; left where it can not be read."""
    try:
        with open_plain(tree, placing.path) as file:
            return replace(placing, sha256=hash_stream(file))
    except OSError as error:
        return replace(placing, fate=Fate.LEFT, why=f"it can not be read ({error.strerror})")


def open_plain(tree: Path, path: bytes) -> BinaryIO:
    """Open the file at `path` below `tree` for reading, and no link in its place.

    Raises:
        OSError: it can not be opened, or is a link.
    """
    return os.fdopen(os.open(join_path(tree, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0)


def join_path(tree: Path, path: bytes) -> bytes:
    """Return the place of `path` below `tree` as the disk spells it."""
    return os.path.join(os.fsencode(tree), path)  # noqa: PTH118 - pathlib takes no bytes
