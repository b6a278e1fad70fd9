"""A walk through a shared Drive folder, page by page, and after it the changes: all that a later run must know is in
the mark.

A mark is JSON: the folders known so far (each with its parent and name), those still to be listed, the token of the
page to come, and the token of the changes since the walk began. What changed while the walk was under way is thereby
seen right after it. Resource keys, which open folders to whoever holds them, are never in it.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from blocks._drive_errors import PageTokenRefused
from blocks._drive_items import FOLDER, SHORTCUT, DriveItem, make_safe_name
from blocks._drive_wire import Change, DriveWire
from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._records import Page, RemoteFile, Rows, make_listing

PAGE_FILES = 1000
"""So many files end a page: each is diffed, fetched and stored before the next is listed."""

_PAGE_REQUESTS = 50
_LONGEST_MARK = 500_000
"""Characters, some 8,000 folders. A larger tree is walked to its end in one page and walked whole again next time."""

_AGAIN = "again"


class StartOver(Exception):
    """The mark can not be gone on from; only a whole walk tells what the folder holds."""


@dataclass(slots=True)
class Folder:
    """A folder of the tree; `parent` is its parent's place in the list, -1 for the root.

    `is_linked`: a shortcut led here, so its real parents are elsewhere. `is_keyed`: it opens with a resource key only.
    """

    id: str
    parent: int
    name: str
    is_linked: bool = False
    is_keyed: bool = False


@dataclass(slots=True)
class Place:
    """Where a walk, or the reading of changes, has come to.

    `purpose` tells whether the Block still asks for the same. `todo`: places in `folders` still to be listed, the last
    one next; `token`: of its next page. `since`: token of the changes to be read next, None where they can not be had.
    `links`: by the shortcut's id, the target's id and the place of the folder it lies in. `begun`: when the walk began,
    seconds since 1970.
    """

    purpose: str
    drive_id: str | None
    since: str | None
    begun: float
    folders: list[Folder]
    todo: list[int] = field(default_factory=list)
    token: str | None = None
    links: dict[str, tuple[str, int]] = field(default_factory=dict)
    is_walked: bool = False
    documents: int = 0

    def to_mark(self) -> str:
        """Return the mark that `of` reads."""
        folders = [
            [folder.id, folder.parent, folder.name, int(folder.is_linked) + 2 * int(folder.is_keyed)]
            for folder in self.folders
        ]
        fields = {name: getattr(self, name) for name in self.__slots__} | {"folders": folders}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def of(cls, mark: str, purpose: str) -> Self:
        """Return the place that `mark` tells.

        Raises:
            StartOver: it is no mark of this version and `purpose`.
        """
        try:
            fields: dict[str, Any] = json.loads(mark)
            fields["folders"] = [
                Folder(str(item_id), int(parent), str(name), bool(flags & 1), bool(flags & 2))
                for item_id, parent, name, flags in fields["folders"]
            ]
            fields["links"] = {link: (str(target), int(place)) for link, (target, place) in fields["links"].items()}
            found = cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StartOver from error
        if found.purpose != purpose:
            raise StartOver
        return found


@dataclass(frozen=True, slots=True)
class TreeWanted:
    """What of a tree is asked for; `purpose` changes with anything else here."""

    root_id: str
    purpose: str
    depth: int | None
    is_wanted: Callable[[str], bool]
    is_left_out: Callable[[str], bool]
    relist_seconds: float
    tells_changes: bool


class Walk:
    """One page of a walk, or of changes, from a place on.

    `documents`: after the last page, how many documents of Google's were left since the first.
    """

    def __init__(self, wire: DriveWire, wanted: TreeWanted, place: Place, *, is_start: bool) -> None:
        self._wire = wire
        self._wanted = wanted
        self.place = place
        self.documents = 0
        self._is_start = is_start
        self._ids = {folder.id: number for number, folder in enumerate(place.folders)}
        self._targets = dict(place.links.values())
        self._files: list[RemoteFile] = []
        self._gone: list[str] = []
        self._requests = 0
        self._has_all_changes = False

    @classmethod
    def begin(cls, wire: DriveWire, wanted: TreeWanted, *, clock: Callable[[], float] = time.time) -> Self:
        """Return a walk of the whole tree.

        Raises:
            SourceUnavailable: the root could not be looked at now.
            SourceRefused: it is not there, not for us, in the trash, or no folder.
        """
        root = _find_root(wire, wanted.root_id)
        drive_id, since = None, None
        if wanted.tells_changes:
            drive_id, since = _find_changes(wire, root)
        place = Place(wanted.purpose, drive_id, since, clock(), [Folder(root.id, -1, "")], todo=[0])
        return cls(wire, wanted, place, is_start=True)

    @classmethod
    def resume(cls, wire: DriveWire, wanted: TreeWanted, mark: str, *, clock: Callable[[], float] = time.time) -> Self:
        """Return the walk, or the reading of changes, that goes on at `mark`.

        Raises:
            StartOver: it can not go on, or the last whole walk is too long ago.
        """
        place = Place.of(mark, wanted.purpose)
        is_old = place.is_walked and clock() - place.begun > wanted.relist_seconds
        if is_old or (place.is_walked and place.since is None) or not place.folders:
            raise StartOver
        return cls(wire, wanted, place, is_start=False)

    def take_page(self) -> Page:
        """Return the next page: about `PAGE_FILES` files, fewer at the end.

        Raises:
            StartOver: only a whole walk can tell what the tree holds now.
            SourceUnavailable, SourceRefused: Drive did not answer, or said no.
        """
        is_last = False
        while not is_last and (not self._is_page_full() or self._is_mark_too_long()):
            self._requests += 1
            if self.place.todo:
                self._list_folder()
            elif self.place.is_walked:
                self._read_changes()
            is_last = not self.place.todo and (not self.place.is_walked or self._has_all_changes)
        if is_last:
            self.place.is_walked = True
            self.documents, self.place.documents = self.place.documents, 0
        return Page(
            make_listing(self._files),
            gone=Rows(dict.fromkeys(self._gone)),
            mark=self._make_mark(),
            is_last=is_last,
            is_start=self._is_start,
        )

    def _is_page_full(self) -> bool:
        return len(self._files) >= PAGE_FILES or self._requests >= _PAGE_REQUESTS

    def _is_mark_too_long(self) -> bool:
        return sum(len(folder.id) + len(folder.name) + 16 for folder in self.place.folders) > _LONGEST_MARK

    def _make_mark(self) -> str:
        # A mark of no purpose is refused when it is read, and so brings a whole walk.
        is_no_use = self.place.is_walked and (self.place.since is None or self._is_mark_too_long())
        return _AGAIN if is_no_use else self.place.to_mark()

    def _list_folder(self) -> None:
        place, number = self.place, self.place.todo[-1]
        folder = place.folders[number]
        if folder.is_keyed and folder.id not in self._wire.resource_keys:
            raise StartOver  # its key was seen by another process
        try:
            page = self._wire.list_folder(folder.id, place.token, place.drive_id)
        except PageTokenRefused:
            if place.token is None:
                raise
            place.token = None  # the folder from its beginning: what is known of it already is diffed away
            return
        except SourceRefused as error:
            if error.reason is not Reason.NOT_FOUND or number == 0:
                raise
            page = None  # it went while its parent was read
        if page is not None and page.next_token is not None:
            if page.next_token == place.token:
                raise SourceUnavailable("Google Drive's listing goes in a circle; it is tried again.")
            place.token = page.next_token
        else:
            place.token = None
            place.todo.pop()
        entered = [found for item in page.items for found in self._take(item, number)] if page is not None else []
        # The folder under way stays last, for the token is its own.
        at = len(place.todo) - (1 if place.token is not None else 0)
        place.todo[at:at] = reversed(entered)

    def _take(self, item: DriveItem, parent: int) -> Iterator[int]:
        """Take in one item that lies in folder `parent`; yield the place of a folder that is still to be listed."""
        if item.is_trashed:
            return
        if item.type == SHORTCUT:
            yield from self._follow(item, parent)
        elif item.type == FOLDER:
            yield from self._enter(item.id, item.name, parent, resource_key=item.resource_key)
        elif item.is_google_document:
            self.place.documents += 1
        else:
            self._add_file(item, parent)

    def _follow(self, shortcut: DriveItem, parent: int) -> Iterator[int]:
        target_id, target_type, resource_key = shortcut.target
        if not target_id or target_type == SHORTCUT:
            return
        if resource_key:
            self._wire.resource_keys[target_id] = resource_key
        self.place.links[shortcut.id] = (target_id, parent)
        self._targets[target_id] = parent
        if target_type == FOLDER:
            yield from self._enter(target_id, shortcut.name, parent, resource_key=resource_key, is_linked=True)
            return
        self._requests += 1
        try:
            target = self._wire.get_item(target_id)
        except SourceRefused as error:
            if error.reason not in {Reason.NOT_FOUND, Reason.FORBIDDEN}:
                raise
            return  # it points at nothing, or at what is not shared with us
        if target.type not in {SHORTCUT, FOLDER}:
            yield from self._take(target, parent)

    def _enter(
        self, folder_id: str, name: str, parent: int, *, resource_key: str | None, is_linked: bool = False
    ) -> Iterator[int]:
        """Add a folder to the tree once, however many ways lead to it: a circle of shortcuts ends here."""
        path = f"{self._path_of(parent)}{make_safe_name(name)}/"
        depth = path.count("/")
        if folder_id in self._ids or self._wanted.is_left_out(path):
            return
        if self._wanted.depth is not None and depth > self._wanted.depth:
            return
        if resource_key:
            self._wire.resource_keys[folder_id] = resource_key
        number = len(self.place.folders)
        self.place.folders.append(Folder(folder_id, parent, name, is_linked, bool(resource_key)))
        self._ids[folder_id] = number
        yield number

    def _add_file(self, item: DriveItem, parent: int) -> None:
        path = self._path_of(parent) + item.safe_name
        if self._wanted.is_wanted(path):
            self._files.append(item.to_file(path))

    def _path_of(self, number: int) -> str:
        """Return the path of a folder below the root, with a slash at its end; nothing for the root."""
        names: list[str] = []
        while number > 0:
            folder = self.place.folders[number]
            names.append(make_safe_name(folder.name))
            number = folder.parent
        return "".join(f"{name}/" for name in reversed(names))

    def _read_changes(self) -> None:
        if self.place.since is None:
            raise StartOver
        try:
            page = self._wire.list_changes(self.place.since, self.place.drive_id)
        except SourceRefused as error:
            # The token is good no longer, or we are no member of the shared drive any more: the walk tells.
            if isinstance(error, PageTokenRefused) or error.reason in {Reason.NOT_FOUND, Reason.FORBIDDEN}:
                raise StartOver from error
            raise
        for change in page.changes:
            self._apply(change)
        if not page.is_last and page.next_token == self.place.since:
            raise SourceUnavailable("Google Drive's changes go in a circle; they are tried again.")
        self.place.since = page.next_token
        self._has_all_changes = page.is_last

    def _apply(self, change: Change) -> None:
        item = change.item
        is_gone = item is None or item.is_trashed
        if change.id in self._ids:
            if is_gone or (item is not None and self._has_moved(item)):
                raise StartOver  # nobody tells what becomes of all that lies in it
            return
        if change.id in self.place.links:
            if is_gone or (item is not None and self._find_parent(item) != self.place.links[change.id][1]):
                raise StartOver
            return
        # Whatever the file was called before, its row under that name is gone.
        self._gone.append(change.id)
        if item is None:
            return
        parent = self._find_parent(item)
        known = len(self._files)
        if parent is not None and not is_gone:
            self.place.todo.extend(self._take(item, parent))
        if len(self._files) == known:
            self._gone.append(item.key)

    def _has_moved(self, item: DriveItem) -> bool:
        number = self._ids[item.id]
        folder = self.place.folders[number]
        if number == 0 or folder.is_linked:
            return False
        return item.name != folder.name or self.place.folders[folder.parent].id not in item.parents

    def _find_parent(self, item: DriveItem) -> int | None:
        """Return the place of the folder of the tree that `item` lies in, itself or by a shortcut; None if in none."""
        places = [self._ids[parent] for parent in item.parents if parent in self._ids]
        return places[0] if places else self._targets.get(item.id)


def _find_root(wire: DriveWire, root_id: str) -> DriveItem:
    root = wire.get_item(root_id)
    if root.type == SHORTCUT:
        target_id, _, resource_key = root.target
        if resource_key:
            wire.resource_keys[target_id] = resource_key
        root = wire.get_item(target_id)
    if root.type != FOLDER:
        raise SourceRefused("The Drive link is one of a single file, not of a folder: share its folder and name that.")
    if root.is_trashed:
        raise SourceRefused("The Drive folder is in the trash: restore it there.", reason=Reason.NOT_FOUND)
    return root


def _find_changes(wire: DriveWire, root: DriveItem) -> tuple[str | None, str | None]:
    """Return the shared drive to look in and the token of the changes from now on, None where they would not show all.

    The changes of a user are those of files owned by or shared with that very user. What only a link opens is not among
    them (https://developers.google.com/workspace/drive/api/guides/resource-keys), nor is a shared drive of others.
    """
    drive_id = root.fields.get("driveId")
    if drive_id:
        try:
            return drive_id, wire.get_start_token(drive_id)
        except SourceRefused as error:
            if error.reason not in {Reason.NOT_FOUND, Reason.FORBIDDEN}:
                raise
            return None, None
    if root.fields.get("ownedByMe") or root.fields.get("sharedWithMeTime"):
        return None, wire.get_start_token(None)
    return None, None
