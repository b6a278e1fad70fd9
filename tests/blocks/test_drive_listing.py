"""A Drive folder listed: what belongs to it, page by page, and whatever Drive answers in between."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks._drive_errors import ProjectRefused
from blocks._drive_walk import PAGE_FILES
from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable
from blocks._patience import SourceBusy
from tests.blocks.drive_folder import (
    account_of,
    files_of,
    folder_of,
    key_of,
    keys,
    last_mark,
    names,
    pages_from,
    user_of,
)
from tests.servers import drive as servers
from tests.servers.drive import Drive, after_doing, error, html_page, serve_drive

PICTURE = b"\xff\xd8\xff" + bytes(100)


@pytest.fixture
def drive() -> Iterator[Drive]:
    with serve_drive() as server:
        yield server


@pytest.fixture
def root(drive: Drive) -> str:
    return drive.add_folder("cameras")


def add_files(drive: Drive, parent: str, count: int, start: int = 0) -> list[str]:
    return [drive.add_file(f"IMG_{start + number:06}.jpg", PICTURE, parent) for number in range(count)]


def test_two_files_of_one_name_in_one_folder_are_kept_apart(drive: Drive, root: str) -> None:
    first, second = (drive.add_file("IMG.jpg", content, root) for content in (b"one", b"two"))
    assert keys(folder_of(drive, root).list_files()) == sorted([f"{first}/IMG.jpg", f"{second}/IMG.jpg"])


def test_everything_below_is_listed_and_what_is_no_picture_is_left(drive: Drive, root: str) -> None:
    below = drive.add_folder("2026/03", root)
    drive.add_file("a.jpg", PICTURE, root)
    drive.add_file("b.png", PICTURE, drive.add_folder("deep", below))
    drive.add_file("from a phone", PICTURE, below, mimeType="image/jpeg")
    drive.add_file("in/out.jpg", PICTURE, below)
    drive.add_file("notes.txt", b"hello", below)
    drive.add_file("binned.jpg", PICTURE, below, trashed=True)
    drive.add_document("plan.jpg", root)
    listing = folder_of(drive, root).list_files()
    assert names(listing) == ["a.jpg", "b.png", "from a phone.jpg", "in_out.jpg"]


def test_globs_match_the_path_that_people_see(drive: Drive, root: str) -> None:
    for month in ("2026-03", "2026-04"):
        drive.add_file("a.jpg", PICTURE, drive.add_folder(month, root), id=f"1{month}aaaaaaaaaa")
    march = folder_of(drive, root, include=["2026-03/*"])
    assert keys(march.list_files()) == ["12026-03aaaaaaaaaa/a.jpg"]
    assert keys(folder_of(drive, root, exclude=["2026-03/*"]).list_files()) == ["12026-04aaaaaaaaaa/a.jpg"]
    assert len(drive.asked("list:")) == 3 + 2  # a folder that is excluded whole is not even opened


@pytest.mark.parametrize(
    ("depth", "found"), [(0, ["a.jpg"]), (1, ["a.jpg", "b.jpg"]), (None, ["a.jpg", "b.jpg", "c.jpg"])]
)
def test_it_looks_as_deep_as_it_is_told(drive: Drive, root: str, depth: int | None, found: list[str]) -> None:
    first = drive.add_folder("1", root)
    for name, parent in (("a.jpg", root), ("b.jpg", first), ("c.jpg", drive.add_folder("2", first))):
        drive.add_file(name, PICTURE, parent)
    assert names(folder_of(drive, root, recurse_depth=depth).list_files()) == found


def test_shortcuts_are_followed_and_circles_cut(drive: Drive, root: str) -> None:
    elsewhere, inside = drive.add_folder("elsewhere"), drive.add_folder("inside", root)
    linked = drive.add_file("linked.jpg", PICTURE, elsewhere)
    alone = drive.add_file("alone.jpg", PICTURE, drive.add_folder("third"))
    drive.add_shortcut("way out", elsewhere, inside)
    drive.add_shortcut("way back", root, elsewhere)
    drive.add_shortcut("in a circle", inside, inside)
    drive.add_shortcut("a picture", alone, root)
    drive.add_shortcut("the same again", alone, inside)
    broken = drive.add_file("broken.jpg", PICTURE, elsewhere)
    drive.add_shortcut("to nothing", broken, root)
    drive.delete(broken)
    assert keys(folder_of(drive, root).list_files()) == sorted([f"{linked}/linked.jpg", f"{alone}/alone.jpg"])


def test_a_link_to_a_shortcut_of_a_folder_opens_the_folder(drive: Drive, root: str) -> None:
    drive.add_file("a.jpg", PICTURE, root)
    shortcut = drive.add_shortcut("cameras", root, drive.add_folder("desk"))
    assert names(folder_of(drive, shortcut).list_files()) == ["a.jpg"]


def test_resource_keys_open_what_needs_them(drive: Drive, root: str) -> None:
    below, target = drive.add_folder("below", root), drive.add_folder("target")
    for item, key in ((root, "0-root"), (below, "0-below"), (target, "0-target")):
        drive.need_key(item, key)
    drive.add_shortcut("link", target, root)
    for name, parent in (("a.jpg", root), ("b.jpg", below), ("c.jpg", target)):
        drive.add_file(name, PICTURE, parent)
    source = folder_of(drive, root, folder_url=drive.link(root, resourcekey="0-root"))
    pages = list(pages_from(source))
    assert names(pages[0].files) == ["a.jpg", "b.jpg", "c.jpg"]
    with pytest.raises(SourceRefused, match="resourcekey") as refused:
        folder_of(drive, root).list_files()
    assert refused.value.reason is Reason.NOT_FOUND


def test_a_mark_holds_no_resource_key(drive: Drive, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    below = drive.add_folder("below", root)
    drive.need_key(root, "0-canary-root")
    drive.need_key(below, "0-canary-below")
    add_files(drive, below, 3)
    monkeypatch.setattr("blocks._drive_walk._PAGE_REQUESTS", 1)
    link = drive.link(root, resourcekey="0-canary-root")
    begun = folder_of(drive, root, folder_url=link)
    page = begun.list_page(None)
    assert page.mark is not None
    assert "canary" not in page.mark
    # Another process does not know the key of the folder below, and finds it again from the start.
    resumed = folder_of(drive, root, folder_url=link).list_page(page.mark)
    assert resumed.is_start
    assert len(begun.list_page(page.mark).files) == 3


def test_a_folder_of_a_shared_drive_is_looked_for_there(drive: Drive) -> None:
    drive.members.add("0ASharedDrive")
    root = drive.add_folder("cameras", driveId="0ASharedDrive")
    drive.add_file("a.jpg", PICTURE, root)
    assert names(folder_of(drive, root, credentials=account_of(drive)).list_files()) == ["a.jpg"]
    assert drive.asked("list:")[-1].query["driveId"] == "0ASharedDrive"
    drive.members.clear()  # the folder alone is shared, not the drive
    source = folder_of(drive, root, credentials=account_of(drive))
    assert names(source.list_files()) == ["a.jpg"]
    assert "driveId" not in drive.asked("list:")[-1].query
    assert source.list_page(last_mark(source)).is_start  # its changes are told to members only


def test_short_and_empty_pages_are_gone_on_from(drive: Drive, root: str) -> None:
    drive.largest_page = 7
    add_files(drive, root, 30)
    drive.script(f"list:{root}", None, empty_page)
    assert len(folder_of(drive, root).list_files()) == 30
    assert len(drive.asked("list:")) == 1 + 1 + 4


def empty_page(handler: Any) -> None:
    """Answer without a file, but with a token that goes on where the one asked with does."""
    handler.send_json(200, {"files": [], "nextPageToken": handler.query["pageToken"] + "==="})


def test_a_page_ends_after_some_thousand_files_and_the_next_goes_on(drive: Drive, root: str) -> None:
    add_files(drive, root, 2 * PAGE_FILES + 100)
    source = folder_of(drive, root)
    pages = list(pages_from(source))
    assert [len(page.files) for page in pages] == [PAGE_FILES, PAGE_FILES, 100]
    assert [(page.is_start, page.is_last) for page in pages] == [(True, False), (False, False), (False, True)]
    assert len(source.list_files()) == 2 * PAGE_FILES + 100


def test_another_process_goes_on_at_the_mark_without_what_was_listed(drive: Drive, root: str) -> None:
    add_files(drive, root, PAGE_FILES + 9)
    below = drive.add_folder("below", root)
    add_files(drive, below, 10, start=5000)
    first = folder_of(drive, root).list_page(None)
    drive.requests.clear()
    second = folder_of(drive, root).list_page(first.mark)
    assert (len(second.files), second.is_start, second.is_last) == (19, False, True)
    assert [request.route for request in drive.requests] == [f"list:{root}", f"list:{below}"]
    assert drive.requests[0].query["pageToken"]


def test_a_token_that_is_refused_costs_the_folder_it_was_of_not_the_walk(drive: Drive, root: str) -> None:
    drive.largest_page = 700
    add_files(drive, drive.add_folder("done", root), 700)
    add_files(drive, drive.add_folder("open", root), 1000, start=1000)
    source = folder_of(drive, root)
    first = source.list_page(None)
    drive.forget_page_tokens()
    rest = list(pages_from(source, first.mark))
    assert not rest[0].is_start
    found = {key for page in [first, *rest] for key in page.files["key"]}
    assert len(found) == 1700
    assert len(drive.asked("list:")) == 1 + 1 + 1 + 1 + 2  # root, done, open; refused; open again


def test_a_mark_of_another_question_starts_over(drive: Drive, root: str) -> None:
    add_files(drive, root, 3)
    mark = folder_of(drive, root, credentials=account_of(drive)).list_page(None).mark
    for other in ({"include": ["IMG_*1.jpg"]}, {"recurse_depth": 0}, {"suffixes": ["jpg"]}):
        page = folder_of(drive, root, credentials=account_of(drive), **other).list_page(mark)
        assert page.is_start
    for spoilt in ("", "again", "{}", "[]", '{"purpose": 1}', str(mark)[:-20]):
        assert folder_of(drive, root).list_page(spoilt).is_start


def test_a_tree_too_wide_for_a_mark_is_walked_to_its_end_in_one_page(
    drive: Drive, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks._drive_walk._LONGEST_MARK", 2000)
    monkeypatch.setattr("blocks._drive_walk._PAGE_REQUESTS", 5)
    for number in range(60):
        add_files(drive, drive.add_folder(f"day {number}", root), 1, start=number)
    source = folder_of(drive, root, credentials=account_of(drive))
    [page] = pages_from(source)
    assert len(page.files) == 60
    assert source.list_page(page.mark).is_start  # and whole again the next time


def test_a_hundred_thousand_files_take_no_more_memory_than_a_page(drive: Drive, root: str) -> None:
    model = json.dumps(drive.items[drive.add_file("IMG_NUMBER.jpg", PICTURE, root, id="1NUMBERNUMBER")])

    def answer(handler: Any) -> None:
        start = int(handler.query.get("pageToken", "0"))
        files = ",".join(model.replace("NUMBER", f"{start + number:06}") for number in range(1000))
        token = f', "nextPageToken": "{start + 1000}"' if start + 1000 < 100_000 else ""
        handler.send_body(200, f'{{"files": [{files}]{token}}}'.encode(), "application/json")

    drive.script(f"list:{root}", *[answer] * 100)
    source = folder_of(drive, root)
    seen, sizes = 0, []
    with source.connected():
        for page in pages_from(source):
            seen += len(page.files)
            sizes.append(read_memory())
            assert len(page.files) <= PAGE_FILES
            assert len(page.mark or "") < 1000
    assert seen == 100_000
    assert sizes[-1] < sizes[20] + 60_000_000  # all rows at once would take some 150 MB more


def read_memory() -> int:
    """Return how many bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_folder_that_goes_while_its_parent_is_read_costs_only_itself(drive: Drive, root: str) -> None:
    gone = drive.add_folder("gone", root)
    add_files(drive, gone, 2)
    add_files(drive, drive.add_folder("stays", root), 1, start=9)

    def vanish() -> None:
        drive.items.pop(gone)

    drive.script(f"list:{gone}", after_doing(vanish))
    assert names(folder_of(drive, root).list_files()) == ["IMG_000009.jpg"]


