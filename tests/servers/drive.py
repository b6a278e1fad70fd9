"""A Google Drive of the test's own: the API v3 as its reference describes it, close enough for Google's own client.

with serve_drive() as drive:
    root = drive.add_folder("cameras")
    photo = drive.add_file("IMG_1.jpg", JPEG, root)
    drive.script(f"media:{photo}", error(403, "userRateLimitExceeded"), None)      # first refused, then served

Who asks: `drive.api_key`, an access token from `POST /token`, or nobody (401). Listings, changes, partial responses
(`fields`), resource keys, Range and the error bodies follow developers.google.com/workspace/drive/api.
"""

import base64
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.servers.drive_store import (
    SHORTCUT,
    Answer,
    Asked,
    Drive,
    Item,
    Refused,
    TokenRefused,
    grant_token,
    make_service_account,
)

__all__ = ["SHORTCUT", "Answer", "Drive", "make_service_account"]

HTML_QUOTA_PAGE = (
    b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body><p>Sorry, you can't view or "
    b"download this file at this time.</p></body></html>"
)
_QUERY = re.compile(r"'((?:[^'\\]|\\.)*)' in parents and trashed ?= ?false")
_FILE_FIELDS = {
    "kind", "id", "name", "mimeType", "size", "md5Checksum", "sha1Checksum", "sha256Checksum", "modifiedTime",
    "createdTime", "parents", "trashed", "shortcutDetails", "resourceKey", "driveId", "headRevisionId",
    "imageMediaMetadata", "capabilities", "ownedByMe", "sharedWithMeTime", "webViewLink", "version",
    "originalFilename",
}  # fmt: skip
_DEFAULT_FIELDS = "kind,id,name,mimeType,resourceKey"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    drive: Drive

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its own name
        """Say nothing: the requests are written down in `Drive.requests`."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.query = dict(parse_qsl(url.query))
        self.route, self.item_id = _find_route(url.path, self.query)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.drive.requests.append(Asked(self.route, url.path, self.query, headers))
        self._answer()

    def do_POST(self) -> None:
        self.form = dict(parse_qsl(self.rfile.read(int(self.headers.get("content-length", 0))).decode()))
        self.query, self.item_id = {}, ""
        self.route = "token" if self.path == "/token" else "unknown"
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.drive.requests.append(Asked(self.route, self.path, {}, headers))
        self._answer()

    def _answer(self) -> None:
        try:
            if scripted := self.drive.next_answer(self.route):
                scripted(self)
            elif self.route == "token":
                self.send_json(200, grant_token(self.drive, self.form))
            else:
                self._check_caller()
                getattr(self, f"_answer_{self.route.partition(':')[0]}")()
        except TokenRefused as refusal:
            self.send_json(400, {"error": refusal.reason, "error_description": f"quoted: {self.form}"})
        except Refused as refusal:
            self.send_refusal(refusal.status, refusal.reason, str(refusal), refusal.location)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _check_caller(self) -> None:
        key = self.headers.get("x-goog-api-key") or self.query.get("key")
        if bearer := self.headers.get("authorization"):
            good_until = self.drive.tokens.get(bearer.removeprefix("Bearer "), 0.0)
            if time.monotonic() >= good_until:
                raise Refused(401, "authError", "Invalid Credentials", "Authorization")
        elif key is None or self.route.startswith(("changes", "start")):
            raise Refused(401, "required", "Login Required.", "Authorization")
        elif key != self.drive.api_key:
            raise Refused(400, "badRequest", "API key not valid. Please pass a valid API key.")

    def _see(self, item_id: str) -> Item:
        """Return an item that the caller may see; one that is missing and one that is not shared look alike."""
        item = self.drive.items.get(item_id)
        shown = dict(
            pair.split("/", 1) for pair in self.headers.get("x-goog-drive-resource-keys", "").split(",") if pair
        )
        if item is None or (item_id in self.drive.keyed and shown.get(item_id) != item["resourceKey"]):
            raise Refused(404, "notFound", f"File not found: {item_id}.", "fileId")
        if item.get("driveId") and self.query.get("supportsAllDrives") != "true":
            raise Refused(404, "notFound", f"File not found: {item_id}.", "fileId")
        return item

    def _answer_get(self) -> None:
        self.send_json(200, _project(self._see(self.item_id), self.query.get("fields", _DEFAULT_FIELDS), _FILE_FIELDS))

    def _answer_list(self) -> None:
        if self.query.get("corpora") == "drive" and self.query.get("driveId") not in self.drive.members:
            raise Refused(404, "notFound", f"Shared drive not found: {self.query.get('driveId')}", "driveId")
        parent = self._see(self.item_id)
        items = [self.drive.items[child] for child in self.drive.children.get(parent["id"], [])]
        if self.query.get("includeItemsFromAllDrives") != "true":
            items = [item for item in items if not item.get("driveId")]
        if self.query.get("corpora") == "drive":
            items = [item for item in items if item.get("driveId") == self.query["driveId"]]
        items = [item for item in items if not item["trashed"]]
        start = self._read_token(self.query.get("pageToken"), self.item_id)
        size = min(int(self.query.get("pageSize", "100")), self.drive.largest_page)
        more = len(items) > start + size
        answer = {
            "kind": "drive#fileList",
            "incompleteSearch": False,
            "files": items[start : start + size],
            **({"nextPageToken": self._make_token(start + size, self.item_id)} if more else {}),
        }
        known = {"kind", "nextPageToken", "incompleteSearch", "files", *_FILE_FIELDS}
        fields = self.query.get("fields", f"kind,nextPageToken,incompleteSearch,files({_DEFAULT_FIELDS})")
        self.send_json(200, _project(answer, fields, known))

    def _answer_start(self) -> None:
        self._check_membership()
        token = self._make_token(len(self.drive.changes), f"changes {self.query.get('driveId', '')}")
        self.send_json(200, {"kind": "drive#startPageToken", "startPageToken": token})

    def _answer_changes(self) -> None:
        self._check_membership()
        purpose = f"changes {self.query.get('driveId', '')}"
        start = self._read_token(self.query["pageToken"], purpose)
        size = min(int(self.query.get("pageSize", "100")), self.drive.largest_page)
        ids = self.drive.changes[start : start + size]
        end = start + len(ids)
        rows = [self._tell_change(item) for item in dict.fromkeys(ids)]
        has_more = end < len(self.drive.changes)
        answer = {
            "kind": "drive#changeList",
            "changes": rows,
            ("nextPageToken" if has_more else "newStartPageToken"): self._make_token(end, purpose),
        }
        known = {
            "kind",
            "nextPageToken",
            "newStartPageToken",
            "changes",
            "changeType",
            "removed",
            "fileId",
            "file",
            "time",
        }
        self.send_json(200, _project(answer, self.query.get("fields", "*"), known | _FILE_FIELDS))

    def _tell_change(self, item_id: str) -> Item:
        item = self.drive.items.get(item_id)
        change = {"kind": "drive#change", "changeType": "file", "fileId": item_id, "removed": item is None}
        return change if item is None else change | {"file": item}

    def _check_membership(self) -> None:
        drive = self.query.get("driveId")
        if drive is not None and drive not in self.drive.members:
            raise Refused(404, "notFound", f"Shared drive not found: {drive}", "driveId")

    def _answer_media(self) -> None:
        self.send_media()

    def _answer_unknown(self) -> None:
        raise Refused(404, "notFound", "Not Found")

    def send_media(self, *, cut_after: int | None = None, reset: bool = False, content: bytes | None = None) -> None:
        """Send the file's bytes from where Range asks, or only so many of them and hang up."""
        item = self._see(self.item_id)
        if item["mimeType"].startswith("application/vnd.google-apps."):
            raise Refused(403, "fileNotDownloadable", "Only files with binary content can be downloaded.", "alt")
        body = self.drive.contents[self.item_id] if content is None else content
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        start = int(asked[1]) if asked else 0
        end = min(int(asked[2]), len(body) - 1) if asked and asked[2] else len(body) - 1
        if asked and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Type", item["mimeType"])
        self.send_header("Content-Length", str(end + 1 - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(body)}")
        self.end_headers()
        self.wfile.write(body[start : end + 1][:cut_after])
        if cut_after is not None:
            self.hang_up(reset=reset)

    def send_json(self, status: int, answer: object, **headers: str) -> None:
        self.send_body(status, json.dumps(answer).encode(), "application/json; charset=UTF-8", **headers)

    def send_body(self, status: int, body: bytes, content_type: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def send_refusal(
        self, status: int, reason: str, message: str = "", location: str | None = None, **headers: str
    ) -> None:
        first = {"domain": "global", "reason": reason, "message": message}
        if location:
            first |= {"location": location, "locationType": "parameter"}
        error: Item = {"code": status, "message": message, "errors": [first]}
        if message.startswith("API key not valid"):
            error["details"] = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
        self.send_json(status, {"error": error}, **headers)

    def hang_up(self, *, reset: bool = False) -> None:
        self.wfile.flush()
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _make_token(self, position: int, purpose: str) -> str:
        plain = json.dumps([self.drive.generation, position, purpose])
        return "~!!~" + base64.urlsafe_b64encode(plain.encode()).decode()

    def _read_token(self, token: str | None, purpose: str) -> int:
        if token is None:
            return 0
        with suppress(ValueError):
            generation, position, meant = json.loads(base64.urlsafe_b64decode(token.removeprefix("~!!~")))
            if generation == self.drive.generation and meant == purpose:
                return int(position)
        raise Refused(400, "invalid", "Invalid Value", "pageToken")


def _find_route(path: str, query: Mapping[str, str]) -> tuple[str, str]:
    """Return the route of a request and the id of the item it is about."""
    if path == "/drive/v3/files":
        asked = _QUERY.fullmatch(query.get("q", ""))
        found = re.sub(r"\\(.)", r"\1", asked[1]) if asked else ""
        return (f"list:{found}", found) if asked else ("unknown", "")
    if match := re.fullmatch(r"/drive/v3/files/([^/]+)", path):
        return (f"media:{match[1]}" if query.get("alt") == "media" else f"get:{match[1]}"), match[1]
    return {"/drive/v3/changes": "changes", "/drive/v3/changes/startPageToken": "start"}.get(path, "unknown"), ""


def _project(value: Any, mask: str, known: set[str]) -> Any:
    """Return the partial response that `fields` asks for, such as `a,b(c,d)`."""
    wanted = _parse_mask(mask)
    if unknown := [name for name in wanted if name != "*" and name not in known]:
        raise Refused(400, "invalidParameter", f"Invalid field selection {unknown[0]}", "fields")
    return _cut_down(value, wanted)


def _cut_down(value: Any, wanted: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_cut_down(row, wanted) for row in value]
    if not isinstance(value, dict) or not wanted or "*" in wanted:
        return value
    return {name: _cut_down(value[name], below) for name, below in wanted.items() if name in value}


@cache
def _parse_mask(mask: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    levels, name = [found], ""
    for mark in mask + ",":
        if mark in ",()":
            if name:
                below = levels[-1].setdefault(name.strip(), {})
                name = ""
            if mark == "(":
                levels.append(below)
            elif mark == ")":
                levels.pop()
        else:
            name += mark
    return found


def error(status: int, reason: str, **headers: str) -> Answer:
    """Refuse with an error of the API's."""
    return lambda handler: handler.send_refusal(status, reason, f"As scripted: {reason}.", **headers)


def html_page(status: int = 200, body: bytes = HTML_QUOTA_PAGE) -> Answer:
    """Answer with a web page."""
    return lambda handler: handler.send_body(status, body, "text/html; charset=utf-8")


def cut_body(after: int, *, reset: bool = False) -> Answer:
    """Promise the whole file and hang up, or reset, after so many bytes."""
    return lambda handler: handler.send_media(cut_after=after, reset=reset)


def other_bytes(content: bytes) -> Answer:
    """Send other bytes than those whose digest is told."""
    return lambda handler: handler.send_media(content=content)


def hang_up(handler: _Handler) -> None:
    """Close the connection without an answer."""
    handler.hang_up(reset=True)


def after_doing(change: Callable[[], object]) -> Answer:
    """Do something to the Drive right before the request is answered as ever."""

    def answer(handler: _Handler) -> None:
        change()
        handler._check_caller()
        getattr(handler, f"_answer_{handler.route.partition(':')[0]}")()

    return answer


def slowly(released: threading.Event) -> Answer:
    """Answer as ever, but not before the event is set."""
    return after_doing(lambda: released.wait(60))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about a client that hung up."""


@contextmanager
def serve_drive(**fields: Any) -> Iterator[Drive]:
    """Run a Drive on a loopback port for the length of the `with`."""
    drive = Drive(**fields)
    handler = type("Handler", (_Handler,), {"drive": drive})
    server = _Server(("127.0.0.1", 0), handler)
    drive.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield drive
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
