"""`catchment doctor`: everything a run needs, checked one by one; each broken thing with the command that mends it."""

import math
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from queue import Empty, SimpleQueue

from packaging.requirements import Requirement

from blocks._errors import CatchmentError
from blocks._schema import HEAD
from blocks.library import ImageLibrary
from blocks.source import ImageSource
from flows._table import print_rows
from flows.cli_options import Format, Library, open_library
from flows.cli_server import await_api, has_own_server

_ENOUGH_BYTES = 2_000_000_000
_LEAST_BYTES = 200_000_000
_LONG_WAIT = timedelta(hours=1)
_SOURCE_SECONDS = 20.0
_ASKERS = 8


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: `state` is ok, warning or broken (all: healthy or degraded); `mend` says what to do."""

    check: str
    state: str
    message: str
    mend: str | None = None


def doctor(*, library: Library = None, style: Format = "table") -> int:
    """Check library, catalog, Prefect's API, every saved source and the versions; exit code 1 if anything is broken.

    Each source is asked once, with its credentials. The last line says if all is healthy or degraded.
    """
    broken: list[str] = []

    def run_all() -> Iterator[Check]:
        for some in (check_versions(), check_library(library), check_api()):
            for check in some:
                if check.state == "broken":
                    broken.append(check.check)
                yield check
        if broken:
            yield Check("health", "degraded", f"broken: {', '.join(broken)}")
        else:
            yield Check("health", "healthy", "nothing is broken")

    print_rows(map(asdict, run_all()), ("state", "check", "message", "mend"), style=style)
    return int(bool(broken))


def check_versions() -> Iterator[Check]:
    """Check what is installed against what catchment asks for: some newer versions do not work together."""
    wrong = [one for one in _needed() if not one.specifier.contains(_version(one.name), prereleases=True)]
    for one in wrong:
        yield Check("versions", "broken", f"{one.name} {_version(one.name)} does not fit", f'pip install "{one}"')
    if not wrong:
        told = ", ".join(f"{name} {_version(name)}" for name in ("prefect", "fastapi", "sqlalchemy"))
        yield Check("versions", "ok", told)
    try:
        import cv2
    except ImportError as error:
        headless = "pip uninstall -y opencv-python && pip install --force-reinstall opencv-python-headless"
        yield Check("opencv", "broken", f"cv2 can not be imported: {error}", headless)
    else:
        yield Check("opencv", "ok", f"cv2 {cv2.__version__}")
    if find_spec("pillow_heif"):
        yield Check("heic", "ok", f"pillow-heif {_version('pillow-heif')}")
    else:
        message = "HEIC pictures go to quarantine: pillow-heif is not installed"
        yield Check("heic", "warning", message, "pip install 'catchment[heif]'")


def check_library(wanted: str | None) -> Iterator[Check]:
    """Check that the library can be written to, has room, and that its catalog opens."""
    try:
        home = open_library(wanted, must_exist=False)
    except CatchmentError as error:
        yield Check("library", "broken", str(error), "catchment doctor --library FOLDER")
        return
    if not home.has_catalog:
        yield Check("library", "ok", f"{home.location} is made by the first run")
        return
    try:
        _write_and_remove(home)
        yield Check("library", "ok", f"{home.location} can be written to")
        yield from _check_room(home)
        yield _check_spool(home)
    except CatchmentError as error:
        yield Check("library", "broken", str(error), f"make {home.location} writable for this user")
    try:
        home.catalog()
        yield Check("catalog", "ok", f"open, schema {HEAD}")
    except CatchmentError as error:
        yield Check(
            "catalog", "broken", str(error), "correct catalog_url of the library's Block, or start its database"
        )


def check_api() -> Iterator[Check]:
    """Check Prefect's API where one is configured, and through it every saved source."""
    try:
        await_api()
    except CatchmentError as error:
        yield Check("prefect", "broken", str(error), "catchment doctor, after correcting it; or: prefect server start")
        return
    message = "none configured: each command brings its own (ephemeral)"
    yield Check("prefect", "ok", message if has_own_server() else "the configured API answers")
    from tasks.sources import load_sources

    saved, broken = load_sources()
    for name, fault in broken.items():
        yield Check(name, "broken", str(fault), f"catchment sources add {name.replace('/', ' ')} --overwrite …")
    active = [source for source in saved if source.is_active]
    yield from (Check(source.source_name, "ok", "paused") for source in saved if not source.is_active)
    yield from _check_sources(active)


def _check_sources(sources: list[ImageSource]) -> Iterator[Check]:
    """Yield a check for each source as it answers, and a warning for those that have not when the time is up."""
    waiting: SimpleQueue[ImageSource] = SimpleQueue()
    answers: SimpleQueue[Check] = SimpleQueue()
    for source in sources:
        waiting.put(source)

    def ask() -> None:
        with suppress(Empty):
            while True:
                answers.put(_check_source(waiting.get_nowait()))

    # Daemons, and no executor, whose threads Python waits for at its end: a source that hangs must not hold doctor.
    for _ in range(min(_ASKERS, len(sources))):
        threading.Thread(target=ask, name="doctor", daemon=True).start()
    deadline = time.monotonic() + _SOURCE_SECONDS * math.ceil(len(sources) / _ASKERS)
    silent = {source.source_name for source in sources}
    with suppress(Empty):
        while silent:
            check = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            silent.discard(check.check)
            yield check
    for name in sorted(silent):
        yield Check(name, "warning", f"no listing within {_SOURCE_SECONDS:.0f} s", f"catchment list {name}")


def _check_source(source: ImageSource) -> Check:
    name = source.source_name
    try:
        return Check(name, "ok", source.try_out())
    except CatchmentError as error:
        return Check(name, "broken", str(error), f"catchment sources show {name}")
    except Exception as error:  # noqa: BLE001 - one source must not cost the answers of the others
        return Check(name, "broken", f"unexpected {type(error).__name__}", f"CATCHMENT_DEBUG=1 catchment list {name}")


def _write_and_remove(home: ImageLibrary) -> None:
    storage = home.storage()
    probe = f".catchment/doctor-{uuid.uuid4().hex}"
    storage.put_bytes(probe, b"catchment doctor")
    storage.delete(probe)


def _check_spool(home: ImageLibrary) -> Check:
    count, oldest = home.count_spooled()
    if oldest is None:
        return Check("spool", "ok", "no frame of a live camera waits to be stored")
    message = f"{count} frames wait to be stored, the oldest since {oldest:%Y-%m-%d %H:%M} UTC"
    if datetime.now(UTC) - oldest < _LONG_WAIT:
        return Check("spool", "ok", message)
    return Check("spool", "warning", message, "catchment capture CAMERA, which first stores what waits")


def _check_room(home: ImageLibrary) -> Iterator[Check]:
    free = shutil.disk_usage(home.folder.expanduser()).free
    message = f"{free / 1e9:.1f} GB free"
    state = "broken" if free < _LEAST_BYTES else "warning" if free < _ENOUGH_BYTES else "ok"
    yield Check("disk", state, message, None if state == "ok" else f"make room on the disk of {home.folder}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "0"


def _needed() -> list[Requirement]:
    try:
        wanted = [Requirement(text) for text in requires("catchment") or ()]
    except PackageNotFoundError:  # run from a checkout that nobody installed
        return []
    return [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
