"""Where an image lies in the library: from a layout a person wrote to a storage key that is safe everywhere.

A storage key is relative and "/"-separated, valid on Linux, macOS and Windows file systems and in S3, and never hidden:
names that start with a dot belong to catchment itself (`.catchment/`).
"""

import re
from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256 as digest
from pathlib import PurePosixPath
from string import Formatter

FIELDS = ("source", "captured", "name", "key", "camera", "sha256", "format")
NAMING_FIELDS = {"name", "key", "sha256"}

HIDDEN_FOLDER = ".catchment"
"""The library's own folder: staging, quarantine, thumbnails and the default catalog."""

MAX_SEGMENT_BYTES = 255
"""Longest file name on ext4, XFS, APFS and NTFS, counted in UTF-8."""

MAX_KEY_BYTES = 900
"""Of the 1,024 bytes S3 gives a key, less room for a bucket's folder and the mark of a collision."""

_DIRECTIVE = re.compile(r"%([A-Za-z%]?)")
_DIRECTIVES = frozenset("YmdHMSfjGVu%")
_PRECISION = re.compile(r"\.\d{1,2}")
_LONGEST_SUFFIX = 16

# Control characters, line separators, direction overrides and lone surrogates, and what Windows forbids in a name:
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff<>:"|?*\\/]')
_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|COM[0-9¹²³]|LPT[0-9¹²³])\s*(\.|$)", re.IGNORECASE)


def check_layout(template: str) -> str:
    """Return `template` when every image can be given a key by it.

    Raises:
        ValueError: it can not; the message names the mistake and lists the fields.
    """
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(_advice(f"braces do not match ({error})")) from error
    fields = {name for _, name, _, _ in pieces if name is not None}
    for _, name, spec, conversion in pieces:
        if name is not None and (mistake := _find_mistake(name, spec or "", conversion)):
            raise ValueError(_advice(mistake))
    literals = "".join(literal for literal, _, _, _ in pieces)
    if not fields & NAMING_FIELDS:
        raise ValueError(_advice("every image would get the same name: use {name}, {key} or {sha256}"))
    if template.startswith("/") or any(part in {".", ".."} for part in template.split("/")):
        raise ValueError(_advice("a layout is relative to the library and has no . or .. segments"))
    if _FORBIDDEN.search(literals.replace("/", "")):
        raise ValueError(_advice("it contains a character that some file systems do not take"))
    return template


def render_layout(
    template: str,
    *,
    source: str,
    key: str,
    name: str,
    captured: datetime,
    camera: str | None,
    sha256: str,
    format: str,  # noqa: A002 - the field's name in a layout
) -> str:
    """Return the storage key that `template` gives an image: safe, visible, at most `MAX_KEY_BYTES` long.

    The same values always give the same key. `key` keeps its folders, every other value is one segment or part of one;
    `captured` is written as it stands, in its own zone; an unknown camera reads `unknown-camera`; the file keeps the
    suffix of `name`.

    Raises:
        ValueError: `template` does not pass `check_layout`.
    """
    check_layout(template)
    texts = {
        "source": source,
        "name": name,
        "camera": camera or "unknown-camera",
        "sha256": sha256,
        "format": format,
    }
    values = {field: text.replace("/", "_") or "_" for field, text in texts.items()} | {"key": key}
    rendered = "".join(_render_pieces(template, values, captured))
    segments = [_make_safe(segment) for segment in rendered.split("/") if segment] or [sha256]
    suffix = _make_safe(f"_{PurePosixPath(name).suffix}")[1:]
    if not segments[-1].lower().endswith(suffix.lower()):
        segments[-1] += suffix
    return _fit([_cut(segment, MAX_SEGMENT_BYTES) for segment in segments])


def with_short_hash(key: str, sha256: str, digits: int = 8) -> str:
    """Return `key` marked with the first `digits` of `sha256`: `a/b.jpg` becomes `a/b~1a2b3c4d.jpg`."""
    return with_mark(key, f"~{sha256[:digits]}")


