"""A library in a folder of this machine: every file is linked to its name whole, and never overwritten."""

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from threading import Lock, get_ident
from typing import BinaryIO

from blocks._errors import CatchmentError, KeyRefused, LibraryUnavailable
from blocks._layout import is_hidden
from blocks._storage import (
    CHUNK_BYTES,
    Incoming,
    Storage,
    Stored,
    hash_stream,
    possible_keys,
    require_safe_key,
    translate_disk,
)


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

    def put_many(self, made: Mapping[str, Path]) -> None:
        """Rename the files to their keys, or copy them from another disk; a power cut may lose them."""
        for key, source in made.items():
            path = self._path(key)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                source.replace(path)
            except FileNotFoundError as error:
                if not path.is_file():  # else an earlier try has put it there
                    raise _tell_gone(key) from error
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise translate_disk(error, key) from error
                self.put_bytes(key, source.read_bytes())

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """Open the file under `key` for reading; a disk that fails midway raises as one that fails at once."""
        try:
            with self._path(key).open("rb") as file:
                yield file
        except OSError as error:
            if error.errno == errno.EIO:  # a bad sector costs the file that lies on it
                raise KeyRefused(f"The disk can not read {key} any more: bring it back from a backup.") from error
            raise translate_disk(error, key) from error

    def make_url(self, key: str, expires: timedelta) -> str:
        """Return the `file://` address of `key`, which is good on this machine for as long as the file lies there."""
        del expires
        return self._path(key).absolute().as_uri()

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
        except FileNotFoundError:  # the staged file, or a folder that another process removed because it was empty
            return _tell_gone(file.key)
        except OSError as error:
            return translate_disk(error, file.key)
        except CatchmentError as error:
            return error
        return KeyRefused(f"Every name for {file.key} is taken by other bytes; look at the library's folder.")

    def _find_placed(self, file: Incoming) -> str:
        for key in possible_keys(file.key, file.sha256):
            if self._holds(self._path(key), file):
                return key
        raise _tell_gone(file.key)

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


def _tell_gone(key: str) -> LibraryUnavailable:
    return LibraryUnavailable(f"The staged file for {key} is gone; the next run brings it again.")


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
