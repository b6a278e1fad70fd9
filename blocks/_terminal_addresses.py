"""What a terminal's picture is called: its address at the terminal, its key here, and the instant its name means.

Pure text and calendar. Names carry the terminal's wall clock without an offset, so a name means one instant only
together with the terminal's zone; in the hour that a clock is put back it may mean two.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from string import Formatter
from urllib.parse import quote, unquote, urlsplit
from zoneinfo import ZoneInfo

THUMBNAIL_SUFFIX = "-thumbnail"

MOST_DAYS = 3_660
"""Most days that one run or report is about: ten years."""

FIRST_YEAR = 1990
"""No gate camera has pictures from before."""

_LONGEST_TEMPLATE = 2_000
_DATE_SPEC = re.compile(r"(?:%[YymdjHIMSp]|[-_.:/ T])*")
_NO_SPEC = re.compile("")
_STREAM = re.compile(r"\w(?:[\w .-]*\w)?")
_NAME = re.compile(
    r"(?P<year>(?:19|20)\d\d)(?P<dash>-?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)(?P<t>[T ]?)"
    r"(?P<hour>\d\d)(?P<colon>[:_.-]?)(?P<minute>\d\d)(?P=colon)(?P<second>\d\d)[-_](?P<stream>.+)",
    re.ASCII,
)
_SUFFIX = re.compile(r"\.(?=[A-Za-z])[A-Za-z0-9]{2,5}$", re.ASCII)


@dataclass(frozen=True, slots=True)
class PictureAddress:
    """What the name of a terminal's picture says.

    `local`: naive wall-clock time at the terminal; `stream`: the camera; `is_thumbnail`: a small stand-in of it.
    """

    local: datetime
    stream: str
    is_thumbnail: bool = False


def parse_picture_address(url_or_name: str, thumbnail_suffix: str = THUMBNAIL_SUFFIX) -> PictureAddress | None:
    """Return what the last segment of an address, path or name says about a picture; None where it is no such name.

    Read are `2025-09-01T10:00:07-in_gate.jpeg`, `20250901T100000_in_gate.jpg` and `20250901100000_in_gate.jpg` with
    any stream and image suffix, percent-encoded or not, each also as a thumbnail (`…-thumbnail.jpeg`).
    """
    path = urlsplit(url_or_name).path if url_or_name.startswith(("http://", "https://", "/")) else url_or_name
    stem = _SUFFIX.sub("", unquote(path.replace("\\", "/").rpartition("/")[2]))
    shorter = stem.removesuffix(thumbnail_suffix) if thumbnail_suffix else stem
    match = _NAME.fullmatch(shorter)
    if not match or not is_stream(match["stream"]) or (match["dash"] and not match["t"]):
        return None
    parts = (match[part] for part in ("year", "month", "day", "hour", "minute", "second"))
    try:
        local = datetime(*map(int, parts))  # type: ignore[arg-type]  # noqa: DTZ001 - a wall clock
    except ValueError:
        return None
    return PictureAddress(local, match["stream"], is_thumbnail=shorter != stem)


def is_stream(stream: str) -> bool:
    """Tell whether `stream` can stand in an address and as a folder's name: letters, digits, `_`, `-`, `.`, spaces."""
    return len(stream) <= 100 and _STREAM.fullmatch(stream) is not None


def picture_key(local: datetime, stream: str, suffix: str = "jpg") -> str:
    """Return the key of the picture that `stream` took at the wall-clock time `local`.

    `{YYYY-MM-DD}/{stream}/{YYYYMMDDHHMMSS}_{stream}.{suffix}`; `parse_picture_address` reads it back.

    Raises:
        ValueError: `stream` is none.
    """
    if not is_stream(stream):
        raise ValueError(f"{stream!r} is no stream: write letters, digits, _ and -.")
    return f"{local:%Y-%m-%d}/{stream}/{local:%Y%m%d%H%M%S}_{stream}.{suffix}"


def picture_url(template: str, local: datetime, stream: str) -> str:
    """Return the address of a full picture: `template` with `{local:%…}`, `{hour}` (not padded) and `{stream}` set."""
    return template.format(local=local, hour=local.hour, stream=quote(stream))


