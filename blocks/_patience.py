"""Try again what heals: a few attempts, growing jittered delays, and a server's own wish first."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from blocks._errors import Reason, SourceUnavailable

T = TypeVar("T")


class SourceBusy(SourceUnavailable):
    """The source asks to be left alone for `wait_seconds`: come back after that."""

    default_reason = Reason.RATE_LIMITED

    def __init__(self, message: str, *, wait_seconds: float, reason: Reason | None = None) -> None:
        super().__init__(message, reason=reason)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long one call tries before its failure becomes the caller's.

    At most `attempts`, none begun later than `deadline_seconds` after the first: what takes longer to heal belongs to
    the task's retry, which holds no thread and no connection meanwhile. The delay before attempt n+1 is
    `first_delay_seconds` · 2^(n-1), times 0.5 to 1.5 by `jitter` (which returns 0 to 1). `clock` is monotonic.
    """

    attempts: int = 3
    deadline_seconds: float = 30.0
    first_delay_seconds: float = 0.5
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random

    def until_it_heals(self, attempt: Callable[[], T]) -> T:
        """Return what `attempt` returns, calling it again after each `SourceUnavailable` while patience lasts.

        Raises:
            SourceUnavailable: the last attempt's failure; at once where the source asks for a longer wait than is left.
        """
        started = self.clock()
        for number in range(1, self.attempts):
            try:
                return attempt()
            except SourceUnavailable as failure:
                left = self.deadline_seconds - (self.clock() - started)
                delay = self.first_delay_seconds * 2 ** (number - 1) * (0.5 + self.jitter())
                if isinstance(failure, SourceBusy):
                    if failure.wait_seconds > left:
                        raise SourceBusy(
                            f"{failure} It asks to wait {failure.wait_seconds:,.0f} s, longer than a run waits: "
                            "try again after that.",
                            wait_seconds=failure.wait_seconds,
                            reason=failure.reason,
                        ) from failure
                    delay = min(left, failure.wait_seconds + self.jitter() * self.first_delay_seconds)
                if delay > left:
                    raise
            self.sleep(delay)
        return attempt()
