"""Where accepted files lie: a folder or an S3 bucket that never overwrites and never shows half a file.

A key names one file for good. Putting the same bytes under the same key again changes nothing; other bytes under a
taken key get a key of their own, marked with their content hash.
"""

import errno
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path, PurePosixPath
from threading import Lock, get_ident
from typing import BinaryIO

from blocks._errors import CatchmentError, LibraryRefused, LibraryUnavailable, WrongUse
from blocks._layout import is_hidden, with_short_hash
from blocks._records import is_safe_key

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Incoming:
    """A whole file to be put under `key`, or a neighbour of it.

    `sha256`: hex; `size`: bytes; `modified`: aware, becomes the stored file's time where storage has one; `move`: take
    the file at `source` away (it lies in our staging); otherwise it is copied and stays untouched.
    """

    source: Path
    key: str
    sha256: str
    size: int
    modified: datetime | None = None
    content_type: str | None = None
    move: bool = True


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
            LibraryRefused: it will not as things stand.
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
    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open the file under `key` for reading.

        Raises:
            LibraryRefused: there is none, or it may not be read.
            LibraryUnavailable: storage does not answer.
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


class LocalStorage(Storage):
    """A folder on a disk of this machine.

    A file is fsynced, then linked to its final name, which fails where the name is taken: no writer can overwrite
    another, whichever process it lives in. File systems without hard links (exFAT, some network shares) get an atomic
    rename after a look, under a lock of this process.
    """

    _rename_lock = Lock()

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_files(self, batch: Sequence[Incoming]) -> list[str | CatchmentError]:
        """Store every file of `batch`; it is on the disk when this returns.

        Waiting for the disk is most of the work, so files are fsynced side by side and each folder once a batch.
        """
        if len(batch) == 1:
            results = [self._place(batch[0])]
        else:
            with ThreadPoolExecutor(max_workers=8, thread_name_prefix="fsync") as threads:
                results = list(threads.map(self._place, batch))
        folders = {self._path(key).parent for key in results if isinstance(key, str)}
        lost: dict[Path, CatchmentError] = {}
        for folder in {above for inner in folders for above in self._up_to_root(inner)}:
            try:
                _sync_folder(folder)
            except OSError as error:
                lost[folder] = translate_disk(error, str(folder.relative_to(self.root)))
        return [self._settle(file, result, lost) for file, result in zip(batch, results, strict=True)]

    def put_bytes(self, key: str, content: bytes) -> None:
        """Write `content` under `key`, whole or not at all; a power cut may lose it."""
        path = self._path(key)
        part = path.with_name(f".{hashlib.sha256(path.name.encode()).hexdigest()[:16]}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if _write_new(part, content):
                with suppress(FileNotFoundError):  # another writer of the same key was done first
                    part.replace(path)
                return
            # Left by a kill, or another writer's of this moment: ours passes by, and what is there is cleared away.
            own = part.with_name(f"{part.name}.{os.getpid()}-{get_ident()}")
            own.write_bytes(content)
            own.replace(path)
            part.unlink(missing_ok=True)
        except OSError as error:
            raise translate_disk(error, key) from error

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open the file under `key` for reading."""
        try:
            return self._path(key).open("rb")
        except OSError as error:
            raise translate_disk(error, key) from error

    def stat(self, key: str) -> Stored | None:
        """Return the size of the file under `key`, or None where there is none; a folder knows no hashes."""
        try:
            return Stored(self._path(key).stat().st_size, None)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise translate_disk(error, key) from error

    def delete(self, key: str) -> None:
        """Remove the file under `key` and the folders it leaves empty."""
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise translate_disk(error, key) from error
        with suppress(OSError):
            for folder in self._up_to_root(path.parent)[:-1]:
                folder.rmdir()

    def list_keys(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield key and size of every visible file, folder by folder, names in order; links are not followed."""
        yield from self._walk(prefix.rpartition("/")[0], prefix)

    def _walk(self, folder: str, prefix: str) -> Iterator[tuple[str, int]]:
        try:
            with os.scandir(self.root / folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        except OSError as error:
            raise translate_disk(error, folder or ".") from error
        for entry in entries:
            key = f"{folder}/{entry.name}" if folder else entry.name
            if not _is_utf8(entry.name):
                continue  # no key of ours, and none that the catalog could hold
            if entry.is_dir(follow_symlinks=False):
                if not is_hidden(key) and (f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/")):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix) and not is_hidden(key) and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    yield key, entry.stat(follow_symlinks=False).st_size

    def _path(self, key: str) -> Path:
        return self.root / require_safe_key(key)

    def _up_to_root(self, folder: Path) -> list[Path]:
        above = [folder, *folder.parents]
        return above[: above.index(self.root) + 1]

    def _settle(
        self, file: Incoming, result: str | CatchmentError, lost: dict[Path, CatchmentError]
    ) -> str | CatchmentError:
        if isinstance(result, CatchmentError):
            return result
        for folder in self._up_to_root(self._path(result).parent):
            if folder in lost:
                return lost[folder]
        # The staged name goes last: until then a killed run finds the file again and ends the same way.
        if file.move and file.source != self._path(result):
            with suppress(OSError):
                file.source.unlink()
        return result

    def _place(self, file: Incoming) -> str | CatchmentError:
        try:
            if not file.source.is_file():
                return self._find_placed(file)
            for key in possible_keys(file.key, file.sha256):
                if self._place_at(key, file):
                    return key
        except OSError as error:
            return translate_disk(error, file.key)
        except CatchmentError as error:
            return error
        return LibraryRefused(f"Every name for {file.key} is taken by other bytes; look at the library's folder.")

    def _find_placed(self, file: Incoming) -> str:
        for key in possible_keys(file.key, file.sha256):
            if self._holds(self._path(key), file):
                return key
        raise LibraryUnavailable(f"The staged file for {file.key} is gone; the next run brings it again.")

    def _place_at(self, key: str, file: Incoming) -> bool:
        path = self._path(key)
        if path.exists():
            return self._holds(path, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.move and self._link_whole(file.source, path, file):
            return self._holds(path, file)
        # The name tells writers apart, and a dot keeps it out of every listing.
        part = path.with_name(f".{file.sha256[:16]}-{os.getpid()}-{get_ident()}.part")
        try:
            _copy_proven(file, part)
            if not self._link_whole(part, path, file):
                with self._rename_lock:
                    if not path.exists():
                        part.rename(path)
        finally:
            part.unlink(missing_ok=True)
        return self._holds(path, file)

    def _link_whole(self, source: Path, path: Path, file: Incoming) -> bool:
        """Give the file at `source` the name `path` too, unless it is taken; False where the disk has no hard links."""
        _sync_file(source, file.modified)
        try:
            path.hardlink_to(source)
        except FileExistsError:
            return True
        except OSError as error:
            if error.errno in {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}:
                return False
            raise
        return True

    def _holds(self, path: Path, file: Incoming) -> bool:
        """Tell whether `path` has the bytes of `file`; a name we have just linked needs no reading."""
        try:
            found = path.stat()
            if file.source.exists() and os.path.samestat(found, file.source.stat()):
                return True
            if found.st_size != file.size or not path.is_file():
                return False
            with path.open("rb") as stored:
                return hash_stream(stored) == file.sha256
        except (FileNotFoundError, NotADirectoryError):
            return False


def _write_new(path: Path, content: bytes) -> bool:
    """Write a file that was not there; False where it was."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _copy_proven(file: Incoming, part: Path) -> None:
    digest = hashlib.sha256()
    with file.source.open("rb") as old, part.open("wb") as new:
        while chunk := old.read(CHUNK_BYTES):
            digest.update(chunk)
            new.write(chunk)
    if digest.hexdigest() != file.sha256:
        raise LibraryUnavailable(
            f"{PurePosixPath(file.key).name} changed while it was copied; the next run tries again."
        )
    _sync_file(part, file.modified)


def _sync_file(path: Path, modified: datetime | None) -> None:
    if modified is not None:
        seconds = modified.timestamp()
        os.utime(path, (seconds, seconds))
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        return LibraryRefused(f"{what} is larger than this disk or the process's limit takes; raise the limit.")
    if error.errno == errno.ENAMETOOLONG:
        return LibraryRefused(f"The name {what} is too long for the library's disk; choose a shorter layout.")
    if error.errno in _IN_THE_WAY:
        return LibraryRefused(
            f"A file stands where the library needs a folder for {what}, or the reverse; move it away."
        )
    if error.errno == errno.ENOENT:
        return LibraryRefused(f"There is no file {what} in the library; check whether its disk is mounted.")
    return LibraryUnavailable(f"The library's disk failed at {what} ({error.strerror}); check it and run again.")
