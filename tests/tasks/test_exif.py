# ruff: noqa: DTZ001 - capture times are naive wall clocks beside their offset

import struct
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks._records import CaptureTime, TimeWitness
from tasks._exif import ExifFacts, parse_exif
from tests.pictures import make_exif

SHUTTER = datetime(2025, 9, 1, 10, 0, 7)
CLOCK = "2025:09:01 10:00:07"


def exif_time(local: datetime = SHUTTER, offset: int | None = None) -> CaptureTime:
    return CaptureTime(local, offset, TimeWitness.EXIF)


def test_everything_a_camera_wrote_is_read() -> None:
    block = make_exif(
        taken=CLOCK,
        subsecond="25",
        offset="+02:00",
        make="NIKON CORPORATION",
        model="NIKON D850",
        serial="6001234",
        orientation=6,
        position=(52.1037, -9.3562),
        gps_time=("2025:09:01", (8.0, 0.0, 5.5)),
    )
    assert parse_exif(block) == ExifFacts(
        taken=exif_time(SHUTTER.replace(microsecond=250_000), 120),
        fixed=CaptureTime(datetime(2025, 9, 1, 8, 0, 5, 500_000), 0, TimeWitness.GPS),
        make="NIKON CORPORATION",
        model="NIKON D850",
        serial="6001234",
        latitude=52.1037,
        longitude=-9.3562,
        orientation=6,
    )


def test_a_time_without_an_offset_says_so() -> None:
    assert parse_exif(make_exif(taken=CLOCK)).taken == exif_time()


def test_an_offset_is_not_worked_out_from_the_gps_time() -> None:
    block = make_exif(taken=CLOCK, gps_time=("2025:09:01", (8.0, 0.0, 7.0)))
    assert parse_exif(block).taken == exif_time()


def test_the_digitizing_stands_in_for_a_missing_shutter_time() -> None:
    assert parse_exif(make_exif(taken="0000:00:00 00:00:00", digitized=CLOCK)).taken == exif_time()


def test_the_time_of_change_is_kept_apart_from_the_shutters() -> None:
    facts = parse_exif(make_exif(changed=CLOCK, offset_of_change="+02:00"))
    assert (facts.taken, facts.changed) == (None, exif_time(offset=120))


@pytest.mark.parametrize(
    ("changed", "expected"), [(CLOCK, 120), (None, 120), ("2026:01:01 00:00:00", None)], ids=["same", "none", "edited"]
)
def test_the_offset_of_change_holds_only_where_the_clocks_agree(changed: str | None, expected: int | None) -> None:
    facts = parse_exif(make_exif(taken=CLOCK, changed=changed, offset_of_change="+02:00"))
    assert facts.taken == exif_time(offset=expected)


@pytest.mark.parametrize(
    "clock",
    [
        "0000:00:00 00:00:00",
        "2000:00:00 00:00:00",
        "    :  :     :  :  ",
        "                   ",
        "",
        "2025:02:30 10:00:00",
        "2025:09:01 24:00:00",
        "2025:09:01 10:00:60",
        "2025:09:01",
        "0001:01:01 00:00:00",
        "yesterday",
    ],
)
def test_a_time_that_can_not_be_is_no_witness(clock: str) -> None:
    facts = parse_exif(make_exif(taken=clock, digitized=clock, changed=clock))
    assert (facts.taken, facts.changed) == (None, None)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("+02:00", 120),
        ("-09:30", -570),
        ("+14:00", 840),
        ("Z", 0),
        ("+00:00", 0),
        ("+15:00", None),
        ("+02:75", None),
        ("02:00", None),
        ("   :  ", None),
        ("Europe/Berlin", None),
    ],
)
def test_only_a_possible_offset_is_read(text: str, minutes: int | None) -> None:
    assert parse_exif(make_exif(taken=CLOCK, offset=text)).taken == exif_time(offset=minutes)


@pytest.mark.parametrize(("text", "microsecond"), [("5", 500_000), ("0257", 25_700), ("1234567", 123_456), ("x1", 0)])
def test_subseconds_are_a_decimal_fraction(text: str, microsecond: int) -> None:
    assert parse_exif(make_exif(taken=CLOCK, subsecond=text)).taken == exif_time(
        SHUTTER.replace(microsecond=microsecond)
    )


@pytest.mark.parametrize(("position"), [(52.1037, 9.3562), (-33.8568, 151.2153), (90.0, -180.0), (0.0, 9.5)])
def test_a_position_is_read_in_all_quarters_of_the_globe(position: tuple[float, float]) -> None:
    facts = parse_exif(make_exif(position=position))
    assert (facts.latitude, facts.longitude) == pytest.approx(position, abs=1e-6)


