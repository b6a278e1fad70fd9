"""A Dropbox folder as a source: links, settings, refusals, and listing by pages and marks."""

import gc
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from blocks._dropbox_link import DropboxLink
from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable, WrongUse
from blocks._records import Page, iter_files
from blocks.dropbox_folder import DropboxCredentials, DropboxFolder
from tests.servers import dropbox_api
from tests.servers.dropbox_api import APP_KEY, APP_SECRET, REFRESH_TOKEN, DropboxServer, serve_dropbox

APP = DropboxCredentials(app_key=APP_KEY, app_secret=SecretStr(APP_SECRET))
ACCOUNT = DropboxCredentials(app_key=APP_KEY, app_secret=SecretStr(APP_SECRET), refresh_token=SecretStr(REFRESH_TOKEN))
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4
LONG_AGO = datetime(2020, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def running() -> Iterator[DropboxServer]:
    with serve_dropbox() as server:
        yield server


@pytest.fixture
def server(running: DropboxServer) -> DropboxServer:
    running.reset()
    return running


def folder(server: DropboxServer, **fields: Any) -> DropboxFolder:
    """Return a source that does not wait long; of a link without, of a path with an account."""
    credentials = ACCOUNT if "path" in fields else APP
    addresses = {"api_url": server.url, "content_url": server.url}
    return DropboxFolder(
        **{"credentials": credentials, "retry_deadline_seconds": 0, "timeout_seconds": 20} | addresses | fields
    )


def keys(page: Page) -> list[str]:
    return sorted(page.files["key"])


def walk(source: DropboxFolder, mark: str | None = None) -> list[Page]:
    pages = [source.list_page(mark)]
    while not pages[-1].is_last:
        assert len(pages) < 1000
        pages.append(source.list_page(pages[-1].mark))
    return pages


def test_a_shared_folder_is_listed_with_everything_below_it(server: DropboxServer) -> None:
    for path in ("/Cam/a.jpg", "/Cam/Garden/B.JPG", "/Cam/Garden/März/c.jpeg", "/Cam/notes.txt", "/Other/d.jpg"):
        server.put(path, JPEG)
    for is_old in (False, True):
        source = folder(server, folder_url=server.share("/Cam", is_old=is_old))
        assert sorted(source.list_files()["key"]) == ["a.jpg", "garden/B.JPG", "garden/märz/c.jpeg"]
    assert server.count("files/list_folder") == 6
    assert {call.headers["authorization"].partition(" ")[0] for call in server.calls} == {"Basic"}


def test_an_unchanged_shared_folder_of_one_level_costs_one_request(server: DropboxServer) -> None:
    server.put("/Cam/a.jpg", JPEG)
    source = folder(server, folder_url=server.share("/Cam"))
    first = source.list_page(None)
    second = source.list_page(first.mark)
    assert second.files.equals(first.files)
    assert (first.is_whole, second.is_whole) == (True, True)
    assert server.routes() == ["files/list_folder"] * 2


def test_a_folder_of_ones_own_is_listed_in_one_go_and_then_by_its_changes(server: DropboxServer) -> None:
    for path in ("/Cam/a.jpg", "/Cam/Garden/b.jpg", "/Other/c.jpg"):
        server.put(path, JPEG)
    source = folder(server, path="/cam")
    [first] = walk(source)
    assert (keys(first), first.is_whole) == (["a.jpg", "garden/b.jpg"], True)
    server.put("/Cam/Garden/d.jpg", JPEG)
    server.put("/Cam/a.jpg", JPEG + b"more")
    server.remove("/Cam/Garden/b.jpg")
    server.put("/Other/e.jpg", JPEG)
    [changes] = walk(source, first.mark)
    assert (keys(changes), list(changes.gone)) == (["a.jpg", "garden/d.jpg"], ["garden/b.jpg"])
    assert not changes.is_start
    [nothing] = walk(source, changes.mark)
    assert (len(nothing.files), len(nothing.gone)) == (0, 0)


def test_the_whole_of_ones_dropbox_can_be_taken(server: DropboxServer) -> None:
    server.put("/a.jpg", JPEG)
    server.put("/Cam/b.jpg", JPEG)
    for path in ("/", ""):
        assert sorted(folder(server, path=path).list_files()["key"]) == ["a.jpg", "cam/b.jpg"]
    assert folder(server, path="/").root == "dropbox:/"


def test_a_removed_folder_makes_the_run_walk_again_because_dropbox_does_not_tell_what_was_in_it(
    server: DropboxServer,
) -> None:
    for path in ("/Cam/a.jpg", "/Cam/2026.03 Garden/b.jpg"):
        server.put(path, JPEG)
    source = folder(server, path="/Cam")
    [first] = walk(source)
    server.remove("/Cam/2026.03 Garden")
    changes, whole = walk(source, first.mark)
    assert (changes.is_start, whole.is_whole, keys(whole)) == (False, True, ["a.jpg"])


def test_a_file_that_comes_and_goes_between_two_runs_is_gone_in_the_end(server: DropboxServer) -> None:
    server.put("/Cam/a.jpg", JPEG)
    source = folder(server, path="/Cam")
    [first] = walk(source)
    server.put("/Cam/b.jpg", JPEG)
    server.remove("/Cam/b.jpg")
    server.remove("/Cam/a.jpg")
    server.put("/Cam/a.jpg", JPEG)
    [changes] = walk(source, first.mark)
    assert (keys(changes), list(changes.gone)) == (["a.jpg"], ["b.jpg"])


def test_a_folder_that_changes_while_it_is_listed_is_listed_as_it_is_in_the_end(server: DropboxServer) -> None:
    for number in range(6):
        server.put(f"/Cam/{number}.jpg", JPEG)
    server.page_size = 2
    change = dropbox_api.before(lambda: (server.remove("/Cam/5.jpg"), server.put("/Cam/0.jpg", JPEG + b"new")))
    server.fault("files/list_folder/continue", change)
    pages = walk(folder(server, path="/Cam"))
    listed: dict[str, str | None] = {}
    for page in pages:
        listed |= {file.key: file.validator for file in iter_files(page.files)}
        for key in page.gone:
            listed.pop(key, None)
    assert sorted(listed) == [f"{number}.jpg" for number in range(5)]
    assert listed["0.jpg"] == dropbox_api.hash_content(JPEG + b"new")
    assert [page.is_start for page in pages] == [True] + [False] * (len(pages) - 1)


def test_a_folder_removed_during_a_long_walk_does_not_make_it_endless(server: DropboxServer) -> None:
    for number in range(6):
        server.put(f"/Cam/{number}.jpg", JPEG)
    server.put("/Cam/gone/a.jpg", JPEG)
    server.page_size = 2
    server.fault("files/list_folder/continue", dropbox_api.before(lambda: server.remove("/Cam/gone")))
    source = folder(server, path="/Cam")
    pages = walk(source)
    assert server.count("files/list_folder") == 1
    assert walk(source, pages[-1].mark)[0].is_start  # the next run makes sure


def test_a_refused_cursor_starts_over(server: DropboxServer) -> None:
    server.put("/Cam/a.jpg", JPEG)
    source = folder(server, path="/Cam")
    [first] = walk(source)
    server.forget_cursors()
    [again] = walk(source, first.mark)
    assert (again.is_whole, keys(again)) == (True, ["a.jpg"])
    for number in range(5):
        server.put(f"/Cam/{number}.jpg", JPEG)
    server.page_size = 2
    server.fault("files/list_folder/continue", dropbox_api.before(server.forget_cursors))
    pages = walk(source)
    assert {key for page in pages for key in keys(page)} == {"a.jpg", *(f"{number}.jpg" for number in range(5))}
    assert [page.is_start for page in pages[:2]] == [True, True]


@pytest.mark.parametrize("is_shared", [False, True])
def test_cursors_that_are_refused_for_ever_do_not_keep_a_run_for_ever(server: DropboxServer, is_shared: bool) -> None:
    for number in range(6):
        server.put(f"/Cam/{number}.jpg", JPEG)
    server.page_size = 2
    server.fault("files/list_folder/continue", *[dropbox_api.before(server.forget_cursors)] * 50)
    source = folder(server, **({"folder_url": server.share("/Cam")} if is_shared else {"path": "/Cam"}))
    with pytest.raises(SourceUnavailable, match="again and again"):
        walk(source)


def test_a_shared_folder_whose_cursor_is_reset_is_listed_again_from_there(server: DropboxServer) -> None:
    for number in range(6):
        server.put(f"/Cam/{number}.jpg", JPEG)
        server.put(f"/Cam/sub/{number}.jpg", JPEG)
    server.page_size = 2
    server.fault("files/list_folder/continue", None, dropbox_api.before(server.forget_cursors))
    listing = folder(server, folder_url=server.share("/Cam")).list_files()
    assert len(listing) == 12


def test_a_killed_walk_goes_on_where_it_was_and_lists_nothing_twice(
    server: DropboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks._dropbox_listing.MOST_ENTRIES", 10)
    for number in range(40):
        server.put(f"/Cam/{number % 8}/{number}.jpg", JPEG)
    link = server.share("/Cam")
    pages = [folder(server, folder_url=link).list_page(None)]
    pages.append(folder(server, folder_url=link).list_page(pages[0].mark))
    asked = len(server.calls)
    rest = walk(folder(server, folder_url=link), pages[-1].mark)
    paths = [call.argument["path"] for call in server.calls]
    assert asked < len(paths) == len(set(paths)) == 9
    found = [key for page in (*pages, *rest) for key in keys(page)]
    assert len(found) == len(set(found)) == 40
    assert [page.is_start for page in (*pages, *rest)] == [True] + [False] * (len(pages) + len(rest) - 1)
    assert walk(folder(server, folder_url=link), rest[-1].mark)[0].is_start


def test_a_killed_walk_of_ones_own_folder_goes_on_by_its_cursor(server: DropboxServer) -> None:
    for number in range(10):
        server.put(f"/Cam/{number}.jpg", JPEG)
    server.page_size = 3
    first = folder(server, path="/Cam").list_page(None)
    rest = walk(folder(server, path="/Cam"), first.mark)
    found = [key for page in (first, *rest) for key in keys(page)]
    assert len(found) == len(set(found)) == 10
    assert server.count("files/list_folder") == 1


@pytest.mark.parametrize(
    "change",
    [{"suffixes": ["png"]}, {"include": ["a*"]}, {"exclude": ["b*"]}, {"recurse_depth": 0}, {"path": "/Cam/sub"}],
    ids=str,
)
def test_other_settings_make_an_old_mark_start_over(server: DropboxServer, change: dict[str, Any]) -> None:
    server.put("/Cam/sub/a.png", JPEG)
    [first] = walk(folder(server, path="/Cam"))
    assert not walk(folder(server, path="/Cam"), first.mark)[0].is_start
    assert walk(folder(server, **{"path": "/Cam"} | change), first.mark)[0].is_start


@pytest.mark.parametrize("mark", ["", "{}", "[]", "null", "nonsense", '{"x":1}', '"x"'])
def test_a_mark_that_is_none_starts_over(server: DropboxServer, mark: str) -> None:
    server.put("/Cam/a.jpg", JPEG)
    assert folder(server, path="/Cam").list_page(mark).is_whole


def test_a_folder_that_goes_away_during_the_walk_is_left_out(server: DropboxServer) -> None:
    for path in ("/Cam/one/a.jpg", "/Cam/two/b.jpg"):
        server.put(path, JPEG)
    server.fault("files/list_folder", None, dropbox_api.before(lambda: server.remove("/Cam/two")))
    source = folder(server, folder_url=server.share("/Cam"))
    assert list(source.list_files()["key"]) == ["one/a.jpg"]


def test_a_link_revoked_during_the_walk_is_not_taken_for_empty_folders(server: DropboxServer) -> None:
    for path in ("/Cam/one/a.jpg", "/Cam/two/b.jpg"):
        server.put(path, JPEG)
    link = server.share("/Cam")
    gone = dropbox_api.answer_with(409, {"error_summary": "", "error": {".tag": "path", "path": {".tag": "not_found"}}})
    server.fault("files/list_folder", None, dropbox_api.before(lambda: server.revoke(link)))
    with pytest.raises(SourceRefused, match="revoked"):
        folder(server, folder_url=link).list_files()
    server.reset()
    for path in ("/Cam/one/a.jpg", "/Cam/two/b.jpg"):
        server.put(path, JPEG)
    link = server.share("/Cam")
    server.fault("files/list_folder", None, gone, dropbox_api.before(lambda: server.revoke(link)))
    with pytest.raises(SourceRefused, match="revoked"):
        folder(server, folder_url=link).list_files()


def test_recurse_depth_and_globs_choose_without_regard_to_case(server: DropboxServer) -> None:
    for path in ("/Cam/a.jpg", "/Cam/Garden/b.jpg", "/Cam/Garden/Deep/c.jpg", "/Cam/Trash/d.jpg"):
        server.put(path, JPEG)
    link = server.share("/Cam")
    for place in ({"folder_url": link}, {"path": "/Cam"}):
        assert sorted(folder(server, recurse_depth=0, **place).list_files()["key"]) == ["a.jpg"]
        one_down = folder(server, recurse_depth=1, exclude=["TRASH/*"], **place)
        assert sorted(one_down.list_files()["key"]) == ["a.jpg", "garden/b.jpg"]
        assert list(folder(server, include=["Garden/Deep/*"], **place).list_files()["key"]) == ["garden/deep/c.jpg"]
    assert (
        "/Trash" not in [call.argument.get("path") for call in server.calls if "shared_link" in call.argument][1:3]
    )  # what is left out is not even listed


def test_keys_stay_whatever_case_an_answer_gives_the_folders(server: DropboxServer) -> None:
    server.put("/Cam/Garden/IMG_1.JPG", JPEG)
    server.put("/Cam/GARDEN/IMG_2.JPG", JPEG)  # the same folder to Dropbox
    assert sorted(folder(server, path="/CAM").list_files()["key"]) == ["garden/IMG_1.JPG", "garden/IMG_2.JPG"]
    listed = folder(server, folder_url=server.share("/Cam")).list_files()
    assert sorted(listed["key"]) == ["garden/IMG_1.JPG", "garden/IMG_2.JPG"]


def test_a_file_that_was_only_touched_is_the_same_file(server: DropboxServer) -> None:
    server.put("/Cam/a.jpg", JPEG)
    source = folder(server, path="/Cam")
    [before] = iter_files(source.list_files())
    server.put("/Cam/a.jpg", JPEG, LONG_AGO)
    [after] = iter_files(source.list_files())
    assert (before.key, before.size, before.validator, before.modified) == (
        after.key,
        after.size,
        after.validator,
        None,
    )
    assert json.loads(after.locator or "")["client_modified"] == "2020-01-02T00:00:00Z"


@pytest.mark.parametrize("name", ["../../etc/x.jpg", "..", "a/../x.jpg", "", ".", "a\0.jpg", "\ud800.jpg"])
def test_names_that_would_escape_are_not_listed(server: DropboxServer, name: str) -> None:
    entry = {".tag": "file", "name": name, "id": "id:x", "rev": "012345678", "size": 1, "path_lower": f"/cam/{name}"}
    times = dict.fromkeys(("client_modified", "server_modified"), "2026-03-01T10:20:00Z")
    answer = {
        "entries": [entry | times, {".tag": "folder", "name": name, "id": "id:y"}],
        "cursor": "c",
        "has_more": False,
    }
    server.put("/Cam/a.jpg", JPEG)
    for place in ({"folder_url": server.share("/Cam")}, {"path": "/Cam"}):
        server.fault("files/list_folder", dropbox_api.answer_with(200, answer))
        assert len(folder(server, **place).list_files()) == 0


def test_what_is_no_file_is_not_listed(server: DropboxServer) -> None:
    server.put("/Cam/link.jpg", b"", symlink_info={"target": "/x"})
    server.put("/Cam/a.jpg", JPEG)
    assert list(folder(server, path="/Cam").list_files()["key"]) == ["a.jpg"]


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize(
    "odd",
    [("size", value) for value in (10**30, 2**63, -3, True, "9", None, 1.5, [1], float("nan"))]
    + [("content_hash", value) for value in ([1], {"a": 1}, 5, True, "\ud800", "a\0")],
    ids=repr,
)
def test_a_size_or_hash_that_can_be_none_is_unknown(
    server: DropboxServer, odd: tuple[str, Any], is_shared: bool
) -> None:
    item = server.put("/Cam/odd.jpg", JPEG, **dict([odd]))
    server.put("/Cam/well.jpg", JPEG)
    place = {"folder_url": server.share("/Cam")} if is_shared else {"path": "/Cam"}
    files = {file.key: file for file in iter_files(folder(server, **place).list_files())}
    assert (files["well.jpg"].size, files["well.jpg"].validator) == (len(JPEG), dropbox_api.hash_content(JPEG))
    right = (len(JPEG), f"rev:{item.rev}") if odd[0] == "content_hash" else (None, dropbox_api.hash_content(JPEG))
    assert (files["odd.jpg"].size, files["odd.jpg"].validator) == right


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize(
    "odd",
    [(name, value) for name in ("id", "rev", "client_modified") for value in (None, 5, [1], "\ud800", "a\0")],
    ids=repr,
)
def test_an_entry_that_is_not_as_documented_costs_only_itself(
    server: DropboxServer, odd: tuple[str, Any], is_shared: bool
) -> None:
    server.put("/Cam/odd.jpg", JPEG, **dict([odd]))
    server.put("/Cam/well.jpg", JPEG)
    place = {"folder_url": server.share("/Cam")} if is_shared else {"path": "/Cam"}
    assert list(folder(server, **place).list_files()["key"]) == ["well.jpg"]


def test_a_hundred_thousand_files_are_listed_in_flat_memory(server: DropboxServer) -> None:
    """The server makes its pages up; ours goes through them one by one, and holds one at a time."""
    pages = 50
    times = dict.fromkeys(("client_modified", "server_modified"), "2026-03-01T10:20:00Z")
    entries = [
        {".tag": "file", "name": f"IMG_@_{number:04d}.JPG", "id": f"id:@{number}", "rev": "0123456789abc", "size": 9,
         "path_lower": f"/cam/2026/img_@_{number:04d}.jpg", "path_display": f"/Cam/2026/IMG_@_{number:04d}.JPG",
         "is_downloadable": True, **times, "content_hash": f"{number:064d}"}
        for number in range(2000)
    ]  # fmt: skip
    body = json.dumps({"entries": entries, "cursor": "c@", "has_more": True})

    def answer(number: int) -> dropbox_api.Fault:
        def send(handler: Any, call: Any) -> bool:
            text = body.replace("@", f"{number:02d}")
            last = text.replace('"has_more": true', '"has_more": false')
            handler.send(200, last if number == pages - 1 else text, content_type="application/json")
            return True

        return send

    server.fault("files/list_folder", answer(0))
    server.fault("files/list_folder/continue", *(answer(number) for number in range(1, pages)))
    source = folder(server, path="/Cam")
    total, sizes = 0, []
    with source.connected():
        page = source.list_page(None)
        while not page.is_last:
            total += len(page.files)
            page = source.list_page(page.mark)
            sizes.append(resident_bytes() if len(sizes) in {9, pages - 2} else 0)
    assert total + len(page.files) == 100_000
    assert len(page.mark or "") < 200
    assert sizes[-1] - sizes[9] < 30_000_000  # all of them at once take over 100 MB


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_tree_of_many_small_folders_comes_in_pages_of_a_fair_size(
    server: DropboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks._dropbox_listing.MOST_REQUESTS", 7)
    monkeypatch.setattr("blocks._dropbox_listing.MOST_FOLDERS", 12)
    for number in range(40):
        server.put(f"/Cam/folder{number}/a.jpg", JPEG)
    pages = walk(folder(server, folder_url=server.share("/Cam")))
    assert [len(page.files) for page in pages] == [28, 7, 5]  # first until few enough folders are left to be remembered
    assert sum(len(page.files) for page in pages) == 40


def test_a_team_space_is_a_namespace_of_its_own(server: DropboxServer) -> None:
    server.namespaces["4711"] = "/ns"
    server.put("/ns/Cam/a.jpg", JPEG)
    source = folder(server, path="/Cam", root_namespace="4711")
    assert list(source.list_files()["key"]) == ["a.jpg"]
    assert source.root == "dropbox:ns:4711/Cam"
    with pytest.raises(SourceRefused, match="root_namespace"):
        folder(server, path="/Cam", root_namespace="4712").list_files()


LINKS = {
    "https://www.dropbox.com/scl/fo/abc123/AAsecret?rlkey=KEY&st=x&dl=0": (
        "https://www.dropbox.com/scl/fo/abc123~eff97fb7",
        None,
    ),
    "http://dropbox.com/scl/fo/abc123/h?rlkey=KEY#frag": ("https://www.dropbox.com/scl/fo/abc123~aaa94026", None),
    "https://www.dropbox.com/scl/fo/abc123?rlkey=KEY": ("https://www.dropbox.com/scl/fo/abc123", None),
    "https://www.dropbox.com/sh/abc123/AAsecret?dl=0": ("https://www.dropbox.com/sh/abc123~eff97fb7", None),
    "https://www.dropbox.com/sh/abc123/AAsecret/Sub%20folder": (
        "https://www.dropbox.com/sh/abc123/Sub folder~53308c71",
        None,
    ),
    "https://www.dropbox.com/scl/fo/abc123/AAsecret/Sub%20A/%0AM%C3%A4rz?rlkey=KEY": (
        "https://www.dropbox.com/scl/fo/abc123/Sub A/%0AM%C3%A4rz~04216221",
        None,
    ),
    "https://www.dropbox.com/home/Camera%20Uploads": ("dropbox:/Camera Uploads", "/Camera Uploads"),
    "https://www.dropbox.com/home": ("dropbox:/", ""),
}


@pytest.mark.parametrize("link", LINKS)
def test_links_to_folders_are_known_in_every_form_and_shown_without_what_opens_them(link: str) -> None:
    found = DropboxLink.parse(link)
    assert found is not None
    assert (found.name, found.path) == LINKS[link]
    assert "KEY" not in repr(found)
    assert "secret" not in repr(found)


def test_links_to_different_folders_have_different_names_in_the_catalog() -> None:
    places = ("scl/fo/abc/H", "scl/fo/abd/H", "scl/fo/abc/H/A", "scl/fo/abc/H/B", "scl/fo/abc/I/A", "sh/abc/H",
              "sh/abc/H/A/C", "sh/abc/H/B/C", "sh/abc/I/C", "sh/abc/H/A~C")  # fmt: skip
    found = {place: DropboxLink.parse(f"https://www.dropbox.com/{place}?rlkey=k1&dl=0") for place in places}
    assert len({link.name for link in found.values() if link is not None}) == len(places)
    again = DropboxLink.parse("https://www.dropbox.com/scl/fo/abc/H/A/?dl=1&rlkey=k1&st=other")
    assert again is not None
    assert again.name == getattr(found["scl/fo/abc/H/A"], "name", None)


@pytest.mark.parametrize(
    ("link", "advice"),
    [
        ("https://www.dropbox.com/scl/fi/abc/IMG.jpg?rlkey=KEY", "one file"),
        ("https://www.dropbox.com/s/abc/IMG.jpg?dl=0", "one file"),
        ("https://dl.dropboxusercontent.com/s/abc/IMG.jpg", "one file"),
        ("https://www.dropbox.com/scl/fo/abc123/h", "rlkey"),
        ("https://www.dropbox.com/t/abcdef", "transfer"),
        ("https://www.dropbox.com/request/abcdef", "file request"),
        ("https://www.dropbox.com/login", "no shared folder"),
    ],
)
def test_links_to_anything_else_at_dropbox_say_what_to_give_instead(link: str, advice: str) -> None:
    with pytest.raises(WrongUse, match=advice) as told:
        DropboxFolder.of_link(link)
    assert "KEY" not in str(told.value)


@pytest.mark.parametrize(
    "link",
    ["https://example.org/scl/fo/a/b?rlkey=c", "s3://bucket", "/home/me", "", "https://dropbox.com.evil.org/sh/a/b"],
)
def test_links_elsewhere_are_somebody_elses(link: str) -> None:
    assert DropboxFolder.of_link(link) is None


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, "either folder_url"),
        ({"folder_url": "https://www.dropbox.com/sh/a/b", "path": "/Cam", "credentials": ACCOUNT}, "either folder_url"),
        ({"path": "/Cam"}, "refresh_token"),
        ({"path": "Cam", "credentials": ACCOUNT}, "/Camera Uploads"),
        ({"folder_url": "https://example.org/CANARY"}, "no shared link"),
        ({"folder_url": "https://www.dropbox.com/scl/fi/CANARY/a.jpg"}, "one file"),
        ({"folder_url": "https://www.dropbox.com/home/CANARY"}, "no shared link"),
        ({"path": "/Cam", "credentials": ACCOUNT, "link_password": "CANARY"}, "link_password"),
        ({"folder_url": "https://www.dropbox.com/sh/a/b", "root_namespace": "1"}, "root_namespace"),
        ({"folder_url": "https://www.dropbox.com/sh/a/b", "api_url": "http://example.org"}, "https://"),
    ],
)
def test_settings_that_can_not_be_are_refused_in_plain_words(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault) as told:
        DropboxFolder(**{"credentials": APP} | fields)
    assert "CANARY" not in str(told.value)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"app_key": "k"},
        {"app_secret": "CANARY"},
        {"refresh_token": "CANARY"},
        {"refresh_token": "CANARY", "app_secret": "s"},
    ],
)
def test_credentials_that_are_not_enough_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="app_key") as told:
        DropboxCredentials(**fields)
    assert "CANARY" not in str(told.value)


