"""A source that lists in pages: a run goes on where the last one had stored everything, and loses nothing by it."""

import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from pydantic import PrivateAttr

from blocks._catalog_queries import describe_image
from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._records import (
    CaptureTime,
    Claims,
    Fetched,
    Listing,
    Page,
    Quality,
    RemoteFile,
    Rows,
    TimeWitness,
    make_listing,
)
from blocks.library import ImageLibrary
from blocks.source import ImageSource, list_all_pages
from tasks._report import IngestReport
from tasks.run import bounded, ingest
from tests.flows.ingesting import Ending, assert_sound, images_of, last_run, visible_files
from tests.pictures import make_jpeg

pytestmark = pytest.mark.usefixtures("prefect_api", "without_waiting")

TAKEN = datetime(2026, 3, 8, 3, 30)  # noqa: DTZ001 - a wall clock


class Shelf(ImageSource):
    """Pages of pictures; a mark is the number of the page that comes next."""

    _block_type_slug = "shelf"

    _pages: list[dict[str, bytes]] = PrivateAttr(default_factory=list)
    _changes: list[Page] = PrivateAttr(default_factory=list)
    _asked: list[str | None] = PrivateAttr(default_factory=list)
    _fetched: list[str] = PrivateAttr(default_factory=list)
    _broken: dict[str, Exception] = PrivateAttr(default_factory=dict)
    _claims: dict[str, Claims] = PrivateAttr(default_factory=dict)

    @property
    def root(self) -> str:
        return "shelf://"

    def list_files(self) -> Listing:
        return list_all_pages(self)

    def list_page(self, mark: str | None) -> Page:
        self._asked.append(mark)
        if mark == "end" and self._changes:
            return self._changes.pop(0)
        if mark in {"end", "stale"}:
            return Page(make_listing([]), mark="end", is_start=False) if mark == "end" else self.list_page(None)
        number = int(mark or 0)
        files = [
            RemoteFile(key, len(content), validator=hashlib.sha256(content).hexdigest())
            for key, content in self._pages[number].items()
        ]
        is_last = number + 1 == len(self._pages)
        return Page(
            make_listing(files), mark="end" if is_last else str(number + 1), is_last=is_last, is_start=mark is None
        )

    def download(self, file: RemoteFile, destination: Path) -> Fetched:
        self._fetched.append(file.key)
        if file.key in self._broken:
            raise self._broken[file.key]
        [content] = [page[file.key] for page in self._pages if file.key in page]
        destination.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        return Fetched(destination, len(content), digest, claims=self._claims.get(file.key))


@flow(task_runner=bounded())
def ingest_shelf(source: Shelf, library: ImageLibrary, **options: Any) -> IngestReport:
    return ingest(source, library, **{"max_files": None} | options)


def shelf(*pages: list[int]) -> Shelf:
    source = Shelf()
    source._pages = [{f"{number}.jpg": make_jpeg(number) for number in page} for page in pages]
    return source


def run(source: Shelf, library: ImageLibrary, **options: Any) -> Ending:
    source._asked.clear()
    source._fetched.clear()
    return Ending(ingest_shelf(source, library, **options, return_state=True))


def read_mark(library: ImageLibrary) -> str | None:
    with library.catalog().reading() as connection:
        return connection.exec_driver_sql("SELECT high_water_mark FROM sources").scalar()


def test_a_walk_goes_page_by_page_and_the_next_run_takes_only_what_changed(library: ImageLibrary) -> None:
    source = shelf([1, 2], [3], [4, 5])
    assert run(source, library).report.stored == 5
    assert source._asked == [None, "1", "2"]
    assert last_run(library)["listed"] == 5
    assert read_mark(library) == "=end"
    assert run(source, library).report.status == "no_new_files"
    assert source._asked == ["end"]
    assert_sound(library)


def test_a_source_of_one_page_is_asked_for_its_changes_too(library: ImageLibrary) -> None:
    source = shelf([1, 2])
    assert run(source, library).report.stored == 2
    assert run(source, library).report.status == "no_new_files"
    assert source._asked == ["end"]


def test_a_run_that_broke_goes_on_at_the_page_that_was_not_finished(library: ImageLibrary) -> None:
    source = shelf([1, 2], [3], [4])
    pages: Callable[[str | None], Page] = source.list_page
    broken = SourceRefused("The third page is denied.")

    def refuse_the_third(mark: str | None) -> Page:
        if mark == "2":
            raise broken
        return pages(mark)

    object.__setattr__(source, "list_page", refuse_the_third)
    assert str(run(source, library).error) == str(broken)
    assert read_mark(library) == "+2"
    object.__setattr__(source, "list_page", pages)
    assert run(source, library).report.stored == 1
    assert source._asked == ["2"]
    assert sorted(visible_files(library).values()) == sorted(make_jpeg(number) for number in (1, 2, 3, 4))


def test_while_a_file_is_to_be_tried_again_the_whole_source_is_walked(library: ImageLibrary) -> None:
    source = shelf([1, 2], [3])
    source._broken = {"2.jpg": SourceUnavailable("Not now.", reason=Reason.SERVER_ERROR)}
    assert run(source, library).report.failed == 1
    assert read_mark(library) is None
    source._broken = {}
    assert run(source, library).report.stored == 1
    assert source._asked == [None, "1"]
    assert source._fetched == ["2.jpg"]
    assert read_mark(library) == "=end"


