"""Caddy's file_server with its browse page, HTML or, on `Accept: application/json`, JSON."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.servers._programs import require_program
from tests.servers.http_server import HttpServer, find_free_port, private_folder, running


@contextmanager
def serve_caddy(
    root: Path, *, users: Mapping[str, str] | None = None, zone: str = "UTC", extra_config: str = ""
) -> Iterator[HttpServer]:
    """Serve `root`; `users`: names and passwords for Basic authentication; `zone`: the server's own time zone.

    `extra_config` goes into the site block.
    """
    program = require_program("caddy")
    port = find_free_port()
    with private_folder() as folder:
        log = folder / "access.log"
        accounts = "\n".join(f"{name} {_hash(program, password)}" for name, password in (users or {}).items())
        config = folder / "Caddyfile"
        config.write_text(f"""
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
    root * "{root}"
    log {{
        output file "{log}"
        format json
    }}
    {f"basicauth {{{chr(10)}{accounts}{chr(10)}}}" if accounts else ""}
    file_server browse
    {extra_config}
}}
""")
        command = [program, "run", "--config", config, "--adapter", "caddyfile"]
        env = {"TZ": zone, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        with running(command, port=port, log=folder / "error.log", env=env):
            yield HttpServer(f"http://127.0.0.1:{port}/", log, _parse_log)


def _parse_log(log: str) -> list[str]:
    requests = [json.loads(line)["request"] for line in log.splitlines()]
    return [f"{request['method']} {request['uri']} {request['proto']}" for request in requests]


def _hash(program: Path, password: str) -> str:
    command = [program, "hash-password", "--plaintext", password]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