def test_the_reasons_why_a_link_does_not_let_us_in_are_told_apart(server: DropboxServer) -> None:
    server.put("/Cam/a.jpg", JPEG)
    expected: list[tuple[str, dict[str, Any], str, Reason]] = []
    locked = server.share("/Cam", password="right")
    expected.append((locked, {}, "wants a password: set link_password", Reason.UNAUTHORIZED))
    expected.append((locked, {"link_password": "wrong"}, "has another password", Reason.UNAUTHORIZED))
    expected.append((server.share("/Cam", expires=LONG_AGO), {}, r"expired \(2020-01-02\)", Reason.FORBIDDEN))
    revoked = server.share("/Cam")
    server.revoke(revoked)
    expected.append((revoked, {}, "revoked", Reason.NOT_FOUND))
    for link, fields, text, reason in expected:
        with pytest.raises(SourceRefused, match=text) as told:
            folder(server, folder_url=link, **fields).list_files()
        assert told.value.reason is reason
        assert "canary" not in str(told.value)
        assert "wrong" not in str(told.value)
    assert len(folder(server, folder_url=locked, link_password="right").list_files()) == 1
    with pytest.raises(SourceRefused, match="not there any more"):
        folder(server, path="/Missing").list_files()
    with pytest.raises(SourceRefused, match="is no folder"):
        folder(server, path="/Cam/a.jpg").list_files()


