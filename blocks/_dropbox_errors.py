"""What Dropbox's refusals mean, and what a person should do about each.

https://www.dropbox.com/developers/documentation/http/documentation#error-handling and the unions of dropbox-api-spec.
Of an answer only its tags are repeated: its texts may quote what was sent, and with it a link that lets people in.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any

import httpx

from blocks._errors import CatchmentError, Reason, SourceRefused, SourceUnavailable
from blocks._http_errors import explain_status, parse_retry_after
from blocks._patience import SourceBusy

_MOST_ERROR_BYTES = 65_536
_USUAL_WAIT_SECONDS = 5.0  # as Dropbox's own client waits where a 429 says nothing
_LONGEST_WAIT_SECONDS = 86_400.0
_SCOPE = re.compile(r"\b(?:account_info|files|sharing|team_[a-z]+|members)\.[a-z_.]+\b")
_PERMISSIONS = "tick it in the App Console (Permissions → Submit), then make a new refresh token"

_TAGS = {
    "not_found": (Reason.NOT_FOUND, "is not there any more: it was moved, renamed or removed"),
    "not_folder": (Reason.REFUSED, "is no folder: name the folder that the pictures are in"),
    "not_file": (Reason.REFUSED, "is no file any more: list the folder again"),
    "malformed_path": (Reason.REFUSED, "is no path to Dropbox: write it like /Camera Uploads"),
    "restricted_content": (Reason.FORBIDDEN, "is withheld by Dropbox (restricted content): ask its owner"),
    "unsupported_content_type": (Reason.REFUSED, "is of a kind that Dropbox does not hand out: export it there"),
    "unsupported_file": (Reason.REFUSED, "is a document of a web app, which Dropbox only exports: export it there"),
    "locked": (Reason.FORBIDDEN, "is locked: ask its owner to unlock it"),
    "shared_link_not_found": (
        Reason.NOT_FOUND,
        "is not behind the link: it was revoked, has expired or was not copied whole; ask its owner for a new one",
    ),
    "shared_link_access_denied": (
        Reason.FORBIDDEN,
        "is not open to us by the shared link: it may want a password (link_password), have expired, forbid downloads, "
        "or be for some people only; ask its owner",
    ),
    "shared_link_is_directory": (Reason.REFUSED, "is a folder now: list it again"),
    "unsupported_link_type": (Reason.REFUSED, "is shared by a kind of link that only opens in a browser"),
    "unsupported_parameter_field": (
        Reason.FORBIDDEN,
        "is shared with invited people only: add it to your Dropbox, and name it by path instead of the link",
    ),
}
_UNAUTHORIZED = {
    "expired_access_token": "the access token has expired (Dropbox's live four hours): give the Dropbox Credentials "
    "app_key and refresh_token instead",
    "invalid_access_token": "the access token is not valid, or was revoked: make new Dropbox Credentials",
    "user_suspended": "the account is suspended: use another one's credentials",
    "route_access_denied": "this app may not ask for that: give the Dropbox Credentials a refresh_token",
}


class DropboxRefused(SourceRefused):
    """Dropbox has refused one thing, and `tag` is its own word for why."""

    def __init__(self, message: str, *, tag: str, reason: Reason) -> None:
        super().__init__(message, reason=reason)
        self.tag = tag


class CursorRefused(SourceRefused):
    """The place in a listing is not known to Dropbox any more: list from the beginning."""


def explain_answer(response: httpx.Response, subject: str) -> CatchmentError:
    """Return the error that an answer about `subject` ("The folder /x of …") is; at most 64 kB of it are read."""
    status = response.status_code
    if status == 429:
        return _explain_rate(response, _read_json(response))
    if status >= 500 or status not in {400, 401, 403, 409, 422}:
        return explain_status(response)
    text = _read_start(response)
    tags = _read_tags(_parse(text))
    if "reset" in tags or (status == 400 and "cursor" in text):
        return CursorRefused("Dropbox does not know the place in its listing any more: list again from the beginning.")
    if status in {400, 401} and "scope" in text and (scope := _SCOPE.search(text)):
        return SourceRefused(
            f"The Dropbox app lacks the permission {scope[0]}: {_PERMISSIONS}.", reason=Reason.UNAUTHORIZED
        )
    for tag in reversed(tags):
        if tag in _TAGS:
            reason, advice = _TAGS[tag]
            return DropboxRefused(f"{subject} {advice} ({tag}).", tag=tag, reason=reason)
    told = next((tag for tag in tags if tag), f"HTTP {status}")
    if status == 401:
        advice = _UNAUTHORIZED.get(told, "the credentials are refused: make new Dropbox Credentials")
        return SourceRefused(f"Dropbox does not let us in: {advice} ({told}).", reason=Reason.UNAUTHORIZED)
    if status == 422:
        advice = "root_namespace names no namespace that this account may see: correct or empty it"
        return SourceRefused(f"Dropbox refuses: {advice} ({told}).", reason=Reason.FORBIDDEN)
    if status == 400:
        advice = "does not understand the request: check app_key and app_secret, and the link or path"
        return SourceRefused(f"Dropbox {advice} ({told}).")
    return DropboxRefused(
        f"{subject} is refused by Dropbox ({told}): ask its owner.", tag=told, reason=Reason.FORBIDDEN
    )


def explain_non_json(start: bytes, place: str) -> CatchmentError:
    """Return the error that an answer is which should have been JSON and begins with `start`."""
    if start.lstrip()[:1] == b"<":
        return SourceUnavailable(
            f"{place} answered with a web page: is there a login or a proxy between it and this machine?",
            reason=Reason.HTML_PAGE,
        )
    return SourceUnavailable(f"{place} answered with something else than JSON; it is tried again.")


def _explain_rate(response: httpx.Response, answer: Any) -> CatchmentError:
    # Not every 429 has a body, or one that is JSON.
    wait = parse_retry_after(response.headers.get("retry-after"), datetime.now(UTC))
    if wait is None:
        error = answer.get("error") if isinstance(answer, dict) else None
        told = error.get("retry_after") if isinstance(error, dict) else None
        wait = told if isinstance(told, int | float) and told >= 0 else _USUAL_WAIT_SECONDS  # NaN is not >= 0
    return SourceBusy(
        "Dropbox gets too many requests from this app: lower requests_per_second or connections of the Block.",
        wait_seconds=float(min(wait, _LONGEST_WAIT_SECONDS)),
    )


def _read_json(response: httpx.Response) -> Any:
    return _parse(_read_start(response))


def _read_start(response: httpx.Response) -> str:
    start = b""
    for chunk in response.iter_bytes():
        start += chunk
        if len(start) >= _MOST_ERROR_BYTES:
            break
    return start[:_MOST_ERROR_BYTES].decode(errors="replace")


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # the latter of brackets within brackets without end
        return None


def _read_tags(answer: Any) -> list[str]:
    """Return the tags of a refusal from the outermost to the innermost: `path`, `not_found`."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, str):
        return [error] if re.fullmatch(r"[a-z_]{1,40}", error) else []
    tags: list[str] = []
    while isinstance(error, dict) and isinstance(tag := error.get(".tag"), str) and len(tags) < 8:
        if re.fullmatch(r"[a-z_0-9]{1,60}", tag):
            tags.append(tag)
        error = error.get(tag)
    return tags
