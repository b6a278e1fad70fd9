"""A walk through a shared Drive folder, page by page, and after it the changes: all that a later run must know is in
the mark.

A mark holds the folders known so far, those still to be listed, the token of the page to come, and the token of the
changes since the walk began. What changed while the walk was under way is thereby seen right after it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from blocks._drive_errors import PageTokenRefused, ProjectRefused
from blocks._drive_items import FOLDER, SHORTCUT, DriveItem, make_safe_name
from blocks._drive_place import Folder, Place, StartOver
from blocks._drive_wire import Change, DriveWire
from blocks._errors import Reason, SourceRefused, SourceUnavailable
from blocks._records import Page, RemoteFile, Rows, make_listing

PAGE_FILES = 1000
"""So many files end a page: each is diffed, fetched and stored before the next is listed."""

_PAGE_REQUESTS = 50
_LONGEST_MARK = 500_000
"""Characters, some 8,000 folders. A larger tree is walked to its end in one page and walked whole again next time."""

AGAIN = "again"
"""The mark that brings a whole walk: it is refused when it is read."""

_REFUSED_KEPT = 10


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

    `documents`: after the last page, how many documents of Google's were left since the first. `refusals`: of each
    folder or shortcut that this page leaves because Drive refuses it, a sentence. `unproven`: the paths that make the
    end of this walk prove nothing of what is gone, though its first page promised that; the page is then not the last.
    """

    def __init__(self, wire: DriveWire, wanted: TreeWanted, place: Place, *, is_start: bool) -> None:
        self._wire = wire
        self._wanted = wanted
        self.place = place
        self.documents = 0
        self.refusals: list[str] = []
        self.unproven: list[str] = []
        self._mark_length = sum(folder.mark_length for folder in place.folders) + _length_of_links(place.links)
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
        place = Place(wanted.purpose, drive_id, since, clock(), [Folder(root.id, -1, "", drive_id=drive_id)], todo=[0])
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
        if self._is_start:
            self.place.is_start_told = not self.place.refused
        if is_last:
            self.unproven = [] if self.place.is_walked or self._is_start else self.place.find_unproven()
            self.place.is_walked = True
            self.documents, self.place.documents = self.place.documents, 0
        return Page(
            make_listing(self._files),
            gone=Rows(dict.fromkeys(self._gone)),
            mark=self._make_mark(),
            is_last=is_last and not self.unproven,
            # A page that could not look everywhere must not prove that what it does not list has vanished.
            is_start=self._is_start and self.place.is_start_told,
        )

    def _is_page_full(self) -> bool:
        return len(self._files) >= PAGE_FILES or self._requests >= _PAGE_REQUESTS

    def _is_mark_too_long(self) -> bool:
        return self._mark_length > _LONGEST_MARK

    def _make_mark(self) -> str:
        place = self.place
        is_no_use = place.is_walked and (place.since is None or place.refused or self._is_mark_too_long())
        return AGAIN if is_no_use else place.to_mark()

    def _refuse(self, path: str, error: SourceRefused) -> None:
        """Leave what lies at `path`; the others may well be open."""
        self.refusals.append(f"{path} below the Drive folder is left, and nothing in it counts as gone: {error}")
        if len(self.place.refused) < _REFUSED_KEPT:
            self.place.refused.append(path)

    def _list_folder(self) -> None:
        place, number = self.place, self.place.todo[-1]
        folder = place.folders[number]
        if folder.is_keyed and folder.id not in self._wire.resource_keys:
            raise StartOver  # its key was seen by another process
        try:
            page = self._wire.list_folder(folder.id, place.token, folder.drive_id)
        except PageTokenRefused:
            if place.token is None:
                raise
            place.token = None  # the folder from its beginning: what is known of it already is diffed away
            return
        except SourceRefused as error:
            if number == 0 or not _is_of_one_item(error):
                raise
            if folder.is_linked and folder.drive_id is not None:
                folder.drive_id, place.token = None, None  # we are no member of that drive, but may see this folder
                return
            if error.reason is Reason.FORBIDDEN:
                self._refuse(self._path_of(number), error)
            page = None  # or it went while its parent was read
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
            drive_id = self.place.folders[parent].drive_id
            yield from self._enter(item.id, item.name, parent, resource_key=item.resource_key, drive_id=drive_id)
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
        is_new = shortcut.id not in self.place.links
        self._mark_length += _length_of_links({shortcut.id: (target_id, parent)} if is_new else {})
        self.place.links[shortcut.id] = (target_id, parent)
        self._targets[target_id] = parent
        path = self._path_of(parent) + make_safe_name(shortcut.name)
        if target_type == FOLDER and (target_id in self._ids or not self._is_folder_wanted(f"{path}/")):
            return
        self._requests += 1
        try:
            target = self._wire.get_item(target_id)
        except SourceRefused as error:
            if not _is_of_one_item(error):
                raise
            if error.reason is Reason.FORBIDDEN:
                self._refuse(path, error)
            return  # or it points at nothing
        if target.type == FOLDER and not target.is_trashed:
            drive_id = target.drive_id if self._wanted.tells_changes else None
            if drive_id != self.place.drive_id or (drive_id is None and not _is_told_changes(target)):
                self.place.since = None  # of what comes into this folder, the changes we read do not tell
            yield from self._enter(
                target_id, shortcut.name, parent, resource_key=resource_key, is_linked=True, drive_id=drive_id
            )
        elif target.type not in {SHORTCUT, FOLDER}:
            yield from self._take(target, parent)

    def _is_folder_wanted(self, path: str) -> bool:
        is_too_deep = self._wanted.depth is not None and path.count("/") > self._wanted.depth
        return not is_too_deep and not self._wanted.is_left_out(path)

    def _enter(
        self,
        folder_id: str,
        name: str,
        parent: int,
        *,
        resource_key: str | None,
        drive_id: str | None,
        is_linked: bool = False,
    ) -> Iterator[int]:
        """Add a folder to the tree once, however many ways lead to it: a circle of shortcuts ends here."""
        path = f"{self._path_of(parent)}{make_safe_name(name)}/"
        if folder_id in self._ids or not self._is_folder_wanted(path):
            return
        if resource_key:
            self._wire.resource_keys[folder_id] = resource_key
        number = len(self.place.folders)
        folder = Folder(folder_id, parent, name, is_linked, bool(resource_key), drive_id)
        self.place.folders.append(folder)
        self._mark_length += folder.mark_length
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
        since = self.place.since
        if since is None:
            raise StartOver
        try:
            page = self._wire.list_changes(since, self.place.drive_id)
        except SourceRefused as error:
            # The token is good no longer, or we are no member of the shared drive any more: the walk tells.
            if isinstance(error, PageTokenRefused) or error.reason in {Reason.NOT_FOUND, Reason.FORBIDDEN}:
                raise StartOver from error
            raise
        if not page.is_last and page.next_token == since:
            raise SourceUnavailable("Google Drive's changes go in a circle; they are tried again.")
        self.place.since = page.next_token
        for change in page.changes:
            self._apply(change)
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


