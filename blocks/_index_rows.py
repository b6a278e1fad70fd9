"""The rows of an index page: which links name something in the directory, under which key, and what is said of it."""

import codecs
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, timezone
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote_to_bytes, urljoin, urlsplit
from zoneinfo import ZoneInfo

import polars as pl

from blocks._records import LISTING_SCHEMA, Listing, is_safe_key

_FLUSH_ROWS = 65_536

_ONE_SEGMENT = re.compile(r"(?:\./)?([A-Za-z0-9._~!$&'()*+,;=@%-]+)(/?)")
_PLAIN_NAME = r"^(?:\./)?([A-Za-z0-9._~-]*[A-Za-z0-9_~-][A-Za-z0-9._~-]*)$"
URL_CHARACTERS = "%/:?#[]@!$&'()*+,;=~"
"""What stands in a URL as it is, besides letters, digits and `-._` (RFC 3986, sections 2.2 and 2.3)."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder an index page names: its decoded name, and a reference to resolve against the page's final address."""

    name: str
    href: str


@dataclass(frozen=True, slots=True)
class IndexPage:
    """What one index page lists; the keys of `files` are names within the page's directory."""

    files: Listing
    folders: tuple[Folder, ...]


class Name(NamedTuple):
    """One path segment below the page's directory, as a request can name it.

    The page's own quoting stays; only what no request line may hold (spaces, letters beyond ASCII) is percent-encoded,
    as browsers do.
    """

    segment: str
    is_folder: bool


def quote_key(key: str) -> str:
    """Return `key` as a URL path: UTF-8, everything percent-encoded but letters, digits, `-._~` and the slashes.

    A row without a `locator` lies at its page's directory plus this; RFC 3986, sections 2.1 and 2.3.
    """
    return quote(key, safe="/")


def percent_undecodable(error: UnicodeError) -> tuple[str, int]:
    """Decode bytes that do not fit their charset as %XX, for `errors=PERCENT`."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(f"%{byte:02X}" for byte in error.object[error.start : error.end]), error.end


PERCENT = "catchment.percent"
codecs.register_error(PERCENT, percent_undecodable)


class NameRule:
    """The one rule that finds names on every server's page.

    A reference names something in the directory when, resolved against the page's final address (and its `<base>`), it
    has the same origin, no query and no fragment, and its path is the page's directory plus exactly one segment; a
    slash at the end makes it a folder. Link texts are never looked at: servers cut them.
    """

    def __init__(self, url: str) -> None:
        here = urlsplit(urljoin(url, "."))
        self._origin = _origin(here)
        self._directory = _decode_path(here.path or "/")
        self._base = url
        self.is_based_here = True

    def rebase(self, href: str) -> None:
        """Resolve the references that follow against the page's `<base href>`; an unreadable one is ignored."""
        try:
            base = urljoin(self._base, href.strip())
            here = urlsplit(urljoin(base, "."))
            is_based_here = (_origin(here), _decode_path(here.path or "/")) == (self._origin, self._directory)
        except ValueError:
            return
        self._base, self.is_based_here = base, is_based_here

    def read(self, href: str) -> Name | None:
        """Return the name that `href` gives, or None where it leads elsewhere."""
        if self.is_based_here and (match := _ONE_SEGMENT.fullmatch(href)):
            return Name(match[1], bool(match[2]))
        if "?" in href or "#" in href:
            return None
        try:
            target = urlsplit(urljoin(self._base, href.strip(" \t\r\n\f")))
            if _origin(target) != self._origin:
                return None
        except ValueError:
            return None
        path = target.path
        parent, _, segment = path.removesuffix("/").rpartition("/")
        if not segment or _decode_path(parent + "/") != self._directory:
            return None
        return Name(quote(segment, safe=URL_CHARACTERS), path.endswith("/"))


