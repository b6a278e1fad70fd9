"""What becomes of each file of a tree is decided by its name, its bytes and the catalog, the same way every time."""

import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks._catalog_captures import FileRow
from blocks._errors import WrongUse
from blocks._records import Quality
from blocks._terminal_addresses import parse_picture_address, picture_key
from blocks.library import ImageLibrary
from tasks._organize import Fate, Naming, Placing, check_tree, plan_tree
from tasks._originals import remove_originals, settle_fates

NAMING = Naming(ZoneInfo("America/Los_Angeles"), "-thumbnail", ["jpg", "jpeg", "png"])
STREAMS = st.from_regex(r"[A-Za-z]\w{0,12}([-. ]\w{1,5})?", fullmatch=True).filter(
    lambda stream: stream.isascii() and "thumbnail" not in stream
)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2037, 12, 31)).map(lambda time: time.replace(microsecond=0))  # noqa: DTZ001
FORMS = ["{0:%Y%m%dT%H%M%S}_{1}.jpg", "{0:%Y%m%d%H%M%S}_{1}.jpg", "{0:%Y-%m-%dT%H:%M:%S}-{1}.jpeg"]


def put(tree: Path, name: str, content: bytes = b"a picture") -> Path:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def plan(tree: Path, known: Mapping[str, FileRow] | None = None) -> dict[str, Placing]:
    rows = known or {}
    decided = plan_tree(tree, NAMING, lambda keys: {key: rows[key] for key in keys if key in rows})
    return {placing.name: placing for placing in decided}


def row(key: str, content: bytes | None, quality: Quality = Quality.FULL, **fields: object) -> FileRow:
    """How the catalog knows a file; without content it did not come."""
    sha256 = None if content is None else hashlib.sha256(content).hexdigest()
    plain = FileRow(key, None, "failed" if sha256 is None else "stored", None, datetime.now(UTC), sha256, None, None,
                    None, quality, None, True)  # fmt: skip
    return plain._replace(**fields)


@given(TIMES, STREAMS, st.sampled_from(FORMS), st.booleans())
def test_every_form_of_name_becomes_the_key_that_says_the_same(
    time: datetime, stream: str, form: str, is_thumbnail: bool
) -> None:
    name = form.format(time, f"{stream}-thumbnail" if is_thumbnail else stream)
    address = parse_picture_address(name)
    assert address is not None
    assert (address.local, address.stream, address.is_thumbnail) == (time, stream, is_thumbnail)
    key = picture_key(address.local, address.stream)
    again = parse_picture_address(key)
    assert again is not None
    assert (again.local, again.stream, again.is_thumbnail) == (time, stream, False)


def test_names_are_found_in_any_depth_and_what_they_do_not_tell_is_left(tmp_path: Path) -> None:
    put(tmp_path, "20250901T100000_in_gate.jpg", b"1")
    put(tmp_path, "a/b/20250901101000_out_gate.jpg", b"2")
    put(tmp_path, "2025-09-01/in_gate/20250901102000_in_gate.jpg", b"3")
    put(tmp_path, "deep/er/2025-09-01T10:30:07-yard camera.jpeg", b"4")
    put(tmp_path, "2025-09-01T10:40:07-in_gate-thumbnail.jpeg", b"5")
    put(tmp_path, "holiday.jpg")
    put(tmp_path, "20259901T100000_in_gate.jpg")
    put(tmp_path, "20250901T100000_in_gate.txt")
    put(tmp_path, ".20250901T100000_in_gate.jpg")
    put(tmp_path, "20250901T100000_in_gate.jpg.part")
    put(tmp_path, ".git/20250901T100000_in_gate.jpg")
    decided = plan(tmp_path)
    assert {name: placing.key for name, placing in decided.items() if placing.fate is Fate.TAKE} == {
        "20250901T100000_in_gate.jpg": "2025-09-01/in_gate/20250901100000_in_gate.jpg",
        "a/b/20250901101000_out_gate.jpg": "2025-09-01/out_gate/20250901101000_out_gate.jpg",
        "2025-09-01/in_gate/20250901102000_in_gate.jpg": "2025-09-01/in_gate/20250901102000_in_gate.jpg",
        "deep/er/2025-09-01T10:30:07-yard camera.jpeg": "2025-09-01/yard camera/20250901103007_yard camera.jpg",
        "2025-09-01T10:40:07-in_gate-thumbnail.jpeg": "2025-09-01/in_gate/20250901104007_in_gate.jpg",
    }
    assert {name: placing.why for name, placing in decided.items() if placing.fate is Fate.LEFT} == {
        "holiday.jpg": "its name tells no time and stream",
        "20259901T100000_in_gate.jpg": "its name tells no time and stream",
        "20250901T100000_in_gate.txt": "it is no image by its name",
        ".20250901T100000_in_gate.jpg": "it is hidden or unfinished by its name",
        "20250901T100000_in_gate.jpg.part": "it is hidden or unfinished by its name",
        ".git": "it is hidden or unfinished by its name",
    }
    assert all(placing.offset_minutes == -420 for placing in decided.values() if placing.fate is Fate.TAKE)
    assert decided["2025-09-01T10:40:07-in_gate-thumbnail.jpeg"].quality is Quality.THUMBNAIL


