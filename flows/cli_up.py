"""`catchment up`: server, Blocks, deployments and a worker at one word."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from blocks._errors import CatchmentError, WrongUse
from blocks._http import is_loopback
from flows._services import Service, StopSignals, is_answering

_SETUP_SECONDS = 240.0
_WATCH_SECONDS = 0.2
_PYTHON = [sys.executable, "-P", "-m"]  # -P: a folder named flows where the user stands is none of ours

# Prefect's newer UI (v2) sends what is clicked to an analytics host from the browser; the older one shows the same
# pages, tables in artifacts included, and asks nobody. Whoever prefers v2 sets the variable.
_QUIET = {
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}
_LOG_LEVEL = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO"}  # the console of the children is their log file
_WORKER_QUERY_SECONDS = "5"  # Prefect's 15 are for fleets; here someone has just pressed Run


def up(
    *,
    port: Annotated[int, Parameter(help="Port of the Prefect server that is started.")] = 4200,
    host: Annotated[str, Parameter(help="Address it listens on; 0.0.0.0: every one of this machine.")] = "127.0.0.1",
    library: Annotated[Path | None, Parameter(help="Library folder; else CATCHMENT_LIBRARY, or ./library.")] = None,
    limit: Annotated[int | None, Parameter(help="Most runs at once; without it as many as are due.")] = None,
) -> None:
    """Run everything until Ctrl-C: a Prefect server with its UI, the Blocks, the deployments and a worker.

    Where PREFECT_API_URL is configured that server is used and none is started.

    Raises:
        WrongUse: the port is taken, or the library can not be a folder here.
        CatchmentError: the configured server does not answer, or something that was started ended on its own.
    """
    home = _choose_library(library)
    logs = _choose_logs(home)
    configured = _find_configured_api()
    environment = _make_environment(home, configured or _api_url(host, port))
    _say(f"library   {home}", f"logs      {logs}")
    with StopSignals().watching() as stop, _stopping_in_turn() as services:
        if configured:
            _check_configured(configured)
        else:
            _check_port(host, port)
            command = _prefect("server", "start", "--host", host, "--port", str(port))
            services.start("Prefect server", command, logs / "server.log", environment)
        _say("setting up … (half a minute the first time)")
        command = [*_PYTHON, "deployments.apply"]
        services.run("set-up", command, logs / "set-up.log", environment, stop)
        if not stop.asked:
            command = _prefect("worker", "start", "--pool", "catchment", "--type", "process")
            command += ["--limit", str(limit)] if limit else []
            services.start("worker", command, logs / "worker.log", environment)
            _say(*_describe(environment["PREFECT_API_URL"], host if not configured else None))
            services.watch(stop)
        _say("stopping …")


class _Services:
    """What `up` has started."""

    def __init__(self, exits: ExitStack) -> None:
        self._exits = exits
        self._lasting: list[Service] = []

    def start(self, name: str, command: list[str], log: Path, environment: dict[str, str]) -> Service:
        """Start a program that is to run as long as `up` does."""
        service = Service(name, command, log=log, environment=environment)
        self._exits.callback(service.stop)
        self._lasting.append(service)
        return service

    def run(self, name: str, command: list[str], log: Path, environment: dict[str, str], stop: StopSignals) -> None:
        """Run a program that ends by itself, and return early when someone asked to stop.

        Raises:
            CatchmentError: it failed or took too long, or one of the lasting programs ended.
        """
        passing = Service(name, command, log=log, environment=environment)
        self._exits.callback(passing.stop)
        deadline = time.monotonic() + _SETUP_SECONDS
        while (code := passing.exit_code) is None and time.monotonic() < deadline:
            self._check()
            if stop.wait(_WATCH_SECONDS):
                return
        if code != 0:
            self._check()
            raise _ended(passing, code)

    def watch(self, stop: StopSignals) -> None:
        """Return when someone asked to stop.

        Raises:
            CatchmentError: a program ended on its own.
        """
        while not stop.wait(_WATCH_SECONDS):
            self._check()

    def _check(self) -> None:
        for service in self._lasting:
            if (code := service.exit_code) is not None:
                raise _ended(service, code)


@contextmanager
def _stopping_in_turn() -> Iterator[_Services]:
    """Stop what was started, the last first: a worker can still tell its server how its runs ended."""
    with ExitStack() as exits:
        yield _Services(exits)


def _choose_library(library: Path | None) -> str:
    """Return the library as workers, which run in other folders, can use it: an absolute folder or a Block's name."""
    wanted = str(library or os.environ.get("CATCHMENT_LIBRARY", "").strip() or "library")
    if wanted.startswith("image-library/") and library is None:
        return wanted
    folder = Path(wanted).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WrongUse(f"The library folder {folder} can not be made ({error.strerror}); name another.") from error
    return str(folder)


def _choose_logs(library: str) -> Path:
    is_folder = Path(library).is_absolute()
    return (Path(library) if is_folder else Path.cwd()) / ".catchment" / "logs"


def _find_configured_api() -> str | None:
    from prefect.settings import get_current_settings  # most of a second, which --help should not cost

    return get_current_settings().api.url


def _api_url(host: str, port: int) -> str:
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - recognised, not bound
    return f"http://{f'[{reached}]' if ':' in reached else reached}:{port}/api"


def _make_environment(library: str, api_url: str) -> dict[str, str]:
    environment = {"PREFECT_WORKER_QUERY_SECONDS": _WORKER_QUERY_SECONDS, **_QUIET, **os.environ}
    environment |= _LOG_LEVEL | {"PREFECT_API_URL": api_url, "CATCHMENT_LIBRARY": library, "PYTHONUNBUFFERED": "1"}
    if secret := environment.get("PREFECT_SERVER_API_AUTH_STRING"):
        environment.setdefault("PREFECT_API_AUTH_STRING", secret)
    return environment


def _prefect(*arguments: str) -> list[str]:
    return [*_PYTHON, "prefect", *arguments]


def _check_configured(api_url: str) -> None:
    if not is_answering(api_url):
        raise CatchmentError(
            f"No Prefect server answers at {api_url}, which PREFECT_API_URL or the Prefect profile names: start it, or "
            "unset that to have one started here."
        )


def _check_port(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise WrongUse(f"{host} is no address of this machine; choose another by --host.") from error
    except OSError as error:
        api_url = _api_url(host, port)
        if is_answering(api_url):
            raise WrongUse(
                f"A Prefect server already runs at {api_url}. Use it: PREFECT_API_URL={api_url} catchment up; or start "
                "another one with --port."
            ) from error
        raise WrongUse(f"Port {port} of {host} can not be had ({error.strerror}); choose another by --port.") from error


def _ended(service: Service, code: int | None) -> CatchmentError:
    how = f"ended with exit code {code}" if code is not None else "did not finish"
    return CatchmentError(f"The {service.name} {how}, so everything is stopped; its last words are in {service.log}")


def _describe(api_url: str, host: str | None) -> list[str]:
    lines = [
        "",
        f"UI        {api_url.removesuffix('/api')}",
        "next      save a source, in the UI under Blocks or by catchment sources add; it is taken at the full hour,",
        "          or now by Run on a deployment. In other terminals first:",
        f"          export PREFECT_API_URL={api_url}",
    ]
    if host and not is_loopback(host) and "PREFECT_SERVER_API_AUTH_STRING" not in os.environ:
        lines.append(
            "careful   whoever reaches this address may use it; PREFECT_SERVER_API_AUTH_STRING=user:password asks"
        )
    return [*lines, "stop      Ctrl-C", ""]


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
