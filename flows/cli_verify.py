"""`catchment verify`: the library held against its catalog, here and now; no server is needed."""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import Progress

from flows._table import Row, print_rows
from flows.cli_options import Format, Library, open_library, with_help
from tasks._verify import Finding, Verifier, VerifyReport
from tasks.parameters import Quick, Repair


@with_help
def verify(*, repair: Repair = False, quick: Quick = False, library: Library = None, style: Format = "table") -> int:
    """Hash every image of the library again and show what is missing, altered, orphaned or without its thumbnail.

    Exit code 1 while anything is wrong.
    """
    report = VerifyReport()
    console = Console(stderr=True)
    with Progress(console=console, transient=True, redirect_stdout=False, disable=not console.is_terminal) as bar:
        line = bar.add_task("verify")
        verifier = Verifier(
            open_library(library),
            quick=quick,
            repair=repair,
            now=datetime.now(UTC),
            on_checked=lambda images: bar.advance(line, images),
        )
        report.images = verifier.total
        bar.update(line, total=report.images)
        print_rows(_counted(verifier.findings(), report), ("problem", "key", "repair", "message"), style=style)
    print(report.summary, file=sys.stderr if style == "json" else sys.stdout)
    if not report.is_sound and not repair:
        print("mend what can be with: catchment verify --repair", file=sys.stderr)  # noqa: T201
    return int(not report.is_sound)


def _counted(findings: Iterator[Finding], report: VerifyReport) -> Iterator[Row]:
    for finding in findings:
        report.add(finding)
        yield asdict(finding)
