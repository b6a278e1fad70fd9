"""What lies in a Drive of the test's own, who may ask for it, and what was asked."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

FOLDER = "application/vnd.google-apps.folder"
SHORTCUT = "application/vnd.google-apps.shortcut"
DOCUMENT = "application/vnd.google-apps.document"
READONLY = "https://www.googleapis.com/auth/drive.readonly"
_MEDIA = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}

Item = dict[str, Any]
Answer = Callable[[Any], None]
"""Answers one request by the handler that it is given."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came; header names in lower case."""

    route: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass
class Drive:
    """What lies in the Drive, who may ask, and what was asked; every change of an item is told by the changes feed."""

    url: str = ""
    api_key: str = "canary-drive-key-5d1e"
    client_secret: str = "canary-drive-client-5d1e"
    refresh_token: str = "canary-drive-refresh-5d1e"
    is_owned: bool = True
    lifetime_seconds: int = 3599
    largest_page: int = 1000
    requests: list[Asked] = field(default_factory=list)
    members: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.contents: dict[str, bytes] = {}
        self.children: dict[str, list[str]] = {}
        self.changes: list[str] = []
        self.keyed: set[str] = set()
        self.tokens: dict[str, float] = {}
        self.generation = 0
        self._numbers = count(1)
        self._scripts: dict[str, list[Answer | None]] = {}
        self._lock = threading.RLock()

    @property
    def api_url(self) -> str:
        """What stands where the vendor's https://www.googleapis.com/drive/v3 does."""
        return f"{self.url}/drive/v3"

    def link(self, folder: str, **query: str) -> str:
        """Return the link that people share for a folder."""
        tail = "".join(f"{'&' if number else '?'}{name}={value}" for number, (name, value) in enumerate(query.items()))
        return f"https://drive.google.com/drive/folders/{folder}{tail}"

    def add_folder(self, name: str, parent: str | None = None, **fields: Any) -> str:
        return self._add(name, FOLDER, parent, fields)

    def add_shortcut(self, name: str, target: str, parent: str, **fields: Any) -> str:
        details = {"targetId": target, "targetMimeType": self.items[target]["mimeType"]}
        if key := self.items[target].get("resourceKey"):
            details["targetResourceKey"] = key
        return self._add(name, SHORTCUT, parent, {"shortcutDetails": details} | fields)

    def add_document(self, name: str, parent: str) -> str:
        return self._add(name, DOCUMENT, parent, {"size": "1024"})

    def add_file(self, name: str, content: bytes, parent: str, **fields: Any) -> str:
        kind = _MEDIA.get(name.rpartition(".")[2].lower(), "application/octet-stream")
        item = self._add(name, fields.pop("mimeType", kind), parent, {**_describe(content), **fields})
        self.contents[item] = content
        return item

    def change(self, item: str, *, content: bytes | None = None, parent: str | None = None, **fields: Any) -> None:
        """Change an item: its fields, its bytes, or the folder it lies in."""
        with self._lock:
            old = self.items[item]
            new = old | fields | ({} if content is None else _describe(content))
            if content is not None:
                self.contents[item] = content
                new["headRevisionId"] = f"rev-{next(self._numbers)}"
            if parent is not None:
                for place in old["parents"]:
                    self.children[place].remove(item)
                self.children[parent].append(item)
                new["parents"] = [parent]
            self.items[item] = new
            self._note(item)

    def delete(self, item: str) -> None:
        """Delete an item for good, or take it from us: all that the changes tell is its id."""
        with self._lock:
            for place in self.items.pop(item)["parents"]:
                self.children[place].remove(item)
            self._note(item)

    def need_key(self, item: str, key: str) -> None:
        """Let an item be seen only with its resource key."""
        self.items[item]["resourceKey"] = key
        self.keyed.add(item)

    def forget_page_tokens(self) -> None:
        """Refuse every page token given so far, those of changes too."""
        self.generation += 1

    def revoke_tokens(self) -> None:
        """Refuse every access token given so far."""
        self.tokens.clear()

    def script(self, route: str, *answers: Answer | None) -> None:
        """Answer the next requests of a route so, None as ever.

        Routes: `list:ID`, `get:ID`, `media:ID`, `changes`, `start`, `token`; without `:ID` whatever it is about.
        """
        with self._lock:
            self._scripts[route] = list(answers)

    def asked(self, start: str) -> list[Asked]:
        """Return the requests whose route begins so, in order."""
        return [request for request in self.requests if request.route.startswith(start)]

    def next_answer(self, route: str) -> Answer | None:
        with self._lock:
            script = self._scripts.get(route) or self._scripts.get(route.partition(":")[0])
            return script.pop(0) if script else None

    def _add(self, name: str, kind: str, parent: str | None, fields: Mapping[str, Any]) -> str:
        with self._lock:
            number = next(self._numbers)
            item = fields.get("id") or f"1{hashlib.sha256(f'{number} {name}'.encode()).hexdigest()[:32]}"
            moment = f"2026-03-01T10:{number // 60 % 60:02}:{number % 60:02}.000Z"
            drive = self.items[parent].get("driveId") if parent in self.items else None
            owned = {"driveId": drive} if drive else {"ownedByMe": self.is_owned}
            self.items[item] = {
                "kind": "drive#file", "id": item, "name": name, "mimeType": kind, "trashed": False,
                "createdTime": moment, "modifiedTime": moment, "parents": [parent or "0AHiddenRootOfTheOwner"],
                **owned, **fields,
            }  # fmt: skip
            self.children.setdefault(self.items[item]["parents"][0], []).append(item)
            if kind == FOLDER:
                self.children.setdefault(item, [])
            self._note(item)
            return str(item)

    def _note(self, item: str) -> None:
        self.changes.append(item)


