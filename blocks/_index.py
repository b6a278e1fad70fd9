"""Read a web server's directory listing: HTML of any server, JSON or XML.

A page becomes rows by `_index_html` or `_index_feeds`, names by the one rule in `_index_rows`; `_index_evidence` tells
listings from other pages. A page of 1,000,000 nginx rows (131 MB), fed as it comes, takes about 4 s of one core and
390 MB of memory at its peak for the whole process, of which 55 MB are there before and 63 MB are the rows it returns.
"""

import codecs
import re
from collections.abc import Iterable
from datetime import UTC, timezone
from typing import Literal
from zoneinfo import ZoneInfo

from blocks._errors import Reason
from blocks._index_evidence import refusal
from blocks._index_feeds import JsonReader, XmlReader
from blocks._index_html import HtmlReader, find_charset, read_soup
from blocks._index_rows import Folder, IndexPage, quote_key

__all__ = ["Folder", "IndexPage", "IndexReader", "parse_index", "quote_key", "read_index"]

SOUP_BYTES = 2_000_000
"""Largest page that goes through BeautifulSoup, which takes 15 times lxml's time and memory; about 15,000 files."""

_HEAD_BYTES = 1024
_XML_LISTING = re.compile(rb"(?:<\?xml[^>]*\?>\s*)?<list[\s>/]")
_S3_LISTING = re.compile(rb"(?:<\?xml[^>]*\?>\s*)?<ListBucketResult")
_FILE_TYPES = ("image/", "video/", "audio/", "font/", "application/octet-stream", "application/pdf", "application/zip")


def parse_index(url: str, body: bytes, content_type: str | None, *, zone: ZoneInfo | timezone = UTC) -> IndexPage:
    """Return what the index page `body`, which came from `url` after all redirects, lists.

    `content_type`: the header as it came. `zone`: the zone of the times that name none; nginx writes UTC unless
    `autoindex_localtime` is on, Apache and lighttpd write their own time. A time that its clock shows twice is null.

    Raises:
        SourceRefused: the page is no directory listing; the message says what it looks like.
        SourceUnavailable: a JSON or XML page is cut short.
    """
    head = body[:_HEAD_BYTES]
    if len(body) <= SOUP_BYTES and _find_format(url, head, content_type) == "html":
        return read_soup(url, body, find_charset(head, content_type), zone)
    reader = IndexReader(url, content_type, zone=zone)
    reader.feed(body)
    return reader.close()


def read_index(
    url: str, chunks: Iterable[bytes], content_type: str | None, *, zone: ZoneInfo | timezone = UTC
) -> IndexPage:
    """Return what a page lists that comes in chunks and may be of any size; otherwise as `parse_index`.

    Raises:
        SourceRefused: the page is no directory listing; the message says what it looks like.
        SourceUnavailable: a JSON or XML page is cut short.
    """
    rest = iter(chunks)
    start = bytearray()
    for chunk in rest:
        start += chunk
        if len(start) > SOUP_BYTES:
            break
    else:
        return parse_index(url, bytes(start), content_type, zone=zone)
    reader = IndexReader(url, content_type, zone=zone)
    reader.feed(bytes(start))
    start.clear()
    for chunk in rest:
        reader.feed(chunk)
    return reader.close()


class IndexReader:
    """Reads an index page of any size as it comes from the socket, in little more memory than its rows take."""

    def __init__(self, url: str, content_type: str | None, *, zone: ZoneInfo | timezone = UTC) -> None:
        self._url = url
        self._content_type = content_type
        self._zone = zone
        self._head = b""
        self._reader: HtmlReader | JsonReader | XmlReader | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the page.

        Raises:
            SourceRefused: the page is no directory listing.
        """
        if self._reader is not None:
            self._reader.feed(chunk)
            return
        self._head += chunk
        if len(self._head) >= _HEAD_BYTES:
            self._reader = self._open()

    def close(self) -> IndexPage:
        """Return what the page lists.

        Raises:
            SourceRefused: the page is no directory listing; the message says what it looks like.
            SourceUnavailable: a JSON or XML page is cut short.
        """
        return (self._reader or self._open()).close()

    def _open(self) -> HtmlReader | JsonReader | XmlReader:
        start, self._head = self._head, b""
        head = start[:_HEAD_BYTES]
        reader: HtmlReader | JsonReader | XmlReader
        match _find_format(self._url, head, self._content_type):
            case "json":
                reader = JsonReader(self._url, self._zone)
            case "xml":
                reader = XmlReader(self._url, self._zone)
            case _:
                reader = HtmlReader(self._url, find_charset(head, self._content_type), self._zone)
        reader.feed(start)
        return reader


def _find_format(url: str, head: bytes, content_type: str | None) -> Literal["html", "json", "xml"]:
    """Return what a page is by its first bytes, and by its content type where they leave it open."""
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    kind = (content_type or "").partition(";")[0].strip().lower()
    if not start:
        raise refusal(url, "an empty page; see what the server's log says", Reason.REFUSED)
    if _XML_LISTING.match(start):
        return "xml"
    if start[:1] in {b"[", b"{"} and "html" not in kind:
        return "json"
    if _S3_LISTING.match(start):
        raise refusal(url, "an S3 bucket; use a source for S3", Reason.REFUSED)
    if kind.startswith(_FILE_TYPES) and not start.startswith(b"<"):
        raise refusal(url, f"a single file ({kind}); give the address of its directory", Reason.REFUSED)
    return "html"