def test_what_comes_while_it_is_listed_comes_with_the_changes_right_after(drive: Drive, root: str) -> None:
    drive.largest_page = 10
    below = drive.add_folder("below", root)
    add_files(drive, root, 20)

    def arrive() -> None:
        drive.add_file("late.jpg", PICTURE, root)
        drive.change(next(iter(drive.contents)), trashed=True)

    drive.script(f"list:{below}", after_doing(arrive))
    source = folder_of(drive, root, credentials=account_of(drive))
    [walk] = pages_from(source)
    [after] = pages_from(source, walk.mark)
    assert "late.jpg" not in names(walk.files)
    assert "late.jpg" in names(after.files)
    assert set(walk.files["key"]) & set(after.gone)


def test_a_folder_that_is_none_is_told_so(drive: Drive, root: str) -> None:
    picture = drive.add_file("a.jpg", PICTURE, root)
    with pytest.raises(SourceRefused, match="single file"):
        folder_of(drive, picture).list_files()
    binned = drive.add_folder("binned", trashed=True)
    with pytest.raises(SourceRefused, match="in the trash"):
        folder_of(drive, binned).list_files()
    with pytest.raises(SourceRefused, match="not there, or not shared") as refused:
        folder_of(drive, "1NoSuchFolderAnywhere").list_files()
    assert refused.value.reason is Reason.NOT_FOUND


