"""One headless Chromium of this machine, in a thread of its own, called from any thread.

Playwright belongs to the thread that started it (https://playwright.dev/python/docs/library#threading), and flows call
from many: so it lives on an event loop in a thread of its own, and callers hand their work over. It never downloads a
browser and never opens a profile of a user's.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from blocks._errors import SourceUnavailable, WrongUse

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Playwright

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")

BROWSER_NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
START_SECONDS = 60.0
CLOSE_SECONDS = 10.0
_NO_BROWSER = (
    "Install Chromium (on Debian `apt-get install chromium`), "
    "or name a Chromium or Chrome of this machine in browser_path."
)


def find_browser(browser_path: str | None) -> str:
    """Return the path of the Chromium to use: `browser_path`, else the first known name on PATH.

    Raises:
        WrongUse: there is none.
    """
    if browser_path:
        found = shutil.which(os.path.expanduser(browser_path))  # noqa: PTH111 - a bare name stays one
        if found is None:
            raise WrongUse(f"browser_path names no program that can be started: {browser_path}. {_NO_BROWSER}")
        return found
    for name in BROWSER_NAMES:
        if found := shutil.which(name):
            return found
    raise WrongUse(f"No Chromium was found on this machine. {_NO_BROWSER}")


class Chromium:
    """A running browser; `run` may be called from any thread, everything else only inside what `run` runs."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._loop = asyncio.new_event_loop()
        # Every failure reaches the caller of `run`; what is left over when a browser dies concerns nobody.
        self._loop.set_exception_handler(lambda _, context: _LOG.debug("Left over: %s", context.get("exception")))
        self._thread = Thread(target=self._loop.run_forever, name="browser", daemon=True)
        self._starting = asyncio.Lock()
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run `work` in the browser's thread and return what it returns."""
        future: Future[_Result] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    async def new_page(self, **options: Any) -> "Page":
        """Open a page in a session of its own, empty at first; where the browser has died, start it anew before.

        Raises:
            SourceUnavailable: the browser does not start now.
        """
        async with self._starting:
            if self._browser is not None and self._browser.is_connected():
                # Where Playwright's own process has died, the browser counts as connected for ever.
                with suppress(Exception):
                    return await self._browser.new_page(**options)
            return await (await self._start()).new_page(**options)

    def open(self) -> None:
        """Start the thread and the browser in it.

        Raises:
            WrongUse: this browser can not be started here.
            SourceUnavailable: it did not start in time.
        """
        self._thread.start()
        try:
            self.run(self._start_first())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the browser and its thread, whatever state they are in."""
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start_first(self) -> None:
        try:
            await self._start()
        except SourceUnavailable as error:
            if isinstance(error.__cause__, TimeoutError):
                raise
            raise WrongUse(str(error)) from error

    async def _start(self) -> "Browser":
        from playwright.async_api import Error, async_playwright

        await self._stop()
        try:
            async with asyncio.timeout(START_SECONDS):
                self._playwright = await async_playwright().start()
                self._browser = browser = await self._playwright.chromium.launch(
                    executable_path=self._program,
                    chromium_sandbox=not _is_root(),
                    timeout=0,
                    # A Ctrl-C is the run's to handle: it closes the browser when it has put its own things in order.
                    handle_sigint=False,
                    handle_sigterm=False,
                    handle_sighup=False,
                )
                return browser
        except TimeoutError as error:
            raise SourceUnavailable(
                f"The browser {self._program} did not start within {START_SECONDS:g} s; run again."
            ) from error
        except (Error, OSError) as error:
            raise SourceUnavailable(
                f"The browser {self._program} does not start ({_last_words(str(error))}). {_NO_BROWSER}"
            ) from error

    async def _stop(self) -> None:
        browser, self._browser = self._browser, None
        playwright, self._playwright = self._playwright, None
        # What has crashed can not be closed any more.
        if browser is not None:
            with suppress(Exception):
                await asyncio.wait_for(browser.close(), CLOSE_SECONDS)
        if playwright is not None:
            with suppress(Exception):
                await asyncio.wait_for(playwright.stop(), CLOSE_SECONDS)


@contextmanager
def open_browser(browser_path: str | None) -> Iterator[Chromium]:
    """Run a browser for the length of the `with`.

    Raises:
        WrongUse: Playwright or a browser is missing, or the browser can not be started here.
        SourceUnavailable: it did not start in time.
    """
    try:
        import playwright.async_api  # noqa: F401 - whether it is there
    except ImportError as error:
        raise WrongUse("Browser mode needs a further package: pip install 'catchment[browser]'.") from error
    chromium = Chromium(find_browser(browser_path))
    chromium.open()
    try:
        yield chromium
    finally:
        chromium.close()


def is_browser_failure(error: Exception) -> bool:
    """Tell whether `error` comes from the browser or its driver."""
    from playwright.async_api import Error

    # A call under way when the driver dies may end in a plain Exception, raised by Playwright's transport.
    return isinstance(error, Error | OSError) or type(error) is Exception


async def close_page(page: "Page | None") -> None:
    """Close `page` and its session, whatever state they are in."""
    if page is not None:
        with suppress(Exception):
            await asyncio.wait_for(page.context.close(), CLOSE_SECONDS)


def _is_root() -> bool:
    # Chromium's sandbox does not work for root (https://crbug.com/638180); for everybody else it stays on.
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _last_words(message: str) -> str:
    """Return the line of Playwright's launch error that says most: the browser's own complaint, else the first line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    said = [line.partition("[err]")[2].strip() for line in lines if "[err]" in line]
    complaints = [line for line in said if "sandbox" in line.lower() or "error while loading" in line]
    return (complaints or said[-1:] or lines[:1] or ["no reason given"])[0].rstrip(".")[:300]
