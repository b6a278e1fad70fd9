"""What the Drive API says about one item, and what catchment makes of it: a row of the listing, claims, a proof."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, TypeGuard

from blocks._records import CaptureTime, Claims, RemoteFile, TimeWitness

FOLDER = "application/vnd.google-apps.folder"
SHORTCUT = "application/vnd.google-apps.shortcut"
_GOOGLE = "application/vnd.google-apps."
ITEM_FIELDS = (
    "id,name,mimeType,size,md5Checksum,sha256Checksum,modifiedTime,createdTime,parents,trashed,shortcutDetails,"
    "resourceKey,driveId,headRevisionId,imageMediaMetadata(time,cameraMake,cameraModel,location)"
)
"""The fields of a File that are asked for; everything else is left out of the answers."""

# The types that Drive tells by the bytes of an upload, for names that have no ending.
_SUFFIXES = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/bmp": "bmp",
    "image/x-ms-bmp": "bmp",
    "image/tiff": "tiff",
    "image/heif": "heic",
    "image/heic": "heic",
    "image/avif": "avif",
}
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/]")
_ENDING = re.compile(r"\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{1,5}$", re.ASCII)
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("id", "name", "mimeType", "md5Checksum", "sha256Checksum", "modifiedTime", "createdTime"), str),
    **dict.fromkeys(("resourceKey", "driveId", "headRevisionId", "sharedWithMeTime"), str),
    **dict.fromkeys(("trashed", "ownedByMe"), bool),
    **dict.fromkeys(("shortcutDetails", "imageMediaMetadata"), dict),
    "size": (str, int),
    "parents": list,
}
_MOST_DIGITS = 18  # of a size; the listing's column has 63 bits
_LONGEST_NAME = 200  # bytes; Drive's names have no limit to speak of, keys have one


@dataclass(frozen=True, slots=True)
class DriveItem:
    """One file, folder or shortcut; `fields` as the API's File resource has them (Drive API v3, files)."""

    fields: Mapping[str, Any]

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Return the item; a field of another type than the API's is as if it were not there.

        Raises:
            ValueError: it has no id.
        """
        if not is_id(fields.get("id")):
            raise ValueError("the item has no id")
        return cls({name: _clean(value) for name, value in fields.items() if isinstance(value, _TYPES.get(name, ()))})

    @property
    def id(self) -> str:
        """The identity: it stays through renames, moves and new contents."""
        return str(self.fields["id"])

    @property
    def name(self) -> str:
        """The name as people gave it, which need not be unique and may hold a slash."""
        return str(self.fields.get("name", ""))

    @property
    def type(self) -> str:
        """The MIME type."""
        return str(self.fields.get("mimeType", ""))

    @property
    def size(self) -> int | None:
        """The size in bytes, which the API writes as text."""
        size = str(self.fields.get("size", ""))
        return int(size) if size.isascii() and size.isdigit() and len(size) <= _MOST_DIGITS else None

    @property
    def parents(self) -> list[str]:
        """The ids of the folders it lies in, as far as we may know them."""
        return [parent for parent in self.fields.get("parents") or [] if isinstance(parent, str)]

    @property
    def is_trashed(self) -> bool:
        """Whether it, or a folder above it, is in the trash."""
        return bool(self.fields.get("trashed"))

    @property
    def is_google_document(self) -> bool:
        """Whether it is a document, form, map… of Google's own: these have no bytes to download."""
        return self.type.startswith(_GOOGLE) and self.type not in {FOLDER, SHORTCUT}

    @property
    def resource_key(self) -> str | None:
        """What an old shared link must be shown with."""
        return _resource_key(self.fields.get("resourceKey"))

    @property
    def drive_id(self) -> str | None:
        """The shared drive it lies in; None for what lies in somebody's own Drive."""
        drive_id = self.fields.get("driveId")
        return drive_id if is_id(drive_id) else None

    @property
    def target(self) -> tuple[str, str, str | None]:
        """The id, type and resource key of what a shortcut points at."""
        details = self.fields.get("shortcutDetails") or {}
        if not is_id(details.get("targetId")):
            return "", "", None
        return (
            str(details["targetId"]),
            str(details.get("targetMimeType", "")),
            _resource_key(details.get("targetResourceKey")),
        )

    @property
    def key(self) -> str:
        """The key in the catalog: `ID/name`.

        The id keeps files of one name apart and stays when a file moves; the name is for people and for what file names
        tell. No key depends on what else lies in the folder.
        """
        return f"{self.id}/{self.safe_name}"

    @property
    def safe_name(self) -> str:
        """The name as one segment of a path, with the ending of its type where it has none of its own."""
        name = make_safe_name(self.name)
        return name if self.type not in _SUFFIXES or _ENDING.search(name) else f"{name}.{_SUFFIXES[self.type]}"

    @property
    def validator(self) -> str | None:
        """What changes when, and only when, the bytes do."""
        # MD5 first: it is there from the start, and a digest that comes later must not look like a change.
        for field, name in (("md5Checksum", "md5"), ("sha256Checksum", "sha256"), ("headRevisionId", "revision")):
            if value := self.fields.get(field):
                return f"{name}:{value}"
        return None

    def to_file(self, path: str) -> RemoteFile:
        """Return the row of the listing for this file, which people find at `path` in the shared folder."""
        return RemoteFile(
            key=self.key,
            size=self.size,
            # Left out on purpose: a rename or a comment touches modifiedTime, and must not count as a change.
            modified=None if self.validator else parse_time(self.fields.get("modifiedTime")),
            validator=self.validator,
            locator=json.dumps({"path": path, "item": self.fields}, ensure_ascii=False, separators=(",", ":")),
        )


