"""`catchment sources`: saved sources, shown, added, paused, resumed and removed."""

import getpass
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from blocks import _catalog_queries
from blocks._errors import CatchmentError, WrongUse
from blocks._schema import FileState
from blocks.source import ImageSource
from flows._table import Row, print_fields, print_rows
from flows.cli_options import Format, Library, explain, open_library
from flows.cli_server import await_api
from tasks.sources import SOURCE_KINDS, classes_of, list_source_names, load_source, load_sources, refers_to_block

Name = Annotated[str, Parameter(help="A saved source, such as http-directory/garden.")]

_COLUMNS = ("source", "active", "last_status", "last_pull_timestamp", "last_pulled_filename", "stored", "failed",
            "quarantined", "vanished", "root", "message")  # fmt: skip
_LAST = ("last_status", "last_message", "last_listed_at", "last_pull_timestamp", "last_pulled_filename")

_NAME = re.compile(r"[a-z0-9-]+")  # as Prefect wants it of a Block document

sources = App(name="sources", result_action="return_value")
add = App(name="add", help="Save a source under a name.", result_action="return_value")
sources.command(add)


@sources.default
def list_sources(*, library: Library = None, style: Format = "table") -> int:
    """Show every source, saved or once taken from, with its last pull and how its files stand in the library."""
    await_api()
    saved, broken = load_sources()
    known = _read_catalog(library)
    told: dict[str, tuple[bool | None, str | None, str | None]] = {
        name: (None, row["root"], "not saved") for name, row in known.items()
    }
    told |= {place.source_name: (place.is_active, place.root, None) for place in saved}
    told |= {name: (None, None, str(error)) for name, error in broken.items()}
    rows = (
        {"source": name, "active": active, "root": root, "message": message} | _describe_pulls(known.get(name))
        for name, (active, root, message) in sorted(told.items())
    )
    print_rows(rows, _COLUMNS, style=style)
    if not (saved or broken):
        print("No source is saved: add one with catchment sources add.", file=sys.stderr)  # noqa: T201
    return 0


def _read_catalog(wanted: str | None) -> dict[str, Row]:
    """Return what the library's catalog knows of each source, by name.

    Raises:
        CatchmentError: a library was named and can not be read; the default one is told of and passed by.
    """
    try:
        home = open_library(wanted, must_exist=wanted is not None)
        return {row["name"]: row for row in _catalog_queries.list_sources(home.catalog())} if home.has_catalog else {}
    except CatchmentError as error:
        if wanted is not None:
            raise
        print(f"warning: what came from them is not shown: {error}", file=sys.stderr)  # noqa: T201
        return {}


def _describe_pulls(known: Row | None) -> dict[str, object]:
    """Return the last pull of a source and how many of its files stand how; nothing where none ever came."""
    if known is None:
        return dict.fromkeys([*_LAST, *FileState, "vanished"])
    return {**{name: known[name] for name in _LAST}, **known["files"], "vanished": known["vanished"]}


@sources.command
def show(name: Name, /, *, style: Format = "table") -> int:
    """Show one saved source; secrets are masked."""
    await_api()
    source = load_source(name)
    fields = {field: _masked(getattr(source, field)) for field in _iter_fields(type(source))}
    print_fields({"source": source.source_name, "root": source.root} | fields, style=style)
    return 0


@sources.command
def pause(name: Name, /) -> int:
    """Let runs pass the source by until it is resumed."""
    return _set_active(name, is_active=False)


@sources.command
def resume(name: Name, /) -> int:
    """Let runs take from the source again."""
    return _set_active(name, is_active=True)


@sources.command
def remove(name: Name, /, *, yes: Annotated[bool, Parameter(negative="", help="Do not ask.")] = False) -> int:
    """Remove a saved source; what came from it stays in the library and the catalog."""
    await_api()
    if name not in list_source_names():  # not loaded: what is not valid any more can be removed, too
        raise WrongUse(f"There is no saved source {name}; see: catchment sources")
    if not yes:
        if not sys.stdin.isatty():
            raise WrongUse(f"Removing {name} asks first, and nobody is there to answer: say --yes.")
        if input(f"Remove {name}? What came from it stays. [y/N] ").strip().lower() not in {"y", "yes"}:
            raise WrongUse(f"{name} was left as it is.")
    slug, _, document = name.partition("/")
    with get_client(sync_client=True) as client:
        client.delete_block_document(client.read_block_document_by_name(document, slug, include_secrets=False).id)
    print(f"{name} is removed")  # noqa: T201
    return 0


