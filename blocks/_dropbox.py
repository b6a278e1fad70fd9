"""The Dropbox API v2 wire: calls that answer in JSON, and files brought whole and proven by their content hash.

https://www.dropbox.com/developers/documentation/http/documentation#formats
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from blocks._dropbox_errors import explain_answer, explain_non_json
from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._http import ask
from blocks._http_download import download_file
from blocks._pace import Pace
from blocks._patience import Patience
from blocks._records import Claims, Fetched, RemoteFile

API_URL = "https://api.dropboxapi.com"
CONTENT_URL = "https://content.dropboxapi.com"

_LOCATED = ("id", "name", "path", "rev", "client_modified", "server_modified")
_HASHED_BLOCK = 4 << 20
_MOST_ANSWER_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class DropboxWire:
    """A client that is logged in already, and where Dropbox is; `link` (url and password) opens a shared folder."""

    client: httpx.Client
    pace: Pace
    patience: Patience
    link: Mapping[str, str] | None = None
    api_url: str = API_URL
    content_url: str = CONTENT_URL

    def call(self, route: str, argument: Mapping[str, Any], subject: str) -> dict[str, Any]:
        """Return what `route` answers to `argument`; `subject` begins the sentence of a refusal.

        Raises:
            SourceUnavailable: no usable answer came now.
            SourceRefused: the answer is no; a `DropboxRefused` or `CursorRefused` where the caller may know better.
        """
        content = json.dumps(argument).encode()
        return self.patience.until_it_heals(partial(self._call_once, route, content, subject))

    def _call_once(self, route: str, content: bytes, subject: str) -> dict[str, Any]:
        with ask(
            self.client,
            f"{self.api_url}/2/{route}",
            pace=self.pace,
            method="POST",
            headers={"Content-Type": "application/json", "Accept-Encoding": "gzip"},
            content=content,
            explain=partial(explain_answer, subject=subject),
        ) as response:
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                self.pace.after_bytes(len(chunk))
                if len(body) > _MOST_ANSWER_BYTES:
                    raise SourceRefused(f"{response.url.host} answered with more than 64 MB.", reason=Reason.TOO_LARGE)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):  # the latter of brackets within brackets without end
            answer = None
        if not isinstance(answer, dict):
            raise explain_non_json(bytes(body[:512]), httpx.URL(self.api_url).host)
        return answer

    def fetch(self, file: RemoteFile, destination: Path, max_bytes: int) -> Fetched:
        """Bring `file` whole to `destination`; what came of an earlier try is continued if its revision is the same.

        Raises:
            SourceUnavailable: the file may still come; also where its content hash does not match.
            SourceRefused: Dropbox does not hand it out, it is too large, or another kind of source listed it.
        """
        listed = _read_locator(file)
        if listed.pop("is_downloadable", True) is False:
            raise SourceRefused(
                f"{file.key} is a document of a web app, which Dropbox only exports: export it there.",
                reason=Reason.UNSUPPORTED_FORMAT,
            )
        return self.patience.until_it_heals(lambda: self._fetch_once(file, listed, destination, max_bytes))

    def _fetch_once(self, file: RemoteFile, listed: dict[str, Any], destination: Path, max_bytes: int) -> Fetched:
        told: dict[str, Any] = {}

        def find_version(headers: Mapping[str, str]) -> str | None:
            # Its ETag is weak, and of a POST: what Dropbox tells of the bytes that follow names their revision.
            told.update(_read_result(headers.get("dropbox-api-result")))
            return told.get("rev")

        if self.link is None:
            route, argument = "files/download", {"path": listed["id"]}
        else:
            route, argument = "sharing/get_shared_link_file", {"url": self.link["url"], "path": listed["path"]}
            if "password" in self.link:
                argument["link_password"] = self.link["password"]
        fetched = download_file(
            self.client,
            f"{self.content_url}/2/{route}",
            destination,
            expected_size=file.size,
            max_bytes=max_bytes,
            pace=self.pace,
            patience=replace(self.patience, attempts=1),
            method="POST",
            headers={"Dropbox-API-Arg": encode_header(argument)},
            explain=partial(explain_answer, subject=file.key),
            find_version=find_version,
        )
        is_newer = told.get("rev", listed["rev"]) != listed["rev"]
        expected = told.get("content_hash") if is_newer else listed["content_hash"]
        if expected is not None and hash_content(destination) != expected:
            destination.unlink()
            raise SourceUnavailable(
                f"The bytes of {file.key} do not have the content hash that Dropbox tells; they are fetched again.",
                reason=Reason.DIGEST_MISMATCH,
            )
        newer = "It has changed since it was listed; the next run looks at it again." if is_newer else None
        return replace(
            fetched,
            modified=parse_time(told.get("client_modified") or listed["client_modified"]) or fetched.modified,
            warning=" ".join(filter(None, (fetched.warning, newer))) or None,
            claims=_make_claims(listed | told),
        )


def hash_content(path: Path) -> str:
    """Return Dropbox's content hash of a file, hex: SHA-256 over the SHA-256 digests of its blocks of 4 MiB.

    https://www.dropbox.com/developers/reference/content-hash
    """
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASHED_BLOCK):
            whole.update(hashlib.sha256(block).digest())
    return whole.hexdigest()


def encode_header(argument: Mapping[str, Any]) -> str:
    """Return `argument` as JSON that fits into a header field: all that is not printable ASCII is escaped.

    https://www.dropbox.com/developers/reference/json-encoding
    """
    return json.dumps(argument).replace("\x7f", "\\u007f")


def parse_time(text: object) -> datetime | None:
    """Return the UTC time of a Dropbox timestamp (`2015-05-12T15:50:38Z`), or None where it is none."""
    try:
        return datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _read_locator(file: RemoteFile) -> dict[str, Any]:
    try:
        listed = json.loads(file.locator or "")
    except (ValueError, RecursionError):
        listed = None
    if (
        not isinstance(listed, dict)
        or not all(isinstance(listed.get(name), str) for name in _LOCATED)
        or not isinstance(listed.get("content_hash", ""), str | None)
    ):
        raise SourceRefused(f"{file.key} was not listed by a Dropbox folder: list the files of this one again.")
    return {"content_hash": None} | listed


def _make_claims(told: Mapping[str, Any]) -> Claims:
    """Return what is kept of what Dropbox tells of a file; its times are UTC, `modified` being its owner's."""
    known = {
        "provider": "dropbox",
        "id": told["id"],
        "name": told["name"],
        "path": told["path"],
        "modified": told["client_modified"],
        "uploaded": told["server_modified"],
        "revision": told["rev"],
        "content_hash": told.get("content_hash"),
    }
    return Claims(extra={name: value for name, value in known.items() if value is not None})


def _read_result(text: str | None) -> dict[str, Any]:
    try:
        result = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    known = ("rev", "content_hash", "client_modified")
    return {name: result[name] for name in known if isinstance(result, dict) and isinstance(result.get(name), str)}


def _without_links(record: logging.LogRecord) -> bool:
    """Blank what httpcore writes of response headers at DEBUG: `Dropbox-API-Result` repeats the link with its key."""
    if "dropbox-api-result" in record.getMessage().lower():
        record.msg, record.args = "receive_response_headers.complete (headers not shown: they hold a link)", ()
    return True


logging.getLogger("httpcore.http11").addFilter(_without_links)
