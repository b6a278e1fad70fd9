"""`catchment upload` and `drop-folder`: files that somebody hands over, taken here and now."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from prefect.client.schemas.objects import State
from pydantic import Field

from blocks._catalog_queries import describe_run, iter_run_files
from blocks._errors import WrongUse
from blocks._schema import RunStatus
from blocks.library import ImageLibrary
from flows._table import Format as Style
from flows._table import Row, print_nested, print_rows
from flows.cli_options import Format, Library, Verbose, open_library, with_help
from flows.cli_server import prefect_api
from flows.ingest_drop_folder import ingest_drop_folder
from flows.ingest_uploads import ingest_uploads
from tasks._report import IngestReport
from tasks._uploads import MAX_FILE_BYTES, MAX_FILES, WAIT_SECONDS, parse_meta, require_camera_id
from tasks.parameters import Strict

MaxFileBytes = Annotated[int, Field(ge=1, description="Largest file to take, in bytes.")]
_OUTCOME = ("verdict", "key", "reason", "message", "sha256")


@with_help
def upload(
    *files: Annotated[str, Parameter(name="FILE", help="Files to hand over.")],
    camera_id: Annotated[str, Parameter(help="The camera that took them, as Haas_Pit_1.")],
    folder: Annotated[str | None, Parameter(help="Or the folder they lie in: every image in it and below.")] = None,
    meta: Annotated[
        list[str] | None,
        Parameter(
            help="What is said of them, as session=FP1, location, timestamp_ref, camera_angle, exposure, sensor_info "
            "or any KEY=VALUE; repeatable.",
            negative_iterable="",
        ),
    ] = None,
    max_file_bytes: MaxFileBytes = MAX_FILE_BYTES,
    max_files: Annotated[
        int, Field(ge=1, description="Most files to take; those beyond are refused, each by its verdict.")
    ] = MAX_FILES,
    wait_seconds: Annotated[
        float, Field(ge=0, description="How long to wait for another request of this camera to end.")
    ] = WAIT_SECONDS,
    library: Library = None,
    strict: Strict = False,
    style: Format = "table",
    verbose: Verbose = False,
) -> int:
    """Hand pictures over: the good ones are stored, every file gets its verdict, and none is changed.

    Ends with 1 where nothing could be stored, or with --strict any file could not.
    """
    said = parse_meta(meta or ())
    require_camera_id(camera_id)
    if bool(files) == (folder is not None):
        raise WrongUse("Name the files to hand over, or --folder they lie in: one of the two.")
    with prefect_api():
        home = open_library(library, must_exist=False)
        state: State[IngestReport] = ingest_uploads(
            camera_id,
            [_name_file(file) for file in files] or None,
            None if folder is None else str(Path(folder).absolute()),
            said,
            home,
            max_file_bytes=max_file_bytes,
            max_files=max_files,
            wait_seconds=wait_seconds,
            strict=strict,
            return_state=True,
        )
    report = _print_request(state, home, style)
    return int(report.stored + report.duplicate == 0)


@with_help
def drop_folder(
    folder: Annotated[str, Parameter(help="The folder; files end in its accepted/ or rejected/.")],
    /,
    *,
    camera_id: Annotated[
        str | None, Parameter(help="Camera of every file; without it each lies in a folder of its camera's name.")
    ] = None,
    max_file_bytes: MaxFileBytes = MAX_FILE_BYTES,
    max_files: Annotated[int, Field(ge=1, description="Most files to take in one run; the next takes the rest.")] = 100,
    settle_seconds: Annotated[float, Field(ge=0, description="Take a file unchanged for this long.")] = 5.0,
    library: Library = None,
    style: Format = "table",
    verbose: Verbose = False,
) -> int:
    """Take what was dropped into a folder and move it on: what the library has to accepted/, the rest to rejected/."""
    if camera_id is not None:
        require_camera_id(camera_id)
    if not Path(folder).is_dir():
        raise WrongUse(f"There is no folder {folder}.")
    with prefect_api():
        home = open_library(library, must_exist=False)
        state: State[IngestReport] = ingest_drop_folder(
            str(Path(folder).absolute()),
            camera_id=camera_id,
            library=home,
            max_file_bytes=max_file_bytes,
            max_files=max_files,
            settle_seconds=settle_seconds,
            return_state=True,
        )
    _print_request(state, home, style)
    return 0


def _name_file(file: str) -> str:
    """Return the file's absolute path; a name that is no text as an address, as Prefect's API takes only text."""
    path = Path(file).absolute()
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.as_uri()
    return str(path)


def _print_request(state: State[IngestReport], library: ImageLibrary, style: Style) -> IngestReport:
    """Print the verdict on each file of a request, and return its report; raise what it ended with."""
    report: Any = state.result(raise_on_failure=False)
    if isinstance(report, BaseException):
        raise report
    if report.run_id is None:
        print(report.message, file=sys.stderr)  # noqa: T201
        return report  # type: ignore[no-any-return]
    catalog = library.catalog()
    files: Iterator[Row] = iter_run_files(catalog, report.run_id)
    if style == "json":
        known = describe_run(catalog, report.run_id, limit=0)
        del known["files"]
        print_nested(known, "files", files)
    else:
        print(report.summary)  # noqa: T201
        if report.status is not RunStatus.NO_NEW_FILES:
            print()  # noqa: T201
            print_rows(files, _OUTCOME)
    return report  # type: ignore[no-any-return]
