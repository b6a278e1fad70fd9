"""What a walk through a Drive folder knows at one moment: the folders, those still to be listed, the tokens.

As a mark it is JSON. Resource keys, which open folders to whoever holds them, are never in it.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Self


class StartOver(Exception):
    """The mark can not be gone on from; only a whole walk tells what the folder holds."""


@dataclass(slots=True)
class Folder:
    """A folder of the tree; `parent` is its parent's place in the list, -1 for the root.

    `is_linked`: a shortcut led here, so its real parents are elsewhere. `is_keyed`: it opens with a resource key only.
    `drive_id`: the shared drive to look for its content in; None to look in all that is open to us.
    """

    id: str
    parent: int
    name: str
    is_linked: bool = False
    is_keyed: bool = False
    drive_id: str | None = None

    @property
    def mark_length(self) -> int:
        """About how many characters of a mark it takes, with its place among those still to be listed."""
        return len(self.id) + len(self.name) + len(self.drive_id or "") + 28


@dataclass(slots=True)
class Place:
    """Where a walk, or the reading of changes, has come to.

    `purpose` tells whether the Block still asks for the same. `todo`: places in `folders` still to be listed, the last
    one next; `token`: of its next page. `since`: token of the changes to be read next, None where they can not be had.
    `links`: by the shortcut's id, the target's id and the place of the folder it lies in. `begun`: when the walk began,
    seconds since 1970. `refused`: the paths of some that Drive did not show us, though it names them; `is_start_told`:
    the walk's first page said that it was one.
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
    refused: list[str] = field(default_factory=list)
    is_start_told: bool = False

    def to_mark(self) -> str:
        """Return the mark that `of` reads."""
        folders = [
            [
                folder.id,
                folder.parent,
                folder.name,
                int(folder.is_linked) + 2 * int(folder.is_keyed),
                folder.drive_id,
            ]
            for folder in self.folders
        ]
        fields = {name: getattr(self, name) for name in self.__slots__} | {"folders": folders}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))

    def find_unproven(self) -> list[str]:
        """Return the refused paths, where the walk was told to be one of the whole before they were met."""
        return self.refused if self.is_start_told else []

    @classmethod
    def of(cls, mark: str, purpose: str) -> Self:
        """Return the place that `mark` tells.

        Raises:
            StartOver: it is no mark of this version and `purpose`.
        """
        try:
            fields: dict[str, Any] = json.loads(mark)
            fields["folders"] = [
                Folder(str(item_id), int(parent), str(name), bool(flags & 1), bool(flags & 2), drive_id)
                for item_id, parent, name, flags, drive_id in fields["folders"]
            ]
            fields["links"] = {link: (str(target), int(place)) for link, (target, place) in fields["links"].items()}
            found = cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StartOver from error
        if found.purpose != purpose:
            raise StartOver
        return found
