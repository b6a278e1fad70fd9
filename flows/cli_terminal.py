"""`catchment download-range`: a terminal's gate pictures of given dates, here and now."""

from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from prefect.client.schemas.objects import State
from pydantic import ValidationError

from blocks._errors import WrongUse
from blocks.terminal_camera import TerminalCamera
from flows.cli_ingest import _print_report, _result
from flows.cli_options import Format, Library, Verbose, explain, open_library, with_help
from flows.cli_report import print_coverage
from flows.cli_server import prefect_api
from flows.ingest_terminal_camera import ingest_terminal_camera
from tasks._coverage import measure_coverage
from tasks._report import IngestReport
from tasks.parameters import DryRun, Strict
from tasks.sources import load_source
from tasks.terminal import choose_days, parse_times

_SLUG = TerminalCamera.get_block_type_slug()


@with_help
def download_range(
    *days: Annotated[str, Parameter(help="Days, each YYYY-MM-DD or a range YYYY-MM-DD..YYYY-MM-DD; none: yesterday.")],
    source: Annotated[
        str | None, Parameter(help="Saved cameras, terminal-camera/NAME; without it the terminal APM of Dray Dog.")
    ] = None,
    start: Annotated[str | None, Parameter(name="--from", help="First day, YYYY-MM-DD, local to the terminal.")] = None,
    end: Annotated[str | None, Parameter(name="--to", help="Last day, taken too.")] = None,
    dates: Annotated[
        list[str] | None, Parameter(name="--date", negative="", help="A single day; may be repeated.")
    ] = None,
    streams: Annotated[
        list[str] | None, Parameter(name="--stream", negative="", help="A stream, such as in_gate; may be repeated.")
    ] = None,
    method: Annotated[
        Literal["direct", "browser"],
        Parameter(help="direct: compute names from what was learned and ask for them; browser: read the history page."),
    ] = "direct",
    times: Annotated[
        list[str] | None,
        Parameter(
            name="--time", negative="", help="A picture you know of: 2025-09-01T10:00:07, or 10:00:07 for every day."
        ),
    ] = None,
    max_images: Annotated[
        int | None, Parameter(help="Most pictures of a date and stream, the first of the day.")
    ] = None,
    max_probes_per_image: Annotated[int, Parameter(help="Most names asked for per expected picture, on average.")] = 3,
    max_probes: Annotated[int, Parameter(help="Most names asked for in all.")] = 50_000,
    picture_url: Annotated[str | None, Parameter(help="Address of a picture, in place of the source's.")] = None,
    page_url: Annotated[str | None, Parameter(help="Address of the history page, in place of the source's.")] = None,
    timezone: Annotated[str | None, Parameter(help="The terminal's zone, in place of the source's.")] = None,
    bytes_per_second: Annotated[int | None, Parameter(help="Most bytes a second, in place of the source's.")] = None,
    requests_per_second: Annotated[float | None, Parameter(help="Most requests a second, likewise.")] = None,
    connections: Annotated[int | None, Parameter(help="Most connections at once, likewise.")] = None,
    library: Library = None,
    dry_run: DryRun = False,
    strict: Strict = False,
    style: Format = "table",
    verbose: Verbose = False,
) -> int:
    """Bring every picture of the given days and streams into the library; what is there already is left alone.

    Kill it at any point and start it again: it goes on where it was, and asks for no name twice.
    """
    options = {
        "streams": streams,
        "picture_url": picture_url,
        "page_url": page_url,
        "timezone": timezone,
        "bytes_per_second": bytes_per_second,
        "requests_per_second": requests_per_second,
        "connections": connections,
    }
    for name, value in (("--max-images", max_images), ("--max-probes-per-image", max_probes_per_image)):
        if value is not None and value < 1:
            raise WrongUse(f"{name} {value} is too small: give 1 or more.")
    with prefect_api():
        camera = _open_camera(source, {name: value for name, value in options.items() if value is not None})
        home = open_library(library, must_exist=False)
        asked = choose_days(
            _parse_day(start) if start else None,
            _parse_day(end) if end else None,
            [day for text in (*days, *(dates or [])) for day in _parse_days(text, camera)],
            camera,
            datetime.now(UTC),
        )
        parse_times(times or [])
        state: State[IngestReport] = ingest_terminal_camera(
            camera,
            dates=list(asked),
            max_images_per_date=max_images,
            method=method,
            library=home,
            max_probes_per_image=max_probes_per_image,
            max_probes=max_probes,
            known_times=times,
            strict=strict,
            dry_run=dry_run,
            return_state=True,
        )
    report: IngestReport = _result(state)
    _print_report(report, home, style)
    if style == "table" and report.run_id is not None:
        print()  # noqa: T201
        print_coverage(
            measure_coverage(
                home.catalog(),
                camera.source_name,
                report.run_id,
                asked[0],
                asked[-1],
                camera.zone,
                camera.streams,
                now=datetime.now(UTC),
                days=set(asked),
            )
        )
    return 0


def _open_camera(wanted: str | None, options: dict[str, Any]) -> TerminalCamera:
    """Return the saved cameras, or those of the Block's defaults, with `options` in place of single fields.

    Raises:
        WrongUse: there are none of that name, or an option is not valid.
    """
    if wanted is not None and not wanted.startswith(f"{_SLUG}/"):
        raise WrongUse(f"{wanted!r} names no gate cameras: give a saved {_SLUG}/NAME, or leave --source out.")
    try:
        if wanted is None:
            return TerminalCamera(**options)
        camera = load_source(wanted)
        TerminalCamera(**{**camera.model_dump(include=set(TerminalCamera.model_fields)), **options})
    except ValidationError as error:
        raise WrongUse(explain(error)) from None
    for name, value in options.items():
        setattr(camera, name, value)
    assert isinstance(camera, TerminalCamera)  # noqa: S101 - its slug says so
    return camera


def _parse_days(text: str, camera: TerminalCamera) -> list[date]:
    first, separator, last = text.partition("..")
    if not separator:
        return [_parse_day(first)]
    return list(choose_days(_parse_day(first), _parse_day(last), [], camera, datetime.now(UTC)))


def _parse_day(text: str) -> date:
    try:
        if len(text) == len("2025-09-01"):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise WrongUse(f"{text!r} is no date: write YYYY-MM-DD, such as 2025-09-01.")
