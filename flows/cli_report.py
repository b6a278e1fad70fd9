"""`catchment report`: what came of a camera's pictures by date, and where some are missing; no server is needed."""

import sys
from datetime import UTC, date, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from cyclopts import Parameter

from blocks._catalog import Catalog
from blocks._catalog_captures import SourceRow, read_sources
from blocks._errors import WrongUse
from blocks._terminal_addresses import FIRST_YEAR, MOST_DAYS
from blocks.terminal_camera import TerminalCamera
from flows._table import Format as Style
from flows._table import print_fields, print_rows
from flows.cli_options import Format, Library, open_library
from tasks._coverage import Coverage, DayCoverage, find_source, measure_coverage
from tasks._gaps import Gap
from tasks.coverage import remembered_zone, show_share

_DAY = ("date", "stream", "requested", "already_there", "downloaded", "thumbnails", "failed", "missing", "bytes",
        "seconds", "success", "probes", "hit_rate")  # fmt: skip


def report(
    *,
    source: Annotated[
        str | None,
        Parameter(help="Source by its name or address, as catchment runs shows it; without it the gate camera's."),
    ] = None,
    start: Annotated[
        str | None, Parameter(name="--from", help="First local date, such as 2025-09-01; without dates yesterday.")
    ] = None,
    end: Annotated[str | None, Parameter(name="--to", help="Last local date, included; without it the first.")] = None,
    stream: Annotated[list[str] | None, Parameter(negative="", help="Only this camera; repeatable.")] = None,
    cadence: Annotated[
        float | None, Parameter(help="Seconds between two pictures; without it learned from those that are here.")
    ] = None,
    run: Annotated[int | None, Parameter(help="Tell what this run did, not all runs together.")] = None,
    zone: Annotated[
        str | None,
        Parameter(
            help="Time zone of the dates, such as Europe/Berlin; without it a gate camera's own, for others none."
        ),
    ] = None,
    library: Library = None,
    style: Format = "table",
) -> int:
    """Show what came of a source's pictures date by date, and the gaps: intervals in which pictures were due.

    Everything is read from the catalog; the source is not asked.
    """
    if cadence is not None and not 1 <= cadence < float("inf"):
        raise WrongUse("--cadence takes a number of seconds from 1 on.")
    home = open_library(library)
    catalog = home.catalog()
    row = choose_source(catalog, source)
    here = _read_zone(zone or remembered_zone(home, row.name), row)
    now = datetime.now(UTC)
    today = now.astimezone(here or UTC).date()
    first, last = parse_range(start, end, today)
    print_coverage(measure_coverage(catalog, row.name, run, first, last, here, stream, cadence, now=now), style)
    return 0


def choose_source(catalog: Catalog, wanted: str | None) -> SourceRow:
    """Return the source of that name; without a name the only gate camera there is.

    Raises:
        WrongUse: the catalog knows none of that name, or no or several gate cameras.
    """
    if wanted is not None:
        return find_source(catalog, wanted)
    kind = TerminalCamera.get_block_type_slug()
    cameras = [row for row in read_sources(catalog) if row.kind == kind]
    if len(cameras) == 1:
        return cameras[0]
    known = ", ".join(row.name for row in cameras or read_sources(catalog)) or "none yet"
    raise WrongUse(f"Say which source to report on with --source; the catalog knows {known}.")


def parse_range(start: str | None, end: str | None, today: date) -> tuple[date, date]:
    """Return the first and last date of a report; without dates both are yesterday.

    Raises:
        WrongUse: one is no date, they are the wrong way round, or lie in the future.
    """
    first = _parse_date(start or end, "--from" if start else "--to") or today - timedelta(days=1)
    last = _parse_date(end, "--to") or first
    if last < first:
        raise WrongUse(f"--from {first} is after --to {last}: give the earlier date first.")
    if (last - first).days >= MOST_DAYS or first.year < FIRST_YEAR:
        raise WrongUse(f"{first} to {last} is longer than ten years, or too long ago: ask for less at once.")
    if last > today:
        raise WrongUse(f"--to {last} lies in the future: today is {today} there.")
    return first, last


def _parse_date(text: str | None, option: str) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise WrongUse(f"{option} takes a date such as 2025-09-01.") from error


def _read_zone(name: str | None, source: SourceRow) -> ZoneInfo | None:
    if name is None and source.kind == TerminalCamera.get_block_type_slug():
        name = TerminalCamera.model_fields["timezone"].default
    try:
        return None if name is None else ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # not found; no name at all; a folder of zones
        raise WrongUse(f"{name} is no time zone: name one such as America/Los_Angeles.") from error


def print_coverage(coverage: Coverage, style: Style = "table") -> None:
    """Print a report: as one JSON object, or as tables of the dates, the failures and the gaps."""
    if style == "json":
        print_fields(coverage.to_dict(), style=style)
        return
    print(coverage.summary)  # noqa: T201
    columns = [name for name in _DAY if name != "already_there" or coverage.run_id is not None]
    lines = [_show_day(day) for day in coverage.days]
    if len(lines) > 1:
        lines.append(_show_day(coverage.total) | {"date": "all", "stream": ""})
    print()  # noqa: T201
    print_rows(lines, columns)
    if failed := coverage.total.failed:
        _print_titled("Failed", [{"reason": reason, "pictures": count} for reason, count in sorted(failed.items())])
    if broken := [
        {"date": day.day, "stream": day.stream, "message": day.message} for day in coverage.days if day.message
    ]:
        _print_titled("Dates that failed", broken)
    if coverage.gaps:
        _print_titled("Gaps", [_show_gap(coverage, gap) for gap in coverage.gaps])
    if coverage.irregular:
        text = (
            f"no cadence is known of {', '.join(coverage.irregular)}, so gaps can not be told; give it with --cadence"
        )
        print(f"\n{text}", file=sys.stderr)  # noqa: T201


def _show_day(day: DayCoverage) -> dict[str, object]:
    rates = {"success": show_share(day.success_rate), "hit_rate": show_share(day.hit_rate)}
    probes = day.probes or None
    return day.to_dict() | rates | {"probes": probes}


def _show_gap(coverage: Coverage, gap: Gap) -> dict[str, object]:
    start, end = coverage.show_instant(gap.start), coverage.show_instant(gap.end)
    return {"stream": gap.stream, "from": start, "to": end, "missing": len(gap.missing)}


def _print_titled(title: str, rows: list[dict[str, object]]) -> None:
    print(f"\n{title}")  # noqa: T201
    print_rows(rows, list(rows[0]))
