"""Index pages in HTML: BeautifulSoup for ordinary ones, lxml's incremental parser for huge ones, one rule for both."""

import codecs
import re
from collections.abc import Mapping
from datetime import timezone
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
from bs4 import BeautifulSoup, NavigableString, Tag
from bs4.element import PreformattedString
from lxml import etree

from blocks._index_evidence import Evidence
from blocks._index_rows import PERCENT, IndexPage, RowCollector

_META_CHARSET = re.compile(rb"<meta[^>]+?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_TYPE_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))

_ROWS = frozenset({"tr", "li", "dt"})
_BREAKS = frozenset({"br", "hr", "p", "div", "pre", "ul", "ol", "dl", "table", "thead", "tbody", "form", "body"})
_MUTE = frozenset({"title", "script", "style"})
_HUMAN_SIZE = re.compile(r"\s*[\d.,]+\s*(?:[kKMGTPE]i?)?B?\s*")


def find_charset(head: bytes, content_type: str | None) -> str:
    """Return the charset of a page that begins with `head`: byte order mark, Content-Type, `<meta>`, else UTF-8.

    The order is that of the HTML standard, section 13.2.3.2; an unknown name counts as none.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    declared = _TYPE_CHARSET.search(content_type or "")
    if declared and _is_charset(declared[1]):
        return declared[1]
    meta = _META_CHARSET.search(head)
    name = meta[1].decode("ascii", "replace") if meta else "utf-8"
    # a <meta> that can be read byte by byte does not stand in UTF-16, whatever it says
    return name if _is_charset(name) and not name.lower().startswith("utf-16") else "utf-8"


class HtmlReader:
    """Reads a page of any size from its chunks, in little more memory than its rows take."""

    def __init__(self, url: str, charset: str, zone: ZoneInfo | timezone) -> None:
        self._decoder = codecs.getincrementaldecoder(charset)(errors=PERCENT)
        target: Any = _Page(url, zone)  # lxml needs less of a target than its stubs ask for
        self._parser: Any = etree.HTMLParser(target=target, encoding="utf-8", huge_tree=True)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the page."""
        self._feed_text(self._decoder.decode(chunk))

    def close(self) -> IndexPage:
        """Return what the page lists.

        Raises:
            SourceRefused: the page is no listing.
        """
        self._feed_text(self._decoder.decode(b"", final=True))
        page: IndexPage = self._parser.close()
        return page

    def _feed_text(self, text: str) -> None:
        if text:
            self._parser.feed(_clean(text))


def read_soup(url: str, body: bytes, charset: str, zone: ZoneInfo | timezone) -> IndexPage:
    """Return what a whole page of ordinary size lists.

    Raises:
        SourceRefused: the page is no listing.
    """
    page = _Page(url, zone)
    # a page that begins with a line break is not taken for a file name or for XML, of which bs4 would warn
    markup = b"\n" + _clean(body.decode(charset, PERCENT))
    soup = BeautifulSoup(markup, "lxml", from_encoding="utf-8", multi_valued_attributes=None)
    open_tags: list[Tag] = [soup]
    walk = [iter(soup.children)]
    while walk:
        node = next(walk[-1], None)
        if node is None:
            walk.pop()
            page.end(open_tags.pop().name)
        elif isinstance(node, Tag):
            page.start(node.name, {name: str(value) for name, value in node.attrs.items()})
            open_tags.append(node)
            walk.append(iter(node.children))
        elif isinstance(node, NavigableString) and not isinstance(node, PreformattedString):
            page.data(node)
    return page.close()


class _Page:
    """Takes a page's tags and texts in their order; a parser target.

    A line is a table row, a list item or what stands between two breaks. When it links one name, its text outside the
    link is what the server says about that name; when it links several, it says nothing about any of them.
    """

    def __init__(self, url: str, zone: ZoneInfo | timezone) -> None:
        self._url = url
        self._rows = RowCollector(url, zone)
        self._evidence = Evidence()
        self._hrefs: list[str] = []
        self._words: list[str] = []
        self._open_rows = 0
        self._open_pre = 0
        self._is_in_link = False
        self._muted_by: str | None = None
        self._cell_bytes: str | None = None
        self._cell_words: list[str] = []
        self._has_base = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Take an opening tag."""
        if tag == "a":
            self._is_in_link = True
            if href := attributes.get("href"):
                self._hrefs.append(href)
                if href[0] in ".?":
                    self._evidence.see_link(href)
            return
        self._evidence.start(tag, attributes)
        self._break_line(tag)
        if tag in _ROWS:
            self._open_rows += 1
        elif tag == "pre":
            self._open_pre += 1
        elif tag in _MUTE:
            self._muted_by = self._muted_by or tag
        elif tag == "time" and "datetime" in attributes:
            self._words.append(attributes["datetime"])
            self._muted_by = self._muted_by or tag
        elif tag == "td":
            self._cell_bytes = attributes.get("data-size") or attributes.get("data-order")
            self._cell_words = []
        elif tag == "base" and "href" in attributes and not self._has_base:
            self._has_base = True
            self._rows.rebase(attributes["href"])

    def data(self, text: str) -> None:
        """Take text."""
        if self._evidence.is_listening:
            self._evidence.data(text)
        if self._is_in_link or self._muted_by:
            return
        if self._cell_bytes:
            self._cell_words.append(text)
        elif self._open_pre and "\n" in text:
            *lines, rest = text.split("\n")
            for line in lines:
                self._words.append(line)
                self._end_line()
            self._words.append(rest)
        else:
            self._words.append(text)

    def end(self, tag: str) -> None:
        """Take a closing tag."""
        if self._evidence.is_listening:
            self._evidence.end(tag)
        if tag == "a":
            self._is_in_link = False
            self._space()
            return
        if tag == self._muted_by:
            self._muted_by = None
        elif tag == "td" and self._cell_bytes:
            self._end_cell(self._cell_bytes)
        elif tag == "pre":
            self._open_pre -= 1
        self._break_line(tag)
        if tag in _ROWS:
            self._open_rows -= 1

    def close(self) -> IndexPage:
        """Return what the page lists.

        Raises:
            SourceRefused: the page is no listing.
        """
        self._end_line()
        page = self._rows.close()
        self._evidence.refuse_other_pages(self._url, page.files["key"])
        if self._evidence.is_server_listing:
            return page
        return IndexPage(page.files.with_columns(size=pl.lit(None, pl.Int64())), page.folders)

    def _break_line(self, tag: str) -> None:
        if tag in _ROWS or (tag in _BREAKS and not self._open_rows):
            self._end_line()
        else:
            self._space()

    def _space(self) -> None:
        """Keep the words on either side of a tag apart."""
        if self._words:
            self._words.append(" ")

    def _end_line(self) -> None:
        if self._hrefs:
            self._rows.add_line(self._hrefs, "".join(self._words))
            self._hrefs.clear()
        self._words.clear()

    def _end_cell(self, size: str) -> None:
        """Take the bytes that Caddy and rclone keep beside the size they show."""
        text = "".join(self._cell_words)
        self._words.append(f"{size} B" if size.isdecimal() and _HUMAN_SIZE.fullmatch(text) else text)
        self._cell_bytes = None


def _clean(text: str) -> bytes:
    """Return `text` in UTF-8 without what libxml2 stops at."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace")


def _is_charset(name: str) -> bool:
    try:
        b"a".decode(name, PERCENT)
        codecs.getincrementaldecoder(name)
    except (LookupError, ValueError):
        return False
    return True
