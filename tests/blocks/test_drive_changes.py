"""After the first walk only changes are asked for, and they keep the listing in step with the folder."""

from collections.abc import Callable, Iterator

import pytest

from blocks._records import Page
from blocks.google_drive import GoogleDriveFolder
from tests.blocks.drive_folder import account_of, folder_of, key_of, last_mark, names, pages_from, user_of
from tests.servers.drive import Drive, after_doing, error, serve_drive

PICTURE = b"\xff\xd8\xff" + bytes(100)


@pytest.fixture
def drive() -> Iterator[Drive]:
    with serve_drive() as server:
        yield server


class Watched:
    """A folder with two pictures and a folder below, walked once."""

    def __init__(self, drive: Drive) -> None:
        self.drive = drive
        self.root = drive.add_folder("cameras")
        self.below = drive.add_folder("below", self.root)
        self.outside = drive.add_folder("outside")
        self.first = drive.add_file("first.jpg", PICTURE, self.root)
        self.second = drive.add_file("second.jpg", b"2" + PICTURE, self.below)
        self.mark = last_mark(self.source())
        drive.requests.clear()

    def source(self) -> GoogleDriveFolder:
        return folder_of(self.drive, self.root, credentials=account_of(self.drive))

    def changes(self) -> Page:
        """Return what has changed since the last look; one page of it."""
        [page] = pages_from(self.source(), self.mark)
        assert page.mark is not None
        self.mark = page.mark
        return page


@pytest.fixture
def watched(drive: Drive) -> Watched:
    return Watched(drive)


def test_nothing_new_costs_one_request(watched: Watched) -> None:
    page = watched.changes()
    assert (len(page.files), list(page.gone), page.is_start, page.is_last) == (0, [], False, True)
    assert [request.route for request in watched.drive.requests] == ["token", "changes"]


def test_a_new_file_is_listed_wherever_below_it_lies(watched: Watched) -> None:
    watched.drive.add_file("new.jpg", PICTURE, watched.root)
    watched.drive.add_file("deep.jpg", PICTURE, watched.below)
    watched.drive.add_file("elsewhere.jpg", PICTURE, watched.outside)
    watched.drive.add_document("plan", watched.root)
    assert names(watched.changes().files) == ["deep.jpg", "new.jpg"]
    assert len(watched.changes().files) == 0


def test_new_bytes_have_another_validator_and_a_new_comment_does_not(watched: Watched) -> None:
    before = {row["key"]: row["validator"] for row in watched.source().list_files().iter_rows(named=True)}
    watched.drive.change(watched.first, modifiedTime="2026-11-11T11:11:11.000Z", version="17")
    watched.drive.change(watched.second, content=b"other bytes")
    page = watched.changes()
    after = {row["key"]: (row["validator"], row["modified"]) for row in page.files.iter_rows(named=True)}
    assert after[f"{watched.first}/first.jpg"] == (before[f"{watched.first}/first.jpg"], None)
    assert after[f"{watched.second}/second.jpg"][0] != before[f"{watched.second}/second.jpg"]


def test_a_moved_file_keeps_its_key(watched: Watched) -> None:
    watched.drive.change(watched.first, parent=watched.below)
    page = watched.changes()
    assert list(page.files["key"]) == [f"{watched.first}/first.jpg"]
    assert f"{watched.first}/first.jpg" not in list(page.gone)


@pytest.mark.parametrize(
    "leave",
    [
        lambda watched: watched.drive.change(watched.first, trashed=True),
        lambda watched: watched.drive.change(watched.first, parent=watched.outside),
        lambda watched: watched.drive.change(watched.first, name="first.txt", mimeType="text/plain"),
        lambda watched: watched.drive.delete(watched.first),
    ],
    ids=["trashed", "moved out", "no picture any more", "deleted"],
)
def test_a_file_that_leaves_is_gone(watched: Watched, leave: Callable[[Watched], None]) -> None:
    leave(watched)
    page = watched.changes()
    assert len(page.files) == 0
    assert watched.first in list(page.gone)  # by its id, which every key of it begins with


def test_a_renamed_file_is_gone_under_its_old_name(watched: Watched) -> None:
    watched.drive.change(watched.first, name="better.jpg")
    page = watched.changes()
    assert list(page.files["key"]) == [f"{watched.first}/better.jpg"]
    assert list(page.gone) == [watched.first]


def test_a_new_folder_is_walked_with_all_that_lies_in_it(watched: Watched) -> None:
    moved = watched.drive.add_folder("moved in", watched.outside)
    for number in range(3):
        watched.drive.add_file(f"{number}.jpg", PICTURE, moved)
    watched.drive.add_file("x.jpg", PICTURE, watched.drive.add_folder("deeper", moved))
    watched.changes()
    watched.drive.change(moved, parent=watched.root)  # of its content no change is told
    page = watched.changes()
    assert not page.is_start
    assert names(page.files) == ["0.jpg", "1.jpg", "2.jpg", "x.jpg"]
    watched.drive.add_file("y.jpg", PICTURE, moved)
    assert names(watched.changes().files) == ["y.jpg"]


