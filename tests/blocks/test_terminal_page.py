"""The history page read by a real Chromium: the right pictures of the right day, or a reason."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks._errors import Reason, SourceRefused, SourceUnavailable, WrongUse
from tests.servers._programs import require_program
from tests.servers.terminal_site import NEWEST, OLDER, ZONE, TerminalSite, find_builds, serve_terminal_site

pytest.importorskip("playwright.async_api", reason="the extra `browser` is not installed")

from blocks._browser import Chromium, open_browser
from blocks._terminal_page import HistoryPage, PageSettings, open_history

PATIENT = 120.0
"""Seconds; no test waits as long unless it fails."""
HASTY = 3.0

TODAY = date(2026, 1, 15)


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    require_program("chromium")
    with open_browser(None) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def builds() -> dict[str, Path]:
    return find_builds()


@pytest.fixture(scope="module")
def shared_site(builds: dict[str, Path]) -> Iterator[TerminalSite]:
    with serve_terminal_site(builds, today=TODAY) as terminal:
        yield terminal


@pytest.fixture
def site(shared_site: TerminalSite) -> TerminalSite:
    """The site without pictures and faults; how its page is built counts for streams not yet opened."""
    shared_site.reset()
    return shared_site


def settings(site: TerminalSite, seconds: float = PATIENT, **changed: Any) -> PageSettings:
    fields = {"page_url_template": site.page_url_template, "browser_path": None, "zone": ZONE} | changed
    return PageSettings(timeout_seconds=seconds, **fields)


@pytest.fixture(scope="module")
def shared_history(shared_site: TerminalSite, browser: Chromium) -> Iterator[HistoryPage]:
    with HistoryPage(settings(shared_site), browser) as page:
        yield page


@pytest.fixture
def history(site: TerminalSite, browser: Chromium) -> Iterator[HistoryPage]:
    """A page that nobody has opened."""
    with HistoryPage(settings(site), browser) as page:
        yield page


def fill(site: TerminalSite, day: date, count: int = 4, stream: str = "in_gate") -> list[str]:
    """Publish `count` pictures spread over `day`, with seconds of their own."""
    start = datetime.combine(day, datetime.min.time())
    step = timedelta(days=1) / count
    times = [(start + number * step).replace(second=number * 7 % 60, microsecond=0) for number in range(count)]
    return site.put(stream, *times)


def browser_processes() -> dict[int, str]:
    """Return the command lines of the browsers and drivers below this process."""
    parents, lines = {}, {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    below, grown = {os.getpid()}, True
    while grown:
        found = {child for child, parent in parents.items() if parent in below}
        grown = not found <= below
        below |= found
    return {pid: lines[pid] for pid in below if pid in lines and ("chrom" in lines[pid] or "playwright" in lines[pid])}


def browser_threads() -> int:
    return [thread.name for thread in threading.enumerate()].count("browser")


def await_that(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("release", [NEWEST, OLDER])
def test_months_are_turned_both_ways_across_years(release: str, browser: Chromium) -> None:
    days = [
        "2026-01-14",
        "2025-12-01",
        "2025-11-30",
        "2024-02-29",
        "2026-01-01",
        "2025-08-31",
        "2025-09-01",
        "2025-12-31",
    ]
    with (
        serve_terminal_site(find_builds(release), today=TODAY) as site,
        HistoryPage(settings(site), browser) as page,
    ):
        expected = {day: fill(site, date.fromisoformat(day)) for day in days}
        assert {day: page.pictures_on("in_gate", date.fromisoformat(day)) for day in days} == expected


def test_a_day_of_pictures_that_load_when_scrolled_to_is_read_whole_and_none_is_downloaded(
    site: TerminalSite, history: HistoryPage
) -> None:
    site.traits.scrolls = site.traits.reuses_images = True
    expected = {day: fill(site, day, 144) for day in (date(2026, 1, 12), date(2026, 1, 13), TODAY)}
    assert {day: history.pictures_on("in_gate", day) for day in expected} == expected
    assert [line for line in site.requests if ".jpeg" in line] == []


def test_live_pictures_are_never_taken_for_todays_history(site: TerminalSite, shared_history: HistoryPage) -> None:
    expected = fill(site, TODAY)
    # The page shows today when it opens: the shared one may have shown today without pictures.
    assert shared_history.pictures_on("in_gate", date(2026, 1, 14)) == []
    assert shared_history.pictures_on("in_gate", TODAY) == expected
    assert shared_history.pictures_on("in_gate", TODAY) == expected


def test_today_is_read_though_no_day_is_picked_at_first(site: TerminalSite, history: HistoryPage) -> None:
    site.traits.shows_today_in_picker = False
    expected = fill(site, TODAY)
    assert history.pictures_on("in_gate", TODAY) == expected


def test_pictures_of_the_day_before_are_left_out(site: TerminalSite, shared_history: HistoryPage) -> None:
    site.faults.shows_day_before = True
    fill(site, date(2025, 9, 1))
    expected = fill(site, date(2025, 9, 2))
    assert shared_history.pictures_on("in_gate", date(2025, 9, 2)) == expected
    assert shared_history.pictures_on("in_gate", date(2025, 9, 3)) == []


def test_days_without_pictures_are_told_by_the_pages_answer(site: TerminalSite, shared_history: HistoryPage) -> None:
    days = [date(2025, 10, day) for day in (29, 30, 31)]
    expected = {day: fill(site, day) if day.day == 31 else [] for day in days}
    assert {day: shared_history.pictures_on("in_gate", day) for day in days} == expected


@pytest.mark.parametrize("asks", ["epoch", "nameless"])
def test_the_answer_is_known_however_late_and_however_the_page_asks(
    asks: Any, site: TerminalSite, history: HistoryPage
) -> None:
    site.traits.asks = asks
    site.traits.debounce_milliseconds = 500
    # The clocks are put back on the second of November: midnights lie 25 hours apart.
    days = [date(2025, 11, day) for day in (1, 2, 3)]
    expected = {day: fill(site, day) if day.day == 3 else [] for day in days}
    assert {day: history.pictures_on("in_gate", day) for day in days} == expected


def test_a_slow_answer_is_waited_for_though_pictures_of_its_day_are_already_shown(
    site: TerminalSite, shared_history: HistoryPage
) -> None:
    site.faults.shows_day_before = True
    expected = {day: fill(site, day) for day in (date(2025, 8, 2), date(2025, 8, 1))}
    assert shared_history.pictures_on("in_gate", date(2025, 8, 2)) == expected[date(2025, 8, 2)]
    site.faults.delay_seconds = 1
    assert shared_history.pictures_on("in_gate", date(2025, 8, 1)) == expected[date(2025, 8, 1)]


def test_an_answer_in_many_parts_is_waited_for(site: TerminalSite, history: HistoryPage) -> None:
    site.traits.by_hour, site.traits.veils = True, False
    site.faults.delay_seconds = 0.03
    expected = fill(site, date(2025, 9, 1), 24)
    assert history.pictures_on("in_gate", date(2025, 9, 1)) == expected


@pytest.mark.parametrize(("locale", "first_weekday"), [("De", None), ("ZhCn", 1)])
def test_the_pickers_language_and_first_weekday_do_not_matter(
    locale: Any, first_weekday: int | None, site: TerminalSite, history: HistoryPage
) -> None:
    site.traits.locale, site.traits.first_weekday = locale, first_weekday
    expected = {day: fill(site, day) for day in (date(2024, 12, 31), date(2025, 5, 31))}
    assert {day: history.pictures_on("in_gate", day) for day in expected} == expected


def test_a_history_section_without_the_id_is_found_by_its_heading(site: TerminalSite, history: HistoryPage) -> None:
    site.traits.section_id = "elsewhere"
    expected = fill(site, TODAY)
    assert history.pictures_on("in_gate", TODAY) == expected


@pytest.mark.parametrize("fault", ["never_loads", "never_answers_api"])
def test_a_page_that_never_loads_fails_in_its_time(fault: str, site: TerminalSite, browser: Chromium) -> None:
    setattr(site.faults, fault, True)
    with (
        HistoryPage(settings(site, HASTY), browser) as page,
        pytest.raises(SourceUnavailable, match=r"did not load within 3 s.*raise timeout_seconds") as failure,
    ):
        page.pictures_on("in_gate", TODAY)
    assert failure.value.reason == Reason.TIMEOUT


def test_a_page_that_does_not_react_is_not_an_empty_day(site: TerminalSite, browser: Chromium) -> None:
    site.traits.is_deaf = True
    for seconds in (4, 16, 64):  # as few as this machine can open a page in
        with HistoryPage(settings(site, seconds), browser) as page, pytest.raises(SourceUnavailable) as failure:
            page.pictures_on("in_gate", date(2025, 9, 1))
        if "did not load" not in str(failure.value):
            break
    assert f"did not show 2025-09-01 within {seconds} s" in str(failure.value)
    assert failure.value.reason == Reason.TIMEOUT


def test_an_error_of_the_page_is_not_an_empty_day_and_the_next_call_begins_anew(
    site: TerminalSite, shared_history: HistoryPage
) -> None:
    expected = fill(site, date(2025, 9, 1))
    for status, error, reason in (
        (500, SourceUnavailable, Reason.SERVER_ERROR),
        (403, SourceRefused, Reason.FORBIDDEN),
    ):
        site.faults.api_status = status
        with pytest.raises(error, match=f"own request.*2025-09-01: status {status}") as failure:
            shared_history.pictures_on("in_gate", date(2025, 9, 1))
        assert failure.value.reason == reason
    site.faults.api_status = 200
    assert shared_history.pictures_on("in_gate", date(2025, 9, 1)) == expected


def test_another_page_is_refused_by_what_it_lacks(site: TerminalSite, history: HistoryPage) -> None:
    site.faults.is_another_page = True
    with pytest.raises(SourceRefused, match=r"“Welcome”.*no date picker .*no History section.*check page_url_template"):
        history.pictures_on("in_gate", TODAY)


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [(503, SourceUnavailable, Reason.SERVER_ERROR), (404, SourceRefused, Reason.NOT_FOUND)],
)
def test_a_status_tells_a_site_that_is_down_from_an_address_that_is_wrong(
    status: int, error: type[Exception], reason: Reason, site: TerminalSite, history: HistoryPage
) -> None:
    site.faults.page_status = status
    with pytest.raises(error, match=str(status)) as failure:
        history.pictures_on("in_gate", TODAY)
    assert failure.value.reason == reason  # type: ignore[attr-defined]


def test_a_site_that_is_gone_may_come_back(site: TerminalSite, browser: Chromium) -> None:
    nowhere = settings(site, page_url_template="http://127.0.0.1:9/apm?streamName={stream}#camera-history")
    with pytest.raises(SourceUnavailable, match="did not load"):
        HistoryPage(nowhere, browser).pictures_on("in_gate", TODAY)


def test_a_page_of_another_stream_is_refused(site: TerminalSite, history: HistoryPage) -> None:
    fill(site, TODAY, stream="out_gate")
    site.faults.shows_other_stream = "out_gate"
    with pytest.raises(SourceRefused, match="shows pictures of out_gate in place of in_gate"):
        history.pictures_on("in_gate", TODAY)


def test_a_day_that_can_not_be_picked_is_refused(site: TerminalSite, shared_history: HistoryPage) -> None:
    with pytest.raises(SourceRefused, match="does not offer 2026-01-16") as failure:
        shared_history.pictures_on("in_gate", TODAY + timedelta(days=1))
    assert failure.value.reason == Reason.NOT_FOUND


def test_many_threads_share_one_browser_that_is_gone_with_its_range(site: TerminalSite) -> None:
    require_program("chromium")
    before, threads_before = browser_processes().keys(), browser_threads()
    asked = [(stream, date(2025, 9, day)) for day in (1, 2) for stream in ("in_gate", "out_gate")]
    expected = [fill(site, day, 2, stream) for stream, day in asked]
    with open_history(settings(site)) as page:
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(lambda one: page.pictures_on(*one), asked)) == expected
        started = [line for pid, line in browser_processes().items() if pid not in before and "--remote" in line]
        assert len([line for line in started if "--type=" not in line]) == 1
    await_that(lambda: browser_processes().keys() <= before)
    assert browser_threads() == threads_before


def test_a_browser_killed_in_mid_range_is_started_anew(site: TerminalSite) -> None:
    require_program("chromium")
    expected = fill(site, date(2025, 9, 2))
    before = browser_processes().keys()
    with open_history(settings(site)) as page, ThreadPoolExecutor(1) as threads:
        for victim in ("--remote-debugging", "driver"):
            assert page.pictures_on("in_gate", date(2025, 9, 1)) == []
            site.faults.never_answers_api = True
            site.requests.clear()
            reading = threads.submit(page.pictures_on, "in_gate", date(2025, 9, 2))
            await_that(lambda: any("2025-09-02" in line for line in site.requests))
            mine = {pid: line for pid, line in browser_processes().items() if pid not in before}
            os.kill(next(p for p, line in mine.items() if victim in line and "--type=" not in line), signal.SIGKILL)
            with pytest.raises(SourceUnavailable, match="the browser died"):
                reading.result()
            site.faults.never_answers_api = False
            assert page.pictures_on("in_gate", date(2025, 9, 2)) == expected


def opening(**changed: Any) -> Callable[[], AbstractContextManager[HistoryPage]]:
    return lambda: open_history(PageSettings("http://127.0.0.1:9/{stream}", PATIENT, zone=ZONE, **changed))


def test_a_missing_browser_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WrongUse, match=r"apt-get install chromium.*browser_path"), opening(browser_path=None)():
        pass
    with pytest.raises(WrongUse, match="names no program that can be started: /nowhere"):
        opening(browser_path="/nowhere")().__enter__()


def test_a_program_that_is_no_browser_is_said_at_once() -> None:
    with pytest.raises(WrongUse, match=r"/false does not start \("):
        opening(browser_path=str(require_program("false")))().__enter__()


def test_missing_playwright_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "playwright.async_api", None)
    with pytest.raises(WrongUse, match=r"pip install 'catchment\[browser\]'"):
        opening(browser_path=None)().__enter__()
