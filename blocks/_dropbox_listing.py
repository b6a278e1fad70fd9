"""Listing a Dropbox folder page by page: a folder of one's own by its changes, a shared one folder by folder.

Dropbox compares paths without regard to case, and promises the case of the last name only (`Metadata.path_display` in
dropbox-api-spec). So a key is the folders in lower case, then the file's name as its owner wrote it: it stays the same
whatever case an answer gives the folders.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from blocks._dropbox import DropboxWire, parse_time
from blocks._dropbox_errors import CursorRefused, DropboxRefused
from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._records import Page, RemoteFile, Rows, is_safe_key, make_listing

MOST_ENTRIES = 2000
"""Entries that one answer may hold: the most that Dropbox allows."""
MOST_FOLDERS = 5000
"""Folders still to be listed that a mark holds; while there are more, a page goes on."""
MOST_REQUESTS = 100
"""Requests for one page of a tree of small folders."""
_MOST_RESTARTS = 3
_MOST_BYTES = 2**63 - 1  # what a listing holds
_UNKEPT = re.compile("[\0\ud800-\udfff]")  # NUL and half a character, which JSON can spell and no catalog can hold


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a folder is wanted: `path` is where it begins ("" the top), `depth` how many folders down it goes.

    `is_wanted` judges keys, `is_left_out` the keys of folders with a slash behind. `fingerprint` differs where any of
    this does: a cursor that began under other settings would never list what they left out.
    """

    path: str
    depth: int | None
    is_wanted: Callable[[str], bool]
    is_left_out: Callable[[str], bool]
    fingerprint: str

    def takes(self, key: str) -> bool:
        """Tell whether the file `key` is wanted."""
        is_deep_enough = self.depth is None or key.count("/") <= self.depth
        return is_deep_enough and is_safe_key(key) and not _UNKEPT.search(key) and self.is_wanted(key)

    def enters(self, folder: str) -> bool:
        """Tell whether to list the folder `folder`."""
        return (self.depth is None or folder.count("/") < self.depth) and not self.is_left_out(f"{folder.lower()}/")


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a listing goes on: at `cursor`, then in `folders`, last first; without either a walk begins anew.

    `folders` are those that a walk still has to list, the one of `cursor` its last; none of them: the walk is done, and
    `cursor` tells what changed since. `restarts` counts how often in a row Dropbox refused a cursor. `is_unsure`: on
    the way something went that may have been a folder, and what was in it was not told.
    """

    fingerprint: str
    cursor: str | None = None
    folders: tuple[str, ...] = ()
    restarts: int = 0
    is_unsure: bool = False

    @classmethod
    def read(cls, text: str | None, fingerprint: str) -> Self:
        """Return the mark that `text` is, or the beginning where it is none, or belongs to other settings."""
        try:
            cursor, folders, restarts, is_unsure = json.loads(text or "")[fingerprint]
            return cls(fingerprint, cursor, tuple(folders), restarts, is_unsure)
        except (ValueError, TypeError, KeyError):
            return cls(fingerprint)

    def __str__(self) -> str:
        fields = [self.cursor, self.folders, self.restarts, self.is_unsure]
        return json.dumps({self.fingerprint: fields}, separators=(",", ":"))

    @property
    def is_beginning(self) -> bool:
        """Tell whether a walk starts here."""
        return self.cursor is None and not self.folders

    def restart(self, folders: tuple[str, ...] = ()) -> Self:
        """Return where to go on after a refused cursor.

        Raises:
            SourceUnavailable: it was refused again and again.
        """
        if self.restarts >= _MOST_RESTARTS:
            raise SourceUnavailable(
                "Dropbox forgets the place in its listing again and again: run it again later.",
                reason=Reason.SERVER_ERROR,
            )
        return replace(self, cursor=None, folders=folders, restarts=self.restarts + 1)


@dataclass(frozen=True, slots=True)
class _Answer:
    """One answer of list_folder or its continuation."""

    entries: list[dict[str, Any]]
    cursor: str
    has_more: bool

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        match answer:
            case {"entries": list(entries), "cursor": str(cursor), "has_more": bool(has_more)}:
                if all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries):
                    return cls(entries, cursor, has_more)
        raise SourceUnavailable("Dropbox answered with something that is no listing; it is tried again.")


def make_fingerprint(*settings: object) -> str:
    """Return a short name for `settings`, from which they can not be told."""
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]


def list_own_page(wire: DropboxWire, selection: Selection, text: str | None) -> Page:
    """Return what follows the mark `text` in a folder of one's own: of a walk the next files, after it the changes.

    What was in a folder that is removed Dropbox does not tell, so a new walk follows then.

    Raises:
        SourceUnavailable, SourceRefused: no page could be had.
    """
    mark = Mark.read(text, selection.fingerprint)
    try:
        answer = _list(wire, selection, mark)
    except CursorRefused:
        mark = mark.restart()
        answer = _list(wire, selection, mark)
    changes = dict(_read_own(answer.entries, selection))
    is_walk = mark.is_beginning or bool(mark.folders)
    is_unsure = mark.is_unsure or changes.pop(None, None) is not None
    if answer.has_more:
        folders = (selection.path,) if is_walk else ()
        following = replace(mark, cursor=answer.cursor, folders=folders, is_unsure=is_unsure)
    else:
        following = Mark(selection.fingerprint, None if is_unsure else answer.cursor)
    return Page(
        files=make_listing(file for file in changes.values() if isinstance(file, RemoteFile)),
        gone=Rows(file for file in changes.values() if isinstance(file, str)),
        mark=str(following),
        is_last=not answer.has_more and (is_walk or not is_unsure),
        is_start=mark.is_beginning,
    )


def _read_own(entries: Iterable[dict[str, Any]], selection: Selection) -> Iterator[tuple[str | None, RemoteFile | str]]:
    """Yield for each place what became of it, in Dropbox's order: a file, or the key of one that is gone.

    A thing that is gone and is no file that we took may have been a folder, which has None for a place.
    """
    above = selection.path.count("/")
    for entry in entries:
        place = entry.get("path_lower")
        if not isinstance(place, str):
            continue
        folders = place.split("/")[above + 1 : -1]
        key = "/".join([*folders, entry["name"]])
        if entry.get(".tag") == "file":
            path = _read_text(entry.get("path_display")) or place
            if selection.takes(key) and (file := _make_file(entry, key, path)):
                yield place, file
        elif entry.get(".tag") == "deleted":
            yield (place, key) if selection.takes(key) else (None, key)


def list_link_page(wire: DropboxWire, selection: Selection, text: str | None) -> Page:
    """Return what follows the mark `text` in a shared folder: about `MOST_ENTRIES` files, of one folder or many.

    Dropbox lists a shared link one folder at a time and tells no changes, so that the mark behind the last page begins
    a new walk. A folder that goes away meanwhile is left out.

    Raises:
        SourceUnavailable, SourceRefused: no page could be had.
    """
    mark = Mark.read(text, selection.fingerprint)
    is_start = mark.is_beginning
    if is_start:
        mark = replace(mark, folders=("",))
    files: dict[str, RemoteFile] = {}
    requests = 0
    while mark.folders and (
        (len(files) < MOST_ENTRIES and requests < MOST_REQUESTS) or len(mark.folders) > MOST_FOLDERS
    ):
        requests += 1
        folder, others = mark.folders[-1], mark.folders[:-1]
        try:
            answer = _list(wire, selection, mark)
        except CursorRefused:
            mark = mark.restart(mark.folders)
            continue
        except DropboxRefused as refusal:
            if not folder or refusal.tag not in {"not_found", "not_folder"}:
                raise
            _list(wire, selection, Mark("", folders=("",)))  # raises where all of it is gone, and not one folder
            mark = replace(mark, cursor=None, folders=others)
            continue
        for file in _read_shared(answer.entries, folder, selection):
            files[file.key] = file
        inner = tuple(path for path in _read_folders(answer.entries, folder) if selection.enters(path.lstrip("/")))
        if answer.has_more:
            mark = replace(mark, cursor=answer.cursor, folders=(*others, *inner, folder))
        else:
            mark = replace(mark, cursor=None, folders=(*others, *inner), restarts=0)
    return Page(files=make_listing(files.values()), mark=str(mark), is_last=not mark.folders, is_start=is_start)


def _read_shared(entries: Iterable[dict[str, Any]], folder: str, selection: Selection) -> Iterator[RemoteFile]:
    for entry in entries:
        if entry.get(".tag") == "file":
            path = f"{folder}/{entry['name']}"
            key = f"{folder.lower()}/{entry['name']}".lstrip("/")
            if selection.takes(key) and (file := _make_file(entry, key, path)):
                yield file


def _read_folders(entries: Iterable[dict[str, Any]], folder: str) -> Iterator[str]:
    return (
        f"{folder}/{entry['name']}"
        for entry in entries
        if entry.get(".tag") == "folder" and is_safe_key(entry["name"]) and "/" not in entry["name"]
    )


def _make_file(entry: Mapping[str, Any], key: str, path: str) -> RemoteFile | None:
    """Return the row of one file, or None for what is none: a symbolic link, or an entry that is not as documented.

    A size or content hash that can be none is unknown.
    """
    names = ("id", "name", "rev", "client_modified", "server_modified")
    told = {name: _read_text(entry.get(name)) for name in names} | {"path": _read_text(path)}
    if None in told.values() or "symlink_info" in entry:
        return None
    size, digest = entry.get("size"), _read_text(entry.get("content_hash"))
    if type(size) is not int or not 0 <= size <= _MOST_BYTES:
        size = None
    locator: dict[str, Any] = {**told, "content_hash": digest}
    if entry.get("is_downloadable") is False:
        locator["is_downloadable"] = False
    # No time in the listing: a file that was only touched or saved again is the same file, says its content hash.
    return RemoteFile(key, size, None, digest or f"rev:{told['rev']}", json.dumps(locator, separators=(",", ":")))


def _read_text(value: object) -> str | None:
    return value if isinstance(value, str) and not _UNKEPT.search(value) else None


def _list(wire: DropboxWire, selection: Selection, mark: Mark) -> _Answer:
    """Ask for what follows `mark`: in a shared folder for its last folder."""
    folder = mark.folders[-1] if mark.folders else selection.path
    subject = (
        f"The folder {folder or '/'}" if wire.link is None else f"The shared folder{' ' + folder if folder else ''}"
    )
    if mark.cursor is not None:
        return _Answer.of(wire.call("files/list_folder/continue", {"cursor": mark.cursor}, subject))
    argument: dict[str, Any] = {"path": folder, "limit": MOST_ENTRIES}
    if wire.link is None:
        argument["recursive"] = selection.depth != 0
    else:
        argument["shared_link"] = dict(wire.link)
    return _Answer.of(wire.call("files/list_folder", argument, subject))


def explain_link(wire: DropboxWire, refusal: DropboxRefused, *, now: datetime) -> SourceRefused:
    """Return why the shared link, which `refusal` came of, does not let us in, as far as Dropbox tells."""
    if wire.link is None:
        return refusal
    argument = {"url": wire.link["url"]} | ({"link_password": wire.link["password"]} if "password" in wire.link else {})
    try:
        told = wire.call("sharing/get_shared_link_metadata", argument, "The shared folder")
    except DropboxRefused as reason:
        return reason
    except (SourceRefused, SourceUnavailable):
        return refusal
    expires = parse_time(told.get("expires"))
    if expires is not None and expires <= now:
        return SourceRefused(
            f"The shared link has expired ({expires:%Y-%m-%d}): ask its owner for a new one.", reason=Reason.FORBIDDEN
        )
    if told.get(".tag") == "file":
        return SourceRefused("The shared link leads to one file: in Dropbox, share the folder itself.")
    if _wants_password(told.get("link_permissions")):
        what = "has another password" if "password" in wire.link else "wants a password"
        return SourceRefused(
            f"The shared link {what}: set link_password to the one its owner chose.", reason=Reason.UNAUTHORIZED
        )
    return refusal


def _wants_password(permissions: object) -> bool:
    if not isinstance(permissions, dict):
        return False
    visibility = permissions.get("resolved_visibility")
    word = visibility.get(".tag") if isinstance(visibility, dict) else None
    return permissions.get("require_password") is True or word in {"password", "team_and_password"}