def _set_active(name: str, *, is_active: bool) -> int:
    await_api()
    source = load_source(name)
    source.is_active = is_active
    _save(source, source._block_document_name or "", overwrite=True)
    print(f"{name} is {'active' if is_active else 'paused'}")  # noqa: T201
    return 0


def _save(source: ImageSource, name: str, *, overwrite: bool) -> None:
    type(source).register_type_and_schema()
    source.save(name, overwrite=overwrite)


def _iter_fields(kind: type[Block]) -> Iterator[str]:
    return (name for name in kind.model_fields if not name.startswith("_"))


def _masked(value: object) -> object:
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, Block):
        return f"{value.get_block_type_slug()}/{value._block_document_name}"
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _make_add(kind: type[ImageSource]) -> Callable[..., int]:
    """Return the command that saves a source of `kind`: its options are the fields of the Block."""

    def add_source(name: str, /, *, overwrite: bool = False, **given: Any) -> int:
        if not _NAME.fullmatch(name):
            raise WrongUse("A source's name has lower-case letters, digits and dashes, such as garden-2.")
        values = {field: value for field, value in given.items() if value is not None}
        for field in [field for field in values if field not in kind.model_fields]:
            secret = field.removesuffix("_file")
            values[secret] = _read_secret(secret, values.pop(field))
        for field in kind.model_fields:
            if _is_secret(kind.model_fields[field]) and (variable := os.environ.get(f"CATCHMENT_{field.upper()}")):
                values.setdefault(field, variable)
        await_api()
        for field in [field for field in values if refers_to_block(kind.model_fields[field])]:
            values[field] = _load_block(values[field])
        try:
            source = kind(**values)
        except ValidationError as error:
            raise WrongUse(explain(error)) from None
        if not overwrite and f"{kind.get_block_type_slug()}/{name}" in list_source_names():
            raise WrongUse(f"There is a source {kind.get_block_type_slug()}/{name} already: --overwrite replaces it.")
        _save(source, name, overwrite=overwrite)
        print(f"saved {source.source_name}; bring its images with: {source.command} {source.source_name}")  # noqa: T201
        return 0

    help_of_name = "Name of the source: lower-case letters, digits and dashes."
    parameters = [
        inspect.Parameter(
            "name", inspect.Parameter.POSITIONAL_ONLY, annotation=Annotated[str, Parameter(help=help_of_name)]
        ),
        inspect.Parameter(
            "overwrite",
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, Parameter(negative="", help="Replace a source of that name.")],
        ),
        *(_make_option(name, kind.model_fields[name]) for name in _iter_fields(kind)),
    ]
    add_source.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    add_source.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    told = (kind.__doc__ or "").splitlines()[0]
    add_source.__doc__ = f"Save {told[:1].lower()}{told[1:]}"
    return add_source


def _make_option(name: str, field: FieldInfo) -> inspect.Parameter:
    """Return the option for one field of a Block; a secret's is a file, as anybody may read a command line."""
    hint: Any = field.annotation
    text = field.description or ""
    if _is_secret(field):
        name = f"{name}_file"
        hint = Path | None
        text = f"File with it, - asks for it (or reads standard input); else CATCHMENT_{name[:-5].upper()}. {text}"
    elif refers_to_block(field):
        hint, text = str | None, f"{text} Name a saved Block: type-slug/name."
    default = None if field.default is PydanticUndefined or field.default_factory else field.default
    if field.is_required():
        default = inspect.Parameter.empty
    elif default is None and hint is not None:
        hint = hint | None
    # A lone dash, standard input, would be taken for an option.
    option = Parameter(help=text, allow_leading_hyphen=_is_secret(field))
    annotation = Annotated[hint, *field.metadata, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr in classes_of(field.annotation)


def _read_secret(field: str, path: Path) -> str:
    if str(path) == "-":
        if sys.stdin.isatty():
            return getpass.getpass(f"{field.replace('_', ' ')}: ")
        return sys.stdin.read().rstrip("\r\n")
    try:
        return path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(f"The file for {field} can not be read ({type(error).__name__}): name another.") from error


def _load_block(name: str) -> Block:
    try:
        return Block.load(name)  # type: ignore[return-value] # in sync code it is no coroutine
    except (ValueError, RuntimeError):  # the latter: what is saved is not valid any more, and its cause quotes it
        raise WrongUse(f"There is no usable saved Block {name}; write it as type-slug/name.") from None


for _kind in SOURCE_KINDS:
    add.command(_make_add(_kind), name=_kind.get_block_type_slug())
