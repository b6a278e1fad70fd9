"""Read what a camera wrote about a picture: when, where, and which camera (EXIF, CIPA DC-008).

A malformed field is left out; it never costs the picture or its neighbours.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import MAXYEAR, datetime, timedelta

from blocks._records import CaptureTime, TimeWitness
from tasks._tiff import Directory, read_directory, read_first_directory

_MAKE, _MODEL, _ORIENTATION, _DATE_TIME, _CAMERA_SERIAL = 0x010F, 0x0110, 0x0112, 0x0132, 0xC62F
_EXIF_DIRECTORY, _GPS_DIRECTORY = 0x8769, 0x8825
_BODY_SERIAL, _MAKER_NOTE = 0xA431, 0x927C
_OFFSET_OF_CHANGE, _SUBSECOND_OF_CHANGE = 0x9010, 0x9290
_ORIGINAL = (0x9003, 0x9291, 0x9011)  # DateTimeOriginal with its SubSecTime and OffsetTime
_DIGITIZED = (0x9004, 0x9292, 0x9012)
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE, _GPS_TIME, _GPS_STATUS, _GPS_DATE = 1, 2, 3, 4, 7, 9, 29

_CLOCK = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)[ T](\d\d):(\d\d):(\d\d)", re.ASCII)
_DATE = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)", re.ASCII)
_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)", re.ASCII)
_PLAUSIBLE_YEARS = range(1826, MAXYEAR)  # from Niépce's view from Le Gras; outside it is a clock that was never set
_FURTHEST_OFFSET = 14 * 60  # minutes: Line Islands, UTC+14; the other way it is 12 hours

# Maker notes that hold the serial number at a fixed place: (beginning, start, end, encoding), as in ExifTool's
# Image::ExifTool::Reconyx (camera traps: HyperFire, UltraFire, HyperFire 2, MicroFire, HyperFire 4K).
_SERIALS_IN_MAKER_NOTES = (
    (b"\x01\xf1\x02\0", 0x2A, 0x48, "utf-16-le"),
    (b"\x01\xf1\x03\0", 0x2A, 0x48, "utf-16-le"),
    (b"RECONYXUF\0", 0x4B, 0x5A, "latin-1"),
    (b"RECONYXH2\0", 0x7E, 0x9C, "utf-16-le"),
    (b"RECONYXMF\0", 0x8C, 0xAA, "utf-16-le"),
    (b"RECONYXHF4K\0", 0x84, 0x93, "latin-1"),
)


@dataclass(frozen=True, slots=True)
class ExifFacts:
    """What a picture's EXIF says; None where it does not.

    `taken`: the shutter's time, or the digitizing's; `fixed`: the time of the GPS fix, UTC; `changed`: the time of the
    file's last change, which is the shutter's only as long as nobody has edited the file. `latitude`, `longitude`:
    degrees WGS 84. `orientation`: 1-8, 1 where it is missing or impossible.
    """

    taken: CaptureTime | None = None
    fixed: CaptureTime | None = None
    changed: CaptureTime | None = None
    make: str | None = None
    model: str | None = None
    serial: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    orientation: int = 1


def parse_exif(block: bytes | None) -> ExifFacts:
    """Return the facts in `block`, EXIF from its TIFF header on (a leading `Exif` marker is skipped); never raises.

    No offset is worked out from the distance between the camera's clock and the GPS time: the fix may be minutes old,
    and a distance that happens to look like a zone is no statement about one.
    """
    if not block:
        return ExifFacts()
    while block.startswith(b"Exif\0"):  # some writers put it twice
        block = block[6:]
    main = read_first_directory(block)
    exif = _read_sub_directory(block, main, _EXIF_DIRECTORY)
    gps = _read_sub_directory(block, main, _GPS_DIRECTORY)
    changed = _read_clock(_text(main, _DATE_TIME), _text(exif, _SUBSECOND_OF_CHANGE), _text(exif, _OFFSET_OF_CHANGE))
    has_fix = (_text(gps, _GPS_STATUS) or "A") != "V"  # V: the receiver had none
    latitude, longitude = _read_position(gps) if has_fix else (None, None)
    return ExifFacts(
        taken=next(_read_shutter_times(exif, changed), None),
        fixed=_read_gps_time(gps) if has_fix else None,
        changed=changed,
        make=_text(main, _MAKE),
        model=_text(main, _MODEL),
        serial=_text(exif, _BODY_SERIAL) or _text(main, _CAMERA_SERIAL) or _read_maker_serial(exif),
        latitude=latitude,
        longitude=longitude,
        orientation=_read_orientation(main),
    )


def _read_sub_directory(block: bytes, main: Directory, tag: int) -> Directory:
    offsets = main[tag].integers() if tag in main else []
    return read_directory(block, offsets[0]) if offsets else {}


def _text(directory: Directory, tag: int) -> str | None:
    entry = directory.get(tag)
    return entry.text() if entry else None


def _numbers(directory: Directory, tag: int) -> list[float]:
    """Return the numbers of a field; an empty list if one of them is not a number."""
    numbers = directory[tag].rationals() if tag in directory else []
    known = [number for number in numbers if number is not None]
    return known if len(known) == len(numbers) else []


def _read_shutter_times(exif: Directory, changed: CaptureTime | None) -> Iterator[CaptureTime]:
    for clock, subsecond, offset in (_ORIGINAL, _DIGITIZED):
        time = _read_clock(_text(exif, clock), _text(exif, subsecond), _text(exif, offset))
        if time is None:
            continue
        if time.offset_minutes is None and _says_the_same(time, changed):
            # OffsetTime is the offset of DateTime: it holds here only where both clocks read the same.
            time = CaptureTime(time.local, _read_offset(_text(exif, _OFFSET_OF_CHANGE)), TimeWitness.EXIF)
        yield time


def _says_the_same(time: CaptureTime, changed: CaptureTime | None) -> bool:
    return changed is None or changed.local.replace(microsecond=0) == time.local.replace(microsecond=0)


def _read_clock(clock: str | None, subsecond: str | None, offset: str | None) -> CaptureTime | None:
    """Return the time a clock field names, or None for blanks, zeros and dates that can not be."""
    match = _CLOCK.fullmatch(clock or "")
    if match is None:
        return None
    year, month, day, *time = match.groups()
    fraction = subsecond if subsecond and re.fullmatch(r"[0-9]+", subsecond) else "0"
    try:
        local = datetime.fromisoformat(f"{year}-{month}-{day}T{':'.join(time)}.{fraction[:6].ljust(6, '0')}")
    except ValueError:
        return None
    return CaptureTime(local, _read_offset(offset), TimeWitness.EXIF) if local.year in _PLAUSIBLE_YEARS else None


def _read_offset(text: str | None) -> int | None:
    if text == "Z":
        return 0
    match = _OFFSET.fullmatch(text or "")
    if match is None:
        return None
    sign, hours, minutes = match.groups()
    total = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or total > _FURTHEST_OFFSET:
        return None
    return -total if sign == "-" else total


def _read_gps_time(gps: Directory) -> CaptureTime | None:
    match = _DATE.fullmatch(_text(gps, _GPS_DATE) or "")
    clock = _numbers(gps, _GPS_TIME)
    if match is None or len(clock) != 3:
        return None
    hours, minutes, seconds = clock
    if not (0 <= hours < 24 and 0 <= minutes < 60 and 0 <= seconds < 60):
        return None
    try:
        local = datetime.fromisoformat("-".join(match.groups())) + timedelta(
            hours=hours, minutes=minutes, seconds=seconds
        )
    except (ValueError, OverflowError):
        return None
    return CaptureTime(local, 0, TimeWitness.GPS) if local.year in _PLAUSIBLE_YEARS else None


def _read_position(gps: Directory) -> tuple[float, float] | tuple[None, None]:
    latitude = _read_degrees(gps, _LATITUDE_REF, _LATITUDE, "NS", 90)
    longitude = _read_degrees(gps, _LONGITUDE_REF, _LONGITUDE, "EW", 180)
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):  # zeros: a receiver without a fix
        return None, None
    return latitude, longitude


def _read_degrees(gps: Directory, reference_tag: int, tag: int, signs: str, limit: int) -> float | None:
    reference = (_text(gps, reference_tag) or "").upper()
    parts = _numbers(gps, tag)
    if reference not in set(signs) or len(parts) != 3:
        return None
    degrees, minutes, seconds = parts
    if degrees < 0 or not (0 <= minutes <= 60 and 0 <= seconds <= 60):
        return None
    total = degrees + minutes / 60 + seconds / 3600
    if total > limit:
        return None
    return round(-total if reference == signs[1] else total, 7)


def _read_orientation(main: Directory) -> int:
    values = main[_ORIENTATION].integers() if _ORIENTATION in main else []
    return values[0] if values and 1 <= values[0] <= 8 else 1


def _read_maker_serial(exif: Directory) -> str | None:
    note = exif[_MAKER_NOTE].value if _MAKER_NOTE in exif else b""
    for beginning, start, end, encoding in _SERIALS_IN_MAKER_NOTES:
        if note.startswith(beginning) and len(note) >= end:
            text = note[start:end].decode(encoding, "ignore").split("\0", 1)[0]
            return text.strip() if text.isprintable() and text.strip() else None
    return None
