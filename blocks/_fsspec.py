"""Folders that only fsspec has a driver for (gs://, abfs://, smb://, …) as places to take files from.

https://filesystem-spec.readthedocs.io/en/latest/api.html#built-in-implementations
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from errno import ENOENT, ENOTDIR
from importlib import metadata
from typing import Any

from fsspec import available_protocols  # type: ignore[import-untyped]
from fsspec.core import url_to_fs  # type: ignore[import-untyped]
from fsspec.registry import known_implementations  # type: ignore[import-untyped]

from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable
from blocks._records import RemoteFile, is_safe_key
from blocks._remote import Entry, FolderRemote, changed_midway, decode_name, find_path

ARCHIVES = frozenset({"zip", "tar", "libarchive"})

_OURS = {"file", "local", "s3", "s3a", "ftp", "sftp", "ssh", "webdav", "http", "https"}
_WRAPPERS = {
    "async_wrapper",
    "asynclocal",
    "asyncwrapper",
    "blockcache",
    "cached",
    "dask",
    "data",
    "dir",
    "filecache",
    "generic",
    "pyscript",
    "reference",
    "simplecache",
}

# Drivers agree on name, size and type only; these are the spellings of the others among them.
_TIMES = ("mtime", "last_modified", "LastModified", "modified")
_VALIDATORS = ("etag", "ETag", "ukey", "checksum", "md5Hash", "md5Checksum", "generation", "version_id", "CRC")
_LAST_EPOCH = 100_000_000_000  # seconds; what is larger counts something else


def find_driver_schemes() -> frozenset[str]:
    """Return the schemes left to fsspec: not those with a wire of our own, nor wrappers around other schemes."""
    return frozenset(available_protocols()) - _OURS - _WRAPPERS


class FsspecRemote(FolderRemote):
    """A folder by fsspec's driver for its scheme, with no cache of listings between us and the server.

    How long the server is waited for is the driver's own affair. A root that holds nothing is refused, because most
    drivers can not tell it from one that is gone.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._url = url
        self._scheme = url.partition("://")[0]
        with self._translating(url):
            self._driver, root = url_to_fs(url, **options, skip_instance_cache=True, use_listings_cache=False)
        self._root = str(root)

    def list_folder(self, path: bytes) -> Iterable[Entry]:
        """Return every file and folder in the folder at `path`; links are left."""
        folder = self._full(path)
        with self._translating(decode_name(path) or self._url):
            if not path:
                self._driver.invalidate_cache()
            try:
                found = self._driver.ls(folder, detail=True)
            except OSError as error:
                if not path or not _is_missing(error):
                    raise
                if self._is_gone(folder):
                    return []
                # Some drivers look at file after file, and one of them went meanwhile.
                raise SourceUnavailable(
                    f"{decode_name(path)} changed while it was listed; try again.", reason=Reason.CHANGED_MIDWAY
                ) from None
            entries = [entry for facts in found if (entry := _make_entry(facts, folder, path)) is not None]
        if not path and not entries:
            raise SourceRefused(
                f"{self._url} holds nothing, or is no folder; check the address.", reason=Reason.NOT_FOUND
            )
        return entries

    def read(self, file: RemoteFile, write: Callable[[bytes], None]) -> None:
        """Hand the file's bytes to `write`, and look whether it was written to meanwhile."""
        path = self._full(find_path(file))
        with self._translating(file.key):
            before = _name_state(self._driver.info(path))
            with self._driver.open(path, "rb") as source:
                while chunk := source.read(1 << 20):
                    write(chunk)
            after = _name_state(self._driver.info(path))
        if before != after:
            raise changed_midway(file)

    def close(self) -> None:
        """Close what the driver lets us close."""
        with suppress(Exception):
            if close := getattr(self._driver, "close", None):
                close()

    def _is_gone(self, folder: str) -> bool:
        try:
            self._driver.info(folder)
        except OSError as error:
            if not _is_missing(error):
                raise
            return True
        return False

    def _full(self, path: bytes) -> str:
        if not path:
            return self._root
        name = path.decode("utf-8", "surrogateescape")
        return f"{self._root.rstrip('/')}/{name}" if self._root else name

    @contextmanager
    def _translating(self, what: str) -> Iterator[None]:
        try:
            yield
        except CatchmentError:
            raise
        except Exception as error:  # noqa: BLE001 - drivers raise what their vendors' libraries raise
            # Vendors quote tokens and signed addresses: their error must not reach a traceback either.
            raise translate_driver_error(error, self._scheme, what) from None


