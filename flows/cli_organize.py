"""`catchment organize`: a tree of downloads into the layout and the catalog of its gate camera."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from prefect.client.schemas.objects import State

from blocks._errors import WrongUse
from blocks.terminal_camera import TerminalCamera
from flows._table import Format as Style
from flows._table import print_rows
from flows.cli_options import Format, Library, Verbose, open_library, open_source, with_help
from flows.cli_server import prefect_api
from flows.tend_download_tree import naming_of, tend_download_tree
from tasks._organize import OrganizeReport, check_tree
from tasks.organize import plan_for

_FILE = ("decision", "path", "key", "why")


@with_help
def organize(
    folder: Annotated[Path, Parameter(help="Folder with the downloads, however deep they lie in it.")],
    /,
    *,
    source: Annotated[
        str | None, Parameter(help="The camera they are of: terminal-camera/NAME; without it the default terminal's.")
    ] = None,
    apply: Annotated[bool, Parameter(negative="", help="Do it; without it only what would be done is shown.")] = False,
    move: Annotated[
        bool, Parameter(negative="", help="Remove each original once the library is proven to hold its bytes.")
    ] = False,
    library: Library = None,
    style: Format = "table",
    verbose: Verbose = False,
) -> int:
    """Take the pictures below FOLDER into the library as if their gate camera had given them; without --apply, show it.

    Names tell time and stream: 20250901T100000_in_gate.jpg, 20250901100000_in_gate.jpg,
    2025-09-01T10:00:07-in_gate.jpeg. What they do not tell stays where it is, and is listed.
    """
    if not apply:
        camera, home = open_camera(source), open_library(library, must_exist=False)
        tree = check_tree(folder, home)
        plan = plan_for(tree, naming_of(camera), home, camera.source_name)
        _print_organized(OrganizeReport(camera.source_name, str(tree), move, plan), style)
        print("nothing was touched; --apply does it", file=sys.stderr)  # noqa: T201
        return 0
    with prefect_api():
        camera, home = open_camera(source), open_library(library, must_exist=False)
        state: State[OrganizeReport] = tend_download_tree(
            camera, folder, home, move=move, dry_run=False, return_state=True
        )
    ended = state.result(raise_on_failure=False)
    if isinstance(ended, BaseException):
        raise ended
    _print_organized(ended, style)
    return 0


def open_camera(wanted: str | None) -> TerminalCamera:
    """Return the gate camera a person named, or the default terminal's.

    Raises:
        WrongUse: there is none, or it is a source of another kind.
    """
    if wanted is None:
        return TerminalCamera()
    source = open_source(wanted)
    if not isinstance(source, TerminalCamera):
        raise WrongUse(f"{wanted} is no gate camera: name a saved one, terminal-camera/NAME; see catchment sources.")
    return source


def _print_organized(report: OrganizeReport, style: Style) -> None:
    """Print every file as JSON; in a table what a person has to look at, or before anything is done, all of it."""
    if style == "json":
        print_rows((placing.to_dict() for placing in report.files), _FILE, style=style)
        print(report.summary, file=sys.stderr)  # noqa: T201
        return
    told = [placing for placing in report.files if report.run_id is None or placing.why]
    if print_rows((placing.to_dict() for placing in told), _FILE):
        print()  # noqa: T201
    print(report.summary)  # noqa: T201
