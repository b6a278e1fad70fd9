"""Dropbox's API v2 on a loopback port, as dropbox-api-spec and its HTTP documentation have it, misbehaving on command.

with serve_dropbox() as server:
    server.put("/Camera Uploads/a.jpg", JPEG)
    link = server.share("/Camera Uploads")
    server.fault("files/download", cut_after(1000), None)       # the first is cut, the second as it should be
    ...
    assert [call.route for call in server.calls] == ["files/list_folder", ...]

Answers what this project asks: list_folder and its continuation (own folders, recursive or not, and shared links),
download, get_shared_link_file, get_shared_link_metadata, and the token endpoint. It is strict where the vendor is, so
that what its own SDK is answered, ours is answered.
"""

import base64
import hashlib
import itertools
import json
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.servers._programs import require_program

APP_KEY = "k3yofthetestsapp"
APP_SECRET = "canary-app-secret-5d1e"
REFRESH_TOKEN = "canary-refresh-token-5d1e"
LONG_AGO = datetime(2026, 3, 1, 10, 20, tzinfo=UTC)
SCOPES = frozenset({"files.metadata.read", "files.content.read", "sharing.read"})

_ROUTE_SCOPES = {
    "files/list_folder": "files.metadata.read",
    "files/list_folder/continue": "files.metadata.read",
    "files/download": "files.content.read",
    "sharing/get_shared_link_file": "sharing.read",
    "sharing/get_shared_link_metadata": "sharing.read",
}
_USER_ONLY = {"files/download"}
_CONTENT_ROUTES = {"files/download", "sharing/get_shared_link_file"}
_PERMISSIONS = dict.fromkeys(
    ("can_revoke", "can_set_expiry", "can_remove_expiry", "can_allow_download", "can_disallow_download",
     "allow_comments", "team_restricts_comments"), False
) | {"visibility_policies": [], "allow_download": True}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """A file or, without content, a folder."""

    path: str
    id: str
    content: bytes | None = None
    rev: str = ""
    client_modified: datetime = LONG_AGO
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Share:
    path: str
    url: str
    password: str | None = None
    expires: datetime | None = None
    is_revoked: bool = False

    @property
    def is_expired(self) -> bool:
        return self.expires is not None and self.expires < datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came; `argument` of its body or its header."""

    route: str
    argument: Mapping[str, Any]
    headers: Mapping[str, str]


@dataclass(slots=True)
class _Cursor:
    base: str
    recursive: bool
    share: Share | None
    pending: deque[str]
    seen: int
    limit: int
    namespace: str


class Refusal(Exception):
    """An answer that is no."""

    def __init__(self, status: int, body: Any, **headers: str) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers


Fault = Callable[["_Handler", "Call"], bool]
"""Answers in place of the server, or says False after having seen to something else."""


class DropboxServer:
    """What the server holds and was asked; change it while it runs."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.url = self.tls_url = ""
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        with self.lock:
            self.items: dict[str, Item] = {}
            self.journal: list[str] = []
            self.shares: dict[str, Share] = {}
            self.cursors: dict[str, _Cursor] = {}
            self.tokens: dict[str, frozenset[str]] = {}
            self.expired: set[str] = set()
            self.namespaces: dict[str, str] = {}
            self.calls: list[Call] = []
            self.page_size = 2000
            self.faults: dict[str, deque[Fault | None]] = defaultdict(deque)
            self._numbers = itertools.count(1)

    def put(self, path: str, content: bytes, modified: datetime = LONG_AGO, **extra: Any) -> Item:
        """Write or replace a file, and make the folders above it; `extra` are further fields of its entry."""
        with self.lock:
            folders = path.split("/")[1:-1]
            for depth in range(1, len(folders) + 1):
                self.make_folder("/" + "/".join(folders[:depth]))
            old = self.items.get(path.lower())
            number = next(self._numbers)
            item = Item(path, old.id if old else f"id:{number:022d}", content, f"{number:013x}", modified, extra)
            self._set(item)
            return item

    def make_folder(self, path: str) -> None:
        with self.lock:
            if path.lower() not in self.items:
                self._set(Item(path, f"id:{next(self._numbers):022d}"))

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it; as at Dropbox only the folder itself is told of."""
        with self.lock:
            place = path.lower()
            for inner in [known for known in self.items if known == place or known.startswith(f"{place}/")]:
                del self.items[inner]
            self.journal.append(path)

    def move(self, old: str, new: str) -> None:
        with self.lock:
            item = self.items[old.lower()]
            self.remove(old)
            self._set(Item(new, item.id, item.content, item.rev, item.client_modified, item.extra))

    def _set(self, item: Item) -> None:
        self.items[item.path.lower()] = item
        self.journal.append(item.path)

    def share(
        self, path: str, *, password: str | None = None, expires: datetime | None = None, is_old: bool = False
    ) -> str:
        """Return a new link to a folder or file."""
        number = next(self._numbers)
        kind = "fo" if self.items[path.lower()].content is None else "fi"
        url = (
            f"https://www.dropbox.com/scl/{kind}/share{number:04d}/AAcanaryhash{number}?rlkey=canaryrlkey{number}&dl=0"
        )
        if is_old:
            url = f"https://www.dropbox.com/sh/share{number:04d}/AAcanaryoldkey{number}?dl=0"
        self.shares[url] = Share(path.lower(), url, password, expires)
        return url

    def share_of(self, path: str) -> str:
        """Return a new link to a folder, which is made if it is not there."""
        self.make_folder(path)
        return self.share(path)

    def revoke(self, url: str) -> None:
        share = self.shares[url]
        self.shares[url] = Share(share.path, url, share.password, share.expires, is_revoked=True)

    def issue_token(self, scopes: frozenset[str] = SCOPES) -> str:
        """Return a new access token that is good until `expire_tokens`."""
        with self.lock:
            token = f"canary-sl.token{next(self._numbers)}"
            self.tokens[token] = scopes
            return token

    def expire_tokens(self) -> None:
        with self.lock:
            self.expired |= set(self.tokens)

    def forget_cursors(self) -> None:
        """Answer every cursor given out so far with `reset`."""
        with self.lock:
            self.cursors.clear()

    def fault(self, route: str, *faults: Fault | None) -> None:
        """Let the next requests of `route` meet these, one each; None is a good answer."""
        with self.lock:
            self.faults[route].extend(faults)

    def routes(self) -> list[str]:
        """Return what was asked for, in order."""
        with self.lock:
            return [call.route for call in self.calls]

    def count(self, route: str) -> int:
        return self.routes().count(route)

    def answer(self, call: Call) -> tuple[dict[str, Any], Item | None]:
        """Return the JSON and, for a download, the file that answer a call."""
        with self.lock:
            self._check_login(call)
            match call.route:
                case "files/list_folder":
                    return self._list(call), None
                case "files/list_folder/continue":
                    cursor = self.cursors.get(call.argument["cursor"])
                    if cursor is None:
                        raise refuse("reset")
                    return self._next_page(cursor), None
                case "files/download":
                    item = self._find_file(call.argument["path"], _namespace(call, self))
                    return _describe(item, ""), item
                case "sharing/get_shared_link_file":
                    share = self._open(call.argument["url"], call.argument.get("link_password"))
                    item = self._find_in(share, call.argument.get("path") or "")
                    if item.content is None:
                        raise refuse("shared_link_is_directory")
                    return _describe_link(item, share), item
                case "sharing/get_shared_link_metadata":
                    share = self._open(call.argument["url"], call.argument.get("link_password"), is_question=True)
                    return _describe_link(self.items[share.path], share), None
        raise Refusal(404, "not found")

    def _check_login(self, call: Call) -> None:
        scheme, _, word = call.headers.get("authorization", "").partition(" ")
        if scheme == "Basic":
            if base64.b64decode(word).decode() != f"{APP_KEY}:{APP_SECRET}":
                raise Refusal(400, "Invalid authorization value in HTTP header")
            if call.route in _USER_ONLY:
                raise Refusal(400, f'Error in call to API function "{call.route}": This API function operates on a '
                              "single Dropbox account, but the authorization was made by an app.")  # fmt: skip
            return
        if word in self.expired:
            raise Refusal(401, _error("expired_access_token"))
        if word not in self.tokens:
            raise Refusal(401, _error("invalid_access_token"))
        scope = _ROUTE_SCOPES[call.route]
        if scope not in self.tokens[word]:
            error = {".tag": "missing_scope", "required_scope": scope}
            raise Refusal(401, {"error_summary": "missing_scope/..", "error": error})

    def _list(self, call: Call) -> dict[str, Any]:
        argument = call.argument
        path, link, limit = argument["path"], argument.get("shared_link"), argument.get("limit", 2000)
        say = f'Error in call to API function "{call.route}": request body: '
        if path == "/":
            raise Refusal(400, say + 'path: Specify the root folder as an empty string rather than as "/".')
        if not re.fullmatch(r"(/(.|[\r\n])*)?", path):
            raise Refusal(400, say + "path: did not match pattern")
        if not 1 <= limit <= 2000:
            raise Refusal(400, say + "limit: not in range")
        if link is not None:
            if argument.get("recursive"):
                raise Refusal(400, say + "recursive: Recursive list folder is not supported for shared link.")
            share = self._open(link["url"], link.get("password"))
            folder = self._find_in(share, path)
            if folder.content is not None:
                raise refuse("path", "not_folder")
            return self._begin(folder.path.lower(), False, share, limit, "")
        namespace = _namespace(call, self)
        base = (namespace + path).lower()
        if base and base not in self.items:
            raise refuse("path", "not_found")
        if base and self.items[base].content is not None:
            raise refuse("path", "not_folder")
        return self._begin(base, bool(argument.get("recursive")), None, limit, namespace)

    def _begin(self, base: str, recursive: bool, share: Share | None, limit: int, namespace: str) -> dict[str, Any]:
        inside = [place for place in self.items if place.startswith(f"{base}/")]
        pending = deque(place for place in inside if recursive or "/" not in place[len(base) + 1 :])
        return self._next_page(_Cursor(base, recursive, share, pending, len(self.journal), limit, namespace))

    def _next_page(self, cursor: _Cursor) -> dict[str, Any]:
        """Answer with what is pending, and once that is through with what changed since."""
        size = min(cursor.limit, self.page_size)
        pending, seen, entries = deque(cursor.pending), cursor.seen, []
        while pending and len(entries) < size:
            place = pending.popleft()
            if place in self.items:
                entries.append(_describe(self.items[place], cursor.namespace, cursor.share))
        while not pending and seen < len(self.journal) and len(entries) < size:
            path = self.journal[seen]
            seen += 1
            inner = path.lower().removeprefix(f"{cursor.base}/")
            if inner == path.lower() or ("/" in inner and not cursor.recursive):
                continue
            item = self.items.get(path.lower())
            if item is not None:
                entries.append(_describe(item, cursor.namespace, cursor.share))
            else:
                shown = path.removeprefix(cursor.namespace)
                name = path.rpartition("/")[2]
                paths = {} if cursor.share else {"path_lower": shown.lower(), "path_display": shown}
                entries.append({".tag": "deleted", "name": name, **paths})
        name = f"AAcursor{next(self._numbers)}"
        self.cursors[name] = _Cursor(
            cursor.base, cursor.recursive, cursor.share, pending, seen, cursor.limit, cursor.namespace
        )
        return {"entries": entries, "cursor": name, "has_more": bool(pending) or seen < len(self.journal)}

    def _open(self, url: str, password: str | None, *, is_question: bool = False) -> Share:
        share = self.shares.get(url)
        if share is None or share.is_revoked:
            raise refuse("shared_link_not_found")
        if not is_question and (share.is_expired or (share.password is not None and password != share.password)):
            raise refuse("shared_link_access_denied")
        return share

    def _find_in(self, share: Share, path: str) -> Item:
        item = self.items.get(share.path + path.lower())
        if item is None:
            raise refuse("path", "not_found")
        return item

    def _find_file(self, path: str, namespace: str) -> Item:
        found = [item for item in self.items.values() if path in {item.id, f"rev:{item.rev}"}]
        item = found[0] if found else self.items.get((namespace + path).lower())
        if item is None:
            raise refuse("path", "not_found")
        if item.content is None:
            raise refuse("path", "not_file")
        if item.extra.get("is_downloadable") is False:
            raise refuse("unsupported_file")
        return item


def hash_content(content: bytes) -> str:
    """Return the content hash as Dropbox's page about it computes it, independently of our own code."""
    blocks = [content[start : start + 4194304] for start in range(0, len(content), 4194304)]
    return hashlib.sha256(b"".join(hashlib.sha256(block).digest() for block in blocks)).hexdigest()


