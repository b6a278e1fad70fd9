# ruff: noqa: DTZ001 - capture times are naive wall clocks beside their offset

import io
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from itertools import combinations
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from blocks._errors import Reason
from blocks._records import CaptureTime, TimeWitness
from tasks._image import BadImage, Inspection, hamming_distance, inspect_image
from tests import pictures
from tests.pictures import cut, draw_picture, encode, make_animation, make_exif, make_image, make_jpeg, zero_tail

ARRIVED = datetime(2025, 9, 2, 12, 30, tzinfo=UTC)
FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "HEIF", "AVIF"]
WITH_EXIF = ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"]
CLOCK = "2025:09:01 10:00:07"


def look(content: bytes, key: str = "x.jpg", modified: datetime | None = None, **options: Any) -> Inspection:
    return inspect_image(content, key=key, sha256="ab" * 32, modified=modified, arrived=ARRIVED, **options)


def reason_of(content: bytes, **options: Any) -> Reason:
    with pytest.raises(BadImage) as caught:
        look(content, **options)
    assert str(caught.value).endswith(".")
    return caught.value.reason


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_bytes_tell_the_format_and_the_name_does_not(format_name: str) -> None:
    content = make_image(format_name, size=(320, 200))
    facts = look(content, key="a/b/misnamed.txt").facts
    assert (facts.format, facts.width, facts.height, facts.size, facts.sha256) == (
        format_name.lower(),
        320,
        200,
        len(content),
        "ab" * 32,
    )


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.995])
def test_an_image_cut_anywhere_is_truncated(format_name: str, share: float) -> None:
    assert reason_of(cut(make_image(format_name, size=(320, 240)), share)) is Reason.TRUNCATED


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG"])
def test_an_animation_cut_behind_its_first_frame_is_truncated(format_name: str) -> None:
    assert reason_of(cut(make_animation(format_name), 0.95)) is Reason.TRUNCATED


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "GIF", "WEBP", "HEIF", "AVIF"])
def test_an_end_of_zeros_is_not_taken_for_pixels(format_name: str) -> None:
    assert reason_of(zero_tail(make_image(format_name))) in {Reason.TRUNCATED, Reason.CORRUPT}


def test_a_jpeg_without_its_end_marker_is_not_finished() -> None:
    assert reason_of(make_jpeg()[:-2]) is Reason.TRUNCATED


def test_a_jpeg_cut_behind_its_exif_thumbnail_is_truncated() -> None:
    preview = encode(draw_picture(0, (160, 120)), "JPEG")
    assert preview.endswith(b"\xff\xd9")
    content = make_jpeg(maker_note=preview)
    assert look(content).facts.width == 640
    assert reason_of(cut(content, 0.6)) is Reason.TRUNCATED


@pytest.mark.parametrize("tail", [b"\0" * 100, b"camera data", b"\xff\xd8\xff\xe1 half a second picture"])
def test_what_follows_the_end_of_a_jpeg_is_ignored(tail: bytes) -> None:
    content = make_jpeg()
    assert look(content + tail).thumbnail == look(content).thumbnail


@pytest.mark.parametrize(
    "content",
    [
        pictures.HTML_PAGE,
        b"\xef\xbb\xbf\n  " + pictures.HTML_PAGE,
        b"<html>",
        pictures.XML_ERROR,
        pictures.JSON_ERROR,
        b'[{"error": 1}]',
    ],
)
def test_a_servers_answer_named_jpg_is_called_what_it_is(content: bytes) -> None:
    assert reason_of(content) is Reason.HTML_PAGE


@pytest.mark.parametrize(
    "content", [b"Not Found", bytes(5000), b"%PDF-1.7", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", b"RIFF\0\0\0\0WAVE"]
)
def test_what_is_no_image_is_called_so(content: bytes) -> None:
    assert reason_of(content) is Reason.NOT_AN_IMAGE


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"\x89PNG"])
def test_a_file_that_has_only_begun_is_truncated(content: bytes) -> None:
    assert reason_of(content) is Reason.TRUNCATED


@pytest.mark.parametrize(
    "content",
    [
        pictures.make_camera_raw(),
        b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"\xff\x0a\xfa\x1f",
        b"8BPS\0\x01",
        b"II*\0\x10\0\0\0CR\x02\0",
        b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom",
    ],
)
def test_an_image_of_a_format_not_read_here_is_called_unsupported(content: bytes) -> None:
    assert reason_of(content) is Reason.UNSUPPORTED_FORMAT


