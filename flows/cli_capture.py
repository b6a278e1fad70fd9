"""`catchment capture`: frames of a live camera, taken here and now."""

import re
from typing import Annotated

from cyclopts import Parameter
from prefect.client.schemas.objects import State
from pydantic import ValidationError

from blocks._errors import WrongUse
from blocks._schema import RunStatus
from blocks.rtsp_camera import RtspCamera
from flows._table import print_fields, print_rows
from flows.capture_rtsp_camera import (
    CaptureMode,
    CoolDown,
    Duration,
    Fps,
    FrozenAfter,
    PreRoll,
    Reconnects,
    Sensitivity,
    capture_rtsp_camera,
)
from flows.cli_options import Format, Library, Verbose, explain, open_library, with_help
from flows.cli_server import await_api, has_own_server, prefect_api
from tasks._report import IngestReport
from tasks.sources import load_source
from tasks.streams import ensure_streams_limit, forget_open_streams

_ADDRESS = re.compile(r"rtsps?://", re.IGNORECASE)


@with_help
def capture(
    camera: Annotated[str, Parameter(help="A saved camera (rtsp-camera/NAME), or an address: rtsp://host/path.")],
    /,
    *,
    mode: CaptureMode = "single_frame",
    duration: Duration = 60,
    fps: Fps = None,
    sensitivity: Sensitivity = 0.5,
    pre_roll: PreRoll = 2,
    cool_down: CoolDown = 5,
    frozen_after: FrozenAfter = None,
    reconnects: Reconnects = None,
    library: Library = None,
    style: Format = "table",
    verbose: Verbose = False,
) -> int:
    """Capture frames of CAMERA into the library; black, grey, damaged and frozen ones are counted and not stored.

    Frames lie on this machine's disk before they are stored: neither an outage of storage nor a kill loses one.
    """
    with prefect_api():
        if has_own_server():  # nobody else could have made the limit there, and no other capture is known to it
            ensure_streams_limit()
            forget_open_streams()
        place, home = open_camera(camera), open_library(library, must_exist=False)
        state: State[IngestReport] = capture_rtsp_camera(
            place,
            home,
            mode,
            duration_seconds=duration,
            fps=fps,
            sensitivity=sensitivity,
            pre_roll_seconds=pre_roll,
            cool_down_seconds=cool_down,
            frozen_after=frozen_after,
            reconnects=reconnects,
            return_state=True,
        )
    result = state.result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    if style == "json":
        print_fields(result.to_dict(), style=style)
    elif result.status in {RunStatus.SKIPPED, RunStatus.INACTIVE}:
        print(result.message)  # noqa: T201
    else:
        _print_report(result)
    return 0


def open_camera(wanted: str) -> RtspCamera:
    """Return the camera a person named: a saved `rtsp-camera/name`, or an address without a login.

    Raises:
        WrongUse: there is none; the message never repeats what may hold a password.
    """
    if _ADDRESS.match(wanted):
        if "@" in wanted.partition("://")[2].partition("/")[0]:
            raise WrongUse(
                "An address on the command line must not hold a user name or password: save the camera with them as an "
                "RTSP Camera, then name it: catchment capture rtsp-camera/NAME"
            )
        try:
            return RtspCamera(url=wanted)
        except ValidationError as error:
            raise WrongUse(explain(error)) from None
    slug = RtspCamera.get_block_type_slug()
    if wanted.startswith(f"{slug}/") and wanted != f"{slug}/":
        await_api()
        source = load_source(wanted)
        if isinstance(source, RtspCamera):
            return source
    raise WrongUse(f"No such camera: name a saved one ({slug}/NAME) or an address such as rtsp://host:554/path.")


def _print_report(report: IngestReport) -> None:
    print(report.summary)  # noqa: T201
    details = dict(report.details or {})
    gaps = details.pop("gaps", [])
    print()  # noqa: T201
    print_rows([details], list(details))
    if gaps:
        print()  # noqa: T201
        print_rows(gaps, ("since", "until", "seconds", "reason"))