@pytest.mark.parametrize(
    ("status", "body", "text", "kind"),
    [
        (400, 'Error in call to API function "files/list_folder": CANARY', "app_key", SourceRefused),
        (400, "Your app is not permitted to access this endpoint because it does not have the required scope "
              "'files.metadata.read'. CANARY", "permission files.metadata.read", SourceRefused),
        (401, {"error": {".tag": "invalid_access_token"}}, "not valid", SourceRefused),
        (401, {"error": {".tag": "expired_access_token"}}, "four hours", SourceRefused),
        (401, {"error": {".tag": "missing_scope", "required_scope": "sharing.read"}}, "sharing.read", SourceRefused),
        (401, {"error": {".tag": "user_suspended"}}, "suspended", SourceRefused),
        (401, "CANARY", "credentials are refused", SourceRefused),
        (403, {"error": {".tag": "no_permission"}}, "no_permission", SourceRefused),
        (409, {"error": {".tag": "path", "path": {".tag": "restricted_content"}}}, "restricted content", SourceRefused),
        (409, {"error": {".tag": "path", "path": {".tag": "malformed_path", "malformed_path": "CANARY"}}}, "no path",
         SourceRefused),
        (409, {"error": {".tag": "new_and_unheard_of"}}, "new_and_unheard_of", SourceRefused),
        (409, "CANARY", "HTTP 409", SourceRefused),
        (422, {"error": {".tag": "invalid_root"}}, "root_namespace", SourceRefused),
        (429, "", "too many requests", SourceUnavailable),
        (500, "CANARY", "HTTP 500", SourceUnavailable),
        (503, {"error": "CANARY"}, "HTTP 503", SourceUnavailable),
        (200, "<!DOCTYPE html><html>CANARY</html>", "web page", SourceUnavailable),
        (200, "CANARY", "JSON", SourceUnavailable),
        (200, [], "JSON", SourceUnavailable),
        (200, "[" * 100_000, "JSON", SourceUnavailable),
        (409, "[" * 60_000, "HTTP 409", SourceRefused),
        (200, {"entries": [{}], "cursor": "c", "has_more": False}, "no listing", SourceUnavailable),
        (200, {"entries": []}, "no listing", SourceUnavailable),
        (302, "CANARY", "HTTP 302", SourceRefused),
    ],
)  # fmt: skip
def test_every_kind_of_refusal_becomes_a_sentence_that_says_what_to_do(
    server: DropboxServer, status: int, body: Any, text: str, kind: type[CatchmentError]
) -> None:
    server.fault("files/list_folder", *[dropbox_api.answer_with(status, body)] * 3)
    with pytest.raises(kind, match=text) as told:
        folder(server, path="/Cam").list_files()
    assert "CANARY" not in f"{told.value!r} {told.value.__cause__!r}"


