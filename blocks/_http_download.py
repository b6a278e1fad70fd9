"""Bring one file whole over HTTP: streamed, hashed on the way, resumed only where the server proves it is the same."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Self

import httpx

from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable
from blocks._http import ask
from blocks._http_errors import explain_status, parse_http_date, show_url
from blocks._pace import Pace
from blocks._part import PartFile
from blocks._patience import Patience
from blocks._records import Fetched

_WORTH_RESUMING = 1 << 20
_SNIFFED_BYTES = 512
# The tags that WHATWG MIME Sniffing §7.1 takes as proof of HTML where a file begins with one.
_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?[\t\n\f\r ]*<(?:!--|(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|"
    rb"body|br|p)[ >\t\n\f\r])",
    re.IGNORECASE,
)
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Bookmark:
    """What a `.part` is a part of, kept beside it as `.part.etag`: only the same bytes are ever joined to it."""

    address: str
    validator: str
    total: int

    @classmethod
    def of(cls, headers: Mapping[str, str], address: str, total: int | None, version: str | None = None) -> Self | None:
        """Return the bookmark of a whole response, or None where If-Range could not be asked (RFC 9110 §13.1.5).

        `version`: what names its bytes where no header that If-Range takes does.
        """
        if version is not None:
            return None if total is None else cls(address, version, total)
        validator = headers.get("etag")
        if validator is None and _is_strong_date(headers):
            validator = headers["last-modified"]
        if validator is None or not validator.isascii() or validator.startswith("W/"):
            return None
        if total is None or headers.get("accept-ranges") == "none":
            return None
        return cls(address, validator, total)

    @classmethod
    def read(cls, path: Path, address: str, reached: int) -> Self | None:
        """Return the bookmark at `path` if it lets `reached` bytes from `address` be continued."""
        try:
            mark = cls(**json.loads(path.read_text(encoding="ascii")))
        except (OSError, ValueError, TypeError):
            return None
        return mark if mark.address == address and 0 < reached < mark.total else None

    def write(self, path: Path) -> None:
        fields = {"address": self.address, "validator": self.validator, "total": self.total}
        path.write_text(json.dumps(fields), encoding="ascii")

    def is_continued_by(self, response: httpx.Response, reached: int, version: str | None = None) -> bool:
        """Tell whether `response`, of which `version` may name the bytes, proves to be their rest from `reached` on."""
        headers = response.headers
        match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        # A 206 to If-Range must repeat the ETag and may leave out Last-Modified (RFC 9110 §15.3.7).
        told = headers.get("etag") if self.validator.startswith('"') else headers.get("last-modified", self.validator)
        if version is not None:
            told = version
        return (
            response.status_code == 206
            and match is not None
            and [int(number) for number in match.groups()] == [reached, self.total - 1, self.total]
            and told == self.validator
            and not _is_coded(headers)
        )


@dataclass(frozen=True, slots=True)
class _Transfer:
    """One file's way from `url` to `destination`; `attempt` may be called again after a failure that heals."""

    client: httpx.Client
    url: str
    destination: Path
    expected_size: int | None
    max_bytes: int | None
    pace: Pace
    resume: bool
    headers: Mapping[str, str]
    method: str
    explain: Callable[[httpx.Response], CatchmentError]
    find_version: Callable[[Mapping[str, str]], str | None] | None

    @property
    def _part(self) -> Path:
        return self.destination.with_name(f"{self.destination.name}.part")

    @property
    def _bookmark_path(self) -> Path:
        return self.destination.with_name(f"{self.destination.name}.part.etag")

    def attempt(self) -> Fetched:
        reached, mark = self._find_bookmark()
        if mark is not None:
            headers = {**self.headers, "Range": f"bytes={reached}-"}
            if self.find_version is None:
                headers["If-Range"] = mark.validator
            with self._ask(headers, (200, 206, 416)) as response:
                if mark.is_continued_by(response, reached, self._version_of(response.headers)):
                    return self._receive(response, mark)
                if response.status_code == 200:
                    return self._receive(response, None)
            self._discard()
        with self._ask(self.headers, (200,)) as response:
            return self._receive(response, None)

    def _version_of(self, headers: Mapping[str, str]) -> str | None:
        return None if self.find_version is None else self.find_version(headers)

    def _ask(self, headers: Mapping[str, str], expected: tuple[int, ...]) -> AbstractContextManager[httpx.Response]:
        return ask(
            self.client,
            self.url,
            pace=self.pace,
            headers=headers,
            method=self.method,
            expected=expected,
            explain=self.explain,
        )

    def _receive(self, response: httpx.Response, mark: _Bookmark | None) -> Fetched:
        headers = dict(response.headers.items())  # httpx's own look-ups walk all fields: 4 µs each, and there are ten
        coded, declared, version = _is_coded(headers), _content_length(headers), self._version_of(headers)
        whole = mark.total if mark is not None else None if coded else declared
        if self.max_bytes is not None and (whole or declared or 0) > self.max_bytes:
            self._discard()
            raise SourceRefused(
                f"{show_url(self.url)} has {whole or declared:,} bytes, over the limit of {self.max_bytes:,}; raise "
                "max_file_bytes and say catchment retry --reason too_large to take it.",
                reason=Reason.TOO_LARGE,
            )
        chunks = self._paced(response.iter_bytes() if coded else response.iter_raw())
        if mark is None:
            start = _read_start(chunks)
            if is_html(start, headers.get("content-type")):
                self._discard()
                # A page of another size than the listed file is the server's own word, and passes like a 503.
                kind = SourceRefused if self.expected_size in {None, declared} else SourceUnavailable
                raise kind(
                    f"{show_url(self.url)} is a web page, not an image: open it in a browser to see what it says.",
                    reason=Reason.HTML_PAGE,
                )
            chunks = chain([start], chunks)
        # A body with a length is whole when the length is reached; only without one the listing's size has to prove it.
        proof = whole if whole is not None or declared is not None else self.expected_size
        size, digest = self._write(chunks, mark, lambda: _Bookmark.of(headers, self._address, whole, version), proof)
        return Fetched(
            path=self.destination,
            size=size,
            sha256=digest,
            modified=parse_http_date(headers.get("last-modified")),
            warning=None
            if self.expected_size in {None, size}
            else f"{size:,} bytes came where the listing said {self.expected_size:,}: it has changed since.",
        )

    def _write(
        self,
        chunks: Iterable[bytes],
        mark: _Bookmark | None,
        make_mark: Callable[[], _Bookmark | None],
        proof: int | None,
    ) -> tuple[int, str]:
        """Write `chunks` behind what `mark` stands for, or from zero, and return size and digest of the whole.

        On failure only a `.part` that can be resumed stays, with its bookmark. A body over 1 MiB gets its bookmark
        before the first byte, so that even a kill leaves it there.
        """
        early = None
        if mark is None:
            # Before the old .part is cut to zero, or a kill in between would leave it under the wrong bookmark.
            self._bookmark_path.unlink(missing_ok=True)
            early = make_mark() if proof is not None and proof > _WORTH_RESUMING else None
        with PartFile(self.destination, max_bytes=self.max_bytes, resume=mark is not None) as part:
            if early is not None:
                early.write(self._bookmark_path)
            try:
                for chunk in chunks:
                    part.write(chunk)
                digest = part.commit(proof)
            except SourceRefused:
                self._discard()
                raise
            except BaseException:
                kept = mark or early or make_mark()
                if kept is None or not self.resume:
                    part.discard()
                else:
                    kept.write(self._bookmark_path)
                raise
        if early is not None or mark is not None:
            self._bookmark_path.unlink(missing_ok=True)
        return part.size, digest

    def _paced(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.pace.after_bytes(len(chunk))
            yield chunk

    def _find_bookmark(self) -> tuple[int, _Bookmark | None]:
        if not self.resume:
            return 0, None
        try:
            reached = self._part.stat().st_size
        except FileNotFoundError:
            return 0, None
        return reached, _Bookmark.read(self._bookmark_path, self._address, reached)

    @property
    def _address(self) -> str:
        # A digest, because a query may hold a secret and the bookmark is a file.
        return hashlib.sha256(self.url.encode()).hexdigest()

    def _discard(self) -> None:
        self._bookmark_path.unlink(missing_ok=True)
        self._part.unlink(missing_ok=True)


def download_file(
    client: httpx.Client,
    url: str,
    destination: Path,
    *,
    expected_size: int | None = None,
    max_bytes: int | None = None,
    pace: Pace | None = None,
    patience: Patience | None = None,
    resume: bool = True,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    explain: Callable[[httpx.Response], CatchmentError] = explain_status,
    find_version: Callable[[Mapping[str, str]], str | None] | None = None,
) -> Fetched:
    """Bring what `url` holds whole to `destination`, through `destination.part`, or leave `destination` as it was.

    Whole means that the response's Content-Length was reached; a response without one must bring `expected_size` bytes,
    or, where that is unknown too, end properly. A listed size that differs from a reached Content-Length is only a
    warning: the file has changed since it was listed. After a cut the next attempt, in this call or in a later process,
    asks for the rest and joins it only to bytes of the same validator; anything else starts over.

    `find_version` is for a server without strong ETags: it returns what names a response's bytes by its header fields
    (names in lower case), or None. A 206 continues only the version that was begun, and no If-Range is sent.

    Raises:
        SourceUnavailable: the file may still come; what is there of it is kept if it can be resumed.
        SourceRefused: the answer was no, too large (`max_bytes`), a web page, or elsewhere.
    """
    transfer = _Transfer(
        client=client,
        url=url,
        destination=destination,
        expected_size=expected_size,
        max_bytes=max_bytes,
        pace=pace or Pace(),
        resume=resume,
        headers=headers or {},
        method=method,
        explain=explain,
        find_version=find_version,
    )
    return (patience or Patience()).until_it_heals(transfer.attempt)


def is_html(start: bytes, content_type: str | None) -> bool:
    """Tell whether a file that begins with `start` is a web page: its bytes say so, or its type does and they may be.

    Bytes beat the type: servers call images text/plain or text/html, and error pages image/jpeg.
    """
    if _HTML_START.match(start):
        return True
    media_type = (content_type or "").partition(";")[0].strip().lower()
    return bool(start) and media_type in {"text/html", "application/xhtml+xml"} and not _BINARY.search(start)


def _read_start(chunks: Iterator[bytes]) -> bytes:
    start = b""
    for chunk in chunks:
        start += chunk
        if len(start) >= _SNIFFED_BYTES:
            break
    return start


def _is_coded(headers: Mapping[str, str]) -> bool:
    return headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}


def _content_length(headers: Mapping[str, str]) -> int | None:
    # Transfer-Encoding overrides Content-Length (RFC 9112 §6.3).
    length = headers.get("content-length")
    return None if length is None or "transfer-encoding" in headers else int(length)


def _is_strong_date(headers: Mapping[str, str]) -> bool:
    """Tell whether Last-Modified is so far before Date that the file can not have changed twice within its second.

    RFC 9110 §8.8.2.2 wants enough distance to make clock trouble unlikely; RFC 7232 named 60 s.
    """
    modified, answered = parse_http_date(headers.get("last-modified")), parse_http_date(headers.get("date"))
    return modified is not None and answered is not None and answered - modified >= timedelta(seconds=60)
