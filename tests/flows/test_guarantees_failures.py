"""One bad file costs only itself, what may heal is tried again, and a source that dies costs nobody else's turn."""

from hashlib import sha256

import pytest

from blocks._errors import Reason, SourceUnavailable
from blocks.library import ImageLibrary
from tasks.run import IN_FLIGHT
from tests.flows.ingesting import (
    Site,
    assert_sound,
    directory,
    images_of,
    index_page,
    ingest,
    last_run,
    visible_files,
)
from tests.pictures import HTML_PAGE, cut, make_jpeg, make_png_bomb
from tests.servers import fault
from tests.servers.fault import Exchange, FaultServer

pytestmark = pytest.mark.usefixtures("prefect_api", "without_waiting")

POISON = {
    "bomb.png": (make_png_bomb(), Reason.TOO_MANY_PIXELS),
    "cut.jpg": (cut(make_jpeg(7)), Reason.TRUNCATED),
    "empty.jpg": (b"", Reason.TRUNCATED),
    "large.jpg": (make_jpeg(8) + bytes(200_000), Reason.TOO_LARGE),
    "noise.jpg": (b"no image at all", Reason.NOT_AN_IMAGE),
    "page.jpg": (HTML_PAGE, Reason.HTML_PAGE),
}
NEVER_KEPT = {"large.jpg", "page.jpg"}
"""Refused while they came, so that there are no bytes to set aside."""


def test_a_poison_file_costs_only_itself(site: Site, library: ImageLibrary) -> None:
    for name, (content, _) in POISON.items():
        site.put(name, content)
    for number in range(3):
        site.put(f"good-{number}.jpg", make_jpeg(number))
    source = site.source(max_file_bytes=150_000)
    ending = ingest(source, library)
    assert ending.state.is_completed()
    report = ending.report
    assert (report.status, report.planned, report.stored, report.quarantined) == ("partial", 9, 3, 6)
    files = last_run(library)["files"]
    assert {key: row["reason"] for key, row in files.items() if row["verdict"] == "quarantined"} == {
        key: reason for key, (_, reason) in POISON.items()
    }
    assert all(row["message"].endswith(".") for row in files.values() if row["verdict"] == "quarantined")
    pen = library.folder / ".catchment" / "quarantine"
    assert {path.relative_to(pen).as_posix(): path.read_bytes() for path in pen.glob("*/*")} == {
        f"{reason}/{sha256(content).hexdigest()[:16]}-{key}": content
        for key, (content, reason) in POISON.items()
        if key not in NEVER_KEPT
    }
    assert sorted(visible_files(library).values()) == sorted(make_jpeg(number) for number in range(3))
    assert ingest(source, library).report.status == "no_new_files"
    assert_sound(library)


def test_clocks_at_the_end_of_the_calendar_harm_nobody(faults: FaultServer, library: ImageLibrary) -> None:
    faults.on("/", index_page(["clock.jpg", "header.jpg", "fine.jpg"], date="31-Dec-9999 23:59"))
    faults.on("/clock.jpg", fault.whole(make_jpeg(1, taken="9999:12:31 23:59:59", offset="-12:00")))
    faults.on("/header.jpg", fault.whole(make_jpeg(2), last_modified="Fri, 31 Dec 9999 23:59:59 -1200"))
    faults.on("/fine.jpg", fault.whole(make_jpeg(3), last_modified="Mon, 01 Jan 0001 00:00:00 GMT"))
    source = directory(faults.url, listing_timezone="America/New_York")
    assert ingest(source, library).report.stored == 3
    assert ingest(source, library).report.status == "no_new_files"
    assert_sound(library)


def test_a_strict_run_fails_after_it_has_stored_what_is_good(site: Site, library: ImageLibrary) -> None:
    site.put("a.jpg", b"no image at all")
    site.put("b.jpg", make_jpeg(1))
    ending = ingest(site.source(), library, strict=True)
    assert ending.state.is_failed()
    assert "0 failed and 1 quarantined of 2 files" in str(ending.error)
    assert last_run(library)["status"] == "partial"
    assert_sound(library)


def test_a_file_that_was_still_being_written_is_taken_when_it_is_whole(bare_site: Site, library: ImageLibrary) -> None:
    bare_site.put("a.jpg", cut(make_jpeg(1)))
    assert ingest(bare_site.source(), library).report.quarantined == 1
    bare_site.put("a.jpg", make_jpeg(1))
    assert ingest(bare_site.source(), library).report.stored == 1
    assert_sound(library)


def test_what_heals_within_a_run_is_stored_by_it(faults: FaultServer, library: ImageLibrary) -> None:
    faults.on("/", fault.status(503), index_page(["a.jpg"]))
    faults.on("/a.jpg", fault.status(500), fault.cut(make_jpeg(1), 1000), fault.whole(make_jpeg(1)))
    report = ingest(directory(faults.url), library).report
    assert (report.status, report.stored, len(faults.requests_for("/a.jpg"))) == ("success", 1, 3)
    assert_sound(library)


