"""Folders elsewhere, whatever their wire: walk them whole, bring one file whole, keep connections apart.

Names are bytes on most wires. A key is their UTF-8 text; a name that is none is read as Latin-1, and the locator then
keeps the true bytes, percent-encoded.
"""

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import ClassVar, Self
from urllib.parse import quote, unquote_to_bytes

from blocks._errors import CatchmentError, LibraryUnavailable, Reason, SourceRefused, SourceUnavailable
from blocks._part import PartFile
from blocks._records import Fetched, RemoteFile, is_safe_key

IDLE_SECONDS = 30.0
"""Servers drop idle connections; one that has waited longer than this is not trusted any more."""

SYSTEM_FOLDERS = frozenset(
    {"lost+found", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "#recycle", "#snapshot"}
)
_UNFINISHED = (".part", ".partial", ".filepart", ".tmp", ".temp", ".crdownload", ".download", "~")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a folder: a file or a folder, with what the server tells of it."""

    name: bytes
    is_folder: bool
    size: int | None = None
    modified: datetime | None = None
    validator: str | None = None


class Remote(ABC):
    """One connection to a folder elsewhere, used by one thread at a time.

    After any error it is closed and not used again.
    """

    appears_whole: ClassVar[bool] = False
    """Whether the wire never shows a file that is still being written."""

    @abstractmethod
    def walk(self, depth: int | None) -> Iterator[RemoteFile]:
        """Yield every plain file at most `depth` folders down (None: all), or raise; never a part of them."""

    @abstractmethod
    def read(self, file: RemoteFile, write: Callable[[bytes], None]) -> None:
        """Hand the bytes of `file`, in order and to their end, to `write`.

        Raises:
            SourceUnavailable: the file may still come, also when it changed meanwhile.
            SourceRefused: it will not as things stand.
        """

    def fetch(self, file: RemoteFile, destination: Path, max_bytes: int) -> Fetched:
        """Bring `file` whole to `destination`, through `destination.part`."""
        with PartFile(destination, max_bytes=max_bytes) as part:

            def keep(chunk: bytes) -> None:
                try:
                    part.write(chunk)
                except OSError as error:
                    raise LibraryUnavailable(
                        f"Staging could not take {file.name} ({error.strerror}); free space on its disk and run again."
                    ) from error

            try:
                self.read(file, keep)
                digest = part.commit(file.size)
            except CatchmentError:
                part.discard()
                raise
        return Fetched(destination, part.size, digest, file.modified)

    def close(self) -> None:  # noqa: B027 - most wires hold something, some do not
        """Let the connection go; never raises."""


class FolderRemote(Remote):
    """A wire that lists one folder at a time."""

    @abstractmethod
    def list_folder(self, path: bytes) -> Iterable[Entry]:
        """Return every entry of the folder at `path`, relative to the root (`b""`), but no links that leave it."""

    def walk(self, depth: int | None) -> Iterator[RemoteFile]:
        """Yield every plain file, folder by folder."""
        waiting = [(b"", 0)]
        while waiting:
            folder, level = waiting.pop()
            for entry in self.list_folder(folder):
                if not entry.name or b"/" in entry.name or is_passed_over(decode_name(entry.name)):
                    continue
                path = folder + b"/" + entry.name if folder else entry.name
                if not entry.is_folder:
                    file = make_file(path, entry)
                    if is_safe_key(file.key):
                        yield file
                elif depth is None or level < depth:
                    waiting.append((path, level + 1))


def is_passed_over(name: str) -> bool:
    """Tell whether `name` is hidden, a system's own folder, or says that its writer is not done."""
    return name.startswith((".", "~syncthing~")) or name in SYSTEM_FOLDERS or name.lower().endswith(_UNFINISHED)


def make_file(path: bytes, entry: Entry) -> RemoteFile:
    """Return the file at `path`, whose locator is there only where the key does not say the path."""
    key = "/".join(map(decode_name, path.split(b"/")))
    locator = None if key.encode() == path else quote(path)
    return RemoteFile(key, entry.size, entry.modified, entry.validator, locator)


def find_path(file: RemoteFile) -> bytes:
    """Return the path of `file` as its server knows it, relative to the root.

    Raises:
        SourceRefused: it would lead out of the root.
    """
    path = unquote_to_bytes(file.locator) if file.locator else file.key.encode()
    if not is_safe_key(decode_name(path)):
        raise SourceRefused(f"{file.key!r} does not lie within the source; list it again.")
    return path


