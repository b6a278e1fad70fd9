"""A terminal's picture server: what is there, what only seems to be, and what a picture's time is."""

# ruff: noqa: DTZ001 - names tell wall clocks

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._records import Fetched, Quality, RemoteFile, TimeWitness
from blocks._terminal_addresses import PictureAddress, picture_key
from blocks._terminal_cdn import Sight
from blocks.terminal_camera import SECOND_HOUR, TerminalCamera
from tests.pictures import make_jpeg
from tests.servers import fault
from tests.servers.terminal_cdn import SOFT_404, ZONE, TerminalCdn, serve_terminal_cdn

TAKEN = datetime(2025, 9, 1, 16, 0, 7, tzinfo=UTC)
HERE = PictureAddress(datetime(2025, 9, 1, 9, 0, 7), "in_gate")
ABSENT = PictureAddress(datetime(2025, 9, 1, 9, 0, 8), "in_gate")


@pytest.fixture
def cdn() -> Iterator[TerminalCdn]:
    with serve_terminal_cdn() as server:
        yield server


def camera_of(cdn: TerminalCdn, **fields: Any) -> TerminalCamera:
    quick = {"picture_url": cdn.template, "retry_deadline_seconds": 0, "timeout_seconds": 10}
    return TerminalCamera(**quick | fields)


def key_of(moment: datetime, stream: str = "in_gate") -> str:
    return picture_key(moment.astimezone(ZONE).replace(tzinfo=None, fold=0), stream)


def download(camera: TerminalCamera, moment: datetime, folder: Path, locator: str | None = None) -> Fetched:
    return camera.download(RemoteFile(key_of(moment), locator=locator), folder / "picture")


def looks(camera: TerminalCamera) -> list[bool]:
    manners = camera.learn_manners()
    return [camera.look_for(address, manners) is not None for address in (HERE, ABSENT)]


def test_a_picture_comes_whole_with_its_instant_and_its_stream(cdn: TerminalCdn, tmp_path: Path) -> None:
    path = cdn.put(TAKEN, "in_gate")
    fetched = download(camera_of(cdn), TAKEN, tmp_path)
    assert fetched.path.read_bytes() == cdn.pictures[path].content
    claims = fetched.claims
    assert claims is not None
    assert (claims.camera, claims.quality, claims.extra) == ("in_gate", Quality.FULL, None)
    captured = claims.captured
    assert captured is not None
    assert (captured.local, captured.offset_minutes, captured.witness) == (HERE.local, -420, TimeWitness.CAMERA)


@pytest.mark.parametrize("absent", [fault.status(404), fault.status(403), fault.status(200, SOFT_404)])
def test_where_only_a_thumbnail_is_there_it_comes_and_says_so(
    cdn: TerminalCdn, tmp_path: Path, absent: fault.Answer
) -> None:
    cdn.absent = absent
    path = cdn.put(TAKEN, "in_gate", is_thumbnail=True)
    fetched = download(camera_of(cdn), TAKEN, tmp_path)
    assert fetched.path.read_bytes() == cdn.pictures[path].content
    assert fetched.claims is not None
    assert fetched.claims.quality is Quality.THUMBNAIL


@pytest.mark.parametrize(
    ("absent", "reason"),
    [(fault.status(404), Reason.NOT_FOUND), (fault.status(200, SOFT_404), Reason.HTML_PAGE)],
)
def test_a_picture_that_is_not_there_is_refused_as_the_full_one_was(
    cdn: TerminalCdn, tmp_path: Path, absent: fault.Answer, reason: Reason
) -> None:
    cdn.absent = absent
    with pytest.raises(SourceRefused) as refused:
        download(camera_of(cdn), TAKEN, tmp_path)
    assert refused.value.reason is reason
    assert "thumbnail" not in str(refused.value)


