"""Files of this machine that somebody hands over: one request's list of them, or a drop folder, as sources."""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from pydantic import Field, PrivateAttr

from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._part import PartFile
from blocks._records import Claims, Fetched, Listing, Page, RemoteFile, TimeWitness, make_listing
from blocks._remote import changed_midway, decode_name, translate_local_error
from blocks._upload_meta import CAMERA_ID, UploadMeta, clean_text
from blocks.source import DEFAULT_SUFFIXES, ImageSource

FRAMES_LAYOUT = "frames/{captured:%Y/%m/%d}/{camera}/{captured:%H%M%S}-{sha256:.8}"
"""Where what is handed over lies in the library; the file's suffix follows."""

_LONGEST_NAME = 300
_ADDED_SUFFIX = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


@dataclass(frozen=True, slots=True)
class LocalState:
    """How a file stood when it was looked at: any write, replacement or truncation makes another state."""

    size: int
    modified: datetime | None
    name: str
    changed_at: float


def read_state(path: bytes) -> LocalState:
    """Return how the plain file at `path` stands, following links.

    Raises:
        SourceRefused: there is none, or it may not be looked at; the message tells why.
        SourceUnavailable: its disk failed.
    """
    shown = decode_name(path)
    try:
        facts = os.stat(path)  # noqa: PTH116 - pathlib takes no bytes
    except ValueError as error:  # a NUL in the name
        raise SourceRefused(f"There is no {shown!r}: no file's name holds that.", reason=Reason.NOT_FOUND) from error
    except OSError as error:
        if error.errno in {errno.ENAMETOOLONG, errno.ELOOP}:
            text = f"There is no file {shown:.200}… ({error.strerror})."
            raise SourceRefused(text, reason=Reason.NOT_FOUND) from error
        raise translate_local_error(error, shown) from error
    if stat.S_ISDIR(facts.st_mode):
        raise SourceRefused(f"{shown} is a folder; hand over the files in it.", reason=Reason.REFUSED)
    if not stat.S_ISREG(facts.st_mode):
        raise SourceRefused(f"{shown} is no plain file but a device, pipe or socket.", reason=Reason.REFUSED)
    return _to_state(facts)


