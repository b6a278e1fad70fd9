"""What a failure on the HTTP wire means to the caller: will it heal, and what should a person do about it."""

import errno
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable
from blocks._patience import SourceBusy

_ANSWERS = {
    401: (Reason.UNAUTHORIZED, "wants other credentials: check auth_username and auth_password of the Block"),
    403: (Reason.FORBIDDEN, "does not let us in: ask its owner for access, or check the credentials of the Block"),
    404: (Reason.NOT_FOUND, "is not there: check the address; the file may have been removed"),
    407: (Reason.UNAUTHORIZED, "is behind a proxy that wants credentials: check the proxy variables of this machine"),
    410: (Reason.NOT_FOUND, "has been removed for good"),
}
_HEALING = {
    408: (Reason.TIMEOUT, "did not get our request in time"),
    425: (Reason.SERVER_ERROR, "wants the request again"),
    429: (Reason.RATE_LIMITED, "gets too many requests: lower requests_per_second or connections of the Block"),
}


def show_url(url: httpx.URL | str) -> str:
    """Return `url` for people: without user, password, query and fragment, any of which may hold a secret."""
    url = httpx.URL(url)
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))


def explain_status(response: httpx.Response) -> CatchmentError:
    """Return the error that an answer other than the wanted one is; its body is not read."""
    status, place = response.status_code, show_url(response.url)
    if status in _ANSWERS:
        reason, text = _ANSWERS[status]
        return SourceRefused(f"{place} {text} (HTTP {status}).", reason=reason)
    if status in _HEALING or status >= 500:
        reason, text = _HEALING.get(status, (Reason.SERVER_ERROR, "has trouble of its own; it is tried again"))
        message = f"{place} {text} (HTTP {status})."
        wait_seconds = parse_retry_after(response.headers.get("retry-after"), datetime.now(UTC))
        if wait_seconds is not None:
            return SourceBusy(message, wait_seconds=wait_seconds, reason=reason)
        return SourceUnavailable(message, reason=reason)
    return SourceRefused(f"{place} answered with HTTP {status}, which is no file: check the address.")


def explain_failure(failure: Exception, url: httpx.URL | str) -> CatchmentError:
    """Return the error that `failure`, raised by httpx while asking for `url`, is.

    Its own text is left out: it may quote the address, the proxy with its password, or bytes of the server's.
    """
    if isinstance(failure, httpx.InvalidURL):
        return SourceRefused("The source names an address that is none: check base_url, or tell the source's owner.")
    place, host = show_url(url), httpx.URL(url).host
    match failure:
        case httpx.PoolTimeout():
            return SourceUnavailable(f"No connection to {host} came free in time.", reason=Reason.TIMEOUT)
        case httpx.ConnectTimeout():
            return SourceUnavailable(
                f"{host} did not take the connection in time: check that it is up and reachable.", reason=Reason.TIMEOUT
            )
        case httpx.TimeoutException():
            return SourceUnavailable(
                f"{place} was too slow: raise timeout_seconds of the Block if this goes on.", reason=Reason.TIMEOUT
            )
        case httpx.ProxyError():
            return SourceUnavailable(
                f"The proxy in front of {host} refused: check the proxy variables of this machine.",
                reason=Reason.CONNECTION,
            )
        case httpx.ConnectError():
            return _explain_connect(failure, host)
        case httpx.RemoteProtocolError() if "incomplete" in str(failure) or "without sending complete" in str(failure):
            return SourceUnavailable(f"The connection was cut in the middle of {place}.", reason=Reason.CUT_SHORT)
        case httpx.RemoteProtocolError() if "location header" in str(failure):
            return SourceRefused(f"{place} redirects to something that is no address: tell its owner.")
        case httpx.RemoteProtocolError() if "disconnected" in str(failure):
            return SourceUnavailable(f"{host} hung up without an answer.", reason=Reason.CONNECTION)
        case httpx.RemoteProtocolError():
            return SourceUnavailable(
                f"{place} was answered with something that is not HTTP: check scheme and port of the address.",
                reason=Reason.CONNECTION,
            )
        case httpx.NetworkError():
            return SourceUnavailable(f"The connection to {host} broke.", reason=Reason.CONNECTION)
        case httpx.DecodingError():
            return SourceRefused(f"{place} is not encoded the way its server says.", reason=Reason.CORRUPT)
    return SourceRefused(f"{place} can not be asked for: check the address.")


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds a Retry-After field asks to wait from `now` on, or None where it says nothing usable.

    Seconds or an HTTP-date (RFC 9110 §10.2.3); a date in the past is 0.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    moment = parse_http_date(value)
    return None if moment is None else max(0.0, (moment - now).total_seconds())


def parse_http_date(value: str | None) -> datetime | None:
    """Return the UTC time of an HTTP-date (RFC 9110 §5.6.7), or None where it is none."""
    if not value:
        return None
    try:
        moment = parsedate_to_datetime(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter where a zone moves it out of the calendar
        return None


def _explain_connect(failure: Exception, host: str) -> CatchmentError:
    for cause in _causes(failure):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SourceRefused(
                f"The certificate of {host} is not trusted ({cause.verify_message}): repair it there, or name its "
                "authority in SSL_CERT_FILE."
            )
        if isinstance(cause, ssl.SSLError):
            return SourceUnavailable(f"No secure connection to {host}: is https right for this port?")
        if isinstance(cause, socket.gaierror):
            return SourceUnavailable(f"The name {host} is not known: check its spelling and this machine's DNS.")
        if isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED:
            return SourceUnavailable(f"{host} refused the connection: check the port and that its server runs.")
    return SourceUnavailable(f"{host} could not be reached: check that it is up and that this machine has a network.")


def _causes(failure: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = failure
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
