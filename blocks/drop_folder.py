"""A folder that programs drop pictures into, and that is emptied: each file ends in `accepted/` or in `rejected/`."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote, unquote_to_bytes

from pydantic import Field

from blocks._errors import Reason, SourceRefused, SourceUnavailable, WrongUse
from blocks._records import Fetched, Listing, Page, RemoteFile, TimeWitness, make_listing
from blocks._remote import LocalRemote, decode_name, find_path, translate_local_error
from blocks._upload_meta import CAMERA_ID, MAX_JSON_BYTES, UploadMeta, clean_text, is_camera_id, read_sidecar
from blocks.remote_folder import RemoteFolder
from blocks.source import DEFAULT_SUFFIXES, ImageSource
from blocks.uploaded_files import FRAMES_LAYOUT, LocalState, copy_whole, guess_suffix, read_state

ACCEPTED, REJECTED = "accepted", "rejected"
MOVING = ".catchment-moving"
"""Where files are on their way: hidden, so that no listing shows it."""


class DropFolder(ImageSource):
    """A folder of this machine whose files are taken when their writer has finished, whatever they are called.

    `x.jpg.json` or `x.json` beside `x.jpg` is what is said of it. Without `camera_id` the first folder names the
    camera.
    """

    _block_type_name = "Drop Folder"
    _block_type_slug = "drop-folder"  # the catalog names these sources by it; never saved

    folder: Path = Field(description="The folder; absolute.")
    camera_id: str | None = Field(default=None, pattern=f"^{CAMERA_ID}$", description="The camera of every file.")
    request_id: str = Field(default="-", description="The run that takes the files, kept with each image.")
    settle_seconds: float = Field(default=5.0, ge=0, description="Take a file unchanged for at least this long.")
    layout: str = Field(default=FRAMES_LAYOUT)

    @classmethod
    def of(cls, place: RemoteFolder | str, **fields: object) -> Self:
        """Return the drop folder at a path, or where a saved Remote Folder of this machine says, as it says.

        Raises:
            WrongUse: it is elsewhere, where files can not be moved.
        """
        if isinstance(place, RemoteFolder):
            scheme, _, path = place.root.partition("://")
            if scheme != "file":
                raise WrongUse(
                    f"{place.root} can not be a drop folder, because files in it are moved: name a folder of this "
                    "machine, or ingest it with ingest_remote_folder."
                )
            names = ("include", "exclude", "settle_seconds", "location", "owner", "is_active")
            fields = {name: getattr(place, name) for name in names} | fields
            return cls.model_validate({"folder": unquote(path), **fields})
        if "://" in place or not place.strip() or "\0" in place:
            raise WrongUse("A drop folder is named by its path on this machine, such as /srv/drop.")
        return cls.model_validate({"folder": Path(place).expanduser().absolute(), **fields})

    @property
    def root(self) -> str:
        """The folder, as an address."""
        return f"file://{quote(self.folder.as_posix())}"

    @property
    def source_name(self) -> str:
        """The folder's name among the sources of the catalog, where it is no other source's."""
        return f"{self.get_block_type_slug()}:{clean_text(decode_name(os.fsencode(self.folder)))}"

    def list_files(self) -> Listing:
        """Return every file whose writer has finished, sidecars aside: they go with their pictures."""
        return make_listing(self._iter_settled(datetime.now(UTC).timestamp()))

    def list_page(self, mark: str | None) -> Page:
        """Return what lies there now; what was moved away is not gone."""
        del mark
        return Page(self.list_files(), is_start=False)

    def download(self, file: RemoteFile, destination: Path) -> Fetched:
        """Copy `file` whole to `destination`; what its folder or sidecar says wrong is its refusal."""
        path, sidecar = self.find_paths(file)
        camera = self.camera_id or (file.key.partition("/")[0] if "/" in file.key else "")
        if not is_camera_id(camera):
            raise SourceRefused(
                "It lies in no folder named after its camera (1 to 100 letters, digits, dots, dashes, underscores): "
                "move it into one, or give camera_id.",
                reason=Reason.BAD_METADATA,
            )
        meta = UploadMeta() if sidecar is None else _read_sidecar(sidecar)
        name = clean_text(decode_name(path.rpartition(b"/")[2]))
        noted = {"request_id": self.request_id, "original_name": name}
        return copy_whole(
            file, path, destination, self.max_file_bytes, meta.to_claims(camera, TimeWitness.CAMERA, **noted)
        )

    def find_paths(self, file: RemoteFile) -> tuple[bytes, bytes | None]:
        """Return where a listed file and its sidecar lie."""
        path, sidecar = json.loads(file.locator or "")
        root = os.fsencode(self.folder) + b"/"
        return root + unquote_to_bytes(path), None if sidecar is None else root + unquote_to_bytes(sidecar)

    def _iter_settled(self, now: float) -> Iterator[RemoteFile]:
        found = {find_path(file): file for file in LocalRemote(self.folder).walk(None)}
        root = os.fsencode(self.folder) + b"/"
        for path, file in sorted(found.items()):
            if _is_sidecar(path) or not self._is_taken(file.key) or os.path.islink(root + path):  # noqa: PTH114 - bytes
                continue
            sidecar = next((name for name in _name_sidecars(path) if name in found), None)
            try:
                states = [read_state(root + name) for name in (path, sidecar) if name is not None]
            except (SourceRefused, SourceUnavailable):  # gone since it was listed
                continue
            if all(self._is_settled(state, now) for state in states):
                yield RemoteFile(
                    key=file.key + _missing_suffix(file.key, root + path),
                    size=states[0].size,
                    modified=states[0].modified,
                    validator="+".join(state.name for state in states),
                    locator=json.dumps([quote(path), None if sidecar is None else quote(sidecar)]),
                )

    def _is_taken(self, key: str) -> bool:
        if key.partition("/")[0] in {ACCEPTED, REJECTED} and "/" in key:
            return False
        is_asked_for = not self.include or any(fnmatchcase(key, glob) for glob in self.include)
        return is_asked_for and not any(fnmatchcase(key, glob) for glob in self.exclude)

    def _is_settled(self, state: LocalState, now: float) -> bool:
        # Either way: a clock that is ahead must not hide its files for ever.
        return abs(now - state.changed_at) >= self.settle_seconds


def _is_sidecar(path: bytes) -> bool:
    return path.lower().endswith(b".json")


def _name_sidecars(path: bytes) -> list[bytes]:
    """Return what the sidecar of the file at `path` may be called, best first."""
    folder, slash, name = path.rpartition(b"/")
    stem = name.rpartition(b".")[0] or name
    return [path + b".json", folder + slash + stem + b".json"]


def _read_sidecar(path: bytes) -> UploadMeta:
    name = decode_name(path.rpartition(b"/")[2])
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes no bytes
            content = file.read(4 * MAX_JSON_BYTES + 1)
    except OSError as error:
        raise translate_local_error(error, name) from error
    return read_sidecar(content, name)


def _missing_suffix(key: str, path: bytes) -> str:
    return "" if key.rpartition(".")[2].lower() in DEFAULT_SUFFIXES else guess_suffix(path)