class RowCollector:
    """Gather a page's links and what it says about them, in columns, so that a million rows stay small.

    `zone`: the zone the page's times are written in where they name none; a time that its clock shows twice or never
    is null.
    """

    def __init__(self, url: str, zone: ZoneInfo | timezone) -> None:
        self._rule = NameRule(url)
        self._zone = zone
        self._hrefs: list[str] = []
        self._texts: list[str] = []
        self._frames: list[pl.DataFrame] = []
        self._folders: dict[str, Folder] = {}
        self._undecodable: list[tuple[Name, str]] = []

    def rebase(self, href: str) -> None:
        """Resolve what follows against the page's `<base href>`."""
        self._flush()
        self._rule.rebase(href)

    def add_line(self, hrefs: Sequence[str], text: str) -> None:
        """Take the links of one line, and all that the line says beside them.

        Two links to one name are one; a line that names several things says nothing about any of them.
        """
        if len(hrefs) > 1:
            named = {name: href for href in hrefs if (name := self._rule.read(href))}
            hrefs = list(named.values())
            text = text if len(hrefs) == 1 else ""
        self._hrefs += hrefs
        self._texts += [" ".join(text.split())] * len(hrefs)
        if len(self._hrefs) >= _FLUSH_ROWS:
            self._flush()

    def close(self) -> IndexPage:
        """Return everything that was added; of several rows with one key the first stays."""
        self._flush()
        if self._undecodable:
            self._add_undecodable()
        empty = pl.DataFrame(schema=LISTING_SCHEMA)
        files = pl.concat([empty, *self._frames], rechunk=True)
        self._frames.clear()
        # equal keys have equal hashes, and these take a quarter of the memory that the keys take to compare
        if files["key"].hash().n_unique() < len(files):
            files = files.unique("key", keep="first", maintain_order=True)
        return IndexPage(files, tuple(self._folders.values()))

    def _flush(self) -> None:
        """Turn the links so far into rows; most are plain names, which polars finds without a call each."""
        hrefs, texts = pl.Series(self._hrefs, dtype=pl.String()), self._texts
        keys = hrefs.str.extract(_PLAIN_NAME) if self._rule.is_based_here else hrefs.clear(len(hrefs))
        locators = hrefs.clear(len(hrefs))
        if others := keys.is_null().arg_true().to_list():
            read = [self._read_link(self._hrefs[row], texts[row]) for row in others]
            keys = keys.scatter(others, [key for key, _ in read])
            locators = locators.scatter(others, [locator for _, locator in read])
        self._add_rows(keys, locators, pl.Series(texts, dtype=pl.String()))
        self._hrefs, self._texts = [], []

    def _add_rows(self, keys: pl.Series, locators: pl.Series, texts: pl.Series) -> None:
        rows = pl.DataFrame({"key": keys, "locator": locators, "text": texts}).drop_nulls("key")
        if len(rows):
            self._frames.append(_read_texts(rows, self._zone))

    def _read_link(self, href: str, text: str) -> tuple[str | None, str | None]:
        """Return the key and the locator of a file; folders and names that are not UTF-8 are put aside."""
        name = self._rule.read(href)
        if name is None:
            return None, None
        raw = unquote_to_bytes(name.segment)
        try:
            key = raw.decode()
        except UnicodeDecodeError:
            self._undecodable.append((name, text))
            return None, None
        if "/" in key or not is_safe_key(key):
            return None, None
        if name.is_folder:
            self._folders.setdefault(key, Folder(key, f"./{name.segment}/"))
            return None, None
        return key, None if quote_key(key) == name.segment else name.segment

    def _add_undecodable(self) -> None:
        """Give each name that is not UTF-8 a key that no other has; a name that is UTF-8 never loses its key to one."""
        taken = {key for frame in self._frames for key in frame["key"].filter(frame["key"].str.contains("%"))}
        seen: set[tuple[bytes, bool]] = set()
        rows: list[tuple[str, str, str]] = []
        for name, text in self._undecodable:
            raw = unquote_to_bytes(name.segment)
            key = raw.decode(errors=PERCENT)
            if (raw, name.is_folder) in seen or "/" in key or not is_safe_key(key):
                continue
            seen.add((raw, name.is_folder))
            if name.is_folder:
                free = _free_key(key, self._folders)
                self._folders[free] = Folder(free, f"./{name.segment}/")
            else:
                free = _free_key(key, taken)
                taken.add(free)
                rows.append((free, name.segment, text))
        columns = pl.DataFrame(rows, schema=dict.fromkeys(("key", "locator", "text"), pl.String()), orient="row")
        self._add_rows(*columns)


class _Date(NamedTuple):
    """One way servers write a time; group 1 of `pattern` is what `form` reads.

    `form` None: recognised, but what it says depends on the reader's country.
    """

    pattern: str
    form: str | None
    is_utc: bool = False


