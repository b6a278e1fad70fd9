"""Take what programs dropped into a folder, and sort it: what the library has to `accepted/`, the rest to `rejected/`.

Kill a run at any point and start it again: no file is lost, and none is in `accepted/` that is not in the library.
"""

import os
import uuid
from typing import Annotated, Any, cast

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Failed
from pydantic import Field

from blocks._errors import CatchmentError, WrongUse
from blocks._upload_meta import CAMERA_ID
from blocks.drop_folder import DropFolder
from blocks.library import ImageLibrary
from blocks.remote_folder import RemoteFolder
from tasks._report import IngestReport
from tasks._uploads import MAX_FILE_BYTES
from tasks.parameters import Library, described
from tasks.run import bounded, ingest
from tasks.sources import keep_apart
from tasks.uploads import all_at_once, sort_drop_folder

FOLDER_VARIABLE = "CATCHMENT_DROP_FOLDER"


@flow(flow_run_name="drop folder", task_runner=bounded())
@described
def ingest_drop_folder(
    folder: Annotated[
        str | None, Field(description=f"Path of the folder; empty: what {FOLDER_VARIABLE} names where the flow runs.")
    ] = None,
    source: Annotated[
        RemoteFolder | None, Field(description="Or a saved Remote Folder that is a folder of this machine.")
    ] = None,
    camera_id: Annotated[
        str | None,
        Field(pattern=f"^{CAMERA_ID}$", description="Camera of every file; empty: each lies in a folder of its name."),
    ] = None,
    library: Library = None,
    max_file_bytes: Annotated[int, Field(ge=1, description="Largest file to take, in bytes.")] = MAX_FILE_BYTES,
    max_files: Annotated[int, Field(ge=1, description="Most files to take in one run; the next takes the rest.")] = 100,
    settle_seconds: Annotated[
        float | None, Field(ge=0, description="Take a file unchanged for this long; empty: 5 seconds.")
    ] = None,
) -> IngestReport:
    """Store every dropped picture whose writer has finished, with what its sidecar says, and move it out of the way."""
    try:
        if folder is not None and source is not None:
            raise WrongUse("Name the folder or the saved Remote Folder, not both.")
        fields: dict[str, Any] = {"camera_id": camera_id, "max_file_bytes": max_file_bytes}
        if settle_seconds is not None:
            fields["settle_seconds"] = settle_seconds
        place = source or folder or os.environ.get(FOLDER_VARIABLE, "").strip()
        if not place:
            raise WrongUse(f"No drop folder is named: give folder, or set {FOLDER_VARIABLE} for the worker.")
        drop = DropFolder.of(place, request_id=flow_run.get_id() or uuid.uuid4().hex, **fields)
        library = library or ImageLibrary.default()
        keep_apart(drop, library)
        sort_drop_folder(drop, library)  # what a killed run left
        state = ingest(drop, library, max_files=max_files, pages=all_at_once(drop))
        sort_drop_folder(drop, library)
    except CatchmentError as error:
        return cast("IngestReport", Failed(message=str(error), data=error))
    return state
