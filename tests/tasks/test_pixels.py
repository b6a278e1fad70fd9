"""The pixels of every kind of image, as its thumbnail shows them."""

import io
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tasks._image import Inspection, inspect_image
from tests.pictures import (
    draw_picture,
    encode,
    make_animation,
    make_exif,
    make_image,
    make_jpeg,
    make_multi_picture_jpeg,
)


def look(content: bytes) -> Inspection:
    return inspect_image(
        content, key="x.jpg", sha256="ab" * 32, modified=None, arrived=datetime(2025, 9, 2, tzinfo=UTC)
    )


def thumbnail_of(content: bytes) -> Image.Image:
    thumbnail = Image.open(io.BytesIO(look(content).thumbnail))
    assert thumbnail.format == "JPEG"
    return thumbnail


def difference(a: Image.Image, b: Image.Image) -> float:
    left, right = (np.asarray(image.convert("RGB").resize((64, 48)), dtype=float) for image in (a, b))
    return float(np.abs(left - right).mean())


def test_of_several_pictures_the_first_is_taken() -> None:
    first = thumbnail_of(make_image("JPEG", size=(160, 120)))
    for content in (make_animation("GIF"), make_animation("WEBP"), make_animation("PNG")):
        assert difference(thumbnail_of(content), first) < 8
    two = look(make_multi_picture_jpeg())
    assert (two.facts.format, two.thumbnail) == ("jpeg", look(make_image("JPEG")).thumbnail)
    pages = encode(draw_picture(0), "TIFF", save_all=True, append_images=[draw_picture(1, (100, 100))])
    assert look(pages).facts.width == 640


def _sixteen_bits() -> Image.Image:
    return Image.fromarray(np.asarray(draw_picture(0).convert("L")).astype(np.uint16) * 257)


GREY = draw_picture(0).convert("L")
MODES: dict[str, tuple[Image.Image, str, dict[str, Any], int]] = {
    "1-bit PNG": (GREY.convert("1"), "PNG", {}, 60),
    "grey PNG": (GREY, "PNG", {}, 3),
    "grey and alpha PNG": (GREY.convert("LA"), "PNG", {}, 3),
    "16-bit PNG": (_sixteen_bits(), "PNG", {}, 3),
    "16-bit TIFF": (_sixteen_bits(), "TIFF", {}, 3),
    "32-bit TIFF": (GREY.convert("I"), "TIFF", {}, 10),
    "float TIFF": (GREY.convert("F"), "TIFF", {}, 10),
    "palette PNG": (draw_picture(0).convert("P"), "PNG", {}, 25),
    "palette and alpha PNG": (draw_picture(0).quantize(64), "PNG", {"transparency": b"\xff" * 64}, 25),
    "RGBA PNG": (draw_picture(0).convert("RGBA"), "PNG", {}, 3),
    "CMYK JPEG": (draw_picture(0).convert("CMYK"), "JPEG", {}, 6),
    "CMYK TIFF": (draw_picture(0).convert("CMYK"), "TIFF", {}, 3),
    "progressive JPEG": (draw_picture(0), "JPEG", {"progressive": True}, 6),
    "LZW TIFF": (draw_picture(0), "TIFF", {"compression": "tiff_lzw"}, 3),
    "JPEG in TIFF": (draw_picture(0), "TIFF", {"compression": "jpeg"}, 6),
    "fax TIFF": (GREY.convert("1"), "TIFF", {"compression": "group4"}, 60),
}


@pytest.mark.parametrize("case", MODES)
def test_every_kind_of_pixel_gives_a_thumbnail_of_the_picture(case: str) -> None:
    image, format_name, options, tolerance = MODES[case]
    thumbnail = thumbnail_of(encode(image, format_name, **options))
    expected = GREY if image.mode in {"1", "L", "LA", "I;16", "I", "F"} else draw_picture(0)
    assert thumbnail.size == (512, 384)
    assert difference(thumbnail, expected) < tolerance


def test_transparency_is_shown_on_white() -> None:
    clear = Image.new("RGBA", (50, 40), (0, 0, 0, 0))
    assert np.asarray(thumbnail_of(encode(clear, "PNG"))).min() >= 254


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (512, 384)),
        ((480, 640), (384, 512)),
        ((300, 200), (300, 200)),
        ((1, 1), (1, 1)),
        ((1920, 1080), (480, 270)),
        ((4000, 3000), (500, 375)),
        ((3000, 4000), (375, 500)),
        ((2000, 2), (512, 1)),
    ],
)
def test_a_jpegs_thumbnail_is_at_most_512_long_and_never_enlarged(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    seen = look(make_jpeg(size=size))
    assert (seen.facts.width, seen.facts.height) == size
    assert Image.open(io.BytesIO(seen.thumbnail)).size == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_thumbnails_are_upright(orientation: int) -> None:
    content = make_jpeg(size=(320, 200), orientation=orientation)
    seen = look(content)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    thumbnail = Image.open(io.BytesIO(seen.thumbnail))
    assert seen.facts.orientation == orientation
    assert (seen.facts.width, seen.facts.height) == expected.size == thumbnail.size
    assert difference(thumbnail, expected) < 3


@pytest.mark.parametrize("format_name", ["PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", [3, 6, 7, 8])
def test_every_format_is_turned_once(format_name: str, orientation: int) -> None:
    content = make_image(format_name, size=(320, 200), exif=make_exif(orientation=orientation))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(make_jpeg(size=(320, 200), orientation=orientation))))
    seen = look(content)
    assert (seen.facts.width, seen.facts.height) == upright.size
    assert difference(Image.open(io.BytesIO(seen.thumbnail)), upright) < 8
