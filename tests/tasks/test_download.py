"""A batch comes whole into staging, each file failing alone."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blocks._errors import LibraryUnavailable, Reason, SourceUnavailable
from blocks._records import Verdict
from blocks.remote_folder import RemoteFolder
from tasks._download import SILENCE, clear_staging, fetch_batch, staging_path
from tests.pictures import HTML_PAGE, make_jpeg
from tests.servers import fault
from tests.servers.fault import FaultServer, serve_faults
from tests.tasks.staging import make_batch, make_source


@pytest.fixture
def faults() -> Iterator[FaultServer]:
    with serve_faults() as server:
        yield server


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder


def test_the_next_try_asks_only_for_what_did_not_come_and_forgets_nothing_of_what_did(
    faults: FaultServer, staging: Path
) -> None:
    faults.on("/a.jpg", fault.whole(make_jpeg(1), last_modified="Tue, 03 Feb 2026 04:05:06 GMT"))
    faults.on("/b.jpg", fault.status(500), fault.whole(make_jpeg(2)))
    source, batch = make_source(faults.url), make_batch(["a.jpg", "b.jpg"])
    with pytest.raises(SourceUnavailable, match="1 of 2 files did not come"):
        fetch_batch(source, batch, staging, is_last_try=False)
    staged = fetch_batch(source, batch, staging, is_last_try=False)
    assert len(faults.requests_for("/a.jpg")) == 1
    [first, second] = staged.files
    assert first.fetched.modified == datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert first.fetched.path.read_bytes() == make_jpeg(1)
    assert (second.fetched.modified, second.fetched.size) == (None, len(make_jpeg(2)))
    assert sorted(staging.iterdir()) == sorted(item.fetched.path for item in staged.files)


def test_the_last_try_ends_every_file_with_its_own_reason(faults: FaultServer, staging: Path) -> None:
    answers = {
        "busy.jpg": (fault.status(503), Verdict.FAILED, Reason.SERVER_ERROR),
        "cut.jpg": (fault.cut(make_jpeg(1), 500), Verdict.FAILED, Reason.CUT_SHORT),
        "gone.jpg": (fault.status(404), Verdict.FAILED, Reason.NOT_FOUND),
        "large.jpg": (fault.whole(bytes(200_000)), Verdict.QUARANTINED, Reason.TOO_LARGE),
        "page.jpg": (fault.whole(HTML_PAGE), Verdict.QUARANTINED, Reason.HTML_PAGE),
        "whole.jpg": (fault.whole(make_jpeg(2)), None, None),
    }
    for name, (answer, _, _) in answers.items():
        faults.on(f"/{name}", answer)
    source = make_source(faults.url, max_file_bytes=100_000)
    staged = fetch_batch(source, make_batch(answers), staging, is_last_try=True)
    assert {end.file.key: (end.verdict, end.reason) for end in staged.ended} == {
        name: (verdict, reason) for name, (_, verdict, reason) in answers.items() if verdict
    }
    assert [item.file.key for item in staged.files] == ["whole.jpg"]
    assert staged.stopped is None


def test_a_silent_source_is_not_asked_for_the_rest(faults: FaultServer, staging: Path) -> None:
    names = [f"{number:02}.jpg" for number in range(40)]
    for name in names:
        faults.on(f"/{name}", fault.raw(b""))
    staged = fetch_batch(make_source(faults.url, connections=2), make_batch(names), staging, is_last_try=True)
    assert SILENCE <= len(staged.ended) <= SILENCE + 2
    assert len(staged.ended) < 40
    assert "stopped answering" in str(staged.stopped)
    assert len(faults.requests) == len(staged.ended)


def test_a_full_disk_is_no_fault_of_the_file(tmp_path: Path, staging: Path) -> None:
    card = tmp_path / "card"
    card.mkdir()
    (card / "a.jpg").write_bytes(make_jpeg(1))
    part = staging_path(staging, "a.jpg").with_suffix(".part")
    part.symlink_to("/dev/full")
    with pytest.raises(LibraryUnavailable, match="free space"):
        fetch_batch(RemoteFolder(url=str(card)), make_batch(["a.jpg"]), staging, is_last_try=True)


def test_a_new_run_clears_staging_but_for_what_it_may_resume(staging: Path) -> None:
    for name in ("abc", "abc.thumb", "1.came", "def.part", "def.part.etag"):
        (staging / name).write_bytes(b"x")
    clear_staging(staging)
    assert sorted(path.name for path in staging.iterdir()) == ["def.part", "def.part.etag"]
