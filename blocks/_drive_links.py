"""Links to Google Drive, in every form people share them in."""

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import httpx

from blocks._http import is_loopback

_HOSTS = {"drive.google.com", "docs.google.com"}
_ID = re.compile(r"[A-Za-z0-9_-]{10,128}", re.ASCII)
_RESOURCE_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
MY_DRIVE = "root"  # what the API calls the folder of a user's own Drive


@dataclass(frozen=True, slots=True)
class DriveLink:
    """What a link points at; `kind` is None where the link does not say whether it is a folder."""

    id: str
    kind: Literal["folder", "file"] | None
    resource_key: str | None = field(default=None, repr=False)


def is_drive_link(text: str) -> bool:
    """Tell whether `text` is an address at Google Drive, whatever it points at."""
    parts = _split(text)
    return parts is not None and parts[0] in _HOSTS


def parse_link(text: str) -> DriveLink:
    """Return what a link, or a bare id, points at.

    Forms: `/drive/folders/ID`, `/drive/u/0/folders/ID`, `/drive/my-drive`, `/folderview?id=ID`, `/open?id=ID`,
    `/uc?id=ID`, `/file/d/ID/view`, `/document/d/ID/edit`, each with `resourcekey=K` where the item needs one
    (https://developers.google.com/workspace/drive/api/guides/resource-keys).

    Raises:
        ValueError: it is none of these; the message says what would be.
    """
    text = text.strip()
    if _ID.fullmatch(text) and "." not in text:
        return DriveLink(text, None)
    parts = _split(text)
    if parts is None or parts[0] not in _HOSTS:
        raise ValueError("it is no link to Google Drive; write it like https://drive.google.com/drive/folders/…")
    _, segments, query = parts
    key = query.get("resourcekey", [None])[0]
    resource_key = check_resource_key(key) if key else None
    if "folders" in segments[:-1]:
        return _make_link(segments[segments.index("folders") + 1], "folder", resource_key)
    if "d" in segments[:-1]:
        return _make_link(segments[segments.index("d") + 1], "file", resource_key)
    if segments[-1:] == ["my-drive"]:
        return DriveLink(MY_DRIVE, "folder")
    if "id" in query:
        kind: Literal["folder", "file"] | None = None
        if segments[-1:] == ["uc"]:
            kind = "file"
        elif segments[-1:] in (["folderview"], ["embeddedfolderview"]):
            kind = "folder"
        return _make_link(query["id"][0], kind, resource_key)
    raise ValueError("the link names no folder; copy it in Drive: right-click the folder, Share, Copy link")


def parse_folder_link(text: str) -> DriveLink:
    """Return what a link that may be one of a folder points at.

    Raises:
        ValueError: it is none; the message says what would be.
    """
    link = parse_link(text)
    if link.kind == "file":
        raise ValueError("it is the link of a single file; share the folder that the file lies in, and give its link")
    return link


def show_folder(link: DriveLink) -> str:
    """Return the address of a folder, without its resource key."""
    return f"https://drive.google.com/drive/folders/{link.id}"


def check_address(field: str, value: str) -> str:
    """Return an address that credentials may be sent to.

    Raises:
        ValueError: it is none, or would send them readable for everyone on the way.
    """
    try:
        url = httpx.URL(value.strip())
    except httpx.InvalidURL:
        raise ValueError(f"{field} is no address; empty it to use Google's") from None
    if url.userinfo or url.query or not url.host or not (url.scheme == "https" or is_loopback(url.host)):
        raise ValueError(f"{field} must be a plain https:// address; empty it to use Google's")
    return value.strip().rstrip("/")


def check_resource_key(text: str) -> str:
    """Return a resource key that may go into a header.

    Raises:
        ValueError: it is none; it is not quoted, for it opens a folder.
    """
    if not _RESOURCE_KEY.fullmatch(text):
        raise ValueError("the resourcekey is cut short or altered; copy the link in Drive once more, all of it")
    return text


def _make_link(found: str, kind: Literal["folder", "file"] | None, resource_key: str | None) -> DriveLink:
    if not _ID.fullmatch(found):
        raise ValueError("the link is cut short or altered: its id is none; copy it in Drive once more")
    return DriveLink(found, kind, resource_key)


def _split(text: str) -> tuple[str, list[str], dict[str, list[str]]] | None:
    """Return the host, the path's segments and the query of an address; None if it is none."""
    text = text.strip()
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host = (parts.hostname or "").lower().removeprefix("www.")
        if parts.scheme.lower() not in {"http", "https"} or parts.username is not None:
            return None
        return host, [segment for segment in parts.path.split("/") if segment], parse_qs(parts.query)
    except ValueError:
        return None