def thumbnail_url(url: str, thumbnail_suffix: str = THUMBNAIL_SUFFIX) -> str:
    """Return the address of the thumbnail of the picture at `url`: the suffix stands before the extension."""
    parts = urlsplit(url)
    stem, dot, extension = parts.path.rpartition(".")
    if not dot or "/" in extension:
        stem, dot, extension = parts.path, "", ""
    return parts._replace(path=f"{stem}{thumbnail_suffix}{dot}{extension}").geturl()


def is_same_address(url: str, other: str) -> bool:
    """Tell whether two addresses name one picture: server and path, however encoded; the query is a cache's affair."""
    here, there = urlsplit(url), urlsplit(other)
    return (here.netloc, unquote(here.path)) == (there.netloc, unquote(there.path))


def page_url(template: str, stream: str) -> str:
    """Return the address of a stream's history page: `template` with `{stream}` set."""
    return template.format(stream=quote(stream, safe=""))


def check_template(template: str, allowed: Iterable[str], needed: Iterable[str]) -> str:
    """Return `template` if it is an address with only the `allowed` and all of the `needed` fields.

    Raises:
        ValueError: it is not; the text says what to write.
    """
    template = template.strip()
    allowed, needed = list(allowed), list(needed)
    if not template.startswith(("http://", "https://")) or urlsplit(template).username:
        raise ValueError("it must begin with http:// or https://, without a user or password")
    try:
        pieces = [(field, spec or "", how) for _, field, spec, how in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f"its braces do not match ({error})") from error
    fields = [field for field, _, _ in pieces]
    if len(template) > _LONGEST_TEMPLATE:
        raise ValueError(f"it is longer than {_LONGEST_TEMPLATE} characters")
    if unknown := [field for field in fields if field not in allowed]:
        raise ValueError(f"{{{unknown[0]}}} is none of its fields; there are {', '.join(f'{{{a}}}' for a in allowed)}")
    for field, spec, conversion in pieces:
        if conversion or not (_DATE_SPEC if field == "local" else _NO_SPEC).fullmatch(spec):
            raise ValueError(f"{{{field}}} takes nothing but, for local, parts of a date as in {{local:%Y-%m-%d}}")
    if missing := [field for field in needed if field not in fields]:
        raise ValueError(f"{{{missing[0]}}} is missing in it")
    return template


def local_day(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the instants (UTC) between which the local date `day` lies in `zone`: 23, 24 or 25 hours, end excluded."""
    return _midnight(day, zone), _midnight(day + timedelta(days=1), zone)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    # Where clocks are put forward at midnight, fold=0 takes the offset before it: the very instant of the change.
    return datetime.combine(day, time(), zone).astimezone(UTC)


def find_instants(local: datetime, zone: ZoneInfo) -> list[datetime]:
    """Return the instants (UTC, in order) at which clocks in `zone` showed `local`: one, two, or none.

    Two in the hour after clocks were put back, none in the hour that was left out when they were put forward.
    """
    instants = {local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return sorted(instant for instant in instants if instant.astimezone(zone).replace(tzinfo=None, fold=0) == local)


def mark_second_pass(locals_: Sequence[datetime], zone: ZoneInfo) -> list[bool]:
    """Tell of each wall-clock time, in the order of capture or against it, whether it is of the second of two hours.

    Where clocks are put back an order that otherwise rises falls once; a time that means one instant is never second.
    """
    places = range(len(locals_))
    rises = sum(soon <= late for soon, late in pairwise(locals_)) * 2 >= len(locals_) - 1
    marks, is_second = [False] * len(locals_), False
    for place in places if rises else reversed(places):
        earlier = place - 1 if rises else place + 1
        if len(find_instants(locals_[place], zone)) == 2:
            is_second = is_second or (earlier in places and locals_[place] < locals_[earlier])
            marks[place] = is_second
    return marks


def find_offset(instant: datetime, zone: ZoneInfo) -> int:
    """Return how many minutes clocks in `zone` stood east of UTC at `instant`."""
    offset = instant.astimezone(zone).utcoffset() or timedelta()
    return int(offset.total_seconds()) // 60
