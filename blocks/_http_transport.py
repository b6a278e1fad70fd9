"""A transport that gives up on a server too slow to be alive.

A read timeout starts anew with every byte, so a server that sends one byte every few seconds holds a thread for days.
Here every response, headers included, must keep a lowest rate over the time spent waiting for it.
"""

import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore
import httpx

_GRACE_TIMEOUTS = 2


class _WatchedStream(httpcore.NetworkStream):
    """A connection that counts how long it was waited for, and how much came, since the last request went out."""

    def __init__(
        self, stream: httpcore.NetworkStream, lowest_bytes_per_second: float, clock: Callable[[], float]
    ) -> None:
        self._stream = stream
        self._lowest = lowest_bytes_per_second
        self._clock = clock
        self._waited = 0.0
        self._received = 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        before = self._clock()
        chunk = self._stream.read(max_bytes, timeout)
        # Only the time inside reads counts: a thread held back by our own byte rate is no fault of the server's.
        self._waited += self._clock() - before
        self._received += len(chunk)
        if timeout is not None and self._waited > _GRACE_TIMEOUTS * timeout + self._received / self._lowest:
            raise httpcore.ReadTimeout(f"{self._received:,} bytes in {self._waited:,.0f} s")
        return chunk

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._waited, self._received = 0.0, 0
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _WatchedStream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._lowest, self._clock)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _WatchedBackend(httpcore.NetworkBackend):
    def __init__(self, lowest_bytes_per_second: float, clock: Callable[[], float]) -> None:
        self._inner = httpcore.SyncBackend()
        self._lowest = lowest_bytes_per_second
        self._clock = clock

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        return _WatchedStream(stream, self._lowest, self._clock)


class WatchedTransport(httpx.HTTPTransport):
    """httpx's transport, whose responses end in `ReadTimeout` when they fall below `lowest_bytes_per_second`.

    The first `2 · read timeout` seconds of waiting are free, so 2,048 bytes/s ends a server that drips one byte every
    five seconds after one minute (read timeout 30 s), and lets a file of 50 MB take at most seven hours.
    """

    def __init__(
        self,
        *,
        lowest_bytes_per_second: float = 2048,
        clock: Callable[[], float] = time.monotonic,
        limits: httpx.Limits,
        proxy: str | None = None,
        trust_env: bool = True,
    ) -> None:
        super().__init__(limits=limits, proxy=proxy, trust_env=trust_env)
        # httpx takes no network backend of the caller's (httpcore's pools do), and nothing above it sees single reads.
        self._pool._network_backend = _WatchedBackend(lowest_bytes_per_second, clock)
