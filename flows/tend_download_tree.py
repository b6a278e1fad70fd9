"""Take a tree of pictures that were downloaded by other means into the layout and the catalog of their gate camera.

It shows what it would do unless told to do it. Nothing is removed but originals whose bytes were read back from the
library. Kill it anywhere and start it again: nothing is lost, and the next run ends where an undisturbed one would.
"""

from pathlib import Path
from typing import Annotated, cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from blocks._errors import CatchmentError
from blocks._records import Rows
from blocks.library import ImageLibrary
from blocks.terminal_camera import TerminalCamera
from tasks._organize import Naming, OrganizeReport, check_tree
from tasks._report import IngestReport
from tasks.organize import Organizing, publish_organized, survey
from tasks.parameters import DryRun, Library, described
from tasks.run import bounded, ingest


@flow(flow_run_name="organize {folder}", task_runner=bounded())
@described
def tend_download_tree(
    source: Annotated[
        TerminalCamera, Field(description="The camera whose pictures these are: a saved Terminal Camera.")
    ],
    folder: Annotated[Path, Field(description="Folder with the downloads, however deep they lie in it.")],
    library: Library = None,
    move: Annotated[
        bool, Field(description="Remove each original once the library is proven to hold its bytes.")
    ] = False,
    dry_run: DryRun = True,
) -> OrganizeReport:
    """Take every picture below `folder` that its name dates into the library, as if its camera had given it."""
    return cast("OrganizeReport", _organize(source, folder, library, move=move, dry_run=dry_run))


def _organize(
    source: TerminalCamera, folder: Path, library: ImageLibrary | None, *, move: bool, dry_run: bool
) -> State[OrganizeReport]:
    name = source.source_name
    try:
        library = library or ImageLibrary.default()
        tree = check_tree(folder, library)
        naming = naming_of(source)
        if dry_run:
            report = OrganizeReport(name, str(tree), move, survey(tree, naming, library, name))
            publish_organized(report, library)
            return Completed(message=report.summary, data=report)
        work = Organizing(source, tree, naming, library)
        ran = cast("State[IngestReport]", ingest(work.tree_source, library, max_files=None, pages=work.find_pages))
        if not ran.is_completed():
            return cast("State[OrganizeReport]", ran)
        ingested = cast("IngestReport", ran.result(raise_on_failure=False))
        if ran.name == "Skipped":
            return Completed(
                name="Skipped",
                message=ingested.message,
                data=OrganizeReport(name, str(tree), move, Rows(), message=ingested.message),
            )
        report = OrganizeReport(name, str(tree), move, Rows(work.end(move=move)), ingested.run_id)
        publish_organized(report, library)
    except CatchmentError as error:
        return Failed(message=str(error), data=error)
    return Completed(message=report.summary, data=report)


def naming_of(source: TerminalCamera) -> Naming:
    """Return how the pictures of a camera are named."""
    return Naming(source.zone, source.thumbnail_suffix, source.suffixes)
