from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks._layout import (
    MAX_KEY_BYTES,
    MAX_SEGMENT_BYTES,
    check_layout,
    is_hidden,
    make_safe_segment,
    make_thumbnail_key,
    render_layout,
    with_short_hash,
)
from blocks._records import is_safe_key

SHA = "1a2b3c4d" + "0" * 56
DEFAULT = "{source}/{captured:%Y-%m-%d}/{name}"


def render(template: str = DEFAULT, **values: Any) -> str:
    filled: dict[str, Any] = {
        "source": "north-gate",
        "key": "2026/IMG_1.JPG",
        "name": "IMG_1.JPG",
        "captured": datetime(2026, 5, 3, 14, 7, 9),  # noqa: DTZ001 - a camera's wall clock
        "camera": "RC-5",
        "sha256": SHA,
        "format": "jpeg",
    }
    return render_layout(template, **(filled | values))


@pytest.mark.parametrize(
    ("template", "key"),
    [
        (DEFAULT, "north-gate/2026-05-03/IMG_1.JPG"),
        ("{captured:%Y/%m}/{camera}/{name}", "2026/05/RC-5/IMG_1.JPG"),
        ("{source}/{key}", "north-gate/2026/IMG_1.JPG"),
        ("{sha256:.2}/{sha256}", f"1a/{SHA}.JPG"),
        ("{format}/{captured:%H%M%S}-{name}", "jpeg/140709-IMG_1.JPG"),
        ("all{{}}/{name}", "all{}/IMG_1.JPG"),
    ],
)
def test_a_layout_places_an_image(template: str, key: str) -> None:
    assert render(template) == key


def test_the_time_is_written_in_its_own_zone() -> None:
    assert render("{captured:%H}-{name}", captured=datetime(2026, 1, 1, 23, tzinfo=UTC)) == "23-IMG_1.JPG"


def test_an_unknown_camera_is_said_to_be_unknown() -> None:
    assert render("{camera}/{name}", camera=None) == "unknown-camera/IMG_1.JPG"


@pytest.mark.parametrize(
    ("template", "mistake"),
    [
        ("{nam}", "no field {nam}"),
        ("{name.__class__}", "no field {name.__class__}"),
        ("{name[0]}", "no field {name[0]}"),
        ("{}", "no field {}"),
        ("{name!r}", "conversion"),
        ("{name", "braces"),
        ("{name:>9999999}", "no length"),
        ("{captured}/{name}", "needs a form"),
        ("{captured:%Q}/{name}", "may use %Y"),
        ("{captured:%B}/{name}", "may use %Y"),
        ("{captured:%Y%}/{name}", "may use %Y"),
        ("{captured:%Y{sha256}}/{name}", "may use %Y"),
        ("{captured:%Y:%m}/{name}", "may use %Y"),
        ("{source}/{captured:%Y}", "same name"),
        ("/srv/{name}", "relative"),
        ("../{name}", "relative"),
        ("a/../{name}", "relative"),
        ("a\\{name}", "character"),
        ("a\0{name}", "character"),
    ],
)
def test_a_wrong_layout_is_refused_with_the_fields_it_may_use(template: str, mistake: str) -> None:
    with pytest.raises(ValueError) as refusal:
        check_layout(template)
    assert mistake in str(refusal.value)
    assert "{source}, {captured}, {name}, {key}, {camera}, {sha256}, {format}" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        (".hidden.jpg", "_hidden.jpg"),
        (".catchment", "_catchment"),
        ("..", "__"),
        ("a:b?.jpg", "a_b_.jpg"),
        ("CON.jpg", "_CON.jpg"),
        ("com1", "_com1"),
        ("console.jpg", "console.jpg"),
        ("dots...", "dots___"),
        ("line\nbreak.jpg", "line_break.jpg"),
        ("half\udc80.jpg", "half_.jpg"),
        ("été 🦊.jpg", "été 🦊.jpg"),
        ("", "_"),
    ],
)
def test_a_name_is_made_safe_and_visible(name: str, safe: str) -> None:
    assert make_safe_segment(name) == safe


def test_a_value_can_not_open_folders_of_its_own() -> None:
    assert render("{camera}/{name}", camera="../../etc", name="a/b.jpg") == "_._.._etc/a_b.jpg"


def test_a_long_name_is_cut_before_its_suffix_and_stays_itself() -> None:
    long = ["ü" * 300 + f"{number}.jpeg" for number in range(2)]
    keys = [render("{name}", name=name) for name in long]
    assert [len(key.encode()) for key in keys] == [MAX_SEGMENT_BYTES - 1] * 2  # no half ü
    assert all(key.endswith(".jpeg") for key in keys)
    assert keys[0] != keys[1]


def test_a_long_path_is_cut_between_its_first_folders_and_its_name() -> None:
    keys = [render("{key}", key="/".join(["folder" * 20] * 20 + [leaf, "IMG_1.JPG"])) for leaf in ("a", "b")]
    assert all(len(key.encode()) <= MAX_KEY_BYTES for key in keys)
    assert all(key.startswith("folderfolder") and key.endswith("/IMG_1.JPG") for key in keys)
    assert keys[0] != keys[1]


def test_a_collision_is_marked_before_the_suffix() -> None:
    assert with_short_hash("a/b.jpg", SHA) == "a/b~1a2b3c4d.jpg"
    assert with_short_hash("b", SHA) == "b~1a2b3c4d"


def test_a_thumbnail_lies_where_no_image_can() -> None:
    assert make_thumbnail_key(SHA) == f".catchment/thumbnails/1a/{SHA}.jpg"
    assert is_hidden(make_thumbnail_key(SHA))


SEGMENTS = st.text(st.characters(exclude_categories=[]), max_size=300)
TEMPLATES = st.sampled_from(
    [
        DEFAULT,
        "{key}",
        "{source}/{key}",
        "{name}",
        "{camera}{name}",
        ".{name}",
        "{camera}/{sha256}",
        "{key:.1}",
        "{format}.{key}",
    ]
)


@given(
    template=TEMPLATES,
    source=SEGMENTS,
    key=st.lists(SEGMENTS, max_size=12).map("/".join),
    name=SEGMENTS,
    camera=st.none() | SEGMENTS,
)
def test_no_value_escapes_hides_or_outgrows_the_library(
    template: str, source: str, key: str, name: str, camera: str | None
) -> None:
    values = {"source": source, "key": key, "name": name, "camera": camera}
    placed = render(template, **values)
    assert placed == render(template, **values)
    for found in (placed, with_short_hash(placed, SHA), with_short_hash(placed, SHA, 64)):
        assert is_safe_key(found)
        assert not is_hidden(found)
        assert len(found.encode()) <= 1024 - 50
        assert all(len(segment.encode()) <= MAX_SEGMENT_BYTES for segment in found.split("/"))
        assert PurePosixPath("library", found).is_relative_to("library")
    assert with_short_hash(placed, SHA) != placed
