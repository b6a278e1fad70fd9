"""Addresses of cameras, told apart from the credentials that people and makers write into them."""

import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

_SHAPE = re.compile(r"(rtsps?)://([^/?#]*)([^#]*)", re.IGNORECASE)
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s\[\]:@/\\]+)(?::(\d{1,5}))?", re.IGNORECASE)
# As some makers have it: /user=admin&password=…&channel=1, /user=admin_password=…_channel=1 or /stream?usr=admin&pwd=…
_LOGIN_PART = r"(?<=[/?&;_])((?:%s)=)([^&;/?]*?)(?=[&;/?]|_[a-z]+=|$)"
_LOGIN_PARTS = {
    "username": re.compile(_LOGIN_PART % "user(?:name)?|usr|login", re.IGNORECASE),
    "password": re.compile(_LOGIN_PART % "pass(?:word|wd)?|pwd", re.IGNORECASE),
}
_PLACES = {name: f"{{{name}}}" for name in _LOGIN_PARTS}


@dataclass(frozen=True, slots=True)
class CameraAddress:
    """Where a camera is: `url` without credentials ("{username}", "{password}" where they stood in its path)."""

    url: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


def split_address(text: str) -> CameraAddress:
    """Return `text` with its credentials apart, percent-decoded.

    Raises:
        ValueError: it is no address of a camera; the message repeats nothing of it.
    """
    found = _SHAPE.fullmatch(text.strip())
    if found is None:
        raise ValueError("url must look like rtsp://camera.example.org:554/stream1 (or rtsps://), without a # part")
    scheme, place, path = found.groups()
    login, _, server = place.rpartition("@")
    host = _HOST.fullmatch(server)
    if host is None or int(host[2] or 1) not in range(1, 65_536):
        raise ValueError(
            "url names no host and port as in rtsp://camera.example.org:554/stream1; in a user name or password write "
            "/ as %2F, ? as %3F, # as %23"
        )
    if any(ord(letter) <= 0x20 or ord(letter) == 0x7F for letter in path):
        raise ValueError("url holds a blank; write it as %20")
    parts: dict[str, str] = {}
    if login:
        username, colon, password = login.partition(":")
        parts = {"username": unquote(username)} | ({"password": unquote(password)} if colon else {})
    for name, pattern in _LOGIN_PARTS.items():
        if (part := pattern.search(path)) and part[2] and part[2] != _PLACES[name]:
            parts.setdefault(name, unquote(part[2]))
            path = pattern.sub(rf"\1{_PLACES[name]}", path)
    return CameraAddress(f"{scheme.lower()}://{server}{path}", **parts)


def fill_places(url: str, username: str | None, password: str | None) -> str:
    """Return `url` with the credentials where it has a place for them."""
    for name, value in (("username", username), ("password", password)):
        url = url.replace(_PLACES[name], quote(value or "", safe=""))
    return url
