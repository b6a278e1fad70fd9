"""Ask a web server whether a picture of a computed name is there, without fetching it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import httpx

from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._http import ask
from blocks._http_download import is_html
from blocks._http_errors import parse_http_date, show_url
from blocks._pace import Pace
from blocks._patience import Patience

_SNIFFED_BYTES = 512
_GONE = (404, 410)
_NO_HEAD = (400, 405, 501)
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Sight:
    """A picture that is there: its `size` in bytes and when the server says it was `modified` (UTC), where it does."""

    size: int | None
    modified: datetime | None


@dataclass(frozen=True, slots=True)
class Manners:
    """How a server answers for what it does not have: which `method` tells the truth, which statuses mean `absent`.

    `is_page_absence`: a page in a picture's place means that there is none; of other servers it means that they can not
    answer now.
    """

    method: str = "HEAD"
    absent: frozenset[int] = frozenset(_GONE)
    is_page_absence: bool = False

    @property
    def is_denial_absence(self) -> bool:
        """Tell whether 403 has to be taken for an absence, as of a bucket that may not be listed."""
        return 403 in self.absent


def learn_manners(client: httpx.Client, impossible_url: str, *, pace: Pace, patience: Patience) -> Manners:
    """Return how the server answers for a name that can not exist, so that other answers can be told from it.

    One request, or two. S3 says 403 for what is not there to those who may not list (its documentation of GetObject,
    "Permissions"); some sites answer every name with a page, or send elsewhere.

    Raises:
        SourceUnavailable: no usable answer came.
        SourceRefused: the server answers such a name with a picture, so nothing can be concluded from any answer.
    """
    known = (200, 206, *_GONE, 403, *_NO_HEAD, *_REDIRECTS)
    for method in ("HEAD", "GET"):
        status, is_picture = patience.until_it_heals(lambda m=method: _try(client, impossible_url, m, known, pace))  # type: ignore[misc]
        if status not in _NO_HEAD and not is_picture:
            return Manners(method, frozenset(_GONE) | ({status} - {200, 206}), is_page_absence=status in {200, 206})
    raise SourceRefused(
        f"{show_url(impossible_url)} can not exist, and is answered like a picture (HTTP {status}): its server can not "
        "be probed, so take these pictures by --method browser."
    )


def look_for(client: httpx.Client, url: str, *, manners: Manners, pace: Pace, patience: Patience) -> Sight | None:
    """Return what the server says of the picture at `url`, or None where there is none.

    Raises:
        SourceUnavailable: no usable answer came.
        SourceRefused: the server denied it.
    """
    return patience.until_it_heals(lambda: _look(client, url, manners, pace))


def _look(client: httpx.Client, url: str, manners: Manners, pace: Pace) -> Sight | None:
    with _asked(client, url, manners.method, (200, 206, *manners.absent), pace) as response:
        if response.status_code in manners.absent:
            return None
        if not _is_picture(response):
            if manners.is_page_absence:
                return None
            place = show_url(url)
            raise SourceUnavailable(
                f"{place} is answered with a page: its server is busy with itself, it is tried again.",
                reason=Reason.HTML_PAGE,
            )
        return Sight(_size_of(response), parse_http_date(response.headers.get("last-modified")))


def _try(client: httpx.Client, url: str, method: str, known: tuple[int, ...], pace: Pace) -> tuple[int, bool]:
    with _asked(client, url, method, known, pace) as response:
        return response.status_code, response.status_code in {200, 206} and _is_picture(response)


@contextmanager
def _asked(
    client: httpx.Client, url: str, method: str, expected: tuple[int, ...], pace: Pace
) -> Iterator[httpx.Response]:
    headers = {} if method == "HEAD" else {"Range": f"bytes=0-{_SNIFFED_BYTES - 1}"}
    with ask(client, url, pace=pace, headers=headers, method=method, expected=expected) as response:
        if method == "HEAD":
            response.read()  # nothing; but a connection is used again only after its answer was read to the end
        yield response


def _is_picture(response: httpx.Response) -> bool:
    """Tell whether an answer may be a picture: not called a page, and, where its beginning came along, not one."""
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.request.method == "HEAD":
        return not media_type.startswith("text/") and "html" not in media_type and "json" not in media_type
    start = b""
    for chunk in response.iter_raw():
        start += chunk
        if len(start) > _SNIFFED_BYTES:  # it was asked for so many, and may send all the same
            break
    return bool(start) and not is_html(start, media_type) and not start.lstrip().startswith((b"{", b"<"))


def _size_of(response: httpx.Response) -> int | None:
    headers = response.headers
    if "content-encoding" in headers or "transfer-encoding" in headers:
        return None
    size = headers.get("content-range", "").rpartition("/")[2] if response.status_code == 206 else None
    size = size or headers.get("content-length", "")
    return int(size) if size.isascii() and size.isdigit() and size != "0" else None


def refuse_all(url: str) -> SourceRefused:
    """Return the error of a server that denies everything it is asked for."""
    return SourceRefused(
        f"{httpx.URL(url).host} denies every picture asked for (HTTP 403): it may block this machine; wait, lower "
        "requests_per_second of the Block, or ask the terminal for access.",
        reason=Reason.FORBIDDEN,
    )
