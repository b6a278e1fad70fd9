"""OAuth access tokens: shared by the threads of a run, renewed before they run out, and once when one is refused."""

import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

import httpx

from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable
from blocks._http import HttpSettings, ask, open_client
from blocks._http_errors import explain_status
from blocks._pace import Pace

_EARLY_SECONDS = 300.0
_USUAL_LIFETIME_SECONDS = 3600.0
# RFC 6749 §5.2: the only words of an answer that are repeated, since the others may quote what was sent.
_REFUSALS = {
    "invalid_client": "does not know the client id and secret: copy both again from its console",
    "invalid_grant": "accepts the refresh token or key no longer (expired, revoked, or this machine's clock is wrong): "
    "make a new one",
    "invalid_request": "finds something missing in the credentials: fill in the Block anew",
    "invalid_scope": "does not grant the access that was asked for: allow it in its console",
    "unauthorized_client": "does not let this client in: allow its access in the console",
    "unsupported_grant_type": "does not know credentials of this kind: check the Block",
}


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A bearer token and how long it is good for."""

    text: str = field(repr=False)
    lifetime_seconds: float = _USUAL_LIFETIME_SECONDS


class TokenAuth(httpx.Auth):
    """Sends every request with a good access token: fetched at first, shared by all threads, fetched anew in time.

    Renewed some minutes before its end, and once for a request that is refused with 401; only then the 401 counts.
    `clock` is monotonic, in seconds.
    """

    def __init__(self, fetch: Callable[[], AccessToken], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._token: AccessToken | None = None
        self._renew_at = 0.0

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send `request` with the token, and where that is refused once more with a new one.

        Raises:
            SourceUnavailable, SourceRefused: no token could be had.
        """
        token = self._get(refused=None)
        request.headers["Authorization"] = f"Bearer {token.text}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            request.headers["Authorization"] = f"Bearer {self._get(refused=token).text}"
            yield request

    def _get(self, refused: AccessToken | None) -> AccessToken:
        with self._lock:
            # Of several threads that were refused one fetches; the others find a token that is not the refused one.
            if self._token is None or self._token is refused or self._clock() >= self._renew_at:
                self._token = None
                token = self._fetch()
                early = min(_EARLY_SECONDS, token.lifetime_seconds / 10)
                self._renew_at = self._clock() + token.lifetime_seconds - early
                self._token = token
            return self._token


def request_token(
    url: str, form: Mapping[str, str], *, timeout_seconds: float, headers: Mapping[str, str] | None = None
) -> AccessToken:
    """Return the access token that the server at `url` gives for `form` (RFC 6749 §5.1).

    Raises:
        SourceUnavailable: it did not answer as it should, and may later.
        SourceRefused: it refuses the credentials; the message says what to do.
    """
    fields = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"} | dict(headers or {})
    settings = HttpSettings(url=url, connections=1, timeout_seconds=timeout_seconds)
    content = urlencode(form).encode()
    with (
        open_client(settings) as client,
        ask(
            client, url, pace=Pace(), method="POST", headers=fields, content=content, explain=_explain_refusal
        ) as response,
    ):
        response.read()
        try:
            answer = response.json()
            return AccessToken(str(answer["access_token"]), float(answer.get("expires_in", _USUAL_LIFETIME_SECONDS)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SourceUnavailable(
                f"{response.url.host} answered without an access token; it is tried again.", reason=Reason.SERVER_ERROR
            ) from error


def _explain_refusal(response: httpx.Response) -> CatchmentError:
    response.read()
    try:
        code = str(response.json()["error"])
    except (ValueError, TypeError, KeyError):
        code = ""
    if response.status_code < 500 and code in _REFUSALS:
        text = f"{response.url.host} {_REFUSALS[code]} ({code})."
        return SourceRefused(text, reason=Reason.UNAUTHORIZED)
    error = explain_status(response)
    if isinstance(error, SourceUnavailable):
        return error
    return SourceRefused(
        f"{response.url.host} gives no access token (HTTP {response.status_code}): check the credentials' Block.",
        reason=Reason.UNAUTHORIZED,
    )