def test_a_search_that_was_not_complete_is_no_listing(drive: Drive, root: str) -> None:
    drive.script(f"list:{root}", lambda handler: handler.send_json(200, {"files": [], "incompleteSearch": True}))
    with pytest.raises(SourceUnavailable, match="did not look through everything"):
        folder_of(drive, root).list_files()


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (error(403, "userRateLimitExceeded"), SourceUnavailable, Reason.RATE_LIMITED),
        (error(403, "rateLimitExceeded"), SourceUnavailable, Reason.RATE_LIMITED),
        (error(429, "rateLimitExceeded"), SourceUnavailable, Reason.RATE_LIMITED),
        (error(429, "rateLimitExceeded", retry_after="120"), SourceBusy, Reason.RATE_LIMITED),
        (error(403, "dailyLimitExceeded"), SourceBusy, Reason.RATE_LIMITED),
        (error(500, "backendError"), SourceUnavailable, Reason.SERVER_ERROR),
        (error(503, "transientError"), SourceUnavailable, Reason.SERVER_ERROR),
        (html_page(429), SourceUnavailable, Reason.RATE_LIMITED),
        (html_page(503), SourceUnavailable, Reason.SERVER_ERROR),
        (html_page(200), SourceUnavailable, Reason.HTML_PAGE),
        (servers.hang_up, SourceUnavailable, Reason.CONNECTION),
        (error(403, "accessNotConfigured"), ProjectRefused, Reason.FORBIDDEN),
        (error(403, "insufficientPermissions"), ProjectRefused, Reason.FORBIDDEN),
        (error(403, "somethingNewOfGoogles"), SourceRefused, Reason.FORBIDDEN),
        (error(400, "badRequest"), SourceRefused, Reason.REFUSED),
        (lambda handler: handler.send_json(200, ["no", "object"]), SourceRefused, Reason.REFUSED),
        (lambda handler: handler.send_body(200, b"{cut", "application/json"), SourceUnavailable, Reason.SERVER_ERROR),
    ],
)
def test_what_heals_is_told_from_what_does_not(
    drive: Drive, root: str, answer: servers.Answer, kind: type[CatchmentError], reason: Reason
) -> None:
    drive.script(f"list:{root}", answer)
    with pytest.raises(kind) as raised:
        folder_of(drive, root).list_files()
    assert raised.value.reason is reason
    assert type(raised.value) is kind