def refuse(*tags: str) -> Refusal:
    """Return a 409 whose error is the union of `tags`, outermost first."""
    return Refusal(409, _error(*tags))


def _error(*tags: str) -> dict[str, Any]:
    error: dict[str, Any] = {}
    for tag in reversed(tags):
        error = {".tag": tag, tag: error} if error else {".tag": tag}
    return {"error_summary": "/".join([*tags, ".."]), "error": error}


def _namespace(call: Call, server: DropboxServer) -> str:
    header = call.headers.get("dropbox-api-path-root")
    if header is None:
        return ""
    root = json.loads(header)
    if root[".tag"] == "namespace_id" and root["namespace_id"] in server.namespaces:
        return server.namespaces[root["namespace_id"]]
    raise Refusal(422, _error("no_permission"))


def _describe(item: Item, namespace: str, share: Share | None = None) -> dict[str, Any]:
    shown = item.path.removeprefix(namespace)
    paths = {} if share else {"path_lower": shown.lower(), "path_display": shown}
    if item.content is None:
        return {".tag": "folder", "name": item.name, "id": item.id, **paths}
    return {
        ".tag": "file",
        "name": item.name,
        "id": item.id,
        **paths,
        "client_modified": f"{item.client_modified:%Y-%m-%dT%H:%M:%SZ}",
        "server_modified": f"{LONG_AGO:%Y-%m-%dT%H:%M:%SZ}",
        "rev": item.rev,
        "size": len(item.content),
        "is_downloadable": True,
        "content_hash": hash_content(item.content),
        **item.extra,
    }


