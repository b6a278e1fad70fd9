"""S3 servers that are stricter than rclone's: moto's, which honours conditions, and a small one that knows none."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, ClassVar

import boto3

from blocks._s3 import make_client
from tests.servers.http_server import find_free_port, private_folder, running

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

USER = "tester"
PASSWORD = "not-a-secret"


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3 server and the key it takes (moto takes any)."""

    url: str
    user: str = USER
    password: str = PASSWORD

    def client(self) -> "S3Client":
        """Return a client as catchment makes it."""
        return make_client(boto3.Session(self.user, self.password), {}, endpoint_url=self.url)


@contextmanager
def serve_moto(*buckets: str, port: int | None = None) -> Iterator[S3Server]:
    """Serve S3 from memory with `buckets` in it; on `port`, for who knows the server from before.

    moto 5.2 honours If-None-Match and If-Match (412), and keeps metadata; it stores ChecksumSHA256 unchecked.
    """
    port = port or find_free_port()
    with private_folder() as folder:
        log = folder / "moto.log"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with running([Path(command[0]), *command[1:]], port=port, log=log, seconds=30):
            server = S3Server(f"http://127.0.0.1:{port}")
            for bucket in buckets:
                server.client().create_bucket(Bucket=bucket)
            yield server


class _PlainHandler(BaseHTTPRequestHandler):
    """PUT, HEAD and GET of objects; a condition is answered with 501, as servers do that have none."""

    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, tuple[bytes, dict[str, str]]]] = {}

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "If-None-Match" in self.headers:
            error = b"<Error><Code>NotImplemented</Code><Message>no conditions</Message></Error>"
            self._answer(501, error)
            return
        noted = {name: value for name, value in self.headers.items() if name.lower().startswith("x-amz-meta-")}
        self.objects[self.path] = (body, noted)
        self._answer(200, b"")

    def do_GET(self) -> None:
        found = self.objects.get(self.path)
        if found is None:
            self._answer(404, b"")
        else:
            self._answer(200, found[0], found[1])

    do_HEAD = do_GET  # noqa: N815 - named by http.server

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Stay silent."""


@contextmanager
def serve_s3_without_conditions() -> Iterator[S3Server]:
    """Serve an S3 that answers conditional puts with 501 NotImplemented."""
    handler = type("Handler", (_PlainHandler,), {"objects": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield S3Server(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