def test_faults_that_heal_are_waited_out(server: DropboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.put("/Cam/a.jpg", JPEG)
    source = folder(server, folder_url=server.share("/Cam"), retry_deadline_seconds=60)
    for heals in (
        dropbox_api.limit_rate(0),
        dropbox_api.limit_rate(0, is_json=False),
        dropbox_api.answer_with(503, "", retry_after="0"),
        dropbox_api.answer_html(),
        dropbox_api.hang_up(),
        dropbox_api.slowly(0.05),
    ):
        server.fault("files/list_folder", heals)
        assert len(source.list_files()) == 1


def test_a_wait_that_is_too_long_is_left_to_a_later_run(server: DropboxServer) -> None:
    server.fault("files/list_folder", dropbox_api.limit_rate(3600))
    with pytest.raises(SourceUnavailable, match="3,600 s") as told:
        folder(server, path="/Cam", retry_deadline_seconds=30).list_files()
    assert told.value.reason is Reason.RATE_LIMITED


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("-1", "5"), ("NaN", "5"), ("-Infinity", "5"), ('"soon"', "5"), ("Infinity", "86,400"), ("1e18", "86,400"),
     ("1" + "0" * 400, "86,400"), ("7.5", "8"), ("7", "7")],
)  # fmt: skip
def test_a_wait_that_can_be_none_is_bounded(server: DropboxServer, told: str, seconds: str) -> None:
    server.fault("files/list_folder", dropbox_api.answer_with(429, f'{{"error":{{"retry_after":{told}}}}}'))
    with pytest.raises(SourceUnavailable, match=f"asks to wait {seconds} s") as caught:
        folder(server, path="/Cam").list_files()
    assert caught.value.reason is Reason.RATE_LIMITED


