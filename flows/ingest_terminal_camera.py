"""Bring a container terminal's gate pictures into the library, by date and stream.

Kill a run at any point and start it again: nothing half-written is ever visible, what was stored stays stored, and no
name is asked for twice.
"""

from datetime import UTC, date, datetime
from typing import Annotated, Literal, cast

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Failed
from pydantic import Field

from blocks._errors import CatchmentError
from blocks.terminal_camera import TerminalCamera
from tasks._report import IngestReport
from tasks._terminal_search import Wanted
from tasks.parameters import DryRun, Library, Strict, described
from tasks.run import bounded
from tasks.terminal import choose_days, choose_streams, ingest_terminal, parse_times

Stream = Literal["in_gate", "out_gate"]


def _name_run() -> str:
    asked = flow_run.parameters
    ends = [asked.get("start_date"), asked.get("end_date")]
    days = [str(day) for day in (*ends, *(asked.get("dates") or ())) if day]
    return f"gate pictures {' to '.join(dict.fromkeys([days[0], days[-1]]))}" if days else "gate pictures, yesterday"


@flow(flow_run_name=_name_run, task_runner=bounded())
@described
def ingest_terminal_camera(
    camera: Annotated[
        TerminalCamera | None, Field(description="The gate cameras: a saved Terminal Camera; empty: those of APM.")
    ] = None,
    start_date: Annotated[
        date | None, Field(description="First day, local to the terminal; empty: yesterday there.")
    ] = None,
    end_date: Annotated[date | None, Field(description="Last day, taken too; empty: the first day alone.")] = None,
    dates: Annotated[list[date] | None, Field(description="Single days, beside or instead of a range.")] = None,
    streams: Annotated[
        list[Stream] | None, Field(description="Which streams; empty: all that the Block names.")
    ] = None,
    max_images_per_date: Annotated[
        int | None, Field(ge=1, description="Most pictures of a date and stream, the first of the day; empty: all.")
    ] = None,
    method: Annotated[
        Literal["direct", "browser"],
        Field(description="direct: compute names from what was learned and ask for them; browser: read the page."),
    ] = "direct",
    library: Library = None,
    max_probes_per_image: Annotated[
        int,
        Field(
            ge=1, le=100, description="Most names asked for per expected picture, on the average of a date (direct)."
        ),
    ] = 3,
    max_probes: Annotated[int, Field(ge=0, description="Most names asked for in all (direct).")] = 50_000,
    known_times: Annotated[
        list[str] | None,
        Field(description="Pictures you know of: 2025-09-01T10:00:07, or 10:00:07 for every day (direct)."),
    ] = None,
    strict: Strict = False,
    dry_run: DryRun = False,
) -> IngestReport:
    """Ingest every picture of the given dates and streams; without dates those of yesterday."""
    camera = camera or TerminalCamera()
    try:
        wanted = Wanted(
            days=choose_days(start_date, end_date, dates or [], camera, datetime.now(UTC)),
            streams=choose_streams(streams, camera),
            method=method,
            max_images_per_date=max_images_per_date,
            max_probes_per_image=max_probes_per_image,
            max_probes=max_probes,
            times=parse_times(known_times or []),
        )
    except CatchmentError as error:
        return cast("IngestReport", Failed(message=str(error), data=error))
    return ingest_terminal(camera, library, wanted, strict=strict, dry_run=dry_run)
