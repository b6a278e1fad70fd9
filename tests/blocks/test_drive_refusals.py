"""What one refused, foreign or misshapen item of a Drive folder costs: itself, and nothing that is known already."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from blocks._drive_place import Folder, Place
from blocks._drive_walk import TreeWanted, Walk
from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._records import Page
from blocks.google_drive import GoogleDriveCredentials, GoogleDriveFolder
from tests.blocks.drive_folder import account_of, files_of, folder_of, last_mark, names, pages_from
from tests.servers.drive import SHORTCUT, Drive, error, serve_drive

PICTURE = b"\xff\xd8\xff" + bytes(100)
LINK = "https://drive.google.com/drive/folders/1AbCdEfGhIjKlMnOp"


@pytest.fixture
def drive() -> Iterator[Drive]:
    with serve_drive() as server:
        yield server


@pytest.fixture
def root(drive: Drive) -> str:
    root = drive.add_folder("cameras")
    drive.add_file("a.jpg", PICTURE, root)
    return root


def by_account(drive: Drive, root: str) -> GoogleDriveFolder:
    return folder_of(drive, root, credentials=account_of(drive))


def test_a_shortcut_out_of_a_shared_drive_is_listed_where_it_leads(drive: Drive, root: str) -> None:
    drive.members |= {"0AFirst", "0ASecond"}
    first = drive.add_folder("first", driveId="0AFirst")
    drive.add_file("first.jpg", PICTURE, drive.add_folder("below", first))
    places = {
        "second.jpg": drive.add_folder("s", driveId="0ASecond"),
        "third.jpg": drive.add_folder("t", driveId="0A3"),
    }
    for name, place in places.items():
        drive.add_file(name, PICTURE, place)
        drive.add_shortcut(name, place, first)
    drive.add_shortcut("mine", root, first)
    assert names(by_account(drive, first).list_files()) == ["a.jpg", "first.jpg", "second.jpg", "third.jpg"]
    assert names(folder_of(drive, first).list_files()) == ["a.jpg", "first.jpg", "second.jpg", "third.jpg"]


def test_what_comes_where_no_change_is_told_of_is_found_by_a_new_walk(drive: Drive, root: str) -> None:
    others = drive.add_folder("of others", ownedByMe=False)
    drive.add_shortcut("to others", others, root)
    source = by_account(drive, root)
    mark = last_mark(source)
    drive.add_file("new.jpg", PICTURE, others)
    drive.changes.clear()  # they are told to whoever owns the folder
    page = source.list_page(mark)
    assert (page.is_start, names(page.files)) == (True, ["a.jpg", "new.jpg"])


@pytest.mark.parametrize("reason", ["insufficientFilePermissions", "teamDriveMembershipRequired", "somethingNew"])
def test_a_refused_folder_costs_only_itself_and_proves_nothing_gone(
    drive: Drive, root: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    closed = drive.add_folder("closed", root)
    drive.add_file("b.jpg", PICTURE, drive.add_folder("open", root))
    source = by_account(drive, root)
    drive.script(f"list:{closed}", *[error(403, reason)] * 2)
    with caplog.at_level(logging.WARNING):
        page = source.list_page(None)
    assert names(page.files) == ["a.jpg", "b.jpg"]
    assert (page.is_last, page.is_whole, list(page.gone)) == (True, False, [])
    assert "closed/ below the Drive folder is left" in caplog.text
    again = source.list_page(page.mark)  # from the start, not what changed
    assert "b.jpg" in names(again.files)
    assert source.list_page(again.mark).is_whole  # it was opened


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_refused_target_of_a_shortcut_costs_only_itself(drive: Drive, root: str, kind: str) -> None:
    other = drive.add_folder("other")
    target = other if kind == "folder" else drive.add_file("b.jpg", PICTURE, other)
    drive.add_shortcut("link", target, root)
    drive.script(f"get:{target}", error(403, "forbidden"))
    page = by_account(drive, root).list_page(None)
    assert (names(page.files), page.is_last, page.is_whole) == (["a.jpg"], True, False)


def test_a_folder_refused_late_in_a_long_walk_is_told_at_its_end(
    drive: Drive, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks._drive_walk._PAGE_REQUESTS", 2)
    folders = [drive.add_folder(f"day {number}", root) for number in range(5)]
    for number, folder in enumerate(folders):
        drive.add_file(f"{number}.jpg", PICTURE, folder)
    drive.script(f"list:{folders[3]}", error(403, "forbidden"))
    source = by_account(drive, root)
    pages: list[Page] = []
    with pytest.raises(SourceRefused, match=r"\(day 3/\).*exclude") as refused:
        pages.extend(pages_from(source))  # what came before the refusal stays in it
    assert refused.value.reason is Reason.FORBIDDEN
    assert sorted(name for page in pages for name in names(page.files)) == ["0.jpg", "1.jpg", "2.jpg", "4.jpg", "a.jpg"]
    assert not any(page.is_last for page in pages)
    assert by_account(drive, root).list_page(pages[-1].mark).is_start  # the next run walks anew


@pytest.mark.parametrize("reason", ["accessNotConfigured", "insufficientPermissions", "domainPolicy"])
def test_what_closes_all_of_drive_is_not_taken_for_one_closed_folder(drive: Drive, root: str, reason: str) -> None:
    below = drive.add_folder("below", root)
    drive.script(f"list:{below}", error(403, reason))
    with pytest.raises(SourceRefused, match=reason):
        by_account(drive, root).list_page(None)


def test_a_refused_root_is_refused(drive: Drive, root: str) -> None:
    for route in (f"get:{root}", f"list:{root}"):
        drive.script(route, error(403, "insufficientFilePermissions"))
        with pytest.raises(SourceRefused, match="ask its owner"):
            by_account(drive, root).list_page(None)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"name": "bad\ud83d.jpg"}, "bad\ufffd.jpg"),
        ({"size": "9" * 30}, "x.jpg"),
        ({"size": 10**30}, "x.jpg"),
        ({"parents": 5}, "x.jpg"),
        ({"imageMediaMetadata": [1]}, "x.jpg"),
        ({"imageMediaMetadata": {"location": {"latitude": 10**400, "longitude": "\udc00"}, "time": 7}}, "x.jpg"),
        ({"imageMediaMetadata": {"location": [1]}}, "x.jpg"),
        ({"md5Checksum": 7, "sha256Checksum": {}}, "x.jpg"),
        ({"headRevisionId": {"a": 1}, "createdTime": "\ud83d"}, "x.jpg"),
        ({"resourceKey": "a\r\nb: c"}, "x.jpg"),
        ({"mimeType": SHORTCUT, "shortcutDetails": "x"}, None),
        ({"mimeType": SHORTCUT, "shortcutDetails": {"targetId": 7}}, None),
        ({"name": None}, None),
    ],
)  # fmt: skip
def test_an_item_of_another_shape_costs_at_most_itself(
    drive: Drive, root: str, tmp_path: Path, fields: dict[str, Any], found: str | None
) -> None:
    drive.items[drive.add_file("x.jpg", PICTURE, root)].update(fields)
    source = folder_of(drive, root)
    files = files_of(source)
    assert {"a.jpg", *([found] if found else [])} <= {file.name for file in files}
    for number, file in enumerate(files):
        assert source.download(file, tmp_path / f"{number}.jpg").size == len(PICTURE)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"errors": ["x"]}},
        {"error": "invalid"},
        {"error": {"errors": [{"reason": None, "location": ["a"]}]}},
        {"error": {"errors": [{"reason": ["a"]}], "details": "zz"}},
        {"error": {"errors": "x", "details": [{"reason": {}}]}},
        [1],
    ],
)
def test_a_refusal_of_another_shape_is_a_refusal_still(drive: Drive, root: str, body: object) -> None:
    drive.script(f"get:{root}", lambda handler: handler.send_json(403, body))
    with pytest.raises(SourceRefused, match="403") as refused:
        folder_of(drive, root).list_files()
    assert refused.value.reason is Reason.FORBIDDEN


def test_a_page_token_that_is_none_is_told(drive: Drive, root: str) -> None:
    drive.script(f"list:{root}", lambda handler: handler.send_json(200, {"files": [], "nextPageToken": 5}))
    with pytest.raises(SourceUnavailable, match="lacks its token"):
        folder_of(drive, root).list_files()


def test_many_links_are_too_long_for_a_mark_as_well(drive: Drive, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocks._drive_walk._LONGEST_MARK", 2000)
    other = drive.add_folder("other")
    for number in range(40):
        drive.add_shortcut(f"{number}.jpg", drive.add_file(f"{number}.jpg", PICTURE, other), root)
    source = by_account(drive, root)
    page = source.list_page(None)
    assert (len(page.files), len(page.mark or "")) == (41, len("again"))


def test_the_length_of_a_mark_is_known_without_looking_at_every_folder() -> None:
    class Counted(list[Folder]):
        looks = 0

        def __iter__(self) -> Iterator[Folder]:
            self.looks += 1
            return super().__iter__()

    folders = Counted(Folder(f"1{number:030}", 0, "name") for number in range(10_000))
    wanted = TreeWanted("1", "p", None, lambda _: True, lambda _: False, 1.0, tells_changes=False)
    walk = Walk(None, wanted, Place("p", None, None, 0.0, folders), is_start=True)  # type: ignore[arg-type]
    before = folders.looks
    assert walk._is_mark_too_long()
    assert folders.looks == before


def test_a_spoilt_resource_key_is_refused_unquoted() -> None:
    credentials = GoogleDriveCredentials(api_key=SecretStr("k"))
    for fields in (
        {"folder_url": f"{LINK}?resourcekey=ca nary"},
        {"folder_url": LINK, "resource_key": "ca\r\nnary: 1"},
    ):
        with pytest.raises(ValidationError, match="resourcekey is cut short or altered") as raised:
            GoogleDriveFolder.model_validate({"credentials": credentials, **fields})
        assert "nary" not in str(raised.value)


def test_two_kinds_of_credentials_are_named_and_not_quoted() -> None:
    with pytest.raises(ValidationError, match=r"api_key and refresh_token are set: clear all but one") as raised:
        GoogleDriveCredentials(
            api_key=SecretStr("canary"), client_id="a", client_secret=SecretStr("canary"),
            refresh_token=SecretStr("canary"),
        )  # fmt: skip
    assert "canary" not in str(raised.value)
