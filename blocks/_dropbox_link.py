"""Dropbox's shared links: which of them name a folder, and what of them may be shown."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote, unquote

import httpx

_HOSTS = {"www.dropbox.com", "dropbox.com", "m.dropbox.com"}
_OTHER_HOSTS = {"dl.dropboxusercontent.com", "dl.dropbox.com", "db.tt"}
_ID = re.compile(r"[A-Za-z0-9_-]+")
_SHARE_THE_FOLDER = "in Dropbox, share the folder itself (Share → Copy link) and give that link"


@dataclass(frozen=True, slots=True)
class DropboxLink:
    """A link that opens a folder: one shared (`url`, `name` without what lets people in), or a `path` of one's own.

    Links to different folders of one share have different names.
    """

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
            case ["scl", "fo", share, *inner] if _ID.fullmatch(share):
                if not url.params.get("rlkey"):
                    raise ValueError("this link was cut: it has to go on to …?rlkey=…, so copy it again, quoted, whole")
                return cls(_make_name(f"scl/fo/{share}", inner), url=_for_api(url))
            case ["sh", share, key, *inner] if _ID.fullmatch(share):
                return cls(_make_name(f"sh/{share}", [key, *inner]), url=_for_api(url))
            case ["home", *folders]:
                path = "".join(f"/{folder}" for folder in folders)
                return cls(f"dropbox:/{path.lstrip('/')}", path=path)
            case ["scl", "fi", *_] | ["s", *_]:
                raise ValueError(f"this link leads to one file, not to a folder: {_SHARE_THE_FOLDER}")
            case ["t", *_] | ["request", *_] | ["transfer", *_]:
                raise ValueError(f"this is a transfer or a file request, not a folder: {_SHARE_THE_FOLDER}")
        raise ValueError(f"this page of Dropbox is no shared folder: {_SHARE_THE_FOLDER}")


def _make_name(share: str, inner: Sequence[str]) -> str:
    # What follows the share's id is a word that in /sh/ lets people in, and differs from folder to folder: of it only a
    # hash is shown. After it come the names of the folders.
    place = "".join(f"/{quote(folder, safe=' ')}" for folder in inner[1:])
    mark = f"~{hashlib.sha256(chr(0).join(inner).encode()).hexdigest()[:8]}" if inner else ""
    return f"https://www.dropbox.com/{share}{place}{mark}"


def _for_api(url: httpx.URL) -> str:
    return str(url.copy_with(scheme="https", fragment=None))
