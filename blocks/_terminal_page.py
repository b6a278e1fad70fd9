"""Read a terminal's history page in a real browser: which pictures does it show for one stream and day?

The page is a Vue application, so nothing is known but what it shows. A day's answer counts only once the page has
reacted to the choice of that day and its History section has come to rest; a day without pictures is told by that,
never by waiting for pictures that do not come.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Self, TypedDict
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from blocks._browser import Chromium, close_page, is_browser_failure, open_browser
from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._page_requests import PageRequests
from blocks._terminal_addresses import THUMBNAIL_SUFFIX, page_url, parse_picture_address
from blocks._terminal_picker import INPUT, DayPicker

if TYPE_CHECKING:
    from playwright.async_api import Page, Response, Route

_PICTURES = re.compile(r"\.(?:jpe?g|png|webp|avif|gif)(?:\?|$)", re.IGNORECASE)
_DOT = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")

_NO_ANIMATION = "*, *::before, *::after { transition: none !important; animation: none !important; }"
_VIEWPORT = {"width": 1280, "height": 4000}
"""Tall, so that many of the pictures that load when they come into view are in view at once."""

# The live pictures at the top are of the same kind: what counts lies in the History section, or behind its heading.
# An el-image loads when it comes into view, and shows its old picture until then.
_HISTORY = """
const findHistory = fragment => (fragment && document.getElementById(fragment))
    || Array.from(document.querySelectorAll("h1, h2, h3, h4, h5, h6, legend, .el-card__header, .el-divider__text"))
        .find(heading => /history/i.test(heading.textContent)) || null;
