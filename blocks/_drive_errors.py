"""What an answer of Google Drive other than the wanted one means: will it heal, and what should a person do.

Decided by `error.errors[0].reason`, as https://developers.google.com/workspace/drive/api/guides/handle-errors tells.
"""

import re
from datetime import UTC, datetime
from typing import Any

import httpx

from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable
from blocks._http_errors import explain_status, parse_retry_after
from blocks._patience import SourceBusy

_WORD = re.compile(r"[A-Za-z_ ]{1,60}", re.ASCII)
_TOO_FAST = {"userRateLimitExceeded", "rateLimitExceeded", "sharingRateLimitExceeded"}

_DAY_SECONDS = 86_400.0

_REFUSALS: dict[str, tuple[Reason, str]] = {
    "downloadQuotaExceeded": (
        Reason.REFUSED,  # not RATE_LIMITED, which is about the source: other files still come
        "has been downloaded too often for now: Drive lets nobody have it for up to a day",
    ),
    "cannotDownloadAbusiveFile": (
        Reason.FORBIDDEN,
        "is held back by Drive as malware or abuse: only its owner can have it, from Drive itself",
    ),
    "cannotDownloadFile": (
        Reason.FORBIDDEN,
        "may be looked at but not downloaded: ask its owner to allow downloads",
    ),
    "fileNotDownloadable": (Reason.REFUSED, "is a Google document and has no bytes of its own"),
    "insufficientFilePermissions": (Reason.FORBIDDEN, "is not shared with these credentials: ask its owner"),
    "appNotAuthorizedToFile": (
        Reason.FORBIDDEN,
        "is not open to this app: make the refresh token with the scope drive.readonly",
    ),
    "insufficientPermissions": (
        Reason.FORBIDDEN,
        "wants a token of the scope drive.readonly: make the refresh token anew with it",
    ),
    "accessNotConfigured": (
        Reason.FORBIDDEN,
        "is closed to this project: enable the Google Drive API in Google's console, then wait a few minutes",
    ),
    "domainPolicy": (Reason.FORBIDDEN, "is closed to apps by the domain's policy: ask its administrator"),
    "teamDriveMembershipRequired": (
        Reason.FORBIDDEN,
        "lies in a shared drive: make these credentials' account a member of it, or share the folder with it",
    ),
    "forbidden": (Reason.FORBIDDEN, "is not shared with these credentials: ask its owner"),
    "keyInvalid": (Reason.UNAUTHORIZED, "does not know the API key: copy it again from Google's console"),
    "API_KEY_INVALID": (Reason.UNAUTHORIZED, "does not know the API key: copy it again from Google's console"),
    "keyExpired": (Reason.UNAUTHORIZED, "does not take the API key any more: make a new one in Google's console"),
    "ipRefererBlocked": (
        Reason.FORBIDDEN,
        "does not take the API key from this machine: change the key's restrictions in Google's console",
    ),
    "authError": (Reason.UNAUTHORIZED, "does not take the access token: make the credentials anew"),
    "required": (Reason.UNAUTHORIZED, "wants to know who asks: fill in the credentials"),
    "notFound": (
        Reason.NOT_FOUND,
        "is not there, or not shared with these credentials (a link's resourcekey belongs to it)",
    ),
}


_OF_THE_PROJECT = {"insufficientPermissions", "accessNotConfigured", "domainPolicy", "ipRefererBlocked"}


class ProjectRefused(SourceRefused):
    """Nothing in Drive is open to these credentials, whatever was asked for: change them or their project."""


class PageTokenRefused(SourceRefused):
    """The place in a listing is known no longer: list from the beginning."""


def explain_drive(response: httpx.Response) -> CatchmentError:
    """Return the error that an answer of the Drive API is; of its body only the reason is repeated."""
    reason, location = _read_reason(response)
    status, what = response.status_code, _show_item(response.url)
    if reason in _TOO_FAST or status == 429:
        message = f"Google Drive gets too many requests: lower connections of the Block (HTTP {status}, {reason})."
        wait_seconds = parse_retry_after(response.headers.get("retry-after"), datetime.now(UTC))
        if wait_seconds is not None:
            return SourceBusy(message, wait_seconds=wait_seconds, reason=Reason.RATE_LIMITED)
        return SourceUnavailable(message, reason=Reason.RATE_LIMITED)
    if reason == "dailyLimitExceeded":
        return SourceBusy(
            "Google Drive has had all requests of this project for today: go on tomorrow, or raise the quota in "
            f"Google's console (HTTP {status}, {reason}).",
            wait_seconds=_DAY_SECONDS,
            reason=Reason.RATE_LIMITED,
        )
    if location == "pageToken" or "pageToken" in str(reason):
        return PageTokenRefused("Google Drive knows the place in its listing no longer: it is listed from the start.")
    if reason in _REFUSALS and status < 500:
        kind, text = _REFUSALS[reason]
        refused = ProjectRefused if reason in _OF_THE_PROJECT else SourceRefused
        return refused(f"{what} {text} (HTTP {status}, {reason}).", reason=kind)
    error = explain_status(response)
    if isinstance(error, SourceUnavailable):
        return error
    return SourceRefused(f"{what} was refused by Google Drive (HTTP {status}, {reason}).", reason=error.reason)


def _read_reason(response: httpx.Response) -> tuple[str, str | None]:
    """Return the first reason that the answer gives, and the parameter that it is about.

    A refused API key is `badRequest` there, and says what is meant only in the details (google.rpc.ErrorInfo).
    """
    response.read()
    try:
        answer = response.json()
    except ValueError:
        answer = None
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return "no reason given", None
    errors, details = _objects(error.get("errors")), _objects(error.get("details"))
    told = [text for row in [*errors[:1], *details] if isinstance(text := row.get("reason"), str)]
    reason = next((text for text in told if text in _REFUSALS or text in _TOO_FAST), (told or ["no reason given"])[0])
    location = errors[0].get("location") if errors else None
    return (reason if _WORD.fullmatch(reason) else "another reason"), location if isinstance(location, str) else None


def _objects(rows: object) -> list[dict[str, Any]]:
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _show_item(url: httpx.URL) -> str:
    """Return what was asked for, as a person knows it."""
    name = url.path.rstrip("/").rpartition("/")[2]
    return "Google Drive" if name in {"files", "changes", "startPageToken"} else f"Drive item {name}"
