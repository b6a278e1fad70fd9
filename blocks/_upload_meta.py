"""What people and programs say of the pictures they hand over, checked before any of it is kept."""

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from blocks._errors import Reason, SourceRefused
from blocks._records import CaptureTime, Claims, TimeWitness

CAMERA_ID = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"
"""A camera's name: 1-100 characters that mean nothing to any file system, shell or URL, and never a hidden file."""

FIRST_YEAR, LAST_YEAR = 1900, 2200
"""Years in which a picture can be taken; at the ends of the calendar, UTC would lie beyond it."""

MAX_KEYS = 50
MAX_KEY_LENGTH = 100
MAX_JSON_BYTES = 16_384
"""Most that one request may say, as UTF-8 JSON: it is kept with every image of it."""

RESERVED = frozenset({"request_id", "original_name"})
"""Keys that we write ourselves beside what is said."""

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def is_camera_id(text: str) -> bool:
    """Tell whether `text` may name a camera."""
    return re.fullmatch(CAMERA_ID, text) is not None


def _read_moment(value: object) -> object:
    """Take dates and times in ISO 8601 alone: pydantic would read any number as seconds since 1970."""
    if value is None:
        return None
    if isinstance(value, str) and "T" in value.strip().replace(" ", "T"):
        value = datetime.fromisoformat(value.strip())
    if not isinstance(value, datetime):
        raise ValueError(  # noqa: TRY004 - for pydantic
            "write a date and time such as 2026-05-31T14:03:09+02:00; leave the zone out if it is unknown"
        )
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        raise ValueError(f"the year is none from {FIRST_YEAR} to {LAST_YEAR}")
    return value


class UploadMeta(BaseModel):
    """What is said of a request's pictures; further keys are kept as they are."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, frozen=True, hide_input_in_errors=True)

    session: str | None = Field(default=None, max_length=200, description="Session the pictures belong to, as FP1.")
    timestamp_ref: Annotated[datetime | None, BeforeValidator(_read_moment)] = Field(
        default=None,
        description="When they were taken, ISO 8601; without a zone it is the camera's local time. It counts for "
        "pictures that do not say so themselves.",
    )
    location: str | None = Field(default=None, max_length=200, description="Where they were taken.")
    camera_angle: str | float | None = Field(default=None, description="Where the camera looks, in words or degrees.")
    exposure: float | None = Field(default=None, ge=0, description="Exposure, in the unit the camera speaks of.")
    sensor_info: str | dict[str, Any] | None = Field(default=None, description="The sensor, in words or as an object.")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        said = self.to_json()
        if len(said) > MAX_KEYS:
            raise ValueError(f"{len(said)} keys are too many; at most {MAX_KEYS}")
        for key in said:
            if not key.strip() or len(key) > MAX_KEY_LENGTH or not key.isprintable():
                raise ValueError(f"a key is 1 to {MAX_KEY_LENGTH} printable characters")
            if key in RESERVED:
                raise ValueError(f"{key} is written by catchment itself; choose another key")
        _check_json(said)
        size = len(json.dumps(said, ensure_ascii=False).encode())
        if size > MAX_JSON_BYTES:
            raise ValueError(f"{size:,} bytes are too many; at most {MAX_JSON_BYTES:,} as JSON")
        return self

    def to_json(self) -> dict[str, Any]:
        """Return all that is said, as JSON has it; nothing of what is not."""
        said = {name: value for name, value in self if value is not None}
        if self.timestamp_ref is not None:
            said["timestamp_ref"] = self.timestamp_ref.isoformat()
        return said

    def to_claims(self, camera: str, witness: TimeWitness, **noted: str) -> Claims:
        """Return what is claimed of one picture; `noted` is kept beside what is said.

        `witness`: `camera` where `timestamp_ref` was written for this very picture, else `provider`.
        """
        return Claims(
            captured=None if self.timestamp_ref is None else _to_capture_time(self.timestamp_ref, witness),
            camera=camera,
            extra=self.to_json() | noted,
        )


def read_sidecar(content: bytes, name: str) -> UploadMeta:
    """Return what the sidecar `name` says.

    Raises:
        SourceRefused: it is no JSON object, or says something that can not be; the message tells what.
    """
    try:
        return UploadMeta.model_validate(_read_object(content))
    except ValidationError as error:
        fault = explain_meta(error)
    except (ValueError, RecursionError) as error:
        fault = f"{error}." if not isinstance(error, json.JSONDecodeError | UnicodeDecodeError) else "it is no JSON."
    raise SourceRefused(f"Its sidecar {name} can not be used: {fault}", reason=Reason.BAD_METADATA)


def explain_meta(error: ValidationError) -> str:
    """Return what is wrong with what was said, without repeating it."""
    faults = []
    for fault in error.errors(include_input=False, include_url=False):
        place = str(fault["loc"][0]) if fault["loc"] else ""
        text = fault["msg"].removeprefix("Value error, ")
        line = f"{place[:MAX_KEY_LENGTH]}: {text}" if place else text
        if line not in faults:
            faults.append(line)
    return "; ".join(faults) + "."


def clean_text(text: str) -> str:
    """Return `text` without NUL and lone surrogates, which no catalog and no JSON reader takes."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _read_object(content: bytes) -> dict[str, Any]:
    if len(content) > 4 * MAX_JSON_BYTES:
        raise ValueError(f"it has {len(content):,} bytes, which is too much")
    said = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant)
    if not isinstance(said, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - told like every other fault of it
    return said


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _check_json(value: object, depth: int = 0) -> None:
    """Refuse what JSON has no word for, and what makes PostgreSQL's JSON functions fail on every row they look at."""
    if depth > 10:
        raise ValueError("values are nested too deep; at most 10 levels")
    if isinstance(value, str) and _UNSTORABLE.search(value):
        raise ValueError("text holds a NUL character or half a character, which no database keeps")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is not finite")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_json(key, depth + 1)
            _check_json(inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_json(inner, depth + 1)
    elif not isinstance(value, str | int | float | None):
        raise ValueError(f"a value is a {type(value).__name__}, which JSON does not have")  # noqa: TRY004 - for pydantic


def _to_capture_time(moment: datetime, witness: TimeWitness) -> CaptureTime:
    offset = moment.utcoffset()
    minutes = None if offset is None else int(offset.total_seconds() // 60)
    return CaptureTime(moment.replace(tzinfo=None), minutes, witness)