const readHistory = fragment => {
    const mark = findHistory(fragment);
    if (!mark) return { pictures: [], waiting: [], isBusy: true };
    const within = Array.from(mark.querySelectorAll(".el-image"));
    const images = within.length ? within : Array.from(document.querySelectorAll(".el-image"))
        .filter(image => mark.compareDocumentPosition(image) & Node.DOCUMENT_POSITION_FOLLOWING);
    const shown = image => image.querySelector("img.el-image__inner");
    const isWaiting = image => !image.querySelector(".el-image__error")
        && (!shown(image) || image.querySelector("img.is-loading, .el-image__placeholder"));
    const veils = Array.from(mark.querySelectorAll(".el-loading-mask, [aria-busy='true']"));
    return {
        pictures: images.map(shown).filter(Boolean).map(picture => picture.src),
        waiting: images.filter(isWaiting),
        isBusy: veils.some(veil => veil.offsetParent !== null),
    };
};
const tick = () => new Promise(resolve => setTimeout(resolve, 40));
"""
_STILL_TICKS = 8
# Element Plus 2.14 takes the oldest of several changes of visibility that come at once, and then leaves a picture out
# though it is in view: those that do not come are hidden for a moment and so come into view anew.
_AWAIT_STILL_HISTORY = f"""async ([fragment, ticks]) => {{
    {_HISTORY}
    let before = null;
    for (let still = 0, stuck = 0, hidden = []; still < ticks;) {{
        await tick();
        const history = readHistory(fragment);
        const now = history.pictures.length + " " + history.waiting.length + "\\n" + history.pictures.join("\\n");
        still = now === before && !history.waiting.length && !history.isBusy ? still + 1 : 0;
        stuck = now === before && history.waiting.length ? stuck + 1 : 0;
        before = now;
        if (history.waiting.length) history.waiting[0].scrollIntoView({{ block: "start", behavior: "instant" }});
        if (stuck % 25 === 15) hidden = history.waiting;
        hidden.forEach(image => image.style.display = stuck % 25 >= 15 ? "none" : "");
        if (stuck % 25 < 15) hidden = [];
    }}
    return readHistory(fragment).pictures;
}}"""
_LOOK_TICKS = 50
_LOOK = f"""async ([fragment, input, ticks]) => {{
    {_HISTORY}
    let look;
    for (let still = 0, before = null; still < ticks;) {{
        const hasPicker = !!document.querySelector(input), hasHistory = !!findHistory(fragment);
        look = {{ hasPicker, hasHistory, title: document.title, isComplete: document.readyState === "complete" }};
        if (hasPicker && hasHistory) break;
        await tick();
        const now = document.getElementsByTagName("*").length;
        still = now === before ? still + 1 : 0;
        before = now;
    }}
    return look;
}}"""


class _Look(TypedDict):
    hasPicker: bool
    hasHistory: bool
    title: str
    isComplete: bool


@dataclass(frozen=True, slots=True)
class PageSettings:
    """Where the page is and how long to wait for it.

    `page_url_template` has the field `{stream}`, and its fragment is the id of the History section; without one the
    section is found by its heading. `timeout_seconds` bounds each step: the page loading, a day being shown.
    `browser_path`: the Chromium to use; None for the one on PATH. `zone`: the terminal's, and so the browser's.
    """

    page_url_template: str
    timeout_seconds: float
    browser_path: str | None
    zone: ZoneInfo
    thumbnail_suffix: str = THUMBNAIL_SUFFIX


@contextmanager
def open_history(settings: PageSettings) -> Iterator["HistoryPage"]:
    """Run one browser for the length of the `with`, for any number of streams and days.

    Raises:
        WrongUse: Playwright or Chromium is missing, or can not be started here.
        SourceUnavailable: the browser did not start in time.
    """
    with open_browser(settings.browser_path) as browser, HistoryPage(settings, browser) as page:
        yield page


class HistoryPage:
    """The history page, a tab a stream; any thread may ask, and several at once.

    Streams are read side by side, days of one stream one after the other. After any failure the next call begins with
    a fresh tab, and where the browser has died with a fresh browser.
    """

    def __init__(self, settings: PageSettings, browser: Chromium) -> None:
        self._settings = settings
        self._browser = browser
        self._tabs: dict[str, _Tab] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.run(self._close())

    def pictures_on(self, stream: str, day: date) -> list[str]:
        """Return the addresses of the History section's pictures of `stream` whose own time lies on `day`.

        They stand in the page's order, each once, full pictures or thumbnails as the page has them. Empty: the page
        showed the day, and shows no picture of it.

        Raises:
            SourceUnavailable: the page did not load or react in time, had an error of its own, or the browser died.
            SourceRefused: the page is not the expected one, or does not offer the day.
        """
        return self._browser.run(self._read(stream, day))

    async def _close(self) -> None:
        await asyncio.gather(*(tab.close() for tab in self._tabs.values()))

    async def _read(self, stream: str, day: date) -> list[str]:
        tab = self._tabs.setdefault(stream, _Tab(self._settings, self._browser, stream))
        async with tab.lock:
            return await tab.read(day)


class _Tab:
    """One stream's page; it remembers what it was made to show, and is thrown away after any failure."""

    def __init__(self, settings: PageSettings, browser: Chromium, stream: str) -> None:
        self.lock = asyncio.Lock()
        self._settings = settings
        self._browser = browser
        self._stream = stream
        self._url = page_url(settings.page_url_template, stream)
        self._fragment = unquote(urlsplit(self._url).fragment)
        self._page: Page | None = None
        self._before: list[str] = []
        self._has_shown = False

    async def read(self, day: date) -> list[str]:
        is_read = False
        try:
            if self._page is None:
                await self._open()
            shown = await self._show(day)
            pictures = self._choose(shown, day)
            is_read = True
        finally:
            if not is_read:
                await self.close()
        return pictures

    async def close(self) -> None:
        page, self._page = self._page, None
        await close_page(page)

    async def _open(self) -> None:
        async with self._step("did not load"):
            self._page = page = await self._browser.new_page(
                locale="en-US",
                timezone_id=str(self._settings.zone),
                viewport=_VIEWPORT,
                # A service worker's requests can neither be seen nor answered.
                service_workers="block",
                bypass_csp=True,
            )
            self._requests = PageRequests(page, self._settings.zone)
            page.set_default_timeout(0)
            # Names are wanted, not pictures: the terminal is spared their bytes, and a broken one keeps its name.
            await page.route(_PICTURES, _answer_with_a_dot)
            self._has_shown = False
            response = await page.goto(self._url, wait_until="commit")
            await self._await_expected_page(page, response)
            await page.add_style_tag(content=_NO_ANIMATION)
            self._picker = DayPicker(page)
            # Nothing that the page began by itself is to be taken for its answer to a choice.
            while not self._requests.is_idle:
                await self._await_still_history(page)
            self._before = await self._await_still_history(page)

    async def _await_expected_page(self, page: "Page", response: "Response | None") -> None:
        from playwright.async_api import Error

        while True:
            begun = self._requests.count
            try:
                look: _Look = await page.evaluate(_LOOK, [self._fragment, INPUT, _LOOK_TICKS])
            except Error as error:
                if "context was destroyed" not in str(error):
                    raise
                continue
            if look["hasPicker"] and look["hasHistory"]:
                return
            if look["isComplete"] and self._requests.is_idle and self._requests.count == begun:
                break
        status = response.status if response else 200
        if status >= 500 or status == 429:
            raise SourceUnavailable(
                f"The history page {self._url} answered with status {status}; run again later.",
                reason=Reason.RATE_LIMITED if status == 429 else Reason.SERVER_ERROR,
            )
        missing = [] if look["hasPicker"] else ['date picker ("Pick a day")']
        missing += [] if look["hasHistory"] else ["History section"]
        raise SourceRefused(
            f"The page {self._url} (status {status}, title “{look['title'][:80]}”) has no {' and no '.join(missing)}: "
            "it is no history page of a terminal; check page_url_template and the stream.",
            reason={401: Reason.UNAUTHORIZED, 403: Reason.FORBIDDEN, 404: Reason.NOT_FOUND}.get(status, Reason.REFUSED),
        )

    async def _show(self, day: date) -> list[str]:
        """Choose `day` and return the pictures of the History section once it has come to rest on it."""
        page = self._page
        assert page is not None  # noqa: S101 - for mypy
        async with self._step(f"did not show {day}"):
            begun = self._requests.count
            is_new = await self._picker.pick(day)
            # A fresh page may have asked for this very day before it was chosen.
            since = begun if self._has_shown else 0
            while True:
                answer = self._requests.find_answer(day, since=since, others_since=begun)
                shown = await self._await_still_history(page)
                if answer != self._requests.find_answer(day, since=since, others_since=begun):
                    continue
                if answer.is_complete or not is_new or (not answer.is_expected and shown != self._before):
                    break
        is_empty = not any(self._is_of(picture, day) for picture in shown)
        if failure := answer.find_failure(is_empty=is_empty):
            raise failure
        self._before = shown
        self._has_shown = True
        return shown

    async def _await_still_history(self, page: "Page") -> list[str]:
        pictures: list[str] = await page.evaluate(_AWAIT_STILL_HISTORY, [self._fragment, _STILL_TICKS])
        return pictures

    def _choose(self, shown: list[str], day: date) -> list[str]:
        """Keep the pictures of this stream and `day`, each once; refuse a page that shows something else."""
        parsed = [parse_picture_address(picture, self._settings.thumbnail_suffix) for picture in shown]
        if shown and not any(parsed):
            raise SourceRefused(
                f"The pictures of {self._url} are not named by stream and time, as {shown[0]}; the site has changed."
            )
        streams = {address.stream for address in parsed if address and address.local.date() == day}
        if streams and self._stream not in streams:
            raise SourceRefused(
                f"The page {self._url} shows pictures of {', '.join(sorted(streams))} in place of {self._stream}: "
                "check page_url_template and the stream."
            )
        return list(dict.fromkeys(picture for picture in shown if self._is_of(picture, day)))

    def _is_of(self, picture: str, day: date) -> bool:
        address = parse_picture_address(picture, self._settings.thumbnail_suffix)
        return address is not None and address.local.date() == day and address.stream == self._stream

    @asynccontextmanager
    async def _step(self, failing: str) -> AsyncIterator[None]:
        """Bound a step in time, and say in one place what became of the page when it fails."""
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                yield
        except TimeoutError as error:
            raise SourceUnavailable(
                f"The history page {self._url} {failing} within {self._settings.timeout_seconds:g} s"
                f"{self._complaint()}; run again, or raise timeout_seconds.",
                reason=Reason.TIMEOUT,
            ) from error
        except Exception as error:
            if not is_browser_failure(error):
                raise
            said = str(error).partition("\n")[0][:200]
            if re.search("has been closed|crashed|Connection closed", said):
                said = "the browser died"
            raise SourceUnavailable(f"The history page {self._url} {failing} ({said}); run again.") from error

    def _complaint(self) -> str:
        complaint = self._requests.complaint if self._page is not None else None
        return f" (the page: {complaint})" if complaint else ""


async def _answer_with_a_dot(route: "Route") -> None:
    from playwright.async_api import Error

    with suppress(Error):  # the page is closing
        if route.request.resource_type == "image":
            await route.fulfill(body=_DOT, content_type="image/gif", headers={"access-control-allow-origin": "*"})
        else:
            await route.continue_()