NORTH: dict[int, Any] = {1: "N", 2: (52.0, 6.0, 13.0), 3: "E", 4: (9.0, 21.0, 22.0)}


@pytest.mark.parametrize(
    "change",
    [
        {1: ""},
        {1: "X"},
        {2: (91.0, 0.0, 0.0)},
        {4: (180.0, 0.0, 1.0)},
        {2: (52.0, 61.0, 0.0)},
        {2: (52.0, 6.0)},
        {2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)},
        {9: "V"},
    ],
    ids=[
        "no reference",
        "odd reference",
        "beyond pole",
        "beyond date line",
        "61 minutes",
        "two parts",
        "zeros",
        "void",
    ],
)
def test_a_position_that_can_not_be_is_none(change: dict[int, Any]) -> None:
    facts = parse_exif(make_exif(gps=NORTH | change))
    assert (facts.latitude, facts.longitude) == (None, None)


def test_a_position_divided_by_zero_is_none() -> None:
    block = make_exif(gps=NORTH)
    third = struct.pack(">LL", 13, 1) if block[6:8] == b"MM" else struct.pack("<LL", 13, 1)
    assert third in block
    facts = parse_exif(block.replace(third, bytes(8)))
    assert (facts.latitude, facts.longitude) == (None, None)


@pytest.mark.parametrize(
    "gps_time", [("2025:09:31", (8.0, 0.0, 0.0)), ("0112:09:26", (8.0, 0.0, 0.0)), ("2025:09:01", (25.0, 0.0, 0.0))]
)
def test_a_gps_time_that_can_not_be_is_no_witness(gps_time: tuple[str, tuple[float, float, float]]) -> None:
    assert parse_exif(make_exif(gps_time=gps_time)).fixed is None


@pytest.mark.parametrize(("written", "read"), [(1, 1), (8, 8), (0, 1), (9, 1), (65535, 1)])
def test_an_impossible_orientation_is_upright(written: int, read: int) -> None:
    assert parse_exif(make_exif(orientation=written)).orientation == read


def test_names_lose_their_padding_and_control_characters() -> None:
    facts = parse_exif(make_exif(make="  Canon \x07 ", model="   ", serial="A17\0junk"))
    assert (facts.make, facts.model, facts.serial) == ("Canon", None, "A17")


@pytest.mark.parametrize(
    ("beginning", "start", "serial"),
    [
        (b"\x01\xf1\x03\0", 0x2A, "H500HF12345678".encode("utf-16-le")),
        (b"RECONYXH2\0", 0x7E, "H500HF12345678".encode("utf-16-le")),
        (b"RECONYXUF\0", 0x4B, b"H500HF12345678"),
    ],
)
def test_a_camera_traps_serial_is_found_in_its_maker_note(beginning: bytes, start: int, serial: bytes) -> None:
    note = beginning.ljust(start, b"\0") + serial.ljust(80, b"\0")
    assert parse_exif(make_exif(make="RECONYX", maker_note=note)).serial == "H500HF12345678"


def test_a_bad_field_costs_only_itself() -> None:
    block = make_exif(taken=CLOCK, make="Canon", model="EOS", orientation=6)
    order = ">" if block[6:8] == b"MM" else "<"
    at = block.index(struct.pack(order + "HH", 0x010F, 2))
    broken = block[: at + 4] + struct.pack(order + "LL", 0xFFFFFF, 0xFFFFFF) + block[at + 12 :]
    assert parse_exif(broken) == ExifFacts(taken=exif_time(), model="EOS", orientation=6)


@pytest.mark.parametrize(
    "block", [None, b"", b"Exif\0\0", b"II*\0", b"MM\0*\0\0\0\x08", b"II*\0\xff\xff\xff\xff", b"x"]
)
def test_no_exif_is_no_facts(block: bytes | None) -> None:
    assert parse_exif(block) == ExifFacts()


WHOLE = make_exif(taken=CLOCK, offset="+02:00", make="Canon", serial="1", position=(1.0, 2.0), orientation=3)


@given(st.integers(0, len(WHOLE)), st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=8))
def test_damaged_exif_is_never_an_error(length: int, changes: list[tuple[int, int]]) -> None:
    block = bytearray(WHOLE)
    for at, value in changes:
        block[at] = value
    parse_exif(bytes(block))
    parse_exif(bytes(block[:length]))