_DAY = r"\d{4}-\d\d-\d\d"
_TIME = r"\d\d:\d\d:\d\d"
_EXACT = rf"{_TIME}(?:\.\d+)?"
_DATES = (
    _Date(r"(\d\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d)", "%d-%b-%Y %H:%M"),  # nginx, old Apache
    _Date(rf"({_DAY}T{_EXACT})Z", "%Y-%m-%dT%H:%M:%S%.f", is_utc=True),  # Caddy, nginx's XML
    _Date(rf"({_DAY}T{_EXACT}[+-]\d\d:\d\d)", "%Y-%m-%dT%H:%M:%S%.f%z"),
    _Date(rf"({_DAY} {_EXACT} [+-]\d{{4}})(?: [A-Z+-][A-Z0-9]*)?", "%Y-%m-%d %H:%M:%S%.f %z"),  # rclone
    _Date(rf"({_DAY} {_TIME})", "%Y-%m-%d %H:%M:%S"),
    _Date(rf"({_DAY} \d\d:\d\d)", "%Y-%m-%d %H:%M"),  # Apache
    _Date(rf"(\d{{4}}-[A-Z][a-z]{{2}}-\d\d {_TIME})", "%Y-%b-%d %H:%M:%S"),  # lighttpd
    _Date(r"(\d{4}-[A-Z][a-z]{2}-\d\d \d\d:\d\d)", "%Y-%b-%d %H:%M"),  # ngx-fancyindex
    _Date(rf"([A-Z][a-z]{{2}}, \d\d [A-Z][a-z]{{2}} \d{{4}} {_TIME}) GMT", "%a, %d %b %Y %H:%M:%S", is_utc=True),
    _Date(r"(\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d\d [AP]M)", None),  # IIS
)


def _read_texts(rows: pl.DataFrame, zone: ZoneInfo | timezone) -> pl.DataFrame:
    """Return `rows` as a listing: their texts read for a time and an exact size, and kept as validators.

    A number is a size only beside a time and nothing else, or with the unit B: counts and ranks are numbers too.
    """
    modified = pl.repeat(None, len(rows), dtype=LISTING_SCHEMA["modified"], eager=True)
    dated = pl.repeat(value=False, n=len(rows), eager=True)
    rest = rows["text"]
    for date in _DATES:
        found = rest.str.extract(f"(?:^| ){date.pattern}(?: |$)").set(dated, None)
        if found.null_count() == len(found):
            continue
        dated |= found.is_not_null()
        rest = rest.str.replace(f"(?:^| ){date.pattern}(?: |$)", " ").str.strip_chars()
        if date.form is not None:
            modified = modified.fill_null(_read_times(found, date.form, UTC if date.is_utc else zone))
        if dated.all():
            break
    plain = rest.str.extract(r"^(\d{1,18})$").set(~dated, None)
    with_unit = rest.str.extract(r"^(\d{1,18}) (?:B|[Bb]ytes)$")
    return rows.select(
        pl.col("key"),
        plain.fill_null(with_unit).cast(pl.Int64).alias("size"),
        modified.alias("modified"),
        pl.when(pl.col("text").str.contains(r"\d")).then("text").alias("validator"),
        pl.col("locator"),
    )


def _read_times(found: pl.Series, form: str, zone: ZoneInfo | timezone) -> pl.Series:
    """Return the times of `found` in UTC; one that no clock of `zone` shows, or shows twice, is null."""
    times = found.str.to_datetime(form, time_unit="us", strict=False)
    if "%z" not in form:
        if isinstance(zone, timezone):
            times = (times - zone.utcoffset(None)).dt.replace_time_zone("UTC")
        else:
            there = times.dt.replace_time_zone(zone.key, ambiguous="null", non_existent="null")
            times = there.dt.convert_time_zone("UTC")
    is_in_calendar = times.dt.year().is_between(MINYEAR + 1, MAXYEAR - 1)  # a zone may move the others out of Python's
    return times.set(~is_in_calendar.fill_null(value=True), None)


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _decode_path(path: str) -> bytes:
    return re.sub(rb"/{2,}", b"/", unquote_to_bytes(path))


def _free_key(key: str, taken: Container[str]) -> str:
    while key in taken:
        key = quote(key, safe="")
    return key
