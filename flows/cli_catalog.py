"""`catchment images`, `image`, `runs`, `status` and `retry`: what the catalog knows; no server is needed."""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Annotated
from uuid import UUID

from cyclopts import Parameter

from blocks._catalog_queries import describe_image, describe_run, iter_images, iter_run_files, iter_runs
from blocks._catalog_requests import RequestState, find_run
from blocks._errors import Reason, WrongUse
from blocks._schema import FileState, RunStatus
from blocks.library import ImageLibrary
from flows._table import Row, print_fields, print_nested, print_rows
from flows.cli_options import Format, Library, Limit, limit_lines, open_library
from flows.cli_server import is_api_configured

Source = Annotated[str | None, Parameter(help="Only this source, by its name or address as catchment runs shows it.")]

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_ENDS = {"COMPLETED": RequestState.COMPLETED, "CANCELLED": RequestState.CANCELLED}
_IMAGE = ("captured_at", "camera", "source", "key", "size", "width", "height", "format", "sha256")
_IMPORT = ("captured_at", "camera", "key", "id", "name", "type", "size", "stored_at", "sha256")
_FILE = ("attempted_at", "status", "source", "key", "attempts", "reason", "message")
_RUN = ("run_id", "started_at", "source", "status", "state", "planned", "stored", "duplicate", "quarantined", "failed",
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
    meta: Annotated[
        list[str] | None,
        Parameter(
            help="Only images of which it was said so when they came, as KEY=VALUE; repeatable.", negative_iterable=""
        ),
    ] = None,
    urls: Annotated[
        bool,
        Parameter(negative="", help="Show an address to fetch each image from, signed now where they are in a bucket."),
    ] = False,
    expires: Annotated[str, Parameter(help="How long signed addresses are good (`15m`, `36h`), 7d at most.")] = "1h",
    limit: Limit = None,
    library: Library = None,
    style: Format = "table",
) -> int:
    """Show the library's images, the newest capture first; with --status, the files that stand so."""
    home = open_library(library)
    is_about_files = status not in {None, FileState.STORED}
    zone = UTC if is_about_files else None
    if urls and is_about_files:
        raise WrongUse("--urls are of images; leave --status out.")
    rows: Iterator[Row] = iter_images(
        home.catalog(),
        source=source,
        camera=camera,
        location=location,
        since=parse_moment(since, zone, "--since"),
        until=parse_moment(until, zone, "--until", is_end=True),
        status=status,
        meta=_parse_meta(meta or ()),
        limit=limit_lines(limit, style),
    )
    columns: tuple[str, ...] = _FILE if is_about_files else _IMAGE
    if source and not is_about_files and style == "table":
        rows, columns = map(_tell_provenance, rows), _IMPORT
    if urls:
        rows, columns = _with_urls(rows, home, _parse_expiry(expires)), ("captured_at", "camera", "key", "url")
    _say_if_cut(print_rows(rows, columns, style=style), limit_lines(limit, style))
    return 0


def _tell_provenance(row: Row) -> Row:
    """Return a row with what a provider says of its file (id, name, type), or else what the bytes and the key say."""
    told = {"name": row["key"].rpartition("/")[2], "type": f"image/{row['format']}"}
    said = row.get("extra") or {}
    return {**row, **told, **{name: said[name] for name in ("id", "name", "type") if said.get(name)}}


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
    status: Annotated[
        str | None,
        Parameter(help=f"Only runs that ended {', '.join(RunStatus)}; or requests that are {', '.join(RequestState)}."),
    ] = None,
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
    run: Annotated[
        str, Parameter(name="RUN", help="Number of a run, as catchment runs shows it, or the id of its flow run.")
    ],
    /,
    *,
    library: Library = None,
    style: Format = "table",
) -> int:
    """Show how a run stands as a request (pending, in_progress, completed, …) and what became of every file of it."""
    catalog = open_library(library).catalog()
    number = int(run) if re.fullmatch(r"[0-9]{1,18}", run) else find_run(catalog, run)
    if number is None:
        known = _ask_prefect(run)
        print_fields(known if style == "table" else {**known, "files": []}, style=style)
        return 0
    known = describe_run(catalog, number, limit=0)
    del known["files"]
    if style == "json":
        print_nested(known, "files", iter_run_files(catalog, number))
        return 0
    print_fields(known)
    print()  # noqa: T201
    print_rows(iter_run_files(catalog, number), _OUTCOME)
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


def _ask_prefect(flow_run_id: str) -> Row:
    """Return how a request stands that the catalog does not know yet: it waits to begin, or never did.

    Raises:
        WrongUse: Prefect knows no such flow run either, or no API is configured that could.
    """
    unknown = WrongUse(f"The catalog knows no run {flow_run_id[:60]!r}; catchment runs shows those it does.")
    try:
        wanted = UUID(flow_run_id)
    except ValueError:
        raise unknown from None
    if not is_api_configured():
        raise unknown
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(wanted).state
        except ObjectNotFound:
            raise unknown from None
    stands, message = RequestState.PENDING, None
    if state is not None and state.is_final():
        stands, message = _ENDS.get(state.type.value, RequestState.FAILED), state.message
    return {"run_id": None, "flow_run_id": flow_run_id, "state": stands.value, "message": message}


def _parse_meta(pairs: Sequence[str]) -> dict[str, str]:
    said = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise WrongUse(f"--meta takes KEY=VALUE, such as session=FP1; {pair[:60]!r} is no such pair.")
        said[key] = value
    return said


def _parse_expiry(text: str) -> timedelta:
    """Return the time that signed addresses are good for; S3 takes a week at most (SigV4's X-Amz-Expires)."""
    age = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    expires = int(age[1]) * _UNITS[age[2]] if age else timedelta(0)
    if not timedelta(0) < expires <= timedelta(days=7):
        raise WrongUse("--expires takes minutes, hours or days, such as 15m, 36h or 7d, which is the most.")
    return expires


def _with_urls(rows: Iterable[Row], library: ImageLibrary, expires: timedelta) -> Iterator[Row]:
    storage = library.storage()
    return ({**row, "url": storage.make_url(row["storage_key"], expires)} for row in rows)


def _parse_age(text: str | None, option: str) -> datetime | None:
    """Return the moment that lies `text` (`90m`, `36h`, `7d`) back from now, or that `text` names."""
    age = re.fullmatch(r"(\d{1,6})([mhd])", text or "")
    if age is None:
        return parse_moment(text, UTC, option)
    return datetime.now(UTC) - int(age[1]) * _UNITS[age[2]]


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
