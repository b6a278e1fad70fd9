"""Look at one image: prove that it is whole, and say what it is, when and where it was taken, and what it looks like.

Everything comes from one decode, reduced in the decoder. Nothing is written, nothing is kept between pictures, and
several may be looked at in threads at once: decoding and encoding release the GIL.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

import cv2
import numpy as np

from blocks._records import CaptureTime, Claims, ImageFacts, TimeWitness
from tasks._container import BadImage, open_container
from tasks._exif import ExifFacts, parse_exif
from tasks._filename import NamedCapture, parse_file_name
from tasks._pixels import Pixels, decode_picture

__all__ = ["BadImage", "Inspection", "hamming_distance", "inspect_image"]

_THUMBNAIL_QUALITY = 80


@dataclass(frozen=True, slots=True)
class Inspection:
    """What one image is.

    `thumbnail`: a JPEG, upright, its longest side at most 512 pixels (480 to 512 of a larger image), never enlarged.
    """

    facts: ImageFacts
    thumbnail: bytes


def inspect_image(
    content: bytes,
    *,
    key: str,
    sha256: str,
    modified: datetime | None,
    arrived: datetime,
    claims: Claims | None = None,
    max_pixels: int = 200_000_000,
) -> Inspection:
    """Prove that `content` is one whole image and return its facts and thumbnail.

    The format is told by the bytes; of `key` only the file name is read, for time and camera. `modified` is when the
    source says the file was written, `arrived` when it came here; both aware. `claims`: what else the source says. Of a
    file with several pictures the first is taken.

    Raises:
        BadImage: it is none, or not whole, or has more than `max_pixels`; `reason` tells which.
    """
    container = open_container(content)
    picture = decode_picture(container, max_pixels=max_pixels)
    exif = parse_exif(container.exif)
    named = parse_file_name(PurePosixPath(key).name)
    claims = claims or Claims()
    orientation = picture.orientation or exif.orientation
    pixels = _turn_upright(picture.pixels, orientation)
    luma = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    is_on_its_side = orientation >= 5
    facts = ImageFacts(
        sha256=sha256,
        size=len(content),
        format=container.format,
        width=picture.height if is_on_its_side else picture.width,
        height=picture.width if is_on_its_side else picture.height,
        orientation=orientation,
        captured=_choose_capture_time(exif, named, claims.captured, modified, arrived),
        camera_make=exif.make,
        camera_model=exif.model,
        camera_serial=exif.serial,
        camera=claims.camera or named.camera or _name_camera(exif.make, exif.model),
        latitude=claims.latitude if exif.latitude is None else exif.latitude,
        longitude=claims.longitude if exif.longitude is None else exif.longitude,
        perceptual_hash=_hash_likeness(luma),
        brightness=cv2.mean(luma)[0] / 255,
        sharpness=_measure_sharpness(luma),
        quality=claims.quality,
        extra=claims.extra,
    )
    return Inspection(facts, _encode_thumbnail(pixels))


def hamming_distance(a: str, b: str) -> int:
    """Return in how many of 64 bits two perceptual hashes differ: 0 for the same look, about 32 for unrelated ones."""
    return (int(a, 16) ^ int(b, 16)).bit_count()


def _choose_capture_time(
    exif: ExifFacts, named: NamedCapture, claimed: CaptureTime | None, modified: datetime | None, arrived: datetime
) -> CaptureTime:
    """Return the best witness's time.

    EXIF DateTime stands behind the file name, because editing a picture changes it (CIPA DC-008, tag 0x0132).
    """
    if claimed and claimed.witness is not TimeWitness.PROVIDER:
        return claimed
    in_name = named.local and CaptureTime(named.local, named.offset_minutes, TimeWitness.FILE_NAME)
    on_server = modified and _at_utc(modified, TimeWitness.SERVER)
    in_picture = exif.taken or exif.fixed or in_name or exif.changed
    return in_picture or claimed or on_server or _at_utc(arrived, TimeWitness.ARRIVAL)


def _at_utc(moment: datetime, witness: TimeWitness) -> CaptureTime:
    return CaptureTime(moment.astimezone(UTC).replace(tzinfo=None), 0, witness)


def _name_camera(make: str | None, model: str | None) -> str | None:
    """Return make and model as a person says them: "NIKON CORPORATION" and "NIKON D850" are a NIKON D850."""
    if make is None or model is None:
        return model or make
    return model if model.split()[0].casefold() == make.split()[0].casefold() else f"{make} {model}"


def _turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Return `pixels` as the camera was held, from its EXIF orientation."""
    if orientation in {5, 7}:
        pixels = cv2.transpose(pixels)
    match orientation:
        case 2:
            pixels = cv2.flip(pixels, 1)
        case 3 | 7:
            pixels = cv2.rotate(pixels, cv2.ROTATE_180)
        case 4:
            pixels = cv2.flip(pixels, 0)
        case 6:
            pixels = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
        case 8:
            pixels = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
    return pixels


def _hash_likeness(luma: Pixels) -> str:
    """Return 64 bits as 16 hex digits: which of the 8 x 8 lowest frequencies lie above their median.

    Frequencies are rounded first, so that an even surface hashes as one and not as arithmetic noise.
    """
    small = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA)
    low = np.rint(cv2.dct(small.astype(np.float32))[:8, :8])
    return np.packbits(low > np.median(low)).tobytes().hex()


def _measure_sharpness(luma: Pixels) -> float:
    _, deviation = cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_16S))
    return float(deviation[0, 0]) ** 2


def _encode_thumbnail(pixels: Pixels) -> bytes:
    shown = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, _THUMBNAIL_QUALITY])
    return encoded.tobytes()
