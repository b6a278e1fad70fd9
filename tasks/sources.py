"""The saved sources: Blocks of every kind of source, as Prefect keeps them."""

from http import HTTPStatus
from typing import cast

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError
from pydantic import ValidationError

from blocks._errors import CatchmentError, WrongUse
from blocks.http_directory import HttpDirectory
from blocks.remote_folder import RemoteFolder
from blocks.source import ImageSource

SOURCE_KINDS: tuple[type[ImageSource], ...] = (HttpDirectory, RemoteFolder)
"""Every kind of source there is; a new one adds itself here."""


def load_sources() -> tuple[list[ImageSource], dict[str, CatchmentError]]:
    """Return every saved source, by name, and for those that can not be loaded the reason why."""
    sources: list[ImageSource] = []
    broken: dict[str, CatchmentError] = {}
    for name in list_source_names():
        try:
            sources.append(load_source(name))
        except CatchmentError as error:
            broken[name] = error
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
