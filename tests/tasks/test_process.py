"""A staged batch is looked at, each file failing alone."""

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from blocks._errors import LibraryRefused, Reason
from blocks._records import Fetched, RemoteFile, Rows, TimeWitness, Verdict
from tasks._download import Staged, StagedFile
from tasks._process import Processed, inspect_batch
from tests.pictures import cut, make_jpeg
from tests.tasks.staging import NOW


def inspect(folder: Path, *files: RemoteFile, **contents: bytes) -> Processed:
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    paths = [folder / file.name.partition(".")[0] for file in files]
    staged = [StagedFile(file, Fetched(path, 1, digest_of(path))) for file, path in zip(files, paths, strict=True)]
    return inspect_batch(Staged("batch", Rows(staged), Rows(), None), arrived=NOW)


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes() if path.exists() else b"").hexdigest()


def test_a_bad_file_is_set_aside_and_its_neighbour_accepted(tmp_path: Path) -> None:
    seen = inspect(tmp_path, RemoteFile("bad.jpg"), RemoteFile("good.jpg"), bad=cut(make_jpeg(1)), good=make_jpeg(2))
    [rejected], [accepted] = seen.rejected, seen.accepted
    assert (rejected.outcome.verdict, rejected.outcome.reason) == (Verdict.QUARANTINED, Reason.TRUNCATED)
    assert rejected.path.read_bytes() == cut(make_jpeg(1))
    assert accepted.thumbnail.read_bytes().startswith(b"\xff\xd8")


def test_the_listing_witnesses_the_time_where_the_download_told_none(tmp_path: Path) -> None:
    listed = datetime(2026, 2, 3, 4, 5, tzinfo=UTC)
    seen = inspect(tmp_path, RemoteFile("a.jpg", modified=listed), RemoteFile("b.jpg"), a=make_jpeg(1), b=make_jpeg(2))
    witnesses = [(item.modified, item.facts.captured.witness) for item in seen.accepted]
    assert witnesses == [(listed, TimeWitness.SERVER), (None, TimeWitness.ARRIVAL)]


def test_a_staged_file_that_is_gone_is_the_library_s_trouble_and_no_file_s(tmp_path: Path) -> None:
    with pytest.raises(LibraryRefused):
        inspect(tmp_path, RemoteFile("gone.jpg"))


def test_a_surprise_while_looking_costs_only_its_file(tmp_path: Path) -> None:
    beyond_the_calendar = datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))  # UTC has no such time
    surprising = RemoteFile("a.jpg", modified=beyond_the_calendar)
    seen = inspect(tmp_path, surprising, RemoteFile("b.jpg"), a=make_jpeg(1), b=make_jpeg(2))
    assert [(item.outcome.verdict, item.outcome.reason) for item in seen.rejected] == [(Verdict.FAILED, Reason.CORRUPT)]
    assert [item.file.key for item in seen.accepted] == ["b.jpg"]


def test_bytes_that_changed_in_staging_are_never_stored_under_the_digest_that_came(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(make_jpeg(1))
    staged = StagedFile(RemoteFile("a.jpg"), Fetched(path, 1, digest_of(path)))
    path.write_bytes(make_jpeg(2))
    seen = inspect_batch(Staged("batch", Rows([staged]), Rows(), None), arrived=NOW)
    assert [item.outcome.reason for item in seen.rejected] == [Reason.DIGEST_MISMATCH]
    assert len(seen.accepted) == 0