def _describe_link(item: Item, share: Share) -> dict[str, Any]:
    kept = ("client_modified", "server_modified", "rev", "size")
    told = _describe(item, "", share)
    permissions = {**_PERMISSIONS, "require_password": share.password is not None}
    return {
        ".tag": told[".tag"],
        "url": share.url,
        "id": item.id,
        "name": item.name,
        "link_permissions": permissions,
        **({"expires": f"{share.expires:%Y-%m-%dT%H:%M:%SZ}"} if share.expires else {}),
        **({name: told[name] for name in kept} if item.content is not None else {}),
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_Server"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            self._serve(body)
        except Refusal as refusal:
            self.send(refusal.status, refusal.body, **refusal.headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _serve(self, body: bytes) -> None:
        place = self.server.place
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.path == "/oauth2/token":
            self._serve_token(body, headers)
            return
        route = self.path.removeprefix("/2/")
        call = Call(route, _read_argument(route, body, headers), headers)
        with place.lock:
            place.calls.append(call)
            queue = place.faults[route]
            fault = queue.popleft() if queue else None
        if fault is not None and fault(self, call):
            return
        answer, item = place.answer(call)
        if item is None:
            self.send(200, answer)
        else:
            self.send_file(answer, item)

    def _serve_token(self, body: bytes, headers: Mapping[str, str]) -> None:
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        place = self.server.place
        with place.lock:
            place.calls.append(Call("oauth2/token", {"grant_type": form.get("grant_type")}, headers))
            queue = place.faults["oauth2/token"]
            fault = queue.popleft() if queue else None
        if fault is not None and fault(self, place.calls[-1]):
            return
        if form.get("client_id") != APP_KEY or form.get("client_secret", APP_SECRET) != APP_SECRET:
            raise Refusal(400, {"error": "invalid_client", "error_description": "Invalid client_id or client_secret"})
        if form.get("grant_type") != "refresh_token" or form.get("refresh_token") != REFRESH_TOKEN:
            raise Refusal(400, {"error": "invalid_grant", "error_description": "refresh token is invalid or revoked"})
        self.send(200, {"access_token": place.issue_token(), "token_type": "bearer", "expires_in": 14400})

    def send(self, status: int, body: Any, **headers: str) -> None:
        """Answer with JSON, or with a string as plain text."""
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        kind = "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"
        self.send_head(status, len(content), **{"content_type": kind} | headers)
        self.wfile.write(content)

    def send_head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(length))
        self.end_headers()

    def send_file(
        self, answer: dict[str, Any], item: Item, *, content: bytes | None = None, most: int | None = None
    ) -> None:
        """Answer with a file, from where Range asks; `content` in place of its own, hanging up after `most` bytes."""
        content = content if content is not None else item.content or b""
        fields = {
            "content_type": "application/octet-stream",
            "etag": f'W/"{item.rev}"',
            "accept_ranges": "bytes",
            "dropbox_api_result": json.dumps(answer),
        }
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        status, start = 200, 0
        if asked and int(asked[1]) < len(content):
            status, start = 206, int(asked[1])
            fields["content_range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send_head(status, len(content) - start, **fields)
        sent = content[start:] if most is None else content[start : start + most]
        self.wfile.write(sent)
        if len(sent) < len(content) - start:
            self.wfile.flush()
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


def _read_argument(route: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    say = f'Error in call to API function "{route}": '
    if route in _CONTENT_ROUTES:
        if "content-type" in headers and headers["content-type"] not in {"application/octet-stream", "text/plain"}:
            raise Refusal(400, say + f'Bad HTTP "Content-Type" header: "{headers["content-type"]}".')
        text = headers.get("dropbox-api-arg", "")
        if not text.isascii() or "\x7f" in text or body:
            raise Refusal(400, say + 'HTTP header "Dropbox-API-Arg": could not decode input as JSON')
    else:
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            raise Refusal(400, say + 'Bad HTTP "Content-Type" header: expecting "application/json".')
        text = body.decode()
    try:
        argument = json.loads(text)
    except ValueError:
        raise Refusal(400, say + "could not decode input as JSON") from None
    if not isinstance(argument, dict):
        raise Refusal(400, say + "expected object")
    return argument


def answer_with(status: int, body: Any, **headers: str) -> Fault:
    """Answer with `status` and JSON, or a string with `content_type`."""

    def fault(handler: _Handler, call: Call) -> bool:
        handler.send(status, body, **headers)
        return True

    return fault


def limit_rate(seconds: int, *, is_json: bool = True) -> Fault:
    """Answer 429, with a body that is JSON or none."""
    error = {"reason": {".tag": "too_many_requests"}, "retry_after": seconds}
    body = {"error_summary": "too_many_requests/..", "error": error} if is_json else ""
    return answer_with(429, body, retry_after=str(seconds))


def answer_html(status: int = 200) -> Fault:
    """Answer with a web page."""
    page = "<!DOCTYPE html>\n<html><head><title>Dropbox - Error</title></head><body>Try later</body></html>"
    return answer_with(status, page, content_type="text/html; charset=utf-8")


def cut_after(count: int) -> Fault:
    """Hang up after so many bytes of a file."""

    def fault(handler: _Handler, call: Call) -> bool:
        answer, item = handler.server.place.answer(call)
        assert item is not None
        handler.send_file(answer, item, most=count)
        return True

    return fault


def stall_after(count: int, released: threading.Event) -> Fault:
    """Send so many bytes of a file, and the rest never."""

    def fault(handler: _Handler, call: Call) -> bool:
        answer, item = handler.server.place.answer(call)
        assert item is not None
        handler.send_file(answer, item, most=count)
        released.wait(60)
        return True

    return fault


def corrupt() -> Fault:
    """Send a file with one byte wrong."""

    def fault(handler: _Handler, call: Call) -> bool:
        answer, item = handler.server.place.answer(call)
        assert item is not None
        assert item.content is not None
        middle = len(item.content) // 2
        wrong = bytes([item.content[middle] ^ 1])
        handler.send_file(answer, item, content=item.content[:middle] + wrong + item.content[middle + 1 :])
        return True

    return fault


def hang_up() -> Fault:
    """Reset the connection without an answer."""

    def fault(handler: _Handler, call: Call) -> bool:
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.close_connection = True
        raise ConnectionResetError

    return fault


def before(change: Callable[[], object]) -> Fault:
    """Let something happen, then answer as ever."""

    def fault(handler: _Handler, call: Call) -> bool:
        change()
        return False

    return fault


def slowly(seconds: float) -> Fault:
    """Answer late."""
    return before(lambda: time.sleep(seconds))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, place: DropboxServer, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.place = place
        self._context = context
        self._open: set[socket.socket] = set()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with suppress(OSError):
            if self._context is not None:
                request = self._context.wrap_socket(request, server_side=True)
            self._open.add(request)
            super().process_request_thread(request, client_address)
        self._open.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    def stop(self) -> None:
        self.shutdown()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


@contextmanager
def serve_dropbox(tls_folder: Path | None = None) -> Iterator[DropboxServer]:
    """Run the server; with `tls_folder` over TLS too, with a certificate of an own authority, `tls_folder/ca.pem`."""
    place = DropboxServer()
    servers = [_Server(place)]
    place.url = f"http://127.0.0.1:{servers[0].server_address[1]}"
    if tls_folder is not None:
        servers.append(_Server(place, _make_context(tls_folder)))
        place.tls_url = f"https://127.0.0.1:{servers[1].server_address[1]}"
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield place
    finally:
        for server in servers:
            server.stop()
        for thread in threads:
            thread.join(10)


def _make_context(folder: Path) -> ssl.SSLContext:
    openssl = require_program("openssl")
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:TRUE"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=catchment tests"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.pem")]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context
