"""lighttpd with mod_dirlisting."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.servers._programs import require_program
from tests.servers.http_server import HttpServer, find_free_port, parse_request_lines, private_folder, running


@contextmanager
def serve_lighttpd(
    root: Path, *, users: Mapping[str, str] | None = None, zone: str = "UTC", extra_config: str = ""
) -> Iterator[HttpServer]:
    """Serve `root`; `users`: names and passwords for Basic authentication; `zone`: the server's own time zone.

    `extra_config` goes to the end of the configuration.
    """
    program = require_program("lighttpd")
    port = find_free_port()
    with private_folder() as folder:
        log = folder / "access.log"
        (folder / "users").write_text("".join(f"{name}:{word}\n" for name, word in (users or {}).items()))
        config = folder / "lighttpd.conf"
        # mod_dirlisting after mod_staticfile answers 403
        config.write_text(f"""
            server.modules = ("mod_auth", "mod_authn_file", "mod_accesslog", "mod_dirlisting", "mod_staticfile")
            server.bind = "127.0.0.1"
            server.port = {port}
            server.document-root = "{root}"
            server.upload-dirs = ("{folder}")
            accesslog.filename = "{log}"
            dir-listing.activate = "enable"
            mimetype.assign = (".html" => "text/html", ".jpg" => "image/jpeg", ".png" => "image/png")
            {_require(folder / "users") if users else ""}
            {extra_config}
        """)
        with running([program, "-D", "-f", config], port=port, log=folder / "error.log", env={"TZ": zone}) as pid:
            # lighttpd holds its log back for seconds and writes it out before it opens it anew
            yield HttpServer(f"http://127.0.0.1:{port}/", log, parse_request_lines, lambda: os.kill(pid, signal.SIGHUP))


def _require(users: Path) -> str:
    return f"""
        auth.backend = "plain"
        auth.backend.plain.userfile = "{users}"
        auth.require = ("" => ("method" => "basic", "realm" => "cameras", "require" => "valid-user"))
    """
