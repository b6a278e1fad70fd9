"""Dropbox's shared links: which of them name a folder, and what of them may be shown."""

import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote

import httpx

_HOSTS = {"www.dropbox.com", "dropbox.com", "m.dropbox.com"}
_OTHER_HOSTS = {"dl.dropboxusercontent.com", "dl.dropbox.com", "db.tt"}
_ID = re.compile(r"[A-Za-z0-9_-]+")
_SHARE_THE_FOLDER = "in Dropbox, share the folder itself (Share → Copy link) and give that link"


@dataclass(frozen=True, slots=True)
class DropboxLink:
    """A link that opens a folder: one shared (`url`, `name` without what lets people in), or a `path` of one's own."""

    name: str
    url: str | None = field(default=None, repr=False)
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return what the link `text` opens; None where it is no link to Dropbox at all.

        Folders are shared as `/scl/fo/ID/…?rlkey=KEY` and were as `/sh/ID/KEY`; `/home/PATH` is a folder of one's own.

        Raises:
            ValueError: it leads to Dropbox, and to no folder; the message says what to give instead.
        """
        try:
            url = httpx.URL(text.strip())
        except httpx.InvalidURL:
            return None
        if url.scheme not in {"http", "https"} or url.host not in _HOSTS | _OTHER_HOSTS:
            return None
        parts = [unquote(part) for part in url.raw_path.decode("ascii").partition("?")[0].strip("/").split("/")]
        if url.host in _OTHER_HOSTS:
            raise ValueError(f"this link leads to one file of Dropbox: {_SHARE_THE_FOLDER}")
        match parts:
            case ["scl", "fo", share, *_] if _ID.fullmatch(share):
                if not url.params.get("rlkey"):
                    raise ValueError("this link was cut: it has to go on to …?rlkey=…, so copy it again, quoted, whole")
                return cls(f"https://www.dropbox.com/scl/fo/{share}", url=_for_api(url))
            case ["sh", share, _, *_] if _ID.fullmatch(share):
                return cls(f"https://www.dropbox.com/sh/{share}", url=_for_api(url))
            case ["home", *folders]:
                path = "".join(f"/{folder}" for folder in folders)
                return cls(f"dropbox:/{path.lstrip('/')}", path=path)
            case ["scl", "fi", *_] | ["s", *_]:
                raise ValueError(f"this link leads to one file, not to a folder: {_SHARE_THE_FOLDER}")
            case ["t", *_] | ["request", *_] | ["transfer", *_]:
                raise ValueError(f"this is a transfer or a file request, not a folder: {_SHARE_THE_FOLDER}")
        raise ValueError(f"this page of Dropbox is no shared folder: {_SHARE_THE_FOLDER}")


def _for_api(url: httpx.URL) -> str:
    return str(url.copy_with(scheme="https", fragment=None))
