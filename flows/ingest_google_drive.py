"""Bring the images in a shared Google Drive folder into the library.

Kill a run at any point and start it again: nothing half-written is ever visible, what was stored stays stored, and the
listing goes on where it was.
"""

from typing import Annotated, cast

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Failed
from pydantic import Field

from blocks._errors import WrongUse
from blocks.google_drive import GoogleDriveFolder
from tasks._report import IngestReport
from tasks.parameters import DryRun, Library, MaxFiles, Strict, described
from tasks.run import bounded, ingest


def _name_run() -> str:
    source = flow_run.parameters.get("source")
    return f"ingest {source.source_name if isinstance(source, GoogleDriveFolder) else 'a Google Drive folder'}"


@flow(flow_run_name=_name_run, task_runner=bounded())
@described
def ingest_google_drive(
    source: Annotated[
        GoogleDriveFolder | None,
        Field(description="The folder: a saved Google Drive Folder; empty: folder_url, or the saved one `default`."),
    ] = None,
    library: Library = None,
    max_files: MaxFiles = 10,
    strict: Strict = False,
    dry_run: DryRun = False,
    folder_url: Annotated[
        str | None,
        Field(
            description="In place of a saved folder the link of a shared one, opened with the saved Google Drive "
            "Credentials `default`. Prefect keeps it with the run."
        ),
    ] = None,
    recurse_depth: Annotated[
        int | None, Field(ge=0, description="How many folders down to look; empty: as the folder says, or all.")
    ] = None,
    include: Annotated[
        list[str] | None, Field(description="Take only paths that match one of these globs; empty: as the folder says.")
    ] = None,
    exclude: Annotated[
        list[str] | None, Field(description="Leave paths that match one of these globs; empty: as the folder says.")
    ] = None,
) -> IngestReport:
    """Ingest every new, changed or retried image in the folder and those below it."""
    try:
        place = GoogleDriveFolder.choose(
            source, folder_url, recurse_depth=recurse_depth, include=include, exclude=exclude
        )
    except WrongUse as error:
        return cast("IngestReport", Failed(message=str(error), data=error))
    return ingest(place, library, max_files=max_files, strict=strict, dry_run=dry_run)
