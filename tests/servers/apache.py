"""Apache httpd with mod_autoindex in every dress."""

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers._programs import require_program
from tests.servers.http_server import HttpServer, find_free_port, private_folder, running

_MODULES = Path("/usr/lib/apache2/modules")
_LOADED = (
    *("mpm_event", "authz_core", "authz_user", "authn_core", "authn_file", "auth_basic"),
    *("alias", "mime", "dir", "autoindex", "headers"),
)
_NOBODY = 65534


@contextmanager
def serve_apache(
    root: Path,
    *,
    options: Sequence[str] = ("FancyIndexing",),
    users: Mapping[str, str] | None = None,
    zone: str = "UTC",
    extra_config: str = "",
) -> Iterator[HttpServer]:
    """Serve `root` with `IndexOptions {options}`; `zone`: the server's time zone, in which it shows times.

    `users`: names and passwords for Basic authentication. `extra_config` goes to the end of the configuration.
    """
    program = require_program("apache2")
    as_root = os.geteuid() == 0
    port = find_free_port()
    with private_folder(owner=_NOBODY if as_root else None) as folder:
        log = folder / "access.log"
        (folder / "users").write_text("".join(f"{name}:{_sha1(word)}\n" for name, word in (users or {}).items()))
        (folder / "users").chmod(0o644)
        config = folder / "apache.conf"
        config.write_text(f"""
            ServerRoot "{folder}"
            ServerName localhost
            Listen 127.0.0.1:{port}
            PidFile "{folder}/pid"
            DefaultRuntimeDir "{folder}"
            Mutex file:{folder} default
            ErrorLog "{folder}/error.log"
            {chr(10).join(f"LoadModule {name}_module {_MODULES}/mod_{name}.so" for name in _LOADED)}
            StartServers 1
            MinSpareThreads 1
            MaxSpareThreads 25
            ThreadsPerChild 25
            MaxRequestWorkers 25
            LogFormat "%h %l %u %t \\"%r\\" %>s %b" common
            CustomLog "{log}" common
            TypesConfig /dev/null
            AddType text/html .html
            AddType image/jpeg .jpg .jpeg
            AddType image/png .png
            DefaultIcon /icons/unknown.gif
            AddIcon /icons/back.gif ..
            AddIcon /icons/folder.gif ^^DIRECTORY^^
            DocumentRoot "{root}"
            <Directory "{root}">
                Options Indexes FollowSymLinks
                {f"IndexOptions {' '.join(options)}" if options else ""}
                {_require(folder / "users") if users else "Require all granted"}
            </Directory>
            {extra_config}
        """)
        command = [*(_keep_reading() if as_root else ()), program, "-f", config, "-DFOREGROUND"]
        with running(command, port=port, log=folder / "error.log", env={"TZ": zone}):
            yield HttpServer(f"http://127.0.0.1:{port}/", log)


def _require(users: Path) -> str:
    return f'AuthType Basic\nAuthName "cameras"\nAuthUserFile "{users}"\nRequire valid-user'


def _sha1(password: str) -> str:
    """Return what `htpasswd -s` writes."""
    return "{SHA}" + base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()


def _keep_reading() -> Sequence[str | Path]:
    """Return the command before the command that drops root but still reads any folder.

    Apache refuses to serve as root, and another user does not get into the folders of a test that runs as root.
    """
    ids = (f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
    return (require_program("setpriv", "util-linux"), *ids, "--inh-caps=+dac_override", "--ambient-caps=+dac_override")
