"""The tasks that keep a library in order."""

from datetime import UTC, datetime

from prefect import get_run_logger, task

from blocks.library import ImageLibrary
from tasks._retention import RetentionReport, expire
from tasks._verify import Verifier, VerifyReport, verify_library
from tasks.policies import OUTSIDE


@task(task_run_name="verify", **OUTSIDE)
def verify(library: ImageLibrary, quick: bool, repair: bool) -> VerifyReport:
    """Compare every file of the library with the catalog; harmless to repeat.

    Raises:
        LibraryUnavailable: storage or catalog did not answer.
    """
    report = verify_library(Verifier(library, quick=quick, repair=repair, now=datetime.now(UTC)))
    get_run_logger().info(report.summary)
    return report


@task(task_run_name="expire images of {camera}", **OUTSIDE)
def expire_images(library: ImageLibrary, camera: str, days: int, apply: bool) -> RetentionReport:
    """Remove the images of `camera` that are older than `days` days, or with `apply` off only find them.

    Raises:
        LibraryUnavailable: storage or catalog did not answer; the next try goes on.
    """
    report = expire(library, camera, days=days, now=datetime.now(UTC), is_rehearsal=not apply)
    get_run_logger().info(report.summary)
    return report
