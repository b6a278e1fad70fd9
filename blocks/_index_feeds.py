"""Index pages for programs: nginx's JSON and XML, and Caddy's JSON."""

import codecs
import json
import re
from collections.abc import Mapping
from datetime import timezone
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._index_evidence import refusal
from blocks._index_rows import URL_CHARACTERS, IndexPage, RowCollector

_ELEMENT = re.compile(rb"<(file|directory|other)(|\s[^>]*)>([^<]*)</\1>")
_ATTRIBUTE = re.compile(rb'(\w+)="([^"]*)"')
_ENTITIES = ((b"&lt;", b"<"), (b"&gt;", b">"), (b"&quot;", b'"'), (b"&amp;", b"&"))
_LONGEST_ROW = 1_000_000


class XmlReader:
    """Reads nginx's `autoindex_format xml`.

    nginx escapes `<`, `>`, `&` and `"` in names and nothing else: control characters and bytes that are not UTF-8 stand
    there as they are, and no XML parser gives them back (ngx_http_autoindex_module.c, ngx_http_autoindex_xml).
    """

    def __init__(self, url: str, zone: ZoneInfo | timezone) -> None:
        self._url = url
        self._rows = RowCollector(url, zone)
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the page."""
        page = self._rest + chunk
        end = 0
        for element in _ELEMENT.finditer(page):
            end = element.end()
            self._add(element[1], dict(_ATTRIBUTE.findall(element[2])), element[3])
        self._rest = page[end:]

    def close(self) -> IndexPage:
        """Return what the page lists.

        Raises:
            SourceUnavailable: the page is cut short.
        """
        if b"</list>" not in self._rest and b"<list/>" not in self._rest:
            raise _cut_short()
        return self._rows.close()

    def _add(self, kind: bytes, attributes: Mapping[bytes, bytes], name: bytes) -> None:
        if kind == b"other":
            return
        for entity, byte in _ENTITIES:
            name = name.replace(entity, byte)
        href = quote(name, safe="") + ("/" if kind == b"directory" else "")
        size, modified = attributes.get(b"size"), attributes.get(b"mtime", b"")
        text = modified + (b" %b B" % size if size else b"")
        self._rows.add_line([href], text.decode("ascii", "replace"))


class JsonReader:
    """Reads nginx's `autoindex_format json` and Caddy's answer to `Accept: application/json`, row by row.

    nginx does not check that names are UTF-8; such a name stays what it is and costs its neighbours nothing.
    """

    def __init__(self, url: str, zone: ZoneInfo | timezone) -> None:
        self._url = url
        self._rows = RowCollector(url, zone)
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._json = json.JSONDecoder()
        self._rest = ""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the page.

        Raises:
            SourceRefused: the page is no listing.
        """
        page = self._rest + self._utf8.decode(chunk)
        at = 0
        while (start := page.find("{", at)) >= 0:
            try:
                row, at = self._json.raw_decode(page, start)
            except json.JSONDecodeError:
                break
            except RecursionError as error:
                raise self._refusal() from error
            self._add(row)
        self._rest = page[at:]
        if len(self._rest) > _LONGEST_ROW:
            raise self._refusal()

    def close(self) -> IndexPage:
        """Return what the page lists.

        Raises:
            SourceUnavailable: the page is cut short.
        """
        if self._rest.strip("[, \t\r\n") != "]":
            raise _cut_short()
        return self._rows.close()

    def _add(self, row: Mapping[str, Any]) -> None:
        match row:
            case {"name": str(name), "type": str(kind), "mtime": str(modified)}:
                is_folder = kind == "directory"
                if kind == "other":
                    return
            case {"name": str(name), "is_dir": bool(is_folder), "mod_time": str(modified)}:
                name = name.removesuffix("/")
            case _:
                raise self._refusal()
        # Caddy's names are not what they were where they were not UTF-8; its URLs are
        if isinstance(url := row.get("url"), str):
            href = quote(_to_bytes(url), safe=URL_CHARACTERS)
        else:
            href = quote(_to_bytes(name), safe="") + ("/" if is_folder else "")
        size = row.get("size")
        self._rows.add_line([href], f"{modified} {size} B" if isinstance(size, int) else modified)

    def _refusal(self) -> SourceRefused:
        return refusal(self._url, "JSON of another kind; ask for the page that a browser shows", Reason.REFUSED)


def _to_bytes(name: str) -> bytes:
    """Return the bytes a name was decoded from; a lone surrogate that JSON itself spells as `\\ud800` keeps its own."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogatepass")


def _cut_short() -> SourceUnavailable:
    return SourceUnavailable(
        "The listing ends in the middle; the next try may bring all of it.", reason=Reason.CUT_SHORT
    )
