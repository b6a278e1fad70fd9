"""Remove images of a camera that were kept as long as they were asked for.

Without `apply` only what would go is shown. An image that another source also refers to stays. Kill it anywhere and
start it again: no row is left without its object, and what was decided is finished.
"""

from typing import cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from blocks._errors import CatchmentError
from blocks.library import ImageLibrary
from tasks._report import escape_cell, markdown_table
from tasks._retention import RetentionReport
from tasks.parameters import Apply, Camera, Days, Library, described
from tasks.report import artifact_key
from tasks.tend import expire_images


@flow(flow_run_name="retention of {camera}")
@described
def tend_retention(
    camera: Camera, older_than_days: Days, library: Library = None, apply: Apply = False
) -> RetentionReport:
    """Remove the images that one camera took more than `older_than_days` days ago."""
    return cast("RetentionReport", _tend(camera, older_than_days, library, apply=apply))


def _tend(camera: str, days: int, library: ImageLibrary | None, *, apply: bool) -> State[RetentionReport]:
    try:
        report = expire_images(library or ImageLibrary.default(), camera, days, apply)
    except CatchmentError as error:
        return Failed(message=str(error), data=error)
    rows = [(escape_cell(image.storage_key), image.captured_local, image.size) for image in report.examples]
    table = markdown_table(["image", "captured", "bytes"], rows) if rows else ""
    text = f"# {escape_cell(report.summary)}\n\n{table}"
    create_markdown_artifact(text, key=artifact_key("retention", camera), description=report.summary)
    return Completed(message=report.summary, data=report)
