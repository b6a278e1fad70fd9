"""Make catchment's Blocks known to a Prefect server, and save the documents that the environment describes.

The limit of cameras that are read at once, `rtsp-streams`, is made too: 10, where nobody has set it otherwise
(`prefect gcl update rtsp-streams --limit 20`).

A variable names the Block type, the document and one field of it, with two underscores between them:

    CATCHMENT_HTTP_DIRECTORY__HAMELN__BASE_URL=https://cameras.example.org/hameln/
    CATCHMENT_HTTP_DIRECTORY__HAMELN__AUTH_TYPE=basic
    CATCHMENT_HTTP_DIRECTORY__HAMELN__AUTH_USERNAME=reader
    CATCHMENT_HTTP_DIRECTORY__HAMELN__AUTH_PASSWORD=…

saves `http-directory/hameln`. The types are those of `BLOCK_TYPES`, upper case with underscores (HTTP_DIRECTORY,
REMOTE_FOLDER, IMAGE_LIBRARY, AWS_CREDENTIALS, MINIO_CREDENTIALS, S3_BUCKET, …); the fields are the Block's own. Lists
and objects are written as JSON, another saved Block as `slug/document` (`minio-credentials/archive`).

Run it as often as you like: fields that no variable names keep what was saved. Values are never printed.
"""

import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect_aws import AwsCredentials, MinIOCredentials, S3Bucket
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from blocks._errors import CatchmentError, WrongUse
from blocks.library import ImageLibrary
from tasks.sources import SOURCE_KINDS, classes_of, refers_to_block
from tasks.streams import ensure_streams_limit

_REFERRED_TO = dict.fromkeys(
    part
    for kind in SOURCE_KINDS
    for field in kind.model_fields.values()
    for part in classes_of(field.annotation)
    if isinstance(part, type) and issubclass(part, Block)
)

BLOCK_TYPES: tuple[type[Block], ...] = tuple(
    dict.fromkeys((AwsCredentials, MinIOCredentials, S3Bucket, ImageLibrary, *_REFERRED_TO, *SOURCE_KINDS))
)
"""Every Block type that catchment uses; one that others refer to stands before them."""

_VARIABLE = re.compile(r"CATCHMENT_([A-Z0-9]+(?:_[A-Z0-9]+)*)__([A-Z0-9]+(?:_[A-Z0-9]+)*)__([A-Z0-9]+(?:_[A-Z0-9]+)*)")


def register_types() -> None:
    """Make every Block type known to the configured Prefect server; types it knows are brought up to date."""
    for kind in BLOCK_TYPES:
        kind.register_type_and_schema()


def save_documents(environment: Mapping[str, str]) -> list[str]:
    """Save the documents that `environment` describes and return one line about each, without any value.

    Raises:
        WrongUse: a variable names an unknown type or field, or its value is not valid; documents before it are saved.
    """
    documents = _read_environment(environment)
    return [
        _save_document(kind, name, values)
        for kind in BLOCK_TYPES
        for name, values in sorted(documents.get(kind, {}).items())
    ]


def _read_environment(environment: Mapping[str, str]) -> dict[type[Block], dict[str, dict[str, str]]]:
    """Return the values of each document's fields, by type and document name."""
    kinds = {kind.get_block_type_slug().upper().replace("-", "_"): kind for kind in BLOCK_TYPES}
    found: dict[type[Block], dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for variable, value in environment.items():
        match = _VARIABLE.fullmatch(variable)
        if match is None:
            continue
        if match[1] not in kinds:
            raise WrongUse(f"{variable}: there is no Block type {match[1]}; there are: {', '.join(kinds)}.")
        kind, document, field = kinds[match[1]], match[2].lower().replace("_", "-"), match[3].lower()
        if field not in kind.model_fields:
            raise WrongUse(
                f"{variable}: there is no field {match[3]}; there are: {', '.join(kind.model_fields).upper()}."
            )
        found[kind][document][field] = value
    return found


def _save_document(kind: type[Block], name: str, values: Mapping[str, str]) -> str:
    slug = kind.get_block_type_slug()
    given = {field: _parse_value(kind, name, field, value) for field, value in values.items()}
    try:
        block = kind.model_validate({**_load_fields(kind, name), **given})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        # from None: pydantic's own text quotes the values, and a password may be one
        raise WrongUse(f"{slug}/{name} can not be saved from the environment: {faults}.") from None
    block.save(name, overwrite=True)
    return f"saved {slug}/{name} ({', '.join(sorted(values))})"


def _load_fields(kind: type[Block], name: str) -> dict[str, Any]:
    """Return what is saved of a document: nothing where there is none, and no field that is not valid any more."""
    try:
        saved = kind.load(name)
    except RuntimeError as error:  # Prefect raises it from what pydantic found
        if not isinstance(error.__cause__, ValidationError):
            raise
        # The environment may mend the document, so what is wrong with it is no reason to stop.
        spoilt = {fault["loc"][0] for fault in error.__cause__.errors(include_input=False) if fault["loc"]}
    except ValueError:
        return {}
    else:
        return {field: getattr(saved, field) for field in kind.model_fields}
    with get_client(sync_client=True) as client:
        document = client.read_block_document_by_name(name, kind.get_block_type_slug())
    sound = kind.model_fields.keys() - spoilt
    return {field: value for field, value in document.data.items() if field in sound}


def _parse_value(kind: type[Block], document: str, field: str, value: str) -> Any:
    """Return what a variable's text means for `field`; pydantic turns plain text into numbers, flags and secrets."""
    annotation = kind.model_fields[field]
    if (slug_and_name := re.fullmatch(r"([a-z0-9-]+)/([a-z0-9-]+)", value)) and refers_to_block(annotation):
        try:
            return Block.load(value)
        except (ValueError, RuntimeError):  # the latter: it is not valid any more, and its cause quotes what it holds
            reference = f"{document}: there is no usable saved Block {slug_and_name[0]} to be its {field}."
            raise WrongUse(reference) from None
    if value.lstrip()[:1] in ("[", "{") and _holds_structure(annotation):
        try:
            return json.loads(value)
        except json.JSONDecodeError as error:
            raise WrongUse(
                f"{kind.get_block_type_slug()}/{document}: {field} is not valid JSON ({error.msg})."
            ) from None
    return value


def _holds_structure(field: FieldInfo) -> bool:
    return any(
        part in (list, dict, tuple, set) or (isinstance(part, type) and hasattr(part, "model_fields"))
        for part in classes_of(field.annotation)
    )


def main() -> int:
    """Register every type, save what the environment describes, and tell what was done; return the exit code."""
    try:
        register_types()
        ensure_streams_limit()
        lines = save_documents(os.environ)
    except CatchmentError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write("\n".join([f"registered {len(BLOCK_TYPES)} Block types", *lines]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