def test_a_file_that_always_fails_is_parked_after_five_runs_and_taken_up_again_when_it_changes(
    faults: FaultServer, library: ImageLibrary
) -> None:
    faults.on("/", index_page(["bad.jpg", "good.jpg"]))
    faults.on("/bad.jpg", fault.status(404))
    faults.on("/good.jpg", fault.whole(make_jpeg(1)))
    source = directory(faults.url)
    reports = [ingest(source, library).report for _ in range(6)]
    assert [(report.stored, report.failed) for report in reports] == [(1, 1), (0, 1), (0, 1), (0, 1), (0, 1), (0, 0)]
    assert [str(report.status) for report in reports] == ["partial"] * 5 + ["no_new_files"]
    assert len(faults.requests_for("/bad.jpg")) == 5
    [parked] = images_of(library, status="parked")
    assert (parked["key"], parked["attempts"], parked["reason"]) == ("bad.jpg", 5, "not_found")
    faults.on("/", index_page(["bad.jpg", "good.jpg"], date="02-Mar-2026 10:20"))
    faults.on("/bad.jpg", fault.whole(make_jpeg(2)))
    report = ingest(source, library).report
    assert (report.stored, report.duplicate, report.status) == (1, 1, "success")
    assert_sound(library)


def test_a_file_that_always_fails_keeps_no_new_one_waiting(faults: FaultServer, library: ImageLibrary) -> None:
    bad = [f"0-bad-{number}.jpg" for number in range(4)]
    faults.on("/", index_page([*bad, "1.jpg", "2.jpg"]))
    for number in (1, 2):
        faults.on(f"/{number}.jpg", fault.whole(make_jpeg(number)))
    source = directory(faults.url)
    assert ingest(source, library, max_files=4).report.failed == 4
    assert ingest(source, library, max_files=2).report.stored == 2


def test_a_source_that_asks_to_be_left_alone_is_and_no_file_loses_an_attempt(
    faults: FaultServer, library: ImageLibrary
) -> None:
    names = [f"{number:02}.jpg" for number in range(60)]
    faults.on("/", index_page(names))
    for name in names:
        faults.on(f"/{name}", fault.status(429, retry_after="3600"))
    ending = ingest(directory(faults.url, connections=2), library)
    assert ending.state.is_failed()
    assert "3,600 s" in str(ending.error)
    assert len(faults.requests) <= 1 + IN_FLIGHT * 2
    run = last_run(library)
    assert (run["status"], run["failed"], run["deferred"]) == ("failed", 0, 60)


@pytest.mark.parametrize(("count", "answer"), [(24, fault.raw(b"")), (60, fault.raw(b""))])
def test_a_source_that_dies_in_mid_run_ends_it_and_the_untried_files_lose_no_attempt(
    faults: FaultServer, library: ImageLibrary, count: int, answer: fault.Answer
) -> None:
    names = [f"{number:02}.jpg" for number in range(count)]
    faults.on("/", index_page(names))
    for number, name in enumerate(names):
        faults.on(f"/{name}", fault.whole(make_jpeg(number, (64, 48))) if number < 3 else answer)
    source = directory(faults.url, connections=2)
    ending = ingest(source, library)
    assert ending.state.is_failed()
    assert isinstance(ending.error, SourceUnavailable)
    run = last_run(library)
    assert (run["status"], run["stored"], run["message"]) == ("failed", 3, str(ending.error))
    assert 10 <= run["failed"] < 30
    assert run["planned"] + run["deferred"] == count
    tried = images_of(library, status="failed")
    assert (len(tried), {row["attempts"] for row in tried}) == (run["failed"], {1})
    for number, name in enumerate(names):
        faults.on(f"/{name}", fault.whole(make_jpeg(number, (64, 48))))
    assert ingest(source, library).report.stored == count - 3
    assert_sound(library)


def test_no_more_connections_are_open_at_once_than_the_source_allows(
    faults: FaultServer, library: ImageLibrary
) -> None:
    open_now: list[str] = []
    most = 0

    def slowly(exchange: Exchange) -> bool:
        nonlocal most
        open_now.append(exchange.request.path)
        most = max(most, len(open_now))
        exchange.stopped.wait(0.02)
        open_now.pop()
        return fault.whole(make_jpeg(int(exchange.request.path[1:-4]), (64, 48)))(exchange)

    names = [f"{number}.jpg" for number in range(12)]
    faults.on("/", index_page(names))
    for name in names:
        faults.on(f"/{name}", slowly)
    assert ingest(directory(faults.url, connections=2), library).report.stored == 12
    assert most == 2
    assert faults.accepted <= 3