def test_a_link_is_never_followed_nor_taken(tmp_path: Path) -> None:
    elsewhere, tree = tmp_path / "elsewhere", tmp_path / "tree"
    picture = put(elsewhere, "20250901T100000_in_gate.jpg")
    tree.mkdir()
    (tree / "20250901T101000_in_gate.jpg").symlink_to(picture)
    (tree / "folder").symlink_to(elsewhere)
    (tree / "loop").symlink_to(tree)
    assert {placing.why for placing in plan(tree).values()} == {"it is a link, which is not followed"}


def test_names_that_are_no_text_and_files_that_are_none_are_listed(tmp_path: Path) -> None:
    put(tmp_path, os.fsdecode(b"\xff20250901T100000_in_gate.jpg"))
    os.mkfifo(tmp_path / "20250901T100000_in_gate.jpg")
    decided = plan(tmp_path)
    assert sorted(placing.why or "" for placing in decided.values()) == [
        "it is no file",
        "its name tells no time and stream",
    ]


def test_files_of_one_name_are_one_if_their_bytes_agree_and_kept_apart_if_not(tmp_path: Path) -> None:
    key = "2025-09-01/in_gate/20250901100000_in_gate.jpg"
    put(tmp_path, "a/20250901T100000_in_gate.jpg", b"one")
    put(tmp_path, "b/20250901100000_in_gate.jpg", b"one")
    put(tmp_path, "c/2025-09-01T10:00:00-in_gate.jpeg", b"other")
    put(tmp_path, "d/20250901T100000_in_gate.jpg", b"other")
    put(tmp_path, "e/20250901T100000_in_gate (1).jpg", b"third")
    mark = hashlib.sha256(b"other").hexdigest()[:8]
    decided = plan(tmp_path)
    told = {name[0]: (placing.fate, placing.key) for name, placing in decided.items()}
    apart = f"2025-09-01/in_gate/20250901100000_in_gate~{mark}.jpg"
    third = f"2025-09-01/in_gate/20250901100000_in_gate~{hashlib.sha256(b'third').hexdigest()[:8]}.jpg"
    assert told == {
        "a": (Fate.TAKE, key),
        "b": (Fate.HERE, key),
        "c": (Fate.TAKE, apart),
        "d": (Fate.HERE, apart),
        "e": (Fate.TAKE, third),
    }
    # Once they are catalogued all are here, also those of a run that did not come to its end.
    again = plan(tmp_path, {key: row(key, b"one"), apart: row(apart, b"other")})
    assert {name[0]: placing.fate for name, placing in again.items()} == {
        "a": Fate.HERE, "b": Fate.HERE, "c": Fate.HERE, "d": Fate.HERE, "e": Fate.TAKE,
    }  # fmt: skip
    assert again["e/20250901T100000_in_gate (1).jpg"].key == third
    # A tree that a library itself laid out comes back to the same keys.
    put(tmp_path, f"f/20250901100000_in_gate~{mark}.jpg", b"other")
    assert plan(tmp_path)[f"f/20250901100000_in_gate~{mark}.jpg"].key == apart


def test_what_the_camera_brought_already_is_here_or_kept_apart(tmp_path: Path) -> None:
    key = "2025-09-01/in_gate/20250901100000_in_gate.jpg"
    put(tmp_path, "20250901T100000_in_gate.jpg", b"one")
    [same] = plan(tmp_path, {key: row(key, b"one")}).values()
    assert (same.fate, same.key) == (Fate.HERE, key)
    [other] = plan(tmp_path, {key: row(key, b"two")}).values()
    assert (other.fate, other.why) == (Fate.TAKE, "other bytes have its name")
    assert other.key != key


@pytest.mark.parametrize("state", ["failed", "parked", "quarantined"])
def test_a_picture_the_camera_could_not_bring_is_taken_from_the_tree(tmp_path: Path, state: str) -> None:
    key = "2025-09-01/in_gate/20250901100000_in_gate.jpg"
    put(tmp_path, "20250901T100000_in_gate.jpg", b"one")
    [placing] = plan(tmp_path, {key: row(key, None, state=state, reason="timeout")}).values()
    assert (placing.fate, placing.key, placing.is_due) == (Fate.TAKE, key, True)
    refused = row(key, None, state="quarantined", reason="truncated", size=3)
    [placing] = plan(tmp_path, {key: refused}).values()
    assert (placing.fate, placing.why) == (Fate.LEFT, "it was refused before: truncated")