def test_a_full_picture_that_fails_for_now_is_not_replaced_by_its_thumbnail(cdn: TerminalCdn, tmp_path: Path) -> None:
    cdn.put(TAKEN, "in_gate", is_thumbnail=True)
    path = cdn.put(TAKEN, "in_gate")
    cdn.on(path, fault.status(503))
    with pytest.raises(SourceUnavailable):
        download(camera_of(cdn), TAKEN, tmp_path)


def test_a_cut_answer_is_joined_to_its_rest(cdn: TerminalCdn, tmp_path: Path) -> None:
    content = make_jpeg(1)
    path = cdn.path_of(TAKEN.astimezone(ZONE), "in_gate")
    cdn.on(path, fault.raw(fault.head(200, len(content), etag='"1"') + content[:5_000]), fault.whole(content))
    fetched = download(camera_of(cdn, retry_deadline_seconds=30), TAKEN, tmp_path)
    assert fetched.path.read_bytes() == content


def test_an_answer_that_stalls_fails_within_its_timeout(cdn: TerminalCdn, tmp_path: Path) -> None:
    cdn.on(cdn.path_of(TAKEN.astimezone(ZONE), "in_gate"), fault.stall())
    with pytest.raises(SourceUnavailable) as failure:
        download(camera_of(cdn, timeout_seconds=0.2), TAKEN, tmp_path)
    assert failure.value.reason is Reason.TIMEOUT


@pytest.mark.parametrize(
    ("absent", "takes_head"),
    [
        (fault.status(404), True),
        (fault.status(410), True),
        (fault.status(403), True),
        (fault.status(302, location="/elsewhere"), True),
        (fault.status(200, SOFT_404, content_type="text/html"), True),
        (fault.status(200, SOFT_404, content_type="image/jpeg"), True),
        (fault.status(404), False),
        (fault.status(403), False),
        (fault.status(200, SOFT_404, content_type="image/jpeg"), False),
    ],
)
def test_what_is_there_is_told_from_what_only_seems_so(
    cdn: TerminalCdn, absent: fault.Answer, takes_head: bool
) -> None:
    cdn.put(TAKEN, "in_gate")
    cdn.absent, cdn.takes_head = absent, takes_head
    assert looks(camera_of(cdn)) == [True, False]


def test_a_probe_costs_one_request_and_tells_the_size(cdn: TerminalCdn) -> None:
    path = cdn.put(TAKEN, "in_gate")
    camera = camera_of(cdn)
    with camera.connected():
        manners = camera.learn_manners()
        before = len(cdn.requests)
        seen = camera.look_for(HERE, manners)
    assert len(cdn.requests) == before + 1
    assert cdn.accepted == 1
    assert seen == Sight(len(cdn.pictures[path].content), TAKEN + timedelta(seconds=3))


def test_a_server_that_has_a_picture_for_every_name_is_not_believed(cdn: TerminalCdn) -> None:
    cdn.absent = fault.status(200, make_jpeg(3), content_type="image/jpeg")
    with pytest.raises(SourceRefused, match="browser"):
        camera_of(cdn).learn_manners()


def test_trouble_is_no_absence(cdn: TerminalCdn) -> None:
    camera = camera_of(cdn)
    manners = camera.learn_manners()
    cdn.on(cdn.path_of(TAKEN.astimezone(ZONE), "in_gate"), fault.status(500), fault.status(429))
    for _ in range(2):
        with pytest.raises(SourceUnavailable):
            camera.look_for(HERE, manners)
    cdn.absent = fault.status(403)
    with pytest.raises(SourceRefused):
        camera.look_for(ABSENT, manners)


def test_trouble_that_heals_is_waited_out(cdn: TerminalCdn) -> None:
    path = cdn.put(TAKEN, "in_gate")
    camera = camera_of(cdn, retry_deadline_seconds=30)
    manners = camera.learn_manners()
    cdn.on(path, fault.status(503), fault.whole(b"x" * 10))
    assert camera.look_for(HERE, manners) is not None


FIRST_PASS = datetime(2025, 11, 2, 8, 30, 7, tzinfo=UTC)
SECOND_PASS = FIRST_PASS + timedelta(hours=1)


