"""The contract every source keeps: list what is there, bring one file whole."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, ClassVar, Self

import polars as pl
from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, PrivateAttr, field_validator

from blocks._layout import check_layout
from blocks._records import Fetched, Listing, Page, RemoteFile

DEFAULT_SUFFIXES = ["jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff", "heic", "avif"]
DEFAULT_LAYOUT = "{source}/{captured:%Y-%m-%d}/{name}"


class _Slots(BoundedSemaphore):
    """The places of a run: a copy of its Block shares them, a pickled one has none, as if never connected."""

    is_closed = False

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()


class ImageSource(Block, ABC):
    """A configured place images come from.

    A subclass says where (`root`), lists (`list_files`) and brings one file (`download`); everything else
    of an ingest is the same for every source. While `connected()` is entered, `download` is called from up to
    `connections` threads at once.
    """

    # A validation error quotes its input otherwise, and with it a password.
    model_config = ConfigDict(hide_input_in_errors=True)

    is_active: bool = Field(default=True, description="Whether scheduled runs take from this source.")
    location: str | None = Field(default=None, description="Name of the place where the images are taken.")
    owner: str | None = Field(default=None, description="Whose images these are.")
    include: list[str] = Field(
        default_factory=list, description="Take only keys that match one of these globs (`2026-*/IMG_*`); empty: all."
    )
    exclude: list[str] = Field(default_factory=list, description="Leave keys that match one of these globs.")
    suffixes: list[str] = Field(
        default_factory=lambda: list(DEFAULT_SUFFIXES), description="Endings of image file names, without the dot."
    )
    layout: str = Field(
        default=DEFAULT_LAYOUT,
        description="Place in the library, of {source}, {captured:%Y-%m-%d}, {name}, {key}, {camera}, {sha256}.",
    )
    max_file_bytes: int = Field(default=50_000_000, ge=1, description="Largest file to take, in bytes.")
    connections: int = Field(default=4, ge=1, le=64, description="Most connections to the source at once.")

    files_together: ClassVar[int] = 1
    """So many files, where there are as many, go through one task: more than one where they come often."""

    is_live: ClassVar[bool] = False
    """Whether its images are asked for by time: runs over all sources pass it by, it has a flow of its own."""

    command: ClassVar[str] = "catchment ingest"
    """What a person types before its name to take images from it."""

    _slots: _Slots | None = PrivateAttr(default=None)

    @classmethod
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
        """Return the schema of the form, a kind's own fields before those that all sources share."""
        schema = super().model_json_schema(*args, **options)
        fields = schema.get("properties", {})
        shared = {name: fields[name] for name in fields if name in ImageSource.model_fields}
        return schema | {"properties": {name: fields[name] for name in fields if name not in shared} | shared}

    @field_validator("suffixes")
    @classmethod
    def _bare_suffixes(cls, suffixes: list[str]) -> list[str]:
        return [suffix.strip().lower().removeprefix("*").removeprefix(".") for suffix in suffixes]

    @field_validator("layout")
    @classmethod
    def _usable_layout(cls, layout: str) -> str:
        return check_layout(layout)

    @classmethod
    def of_link(cls, link: str) -> Self | None:
        """Return the source that a link which people share names; None where it is no link of this kind.

        Raises:
            WrongUse: it is one, and can not be used as things stand; the message says what to do.
        """
        del link
        return None

    @property
    @abstractmethod
    def root(self) -> str:
        """Where the source is, without any credential: what people and the catalog see."""

    @property
    def kind(self) -> str:
        """What kind of source it is, as the catalog has it: the type of its Block."""
        return self.get_block_type_slug()

    @property
    def source_name(self) -> str:
        """The source's name in the catalog: `slug/document` when saved as a Block, else its root."""
        document = self._block_document_name
        return f"{self.get_block_type_slug()}/{document}" if document else self.root

    @property
    def folder_name(self) -> str:
        """The source's name as one safe path segment, for layouts."""
        name = self._block_document_name or re.sub(r"^[a-z0-9+]+://", "", self.root)
        return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "source"

    def is_wanted(self, key: str) -> bool:
        """Tell whether `key` is an image by its suffix and passes the include and exclude globs."""
        return (
            key.rpartition(".")[2].lower() in self.suffixes
            and "." in key
            and (not self.include or any(fnmatchcase(key, glob) for glob in self.include))
            and not any(fnmatchcase(key, glob) for glob in self.exclude)
        )

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Hold connections open for the length of a run; without it each verb opens and closes its own."""
        self._slots = _Slots(self.connections)
        try:
            yield
        finally:
            self._slots = None

    def stop(self) -> None:
        """Let no further download of this run begin."""
        if self._slots is not None:
            self._slots.is_closed = True

    @property
    def is_stopped(self) -> bool:
        """Tell whether this run's downloads were stopped."""
        return self._slots is not None and self._slots.is_closed

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the `connections` places of a run while a file is downloaded."""
        with self._slots or nullcontext():
            yield

    def try_out(self) -> str:
        """Reach the source once, with its credentials, and return in a few words what it answers.

        Raises:
            SourceUnavailable, SourceRefused: it can not be taken from as things stand.
        """
        return f"lists {len(self.list_files())} files"

    @abstractmethod
    def list_files(self) -> Listing:
        """Return every wanted file of the source, or raise; never a part of them.

        Raises:
            SourceUnavailable: no listing could be had now.
            SourceRefused: the source answered with something that is no listing, or denied it.
        """

    def list_page(self, mark: str | None) -> Page:
        """Return what comes after `mark`, or with None the beginning: for most sources everything at once.

        A source that lists in pages, or can tell what changed, overrides this. A `mark` that is no longer good starts
        over.

        Raises:
            SourceUnavailable, SourceRefused: as `list_files`.
        """
        del mark
        return Page(self.list_files())

    @abstractmethod
    def download(self, file: RemoteFile, destination: Path) -> Fetched:
        """Bring `file` whole to `destination`, through `destination.part`; harmless to repeat.

        Raises:
            SourceUnavailable: the file may still come.
            SourceRefused: it will not as things stand.
        """


def list_all_pages(source: ImageSource) -> Listing:
    """Return everything that a source lists page by page, as one listing; a key that came twice counts as it came last.

    Raises:
        SourceUnavailable, SourceRefused: one of the pages could not be had.
    """
    pages = [page := source.list_page(None)]
    while not page.is_last:
        page = source.list_page(page.mark)
        if page.is_start:  # the cursor was refused on the way
            pages.clear()
        pages.append(page)
    return pl.concat([page.files for page in pages]).unique("key", keep="last", maintain_order=True)
