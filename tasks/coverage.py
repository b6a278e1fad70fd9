"""The report on a range of dates: a JSON file in the library, and an artifact in Prefect's UI."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from prefect.artifacts import create_markdown_artifact

from blocks._layout import HIDDEN_FOLDER, make_safe_segment
from blocks.library import ImageLibrary
from tasks._coverage import Coverage, DayCoverage, measure_coverage
from tasks._report import escape_cell, format_bytes, markdown_table
from tasks.report import artifact_key, best_effort

MAX_LINES = 100
"""Most lines of one table in the artifact; the JSON file has all."""


def publish_coverage(
    library: ImageLibrary,
    source_name: str,
    run_id: int | None,
    start: date,
    end: date,
    zone: ZoneInfo | None,
    streams: Sequence[str] | None = None,
    cadence: float | None = None,
    *,
    now: datetime | None = None,
    days: Collection[date] | None = None,
) -> Coverage:
    """Measure what came of the pictures from `start` to `end`, and keep it as a JSON file and an artifact.

    Call it in a flow, at the end of a run. The parameters are those of `measure_coverage`; `now` is aware. The file
    lies in the library under `Coverage.stored_as`, the newest report on a source also as `newest.json` beside it.

    Raises:
        LibraryUnavailable, LibraryRefused: the catalog or the storage can not be used.
        WrongUse: the catalog knows no such source.
    """
    now = now or datetime.now(UTC)
    measured = measure_coverage(
        library.catalog(), source_name, run_id, start, end, zone, streams, cadence, now=now, days=days
    )
    coverage = replace(measured, stored_as=report_key(measured))
    text = f"{json.dumps(coverage.to_dict(), indent=1)}\n".encode()
    for key in (report_key(coverage), _newest_key(source_name)):
        library.storage().put_bytes(key, text)
    with best_effort("the coverage"):
        key = artifact_key("coverage", source_name)
        create_markdown_artifact(describe_coverage(coverage), key=key, description=coverage.summary)
    return coverage


def report_key(coverage: Coverage) -> str:
    """Return where in the library a report lies: one file for each run and range, and one for all runs together.

    It is catchment's own folder, where nothing is taken for an image that the catalog does not know.
    """
    run = "" if coverage.run_id is None else f"_run-{coverage.run_id}"
    name = f"{coverage.start}_{coverage.end}{run}.json"
    return f"{HIDDEN_FOLDER}/reports/{make_safe_segment(coverage.source)}/{name}"


def remembered_zone(library: ImageLibrary, source_name: str) -> str | None:
    """Return the zone of the newest report on a source that was published; None where there is none."""
    storage, key = library.storage(), _newest_key(source_name)
    if storage.stat(key) is None:
        return None
    zone = json.loads(storage.read_bytes(key))["zone"]
    return None if zone is None else str(zone)


def _newest_key(source_name: str) -> str:
    return f"{HIDDEN_FOLDER}/reports/{make_safe_segment(source_name)}/newest.json"


def describe_coverage(coverage: Coverage) -> str:
    """Return the report as markdown."""
    days = [[day.day, escape_cell(day.stream), *_cells(day)] for day in coverage.days[:MAX_LINES]]
    parts = [
        f"# {escape_cell(coverage.source)}: {coverage.start} to {coverage.end}",
        escape_cell(coverage.summary),
        markdown_table(_HEADER, [["all", "", *_cells(coverage.total)], *days]),
        *_describe_lacks(coverage),
    ]
    return "\n\n".join(parts)


def _describe_lacks(coverage: Coverage) -> Iterator[str]:
    if failed := coverage.total.failed:
        yield "## Failed"
        yield markdown_table(["reason", "pictures"], sorted(failed.items()))
    if broken := [day for day in coverage.days if day.message]:
        yield "## Dates that failed"
        told = [(day.day, escape_cell(day.stream), escape_cell(day.message)) for day in broken[:MAX_LINES]]
        yield markdown_table(["date", "stream", "message"], told)
    if coverage.gaps:
        yield "## Gaps"
        shown = [(gap, coverage.show_instant(gap.start), coverage.show_instant(gap.end)) for gap in coverage.gaps]
        lines = [(escape_cell(gap.stream), start, end, len(gap.missing)) for gap, start, end in shown[:MAX_LINES]]
        yield markdown_table(["stream", "from", "to", "missing"], lines)
    if coverage.irregular:
        yield f"No cadence is known of {escape_cell(', '.join(coverage.irregular))}: gaps can not be told there."


_HEADER = ("date", "stream", "requested", "already there", "downloaded", "thumbnails", "failed", "missing", "bytes",
           "seconds", "success", "probes", "hit rate")  # fmt: skip


def _cells(day: DayCoverage) -> list[object]:
    return [
        day.requested,
        day.already_there,
        day.downloaded,
        day.thumbnails,
        sum(day.failed.values()),
        "?" if day.missing is None else day.missing,
        format_bytes(day.bytes),
        f"{day.seconds:.1f}",
        show_share(day.success_rate),
        day.probes,
        show_share(day.hit_rate),
    ]


def show_share(share: float | None) -> str:
    """Return a share of 0-1 as people read it, never rounded up to everything: `99.9 %`."""
    return "" if share is None else f"{int(share * 1000) / 10:.1f} %"
