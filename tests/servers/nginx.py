"""nginx, with autoindex in its three formats or ngx-fancyindex."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from tests.servers._programs import require_program
from tests.servers.http_server import HttpServer, find_free_port, private_folder, running

_FANCYINDEX = Path("/usr/lib/nginx/modules/ngx_http_fancyindex_module.so")
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@contextmanager
def serve_nginx(
    root: Path,
    *,
    autoindex: Literal["html", "json", "xml", "off"] = "html",
    exact_size: bool = True,
    localtime: bool = False,
    fancyindex: bool = False,
    users: Mapping[str, str] | None = None,
    zone: str = "UTC",
    extra_config: str = "",
    http_config: str = "",
) -> Iterator[HttpServer]:
    """Serve `root`; `users`: names and passwords for Basic authentication; `zone`: the server's own time zone.

    `extra_config` goes into the server block, `http_config` into the http block around it.
    """
    program = require_program("nginx")
    if fancyindex:
        require_fancyindex()
    on = {True: "on", False: "off"}
    listing = (
        f"fancyindex on; fancyindex_exact_size {on[exact_size]}; fancyindex_localtime {on[localtime]};"
        if fancyindex
        else f"autoindex {on[autoindex != 'off']}; autoindex_format {autoindex if autoindex != 'off' else 'html'}; "
        f"autoindex_exact_size {on[exact_size]}; autoindex_localtime {on[localtime]};"
    )
    port = find_free_port()
    with private_folder() as folder:
        log = folder / "access.log"
        (folder / "users").write_text("".join(f"{name}:{{PLAIN}}{word}\n" for name, word in (users or {}).items()))
        config = folder / "nginx.conf"
        config.write_text(f"""
            {f"load_module {_FANCYINDEX};" if fancyindex else ""}
            {"user root;" if os.geteuid() == 0 else ""}
            daemon off;
            worker_processes 1;
            pid "{folder}/pid";
            error_log stderr;
            events {{ worker_connections 512; }}
            http {{
                {" ".join(f'{name}_temp_path "{folder}/{name}";' for name in _TEMPORARY)}
                access_log "{log}";
                types {{ text/html html; image/jpeg jpg jpeg; image/png png; image/gif gif; image/webp webp; }}
                {http_config}
                server {{
                    listen 127.0.0.1:{port};
                    root "{root}";
                    {listing}
                    {f'auth_basic "cameras"; auth_basic_user_file "{folder}/users";' if users else ""}
                    {extra_config}
                }}
            }}
        """)
        errors = folder / "error.log"
        command = [program, "-p", folder, "-c", config, "-e", "stderr"]
        with running(command, port=port, log=errors, env={"TZ": zone}):
            yield HttpServer(f"http://127.0.0.1:{port}/", log)


def require_fancyindex() -> None:
    """Skip the test where ngx-fancyindex is missing, or fail it in CI."""
    if _FANCYINDEX.exists():
        return
    message = "ngx-fancyindex is not installed (Debian package libnginx-mod-http-fancyindex)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
