"""Files that are whole or absent: bytes land in a `.part` beside their destination and are renamed when proven."""

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from blocks._errors import Reason, SourceRefused, SourceUnavailable


class PartFile:
    """The `.part` of one destination: hashed while written, limited in size, renamed only by `commit`.

    Use as a context manager. Leaving it without `commit` keeps the `.part` (a later run may resume it) and never makes
    the destination. With `resume=True` an existing `.part` is hashed and appended to; `size` tells how much is there.
    """

    def __init__(self, destination: Path, *, max_bytes: int | None = None, resume: bool = False) -> None:
        self.destination = destination
        self.path = destination.with_name(destination.name + ".part")
        self.size = 0
        self._max_bytes = max_bytes
        self._resume = resume
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._resume and self.path.exists():
            with self.path.open("rb") as old:
                while chunk := old.read(1 << 20):
                    self._digest.update(chunk)
                    self.size += len(chunk)
            self._file = self.path.open("ab", buffering=0)
        else:
            self._file = self.path.open("wb", buffering=0)
        return self

    def write(self, chunk: bytes) -> None:
        """Append `chunk`.

        Raises:
            SourceRefused: the file grew beyond `max_bytes`.
        """
        assert self._file is not None, "PartFile is a context manager"  # noqa: S101
        self.size += len(chunk)
        if self._max_bytes is not None and self.size > self._max_bytes:
            raise SourceRefused(
                f"The file is larger than the limit of {self._max_bytes:,} bytes; raise max_file_bytes and say "
                "catchment retry --reason too_large to take it.",
                reason=Reason.TOO_LARGE,
            )
        view = memoryview(chunk)
        while view:
            view = view[self._file.write(view) :]
        self._digest.update(chunk)

    def commit(self, expected_size: int | None = None) -> str:
        """Make the destination appear, whole, and return the SHA-256 of its bytes, hex.

        Raises:
            SourceUnavailable: fewer or more bytes came than `expected_size`; the `.part` is gone if there are more.
        """
        assert self._file is not None, "PartFile is a context manager"  # noqa: S101
        if expected_size is not None and self.size != expected_size:
            if self.size > expected_size:
                self.path.unlink(missing_ok=True)
            raise SourceUnavailable(
                f"{self.size:,} bytes came where {expected_size:,} were promised; the next try will tell.",
                reason=Reason.CUT_SHORT if self.size < expected_size else Reason.SIZE_MISMATCH,
            )
        self._file.close()
        os.replace(self.path, self.destination)  # noqa: PTH105 - pathlib's spelling costs twice as much a file
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Remove the `.part`."""
        self.path.unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
