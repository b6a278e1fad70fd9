"""The records that cross the floors: what a source lists, and what was fetched from it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeAlias, TypeVar, overload

import polars as pl

from blocks._errors import Reason

Listing: TypeAlias = pl.DataFrame
"""One row a file, columns as in `LISTING_SCHEMA`, keys unique. Columnar because a source may hold a million files.

`key`: identity within its source: relative, "/"-separated, can not escape. `size`: bytes, exact, or null.
`modified`: UTC, or null. `validator`: ETag, revision, remote hash or the listing's own text about the file: compared,
never parsed; or null. `locator`: how the source itself addresses the file where the key does not say it, else null.
"""

LISTING_SCHEMA: dict[str, pl.DataType] = {
    "key": pl.String(),
    "size": pl.Int64(),
    "modified": pl.Datetime("us", "UTC"),
    "validator": pl.String(),
    "locator": pl.String(),
}


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One row of a listing, made only for files that will be fetched."""

    key: str
    size: int | None = None
    modified: datetime | None = None
    validator: str | None = None
    locator: str | None = None

    @property
    def name(self) -> str:
        """Return the last segment of the key."""
        return PurePosixPath(self.key).name


class TimeWitness(StrEnum):
    """What a capture time was read from, best first.

    `camera`: whoever took the picture says so, such as the clock of a frame grabber; `video`: a video's own metadata;
    `provider`: a provider's record of the file; `server`: the file's modification time.
    """

    CAMERA = "camera"
    EXIF = "exif"
    GPS = "gps"
    FILE_NAME = "file_name"
    VIDEO = "video"
    PROVIDER = "provider"
    SERVER = "server"
    ARRIVAL = "arrival"


@dataclass(frozen=True, slots=True)
class CaptureTime:
    """When an image was taken, as its witness says it.

    `local`: naive wall-clock time at the camera; `offset_minutes`: that clock's distance east of UTC, or None where the
    witness does not say it (then no instant is known and none is made up).
    """

    local: datetime
    offset_minutes: int | None
    witness: TimeWitness


class Quality(StrEnum):
    """How much of a picture its bytes are: all of it, or a stand-in until the full one comes."""

    FULL = "full"
    THUMBNAIL = "thumbnail"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a source itself says about an image, beside its bytes; what it leaves open the bytes and the name tell.

    `captured` by the witness `camera` beats every other, by the witness `provider` it stands behind the file name.
    `camera` beats what EXIF and name say. `latitude`, `longitude`: degrees WGS 84, used where EXIF has none. `extra`:
    whatever else is worth keeping, as JSON has it.
    """

    captured: CaptureTime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    quality: Quality = Quality.FULL
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that lies whole in staging.

    `size` bytes; `sha256` of them, hex; `modified` UTC as the source told it at the download, or null; `warning`:
    something a person should know although the bytes were kept.
    """

    path: Path
    size: int
    sha256: str
    modified: datetime | None = None
    warning: str | None = None
    claims: Claims | None = None


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image's bytes say about it.

    `sha256`: hex, the image's identity. `size`: bytes. `format`: Pillow's name in lower case (jpeg, png, heif, …).
    `width`, `height`: pixels, upright, after `orientation` (EXIF 1-8). `latitude`, `longitude`: degrees WGS 84.
    `perceptual_hash`: 64 bits as 16 hex digits. `brightness`: mean luma, 0-1. `sharpness`: variance of the Laplacian
    of the luma (0-255) at thumbnail scale. `quality`, `extra`: as the source claims them.
    """

    sha256: str
    size: int
    format: str
    width: int
    height: int
    orientation: int
    captured: CaptureTime
    camera_make: str | None
    camera_model: str | None
    camera_serial: str | None
    camera: str | None
    latitude: float | None
    longitude: float | None
    perceptual_hash: str
    brightness: float
    sharpness: float
    quality: Quality = Quality.FULL
    extra: Mapping[str, Any] | None = None


class Verdict(StrEnum):
    """What became of one planned file."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One planned file's end in one run; nothing is dropped silently.

    `facts` and the keys are there for stored and duplicate files; `reason` and `message` for the others. `size`: bytes
    that came. `warning`: what a person should know of a stored file. `superseded`: where a stand-in for the picture lay
    that nothing refers to any more.
    """

    file: RemoteFile
    verdict: Verdict
    reason: Reason | None = None
    message: str | None = None
    sha256: str | None = None
    size: int = 0
    facts: ImageFacts | None = None
    storage_key: str | None = None
    thumbnail_key: str | None = None
    warning: str | None = None
    superseded: tuple[str, ...] = ()


T = TypeVar("T", covariant=True)


class Rows(Sequence[T], Generic[T]):
    """An immutable sequence that Prefect hands from task to task unopened.

    Prefect walks every element of lists, tuples and dataclasses it passes on; a batch is not its business.
    """

    __slots__ = ("__weakref__", "_items")

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._items = tuple(items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "Rows[T]": ...
    def __getitem__(self, index: int | slice) -> "T | Rows[T]":
        return Rows(self._items[index]) if isinstance(index, slice) else self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __repr__(self) -> str:
        return f"Rows({len(self._items)})"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Page:
    """A part of a listing, and where to go on.

    `gone`: keys that the source says are no longer there, with all below them, but for what the page lists. `mark`: the
    cursor that the next page comes from, and that becomes the source's high-water mark once everything up to here is
    stored; None where the source has no cursors. `is_last`: there is nothing more now. `is_start`: a walk over the
    whole source begins here; where one ends in the same run, known files that it did not list have vanished. What is
    neither, the changes since a mark or the rest of a walk, proves only what it says.
    """

    files: Listing
    gone: Rows[str] = field(default_factory=Rows)
    mark: str | None = None
    is_last: bool = True
    is_start: bool = True

    @property
    def is_whole(self) -> bool:
        """Tell whether the page lists all that the source holds."""
        return self.is_start and self.is_last


def make_listing(files: Iterable[RemoteFile]) -> Listing:
    """Return the listing of `files`; of two rows with one key the first stays.

    For sources of ordinary size; a parser of very large pages builds the columns itself.
    """
    rows = [(file.key, file.size, file.modified, file.validator, file.locator) for file in files]
    return pl.DataFrame(rows, schema=LISTING_SCHEMA, orient="row").unique("key", keep="first", maintain_order=True)


def iter_files(listing: Listing) -> Iterator[RemoteFile]:
    """Yield each row of `listing` as a `RemoteFile`, in order."""
    for row in listing.select(list(LISTING_SCHEMA)).iter_rows():
        yield RemoteFile(*row)


def is_safe_key(key: str) -> bool:
    """Tell whether `key` is relative, without empty, `.` or `..` segments or NUL, so that it can not escape a root."""
    return "\0" not in key and all(part not in {"", ".", ".."} for part in key.split("/"))
