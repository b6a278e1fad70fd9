"""What a run adds up to, and how it reads."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from blocks._schema import RunStatus
from tasks._plan import Plan

PLANNED: Literal["planned"] = "planned"
"""The status of a dry run, which no catalog keeps."""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest adds up to: planned = stored + duplicate + quarantined + failed.

    Of the listed files `planned` were fetched, `deferred` left for a later run and `unchanged` known already;
    `vanished` ones are listed no longer. `bytes` came; `seconds` passed. A dry run has no `run_id` and plans only.
    `details`: what else its kind of source has to say.
    """

    source: str
    status: RunStatus | Literal["planned"]
    run_id: int | None = None
    listed: int = 0
    planned: int = 0
    stored: int = 0
    duplicate: int = 0
    quarantined: int = 0
    failed: int = 0
    deferred: int = 0
    unchanged: int = 0
    vanished: int = 0
    bytes: int = 0
    seconds: float = 0.0
    message: str | None = None
    details: Mapping[str, Any] | None = None

    @classmethod
    def of_run(cls, row: Mapping[str, Any]) -> Self:
        """Return the report of a run's row in the catalog."""
        known = {field.name: row[field.name] for field in fields(cls) if field.name in row}
        return cls(**{**known, "status": RunStatus(row["status"])})

    @classmethod
    def of_plan(cls, source: str, plan: Plan, seconds: float) -> Self:
        """Return the report of a dry run."""
        return cls(
            source,
            PLANNED,
            listed=plan.listed,
            planned=plan.planned,
            deferred=plan.count("deferred"),
            unchanged=plan.unchanged,
            vanished=len(plan.vanished),
            seconds=seconds,
        )

    @property
    def summary(self) -> str:
        """Return one line for people: what came of it."""
        if self.status == PLANNED:
            return f"{self.source}: {self.planned} of {self.listed} listed files would be taken"
        if self.status == RunStatus.NO_NEW_FILES:
            return f"{self.source}: nothing new among {self.listed} listed files"
        counts = {name: getattr(self, name) for name in ("stored", "duplicate", "quarantined", "failed", "deferred")}
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "stored")
        return f"{self.source}: {told}, {format_bytes(self.bytes)} in {self.seconds:.1f} s"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a plain mapping."""
        return asdict(self)


def decide_status(*, planned: int, quarantined: int, failed: int) -> RunStatus:
    """Return the status of a run whose source and library did not fail."""
    if planned == 0:
        return RunStatus.NO_NEW_FILES
    return RunStatus.PARTIAL if quarantined or failed else RunStatus.SUCCESS


def format_bytes(count: float) -> str:
    """Return a number of bytes as people write it, in powers of 1,000: `60.2 kB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def escape_cell(text: object) -> str:
    """Return `text` fit for a cell of a markdown table: no column breaks, line breaks, HTML, links or images."""
    safe = " ".join(str(text).split())
    for character in "\\|`*_[]<>!":
        safe = safe.replace(
            character, f"\\{character}" if character not in "<>" else {"<": "&lt;", ">": "&gt;"}[character]
        )
    return safe


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a markdown table; cells are taken as they are, so escape what came from outside."""
    titles = list(header)
    lines = [titles, ["---"] * len(titles), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report_table(reports: Iterable[IngestReport]) -> str:
    """Return a markdown table of several sources' reports."""
    names = ("stored", "duplicate", "quarantined", "failed", "deferred", "unchanged")
    rows = [
        (
            escape_cell(report.source),
            report.status,
            *(getattr(report, name) for name in names),
            format_bytes(report.bytes),
            escape_cell(report.message or ""),
        )
        for report in reports
    ]
    return markdown_table(["source", "status", *names, "bytes", "message"], rows)
