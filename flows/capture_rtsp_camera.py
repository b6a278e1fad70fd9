"""Capture frames of a live camera (RTSP) into the library: one, a time of them, or those in which something moves.

Every frame lies whole on this machine's disk before it is stored, and stays there until the library has it: neither an
outage of storage nor a kill loses one, and the next run stores what is left.
"""

from math import ceil
from typing import Annotated, TypeAlias

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from blocks.rtsp_camera import RtspCamera
from tasks._capture import CaptureWish, Mode
from tasks._report import IngestReport
from tasks.capture import capture
from tasks.parameters import Library, described
from tasks.run import bounded

CaptureMode: TypeAlias = Annotated[
    Mode,
    Field(
        description="`single_frame`: the first good one. `continuous`: all for the duration. `event_driven`: those "
        "around motion."
    ),
]
Duration: TypeAlias = Annotated[
    float,
    Field(
        ge=1,
        le=3600,
        description="Seconds of frames to take, from the first on; for a single frame the longest wait for a good one.",
    ),
]
Fps: TypeAlias = Annotated[
    float | None, Field(gt=0, le=30, description="Frames to take each second; empty: what the camera's Block says.")
]
Sensitivity: TypeAlias = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="How little has to move: 0 a fifth of the picture, 0.5 a hundredth, 1 a two-thousandth.",
    ),
]
PreRoll: TypeAlias = Annotated[
    float, Field(ge=0, le=30, description="Seconds of frames to keep from before motion starts.")
]
CoolDown: TypeAlias = Annotated[
    float, Field(ge=0, le=300, description="Seconds to go on after motion ends; new motion within belongs to it.")
]
FrozenAfter: TypeAlias = Annotated[
    int | None,
    Field(
        ge=2,
        description="The same picture so many times in a row means a frozen camera; empty: ten seconds of it, ten at "
        "least.",
    ),
]
Reconnects: TypeAlias = Annotated[
    int | None,
    Field(
        ge=0, le=1000, description="How often in a row to open a lost stream again; empty: 5, for a single frame never."
    ),
]


@flow(flow_run_name="capture {camera.source_name}", task_runner=bounded())
@described
def capture_rtsp_camera(
    camera: Annotated[RtspCamera, Field(description="The camera to watch: a saved RTSP Camera.")],
    library: Library = None,
    mode: CaptureMode = "single_frame",
    duration_seconds: Duration = 60,
    fps: Fps = None,
    sensitivity: Sensitivity = 0.5,
    pre_roll_seconds: PreRoll = 2,
    cool_down_seconds: CoolDown = 5,
    frozen_after: FrozenAfter = None,
    reconnects: Reconnects = None,
) -> IngestReport:
    """Capture good frames of one camera; black, grey, damaged and frozen ones are counted and not stored.

    One capture a camera at a time, and as many cameras at once as the concurrency limit `rtsp-streams` allows.
    """
    pace = fps or camera.fps
    wish = CaptureWish(
        mode=mode,
        duration_seconds=duration_seconds,
        fps=pace,
        reconnects=(0 if mode == "single_frame" else 5) if reconnects is None else reconnects,
        frozen_after=max(10, ceil(10 * pace)) if frozen_after is None else frozen_after,
        sensitivity=sensitivity,
        pre_roll_seconds=pre_roll_seconds,
        cool_down_seconds=cool_down_seconds,
        image_format=camera.frame_format,
        jpeg_quality=camera.jpeg_quality,
        request=flow_run.get_id(),
    )
    return capture(camera, library, wish)
