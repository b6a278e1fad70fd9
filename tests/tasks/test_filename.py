# ruff: noqa: DTZ001 - capture times are naive wall clocks beside their offset

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks._filename import NamedCapture, parse_file_name

MORNING = datetime(2025, 9, 1, 10, 0, 0)
MILLISECOND = timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Aufnahme_250911_1423_HAMELN3.jpg", NamedCapture(datetime(2025, 9, 11, 14, 23), camera="HAMELN3")),
        ("Aufnahme_250911_142359_Wehr Nord.jpg", NamedCapture(datetime(2025, 9, 11, 14, 23, 59), camera="Wehr Nord")),
        ("20250901T100000_in_gate.jpg", NamedCapture(MORNING, camera="in_gate")),
        ("20250901100000_in_gate.jpg", NamedCapture(MORNING, camera="in_gate")),
        ("20250901T100000_Tür_3.jpg", NamedCapture(MORNING, camera="Tür_3")),
        ("20250901T100000_ворота.jpg", NamedCapture(MORNING, camera="ворота")),
        ("2025-09-01T10:00:07-in_gate.jpeg", NamedCapture(MORNING + timedelta(seconds=7), camera="in_gate")),
        ("2025-09-01T10_00_07-in_gate.jpeg", NamedCapture(MORNING + timedelta(seconds=7), camera="in_gate")),
    ],
)
def test_camera_trap_and_gate_names_say_time_and_camera(name: str, expected: NamedCapture) -> None:
    assert parse_file_name(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "IMG_20250901_100000.jpg",
        "IMG20250901100000.jpg",
        "MVIMG_20250901_100000.jpg",
        "DJI_20250901100000_0001_D.JPG",
        "20250901_100000.jpg",
        "20250901_100000_HDR.jpg",
        "20250901_100000(1).jpg",
        "20250901100000.jpg",
        "20250901T100000_0001.jpg",
        "Screenshot_2025-09-01-10-00-00.png",
        "Screenshot_20250901-100000_Maps.jpg",
        "Screenshot 2025-09-01 at 10.00.00.png",
        "Screenshot 2025-09-01 at 10.00.00\N{NARROW NO-BREAK SPACE}AM.png",
        "WhatsApp Image 2025-09-01 at 10.00.00.jpeg",
        "WhatsApp Image 2025-09-01 at 10.00.00 AM (2).jpeg",
        "2025-09-01 10.00.00.jpg",
        "snapshot_2025-09-01_10-00-00.jpg",
    ],
)
def test_what_follows_the_time_in_a_phones_name_is_no_camera(name: str) -> None:
    assert parse_file_name(name) == NamedCapture(MORNING)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PXL_20250901_100000123.jpg", NamedCapture(MORNING + 123 * MILLISECOND, 0)),
        ("PXL_20250901_100000123.MP.jpg", NamedCapture(MORNING + 123 * MILLISECOND, 0)),
        ("20250901T100000Z_in_gate.jpg", NamedCapture(MORNING, 0, "in_gate")),
        ("20250901T100000+0200_in_gate.jpg", NamedCapture(MORNING, 120, "in_gate")),
        ("2025-09-01T10:00:00-05:30_in_gate.jpg", NamedCapture(MORNING, -330, "in_gate")),
        ("2025-09-01T10:00:00+99:00_in_gate.jpg", NamedCapture(MORNING, None, "in_gate")),
        ("IMG_20250901_100000042.jpg", NamedCapture(MORNING + 42 * MILLISECOND)),
        ("signal-2025-09-01-10-00-00-123.jpg", NamedCapture(MORNING + 123 * MILLISECOND)),
    ],
)
def test_zones_and_fractions_are_read_where_the_name_has_them(name: str, expected: NamedCapture) -> None:
    assert parse_file_name(name) == expected


@pytest.mark.parametrize(
    ("name", "hour"),
    [("WhatsApp Image 2025-09-01 at 12.00.00 AM.jpeg", 0), ("WhatsApp Image 2025-09-01 at 10.00.00 PM.jpeg", 22)],
)
def test_twelve_hour_clocks_are_turned_into_hours_of_the_day(name: str, hour: int) -> None:
    assert parse_file_name(name).local == MORNING.replace(hour=hour)


@pytest.mark.parametrize("name", ["IMG-20250901-WA0001.jpg", "20250901.jpg", "2025-09-01.jpg", "IMG_20250901.jpg"])
def test_a_date_without_a_time_of_day_does_not_become_midnight(name: str) -> None:
    assert parse_file_name(name) == NamedCapture()


@pytest.mark.parametrize(
    "name",
    [
        "IMG_1234.jpg",
        "1693562400000.jpg",
        "1693562400.jpg",
        "250901100000.jpg",
        "202509011000001.jpg",
        "IMG_20251301_100000.jpg",
        "20250901T250000_in_gate.jpg",
        "2025-02-30T10:00:00-in_gate.jpg",
        "20250901_100000_20250902_110000.jpg",
        "WhatsApp Image 2025-09-01 at 13.00.00 PM.jpeg",
        "gate 2.jpg",
        "0123456789abcdef.jpg",
        "",
    ],
)
def test_a_digit_run_that_might_be_a_time_is_none(name: str) -> None:
    assert parse_file_name(name) == NamedCapture()


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2099, 12, 31)),
    st.sampled_from(["in_gate", "Tür 3", "HAMELN3", "3b"]),
)
def test_a_time_and_camera_written_into_a_name_are_read_back(local: datetime, camera: str) -> None:
    name = f"{local:%Y%m%dT%H%M%S}_{camera}.jpg"
    assert parse_file_name(name) == NamedCapture(local.replace(microsecond=0), camera=camera)


@given(st.text(max_size=60))
def test_no_name_is_an_error(name: str) -> None:
    parse_file_name(name)
