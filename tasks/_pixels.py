"""Decode an image once, whole, and no larger than a thumbnail needs.

Pillow's plugin classes are called directly: `Image.open` would warn about large images through process-wide filters
and by the process-wide `Image.MAX_IMAGE_PIXELS`, which other code may depend on, and would try formats we never take.
"""

import io
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.AvifImagePlugin import SUPPORTED as AVIF_SUPPORTED
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import SUPPORTED as WEBP_SUPPORTED
from PIL.WebPImagePlugin import WebPImageFile

from blocks._errors import Reason
from tasks._container import BadImage, Container
from tasks._exif import parse_exif

THUMBNAIL_SIDE = 512
_ENOUGH = 480  # a picture the JPEG decoder reduced to this costs a fifth less than one at twice the scale

Pixels: TypeAlias = MatLike
"""Rows of luma or of RGB, 8 bits each."""

_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "jpeg": JpegImageFile,  # of an MPO its first picture
    "png": PngImageFile,
    "gif": GifImageFile,
    "bmp": BmpImageFile,
    "tiff": TiffImageFile,
}
if WEBP_SUPPORTED:
    _PLUGINS["webp"] = WebPImageFile
if AVIF_SUPPORTED:
    _PLUGINS["avif"] = AvifImageFile
try:
    from pillow_heif import HeifImageFile

    _PLUGINS["heif"] = HeifImageFile
except ImportError:
    pass

_MISSING = {
    "heif": "install pillow-heif (`pip install 'catchment[heif]'`) and say catchment retry --reason unsupported_format",
    "avif": "install a Pillow that was built with AVIF and say catchment retry --reason unsupported_format",
    "webp": "install a Pillow that was built with WebP and say catchment retry --reason unsupported_format",
}
# These plugins compare sizes with Image.MAX_IMAGE_PIXELS while they decode, and warn: smaller images only.
_WARY_PLUGINS = {"gif", "tiff"}

cv2.setNumThreads(1)  # several pictures are looked at in threads at once, each too small to be worth splitting


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, as stored: not yet turned.

    `pixels`: reduced, longest side at most `THUMBNAIL_SIDE`, never enlarged; `width`, `height`: of the whole picture;
    `orientation`: EXIF 1-8 as the container itself says it (HEIF, AVIF), or None to ask the EXIF.
    """

    pixels: Pixels
    width: int
    height: int
    orientation: int | None


def decode_picture(container: Container, *, max_pixels: int) -> Picture:
    """Decode every pixel of the first picture in `container`, at a reduced scale where its decoder can.

    A JPEG's entropy-coded data is walked to its end at every scale. Damage that still decodes to the right number of
    pixels can not be seen in a JPEG, which has no checksums.

    Raises:
        BadImage: no decoder for it, more than `max_pixels`, or not decodable to the last pixel.
    """
    plugin = _PLUGINS.get(container.format)
    if plugin is None:
        raise BadImage(
            f"Reading {container.format.upper()} images needs a decoder: {_MISSING[container.format]}.",
            reason=Reason.UNSUPPORTED_FORMAT,
        )
    if container.format in _WARY_PLUGINS:
        max_pixels = min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels)
    try:
        with plugin(io.BytesIO(container.decodable)) as image:
            return _decode(image, max_pixels)
    except BadImage:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise _too_many("more pixels than fit in memory") from error
    except Exception as error:  # a decoder given damaged bytes raises whatever it stumbles over
        is_cut = "truncated" in str(error).lower()
        raise BadImage(
            f"The {container.format.upper()} file can not be decoded to its last pixel ({error}); "
            "fetch it again or look at it at its source.",
            reason=Reason.TRUNCATED if is_cut else Reason.CORRUPT,
        ) from error


def _too_many(what: str) -> BadImage:
    return BadImage(f"The image has {what}; make it smaller to take it.", reason=Reason.TOO_MANY_PIXELS)


def _decode(image: ImageFile.ImageFile, max_pixels: int) -> Picture:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_many(f"{width:,} x {height:,} pixels, more than {max_pixels:,}")
    if isinstance(image, JpegImageFile):
        # Pillow reduces by the largest power of two up to 8 that leaves both sides at least this long
        image.draft(None, (_ENOUGH, 1) if width >= height else (1, _ENOUGH))
    image.load()
    return Picture(_shrink(image), width, height, _read_orientation(image))


def _read_orientation(image: ImageFile.ImageFile) -> int | None:
    if image.format == "HEIF":
        return 1  # its decoder has turned the picture already
    if image.format == "AVIF":
        return parse_exif(image.info.get("exif")).orientation  # what its plugin makes of the file's irot and imir
    return None


def _shrink(image: Image.Image) -> Pixels:
    """Return the 8-bit grey or RGB pixels of `image`, on white where it is transparent."""
    image = _to_eight_bits(image)
    factor = max(image.size) // THUMBNAIL_SIDE
    if factor > 1:
        image = image.reduce((min(factor, image.width), min(factor, image.height)))
    if image.mode == "RGBA":
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.getchannel("A"))
        image = flat
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    scale = THUMBNAIL_SIDE / max(width, height)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in {"L", "RGB"} and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in {"I", "F"}:
        return Image.fromarray(_stretch(np.asarray(image, dtype=np.float64)))
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("L" if image.mode == "1" else "RGB")


def _stretch(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return `values` stretched over 0-255: a format of 32-bit numbers does not say what white is."""
    known = np.where(np.isfinite(values), values, 0)
    low, high = known.min(), known.max()
    stretched: NDArray[np.float64] = (known - low) * (255 / (high - low) if high > low else 0)
    return stretched.astype(np.uint8)