@pytest.mark.parametrize(
    "change",
    [
        lambda watched: watched.drive.change(watched.below, name="renamed"),
        lambda watched: watched.drive.change(watched.below, parent=watched.outside),
        lambda watched: watched.drive.change(watched.below, trashed=True),
        lambda watched: watched.drive.delete(watched.below),
    ],
    ids=["renamed", "moved", "trashed", "deleted"],
)
def test_a_folder_that_changes_its_place_brings_a_whole_walk(
    watched: Watched, change: Callable[[Watched], None]
) -> None:
    change(watched)
    assert watched.changes().is_start


def test_a_folder_that_is_only_touched_does_not(watched: Watched) -> None:
    watched.drive.change(watched.below, modifiedTime="2026-11-11T11:11:11.000Z")
    watched.drive.change(watched.root, name="another name for the root")
    page = watched.changes()
    assert (page.is_start, len(page.files)) == (False, 0)


def test_what_shortcuts_lead_to_is_watched_too(watched: Watched) -> None:
    target = watched.drive.add_file("target.jpg", PICTURE, watched.outside)
    folder = watched.drive.add_folder("linked", watched.outside)
    shortcut = watched.drive.add_shortcut("to a file", target, watched.root)
    watched.drive.add_shortcut("to a folder", folder, watched.below)
    assert names(watched.changes().files) == ["target.jpg"]
    watched.drive.change(target, content=b"new bytes")
    watched.drive.add_file("inside.jpg", PICTURE, folder)
    assert names(watched.changes().files) == ["inside.jpg", "target.jpg"]
    watched.drive.change(shortcut, name="called otherwise")
    assert not watched.changes().is_start
    watched.drive.change(shortcut, trashed=True)
    assert watched.changes().is_start


def test_many_changes_come_page_by_page_and_can_be_gone_on_with(drive: Drive) -> None:
    watched = Watched(drive)
    drive.largest_page = 100
    for number in range(1500):
        drive.add_file(f"{number}.jpg", PICTURE, watched.root)
    pages = list(pages_from(watched.source(), watched.mark))
    assert [len(page.files) for page in pages] == [1000, 500]
    assert [page.is_start for page in pages] == [False, False]
    assert len(watched.source().list_page(pages[0].mark).files) == 500


def test_a_token_that_is_refused_brings_a_whole_walk(watched: Watched) -> None:
    watched.drive.forget_page_tokens()
    page = watched.changes()
    assert page.is_start
    assert names(page.files) == ["first.jpg", "second.jpg"]


def test_everything_is_listed_again_after_so_many_days(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    soon = folder_of(watched.drive, watched.root, credentials=account_of(watched.drive), relist_days=0)
    assert soon.list_page(watched.mark).is_start
    assert not watched.changes().is_start


def test_where_changes_do_not_tell_all_everything_is_listed_each_time(drive: Drive) -> None:
    drive.is_owned = False  # a folder of others, open to whoever has the link
    root = drive.add_folder("cameras")
    drive.add_file("a.jpg", PICTURE, root)
    for credentials in (key_of(drive), account_of(drive), user_of(drive)):
        source = folder_of(drive, root, credentials=credentials)
        assert source.list_page(last_mark(source)).is_start
    assert drive.asked("start") == []
    drive.items[root]["sharedWithMeTime"] = "2026-03-01T10:00:00.000Z"  # to this very account
    source = folder_of(drive, root, credentials=account_of(drive))
    assert not source.list_page(last_mark(source)).is_start


def test_a_limit_of_rate_in_the_middle_is_waited_out(watched: Watched) -> None:
    watched.drive.add_file("new.jpg", PICTURE, watched.root)
    watched.drive.script("changes", error(403, "userRateLimitExceeded"), after_doing(lambda: None))
    source = folder_of(watched.drive, watched.root, credentials=account_of(watched.drive), retry_deadline_seconds=60)
    assert names(source.list_page(watched.mark).files) == ["new.jpg"]


def test_other_credentials_start_over(watched: Watched) -> None:
    watched.mark = last_mark(folder_of(watched.drive, watched.root, credentials=account_of(watched.drive)))
    assert folder_of(watched.drive, watched.root, credentials=key_of(watched.drive)).list_page(watched.mark).is_start


def test_a_shared_drive_that_we_are_no_member_of_any_more_is_walked_as_far_as_it_is_shared(drive: Drive) -> None:
    drive.members.add("0ASharedDrive")
    root = drive.add_folder("cameras", driveId="0ASharedDrive")
    drive.add_file("a.jpg", PICTURE, root)
    source = folder_of(drive, root, credentials=account_of(drive))
    mark = last_mark(source)
    assert not source.list_page(mark).is_start
    drive.members.clear()
    page = source.list_page(mark)
    assert page.is_start
    assert names(page.files) == ["a.jpg"]
