"""No file is lost to its name, its date or its neighbours, and none comes twice, whatever the server tells of it."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks._catalog_queries import describe_image
from blocks.library import ImageLibrary
from tests.flows.ingesting import (
    LONG_AGO,
    Site,
    assert_sound,
    directory,
    folder_source,
    images_of,
    index_page,
    ingest,
    last_run,
    visible_files,
)
from tests.pictures import make_jpeg
from tests.servers import fault
from tests.servers.fault import FaultServer

pytestmark = pytest.mark.usefixtures("prefect_api", "without_waiting")


@pytest.fixture(params=["site", "bare_site"])
def any_site(request: pytest.FixtureRequest) -> Site:
    """A server that lists sizes and dates, and one that lists only names."""
    site: Site = request.getfixturevalue(request.param)
    return site


def test_late_early_and_renamed_files_are_taken_and_vanished_ones_kept(any_site: Site, library: ImageLibrary) -> None:
    any_site.put("m.jpg", make_jpeg(1))
    any_site.put("p.jpg", make_jpeg(2))
    ingest(any_site.source(), library)
    any_site.put("a-sorted-early.jpg", make_jpeg(3), modified=LONG_AGO - timedelta(days=900))
    any_site.put("z-late.jpg", make_jpeg(4), modified=datetime.now(UTC))
    (any_site.folder / "p.jpg").rename(any_site.folder / "renamed.jpg")
    report = ingest(any_site.source(), library).report
    assert (report.stored, report.duplicate, report.unchanged, report.vanished) == (2, 1, 1, 1)
    shutil.rmtree(any_site.folder)
    any_site.folder.mkdir()
    ingest(any_site.source(), library)
    assert ingest(any_site.source(), library).report.vanished == 0
    assert sorted(visible_files(library).values()) == sorted(make_jpeg(number) for number in (1, 2, 3, 4))
    assert len(images_of(library, status="vanished")) == 5
    assert_sound(library)


def test_a_replaced_file_is_taken_beside_the_one_it_replaced(site: Site, library: ImageLibrary) -> None:
    site.put("latest.jpg", make_jpeg(1))
    ingest(site.source(), library)
    site.put("latest.jpg", make_jpeg(2), modified=LONG_AGO + timedelta(minutes=1))
    report = ingest(site.source(), library).report
    assert (report.stored, report.unchanged) == (1, 0)
    assert sorted(visible_files(library).values()) == sorted([make_jpeg(1), make_jpeg(2)])
    assert ingest(site.source(), library).report.status == "no_new_files"
    assert_sound(library)


def test_a_returning_file_is_fetched_only_where_the_listing_can_not_prove_it_the_same(
    site: Site, bare_site: Site, library: ImageLibrary
) -> None:
    for place, tried in ((site, 0), (bare_site, 1)):
        path = place.put("a.jpg", make_jpeg(1))
        ingest(place.source(), library)
        path.unlink()
        ingest(place.source(), library)
        place.put("a.jpg", make_jpeg(1))
        report = ingest(place.source(), library).report
        assert (report.planned, report.duplicate) == (tried, tried)
        assert ingest(place.source(), library).report.planned == 0
    assert images_of(library, status="vanished") == []
    assert_sound(library)


def test_a_replacement_that_a_bare_listing_hides_is_taken_once_the_file_was_away(
    bare_site: Site, library: ImageLibrary
) -> None:
    path = bare_site.put("a.jpg", make_jpeg(1))
    ingest(bare_site.source(), library)
    bare_site.put("a.jpg", make_jpeg(2))
    assert ingest(bare_site.source(), library).report.planned == 0
    path.unlink()
    ingest(bare_site.source(), library)
    bare_site.put("a.jpg", make_jpeg(2))
    assert ingest(bare_site.source(), library).report.stored == 1
    assert_sound(library)


def test_the_same_bytes_are_one_image_on_one_disk_whatever_they_are_called_and_wherever_they_come_from(
    site: Site, bare_site: Site, library: ImageLibrary, tmp_path: Path
) -> None:
    folder = tmp_path / "card"
    folder.mkdir()
    for place in (site.folder, bare_site.folder, folder):
        (place / "IMG_1.jpg").write_bytes(make_jpeg(1))
        (place / "copy of IMG_1.jpg").write_bytes(make_jpeg(1))
    sources = [site.source(), bare_site.source(), folder_source(folder)]
    reports = [ingest(source, library).report for source in sources]
    assert [(report.stored, report.duplicate) for report in reports] == [(1, 1), (0, 2), (0, 2)]
    [image] = images_of(library)
    assert list(visible_files(library).values()) == [make_jpeg(1)]
    provenance = describe_image(library.catalog(), image["sha256"])["provenance"]
    assert {(row["source"], row["key"]) for row in provenance} == {
        (source.source_name, key) for source in sources for key in ("IMG_1.jpg", "copy of IMG_1.jpg")
    }
    assert_sound(library)


def test_images_of_one_name_and_day_lie_beside_each_other(site: Site, library: ImageLibrary) -> None:
    for number in range(3):
        site.put(f"card-{number}/IMG_0001.jpg", make_jpeg(number))
    report = ingest(site.source(recurse_depth=1), library).report
    assert report.stored == 3
    assert_sound(library)


def test_names_that_would_escape_or_break_something_are_taken_or_left_but_never_harm(
    faults: FaultServer, library: ImageLibrary
) -> None:
    names = ["..%2F..%2Fescape.jpg", "%2Fetc%2Fabsolute.jpg", "CON.jpg", ".hidden.jpg", "%FF.jpg", "%E2%80%AEgpj.jpg"]
    names += [f"{'long' * 800}.jpg", f"{'n' * 255}.jpg", "%7Bbatch.title%7D.jpg", "fine.jpg"]
    faults.on("/", index_page(names))
    for number, name in enumerate(names):
        faults.on(f"/{name}", fault.whole(make_jpeg(number)))
    report = ingest(directory(faults.url), library).report
    assert (report.status, report.planned) == ("success", 7)
    assert make_jpeg(9) in visible_files(library).values()
    assert {path.name for path in library.folder.parent.iterdir()} == {"library"}
    assert last_run(library)["listed"] == 7
    assert_sound(library)
