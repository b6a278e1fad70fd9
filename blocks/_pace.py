"""How fast a run may ask and take: one pace, shared by all threads that talk to a source."""

import threading
import time
from collections.abc import Callable

_CATCH_UP_SECONDS = 0.1


class _Meter:
    """A queue in front of one rate: each amount waits until the amounts before it have had their time.

    A caller that comes late may make up at most `_CATCH_UP_SECONDS`, so that sleeping a little too long does not lower
    the rate and an idle minute does not turn into a burst.
    """

    def __init__(self, per_second: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._per_second = per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def wait_before(self, amount: float) -> None:
        """Sleep until everything already taken is paid for, then take `amount`."""
        self._wait(amount, pay_first=False)

    def wait_after(self, amount: float) -> None:
        """Take `amount`, which is here already, and sleep until it is paid for."""
        self._wait(amount, pay_first=True)

    def _wait(self, amount: float, *, pay_first: bool) -> None:
        with self._lock:
            now = self._clock()
            start = max(self._free_at, now - _CATCH_UP_SECONDS)
            self._free_at = start + amount / self._per_second
            delay = (self._free_at if pay_first else start) - now
        if delay > 0:
            self._sleep(delay)


class Pace:
    """Hold all threads of a run to `requests_per_second` and `bytes_per_second`; None is as fast as it goes.

    `clock` is monotonic, in seconds. Bytes are counted when they have come: a thread that took much sleeps before it
    reads on, and TCP slows the server down.
    """

    def __init__(
        self,
        *,
        requests_per_second: float | None = None,
        bytes_per_second: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._requests = _Meter(requests_per_second, clock, sleep) if requests_per_second else None
        self._bytes = _Meter(bytes_per_second, clock, sleep) if bytes_per_second else None

    def before_request(self) -> None:
        """Sleep until the next request may go out."""
        if self._requests is not None:
            self._requests.wait_before(1)

    def after_bytes(self, count: int) -> None:
        """Sleep as long as the `count` bytes that came were meant to take."""
        if self._bytes is not None:
            self._bytes.wait_after(count)