def _describe(content: bytes) -> Item:
    return {
        "size": str(len(content)),
        "md5Checksum": hashlib.md5(content).hexdigest(),
        "sha256Checksum": hashlib.sha256(content).hexdigest(),
        "headRevisionId": f"rev-{hashlib.sha1(content).hexdigest()[:12]}",
    }


class Refused(Exception):
    def __init__(self, status: int, reason: str, message: str, location: str | None = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.location = status, reason, location


class TokenRefused(Refused):
    def __init__(self, error: str) -> None:
        super().__init__(400, error, error)


@cache
def make_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def make_service_account(drive: Drive) -> dict[str, str]:
    """Return what the console's JSON key file of a service account holds."""
    pem = make_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account",
        "project_id": "cameras",
        "private_key_id": "0a1b2c",
        "private_key": pem.decode(),
        "client_email": "reader@cameras.iam.gserviceaccount.com",
        "token_uri": f"{drive.url}/token",
    }


def grant_token(drive: Drive, form: Mapping[str, str]) -> Item:
    if form.get("grant_type") == "refresh_token":
        if form.get("client_secret") != drive.client_secret:
            raise TokenRefused("invalid_client")
        if form.get("refresh_token") != drive.refresh_token:
            raise TokenRefused("invalid_grant")
    else:
        _check_assertion(drive, form.get("assertion", ""))
    token = f"canary-access-{len(drive.requests)}-{len(drive.tokens)}"
    drive.tokens[token] = time.monotonic() + drive.lifetime_seconds
    return {"access_token": token, "expires_in": drive.lifetime_seconds, "token_type": "Bearer", "scope": READONLY}


def _check_assertion(drive: Drive, assertion: str) -> None:
    try:
        unsigned, _, signature = assertion.rpartition(".")
        header, claims = (json.loads(_from_base64url(part)) for part in unsigned.split("."))
        public = make_key().public_key()
        public.verify(_from_base64url(signature), unsigned.encode(), padding.PKCS1v15(), hashes.SHA256())
    except (ValueError, InvalidSignature) as error:
        raise TokenRefused("invalid_grant") from error
    account = make_service_account(drive)
    now = time.time()
    is_right = (
        header["alg"] == "RS256"
        and claims["iss"] == account["client_email"]
        and claims["scope"] == READONLY
        and claims["aud"] == account["token_uri"]
        and claims["iat"] <= now + 60
        and now < claims["exp"] <= claims["iat"] + 3600
    )
    if not is_right:
        raise TokenRefused("invalid_grant")


def _from_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
