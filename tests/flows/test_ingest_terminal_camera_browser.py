"""Gate pictures by the history page: a real Chromium reads a day, the next is computed from what was learned."""

# ruff: noqa: DTZ001 - names tell wall clocks

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

import pytest

from blocks._errors import SourceRefused
from blocks.library import ImageLibrary
from blocks.terminal_camera import TerminalCamera
from flows.ingest_terminal_camera import ingest_terminal_camera
from tests.flows.ingesting import Ending, assert_sound, images_of, visible_files
from tests.servers._programs import require_program
from tests.servers.terminal_cdn import ZONE, TerminalCdn, by_the_clock, on_day, serve_terminal_cdn
from tests.servers.terminal_site import TerminalSite, find_builds, serve_terminal_site

pytest.importorskip("playwright.async_api", reason="the extra `browser` is not installed")
pytestmark = pytest.mark.usefixtures("prefect_api", "without_waiting")

FIRST, SECOND = date(2025, 8, 31), date(2025, 9, 1)
TAKEN = by_the_clock([FIRST, SECOND], step_seconds=1800)


@pytest.fixture(scope="module")
def terminal() -> Iterator[tuple[TerminalSite, TerminalCdn]]:
    """The site, with the server that holds its pictures."""
    require_program("chromium")
    with serve_terminal_cdn() as cdn, serve_terminal_site(find_builds(), cdn_url=cdn.url) as site:
        for stream in ("in_gate", "out_gate"):
            for moment in TAKEN:
                cdn.put(moment, stream)
                cdn.put(moment, stream, is_thumbnail=True)
                site.put(stream, moment.astimezone(ZONE).replace(tzinfo=None))
        yield site, cdn


def camera_of(terminal: tuple[TerminalSite, TerminalCdn], **fields: Any) -> TerminalCamera:
    site, cdn = terminal
    return TerminalCamera(
        **{
            "page_url": site.page_url_template,
            "picture_url": cdn.template,
            "streams": ["in_gate"],
            "retry_deadline_seconds": 0,
        }
        | fields
    )


def ingest(camera: TerminalCamera, library: ImageLibrary, *days: date, **options: Any) -> Ending:
    return Ending(ingest_terminal_camera(camera, dates=list(days), library=library, return_state=True, **options))


def test_a_day_read_from_the_page_teaches_the_next(
    terminal: tuple[TerminalSite, TerminalCdn], library: ImageLibrary
) -> None:
    camera = camera_of(terminal, streams=["in_gate", "out_gate"])
    report = ingest(camera, library, FIRST, method="browser").report
    assert (str(report.status), report.stored) == ("success", 96)
    assert {row["quality"] for row in images_of(library)} == {"full"}
    report = ingest(camera, library, SECOND, method="direct").report
    assert (str(report.status), report.stored) == ("success", 96)
    assert len(visible_files(library)) == 4 * 48
    assert_sound(library)
    again = ingest(camera, library, FIRST, SECOND, method="browser").report
    assert (str(again.status), again.unchanged) == ("no_new_files", 192)


def test_a_day_without_pictures_is_none_of_the_pages_failures(
    terminal: tuple[TerminalSite, TerminalCdn], library: ImageLibrary
) -> None:
    report = ingest(camera_of(terminal), library, date(2025, 7, 4), FIRST, method="browser", max_images_per_date=2)
    assert (str(report.report.status), report.report.stored) == ("success", 2)


def test_pictures_elsewhere_than_the_block_says_are_refused_with_both_addresses(
    terminal: tuple[TerminalSite, TerminalCdn], library: ImageLibrary
) -> None:
    _, cdn = terminal
    camera = camera_of(terminal, picture_url=f"{cdn.url}gates/{{local:%Y%m%d%H%M%S}}_{{stream}}.jpg")
    ending = ingest(camera, library, FIRST, method="browser")
    assert isinstance(ending.error, SourceRefused)
    assert "picture_url" in str(ending.error)


def test_the_listing_is_what_the_page_shows_of_yesterday_and_today(
    terminal: tuple[TerminalSite, TerminalCdn],
) -> None:
    site, _ = terminal
    today = datetime.now(ZONE).date()
    with serve_terminal_site(find_builds(), today=today, cdn_url=site.cdn_url) as now:
        now.put("in_gate", datetime(today.year, today.month, today.day, 0, 0, 7))
        listing = camera_of(terminal, page_url=now.page_url_template).list_files()
    assert listing["key"].to_list() == [f"{today}/in_gate/{today:%Y%m%d}000007_in_gate.jpg"]
    assert on_day(TAKEN, today) == []