@dataclass(frozen=True, slots=True)
class Located:
    """What a listing's row says about its file, for the download."""

    path: str
    item: DriveItem

    @classmethod
    def of(cls, locator: str) -> Self:
        """Return what `DriveItem.to_file` wrote into a row.

        Raises:
            ValueError: it was no row of ours.
        """
        try:
            content = json.loads(locator)
            return cls(str(content["path"]), DriveItem.of(content["item"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError("the listing is not one of Google Drive's") from error

    @property
    def modified(self) -> datetime | None:
        """When the file was last changed, UTC."""
        return parse_time(self.item.fields.get("modifiedTime"))

    def to_claims(self) -> Claims:
        """Return what Drive says of the picture beside its bytes."""
        item = self.item
        media = item.fields.get("imageMediaMetadata") or {}
        place = media.get("location")
        place = place if isinstance(place, dict) else {}
        taken = _parse_exif_time(media.get("time"))
        known = {
            "provider": "google-drive",
            "id": item.id,
            "name": item.name,
            "path": self.path,
            "type": item.type,
            "link": f"https://drive.google.com/file/d/{item.id}/view",
            "created": item.fields.get("createdTime"),
            "modified": item.fields.get("modifiedTime"),
            "revision": item.fields.get("headRevisionId"),
        }
        return Claims(
            # The witness has no zone (EXIF DateTime), and none is made up.
            captured=None if taken is None else CaptureTime(taken, None, TimeWitness.PROVIDER),
            latitude=_number(place.get("latitude")),
            longitude=_number(place.get("longitude")),
            extra={name: value for name, value in known.items() if value is not None},
        )


def is_id(value: object) -> TypeGuard[str]:
    """Tell whether `value` is an id as Drive makes them, which may stand in a key and in an address as it is."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def make_safe_name(name: str) -> str:
    """Return `name` as one segment of a key: without slashes and control characters, and not too long."""
    safe = _UNSAFE.sub("_", name)
    if len(safe.encode()) > _LONGEST_NAME:
        stem, dot, suffix = safe.rpartition(".")
        ending = dot + suffix if stem and len(suffix.encode()) <= 10 else ""
        mark = f"~{hashlib.sha256(name.encode()).hexdigest()[:8]}{ending}"
        safe = safe.encode()[: _LONGEST_NAME - len(mark.encode())].decode(errors="ignore") + mark
    return f"_{safe}" if safe in {"", ".", ".."} else safe


def parse_time(text: object) -> datetime | None:
    """Return the aware time of an RFC 3339 date-time; None where it is none."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _parse_exif_time(text: object) -> datetime | None:
    """Return the naive time of EXIF's `2026:03:01 10:20:00`; None for anything else, such as a clock never set."""
    try:
        moment = datetime.strptime(str(text), "%Y:%m:%d %H:%M:%S")  # noqa: DTZ007 - it has no zone
    except ValueError:
        return None
    return moment if moment.year > 1971 else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) <= 180 and value is not True else None


def _resource_key(value: object) -> str | None:
    return value if is_id(value) else None


def _clean(value: Any) -> Any:
    """Return `value` with half characters, which JSON can write and UTF-8 can not, replaced."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_clean(row) for row in value]
    if isinstance(value, dict):
        return {_clean(name): _clean(row) for name, row in value.items()}
    return value
