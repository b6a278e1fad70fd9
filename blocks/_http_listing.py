"""Walk the index pages of an HTTP directory, folder by folder, into one listing."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urljoin

import polars as pl

from blocks._errors import Reason, SourceRefused
from blocks._index import IndexPage, quote_key
from blocks._records import LISTING_SCHEMA, Listing

MAX_FOLDERS = 10_000


@dataclass(frozen=True, slots=True)
class Directory:
    """What was found below `root`, the directory of the first page's final address, which ends with a slash.

    Keys are paths below `root`; so are locators, where the path as the server writes it is not `quote_key(key)`.
    """

    root: str
    files: Listing


@dataclass(frozen=True, slots=True)
class _Visit:
    url: str
    prefix: str
    depth: int


def walk_directory(
    url: str,
    read_page: Callable[[str], tuple[str, IndexPage]],
    *,
    depth: int,
    is_wanted: Callable[[str], bool],
    is_left_out: Callable[[str], bool],
) -> Directory:
    """Read the page at `url` and those of its folders down to `depth` below it, level by level, one read a page.

    `read_page` returns a page's final address and what it lists. Files are kept where `is_wanted(key)`, folders are
    entered unless `is_left_out(prefix)`, whose argument ends with a slash. A folder is read once, under its own name.

    Raises:
        SourceUnavailable, SourceRefused: a page could not be read, so the listing would be a part only; or there are
            more than 10,000 folders.
    """
    root = ""
    seen: set[bytes] = set()
    aliases: dict[bytes, str] = {}
    frames = [pl.DataFrame(schema=LISTING_SCHEMA)]
    waiting = deque([_Visit(url, "", 0)])
    while waiting:
        visit = waiting.popleft()
        with _naming(visit.prefix):
            final_url, page = read_page(visit.url)
        folder_url = urljoin(final_url, ".")
        root = root or folder_url
        if visit.prefix and _place(folder_url) != _place(visit.url):
            aliases[_place(folder_url)] = visit.prefix
            continue
        seen.add(_place(folder_url))
        path = visit.url.removeprefix(root) if visit.prefix else ""
        frames.append(_below(page.files, visit.prefix, path, is_wanted))
        if visit.depth == depth:
            continue
        for folder in page.folders:
            prefix, below = f"{visit.prefix}{folder.name}/", urljoin(final_url, folder.href)
            if below.startswith(root) and _place(below) not in seen and not is_left_out(prefix):
                waiting.append(_Visit(below, prefix, visit.depth + 1))
        if len(seen) + len(waiting) > MAX_FOLDERS:
            raise SourceRefused(f"{root} has more than {MAX_FOLDERS:,} folders: lower recurse_depth or exclude some.")
    for place, prefix in aliases.items():
        if place not in seen:
            with _naming(prefix):
                raise SourceRefused(
                    f"The folder {prefix} redirects to a place that is not listed.", reason=Reason.REDIRECTED_AWAY
                )
    files = pl.concat(frames, rechunk=True).unique("key", keep="first", maintain_order=True)
    return Directory(root, files)


def _below(files: Listing, prefix: str, path: str, is_wanted: Callable[[str], bool]) -> Listing:
    """Return the wanted `files` of one page as rows of the whole; `path`: the page's, as the server writes it."""
    names = files["key"]
    wanted = files.filter(pl.Series([is_wanted(prefix + name) for name in names], dtype=pl.Boolean))
    if not prefix:
        return wanted
    if path == quote_key(prefix):
        return wanted.with_columns(key=pl.lit(prefix) + pl.col("key"), locator=pl.lit(path) + pl.col("locator"))
    locators = [path + (locator or quote_key(name)) for name, locator in wanted.select("key", "locator").iter_rows()]
    return wanted.with_columns(key=pl.lit(prefix) + pl.col("key"), locator=pl.Series(locators, dtype=pl.String))


def _place(url: str) -> bytes:
    return unquote_to_bytes(urljoin(url, "."))


@contextmanager
def _naming(prefix: str) -> Iterator[None]:
    """Tell how to do without the folder `prefix` when it is what refuses."""
    try:
        yield
    except SourceRefused as refusal:
        if not prefix:
            raise
        message = f"{refusal} To take the rest without this folder, add {prefix}* to exclude."
        raise SourceRefused(message, reason=refusal.reason) from refusal
