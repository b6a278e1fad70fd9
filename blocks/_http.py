"""The HTTP wire: one client a run, and requests that end in an answer or in an error of ours.

Credentials stay in the client's default headers; redirects are followed by hand, so that they never leave the place
they were meant for.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from typing import Self
from urllib.request import getproxies, proxy_bypass

import httpx

from blocks._errors import CatchmentError, Reason, SourceRefused
from blocks._http_errors import explain_failure, explain_status, show_url
from blocks._http_transport import WatchedTransport
from blocks._pace import Pace

MAX_REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """How to talk to the one server behind `url`; `headers` and `auth` go with every request, credentials and all."""

    url: str
    connections: int = 4
    timeout_seconds: float = 30.0
    requests_per_second: float | None = None
    bytes_per_second: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    auth: httpx.Auth | None = field(default=None, repr=False)


def open_client(settings: HttpSettings) -> httpx.Client:
    """Return a client with a pool of at most `connections`, which threads may share.

    Proxy and certificate variables of the environment are honoured (`HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`), but
    loopback is never asked for through a proxy.
    """
    limits = httpx.Limits(max_connections=settings.connections, max_keepalive_connections=settings.connections)
    return httpx.Client(
        transport=WatchedTransport(limits=limits, proxy=_find_proxy(httpx.URL(settings.url))),
        timeout=httpx.Timeout(settings.timeout_seconds),
        headers={"User-Agent": _user_agent(), "Accept": "*/*", "Accept-Encoding": "identity"} | dict(settings.headers),
        auth=settings.auth,
        follow_redirects=False,
    )


class HeldWire:
    """A client and its pace, opened by the first who uses them, shared by all, closed by the last.

    Made for a Block's private attribute: a copy shares the connections, a pickled one starts without any.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._wire: tuple[httpx.Client, Pace] | None = None

    @contextmanager
    def use(self, make_settings: Callable[[], HttpSettings]) -> Iterator[tuple[httpx.Client, Pace]]:
        """Yield the open client and pace, made from `make_settings` unless someone uses them already."""
        with self._lock:
            if self._wire is None:
                settings = make_settings()
                pace = Pace(
                    requests_per_second=settings.requests_per_second, bytes_per_second=settings.bytes_per_second
                )
                self._wire = open_client(settings), pace
            wire = self._wire
            self._users += 1
        try:
            yield wire
        finally:
            with self._lock:
                self._users -= 1
                last = self._users == 0
                if last:
                    self._wire = None
            if last:
                wire[0].close()

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HeldWire)

    def __hash__(self) -> int:
        return hash(HeldWire)


@contextmanager
def ask(
    client: httpx.Client,
    url: httpx.URL | str,
    *,
    pace: Pace,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    content: bytes | None = None,
    expected: Collection[int] = (200,),
    explain: Callable[[httpx.Response], CatchmentError] = explain_status,
) -> Iterator[httpx.Response]:
    """Yield the answer to one request, its body unread; failures inside the `with` are translated too.

    `content` is the request's own body. A GET follows at most five redirects, within one place (see `is_same_place`).
    `explain` translates a status that is not `expected`; it may read the body.

    Raises:
        SourceUnavailable: no usable answer came, or it broke off.
        SourceRefused: the answer is no, or lies elsewhere.
    """
    try:
        response = _send(client, method, httpx.URL(url), headers, content, pace)
        try:
            if response.status_code not in expected:
                raise explain(response)
            yield response
        finally:
            response.close()
    except (httpx.HTTPError, httpx.InvalidURL) as failure:
        raise explain_failure(failure, url) from failure


def is_same_place(here: httpx.URL, there: httpx.URL) -> bool:
    """Tell whether what is meant for `here` may go to `there`: the same origin, or its upgrade from http to https."""
    same_scheme = here.scheme == there.scheme or (here.scheme, there.scheme) == ("http", "https")
    # A default port is None: http to https counts as an upgrade only from port 80 to port 443.
    upgraded = here.scheme != there.scheme
    return same_scheme and here.host == there.host and here.port == there.port and not (upgraded and here.port)


def is_loopback(host: str) -> bool:
    """Tell whether `host` is this machine: `localhost` or a loopback address."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _send(
    client: httpx.Client,
    method: str,
    url: httpx.URL,
    headers: Mapping[str, str] | None,
    content: bytes | None,
    pace: Pace,
) -> httpx.Response:
    start = url
    for _ in range(MAX_REDIRECTS + 1):
        pace.before_request()
        response = client.send(client.build_request(method, url, headers=headers, content=content), stream=True)
        if not response.has_redirect_location or method != "GET":
            return response
        response.close()
        here, url = url, _next_hop(response)
        if not is_same_place(here, url):
            raise SourceRefused(
                f"{show_url(here)} redirects to {url.scheme}://{url.netloc.decode('ascii')}, where its credentials "
                "must not go: if that is right, set the Block to the address it is really at.",
                reason=Reason.REDIRECTED_AWAY,
            )
    raise SourceRefused(f"{show_url(start)} redirects in a circle: check the address, or tell its owner.")


def _next_hop(response: httpx.Response) -> httpx.URL:
    # Userinfo in a Location would become credentials of the server's choosing.
    return response.url.join(response.headers["location"]).copy_with(userinfo=b"", fragment=None)


def _find_proxy(url: httpx.URL) -> str | None:
    if is_loopback(url.host) or proxy_bypass(url.host):
        return None
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _user_agent() -> str:
    try:
        return f"catchment/{version('catchment')}"
    except PackageNotFoundError:
        return "catchment"