def refuse_end(paths: list[str]) -> SourceRefused:
    """Return the error for a walk that was to list all, and was refused `paths` on its way."""
    return SourceRefused(
        f"All was listed but what Google Drive refuses below the folder ({', '.join(paths)}): have that shared with "
        "these credentials, or leave it out by exclude.",
        reason=Reason.FORBIDDEN,
    )


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


def _is_of_one_item(error: SourceRefused) -> bool:
    """Tell whether it is this one item that is not there or not for us, and not all of Drive."""
    return error.reason in {Reason.NOT_FOUND, Reason.FORBIDDEN} and not isinstance(error, ProjectRefused)


def _length_of_links(links: Mapping[str, tuple[str, int]]) -> int:
    return sum(len(link) + len(target) + 20 for link, (target, _) in links.items())


def _is_told_changes(item: DriveItem) -> bool:
    """Tell whether the changes of the account that asks are those of this item too."""
    return bool(item.fields.get("ownedByMe") or item.fields.get("sharedWithMeTime"))


def _find_changes(wire: DriveWire, root: DriveItem) -> tuple[str | None, str | None]:
    """Return the shared drive to look in and the token of the changes from now on, None where they would not show all.

    The changes of a user are those of files owned by or shared with that very user. What only a link opens is not among
    them (https://developers.google.com/workspace/drive/api/guides/resource-keys), nor is a shared drive of others.
    """
    drive_id = root.drive_id
    if drive_id:
        try:
            return drive_id, wire.get_start_token(drive_id)
        except SourceRefused as error:
            if error.reason not in {Reason.NOT_FOUND, Reason.FORBIDDEN}:
                raise
            return None, None
    if _is_told_changes(root):
        return None, wire.get_start_token(None)
    return None, None
