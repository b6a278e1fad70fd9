"""The command line: every command loaded when it is called, every error a line that says what to do.

Exit codes: 0 done, 1 the source, the library or a strict run failed, 2 wrong use, 130 interrupted.
"""

import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from cyclopts import App, CycloptsError

from blocks._errors import CatchmentError, LibraryRefused, WrongUse
from flows._prefect_server import collect_rarely
from flows.cli_server import SHARED_LINK, start_own_server

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    # The command itself says what happened; Prefect's log of the run is in its database all the same.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}
"""Settings of Prefect for a run from a terminal; those of the user win."""

_PYDANTIC_JARGON = re.compile(r"\d+ validation errors? for \S+\s+|\s*\[type=.*", re.DOTALL)
_SAVED_BLOCK = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*/[^/]+")

app = App(
    name="catchment",
    help="Bring images from wherever cameras and people leave them into one library, each once, with its history.",
    version=lambda: version("catchment"),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)

_COMMANDS = {
    "ingest": ("flows.cli_ingest:ingest", "Bring what is new from one source into the library."),
    "ingest-all": ("flows.cli_ingest:ingest_all", "Bring what is new from every saved, active source."),
    "capture": ("flows.cli_capture:capture", "Take frames from a live camera (RTSP)."),
    "upload": ("flows.cli_uploads:upload", "Hand pictures over as those of one camera, each with its verdict."),
    "drop-folder": ("flows.cli_uploads:drop_folder", "Take what was dropped into a folder, and sort it."),
    "download-range": ("flows.cli_terminal:download_range", "Bring a terminal's gate pictures of given dates."),
    "list": ("flows.cli_ingest:list_source", "Show the files a source holds, and fetch none of them."),
    "sources": ("flows.cli_sources:sources", "Show, add, pause, resume and remove saved sources."),
    "images": ("flows.cli_catalog:images", "Show the library's images, newest first."),
    "image": ("flows.cli_catalog:image", "Show everything known about one image."),
    "runs": ("flows.cli_catalog:runs", "Show the runs, newest first."),
    "status": ("flows.cli_catalog:status", "Show what became of every file of one run."),
    "retry": ("flows.cli_catalog:retry", "Have failed files tried again by the next run."),
    "report": ("flows.cli_report:report", "Show what came of a camera's pictures by date, and the gaps."),
    "organize": ("flows.cli_organize:organize", "Take a tree of downloads into the layout and the catalog."),
    "verify": ("flows.cli_verify:verify", "Compare the library's files with the catalog, and mend what can be."),
    "expire": ("flows.cli_retention:expire_images", "Show, then remove, images that were kept long enough."),
    "metrics": ("flows.cli_metrics:metrics", "Print or serve the library's figures for Prometheus."),
    "doctor": ("flows.cli_doctor:doctor", "Check what catchment needs, and say how to mend what is broken."),
    "up": ("flows.cli_up:up", "Run everything: server, deployments and worker, until Ctrl-C."),
    "demo": ("flows.cli_demo:demo", "Run the main job on a small camera directory made for the purpose."),
}

for _name, (_path, _help) in _COMMANDS.items():
    app.command(_path, name=_name, help=_help)


def main() -> None:
    """Run the command that the process was started with, and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; nothing a user can cause ends in a traceback.

    `CATCHMENT_DEBUG=1` in the environment lets errors through with their tracebacks.
    """
    collect_rarely()
    is_loud = "--verbose" in arguments or "up" in arguments[:1]
    for name, value in QUIET.items():
        if name != "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL" or not is_loud:
            os.environ.setdefault(name, value)
    _keep_proxies_off_loopback()
    try:
        return _call(arguments)
    except KeyboardInterrupt:
        return _fail("interrupted; what was stored stays stored, and the next run goes on from there", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if os.environ.get("CATCHMENT_DEBUG"):
            raise
        return _fail(explain(error), exit_code(error))


def _call(arguments: Sequence[str]) -> int:
    if any("\0" in argument for argument in arguments):
        raise WrongUse("An argument holds a NUL character, which no name or address can.")
    if needs_api(arguments):
        start_own_server()
    code = app(arguments, exit_on_error=False, print_error=False)
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def explain(error: Exception) -> str:
    """Return what to do about `error`; of one that is none of ours never the text, which may hold what is secret."""
    if isinstance(error, CycloptsError):
        return _PYDANTIC_JARGON.sub("", str(error))
    if isinstance(error, CatchmentError):
        return str(error)
    if isinstance(error, EOFError):
        return "the input ended before the question was answered, so nothing was done"
    if isinstance(error, ImportError) and "socksio" in str(error):  # as httpx puts it
        return "a SOCKS proxy is set (ALL_PROXY or the like), which takes: pip install 'httpx[socks]'; or unset it"
    import httpx  # by now it has been imported; not so when a command starts

    # Sources tell their own errors: these come from Prefect's client.
    if isinstance(error, httpx.HTTPStatusError):
        return (
            f"Prefect's API answered {error.response.status_code}: check PREFECT_API_URL and, where it asks for a "
            "login, PREFECT_API_AUTH_STRING or PREFECT_API_KEY"
        )
    if isinstance(error, httpx.RequestError):
        return f"Prefect's API does not answer ({type(error).__name__}): start it, or correct PREFECT_API_URL"
    return f"unexpected {type(error).__name__}; CATCHMENT_DEBUG=1 before the command shows where it came from"


def _keep_proxies_off_loopback() -> None:
    """Let Prefect's own connections to this machine, its websockets among them, pass by the proxy for the world."""
    for name in ("NO_PROXY", "no_proxy"):
        known = [host for host in os.environ.get(name, "").split(",") if host.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*known, "127.0.0.1", "localhost"]))


def exit_code(error: BaseException) -> int:
    """Return the exit code of a command that ended with `error`."""
    return 2 if isinstance(error, WrongUse | LibraryRefused | CycloptsError | EOFError) else 1


def needs_api(arguments: Sequence[str]) -> bool:
    """Tell from bare arguments whether the command will talk to Prefect's API, so that its server can start early.

    Commands that run flows do, and whatever names a saved Block (`type-slug/name`) or needs saved credentials.
    """
    if not arguments or {"--help", "-h", "--version"} & set(arguments):
        return False
    if arguments[0] in {"sources", "ingest-all", "doctor", "capture", "upload", "drop-folder", "download-range"} or (
        (arguments[0] == "ingest" and "--dry-run" not in arguments)
        or (arguments[0] == "organize" and "--apply" in arguments)
    ):
        return True
    if arguments[0] in {"up", "demo"}:
        return False
    values = [argument.rpartition("=")[2] for argument in arguments]
    if not any(value.startswith("--library") for value in arguments):
        values.append(os.environ.get("CATCHMENT_LIBRARY", ""))
    if any(SHARED_LINK.match(argument) for argument in arguments):
        return True
    return any(_SAVED_BLOCK.fullmatch(value) and not Path(value).exists() for value in values)


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 - the terminal is what a command talks to
    return code