def _make_entry(facts: Mapping[str, Any], folder: str, path: bytes) -> Entry | None:
    # Some drivers begin names with a slash, some end folders with one; an object store lists the folder itself too.
    above = f"{folder.strip('/')}/".lstrip("/")
    full_name = str(facts["name"]).strip("/")
    name = full_name.removeprefix(above).encode("utf-8", "surrogateescape")
    if not full_name.startswith(above) or not is_safe_key(decode_name(path + b"/" + name if path else name)):
        return None
    if facts["type"] == "directory":
        return Entry(name, is_folder=True)
    if facts["type"] != "file" or facts.get("islink"):
        return None
    return Entry(name, False, *_name_state(facts))


def _name_state(facts: Mapping[str, Any]) -> tuple[int | None, datetime | None, str | None]:
    """Return size, time of modification and validator, each only where the driver tells it beyond doubt."""
    size = facts.get("size")
    times = (parse_time(facts.get(name)) for name in _TIMES)
    validators = (str(value) for name in _VALIDATORS if isinstance(value := facts.get(name), str | int) and value)
    return (
        size if isinstance(size, int) and size >= 0 else None,
        next((time for time in times if time), None),
        next(validators, None),
    )


def parse_time(value: object) -> datetime | None:
    """Return the moment, UTC, that an aware datetime or seconds since 1970 tell; None for anything else."""
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.utcoffset() is not None else None
    if isinstance(value, int | float) and 0 < value < _LAST_EPOCH:
        return datetime.fromtimestamp(value, UTC)
    return None


def translate_driver_error(error: Exception, scheme: str, what: str) -> SourceUnavailable | SourceRefused:
    """Return what a driver's error means; `what` names file or folder. The error's own text is left out."""
    kind = type(error).__name__
    if isinstance(error, ImportError):
        return SourceRefused(f"{scheme}:// needs a further package: pip install {_find_package(error, scheme)}.")
    if _is_missing(error):
        return SourceRefused(f"There is no {what}; check the path.", reason=Reason.NOT_FOUND)
    if isinstance(error, TimeoutError):
        return SourceUnavailable(f"The server did not answer in time at {what}; try again.", reason=Reason.TIMEOUT)
    status = _find_status(error)
    if status == 401:
        return SourceRefused(f"The server refused the login for {what}; renew it.", reason=Reason.UNAUTHORIZED)
    if status == 403 or isinstance(error, PermissionError):
        return SourceRefused(f"This login may not read {what}; give it the right to.", reason=Reason.FORBIDDEN)
    if status == 404:
        return SourceRefused(f"The server has no {what}; check the path.", reason=Reason.NOT_FOUND)
    if status == 429:
        return SourceUnavailable(
            f"The server asks to go slower at {what}; try again later.", reason=Reason.RATE_LIMITED
        )
    if status is not None and (status == 408 or status >= 500):
        return SourceUnavailable(
            f"The server failed at {what} ({status}); try again later.", reason=Reason.SERVER_ERROR
        )
    # smbprotocol makes a ValueError of a refused connection.
    is_configured_wrongly = isinstance(error, TypeError | ValueError | LookupError | NotImplementedError)
    if status is not None or (is_configured_wrongly and not isinstance(error.__cause__, OSError)):
        return SourceRefused(
            f"The driver of {scheme}:// can not take {what} as configured ({status or kind}); check url and options."
        )
    return SourceUnavailable(f"The driver of {scheme}:// failed at {what} ({kind}); try again later.")


def _is_missing(error: Exception) -> bool:
    # smbprotocol's errors are no FileNotFoundError, but tell their number.
    is_plain = isinstance(error, FileNotFoundError | NotADirectoryError)
    return is_plain or (isinstance(error, OSError) and error.errno in {ENOENT, ENOTDIR})


def _find_status(error: Exception) -> int | None:
    """Return the HTTP status that an error of requests, aiohttp, gcsfs or Azure carries."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and 400 <= value < 600:
                return int(value)
    return None


def _find_package(error: ImportError, scheme: str) -> str:
    """Return what pip calls the missing driver: an extra of fsspec's, the package of its class, or what it misses."""
    if scheme in (metadata.metadata("fsspec").get_all("Provides-Extra") or []):
        return f"'fsspec[{scheme}]'"
    package = re.split(r"[.:]", known_implementations.get(scheme, {}).get("class", "fsspec"))[0]
    if package == "fsspec":
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        package = (cause.name or scheme).partition(".")[0]
    return package.replace("_", "-")
