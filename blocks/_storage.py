"""Where accepted files lie: a folder or an S3 bucket that never overwrites and never shows half a file.

A key names one file for good. Putting the same bytes under the same key again changes nothing; other bytes under a
taken key get a key of their own, marked with their content hash.
"""

import errno
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from blocks._errors import CatchmentError, KeyRefused, LibraryRefused, LibraryUnavailable, WrongUse
from blocks._layout import with_short_hash
from blocks._records import is_safe_key

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Incoming:
    """A whole file to be put under `key`, or a neighbour of it.

    `sha256`: hex; `size`: bytes; `modified`: aware, becomes the stored file's time where storage has one; `move`: take
    the file at `source` away (it lies in our staging); otherwise it is copied and stays untouched. `metadata`: what a
    bucket notes beside the bytes, a folder has no place for it.
    """

    source: Path
    key: str
    sha256: str
    size: int
    modified: datetime | None = None
    content_type: str | None = None
    move: bool = True
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What storage says about one file: `size` in bytes, `sha256` hex or None where only reading would tell."""

    size: int
    sha256: str | None


class Storage(ABC):
    """A place for files under keys; safe to use from many threads."""

    def put_file(
        self,
        source: Path,
        key: str,
        *,
        sha256: str,
        size: int,
        modified: datetime | None = None,
        content_type: str | None = None,
        move: bool = True,
    ) -> str:
        """Store one whole file durably and return the key it lies under; harmless to repeat.

        Raises:
            LibraryUnavailable: it may work later.
            KeyRefused: this file can not be stored as things stand, others can.
            LibraryRefused: no file can.
        """
        [result] = self.put_files([Incoming(source, key, sha256, size, modified, content_type, move)])
        if isinstance(result, CatchmentError):
            raise result
        return result

    @abstractmethod
    def put_files(self, batch: Sequence[Incoming]) -> list[str | CatchmentError]:
        """Store every file of `batch` durably; each ends as its key or, alone, as its error, in order."""

    @abstractmethod
    def put_bytes(self, key: str, content: bytes) -> None:
        """Store something that can be made again (a thumbnail) under `key`, in place of what is there."""

    @abstractmethod
    def put_many(self, made: Mapping[str, Path]) -> None:
        """Store files that can be made again under their keys, in place of what is there; harmless to repeat.

        The files lie in our staging; storage may take them away.

        Raises:
            LibraryUnavailable, LibraryRefused: not all of them are stored.
        """

    @abstractmethod
    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open the file under `key` for reading.

        Raises:
            LibraryRefused: there is none, or it may not be read.
            LibraryUnavailable: storage does not answer.
        """

    @abstractmethod
    def make_url(self, key: str, expires: timedelta) -> str:
        """Return an address that anybody who has it can fetch the file under `key` from, in a bucket until `expires`.

        Made on demand and kept nowhere; whether the file is there is not looked at.
        """

    @abstractmethod
    def stat(self, key: str) -> Stored | None:
        """Return what storage says about the file under `key`, or None where there is none."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the file under `key`; nothing happens where there is none."""

    @abstractmethod
    def list_keys(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield key and size of every visible file whose key starts with `prefix`; never what is catchment's own."""

    def read_bytes(self, key: str) -> bytes:
        """Return the whole file under `key`; raises as `open` does."""
        with self.open(key) as file:
            return file.read()

    def hash_object(self, key: str) -> str:
        """Return the SHA-256, hex, of the bytes under `key`, read now; raises as `open` does."""
        with self.open(key) as file:
            return hash_stream(file)


def hash_stream(file: BinaryIO) -> str:
    """Return the SHA-256, hex, of what is left to read of `file`, a chunk at a time."""
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def possible_keys(key: str, sha256: str) -> Iterator[str]:
    """Yield the keys a file may lie under, first choice first."""
    return chain([key], (with_short_hash(key, sha256, digits) for digits in (8, 16, 64)))


def require_safe_key(key: str) -> str:
    """Return `key`, or raise `WrongUse` for one that could leave the library."""
    if not is_safe_key(key) or "\\" in key:
        raise WrongUse(f"{key!r} is no storage key: it has to be relative, without empty, . or .. segments.")
    return key


_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM}
_IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}


def translate_disk(error: OSError, what: str) -> LibraryRefused | LibraryUnavailable:
    """Return what a failed system call on the library's disk means for the caller; `what` names the file or folder."""
    if error.errno in _FULL:
        return LibraryUnavailable(f"The library's disk is full, so {what} was not written; free space and run again.")
    if error.errno == errno.EROFS:
        return LibraryRefused(f"The library is on a read-only disk, so {what} was not written; mount it writable.")
    if error.errno in _FORBIDDEN:
        return LibraryRefused(f"The library's folder denies access to {what}; give this user the right to it.")
    if error.errno == errno.EFBIG:
        return KeyRefused(f"{what} is larger than this disk or the process's limit takes; raise the limit.")
    if error.errno == errno.ENAMETOOLONG:
        return KeyRefused(f"The name {what} is too long for the library's disk; choose a shorter layout.")
    if error.errno in _IN_THE_WAY:
        return KeyRefused(f"A file stands where the library needs a folder for {what}, or the reverse; move it away.")
    if error.errno == errno.ENOENT:
        return LibraryRefused(f"There is no file {what} in the library; check whether its disk is mounted.")
    return LibraryUnavailable(f"The library's disk failed at {what} ({error.strerror}); check it and run again.")
