"""What a request to take uploaded files asks for, made into a source that an ingest can run over."""

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from blocks._errors import SourceRefused, SourceUnavailable, WrongUse
from blocks._remote import LocalRemote, find_path
from blocks._upload_meta import UploadMeta, explain_meta, is_camera_id
from blocks.uploaded_files import UploadedFiles

MAX_FILE_BYTES = 50_000_000
MAX_FILES = 10
WAIT_SECONDS = 300.0
"""How long a request waits for another one of the same camera to end."""


def open_upload(
    camera_id: str,
    files: Sequence[str] | None,
    folder: str | None,
    meta: UploadMeta | None,
    *,
    request_id: str,
    max_file_bytes: int,
    max_files: int,
) -> UploadedFiles:
    """Return the request as a source; a file that can not be taken stays in it, to be told so.

    `files`: paths, or `folder`: every image in it and below, in the order of names.

    Raises:
        WrongUse: neither or both are given, the folder can not be listed, or the camera's name is none.
    """
    require_camera_id(camera_id)
    meta = meta or UploadMeta()
    if (not files) == (folder is None):
        raise WrongUse("Name the files to hand over, or the folder they lie in: one of the two.")
    request = UploadedFiles(
        camera_id=camera_id,
        request_id=request_id,
        meta=meta,
        location=meta.location,
        max_files=max_files,
        max_file_bytes=max_file_bytes,
    )
    paths: list[str | bytes] = [*(files or [])] if folder is None else [*_list_images(request, folder)]
    if not paths:
        raise WrongUse(f"There is no image in the folder {folder}.")
    return request.with_files(paths)


def require_camera_id(camera_id: str) -> str:
    """Return `camera_id`, or raise WrongUse for what may not name a camera."""
    if not is_camera_id(camera_id):
        raise WrongUse(
            "camera_id is 1 to 100 letters, digits, dots, dashes and underscores of ASCII, the first neither a dot "
            "nor a dash, such as Haas_Pit_1."
        )
    return camera_id


def parse_meta(pairs: Sequence[str]) -> UploadMeta:
    """Return what `KEY=VALUE` pairs say.

    Raises:
        WrongUse: one is no pair, a key comes twice, or a value can not be; the message tells which.
    """
    said: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        key = key.strip()
        if not separator or not key:
            raise WrongUse(f"--meta takes KEY=VALUE, such as session=FP1; {pair[:60]!r} is no such pair.")
        if key in said:
            raise WrongUse(f"--meta names {key!r} twice; say it once.")
        said[key] = value
    try:
        return UploadMeta.model_validate(said)
    except ValidationError as error:
        raise WrongUse(f"--meta can not be used: {explain_meta(error)}") from None


def _list_images(request: UploadedFiles, folder: str) -> list[bytes]:
    root = Path(folder).expanduser().absolute()
    try:
        found = [file for file in LocalRemote(root).walk(None) if request.is_wanted(file.key)]
    except (SourceRefused, SourceUnavailable, ValueError) as error:
        raise WrongUse(f"The folder can not be listed: {error}") from error
    return [os.path.join(os.fsencode(root), find_path(file)) for file in sorted(found, key=lambda file: file.key)]  # noqa: PTH118
