"""The saved sources: Blocks of every kind of source, as Prefect keeps them."""

from collections.abc import Iterator
from glob import escape
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin
from urllib.parse import unquote

from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from blocks._errors import CatchmentError, WrongUse
from blocks.dropbox_folder import DropboxFolder
from blocks.google_drive import GoogleDriveFolder
from blocks.http_directory import HttpDirectory
from blocks.library import ImageLibrary
from blocks.remote_folder import RemoteFolder
from blocks.rtsp_camera import RtspCamera
from blocks.source import ImageSource
from blocks.terminal_camera import TerminalCamera

SOURCE_KINDS: tuple[type[ImageSource], ...] = (
    HttpDirectory,
    RemoteFolder,
    DropboxFolder,
    GoogleDriveFolder,
    RtspCamera,
    TerminalCamera,
)
"""Every kind of source there is; a new one adds itself here."""


def load_sources() -> tuple[list[ImageSource], dict[str, CatchmentError]]:
    """Return every saved source, by name, and for those that can not be loaded the reason why; one costs no other."""
    sources: list[ImageSource] = []
    broken: dict[str, CatchmentError] = {}
    for name in list_source_names():
        try:
            sources.append(load_source(name))
        except CatchmentError as error:
            broken[name] = error
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one source, the others have their turn
            # By its type alone: the text may quote what was saved.
            broken[name] = CatchmentError(
                f"The saved source {name} can not be loaded ({type(error).__name__}); edit it in the UI, or remove "
                f"it: catchment sources remove {name}"
            )
    return sources, broken


def list_source_names() -> list[str]:
    """Return the names (`slug/document`) of every saved source, in order."""
    with get_client(sync_client=True) as client:
        return sorted(
            f"{kind.get_block_type_slug()}/{name}" for kind in SOURCE_KINDS for name in _list_documents(client, kind)
        )


def _list_documents(client: SyncPrefectClient, kind: type[ImageSource]) -> list[str]:
    try:  # all at once: Prefect's API takes no limit and no offset here
        documents = client.read_block_documents_by_type(kind.get_block_type_slug(), include_secrets=False)
    except PrefectHTTPStatusError as error:
        if error.response.status_code == HTTPStatus.NOT_FOUND:  # this kind was never registered
            return []
        raise
    return [document.name for document in documents if document.name]


def load_source(name: str) -> ImageSource:
    """Load the saved source `slug/document`.

    Raises:
        WrongUse: there is none of that name, or what is saved no longer validates; the message says what to do.
    """
    slug, _, document = name.partition("/")
    kinds = {kind.get_block_type_slug(): kind for kind in SOURCE_KINDS}
    if slug not in kinds:
        raise WrongUse(f"There is no kind of source called {slug}; there are: {', '.join(kinds)}.")
    try:
        return cast("ImageSource", kinds[slug].load(document))
    except (ValidationError, RuntimeError) as error:  # Prefect raises the one from the other
        refusal = error if isinstance(error, ValidationError) else error.__cause__
        if not isinstance(refusal, ValidationError):
            raise
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in refusal.errors())
        raise WrongUse(f"The saved source {name} is not valid any more ({faults}); edit it in the UI.") from None
    except ValueError as error:
        raise WrongUse(f"There is no saved source {name}; see: catchment sources") from error


def keep_apart(source: ImageSource, library: ImageLibrary) -> None:
    """Let `source`, where it is a folder that the library lies in, leave out what is the library's.

    Raises:
        WrongUse: the source lies in the library, which would take its own images.
    """
    scheme, _, place = source.root.partition("://")
    if scheme != "file" or library.bucket is not None:
        return
    folder, home = Path(unquote(place)).resolve(), Path(library.location).resolve()
    if folder.is_relative_to(home):
        raise WrongUse(f"{folder} lies in the library {home}: take from another folder, or name another library.")
    if home.is_relative_to(folder):
        pattern = f"{escape(home.relative_to(folder).as_posix())}/*"
        source.exclude = [*source.exclude, *({pattern} - set(source.exclude))]


def refers_to_block(field: FieldInfo) -> bool:
    """Tell whether a Block's field holds another Block, which is named as `type-slug/name`."""
    return any(isinstance(part, type) and issubclass(part, Block) for part in classes_of(field.annotation))


def classes_of(annotation: Any) -> Iterator[Any]:
    """Yield the classes that an annotation is made of, through unions, generics and `Annotated`."""
    origin = get_origin(annotation)
    if origin is Literal:
        yield str
        return
    yield annotation if origin is None else origin
    for argument in get_args(annotation):
        yield from classes_of(argument)
