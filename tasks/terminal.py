"""Ingest a terminal's pictures by date and stream: which days, and the run from its search to its end."""

import time as clock
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import cast

import polars as pl
from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from blocks._catalog_probes import Search
from blocks._errors import CatchmentError, WrongUse
from blocks._records import LISTING_SCHEMA, Page
from blocks._schema import RunStatus
from blocks._terminal_addresses import FIRST_YEAR, MOST_DAYS
from blocks.library import ImageLibrary
from blocks.terminal_camera import TerminalCamera
from tasks._report import IngestReport
from tasks._store import RunIds
from tasks._terminal_search import TerminalSearch, Wanted
from tasks.coverage import publish_coverage
from tasks.ingest import diff
from tasks.report import publish_plan
from tasks.run import IngestRun, ingest


def choose_days(
    start: date | None, end: date | None, dates: Sequence[date], camera: TerminalCamera, now: datetime
) -> tuple[date, ...]:
    """Return the local days that are asked for, in order: a range with both ends, single dates, or else yesterday.

    A start without an end is that day alone. `now` is aware; what day it is there decides what is still to come.

    Raises:
        WrongUse: the range runs backwards or is too long, or a date lies in the future.
    """
    today = now.astimezone(camera.zone).date()
    if start is None and end is not None:
        raise WrongUse(f"An end date of {end} needs a start date; for that day alone, give it as both.")
    if start is not None and end is not None and end < start:
        raise WrongUse(f"The range ends on {end}, before it starts on {start}: turn the dates round.")
    days = set(dates)
    if start is not None:
        if ((end or start) - start).days >= MOST_DAYS:
            raise WrongUse(f"{start} to {end} is longer than ten years: ask for less at once.")
        days |= {start + timedelta(days=number) for number in range(((end or start) - start).days + 1)}
    days = days or {today - timedelta(days=1)}
    if len(days) > MOST_DAYS:
        raise WrongUse(f"{len(days)} days are more than ten years: ask for less at once.")
    if (first := min(days)).year < FIRST_YEAR:
        raise WrongUse(f"{first} is too long ago: no gate camera has pictures of it.")
    if (last := max(days)) > today:
        raise WrongUse(f"{last} is in the future: at the terminal ({camera.timezone}) it is {today} now.")
    return tuple(sorted(days))


def choose_streams(streams: Sequence[str] | None, camera: TerminalCamera) -> tuple[str, ...]:
    """Return the streams that are asked for, or all of the camera's.

    Raises:
        WrongUse: the camera has no stream of that name.
    """
    if unknown := [stream for stream in streams or () if stream not in camera.streams]:
        raise WrongUse(
            f"There is no stream {unknown[0]!r} of {camera.source_name}; there are {', '.join(camera.streams)}."
        )
    return tuple(dict.fromkeys(streams or camera.streams))


def parse_times(texts: Sequence[str]) -> tuple[datetime | time, ...]:
    """Return times as people write them: `2025-09-01T10:00:07`, or `10:00:07` for every day; local, without a zone.

    Raises:
        WrongUse: one is neither.
    """
    return tuple(_parse_time(text.strip()) for text in texts)


def _parse_time(text: str) -> datetime | time:
    for kind in (datetime, time):
        try:
            moment: datetime | time = kind.fromisoformat(text)
        except ValueError:
            continue
        if moment.tzinfo is None and ":" in text:
            return moment.replace(microsecond=0)
    raise WrongUse(
        f"{text!r} is no time of a picture: write 2025-09-01T10:00:07, or 10:00:07 for every day, as its name tells "
        "it, without a zone."
    )


def ingest_terminal(
    camera: TerminalCamera, library: ImageLibrary | None, wanted: Wanted, *, strict: bool, dry_run: bool
) -> IngestReport:
    """Bring the wanted pictures into `library`; call it in a flow and return what it does.

    The flow ends as that of `tasks.run.ingest` does. Where some dates and streams could not be searched, the run is
    partial, and says so; where none could, or with `strict`, it ends Failed.
    """
    if dry_run and camera.is_active:
        return cast("IngestReport", _rehearse(camera, library, wanted))
    searching: list[TerminalSearch] = []

    def find_pages(run: IngestRun) -> Iterator[Page]:
        home = library or ImageLibrary.default()
        searching.append(TerminalSearch(camera, home, wanted, run.ids, datetime.now(UTC)))
        return _told(searching[0])

    ended = ingest(camera, library, max_files=None, strict=strict, pages=find_pages)
    state = cast("State[IngestReport]", ended)
    for search in searching:
        search.stop()
        home = library or ImageLibrary.default()
        if search.failures and state.is_completed():
            state = _tell_shortfall(state, search, home, strict=strict)
        _publish_coverage(camera, home, wanted, search.ids)
    return cast("IngestReport", state)


def _publish_coverage(camera: TerminalCamera, library: ImageLibrary, wanted: Wanted, ids: RunIds | None) -> None:
    """Keep what came of the wanted days, as far as may be: the pictures are stored whatever becomes of the report."""
    run_id, days = ids.run_id if ids else None, wanted.days
    try:
        publish_coverage(
            library, camera.source_name, run_id, days[0], days[-1], camera.zone, wanted.streams, days=set(days)
        )
    except CatchmentError as error:
        get_run_logger().warning("the report on these days could not be kept: %s", error)


def _told(search: TerminalSearch) -> Iterator[Page]:
    """Yield the search's pages, with a line in the log of the run for each."""
    logger = get_run_logger()
    for page in search.iter_pages():
        done = search.searches[-1]
        if done.error:
            logger.warning("%s %s: %s", done.day, done.stream, done.error)
        else:
            logger.info("%s %s: %s", done.day, done.stream, describe_search(done))
        yield page


def describe_search(search: Search) -> str:
    """Return one line for people: how the look for a day's pictures went."""
    told = f"{search.found} new, {search.known} known, of {search.expected} expected"
    return f"{told}; {search.hits} hits of {search.probes} probes" if search.probes else told


def _tell_shortfall(
    state: State[IngestReport], search: TerminalSearch, library: ImageLibrary, *, strict: bool
) -> State[IngestReport]:
    """End a run as partial, some dates and streams of which could not be searched."""
    report = state.result()
    failures = search.failures
    first = failures[0]
    message = (
        f"{len(failures)} of {len(search.searches)} dates and streams could not be searched, the first of them "
        f"{first.day} {first.stream}: {first.error}"
    )
    if report.run_id is not None:
        library.catalog().finish_run(report.run_id, RunStatus.PARTIAL, message, now=datetime.now(UTC))
    report = replace(report, status=RunStatus.PARTIAL, message=message)
    if strict:
        return Failed(message=message, data=CatchmentError(f"{report.source}: {message}"))
    return Completed(message=f"{report.summary}; {message}", data=report)


def _rehearse(camera: TerminalCamera, library: ImageLibrary | None, wanted: Wanted) -> State[IngestReport]:
    started = clock.monotonic()
    try:
        home = library or ImageLibrary.default()
        with camera.connected():
            search = TerminalSearch(camera, home, wanted, None, datetime.now(UTC))
            files = pl.concat([pl.DataFrame(schema=LISTING_SCHEMA), *(page.files for page in _told(search))])
        plan = diff(Page(files, is_start=False), home, camera.source_name)
    except CatchmentError as error:
        return Failed(message=str(error), data=error)
    publish_plan(plan, camera.source_name)
    report = IngestReport.of_plan(camera.source_name, plan, seconds=clock.monotonic() - started)
    return Completed(message=report.summary, data=report)
