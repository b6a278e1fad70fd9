"""Take pictures that somebody hands over: one request is one run, and every file of it gets its verdict.

Kill a run at any point and hand the files over again: nothing half-written is ever visible, and what was stored stays
stored. The files themselves are only read.
"""

import uuid
from datetime import timedelta
from typing import Annotated, cast

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Failed
from pydantic import Field

from blocks._errors import CatchmentError
from blocks._upload_meta import CAMERA_ID, UploadMeta
from tasks._report import IngestReport
from tasks._uploads import MAX_FILE_BYTES, MAX_FILES, WAIT_SECONDS, open_upload
from tasks.parameters import Library, Strict, described
from tasks.run import bounded, ingest
from tasks.uploads import all_at_once


@flow(flow_run_name="upload {camera_id}", task_runner=bounded())
@described
def ingest_uploads(
    camera_id: Annotated[str, Field(pattern=f"^{CAMERA_ID}$", description="The camera that took the pictures.")],
    files: Annotated[
        list[str] | None,
        Field(description="Paths of the files (or file:///… addresses), readable where the flow runs."),
    ] = None,
    folder: Annotated[
        str | None, Field(description="Or the folder in which they lie: every image in it and below.")
    ] = None,
    meta: Annotated[UploadMeta | None, Field(description="What is said of them; any further key is kept too.")] = None,
    library: Library = None,
    max_file_bytes: Annotated[int, Field(ge=1, description="Largest file to take, in bytes.")] = MAX_FILE_BYTES,
    max_files: Annotated[
        int, Field(ge=1, description="Most files to take; those beyond are refused, each by its verdict.")
    ] = MAX_FILES,
    wait_seconds: Annotated[
        float, Field(ge=0, description="How long to wait for another request of this camera to end.")
    ] = WAIT_SECONDS,
    strict: Strict = False,
) -> IngestReport:
    """Store the good files of a request, and tell what is wrong with the others."""
    request_id = flow_run.get_id() or uuid.uuid4().hex
    try:
        source = open_upload(
            camera_id,
            files,
            folder,
            meta,
            request_id=request_id,
            max_file_bytes=max_file_bytes,
            max_files=max_files,
        )
    except CatchmentError as error:
        return cast("IngestReport", Failed(message=str(error), data=error))
    return ingest(
        source,
        library,
        max_files=None,
        strict=strict,
        pages=all_at_once(source, request_id=request_id, camera_id=camera_id, meta=source.meta.to_json()),
        wait=timedelta(seconds=wait_seconds),
    )