def test_a_thumbnail_is_taken_only_where_there_is_no_full_picture(tmp_path: Path) -> None:
    key = "2025-09-01/in_gate/20250901100007_in_gate.jpg"
    small = put(tmp_path, "2025-09-01T10:00:07-in_gate-thumbnail.jpeg", b"small")
    [placing] = plan(tmp_path).values()
    assert (placing.fate, placing.key, placing.quality) == (Fate.TAKE, key, Quality.THUMBNAIL)
    [placing] = plan(tmp_path, {key: row(key, b"large")}).values()
    assert placing.fate is Fate.LEFT
    [placing] = plan(tmp_path, {key: row(key, b"small", Quality.THUMBNAIL)}).values()
    assert placing.fate is Fate.HERE
    put(tmp_path, "2025-09-01T10:00:07-in_gate.jpeg", b"large")
    both = plan(tmp_path, {key: row(key, b"small", Quality.THUMBNAIL)})
    full = both["2025-09-01T10:00:07-in_gate.jpeg"]
    assert (full.fate, full.key, full.is_due) == (Fate.TAKE, key, True)
    assert both[small.name].why == "it is the thumbnail of a picture that is there in full"
    # As a library names it in its own tree.
    small.rename(tmp_path / "20250901100007_in_gate_thumbnail.jpg")
    stored = plan(tmp_path)["20250901100007_in_gate_thumbnail.jpg"]
    assert (stored.stream, stored.quality) == ("in_gate", Quality.THUMBNAIL)


def test_the_two_hours_of_one_name_are_told_apart_by_the_spacing(tmp_path: Path) -> None:
    for minute in range(0, 60, 10):
        put(tmp_path, f"20251102T00{minute:02}00_in_gate.jpg", b"%d" % minute)
        put(tmp_path, f"20251102T01{minute:02}07_in_gate.jpg", b"first %d" % minute)
        put(tmp_path, f"20251102T01{minute:02}21_in_gate.jpg", b"second %d" % minute)
    put(tmp_path, "20250309T023000_in_gate.jpg", b"an hour that never was")
    decided = plan(tmp_path)
    assert decided["20251102T001000_in_gate.jpg"].offset_minutes == -420
    for minute in range(0, 60, 10):
        first, second = (decided[f"20251102T01{minute:02}{second}_in_gate.jpg"] for second in ("07", "21"))
        assert (first.offset_minutes, first.repeated_hour) == (-420, "assumed")
        assert (second.offset_minutes, second.repeated_hour) == (-480, "spacing")
    never = decided["20250309T023000_in_gate.jpg"]
    assert (never.fate, never.offset_minutes) == (Fate.TAKE, None)


def test_nothing_is_removed_that_the_library_is_not_proven_to_hold(tmp_path: Path) -> None:
    contents = {name: name.encode() for name in ("stored", "absent", "rotten", "changed")}
    keys = {}
    for minute, name in enumerate(contents):
        put(tmp_path, f"{name}/20250901T10{minute:02}00_in_gate.jpg", contents[name])
        keys[name] = f"2025-09-01/in_gate/2025090110{minute:02}00_in_gate.jpg"
    put(tmp_path, "stored/deeper/holiday.jpg")
    (tmp_path / "was empty").mkdir()
    decided = list(plan(tmp_path).values())
    rows = {keys[name]: row(keys[name], contents[name]) for name in ("stored", "rotten", "changed")}
    put(tmp_path, "changed/20250901T100300_in_gate.jpg", b"written to meanwhile")
    rotten = hashlib.sha256(contents["rotten"]).hexdigest()
    ended = remove_originals(tmp_path, settle_fates(decided, rows), rows, lambda sha256: sha256 != rotten)
    removed = [placing.name for placing in ended if placing.is_removed]
    assert removed == ["stored/20250901T100000_in_gate.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["absent", "changed", "rotten", "stored", "was empty"]


def test_folders_that_a_move_empties_are_removed_and_no_others(tmp_path: Path) -> None:
    put(tmp_path, "a/b/20250901T100000_in_gate.jpg")
    put(tmp_path, "c/20250901T101000_in_gate.jpg")
    put(tmp_path, "c/note.txt")
    (tmp_path / "a/was empty").mkdir()
    decided = list(plan(tmp_path).values())
    rows = {placing.key: row(placing.key, b"a picture") for placing in decided if placing.key}
    list(remove_originals(tmp_path, settle_fates(decided, rows), rows, lambda sha256: True))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "a", "a/was empty", "c", "c/note.txt",
    ]  # fmt: skip


def test_a_tree_that_is_entangled_with_the_library_is_refused(tmp_path: Path) -> None:
    library = ImageLibrary(folder=tmp_path / "downloads" / "library")
    (library.folder / "inside").mkdir(parents=True)
    (tmp_path / "link").symlink_to(library.folder / "inside")
    for folder in (tmp_path, tmp_path / "downloads", library.folder, library.folder / "inside", tmp_path / "link"):
        with pytest.raises(WrongUse, match="another library"):
            check_tree(folder, library)
    with pytest.raises(WrongUse, match="There is no folder"):
        check_tree(tmp_path / "nowhere", library)