def _to_state(facts: os.stat_result) -> LocalState:
    try:
        modified = datetime.fromtimestamp(facts.st_mtime_ns // 1000 / 1_000_000, UTC)
    except (ValueError, OverflowError):  # some file systems keep times beyond the calendar
        modified = None
    name = f"{facts.st_mtime_ns}-{facts.st_size}-{facts.st_ino}"
    return LocalState(facts.st_size, modified, name, max(facts.st_mtime_ns, facts.st_ctime_ns) / 1e9)


def copy_whole(file: RemoteFile, path: bytes, destination: Path, max_bytes: int, claims: Claims) -> Fetched:
    """Copy the plain file at `path` whole to `destination`, through `destination.part`; the original stays.

    Raises:
        SourceRefused: it is larger than `max_bytes`, or can not be read.
        SourceUnavailable: it was written to meanwhile.
    """
    before = read_state(path)
    if before.size > max_bytes:
        raise SourceRefused(
            f"It has {before.size:,} bytes, and the limit is {max_bytes:,}; raise max_file_bytes to hand it over.",
            reason=Reason.TOO_LARGE,
        )
    try:
        source = open(path, "rb", buffering=0)  # noqa: PTH123, SIM115 - pathlib takes no bytes; closed below
    except OSError as error:
        raise translate_local_error(error, decode_name(path)) from error
    with source, PartFile(destination, max_bytes=max_bytes) as part:
        while True:
            try:
                chunk = source.read(1 << 20)
            except OSError as error:
                raise translate_local_error(error, decode_name(path)) from error
            if not chunk:
                break
            part.write(chunk)
        if _to_state(os.fstat(source.fileno())).name != before.name:
            part.discard()
            raise changed_midway(file)
        digest = part.commit()
    return Fetched(destination, part.size, digest, before.modified, claims=claims)


def name_for_storage(path: bytes) -> str:
    """Return the last segment of `path` as text any catalog keeps; what bears no image's suffix gets that of its bytes.

    A name says nothing about where it leads: it is one segment, neither `.` nor `..`.
    """
    name = clean_text(decode_name(path.rstrip(b"/").rpartition(b"/")[2])).replace("/", "_")
    if name in {"", ".", ".."}:
        name = "_"
    if len(name.encode()) > _LONGEST_NAME:
        name = f"{name[:60]}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name if name.rpartition(".")[2].lower() in DEFAULT_SUFFIXES else name + guess_suffix(path)


def guess_suffix(path: bytes) -> str:
    """Return the usual suffix of the image format that a file's first bytes announce, or nothing."""
    try:
        read_state(path)
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes no bytes
            head = file.read(16)
    except (OSError, SourceRefused, SourceUnavailable):
        return ""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    if head[4:8] == b"ftyp":
        return ".avif" if head[8:12] in {b"avif", b"avis"} else ".heic"
    return next((suffix for mark, suffix in _ADDED_SUFFIX.items() if head.startswith(mark)), "")


class UploadedFiles(ImageSource):
    """One request: files of this machine, handed over as pictures of one camera with what is said of them.

    Every file is listed, also one that can not be taken: its refusal is then its verdict.

    Example:
        source = UploadedFiles(camera_id="Haas_Pit_1", request_id="first").with_files(["/data/before.jpg"])
    """

    _block_type_name = "Uploaded Files"
    _block_type_slug = "upload"  # the catalog names these sources by it; never saved

    camera_id: str = Field(pattern=f"^{CAMERA_ID}$", description="The camera that took the pictures.")
    request_id: str = Field(pattern=f"^{CAMERA_ID}$", description="What tells this request from every other.")
    meta: UploadMeta = Field(default_factory=UploadMeta, description="What is said of the pictures.")
    max_files: int = Field(default=10, ge=1, description="Most files to take; those beyond are refused.")
    layout: str = Field(default=FRAMES_LAYOUT)

    _paths: tuple[bytes, ...] = PrivateAttr(default=())

    def with_files(self, paths: Iterable[str | bytes]) -> "UploadedFiles":
        """Return this request with the files at `paths`, in their order; `file:///…` may name one percent-encoded."""
        bound = self.model_copy()
        bound._paths = tuple(path if isinstance(path, bytes) else _encode_path(path) for path in paths)
        return bound

    @property
    def root(self) -> str:
        """The camera, as requests of all times are its history."""
        return f"upload:{self.camera_id}"

    @property
    def source_name(self) -> str:
        """The camera's name among the sources of the catalog."""
        return f"{self.get_block_type_slug()}/{self.camera_id}"

    @property
    def file_count(self) -> int:
        """How many files the request names."""
        return len(self._paths)

    def list_files(self) -> Listing:
        """Return a row for every file of the request, keys in its own folder."""
        return make_listing(self._iter_files())

    def list_page(self, mark: str | None) -> Page:
        """Return the request's files; earlier requests' are not gone because this one does not name them."""
        del mark
        return Page(self.list_files(), is_start=False)

    def download(self, file: RemoteFile, destination: Path) -> Fetched:
        """Copy `file` whole to `destination`, or refuse it for what is wrong with it."""
        number, quoted = json.loads(file.locator or "")
        if number > self.max_files:
            raise SourceRefused(
                f"It is file {number} of a request that may have {self.max_files}; hand it over in another request, "
                "or raise max_files.",
                reason=Reason.TOO_MANY,
            )
        path = unquote_to_bytes(quoted)
        claims = self.meta.to_claims(
            self.camera_id,
            TimeWitness.PROVIDER,
            request_id=self.request_id,
            original_name=clean_text(decode_name(path.rpartition(b"/")[2])),
        )
        return copy_whole(file, path, destination, self.max_file_bytes, claims)

    def _iter_files(self) -> Iterator[RemoteFile]:
        names = _tell_apart([name_for_storage(path) for path in self._paths])
        for number, (path, name) in enumerate(zip(self._paths, names, strict=True), start=1):
            locator = json.dumps([number, quote(path)])
            try:
                state = read_state(path)
            except (SourceRefused, SourceUnavailable):  # told when it is its turn
                yield RemoteFile(f"{self.request_id}/{name}", locator=locator)
            else:
                yield RemoteFile(f"{self.request_id}/{name}", state.size, state.modified, state.name, locator)


def _encode_path(path: str) -> bytes:
    if path.startswith("file:///"):
        return unquote_to_bytes(path.removeprefix("file://"))
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:  # half a character that no file name of this machine was decoded to
        return path.encode(errors="replace")


def _tell_apart(names: Sequence[str]) -> list[str]:
    """Return `names` with a number before each that an earlier file bears already: `a.jpg`, `2/a.jpg`."""
    taken: set[str] = set()
    apart = []
    for name in names:
        number, unique = 1, name
        while unique in taken:
            number += 1
            unique = f"{number}/{name}"
        taken.add(unique)
        apart.append(unique)
    return apart
