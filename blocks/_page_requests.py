"""What a page in a browser asks its servers for, and whether that answers for a day.

Pages ask by fetch or XMLHttpRequest. Requests that name the day speak for it; where none does, those to the page's own
site that came after the choice and were never made before.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus, urlsplit
from zoneinfo import ZoneInfo

from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable

if TYPE_CHECKING:
    from playwright.async_api import Error, Page, Request, Response

_FORMS = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%m/%d/%Y", "%m-%d-%Y")
_CACHE_BUSTER = re.compile(r"\d{10,}")


@dataclass(slots=True)
class _Exchange:
    """One request; `status` stays None until it is answered, `is_over` tells that nothing more comes of it."""

    text: str
    is_own: bool
    status: int | None = None
    failure: str | None = None
    is_over: bool = False

    @property
    def is_withdrawn(self) -> bool:
        return self.failure is not None and "ERR_ABORTED" in self.failure


@dataclass(frozen=True, slots=True)
class Answer:
    """How far the requests that speak for a day have come; equal answers mean that nothing happened between."""

    begun: int = 0
    over: int = 0
    is_named: bool = False
    failed: tuple[str, int | None, str | None] | None = None

    @property
    def is_expected(self) -> bool:
        """Whether the page has asked for the day at all."""
        return self.begun > 0

    @property
    def is_complete(self) -> bool:
        """Whether it asked, and has every answer."""
        return self.begun > 0 and self.over == self.begun

    def find_failure(self, *, is_empty: bool) -> CatchmentError | None:
        """Return what keeps the page's own answer from being believed; other requests matter only if it `is_empty`."""
        if self.failed is None or not (self.is_named or is_empty):
            return None
        text, status, failure = self.failed
        if status in (401, 403):
            return SourceRefused(
                f"The history page was denied its own request ({text}: status {status}); look at it in a browser.",
                reason=Reason.UNAUTHORIZED if status == 401 else Reason.FORBIDDEN,
            )
        return SourceUnavailable(
            f"The history page's own request failed ({text}: {f'status {status}' if status else failure}); run again.",
            reason=Reason.SERVER_ERROR if status else Reason.CONNECTION,
        )


class PageRequests:
    """The requests of one page since it was made, in order."""

    def __init__(self, page: "Page", zone: ZoneInfo) -> None:
        self._page = page
        self._zone = zone
        self._exchanges: list[_Exchange] = []
        self._open: dict[Request, _Exchange] = {}
        self._page_error: str | None = None
        listeners: dict[Any, Any] = {
            "request": self._begin,
            "response": self._take_status,
            "requestfinished": self._end,
            "requestfailed": self._fail,
            "pageerror": self._take_error,
        }
        for event, listener in listeners.items():
            page.on(event, listener)

    @property
    def count(self) -> int:
        """How many requests were begun."""
        return len(self._exchanges)

    @property
    def is_idle(self) -> bool:
        """Whether the page waits for none of its own site's answers."""
        return not any(exchange.is_own for exchange in self._open.values())

    @property
    def complaint(self) -> str | None:
        """What keeps the page, in its own words or by what it still waits for; None where nothing is known."""
        waiting = next((exchange.text[:200] for exchange in self._open.values() if exchange.is_own), None)
        return self._page_error or (waiting and f"still waiting for {waiting}")

    def find_answer(self, day: date, *, since: int, others_since: int) -> Answer:
        """Return the answer for `day`: of the requests from number `since` on that name it, else of other new ones."""
        names_day = _compile_names(day, self._zone)
        chosen = [exchange for exchange in self._exchanges[since:] if names_day.search(exchange.text)]
        is_named = any(not exchange.is_withdrawn for exchange in chosen)
        if not is_named:
            made_before = {_CACHE_BUSTER.sub("", exchange.text) for exchange in self._exchanges[:others_since]}
            others = (exchange for exchange in self._exchanges[others_since:] if exchange.is_own)
            chosen = [exchange for exchange in others if _CACHE_BUSTER.sub("", exchange.text) not in made_before]
        chosen = [exchange for exchange in chosen if not exchange.is_withdrawn]
        # What the page asked again counts as it ended at last.
        last = {exchange.text: exchange for exchange in chosen}.values()
        bad = [e for e in last if e.failure or (e.status or 0) >= 500 or e.status in (401, 403, 408, 429)]
        failed = (bad[0].text[:200], bad[0].status, bad[0].failure) if bad else None
        return Answer(len(chosen), sum(exchange.is_over for exchange in chosen), is_named, failed)

    def _begin(self, request: "Request") -> None:
        if request.resource_type not in ("fetch", "xhr"):
            return
        body = (request.post_data_buffer or b"").decode("utf-8", "replace")
        text = f"{request.method} {unquote_plus(request.url)} {body}".strip()
        exchange = _Exchange(text, is_own=_site(request.url) == _site(self._page.url))
        self._exchanges.append(exchange)
        self._open[request] = exchange

    def _take_status(self, response: "Response") -> None:
        if exchange := self._open.get(response.request):
            exchange.status = response.status

    def _end(self, request: "Request") -> None:
        if exchange := self._open.pop(request, None):
            exchange.is_over = True

    def _fail(self, request: "Request") -> None:
        if exchange := self._open.pop(request, None):
            exchange.is_over, exchange.failure = True, request.failure or "failed"

    def _take_error(self, error: "Error") -> None:
        self._page_error = str(error).partition("\n")[0][:200]


def _compile_names(day: date, zone: ZoneInfo) -> re.Pattern[str]:
    """Return a pattern of the ways in which an address or a body may name `day`."""
    midnight = int(datetime.combine(day, time(), zone).astimezone(UTC).timestamp())
    names = [re.escape(day.strftime(form)) for form in _FORMS]
    names += [f"{day.year}-{day.month}-{day.day}", f"{midnight}(?:000)?"]
    return re.compile(rf"(?<!\d)(?:(?:{'|'.join(names)})(?!\d)|{day:%Y%m%d})")


def _site(url: str) -> str:
    """Return the part of the host that an owner holds; a whole address of numbers."""
    host = urlsplit(url).hostname or ""
    return host if host.replace(".", "").isdigit() or ":" in host else ".".join(host.split(".")[-2:])
