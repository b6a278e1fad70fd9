"""Makers of images as cameras, phones and broken transfers leave them: drawn, deterministic, mostly in milliseconds."""

import io
import struct
import zlib
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import ExifTags, Image

HTML_PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>gone</body></html>\n"
XML_ERROR = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>'
JSON_ERROR = b'{"error": {"code": 404, "message": "File not found"}}'

Size = tuple[int, int]


@lru_cache(maxsize=64)
def draw_picture(seed: int = 0, size: Size = (640, 480)) -> Image.Image:
    """Return an RGB scene of its own for each seed: a landscape of soft shapes, edges and a little sensor noise."""
    random = np.random.default_rng(seed)
    width, height = size
    ground = cv2.resize(random.integers(20, 236, (5, 7, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        x, y = int(random.integers(0, 320)), int(random.integers(0, 240))
        color = [int(value) for value in random.integers(0, 256, 3)]
        cv2.circle(ground, (x, y), int(random.integers(6, 50)), color, -1, cv2.LINE_AA)
    scene = cv2.resize(ground, size, interpolation=cv2.INTER_LINEAR)
    noise = random.integers(-6, 7, (min(height, 480), min(width, 640), 1), dtype=np.int16)
    tiles = (-(-height // noise.shape[0]), -(-width // noise.shape[1]), 1)
    noisy: NDArray[np.int16] = scene.astype(np.int16) + np.tile(noise, tiles)[:height, :width]
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def make_exif(
    *,
    taken: str | None = None,
    subsecond: str | None = None,
    offset: str | None = None,
    digitized: str | None = None,
    changed: str | None = None,
    offset_of_change: str | None = None,
    make: str | None = None,
    model: str | None = None,
    serial: str | None = None,
    orientation: int | None = None,
    gps: dict[int, Any] | None = None,
    position: tuple[float, float] | None = None,
    gps_time: tuple[str, tuple[float, float, float]] | None = None,
    maker_note: bytes | None = None,
) -> bytes:
    """Return an EXIF block with the given fields, as they stand, so that wrong ones can be written too."""
    main = {
        ExifTags.Base.Make: make,
        ExifTags.Base.Model: model,
        ExifTags.Base.Orientation: orientation,
        ExifTags.Base.DateTime: changed,
    }
    sub = {
        ExifTags.Base.DateTimeOriginal: taken,
        ExifTags.Base.SubsecTimeOriginal: subsecond,
        ExifTags.Base.OffsetTimeOriginal: offset,
        ExifTags.Base.DateTimeDigitized: digitized,
        ExifTags.Base.OffsetTime: offset_of_change,
        ExifTags.Base.BodySerialNumber: serial,
        ExifTags.Base.MakerNote: maker_note,
    }
    fix = dict(gps or {})
    if position:
        latitude, longitude = position
        fix |= {1: "N" if latitude >= 0 else "S", 2: _sixtieths(abs(latitude))}
        fix |= {3: "E" if longitude >= 0 else "W", 4: _sixtieths(abs(longitude))}
    if gps_time:
        fix |= {29: gps_time[0], 7: gps_time[1]}
    exif = Image.Exif()
    exif.update({tag: value for tag, value in main.items() if value is not None})
    exif.get_ifd(ExifTags.IFD.Exif).update({tag: value for tag, value in sub.items() if value is not None})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(fix)
    return exif.tobytes()


def _sixtieths(degrees: float) -> tuple[float, float, float]:
    minutes, seconds = divmod(degrees * 3600, 60)
    return minutes // 60, minutes % 60, round(seconds, 4)


def make_image(format_name: str = "JPEG", *, seed: int = 0, size: Size = (640, 480), **options: Any) -> bytes:
    """Return an image file in a format by Pillow's name (JPEG, PNG, GIF, WEBP, BMP, TIFF, HEIF, AVIF)."""
    if not options:
        return _make_plain_image(format_name, seed, size)
    return encode(draw_picture(seed, size), format_name, **options)


@lru_cache(maxsize=128)
def _make_plain_image(format_name: str, seed: int, size: Size) -> bytes:
    return encode(draw_picture(seed, size), format_name)


def encode(picture: Image.Image, format_name: str, **options: Any) -> bytes:
    """Return `picture` as a file; `options` are those of Pillow's writer."""
    if format_name == "HEIF":
        pillow_heif.register_heif_opener()
    out = io.BytesIO()
    picture.save(out, format_name, **options)
    return out.getvalue()


def make_jpeg(seed: int = 0, size: Size = (640, 480), *, quality: int = 80, **exif: Any) -> bytes:
    """Return a JPEG with the EXIF fields that `make_exif` takes; without any, it has no EXIF."""
    options = {"exif": make_exif(**exif)} if exif else {}
    return make_image("JPEG", seed=seed, size=size, quality=quality, **options)


def make_animation(format_name: str = "GIF", *, frames: int = 3, size: Size = (160, 120)) -> bytes:
    """Return an animated GIF, WEBP or PNG; its first frame is the picture of seed 0."""
    first, *rest = [draw_picture(seed, size) for seed in range(frames)]
    return encode(first, format_name, save_all=True, append_images=rest, duration=100)


def make_multi_picture_jpeg() -> bytes:
    """Return an MPO: a JPEG with a second one behind its end, as stereo cameras and phones write."""
    return encode(draw_picture(0), "MPO", save_all=True, append_images=[draw_picture(1)])


def make_camera_raw() -> bytes:
    """Return a TIFF whose first directory says it is a reduced preview, as camera raws have it."""
    return encode(draw_picture(0, (160, 120)), "TIFF", tiffinfo={254: 1})


def make_png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """Return a PNG of under 200 bytes that declares `width` x `height` pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(make_png_chunk(kind, data) for kind, data in chunks)


def make_png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def cut(content: bytes, share: float = 0.5) -> bytes:
    """Return the beginning of `content`, as a broken transfer leaves it."""
    return content[: int(len(content) * share)]


def zero_tail(content: bytes, share: float = 0.5) -> bytes:
    """Return `content` with its end still zero, as a transfer into a preallocated file leaves it."""
    kept = cut(content, share)
    return kept + bytes(len(content) - len(kept))
