"""`catchment images`, `image`, `runs`, `status` and `retry`: what the catalog knows; no server is needed."""

import re
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Annotated

from cyclopts import Parameter

from blocks._catalog_queries import describe_image, describe_run, iter_images, iter_run_files, iter_runs
from blocks._errors import Reason, WrongUse
from blocks._schema import FileState, RunStatus
from flows._table import print_fields, print_rows
from flows.cli_options import Format, Library, Limit, limit_lines, open_library

Source = Annotated[str | None, Parameter(help="Only this source, by its name or address as catchment runs shows it.")]

_MINUTE = timedelta(minutes=1)
_IMAGE = ("captured_at", "camera", "source", "key", "size", "width", "height", "format", "sha256")
_FILE = ("attempted_at", "status", "source", "key", "attempts", "reason", "message")
_RUN = ("run_id", "started_at", "source", "status", "planned", "stored", "duplicate", "quarantined", "failed",
        "deferred", "bytes", "seconds")  # fmt: skip
_OUTCOME = ("verdict", "key", "reason", "message", "size", "sha256")


def images(
    *,
    source: Source = None,
    camera: Annotated[str | None, Parameter(help="Only this camera.")] = None,
    location: Annotated[str | None, Parameter(help="Only this location.")] = None,
    since: Annotated[
        str | None, Parameter(help="Captured at or after this date or time, by the camera's clock.")
    ] = None,
    until: Annotated[str | None, Parameter(help="Captured before this time, or up to the end of this date.")] = None,
    status: Annotated[
        str | None,
        Parameter(
            help=f"Files instead of images: those that are {', '.join(FileState)} or vanished; dates are then of the "
            "last attempt, in UTC unless they say otherwise."
        ),
    ] = None,
    limit: Limit = None,
    library: Library = None,
    style: Format = "table",
) -> int:
    """Show the library's images, the newest capture first; with --status, the files that stand so."""
    is_about_files = status not in {None, FileState.STORED}
    zone = UTC if is_about_files else None
    rows = iter_images(
        open_library(library).catalog(),
        source=source,
        camera=camera,
        location=location,
        since=parse_moment(since, zone, "--since"),
        until=parse_moment(until, zone, "--until", is_end=True),
        status=status,
        limit=limit_lines(limit, style),
    )
    _say_if_cut(print_rows(rows, _FILE if is_about_files else _IMAGE, style=style), limit_lines(limit, style))
    return 0


def image(
    prefix: Annotated[str, Parameter(name="ID", help="First digits of the image's SHA-256.")],
    /,
    *,
    library: Library = None,
    style: Format = "table",
) -> int:
    """Show all that is known of one image: its facts, where and when it was seen, every attempt, where it is stored."""
    known = describe_image(open_library(library).catalog(), prefix)
    if style == "json":
        print_fields(known["image"] | {name: known[name] for name in ("provenance", "attempts")}, style=style)
        return 0
    print_fields(known["image"])
    _print_titled(
        "Seen", known["provenance"], ("source", "key", "first_seen", "last_seen", "vanished_at", "is_current")
    )
    _print_titled("Attempts", known["attempts"], ("at", "run_id", "source", "key", "verdict", "reason", "message"))
    return 0


def runs(
    *,
    status: Annotated[str | None, Parameter(help=f"Only runs that are {', '.join(RunStatus)}.")] = None,
    source: Source = None,
    limit: Limit = None,
    library: Library = None,
    style: Format = "table",
) -> int:
    """Show the runs, newest first; planned = stored + duplicate + quarantined + failed."""
    rows = iter_runs(open_library(library).catalog(), source=source, status=status, limit=limit_lines(limit, style))
    _say_if_cut(print_rows(rows, _RUN, style=style), limit_lines(limit, style))
    return 0


def status(
    run: Annotated[int, Parameter(name="RUN", help="Number of a run, as catchment runs shows it.")],
    /,
    *,
    library: Library = None,
    style: Format = "table",
) -> int:
    """Show what became of every file of one run."""
    catalog = open_library(library).catalog()
    known = describe_run(catalog, run, limit=0)
    del known["files"]
    if style == "table":
        print_fields(known)
        print()  # noqa: T201
    print_rows(iter_run_files(catalog, run), _OUTCOME, style=style)
    return 0


def retry(
    *,
    reason: Annotated[
        list[Reason] | None, Parameter(help="Only files that failed for this reason; repeatable.")
    ] = None,
    older_than: Annotated[
        str | None, Parameter(help="Last tried longer ago than this (`36h`, `7d`), or before this date or time (UTC).")
    ] = None,
    newer_than: Annotated[
        str | None, Parameter(help="Last tried within this age (`36h`, `7d`), or since this date or time (UTC).")
    ] = None,
    source: Source = None,
    library: Library = None,
    style: Format = "table",
) -> int:
    """Have failed, parked and quarantined files tried again by the next run of their source."""
    count = (
        open_library(library)
        .catalog()
        .reset_failed(
            source,
            reason or (),
            older_than=_parse_age(older_than, "--older-than"),
            newer_than=_parse_age(newer_than, "--newer-than"),
        )
    )
    if style == "json":
        print_fields({"files": count}, style=style)
    else:
        print(f"{count} files will be tried again by the next run")  # noqa: T201
    return 0


def _parse_age(text: str | None, option: str) -> datetime | None:
    """Return the moment that lies `text` (`90m`, `36h`, `7d`) back from now, or that `text` names."""
    age = re.fullmatch(r"(\d{1,6})([mhd])", text or "")
    if age is None:
        return parse_moment(text, UTC, option)
    return datetime.now(UTC) - int(age[1]) * {"m": _MINUTE, "h": 60 * _MINUTE, "d": 1440 * _MINUTE}[age[2]]


def parse_moment(text: str | None, zone: timezone | None, option: str, *, is_end: bool = False) -> datetime | None:
    """Return the moment that `text` names, a date or time in ISO 8601; `is_end`: a date means the end of that day.

    `zone`: what a text without a zone is in; None: no zone, as cameras' clocks have none.

    Raises:
        WrongUse: it names none.
    """
    if text is None:
        return None
    try:
        if len(text) == len("2026-05-31"):
            day = date.fromisoformat(text)
            moment = datetime(day.year, day.month, day.day) + timedelta(days=is_end)  # noqa: DTZ001 - given below
        else:
            moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise WrongUse(f"{option} takes a date or time such as 2026-05-31 or 2026-05-31T06:30.") from error
    return moment.replace(tzinfo=zone) if moment.tzinfo is None and zone is not None else moment


def _print_titled(title: str, rows: list[dict[str, object]], columns: tuple[str, ...]) -> None:
    print(f"\n{title}")  # noqa: T201
    print_rows(rows, columns)


def _say_if_cut(printed: int, limit: int | None) -> None:
    if printed == limit and sys.stdout.isatty():
        print(f"… the first {limit}; --limit shows more", file=sys.stderr)  # noqa: T201
