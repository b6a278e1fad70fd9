"""What was kept long enough goes, object and row together; what another source also has, or is younger, stays."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from blocks._catalog import Catalog
from blocks._catalog_queries import list_images
from blocks._storage import Storage
from blocks.library import ImageLibrary
from tasks import _retention
from tasks._plan import make_plan
from tasks._retention import expire
from tasks._store import store_batch
from tests.pictures import make_jpeg
from tests.servers.http_server import serve_http_server
from tests.tasks.staging import NOW, begin_run, fetch_and_inspect, make_source

DAYS = 30


@pytest.fixture
def library(tmp_path: Path) -> ImageLibrary:
    """Three images of two cameras, taken 31, 10 and 31 days ago; the last also seen in a second source."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    old, young = (f"{NOW - timedelta(days=age):%Y%m%dT%H%M%S}Z" for age in (31, 10))
    (shelf / f"{old}_pit-1.jpg").write_bytes(make_jpeg(1))
    (shelf / f"{young}_pit-1.jpg").write_bytes(make_jpeg(2))
    (shelf / f"{old}_pit-10.jpg").write_bytes(make_jpeg(4))
    library = ImageLibrary(folder=tmp_path / "library")
    with serve_http_server(shelf) as server:
        ingest(library, server.url, tmp_path, f"{old}_pit-1.jpg", f"{young}_pit-1.jpg", f"{old}_pit-10.jpg")
        (shelf / f"{old}_pit-1~1.jpg").write_bytes(make_jpeg(3))
        ingest(library, server.url, tmp_path, f"{old}_pit-1~1.jpg")
        ingest(library, server.url.replace("127.0.0.1", "localhost"), tmp_path, f"{old}_pit-1~1.jpg")
    return library


def ingest(library: ImageLibrary, url: str, folder: Path, *keys: str) -> None:
    source = make_source(url)
    staging = folder / "staging"
    staging.mkdir(exist_ok=True)
    ids = begin_run(library, source)
    store_batch(fetch_and_inspect(source, staging, *keys), source, library, ids, now=NOW)


def cameras(library: ImageLibrary) -> list[tuple[str, bool]]:
    rows = list_images(library.catalog(), limit=None)
    return sorted((row["camera"], row["captured_at"] < (NOW - timedelta(days=DAYS)).isoformat()) for row in rows)


def test_a_rehearsal_shows_what_would_go_and_touches_nothing(library: ImageLibrary) -> None:
    before = cameras(library)
    report = expire(library, "pit-1", days=DAYS, now=NOW, is_rehearsal=True)
    assert (report.removed, report.kept) == (1, 1)
    assert "would go" in report.summary
    assert cameras(library) == before


def test_only_old_images_of_exactly_that_camera_go_with_object_and_thumbnail(library: ImageLibrary) -> None:
    report = expire(library, "pit-1", days=DAYS, now=NOW, is_rehearsal=False)
    assert (report.removed, report.kept, report.bytes) == (1, 1, len(make_jpeg(1)))
    assert cameras(library) == [("pit-1", False), ("pit-1", True), ("pit-10", True)]
    contents = {path.read_bytes() for path in library.folder.rglob("*.jpg")}
    assert make_jpeg(1) not in contents
    assert {make_jpeg(2), make_jpeg(3), make_jpeg(4)} <= contents
    assert len(list((library.folder / ".catchment" / "thumbnails").rglob("*.jpg"))) == 3
    assert expire(library, "pit-1", days=DAYS, now=NOW, is_rehearsal=False).removed == 0


def test_what_expired_is_not_fetched_again(library: ImageLibrary) -> None:
    expire(library, "pit-10", days=DAYS, now=NOW, is_rehearsal=False)
    known = library.catalog().known_files(1)
    assert known["state"].to_list().count("expired") == 1
    listing = known.select("key", "size", "modified", "validator").with_columns(locator=None)
    assert make_plan(listing, known).planned == 0


@pytest.mark.parametrize("cut_at", ["before the rows", "after the rows"])
def test_a_killed_retention_is_finished_by_the_next(
    library: ImageLibrary, monkeypatch: pytest.MonkeyPatch, cut_at: str
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    if cut_at == "before the rows":
        monkeypatch.setattr(Catalog, "write", kill)
        library.catalog()
    else:
        monkeypatch.setattr(type(library.storage()), "delete", kill)
    with pytest.raises(Killed):
        expire(library, "pit-1", days=DAYS, now=NOW, is_rehearsal=False)
    monkeypatch.undo()
    expire(library, "pit-1", days=DAYS, now=NOW, is_rehearsal=False)
    assert make_jpeg(1) not in {path.read_bytes() for path in library.folder.rglob("*.jpg")}
    assert cameras(library) == [("pit-1", False), ("pit-1", True), ("pit-10", True)]
    assert isinstance(library.storage(), Storage)


def test_a_camera_nobody_has_loses_nothing(library: ImageLibrary) -> None:
    report = expire(library, "pit", days=1, now=datetime.now(UTC), is_rehearsal=False)
    assert (report.removed, report.kept) == (0, 0)
    assert len(cameras(library)) == 4


def test_an_image_that_was_stored_anew_meanwhile_keeps_its_object(
    library: ImageLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget = _retention.expire_images

    def store_anew_after(catalog: Catalog, sha256s: Sequence[str], message: str) -> set[str]:
        gone = forget(catalog, sha256s, message)
        shelf = tmp_path / "anew"
        shelf.mkdir()
        (shelf / f"{NOW - timedelta(days=31):%Y%m%dT%H%M%S}Z_pit-1.jpg").write_bytes(make_jpeg(1))
        with serve_http_server(shelf) as server:
            ingest(library, server.url, tmp_path, next(shelf.iterdir()).name)
        return gone

    monkeypatch.setattr(_retention, "expire_images", store_anew_after)
    expire(library, "pit-1", days=DAYS, now=NOW, is_rehearsal=False)
    [again] = [
        row for row in list_images(library.catalog(), limit=None) if row["sha256"] == sha256(make_jpeg(1)).hexdigest()
    ]
    assert library.storage().read_bytes(again["storage_key"]) == make_jpeg(1)
