"""The tasks that keep a library in order."""

from datetime import UTC, datetime

from prefect import get_run_logger, task

from blocks.library import ImageLibrary
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
