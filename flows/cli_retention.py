"""`catchment expire`: images that were kept long enough, shown first and removed on request."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime

from flows._table import print_fields, print_rows
from flows.cli_options import Format, Library, open_library, with_help
from tasks._retention import expire
from tasks.parameters import Apply, Camera, Days


@with_help
def expire_images(
    *,
    camera: Camera,
    older_than_days: Days,
    apply: Apply = False,
    library: Library = None,
    style: Format = "table",
) -> int:
    """Show the images that one camera took more than so many days ago; with --apply remove them, object and row.

    An image that another source also refers to stays.
    """
    home = open_library(library)
    report = expire(home, camera, days=older_than_days, now=datetime.now(UTC), is_rehearsal=not apply)
    if style == "json":
        print_fields(asdict(report), style=style)
        return 0
    rows = (
        {"captured": image.captured_local, "size": image.size, "image": image.storage_key} for image in report.examples
    )
    print_rows(rows, ("captured", "size", "image"))
    print(report.summary, file=sys.stderr)  # noqa: T201
    if report.is_rehearsal and report.removed:
        print("nothing was touched; remove them with --apply", file=sys.stderr)  # noqa: T201
    return 0
