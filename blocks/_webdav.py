"""WebDAV (RFC 4918) as a place to take files from: PROPFIND one folder at a time, GET one file."""

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

import httpx
from lxml import etree

from blocks._errors import CatchmentError, Reason, SourceRefused
from blocks._http import HttpSettings, ask, open_client
from blocks._http_download import download_file
from blocks._http_errors import explain_status, parse_http_date, show_url
from blocks._pace import Pace
from blocks._records import Fetched, RemoteFile
from blocks._remote import Entry, FolderRemote, find_path

_DAV = "{DAV:}"
_SUCCEEDED = " 200 "


class WebdavRemote(FolderRemote):
    """A folder on a WebDAV server, `url` its http or https address. Only paths below it are ever asked for."""

    def __init__(self, url: str, *, user: str | None, password: str | None, timeout_seconds: float) -> None:
        self._url = url.rstrip("/") + "/"
        self._root = unquote_to_bytes(urlsplit(self._url).path)
        headers = {}
        if user is not None:
            token = b64encode(f"{user}:{password or ''}".encode()).decode("ascii")
            headers["Authorization"] = f"Basic {token}"
        self._client = open_client(HttpSettings(self._url, timeout_seconds=timeout_seconds, headers=headers))
        self._pace = Pace()

    def list_folder(self, path: bytes) -> Iterable[Entry]:
        """Return every file and folder in the folder at `path`, by one request."""
        url = self._url + (quote(path) + "/" if path else "")
        folder = self._root + (path + b"/" if path else b"")
        # Without a body PROPFIND tells all properties, ours among them (RFC 4918 §9.1).
        with self._ask(url, method="PROPFIND", headers={"Depth": "1"}, expected=(207,)) as answer:
            return list(parse_multistatus(answer.iter_bytes(1 << 16), folder))

    def read(self, file: RemoteFile, write: Callable[[bytes], None]) -> None:
        """Hand the file's bytes to `write`."""
        with self._ask(self._url + quote(find_path(file))) as answer:
            for chunk in answer.iter_raw(1 << 18):
                write(chunk)

    def fetch(self, file: RemoteFile, destination: Path, max_bytes: int) -> Fetched:
        """Bring `file` whole to `destination`; a cut is resumed where the server proves the bytes are the same."""
        return download_file(
            self._client,
            self._url + quote(find_path(file)),
            destination,
            expected_size=file.size,
            max_bytes=max_bytes,
            pace=self._pace,
            explain=_explain,
        )

    def _ask(self, url: str, **options: Any) -> AbstractContextManager[httpx.Response]:
        return ask(self._client, url, pace=self._pace, explain=_explain, **options)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def parse_multistatus(chunks: Iterable[bytes], folder: bytes) -> Iterator[Entry]:
    """Yield the members of `folder` (its decoded path, with a slash at its end) that a multistatus body lists.

    Of each href only the path counts, because servers behind a proxy tell an origin of their own; what is not directly
    in `folder` is left.

    Raises:
        SourceRefused: the body is no multistatus, or ends early.
    """
    parser = etree.XMLPullParser(events=("end",), resolve_entities=False, no_network=True, huge_tree=True)
    try:
        for chunk in chunks:
            parser.feed(chunk)
            yield from _take_members(parser, folder)
        root = parser.close()
    except etree.XMLSyntaxError as error:
        raise SourceRefused("The WebDAV server's listing is no whole XML; check the address.") from error
    if root.tag != f"{_DAV}multistatus":
        raise SourceRefused("The server's listing is no WebDAV multistatus; check the address.")


def _take_members(parser: "etree.XMLPullParser", folder: bytes) -> Iterator[Entry]:
    for _, element in parser.read_events():
        if not isinstance(element, etree._Element) or element.tag != f"{_DAV}response":
            continue
        path = unquote_to_bytes(urlsplit(element.findtext(f"{_DAV}href", "").strip()).path)
        name = path.removeprefix(folder).removesuffix(b"/")
        if path.startswith(folder) and name and b"/" not in name:
            yield _make_entry(element, name)
        # Memory stays flat however many files there are.
        element.clear()


def _make_entry(response: "etree._Element", name: bytes) -> Entry:
    facts: dict[str, str] = {}
    is_folder = False
    for group in response.findall(f"{_DAV}propstat"):
        if _SUCCEEDED in group.findtext(f"{_DAV}status", _SUCCEEDED) + " ":
            is_folder = is_folder or group.find(f"{_DAV}prop/{_DAV}resourcetype/{_DAV}collection") is not None
            for tag in ("getcontentlength", "getlastmodified", "getetag"):
                if text := group.findtext(f"{_DAV}prop/{_DAV}{tag}"):
                    facts[tag] = text.strip()
    size = facts.get("getcontentlength", "")
    modified = parse_http_date(facts.get("getlastmodified"))
    validator = facts.get("getetag") or facts.get("getlastmodified")
    return Entry(name, is_folder, int(size) if size.isdigit() else None, modified, validator)


def _explain(response: httpx.Response) -> CatchmentError:
    place = show_url(response.url)
    if response.status_code == 401:
        return SourceRefused(f"{place} refused user name or password; correct the Block.", reason=Reason.UNAUTHORIZED)
    if response.status_code == 405:
        return SourceRefused(f"{place} is no WebDAV folder; check the address.")
    return explain_status(response)