def with_mark(key: str, mark: str) -> str:
    """Return `key` with `mark` before its suffix, the name shortened where it would grow too long."""
    folder, slash, name = key.rpartition("/")
    stem, suffix = _split_suffix(name)
    return folder + slash + _shorten(stem, MAX_SEGMENT_BYTES - len((mark + suffix).encode())) + mark + suffix


def make_thumbnail_key(sha256: str) -> str:
    """Return where the thumbnail of the image with that content hash lies."""
    return f"{HIDDEN_FOLDER}/thumbnails/{sha256[:2]}/{sha256}.jpg"


def make_safe_segment(text: str) -> str:
    """Return `text` as one file name that is safe everywhere, visible and at most 255 bytes long."""
    return _cut(_make_safe(text), MAX_SEGMENT_BYTES)


def is_hidden(key: str) -> bool:
    """Tell whether `key` belongs to catchment itself, not to the images."""
    return any(segment.startswith(".") for segment in key.split("/"))


def _advice(mistake: str) -> str:
    fields = ", ".join(f"{{{field}}}" for field in FIELDS)
    return (
        f"The layout can not be used: {mistake}. It may hold text, / for folders and the fields {fields}; "
        "dates as in {captured:%Y-%m-%d}, first characters as in {sha256:.2}."
    )


def _find_mistake(field: str, spec: str, conversion: str | None) -> str | None:
    if field not in FIELDS:
        return f"there is no field {{{field}}}"
    if conversion:
        return f"{{{field}!{conversion}}} asks for a conversion; leave it out"
    if field != "captured":
        return f"{{{field}:{spec}}} is no length" if spec and not _PRECISION.fullmatch(spec) else None
    if not spec or not _DIRECTIVE.search(spec):
        return "{captured} needs a form, as in {captured:%Y-%m-%d}"
    # Names of months and days would depend on the machine's language.
    unknown = [found[1] for found in _DIRECTIVE.finditer(spec) if found[1] not in _DIRECTIVES]
    if unknown or _FORBIDDEN.search(spec.replace("/", "")) or "{" in spec:
        return f"{{captured:{spec}}} may use %Y %m %d %H %M %S %f %j %G %V %u and plain text"
    return None


def _render_pieces(template: str, values: dict[str, str], captured: datetime) -> Iterator[str]:
    for literal, field, spec, _ in Formatter().parse(template):
        yield literal
        if field == "captured":
            yield captured.strftime(spec or "")
        elif field is not None:
            yield format(values[field], spec or "")


def _make_safe(segment: str) -> str:
    safe = _FORBIDDEN.sub("_", segment)
    if safe.startswith("."):
        safe = "_" + safe[1:]
    # Windows drops dots and spaces at the end of a name.
    kept = safe.rstrip(". ")
    safe = kept + "_" * (len(safe) - len(kept)) or "_"
    return f"_{safe}" if _DEVICE.match(safe) else safe


def _split_suffix(name: str) -> tuple[str, str]:
    suffix = PurePosixPath(name).suffix
    return (name.removesuffix(suffix), suffix) if len(suffix.encode()) <= _LONGEST_SUFFIX else (name, "")


def _shorten(text: str, limit: int) -> str:
    return text.encode()[: max(limit, 0)].decode(errors="ignore")


def _cut(segment: str, limit: int) -> str:
    if len(segment.encode()) <= limit:
        return segment
    stem, suffix = _split_suffix(segment)
    mark = f"~{digest(segment.encode()).hexdigest()[:8]}{suffix}"
    return _shorten(stem, limit - len(mark.encode())) + mark


def _fit(segments: list[str]) -> str:
    key = "/".join(segments)
    if len(key.encode()) <= MAX_KEY_BYTES:
        return key
    # The first folders and the name are what people look for; a hash stands for the folders between.
    middle = f"~{digest(key.encode()).hexdigest()[:16]}"
    room = MAX_KEY_BYTES - len(f"/{middle}/{segments[-1]}".encode())
    kept: list[str] = []
    for segment in segments[:-1]:
        room -= len(segment.encode()) + 1
        if room < 0:
            break
        kept.append(segment)
    return "/".join([*kept, middle, segments[-1]])