def test_a_file_that_failed_makes_no_broken_walk_begin_anew(library: ImageLibrary) -> None:
    source = shelf([1, 2], [3], [4])
    source._broken = {"2.jpg": SourceRefused("Over its quota.")}
    pages: Callable[[str | None], Page] = source.list_page

    def break_off(mark: str | None) -> Page:
        if mark == "2":
            raise SourceUnavailable("The line is dead.")
        return pages(mark)

    object.__setattr__(source, "list_page", break_off)
    run(source, library)
    object.__setattr__(source, "list_page", pages)
    assert run(source, library).report.stored == 1
    assert source._asked == ["2"]
    source._broken = {}
    assert run(source, library).report.stored == 1
    assert (source._asked, source._fetched) == ([None, "1", "2"], ["2.jpg"])


def test_a_cap_stops_the_walk_and_the_next_run_goes_on(library: ImageLibrary) -> None:
    source = shelf([1, 2], [3, 4], [5])
    first = run(source, library, max_files=3).report
    assert (first.stored, first.deferred) == (3, 1)
    assert source._asked == [None, "1"]
    assert read_mark(library) == "+1"
    assert run(source, library, max_files=3).report.stored == 2
    assert source._asked == ["1", "2"]


def test_a_resumed_walk_concludes_nothing_and_the_next_run_walks_the_whole_and_does(library: ImageLibrary) -> None:
    source = shelf([1, 2], [3])
    run(source, library)
    library.catalog().move_high_water_mark(1, "+1")
    source._pages[0].pop("2.jpg")
    assert run(source, library).report.vanished == 0
    assert source._asked == ["1"]
    assert run(source, library).report.vanished == 1
    assert source._asked == [None, "1"]
    assert run(source, library).report.vanished == 0
    assert source._asked == ["end"]


def test_a_mark_that_is_refused_starts_the_walk_over(library: ImageLibrary) -> None:
    source = shelf([1, 2], [3])
    run(source, library)
    library.catalog().move_high_water_mark(1, "=stale")
    source._pages[0].pop("2.jpg")
    assert run(source, library).report.vanished == 1
    assert source._asked == ["stale", None, "1"]
    assert read_mark(library) == "=end"


def test_changes_say_themselves_what_is_gone(library: ImageLibrary) -> None:
    source = shelf([1, 2])
    source._pages.append({"trip/3.jpg": make_jpeg(3), "trip/day/4.jpg": make_jpeg(4), "trip.jpg": make_jpeg(5)})
    run(source, library)
    stays = [RemoteFile("trip/3.jpg", len(make_jpeg(3)))]
    gone = Rows(["1.jpg", "never-seen.jpg", "trip"])
    source._changes = [Page(make_listing(stays), gone=gone, mark="end", is_start=False)]
    report = run(source, library).report
    assert (report.vanished, report.planned) == (2, 0)
    known = library.catalog().known_files(1)
    assert sorted(known.filter(known["vanished"])["key"]) == ["1.jpg", "trip/day/4.jpg"]


def test_a_picture_takes_the_place_of_its_thumbnail(library: ImageLibrary) -> None:
    source = shelf([1])
    small = make_jpeg(90)
    source._pages = [{"1.jpg": small}]
    source._claims = {"1.jpg": Claims(quality=Quality.THUMBNAIL)}
    run(source, library)
    [before] = images_of(library)
    assert list(visible_files(library)) == [f"{before['storage_key'].removesuffix('_thumbnail.jpg')}_thumbnail.jpg"]
    source._pages, source._claims = [{"1.jpg": make_jpeg(1)}], {}
    library.catalog().move_high_water_mark(1, None)
    assert run(source, library).report.stored == 1
    [after] = images_of(library)
    assert after["sha256"] != before["sha256"]
    assert list(visible_files(library).values()) == [make_jpeg(1)]
    assert_sound(library)


def test_a_thumbnail_that_another_file_also_is_stays(library: ImageLibrary) -> None:
    source = shelf([1])
    small = make_jpeg(90)
    source._pages, source._claims = (
        [{"1.jpg": small, "2.jpg": small}],
        {
            "1.jpg": Claims(quality=Quality.THUMBNAIL),
            "2.jpg": Claims(quality=Quality.THUMBNAIL),
        },
    )
    run(source, library)
    source._pages = [{"1.jpg": make_jpeg(1), "2.jpg": small}]
    source._claims.pop("1.jpg")
    library.catalog().move_high_water_mark(1, None)
    run(source, library)
    assert sorted(visible_files(library).values()) == sorted([small, make_jpeg(1)])
    assert_sound(library)


def test_what_the_source_claims_of_an_image_is_kept(library: ImageLibrary) -> None:
    source = shelf([1])
    captured = CaptureTime(TAKEN, -420, TimeWitness.CAMERA)
    source._claims = {"1.jpg": Claims(captured, "in_gate", 33.74, -118.26, extra={"session": "FP1"})}
    run(source, library)
    [row] = images_of(library)
    seen = describe_image(library.catalog(), row["sha256"])["image"]
    assert (row["captured_at"], row["captured_at_source"]) == ("2026-03-08T03:30:00-07:00", "camera")
    assert (seen["camera"], seen["latitude"], seen["longitude"]) == ("in_gate", 33.74, -118.26)
    assert seen["extra"] == {"session": "FP1"}
