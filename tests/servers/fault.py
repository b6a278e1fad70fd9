"""An HTTP server that misbehaves on command: every path answers as scripted, and every request is written down.

with serve_faults() as server:
    server.on("/a.jpg", status(500), whole(JPEG))      # first 500, then the file, again and again
    ...
    assert [request.path for request in server.requests] == ["/a.jpg", "/a.jpg"]
"""

import gzip
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Exchange:
    """What an answer works with: the request, the connection, and the end of the server."""

    request: Request
    connection: socket.socket
    stopped: threading.Event

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def reset(self) -> None:
        """Make closing the connection a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Answer = Callable[[Exchange], bool]
"""Answers one request; returns whether the connection can take another."""


class FaultServer:
    """A server on a loopback port; paths without a script are 404; `accepted` counts connections."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}/"
        self.requests: list[Request] = []
        self.accepted = 0
        self._scripts: dict[str, list[Answer]] = {}
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._start(self._accept)

    def on(self, path: str, *answers: Answer) -> str:
        """Script `path`: one answer a request, the last one for ever; return its URL."""
        with self._lock:
            self._scripts[path] = list(answers)
        return self.url + path.lstrip("/")

    def requests_for(self, path: str) -> list[Request]:
        """Return the requests for `path`, in order."""
        return [request for request in self.requests if request.path == path]

    def stop(self) -> None:
        """Close every connection and wait for every thread."""
        self._stopped.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self.accepted += 1
                    self._connections.add(connection)
                self._start(self._serve, connection)

    def _serve(self, accepted: socket.socket) -> None:
        with suppress(OSError), self._wrap(accepted) as connection, connection.makefile("rb") as reader:
            if not (is_http := _speaks_http(connection)):
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            while is_http and (request := _read_request(reader)) is not None:
                if not self._answer_to(request)(Exchange(request, connection, self._stopped)):
                    break
        with self._lock:
            self._connections.discard(accepted)

    def _wrap(self, connection: socket.socket) -> socket.socket:
        if self._context is None:
            return connection
        try:
            return self._context.wrap_socket(connection, server_side=True)
        except OSError:
            connection.close()
            raise

    def _answer_to(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            script = self._scripts.get(urlsplit(request.path).path, [status(404)])
            return script.pop(0) if len(script) > 1 else script[0]


@contextmanager
def serve_faults(context: ssl.SSLContext | None = None) -> Iterator[FaultServer]:
    """Run a `FaultServer` for the length of the `with`; over TLS with a `context`."""
    server = FaultServer(context)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def refuse() -> Iterator[str]:
    """Yield the URL of a port that refuses every connection."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}/"


@contextmanager
def never_answer() -> Iterator[str]:
    """Yield the URL of a port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def whole(body: bytes, *, ranges: bool = True, **headers: str) -> Answer:
    """Answer with `body` as a good server does: with an ETag of its digest, and Range where `ranges`.

    Keywords are further headers (`content_type="text/html"`); an empty one is left out (`etag=""`).
    """

    def answer(exchange: Exchange) -> bool:
        fields = {"etag": f'"{sha256(body).hexdigest()[:16]}"'} | headers
        asked = re.fullmatch(r"bytes=(\d+)-", exchange.request.headers.get("range", ""))
        if not ranges or asked is None or exchange.request.headers.get("if-range") not in fields.values():
            return _send(exchange, 200, body, fields)
        start = int(asked[1])
        if start >= len(body):
            return _send(exchange, 416, b"", {"content_range": f"bytes */{len(body)}"})
        fields["content_range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return _send(exchange, 206, body[start:], fields)

    return answer


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer with `code`."""
    return lambda exchange: _send(exchange, code, body, headers)


def redirect(location: str, code: int = 302) -> Answer:
    """Send the client to `location`."""
    return status(code, location=location)


def raw(data: bytes) -> Answer:
    """Send exactly `data` and hang up; nothing at all for `b""`."""

    def answer(exchange: Exchange) -> bool:
        exchange.send(data)
        return False

    return answer


def stall(after: bytes = b"") -> Answer:
    """Send `after` and then nothing more until the client hangs up."""

    def answer(exchange: Exchange) -> bool:
        exchange.send(after)
        exchange.connection.recv(1)
        return False

    return answer


def drip(data: bytes, *, seconds: float) -> Answer:
    """Send the raw bytes of a whole response one by one, `seconds` apart."""

    def answer(exchange: Exchange) -> bool:
        for position in range(len(data)):
            exchange.send(data[position : position + 1])
            if exchange.stopped.wait(seconds):
                break
        return False

    return answer


def cut(body: bytes, after: int, *, reset: bool = False, declared: int | None = None, **headers: str) -> Answer:
    """Promise all of `body` (or `declared` bytes) and hang up, or reset, `after` so many bytes."""

    def answer(exchange: Exchange) -> bool:
        fields = {"etag": f'"{sha256(body).hexdigest()[:16]}"'} | headers
        exchange.send(head(200, len(body) if declared is None else declared, **fields) + body[:after])
        if reset:
            exchange.reset()
        return False

    return answer


def partial(body: bytes, start: int, total: int, **headers: str) -> Answer:
    """Answer 206 with all of `body`, called bytes `start`… of `total`, whatever was asked."""
    content_range = f"bytes {start}-{start + len(body) - 1}/{total}"
    return status(206, body, **({"content_range": content_range} | headers))


def chunked(body: bytes, *, finished: bool = True, **headers: str) -> Answer:
    """Answer in chunks, without a length; hang up before the last one unless `finished`."""

    def answer(exchange: Exchange) -> bool:
        exchange.send(head(200, None, transfer_encoding="chunked", **headers))
        for start in range(0, len(body), 10_000):
            piece = body[start : start + 10_000]
            exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        exchange.send(b"0\r\n\r\n" if finished else b"")
        return finished

    return answer


def until_closed(body: bytes, **headers: str) -> Answer:
    """Answer as HTTP/1.0 did: no length, the end of the connection is the end of the body."""
    return raw(head(200, None, **headers) + body)


def zipped(body: bytes) -> Answer:
    """Answer with gzip although nobody asked for it."""
    return status(200, gzip.compress(body), content_encoding="gzip")


def head(code: int, length: int | None, **headers: str) -> bytes:
    """Return status line and header fields of a response."""
    fields = {name.replace("_", "-"): value for name, value in headers.items() if value}
    if length is not None:
        fields["content-length"] = str(length)
    lines = [f"HTTP/1.1 {code} As Scripted", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _send(exchange: Exchange, code: int, body: bytes, headers: Mapping[str, str]) -> bool:
    exchange.send(head(code, len(body), **headers) + body)
    return True


def _speaks_http(connection: socket.socket) -> bool:
    """Tell whether what comes first can begin a request; a TLS greeting can not, and may never hold a line's end."""
    return isinstance(connection, ssl.SSLSocket) or connection.recv(1, socket.MSG_PEEK).isalpha()


def _read_request(reader: BinaryIO) -> Request | None:
    line = reader.readline().decode("latin-1").split()
    if len(line) != 3:
        return None
    headers = {}
    while (field := reader.readline().decode("latin-1").strip()) != "":
        name, _, value = field.partition(":")
        headers[name.lower()] = value.strip()
    return Request(line[0], line[1], headers)