def decode_name(name: bytes) -> str:
    """Return `name` as text: UTF-8, else Latin-1, which takes any byte."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


def take_settled(
    files: list[RemoteFile],
    list_again: Callable[[], Iterable[RemoteFile]],
    seconds: float,
    *,
    now: datetime,
    sleep: Callable[[float], None],
) -> list[RemoteFile]:
    """Return those of `files` whose writer has finished.

    That is: last modified at least `seconds` from `now`, either way (a clock that is ahead must not hide its files for
    ever). Where the server tells no time, it is listed a second time after `seconds`, and size and validator agree.
    """
    window = timedelta(seconds=seconds)
    settled = [file for file in files if file.modified is None or abs(now - file.modified) >= window]
    if all(file.modified is not None for file in settled):
        return settled
    sleep(seconds)
    seen = {file.key: (file.size, file.validator) for file in list_again()}
    return [file for file in settled if file.modified is not None or seen.get(file.key) == (file.size, file.validator)]


class RemotePool:
    """Connections that wait to be used again, each by one thread at a time, while someone holds the pool.

    Made for a Block's private attribute: a copy shares the connections, a pickled one starts without any.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._holders = 0
        self._idle: list[tuple[float, Remote]] = []

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep connections open until the last holder leaves."""
        with self._lock:
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                unused = self._idle if self._holders == 0 else []
                if unused:
                    self._idle = []
            for _, remote in unused:
                remote.close()

    @contextmanager
    def use(self, connect: Callable[[], Remote]) -> Iterator[Remote]:
        """Yield a connection of the caller's own, an idle one or a new one; after an error it is closed."""
        remote = self._take() or connect()
        try:
            yield remote
        except BaseException:
            remote.close()
            raise
        with self._lock:
            keep = self._holders > 0
            if keep:
                self._idle.append((monotonic(), remote))
        if not keep:
            remote.close()

    def _take(self) -> Remote | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                since, remote = self._idle.pop()
            if monotonic() - since < IDLE_SECONDS:
                return remote
            remote.close()

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePool)

    def __hash__(self) -> int:
        return hash(RemotePool)


class LocalRemote(FolderRemote):
    """A folder this machine can see, a mounted share included. Links are followed while they stay inside it."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)
        self._real_root = os.path.realpath(self._root)

    def walk(self, depth: int | None) -> Iterator[RemoteFile]:
        """Yield every plain file, each folder once however many links lead to it."""
        self._seen: set[bytes] = set()
        return super().walk(depth)

    def list_folder(self, path: bytes) -> Iterable[Entry]:
        """Return what the folder at `path` holds and we may see, in the order of names."""
        real = os.path.realpath(os.path.join(self._root, path))  # noqa: PTH118 - pathlib takes no bytes
        if real in self._seen:
            return []
        self._seen.add(real)
        try:
            with os.scandir(real) as found:
                entries = [self._look(entry) for entry in sorted(found, key=lambda entry: entry.name)]
        except FileNotFoundError as error:
            if path:
                return []  # gone since its parent was listed
            raise translate_local_error(error, decode_name(self._root)) from error
        except OSError as error:
            raise translate_local_error(error, decode_name(path or self._root)) from error
        return [entry for entry in entries if entry is not None]

    def _look(self, entry: os.DirEntry[bytes]) -> Entry | None:
        try:
            if entry.is_symlink() and not self._is_inside(entry.path):
                return None
            facts = entry.stat()
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(facts.st_mode):
            return Entry(entry.name, is_folder=True)
        if not stat.S_ISREG(facts.st_mode):
            return None
        return Entry(entry.name, False, facts.st_size, _read_time(facts), _name_state(facts))

    def _is_inside(self, path: bytes) -> bool:
        real = os.path.realpath(path)
        return real == self._real_root or real.startswith(self._real_root.rstrip(b"/") + b"/")

    def read(self, file: RemoteFile, write: Callable[[bytes], None]) -> None:
        """Hand the file's bytes to `write`, unless it is written to meanwhile."""
        path = os.path.join(self._root, find_path(file))  # noqa: PTH118 - pathlib takes no bytes
        if not self._is_inside(path):
            raise SourceRefused(f"{file.key} is a link out of the source's folder; it is not followed.")
        try:
            with open(path, "rb", buffering=0) as source:  # noqa: PTH123 - pathlib takes no bytes
                before = _name_state(os.fstat(source.fileno()))
                while chunk := source.read(1 << 20):
                    write(chunk)
                after = _name_state(os.fstat(source.fileno()))
        except OSError as error:
            raise translate_local_error(error, file.key) from error
        if before != after:
            raise changed_midway(file)


def _read_time(facts: os.stat_result) -> datetime | None:
    try:
        return datetime.fromtimestamp(facts.st_mtime_ns // 1000 / 1_000_000, UTC)
    except (ValueError, OverflowError):  # some file systems keep times beyond the calendar
        return None


def _name_state(facts: os.stat_result) -> str:
    return f"{facts.st_mtime_ns}-{facts.st_size}-{facts.st_ino}"


def changed_midway(file: RemoteFile) -> SourceUnavailable:
    """Return the error for a file that was written to while it was read."""
    return SourceUnavailable(
        f"{file.key} was written to while it was read; the next run takes it.", reason=Reason.CHANGED_MIDWAY
    )


def translate_local_error(error: OSError, what: str) -> SourceUnavailable | SourceRefused:
    """Return what a failed system call on a source's folder means; `what` names the file or folder."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return SourceRefused(
            f"There is no {what}; check the path and whether its disk is mounted.", reason=Reason.NOT_FOUND
        )
    if isinstance(error, PermissionError):
        return SourceRefused(f"This user may not read {what}; give it the right to.", reason=Reason.FORBIDDEN)
    return SourceUnavailable(f"{what} can not be read now ({error.strerror}); check its disk.")