def test_a_retry_after_without_end_is_bounded(server: DropboxServer) -> None:
    server.fault("files/list_folder", dropbox_api.answer_with(429, "", retry_after="9" * 400))
    with pytest.raises(SourceUnavailable, match="asks to wait 86,400 s"):
        folder(server, path="/Cam").list_files()


def test_a_token_that_expires_during_the_walk_is_renewed_once(server: DropboxServer) -> None:
    for number in range(6):
        server.put(f"/Cam/{number}.jpg", JPEG)
    server.page_size = 2
    source = folder(server, path="/Cam")
    server.fault("files/list_folder/continue", None, dropbox_api.before(server.expire_tokens))
    with source.connected():
        assert sum(len(page.files) for page in walk(source)) == 6
    assert server.count("oauth2/token") == 2


def test_refused_credentials_are_not_asked_with_again_and_again(server: DropboxServer) -> None:
    wrong = DropboxCredentials(app_key=APP_KEY, refresh_token=SecretStr("CANARY"))
    with pytest.raises(SourceRefused, match="invalid_grant") as told:
        folder(server, path="/Cam", credentials=wrong).list_files()
    assert (told.value.reason, server.routes()) == (Reason.UNAUTHORIZED, ["oauth2/token"])
    assert "CANARY" not in str(told.value)


