"""Tell a directory listing from the other pages a server may answer with 200: logins, apps, welcome pages."""

import mimetypes
import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from blocks._errors import Reason, SourceRefused

_HEADINGS = frozenset({"title", "h1", "h2"})
_PARENTS = frozenset({"..", "../", "./..", "./../"})

# nginx, Apache, lighttpd, ngx-fancyindex; http.server; IIS
_TITLE = re.compile(r"\s*(?:(?:index|listing) of|directory listing (?:for|of)) \S*/|\s*\S+ - /", re.IGNORECASE)
_SORT_LINK = re.compile(r"\?C=[NMSD](?:[;&]O=[AD])?")  # Apache, ngx-fancyindex
_LISTING_SORT_LINK = re.compile(r"\?sort=(?:name|size|time)")  # Caddy, rclone: within <div class="listing">
_PARENT_TEXT = re.compile(r"\W*(?:\.\.|(?:to )?parent\b|(?:go )?up\b)", re.IGNORECASE)
_LOGIN_TITLE = re.compile(r"\b(?:log|sign)[ -]?in\b", re.IGNORECASE)


class Evidence:
    """What an HTML page shows of its kind, collected tag by tag.

    A heading or sort links as servers write them make a listing, whatever else is there. Without them a page that asks
    for something (a password, a form that posts, a login by its title) is none; and else it takes an image among its
    links, or a link to the parent directory that says so.
    """

    def __init__(self) -> None:
        self.is_listening = False
        self._title = ""
        self._is_server_listing = False
        self._has_listing_box = False
        self._has_parent_link = False
        self._asks = False
        self._heading: list[str] | None = None
        self._link: list[str] | None = None

    @property
    def is_server_listing(self) -> bool:
        """Whether the page is a server's own listing, so that its plain numbers are sizes."""
        return self._is_server_listing

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """See an opening tag other than a link."""
        if tag in _HEADINGS:
            self._heading = []
            self.is_listening = True
        elif tag == "div" and "listing" in attributes.get("class", "").split():
            self._has_listing_box = True
        elif tag == "input":
            self._asks |= attributes.get("type", "").lower() == "password"
        elif tag == "form":
            self._asks |= attributes.get("method", "").lower() == "post"

    def see_link(self, href: str) -> None:
        """See a link that opens; needed only where it begins with a dot or a question mark."""
        if href.startswith("."):
            if href in _PARENTS:
                self._link = []
                self.is_listening = True
        elif href.startswith("?"):
            box = self._has_listing_box and _LISTING_SORT_LINK.match(href)
            self._is_server_listing |= bool(box or _SORT_LINK.fullmatch(href))

    def data(self, text: str) -> None:
        """See text; needed only while `is_listening`."""
        for words in (self._heading, self._link):
            if words is not None:
                words.append(text)

    def end(self, tag: str) -> None:
        """See a closing tag; needed only while `is_listening`."""
        if tag == "a" and self._link is not None:
            self._has_parent_link |= _PARENT_TEXT.match("".join(self._link)) is not None
            self._link = None
        elif tag in _HEADINGS and self._heading is not None:
            heading = " ".join("".join(self._heading).split())
            self._is_server_listing |= _TITLE.match(heading) is not None
            self._asks |= _LOGIN_TITLE.search(heading) is not None
            self._title = self._title or heading
            self._heading = None
        self.is_listening = self._heading is not None or self._link is not None

    def refuse_other_pages(self, url: str, names: Iterable[str]) -> None:
        """Pass a listing of `names`.

        Raises:
            SourceRefused: the page is something else; the message says what it looks like.
        """
        if self._is_server_listing:
            return
        if self._asks:
            raise refusal(url, f"a page that asks for a login{self._called()}; set the user name and the password")
        if self._has_parent_link or any(_is_image(name) for name in names):
            return
        raise refusal(
            url, f"a web page{self._called()} without a link to any image; turn the server's listing on (autoindex)"
        )

    def _called(self) -> str:
        return f" titled {self._title[:80]!r}" if self._title else ""


def refusal(url: str, what: str, reason: Reason = Reason.HTML_PAGE) -> SourceRefused:
    """Return the error that says that `url` answered with `what`; neither user name nor query of `url` are shown."""
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return SourceRefused(f"{shown} is no directory listing but {what}, or name another address.", reason=reason)


def _is_image(name: str) -> bool:
    kind, _ = mimetypes.guess_type(name, strict=False)
    return kind is not None and kind.startswith("image/")
