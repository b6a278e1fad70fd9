"""`catchment demo`: the main job, start to end, on a camera directory made for the purpose."""

import os
import shlex
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from blocks._errors import CatchmentError, WrongUse
from blocks._layout import HIDDEN_FOLDER
from flows._demo_camera import draw_pictures, serve_pictures
from flows.cli_server import prefect_api, start_own_server

if TYPE_CHECKING:  # importing Prefect has to wait until its home is chosen
    from blocks.http_directory import HttpDirectory
    from blocks.library import ImageLibrary
    from tasks._report import IngestReport

DEFAULT_FOLDER = Path("catchment-demo")

_SOURCE_FOLDER = "demo-camera"
_LAYOUT = _SOURCE_FOLDER + "/{captured:%Y-%m-%d}/{name}"
_MARK = "demo"
_COLUMNS = ("key", "captured_at", "camera", "pixels", "image")


def demo(
    *,
    library: Annotated[
        Path, Parameter(help="Folder to put everything into; a demo's folder is made anew.")
    ] = DEFAULT_FOLDER,
    images: Annotated[int, Parameter(help="How many pictures the camera has.")] = 12,
    keep: Annotated[
        bool, Parameter(negative="", help="Let the camera run until Ctrl-C, to try commands on it.")
    ] = False,
) -> None:
    """Draw camera-trap pictures, serve them on this machine, pull them twice, and show what was stored.

    Nothing is written outside the library's folder, and no server that is configured is touched.

    Raises:
        WrongUse: the folder holds something that no demo made, or `images` is no sensible number.
        CatchmentError: the pulls did not come to what they must.
    """
    if not 1 <= images <= 1000:
        raise WrongUse("--images is a number from 1 to 1000.")
    started = time.monotonic()
    folder = _make_anew(library)
    _choose_prefect_home(folder)
    start_own_server()
    pictures = draw_pictures(images)
    with serve_pictures(pictures) as address:
        _say(f"A camera serves {len(pictures)} pictures at {address}; Prefect's own server is starting …")
        with prefect_api():
            from blocks.http_directory import HttpDirectory
            from blocks.library import ImageLibrary

            source = HttpDirectory(base_url=address, location="Demo weir", layout=_LAYOUT)
            home = ImageLibrary(folder=folder)
            first = _pull(source, home)
            _say("", f"first pull    {first.summary}", "")
            image = _show_stored(home)
            second = _pull(source, home)
            _say("", f"second pull   {second.summary}")
        if (first.stored, second.planned) != (images, 0):
            raise CatchmentError(f"The demo expected {images} images and then none; `catchment doctor` may tell why.")
        _say("", *_describe_next(library, image), "", f"All of it took {time.monotonic() - started:.0f} s.")
        if keep:
            _keep_serving(address, library)


def _make_anew(library: Path) -> Path:
    """Return the folder, empty but for a mark that a demo made it.

    Raises:
        WrongUse: it holds something else.
    """
    folder = library.expanduser().absolute()
    hidden = folder / HIDDEN_FOLDER
    try:
        found = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
        if found and not ((hidden / _MARK).exists() and found <= {HIDDEN_FOLDER, _SOURCE_FOLDER}):
            raise WrongUse(f"{library} holds something that no demo made; choose another folder with --library.")
        if found:
            shutil.rmtree(folder)
        hidden.mkdir(parents=True)
        (hidden / _MARK).touch()
    except OSError as error:
        raise WrongUse(f"{library} can not be used as the demo's folder: {error.strerror}.") from error
    return folder


def _choose_prefect_home(folder: Path) -> None:
    """Give Prefect a home within the demo's folder; to be called before Prefect is imported, which reads it once."""
    for name in ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        os.environ.pop(name, None)
    os.environ["PREFECT_HOME"] = str(folder / HIDDEN_FOLDER / "prefect")


def _pull(source: "HttpDirectory", library: "ImageLibrary") -> "IngestReport":
    from flows.ingest_http_directory import ingest_http_directory

    state = ingest_http_directory(source, library, max_files=None, return_state=True)
    report = state.result(raise_on_failure=False)
    if isinstance(report, BaseException):
        raise CatchmentError(f"The demo's pull failed: {state.message}") from report
    return report


def _show_stored(library: "ImageLibrary") -> str:
    """Print a table of the library's images and return what names the first of them."""
    from blocks._catalog_queries import list_images
    from flows._table import print_rows

    rows = [
        {**row, "pixels": f"{row['width']} x {row['height']}", "image": row["sha256"][:12]}
        for row in list_images(library.catalog())
    ]
    print_rows(rows, _COLUMNS)
    return str(rows[0]["image"])


def _describe_next(library: Path, image: str) -> list[str]:
    named = shlex.quote(str(library))
    return [
        f"The library is the folder {library}; its pictures lie in {library / _SOURCE_FOLDER}. Try next:",
        f"  catchment images --library {named}",
        f"  catchment image {image} --library {named}",
        f"  catchment up --library {named}",
    ]


def _keep_serving(address: str, library: Path) -> None:
    named = shlex.quote(str(library))
    _say(
        "The camera goes on until Ctrl-C. In another terminal:",
        f"  catchment list {address}",
        f"  catchment ingest {address} --library {named}",
    )
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        _say("stopped")


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
