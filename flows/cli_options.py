"""What several commands take and do alike: options with their help from one place, the library, the API, a source."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from cyclopts import Parameter
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from blocks._errors import WrongUse
from blocks.library import DEFAULT_VARIABLE, ImageLibrary
from blocks.source import ImageSource
from flows.cli_server import SHARED_LINK, await_api

TABLE_LINES = 50
"""Most lines of a table where nobody says how many."""

F = TypeVar("F", bound=Callable[..., Any])

Library: TypeAlias = Annotated[
    str | None,
    Parameter(help=f"Library: a folder, or a saved image-library/NAME; else {DEFAULT_VARIABLE}, or ./library."),
]
Format: TypeAlias = Annotated[
    Literal["table", "json"], Parameter(name="--format", help="`json` prints one JSON object a line.")
]
Verbose: TypeAlias = Annotated[bool, Parameter(negative="", help="Show Prefect's log of the run too.")]
Limit: TypeAlias = Annotated[
    int | None, Parameter(help=f"Most lines to print; without it {TABLE_LINES} in a table, and all as JSON.")
]


def limit_lines(limit: int | None, style: str) -> int | None:
    """Return how many lines to print: a table is for people, JSON for programs that want everything."""
    return TABLE_LINES if limit is None and style == "table" else limit


def with_help(command: F) -> F:
    """Give each option of `command` the description of its pydantic Field as help, so that flows and commands agree."""
    hints = get_type_hints(command, include_extras=True)
    command.__annotations__ = {name: _add_help(hint) for name, hint in hints.items()}
    return command


def _add_help(hint: Any) -> Any:
    if get_origin(hint) is not Annotated:
        return hint
    texts = [part.description for part in get_args(hint) if isinstance(part, FieldInfo) and part.description]
    return Annotated[hint, Parameter(help=texts[0])] if texts else hint


def open_library(wanted: str | None, *, must_exist: bool = True) -> ImageLibrary:
    """Return the library a person named, or the default one.

    Raises:
        WrongUse: there is no such saved Block; or, with `must_exist`, nothing was ever stored there.
    """
    slug, _, name = (wanted or "").partition("/")
    if not wanted:
        if os.environ.get(DEFAULT_VARIABLE, "").startswith(f"{ImageLibrary.get_block_type_slug()}/"):
            await_api()
        library = ImageLibrary.default()
    elif slug == ImageLibrary.get_block_type_slug() and name:
        await_api()
        try:
            library = ImageLibrary.load(name)  # type: ignore[assignment] # in sync code it is no coroutine
        except (ValueError, RuntimeError):  # the latter: what is saved is not valid any more, and its cause quotes it
            text = f"There is no usable saved library {wanted}; save it in Prefect's UI, or name a folder."
            raise WrongUse(text) from None
    else:
        library = ImageLibrary(folder=Path(wanted))
    if must_exist and not library.has_catalog:
        raise WrongUse(
            f"There is no library in {library.folder} yet: name another with --library, or bring images into it with "
            "catchment ingest SOURCE."
        )
    return library


def open_source(wanted: str, recurse: int | None = None) -> ImageSource:
    """Return the source a person named: a saved `http-directory/name`, a link, an address, or a folder here.

    `recurse`: how many folders down to look, in place of what the source says.

    Raises:
        WrongUse: there is none; the message never repeats what may hold a password.
    """
    from blocks.http_directory import HttpDirectory
    from blocks.remote_folder import RemoteFolder
    from tasks.sources import SOURCE_KINDS, load_source

    scheme, separator, rest = wanted.partition("://")
    slug, slash, _ = wanted.partition("/")
    depth = {} if recurse is None else {"recurse_depth": recurse}
    if separator and "@" in rest.partition("/")[0]:
        raise WrongUse(
            "An address on the command line must not hold a user name or password: save the source with them by "
            "catchment sources add, then name it."
        )
    try:
        if SHARED_LINK.match(wanted):
            await_api()
            for kind in SOURCE_KINDS:
                if (linked := kind.of_link(wanted)) is not None:
                    return linked.model_copy(update=depth)
        if separator and scheme.lower() in {"http", "https"}:
            return HttpDirectory(base_url=wanted, **depth)
        if separator or Path(wanted).is_dir():
            return RemoteFolder(url=wanted, **depth)
    except ValidationError as error:
        raise WrongUse(explain(error)) from None
    if slash and slug in {kind.get_block_type_slug() for kind in SOURCE_KINDS}:
        await_api()
        source = load_source(wanted)
        for name, value in depth.items():
            setattr(source, name, value)
        return source
    raise WrongUse(
        f"{wanted!r} is no source: name a saved one (http-directory/NAME, see catchment sources), an address such as "
        "https://host/folder/, or a folder that exists."
    )


def explain(error: ValidationError) -> str:
    """Return what is wrong with somebody's values, without repeating them: some are secret."""
    faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_input=False))
    return "; ".join(re.sub(r"^: |Value error, ", "", fault) for fault in faults) + "."
