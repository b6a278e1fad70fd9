"""What a gate picture's name means: its time, stream and instant, also where clocks change."""

# ruff: noqa: DTZ001 - names tell wall clocks

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks._terminal_addresses import (
    PictureAddress,
    check_template,
    find_instants,
    find_offset,
    is_same_address,
    is_stream,
    local_day,
    mark_second_pass,
    parse_picture_address,
    picture_key,
    picture_url,
    thumbnail_url,
)

ZONE = ZoneInfo("America/Los_Angeles")
SPRING, AUTUMN = date(2025, 3, 9), date(2025, 11, 2)
TAKEN = datetime(2025, 9, 1, 9, 0, 7)
TEMPLATE = "https://cdn.example.org/apm/{local:%Y-%m-%d}/{hour}/{local:%Y-%m-%dT%H:%M:%S}-{stream}.jpeg"

moments = st.datetimes(datetime(1990, 1, 1), datetime(2099, 12, 31)).map(lambda moment: moment.replace(microsecond=0))
streams = st.from_regex(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,20}[A-Za-z0-9_])?", fullmatch=True).filter(
    lambda stream: not stream.endswith("-thumbnail") and is_stream(stream)
)


@pytest.mark.parametrize(
    "name",
    [
        "2025-09-01T09:00:07-in_gate.jpeg",
        "https://cdn.example.org/apm/2025-09-01/9/2025-09-01T09:00:07-in_gate.jpeg",
        "https://cdn.example.org/apm/2025-09-01/9/2025-09-01T09%3A00%3A07-in_gate.jpeg?width=200#x",
        "20250901T090007_in_gate.jpg",
        "20250901090007_in_gate.jpg",
        "2025-09-01/in_gate/20250901090007_in_gate.jpg",
        "D:\\gates\\20250901090007_in_gate.JPG",
    ],
)
def test_every_form_of_a_name_says_the_same(name: str) -> None:
    assert parse_picture_address(name) == PictureAddress(TAKEN, "in_gate")


@pytest.mark.parametrize(
    "name",
    [
        "logo.png",
        "IMG_20250901_100000.jpg",
        "2025-02-30T09:00:07-in_gate.jpeg",
        "2025-09-01T25:00:07-in_gate.jpeg",
        "20250901090007_.jpg",
        "20250901090007_...jpg",
        "20250901090007.jpg",
        "2025-0901T090007-in_gate.jpg",
        "",
    ],
)
def test_what_is_no_pictures_name_is_read_as_none(name: str) -> None:
    assert parse_picture_address(name) is None


def test_a_thumbnail_is_told_by_its_suffix_whatever_it_is() -> None:
    full = picture_url(TEMPLATE, TAKEN, "in_gate")
    assert full.endswith("/2025-09-01/9/2025-09-01T09:00:07-in_gate.jpeg")
    assert thumbnail_url(full).endswith("/9/2025-09-01T09:00:07-in_gate-thumbnail.jpeg")
    assert parse_picture_address(thumbnail_url(full)) == PictureAddress(TAKEN, "in_gate", is_thumbnail=True)
    small = thumbnail_url(full, "_small")
    assert parse_picture_address(small, "_small") == PictureAddress(TAKEN, "in_gate", is_thumbnail=True)


@given(moments, streams)
def test_a_key_says_what_it_was_made_of(local: datetime, stream: str) -> None:
    key = picture_key(local, stream)
    assert key.startswith(f"{local:%Y-%m-%d}/{stream}/")
    assert parse_picture_address(key) == PictureAddress(local, stream)
    assert parse_picture_address(picture_url(TEMPLATE, local, stream)) == PictureAddress(local, stream)


@pytest.mark.parametrize("stream", ["", "..", "../x", "a/b", "a\0b", "a\nb", ".x", "x" * 101])
def test_a_stream_can_not_leave_its_folder(stream: str) -> None:
    assert not is_stream(stream)
    with pytest.raises(ValueError, match="no stream"):
        picture_key(TAKEN, stream)


@pytest.mark.parametrize(("day", "hours"), [(SPRING, 23), (date(2025, 9, 1), 24), (AUTUMN, 25)])
def test_a_local_day_has_the_hours_its_clocks_show(day: date, hours: int) -> None:
    start, end = local_day(day, ZONE)
    assert end - start == timedelta(hours=hours)
    assert local_day(day + timedelta(days=1), ZONE)[0] == end
    assert start.astimezone(ZONE).date() == (end - timedelta(seconds=1)).astimezone(ZONE).date() == day


@given(st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)))
def test_every_instant_is_among_those_its_wall_clock_means(instant: datetime) -> None:
    instant = instant.replace(microsecond=0)
    local = instant.astimezone(ZONE).replace(tzinfo=None, fold=0)
    assert instant in find_instants(local, ZONE)
    assert local - timedelta(minutes=find_offset(instant, ZONE)) == instant.replace(tzinfo=None)


def test_the_repeated_hour_means_two_instants_and_the_left_out_one_none() -> None:
    twice = find_instants(datetime(2025, 11, 2, 1, 30), ZONE)
    assert [find_offset(instant, ZONE) for instant in twice] == [-420, -480]
    assert find_instants(datetime(2025, 3, 9, 2, 30), ZONE) == []


@pytest.mark.parametrize("is_newest_first", [False, True])
def test_the_order_of_capture_tells_the_repeated_hours_apart(is_newest_first: bool) -> None:
    start, end = local_day(AUTUMN, ZONE)
    instants = [start + timedelta(seconds=600 * beat + 7 + beat % 3) for beat in range(150)]
    assert instants[-1] < end
    if is_newest_first:
        instants.reverse()
    names = [instant.astimezone(ZONE).replace(tzinfo=None, fold=0) for instant in instants]
    seconds = mark_second_pass(names, ZONE)
    assert seconds == [bool(instant.astimezone(ZONE).fold) for instant in instants]
    assert sum(seconds) == 6


def test_an_order_by_name_tells_nothing_and_nothing_is_made_up() -> None:
    names = sorted([datetime(2025, 11, 2, 1, minute) for minute in range(0, 60, 5)])
    assert mark_second_pass(names, ZONE) == [False] * 12
    assert mark_second_pass([], ZONE) == []


def test_addresses_are_compared_as_servers_read_them() -> None:
    assert is_same_address("https://a.org/x%3Ay.jpg?v=2", "https://a.org/x:y.jpg")
    assert not is_same_address("https://b.org/x.jpg", "https://a.org/x.jpg")


@pytest.mark.parametrize(
    "tail",
    ["{local!r:>9999999}", "{local:>9999999}", "{stream:>9999999}", "{local.__class__}", "x" * 3_000],
)
def test_a_template_that_would_grow_or_tell_other_things_is_refused(tail: str) -> None:
    with pytest.raises(ValueError, match=r"takes nothing but|none of its fields|longer than"):
        check_template(f"https://cdn.example/{tail}/{{local:%Y-%m-%d}}-{{stream}}.jpeg", ["local", "stream"], ["local"])
