"""The library: accepted images, the catalog that knows them, and the folders work is done in."""

import os
import threading
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Self, cast

from prefect.blocks.core import Block
from prefect.runtime import deployment, flow_run
from prefect_aws import AwsCredentials, MinIOCredentials, S3Bucket
from pydantic import ConfigDict, Field, SecretStr, field_validator

from blocks._catalog import Catalog, open_catalog
from blocks._database import has_schema
from blocks._errors import CatchmentError, LibraryRefused
from blocks._layout import HIDDEN_FOLDER, make_safe_segment
from blocks._local_storage import LocalStorage
from blocks._s3 import S3_ERRORS, make_client
from blocks._s3_storage import S3Storage, translate_library_error
from blocks._storage import Storage, hash_stream, translate_disk

DEFAULT_VARIABLE = "CATCHMENT_LIBRARY"

# One catalog a process and address: its engine pools connections, and Blocks are copied and pickled freely.
_catalogs: dict[tuple[int, str | Path], Catalog] = {}
_catalogs_lock = threading.Lock()


class ImageLibrary(Block):
    """Where accepted images and their history are kept.

    Without a bucket everything lies in `folder`; with one the images and thumbnails lie there, and `folder` holds what
    is being worked on, what was refused, and the catalog unless `catalog_url` names a database.

    Example:
        library = ImageLibrary.load("BLOCK_NAME")
    """

    _block_type_name = "Image Library"
    _block_type_slug = "image-library"  # saved documents hang on it: never rename

    # A refused catalog_url may hold a password, which pydantic would quote.
    model_config = ConfigDict(hide_input_in_errors=True)

    folder: Path = Field(
        default=Path("library"),
        description="Folder on this machine; `~` is your home; a deployment needs an absolute one.",
    )
    bucket: S3Bucket | None = Field(
        default=None, description="Keep images and thumbnails in this bucket; its folder becomes theirs."
    )
    catalog_url: SecretStr | None = Field(
        default=None,
        description="Catalog database, `postgresql://user:password@host/name`; empty: SQLite in the folder.",
    )

    @field_validator("catalog_url")
    @classmethod
    def _known_database(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None or not url.get_secret_value().strip():
            return None
        scheme, separator, rest = url.get_secret_value().strip().partition("://")
        backend = scheme.partition("+")[0]
        if separator and backend in {"postgres", "postgresql"}:
            return SecretStr(f"postgresql+psycopg://{rest}")
        if separator and backend == "sqlite":
            return url
        raise ValueError("catalog_url starts with postgresql:// or sqlite:///, or is empty")

    @classmethod
    def default(cls) -> Self:
        """Return the library that `CATCHMENT_LIBRARY` names: a folder, or `image-library/name`; else ./library.

        Raises:
            LibraryRefused: there is no such Block; or nothing is named and this run came from a deployment.
        """
        wanted = os.environ.get(DEFAULT_VARIABLE, "").strip()
        if not wanted and _is_deployed():
            raise LibraryRefused(
                f"A run of a deployment needs to be told where its library is: set {DEFAULT_VARIABLE} for the worker, "
                "or give the run an Image Library Block."
            )
        slug, slash, name = wanted.partition("/")
        if not (slash and slug == cls.get_block_type_slug()):
            return cls(folder=Path(wanted)) if wanted else cls()
        try:
            return cast("Self", cls.load(name, _sync=True))  # type: ignore[call-arg] # of Prefect's async_dispatch
        except ValueError as error:
            raise LibraryRefused(
                f"There is no saved Block {wanted!r}; save it, or let {DEFAULT_VARIABLE} name a folder."
            ) from error

    @property
    def location(self) -> str:
        """Where the images lie, without any credential."""
        if self.bucket is None:
            return self._root.as_posix()
        return f"s3://{self.bucket.bucket_name}/{self.bucket.bucket_folder.strip('/')}".rstrip("/")

    @property
    def has_catalog(self) -> bool:
        """Tell whether there is a catalog, making none; True where that can not be told, and opening it tells why."""
        try:
            return has_schema(self._catalog_place)
        except CatchmentError:
            return True

    def catalog(self) -> Catalog:
        """Return the catalog, opened once a process and brought to its newest form; threads share it.

        Raises:
            LibraryUnavailable: the database does not answer.
            LibraryRefused: it can not be used.
        """
        place = self._catalog_place
        if self.catalog_url is None:
            self._open_folder()
        with _catalogs_lock:
            catalog = _catalogs.get((os.getpid(), place))
            if catalog is None:
                catalog = _catalogs[os.getpid(), place] = open_catalog(place)
        return catalog

    def storage(self) -> Storage:
        """Return where the images lie; threads share it.

        Raises:
            LibraryRefused: the folder can not be written to, or the bucket's credentials are unusable.
        """
        if self.bucket is None:
            self._open_folder()
            return LocalStorage(self._root)
        return _open_bucket(self.bucket.credentials, self.bucket.bucket_name, self.bucket.bucket_folder)

    def staging_folder(self, source_folder: str) -> Path:
        """Return the folder where files of one source wait until they are accepted; made where there is none."""
        folder = self._open_folder() / "staging" / make_safe_segment(source_folder)
        return _make_folder(folder)

    def count_spooled(self) -> tuple[int, datetime | None]:
        """Return how many frames of live cameras wait to be stored, and since when the oldest of them does (UTC)."""
        waiting = (self._root / HIDDEN_FOLDER / "spool").glob("*/**/*.[jp][pn]g")
        times = []
        for path in waiting:
            with suppress(FileNotFoundError):  # it has just been stored
                times.append(path.stat().st_mtime)
        return len(times), datetime.fromtimestamp(min(times), UTC) if times else None

    def spool_folder(self, source_folder: str) -> Path:
        """Return the folder where a live camera's frames wait until they are stored; made where there is none."""
        return _make_folder(self._open_folder() / "spool" / make_safe_segment(source_folder))

    def quarantine(self, path: Path, key: str, reason: str) -> str:
        """Move the file at `path` out of the way, whole and unchanged, and return where it lies within `folder`.

        `reason` becomes its folder there, a hash of its bytes and the last segment of `key` its name. The same bytes
        refused twice under one name are kept once.
        """
        try:
            with path.open("rb") as file:
                digest, size = hash_stream(file), file.tell()
        except OSError as error:
            raise translate_disk(error, path.name) from error
        pen = LocalStorage(_make_folder(self._open_folder() / "quarantine"))
        # One flat folder: a site may have both x.jpg and x.jpg/y.jpg, a disk can not.
        name = make_safe_segment(f"{digest[:16]}-{key.rpartition('/')[2]}")
        kept = pen.put_file(path, f"{make_safe_segment(reason)}/{name}", sha256=digest, size=size)
        return f"{HIDDEN_FOLDER}/quarantine/{kept}"

    @property
    def _root(self) -> Path:
        folder = self.folder.expanduser()
        if not folder.is_absolute() and _is_deployed():
            # A process worker runs flows in a folder that it deletes: https://docs.prefect.io/v3/concepts/workers
            raise LibraryRefused(
                f"A run of a deployment would lose a library in the relative folder {folder}: give it an absolute path."
            )
        return folder.absolute()

    @property
    def _catalog_place(self) -> str | Path:
        """A URL, or the path of an SQLite file: a folder's name may hold what a URL may not."""
        if self.catalog_url is not None:
            return self.catalog_url.get_secret_value()
        return self._root / HIDDEN_FOLDER / "catalog.sqlite"

    def _open_folder(self) -> Path:
        """Return the library's own folder in `folder`, proven to be writable."""
        hidden = _make_folder(self._root / HIDDEN_FOLDER)
        if not os.access(hidden, os.W_OK | os.X_OK):
            raise LibraryRefused(f"This user may not write to the library folder {self._root}; give it the right to.")
        return hidden


def _is_deployed() -> bool:
    """Tell whether this is a run of a deployment; outside of runs it costs nothing, in one a request once."""
    run_id = flow_run.id
    return bool(deployment.id) if run_id is None else _is_run_deployed(run_id)


@lru_cache(maxsize=64)
def _is_run_deployed(_run_id: str) -> bool:
    return bool(deployment.id)


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise translate_disk(error, str(folder)) from error
    return folder


@lru_cache(maxsize=8)
def _open_bucket(credentials: AwsCredentials | MinIOCredentials, bucket: str, folder: str) -> S3Storage:
    # A boto3 client takes 50 ms to make, may be used by many threads, and can not be pickled.
    try:
        client = make_client(
            credentials.get_boto3_session(),
            credentials.aws_client_parameters.get_params_override(),
            region=credentials.region_name,
        )
    except S3_ERRORS as error:
        raise translate_library_error(error, f"bucket {bucket}") from error
    except ValueError as error:
        raise LibraryRefused(f"The server of bucket {bucket} has no usable address; check endpoint_url.") from error
    return S3Storage(client, bucket, folder)