def test_a_missing_heic_decoder_says_what_to_install(tmp_path: Any) -> None:
    path = tmp_path / "a.heic"
    path.write_bytes(make_image("HEIF"))
    script = f"""
import sys
sys.modules["pillow_heif"] = None
from datetime import datetime, UTC
from tasks._image import BadImage, inspect_image
try:
    inspect_image(open({str(path)!r}, "rb").read(), key="a", sha256="", modified=None, arrived=datetime.now(UTC))
except BadImage as error:
    print(error.reason, error)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.startswith("unsupported_format")
    assert "pip install 'catchment[heif]'" in out


def test_a_bomb_is_refused_by_its_header() -> None:
    assert reason_of(pictures.make_png_bomb()) is Reason.TOO_MANY_PIXELS
    assert reason_of(make_image("GIF", size=(40, 30))[:6] + b"\xff" * 4 + make_image("GIF", size=(40, 30))[10:]) is (
        Reason.TOO_MANY_PIXELS
    )


@pytest.mark.parametrize("format_name", FORMATS)
def test_max_pixels_is_the_most_that_is_taken(format_name: str) -> None:
    content = make_image(format_name, size=(100, 80))
    assert look(content, max_pixels=8000).facts.width == 100
    assert reason_of(content, max_pixels=7999) is Reason.TOO_MANY_PIXELS


def test_pillows_own_limit_is_neither_used_nor_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    assert look(make_image("JPEG", size=(100, 80))).facts.width == 100
    assert Image.MAX_IMAGE_PIXELS == 5000


def test_a_flipped_byte_in_a_png_is_found() -> None:
    content = bytearray(make_image("PNG", size=(64, 48)))
    content[len(content) // 2] ^= 1
    assert reason_of(bytes(content)) is Reason.CORRUPT


@pytest.mark.parametrize("format_name", WITH_EXIF)
def test_exif_is_found_in_every_format_that_carries_it(format_name: str) -> None:
    block = make_exif(
        taken=CLOCK, offset="+02:00", make="Canon", model="Canon EOS 80D", serial="17", position=(52.1, -9.3)
    )
    facts = look(make_image(format_name, size=(64, 48), exif=block)).facts
    assert facts.captured == CaptureTime(datetime(2025, 9, 1, 10, 0, 7), 120, TimeWitness.EXIF)
    assert (facts.camera, facts.camera_make, facts.camera_model) == ("Canon EOS 80D", "Canon", "Canon EOS 80D")
    assert (facts.camera_serial, facts.latitude, facts.longitude) == ("17", 52.1, -9.3)


def _count_beyond_the_end(block: bytes) -> bytes:
    at = block.index(b"\x01\x0f\0\x02") + 4  # how many letters the make has
    return block[:at] + b"\x7f\xff\xff\xff" + block[at + 4 :]


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "HEIF", "AVIF"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda block: bytes(len(block)),
        lambda block: block[:40] + b"\xff" * (len(block) - 40),
        lambda block: block[:8] + b"\xff" * 12 + block[20:],
        _count_beyond_the_end,
    ],
    ids=["zeros", "junk", "endless directory", "endless field"],
)
def test_malformed_exif_costs_neither_the_image_nor_a_warning(
    format_name: str, damage: Callable[[bytes], bytes]
) -> None:
    block = make_exif(taken=CLOCK, make="Canon", model="EOS", position=(52.1, 9.3))[6:]
    whole = make_image(format_name, size=(64, 48), exif=b"Exif\0\0" + block)
    assert block in whole
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        facts = look(whole.replace(block, damage(block))).facts
    assert (facts.width, facts.height) == (64, 48)
    assert [str(warning.message) for warning in caught] == []


def test_a_malformed_tag_costs_neither_the_tiff_nor_a_warning() -> None:
    whole = make_image("TIFF", size=(64, 48), tiffinfo={270: "a description", 271: "Canon"})
    at = whole.index(b"\x0e\x01\x02\0") + 4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        facts = look(whole[:at] + b"\xff\xff\xff\x7f" + whole[at + 4 :]).facts
    assert (facts.width, facts.camera_make) == (64, "Canon")
    assert [str(warning.message) for warning in caught] == []


def test_an_invalid_animation_costs_neither_the_png_nor_a_warning() -> None:
    content = make_image("PNG", size=(64, 48))
    control = pictures.make_png_chunk(b"acTL", bytes(8))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        look(content[:33] + control + control + content[33:])
    assert caught == []


def test_a_text_bomb_does_not_cost_the_png() -> None:
    content = make_image("PNG", size=(64, 48))
    text = pictures.make_png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000)))
    assert look(content[:33] + text + content[33:]).facts.width == 64


def test_the_best_witness_of_the_capture_time_is_heard() -> None:
    modified = datetime(2025, 9, 1, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    name, plain = "IMG_20250901_110000.jpg", "x.jpg"
    fix = ("2025:09:01", (8.0, 0.0, 7.0))
    cases = [
        (
            make_jpeg(taken=CLOCK, gps_time=fix, changed=CLOCK),
            name,
            modified,
            datetime(2025, 9, 1, 10, 0, 7),
            None,
            "exif",
        ),
        (make_jpeg(gps_time=fix, changed=CLOCK), name, modified, datetime(2025, 9, 1, 8, 0, 7), 0, "gps"),
        (make_jpeg(changed=CLOCK), name, modified, datetime(2025, 9, 1, 11), None, "file_name"),
        (make_jpeg(changed=CLOCK), plain, modified, datetime(2025, 9, 1, 10, 0, 7), None, "exif"),
        (make_jpeg(), plain, modified, datetime(2025, 9, 1, 12), 0, "server"),
        (make_jpeg(), plain, None, datetime(2025, 9, 2, 12, 30), 0, "arrival"),
    ]
    for content, key, served, local, offset, witness in cases:
        assert look(content, key, served).facts.captured == CaptureTime(local, offset, TimeWitness(witness))


def test_a_utc_file_name_keeps_its_zone() -> None:
    captured = look(make_jpeg(), "DCIM/PXL_20250901_100000123.jpg").facts.captured
    assert captured == CaptureTime(datetime(2025, 9, 1, 10, 0, 0, 123_000), 0, TimeWitness.FILE_NAME)


@pytest.mark.parametrize(
    ("make", "model", "key", "camera"),
    [
        ("Canon", "Canon EOS 80D", "x.jpg", "Canon EOS 80D"),
        ("NIKON CORPORATION", "NIKON D850", "x.jpg", "NIKON D850"),
        ("RECONYX", "HYPERFIRE 2", "x.jpg", "RECONYX HYPERFIRE 2"),
        (None, "EOS", "x.jpg", "EOS"),
        ("Canon", None, "x.jpg", "Canon"),
        (None, None, "x.jpg", None),
        ("Canon", "EOS", "weir/Aufnahme_250911_1423_HAMELN3.jpg", "HAMELN3"),
    ],
)
def test_a_camera_is_called_what_people_call_it(
    make: str | None, model: str | None, key: str, camera: str | None
) -> None:
    assert look(make_jpeg(size=(64, 48), make=make, model=model), key).facts.camera == camera


@pytest.mark.parametrize("seed", range(4))
def test_likeness_survives_resizing_and_recompression(seed: int) -> None:
    picture = draw_picture(seed, (1600, 1200))
    original = look(encode(picture, "JPEG", quality=92)).facts.perceptual_hash
    assert len(original) == 16
    for size, format_name, quality in (((800, 600), "JPEG", 60), ((320, 240), "JPEG", 40), ((640, 480), "WEBP", 50)):
        copy = look(encode(picture.resize(size), format_name, quality=quality)).facts.perceptual_hash
        assert hamming_distance(original, copy) <= 6


def test_different_pictures_look_different() -> None:
    hashes = [look(make_jpeg(seed)).facts.perceptual_hash for seed in range(8)]
    distances = [hamming_distance(a, b) for a, b in combinations(hashes, 2)]
    assert min(distances) >= 14
    assert sum(distances) / len(distances) >= 24


def test_an_even_surface_hashes_as_one_whatever_its_level() -> None:
    walls = [encode(Image.new("RGB", (640, 480), (level,) * 3), "JPEG") for level in (30, 128, 201)]
    assert {look(wall).facts.perceptual_hash for wall in walls} == {"8000000000000000"}


def test_the_same_picture_turned_by_its_exif_looks_the_same() -> None:
    on_side = encode(draw_picture(0).rotate(90, expand=True), "JPEG", exif=make_exif(orientation=6))
    turned, plain = look(on_side).facts, look(make_jpeg()).facts
    assert hamming_distance(turned.perceptual_hash, plain.perceptual_hash) <= 4


def test_brightness_runs_from_black_to_white() -> None:
    measured = [
        look(encode(Image.new("RGB", (64, 48), (level,) * 3), "PNG")).facts.brightness for level in (0, 51, 128, 255)
    ]
    assert measured == pytest.approx([0, 0.2, 0.502, 1], abs=0.001)


def test_a_blurred_picture_is_less_sharp() -> None:
    sharp = np.asarray(draw_picture(0))
    blurred = cv2.GaussianBlur(sharp, (0, 0), 4)
    measured = [look(encode(Image.fromarray(pixels), "PNG")).facts.sharpness for pixels in (blurred, sharp)]
    assert measured[0] < measured[1] / 10


def test_pictures_looked_at_in_threads_are_the_same_as_one_by_one() -> None:
    contents = [make_image(name, seed=seed, size=(200, 150)) for name in FORMATS for seed in range(3)]
    alone = [look(content) for content in contents]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(look, contents)) == alone


SEEDS = [make_image(name, size=(32, 24)) for name in FORMATS]
SEEDS += [make_jpeg(0, (32, 24), taken=CLOCK, make="Canon", position=(1.0, 2.0)), make_animation(size=(32, 24))]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.floats(0, 1),
    st.booleans(),
)
def test_damaged_images_are_bad_images_or_images(
    content: bytes, changes: list[tuple[float, int]], share: float, in_header: bool
) -> None:
    damaged = bytearray(content)
    for at, value in changes:
        damaged[int(at * (min(len(content), 300) if in_header else len(content)))] = value
    kept = bytes(damaged) if changes else cut(content, share)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            seen = look(kept, max_pixels=2_000_000)
        except BadImage:
            pass
        else:
            assert Image.open(io.BytesIO(seen.thumbnail)).format == "JPEG"
    assert [str(warning.message) for warning in caught] == []


@settings(deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"\x89PNG\r\n\x1a\n", b"BM"])
)
def test_arbitrary_bytes_are_bad_images(tail: bytes, beginning: bytes) -> None:
    reason_of(beginning + tail)
