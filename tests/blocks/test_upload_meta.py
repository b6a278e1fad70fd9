"""What is said of pictures is bounded, is JSON that every database keeps, and claims no more than was said."""

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from blocks._errors import Reason, SourceRefused
from blocks._records import CaptureTime, TimeWitness
from blocks._upload_meta import UploadMeta, explain_meta, is_camera_id, read_sidecar

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=20) | st.sampled_from(["session", "exposure", "camera_angle"]), JSON))
def test_whatever_is_accepted_is_strict_json_without_what_databases_refuse(said: dict[str, Any]) -> None:
    try:
        kept = UploadMeta.model_validate(said).to_json()
    except ValidationError:
        return
    text = json.dumps(kept, allow_nan=False)
    assert "\\u0000" not in text
    text.encode()
    json.dumps(kept, ensure_ascii=False).encode()
    assert {key for key, value in said.items() if value is not None} == set(kept)
    assert UploadMeta.model_validate(kept).to_json() == kept


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"exposure": -0.1}, "exposure"),
        ({"exposure": math.inf}, "exposure"),
        ({"exposure": "bright"}, "exposure"),
        ({"session": "x" * 201}, "session"),
        ({"timestamp_ref": 1_700_000_000}, "timestamp_ref"),
        ({"timestamp_ref": "1700000000"}, "timestamp_ref"),
        ({"timestamp_ref": "2026-05-31"}, "timestamp_ref"),
        ({"timestamp_ref": "yesterday at T"}, "timestamp_ref"),
        ({"timestamp_ref": "0001-01-01T00:00:00+14:00"}, "from 1900 to 2200"),
        ({"timestamp_ref": "9999-12-31T23:59:59-12:00"}, "from 1900 to 2200"),
        ({"timestamp_ref": datetime(1899, 12, 31, 23, 59, tzinfo=UTC)}, "from 1900 to 2200"),
        ({"note": "nul\0"}, "NUL"),
        ({"note": ["half \ud800"]}, "half"),
        ({"note": {"deep": math.nan}}, "finite"),
        ({f"key{number}": 1 for number in range(51)}, "51 keys"),
        ({"x" * 101: 1}, "key"),
        ({" ": 1}, "key"),
        ({"line\nbreak": 1}, "key"),
        ({"request_id": "mine"}, "request_id"),
        ({"original_name": "mine"}, "original_name"),
        ({"note": "ü" * 9_000}, "bytes"),
        ({"note": object()}, "JSON"),
    ],
)
def test_what_can_not_be_kept_is_refused_by_name_and_not_repeated(said: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        UploadMeta.model_validate(said)
    assert word in explain_meta(refusal.value)
    assert "üü" not in explain_meta(refusal.value)


def test_keys_that_are_names_of_ours_are_kept_as_any_other() -> None:
    said = {"to_json": "a", "model_fields": "b", "__class__": "c", "copy": "d"}
    assert UploadMeta.model_validate(said).to_json() == said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-31T14:03:09", ("2026-05-31T14:03:09", None)),
        ("2026-05-31 14:03:09.25+05:30", ("2026-05-31T14:03:09.250000", 330)),
        ("2026-05-31T14:03:09Z", ("2026-05-31T14:03:09", 0)),
    ],
)
def test_a_time_is_claimed_with_the_zone_it_was_said_in_or_none(text: str, expected: tuple[str, int | None]) -> None:
    claims = UploadMeta.model_validate({"timestamp_ref": text}).to_claims("Cam", TimeWitness.PROVIDER, request_id="r")
    local, minutes = expected
    assert claims.captured == CaptureTime(datetime.fromisoformat(local), minutes, TimeWitness.PROVIDER)
    assert (claims.camera, dict(claims.extra or {})["request_id"]) == ("Cam", "r")
    aware = datetime(2026, 5, 31, 12, tzinfo=timezone(timedelta(hours=-5)))
    assert UploadMeta(timestamp_ref=aware).to_json() == {"timestamp_ref": aware.isoformat()}
    assert UploadMeta().to_claims("Cam", TimeWitness.CAMERA).captured is None
    assert UploadMeta(timestamp_ref=aware.astimezone(UTC)).timestamp_ref == aware


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[]", "no JSON object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"exposure": -1}', "exposure"),
        (b'{"timestamp_ref": "0001-01-01T00:00:00+14:00"}', "timestamp_ref"),
        (b"[" * 100_000, "sidecar"),
        (b'{"a": "' + b"x" * 100_000 + b'"}', "too much"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_sidecar_that_says_nothing_usable_is_refused_by_its_name(content: bytes, word: str) -> None:
    with pytest.raises(SourceRefused) as refusal:
        read_sidecar(content, "a.json")
    assert refusal.value.reason is Reason.BAD_METADATA
    assert "a.json" in str(refusal.value)
    assert word in str(refusal.value)


def test_a_sidecar_may_begin_with_the_mark_that_windows_programs_write() -> None:
    assert read_sidecar(b'\xef\xbb\xbf{"session": "FP1"}', "a.json").session == "FP1"


@given(st.text(max_size=120))
def test_a_camera_of_an_accepted_name_is_one_visible_segment_everywhere(text: str) -> None:
    if is_camera_id(text):
        assert text.isascii()
        assert 1 <= len(text) <= 100
        assert text[0] not in ".-"
        assert not set(text) & set("/\\ \0\n:*?\"'<>|$`;&")