def test_limits_of_rate_are_waited_out(drive: Drive, root: str) -> None:
    add_files(drive, root, 2)
    drive.script(
        f"list:{root}",
        error(403, "userRateLimitExceeded"),
        error(429, "rateLimitExceeded", retry_after="0"),
        error(500, "internalError"),
    )
    assert len(folder_of(drive, root, retry_deadline_seconds=60).list_files()) == 2
    assert len(drive.asked("list:")) == 4


def test_a_wrong_key_is_told_by_what_to_do(drive: Drive, root: str) -> None:
    drive.api_key = "another"
    source = folder_of(drive, root)
    drive.api_key = "the right one"
    with pytest.raises(SourceRefused, match="copy it again from Google's console") as refused:
        source.list_files()
    assert refused.value.reason is Reason.UNAUTHORIZED
    assert "another" not in str(refused.value)


def test_the_key_travels_in_a_header_and_never_in_an_address(drive: Drive, root: str) -> None:
    files_of(folder_of(drive, root, credentials=key_of(drive)))
    assert {request.headers["x-goog-api-key"] for request in drive.requests} == {drive.api_key}
    assert all("key" not in request.query for request in drive.requests)


def test_a_listing_that_goes_in_a_circle_ends(drive: Drive, root: str) -> None:
    drive.largest_page = 2
    add_files(drive, root, 5)
    drive.script(f"list:{root}", *[lambda handler: handler.send_json(200, {"files": [], "nextPageToken": "same"})] * 2)
    with pytest.raises(SourceUnavailable, match="circle"):
        folder_of(drive, root).list_files()


def test_the_mark_is_small_and_plain(drive: Drive, root: str) -> None:
    drive.add_folder("Ünder", root)
    mark = json.loads(last_mark(folder_of(drive, root, credentials=user_of(drive))))
    assert [row[2] for row in mark["folders"]] == ["", "Ünder"]


def test_an_id_that_is_none_never_gets_into_a_key_or_an_address(drive: Drive, root: str) -> None:
    row = {"name": "a.jpg", "mimeType": "image/jpeg", "size": "many"}
    shortcut = {
        "mimeType": servers.SHORTCUT,
        "name": "s",
        "shortcutDetails": {"targetId": "../changes", "targetMimeType": ""},
    }
    rows = [row | {"id": "../../etc"}, row | {"id": 7}, row, shortcut | {"id": "1short"}, row | {"id": "1good"}]
    drive.script(f"list:{root}", lambda handler: handler.send_json(200, {"files": rows}))
    [file] = files_of(folder_of(drive, root))
    assert (file.key, file.size) == ("1good/a.jpg", None)
