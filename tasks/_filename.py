"""Read when and by which camera an image was taken, as far as its file name says so.

Only names whose layout is known are read; a run of digits that might be a time is not one.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class NamedCapture:
    """What a file name says; None where it does not.

    `local`: naive wall-clock time; `offset_minutes`: its distance east of UTC, for the few names that carry it;
    `camera`: the camera's name as it stands there.
    """

    local: datetime | None = None
    offset_minutes: int | None = None
    camera: str | None = None


_DAY = r"(?P<year>(?:19|20)\d\d)(?P<month>\d\d)(?P<day>\d\d)"
_SHORT_DAY = r"(?P<year>\d\d)(?P<month>\d\d)(?P<day>\d\d)"
_CLOCK = r"(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)"
_DASHED_DAY = r"(?P<year>(?:19|20)\d\d)-(?P<month>\d\d)-(?P<day>\d\d)"
_SPACED_CLOCK = r"(?P<hour>\d\d)(?P<gap>[-:._])(?P<minute>\d\d)(?P=gap)(?P<second>\d\d)"
_FRACTION = r"(?:[._-]?(?P<fraction>\d{3}|\d{6})(?!\d))?"
_ZONE = r"(?P<zone>Z|[+]\d\d:?\d\d|-\d\d:\d\d)?"  # "-0700" might as well be a name
_CAMERA = r"(?:[_-](?:\d{1,5}|(?P<camera>(?=.*[^\W\d_])(?!.*\d{6}).+)))?"  # a bare number counts pictures
_REST = r"(?:[^\d](?!.*\d{6}).*)?"  # no second run of digits that could be another time

_LAYOUTS = tuple(
    re.compile(layout, re.IGNORECASE)
    for layout in (
        # Aufnahme_250911_1423_HAMELN3
        r"Aufnahme_(?P<year>\d\d)(?P<month>\d\d)(?P<day>\d\d)_(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)?"
        + _CAMERA,
        # PXL_20250901_100000123.MP: Google's camera names its files in UTC
        rf"PXL_{_DAY}_{_CLOCK}(?P<fraction>\d{{3}})(?P<utc>){_REST}",
        # 20250901T100000_in_gate, 20250901T100000.250Z-in_gate, 20250901100000_in_gate
        rf"{_DAY}T{_CLOCK}{_FRACTION}{_ZONE}{_CAMERA}",
        rf"{_DAY}{_CLOCK}{_CAMERA}",
        # 2025-09-01T10:00:07-in_gate, 2025-09-01T10_00_07+02:00_in_gate
        rf"{_DASHED_DAY}T{_SPACED_CLOCK}{_FRACTION}{_ZONE}{_CAMERA}",
        # 20250901_100000, 20250901_100000_HDR: phones; what follows is a mode, not a camera
        rf"{_DAY}[_-]{_CLOCK}{_FRACTION}{_REST}",
        # 2025-09-01 10.00.00, 2025-09-01_10-00-00, 2025-09-01-10-00-00
        rf"{_DASHED_DAY}[ _-]{_SPACED_CLOCK}{_FRACTION}{_REST}",
        # IMG_20250901_100000, IMG20250901100000, DJI_20250901100000_0001_D, Screenshot_20250901-100000_Maps
        rf"[a-z][a-z_]*[ _-]?{_DAY}[_T-]?{_CLOCK}{_FRACTION}{_REST}",
        # Screenshot_2025-09-01-10-00-00, signal-2025-09-01-10-00-00-123, WhatsApp Image 2025-09-01 at 10.00.00 PM
        rf"[a-z][a-z _]*[ _-]{_DASHED_DAY}(?:[ _T-]| at ){_SPACED_CLOCK}(?:\s(?P<half>[AP]M))?{_FRACTION}{_REST}",
    )
)
_COPY_MARK = re.compile(r" ?\(\d{1,3}\)$|~\d{1,2}$", re.ASCII)
_EXTENSION = re.compile(r"\.[A-Za-z]\w{1,4}$", re.ASCII)


def parse_file_name(name: str) -> NamedCapture:
    """Return the time and the camera that the file name `name` states; what it leaves open is None.

    A date without a time of day (`IMG-20250901-WA0001`) is no time. Names ending at the minute are read as its start.
    """
    stem = _COPY_MARK.sub("", _EXTENSION.sub("", name).replace("\N{NARROW NO-BREAK SPACE}", " "))
    for layout in _LAYOUTS:
        if (match := layout.fullmatch(stem)) and (local := _read_local(match.groupdict())):
            groups = match.groupdict()
            return NamedCapture(local, _read_offset(groups), groups.get("camera"))
    return NamedCapture()


def _read_local(groups: dict[str, str | None]) -> datetime | None:
    year, month, day, hour, minute, second = (
        int(groups[part] or 0) for part in ("year", "month", "day", "hour", "minute", "second")
    )
    if half := groups.get("half"):
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half.upper() == "PM" else 0)
    microsecond = int((groups.get("fraction") or "").ljust(6, "0"))
    try:
        return datetime(  # noqa: DTZ001 - a wall clock
            year if year > 99 else 2000 + year, month, day, hour, minute, second, microsecond
        )
    except ValueError:
        return None


def _read_offset(groups: dict[str, str | None]) -> int | None:
    zone = groups.get("zone")
    if zone in {"Z", "z"} or "utc" in groups:
        return 0
    if not zone:
        return None
    digits = zone[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    if offset > timedelta(hours=14) or int(digits[2:]) > 59:
        return None
    return int(offset.total_seconds()) // 60 * (-1 if zone[0] == "-" else 1)