def test_a_ready_access_token_is_enough_until_it_expires(server: DropboxServer) -> None:
    server.put("/Cam/a.jpg", JPEG)
    ready = DropboxCredentials(access_token=SecretStr(server.issue_token()))
    assert len(folder(server, path="/Cam", credentials=ready).list_files()) == 1
    server.expire_tokens()
    with pytest.raises(SourceRefused, match="four hours"):
        folder(server, path="/Cam", credentials=ready).list_files()


@pytest.mark.usefixtures("prefect_api")
def test_a_link_needs_no_more_than_the_saved_default_credentials(server: DropboxServer) -> None:
    link = server.share_of("/Cam")
    with pytest.raises(WrongUse, match="Dropbox Credentials named default"):
        DropboxFolder.of_link(link)
    APP.save("default", overwrite=True)
    try:
        found = DropboxFolder.of_link(link)
        assert found is not None
        assert found.credentials.app_secret == SecretStr(APP_SECRET)
        assert found.root.startswith("https://www.dropbox.com/scl/fo/" + link.split("/")[5])
        assert "canary" not in found.root
        with pytest.raises(WrongUse, match="refresh_token"):
            DropboxFolder.of_link("https://www.dropbox.com/home/Cam")
    finally:
        DropboxCredentials.delete("default")


@pytest.mark.usefixtures("prefect_api")
def test_a_saved_folder_comes_back_with_its_secrets_and_shows_none(server: DropboxServer) -> None:
    server.put("/Cam/a.jpg", JPEG)
    link = server.share("/Cam", password="canary-password")
    try:
        APP.save("of-saved-folder", overwrite=True)
        credentials = DropboxCredentials.load("of-saved-folder")
        folder(server, folder_url=link, link_password="canary-password", credentials=credentials).save("of-tests")
        saved = DropboxFolder.load("of-tests")
        assert saved.source_name == "dropbox/of-tests"
        assert len(saved.list_files()) == 1
        assert "canary" not in f"{saved!r}{saved}{saved.model_dump_json()}{saved.root}"
    finally:
        DropboxFolder.delete("of-tests")
        DropboxCredentials.delete("of-saved-folder")
