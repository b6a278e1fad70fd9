"""Bring the images in a folder elsewhere (S3, FTP, SFTP, WebDAV or a disk) into the library.

Kill a run at any point and start it again: nothing half-written is ever visible, and what was stored stays stored.
"""

from typing import Annotated

from prefect import flow
from pydantic import Field

from blocks.remote_folder import RemoteFolder
from tasks._report import IngestReport
from tasks.parameters import DryRun, Library, MaxFiles, Strict, described
from tasks.run import bounded, ingest


@flow(flow_run_name="ingest {source.source_name}", task_runner=bounded())
@described
def ingest_remote_folder(
    source: Annotated[RemoteFolder, Field(description="The folder to take from: a saved Remote Folder.")],
    library: Library = None,
    max_files: MaxFiles = 10,
    strict: Strict = False,
    dry_run: DryRun = False,
) -> IngestReport:
    """Ingest every new, changed or retried image in the folder whose writer has finished."""
    return ingest(source, library, max_files=max_files, strict=strict, dry_run=dry_run)