@pytest.mark.parametrize(
    ("taken", "tells_modified", "locator", "offset", "told"),
    [
        (FIRST_PASS, True, None, -420, "server"),
        (SECOND_PASS, True, None, -480, "server"),
        (FIRST_PASS, False, None, -420, "assumed"),
        (SECOND_PASS, False, SECOND_HOUR, -480, "order"),
    ],
)
def test_in_the_repeated_hour_the_instant_is_proven_or_called_assumed(
    cdn: TerminalCdn,
    tmp_path: Path,
    taken: datetime,
    tells_modified: bool,
    locator: str | None,
    offset: int,
    told: str,
) -> None:
    cdn.put(taken, "in_gate")
    cdn.tells_modified = tells_modified
    claims = download(camera_of(cdn), taken, tmp_path, locator).claims
    assert claims is not None
    assert claims.captured is not None
    assert (claims.captured.local, claims.captured.offset_minutes) == (datetime(2025, 11, 2, 1, 30, 7), offset)
    assert claims.extra == {"repeated_hour": told}


def test_a_name_in_the_hour_that_was_left_out_gets_no_instant(cdn: TerminalCdn, tmp_path: Path) -> None:
    cdn.on("/apm/2025-03-09/2/2025-03-09T02:30:00-in_gate.jpeg", fault.whole(make_jpeg(1)))
    fetched = camera_of(cdn).download(RemoteFile("2025-03-09/in_gate/20250309023000_in_gate.jpg"), tmp_path / "picture")
    assert fetched.claims is not None
    assert fetched.claims.captured is not None
    assert fetched.claims.captured.offset_minutes is None


def test_a_cap_on_bytes_holds_for_all_connections_together(cdn: TerminalCdn, tmp_path: Path) -> None:
    """Faster than the cap it never is; how near it comes is measured by hand: an idle machine reaches 96-100 %."""

    # ruff: noqa: DTZ001 - names tell wall clocks
    moments = [TAKEN + timedelta(minutes=10 * number) for number in range(16)]
    for moment in moments:
        cdn.put(moment, "in_gate", size=50_000)
    camera = camera_of(cdn, bytes_per_second=400_000, connections=4)
    started = time.monotonic()
    with camera.connected(), ThreadPoolExecutor(4) as threads:
        sizes = threads.map(
            lambda moment: camera.download(RemoteFile(key_of(moment)), tmp_path / str(moment.timestamp())).size, moments
        )
        total = sum(sizes)
    assert total == 800_000
    assert time.monotonic() - started >= 0.9 * total / 400_000


@pytest.mark.parametrize(
    "fields",
    [
        {"timezone": "Mars/Olympus"},
        {"streams": []},
        {"streams": ["../in_gate"]},
        {"picture_url": "ftp://cdn.example.org/{local:%Y%m%d%H%M%S}_{stream}.jpg"},
        {"picture_url": "https://user:word@cdn.example.org/{local:%Y%m%d%H%M%S}_{stream}.jpg"},
        {"picture_url": "https://cdn.example.org/{local:%Y-%m-%d}-{stream}.jpg"},
        {"picture_url": "https://cdn.example.org/{local:%Y%m%d%H%M%S}.jpg"},
        {"picture_url": "https://cdn.example.org/{local.tzinfo}_{stream}.jpg"},
        {"picture_url": "https://cdn.example.org/{local:%Y%m%d%H%M%S_{stream}.jpg"},
        {"page_url": "https://app.example.org/cameras"},
        {"thumbnail_suffix": ""},
    ],
)
def test_what_can_not_work_is_refused_when_it_is_saved(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TerminalCamera(**fields)


def test_the_defaults_are_those_of_the_terminal() -> None:
    camera = TerminalCamera()
    assert (camera.streams, camera.layout, camera.timezone) == (["in_gate", "out_gate"], "{key}", "America/Los_Angeles")
    assert camera.root == camera.source_name == "https://cdn.draydog.com/apm/"
