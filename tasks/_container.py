"""Walk an image file's container: which format is it, is all of it there, where is its EXIF, what may a decoder see.

Decoders are shown a file without the metadata they would parse on their own: malformed metadata then costs neither the
picture nor a process-wide warning, and an extra chunk can not make a decoder do more than decode.
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from blocks._errors import CatchmentError, Reason
from tasks._boxes import find_exif_item, iterate_boxes, locate_item
from tasks._tiff import read_byte_order, read_first_directory

_WHAT_NOW = "fetch it again or look at it at its source"


class BadImage(CatchmentError):
    """The bytes are no image that can be kept: set them aside; the same bytes will be refused again."""

    default_reason = Reason.CORRUPT


@dataclass(frozen=True, slots=True)
class Container:
    """A file that is an image by its beginning and whole by its structure.

    `format`: Pillow's name in lower case; `exif`: the EXIF block, or None; `decodable`: what the decoder is shown.
    """

    format: str
    exif: bytes | None
    decodable: bytes


def open_container(content: bytes) -> Container:
    """Recognise `content` by its bytes, never by a name, and walk it to its end.

    Raises:
        BadImage: it is no image, none that can be read here, or not all of it is there.
    """
    name = _sniff(content)
    try:
        exif, decodable = _WALKS[name](content)
    except ValueError as error:
        raise _corrupt(str(error)) from error
    return Container(name, exif, decodable)


_MAGICS = (
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (8, b"WEBP", "webp"),
    (0, b"BM", "bmp"),
)
_UNREADABLE = (
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\x01\0", "icon"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (8, b"CR\x02", "Canon raw"),
    (4, b"ftypcrx ", "Canon raw"),
    (0, b"IIRO", "Olympus raw"),
    (0, b"IIU\0", "Panasonic raw"),
    (0, b"FUJIFILMCCD-RAW", "Fujifilm raw"),
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"}
_AVIF_BRANDS = {b"avif", b"avis"}
_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)
_PAGE = re.compile(rb"<(?:!|\?xml|[a-z])|[{\[]\s*[\"{\[\]}]", re.IGNORECASE)


def _sniff(content: bytes) -> str:
    for offset, magic, name in _UNREADABLE:
        if content.startswith(magic, offset):
            raise _unreadable(name)
    for offset, magic, name in _MAGICS:
        if content.startswith(magic, offset) and (offset == 0 or content.startswith(b"RIFF")):
            return name
    if read_byte_order(content) is not None:
        return "tiff"
    if content[4:8] == b"ftyp":
        end = min(int.from_bytes(content[:4], "big"), 1024)
        brands = {content[8:12]} | {content[at : at + 4] for at in range(16, end, 4)}
        if brands & _AVIF_BRANDS:
            return "avif"
        if brands & _HEIF_BRANDS:
            return "heif"
    beginning = content[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
    if _SVG.search(beginning):
        raise _unreadable("SVG")
    if _PAGE.match(beginning):
        raise BadImage(
            "The file is a web page or a server's answer, not an image; open its address in a browser to see why.",
            reason=Reason.HTML_PAGE,
        )
    if any(magic.startswith(content) for offset, magic, _ in _MAGICS if offset == 0):
        raise _truncated("before its pixels begin")
    raise BadImage(f"The file is not an image of any known format; {_WHAT_NOW}.", reason=Reason.NOT_AN_IMAGE)


def _unreadable(name: str) -> BadImage:
    return BadImage(
        f"The file is a {name} image, which can not be read here; convert it to JPEG or PNG.",
        reason=Reason.UNSUPPORTED_FORMAT,
    )


def _truncated(where: str) -> BadImage:
    return BadImage(f"The file ends {where}; {_WHAT_NOW}.", reason=Reason.TRUNCATED)


def _corrupt(what: str) -> BadImage:
    return BadImage(f"The file is damaged: {what}; {_WHAT_NOW}.", reason=Reason.CORRUPT)


_NEVER_WRITTEN = bytes(4096)


def _require_written_end(payload_end: int, content: bytes) -> None:
    """Refuse compressed pixels that end in zeros: a preallocated file whose end never came.

    Arithmetic-coded data looks random; four kilobytes of it are not zero by chance.
    """
    if content.endswith(_NEVER_WRITTEN, 0, payload_end):
        raise _truncated("in zeros that were never written over")


Walked = tuple[bytes | None, bytes]
"""The EXIF block, and what the decoder is shown."""

_JPEG_MARKER = re.compile(rb"\xff+([\x01-\xfe])")
_JPEG_STANDALONE = {0x01, *range(0xD0, 0xD9)}
_JPEG_SCAN, _JPEG_END, _JPEG_COMMENT = 0xDA, 0xD9, 0xFE
_JPEG_METADATA = {*range(0xE1, 0xEE), 0xEF, _JPEG_COMMENT}  # all but JFIF (E0) and Adobe (EE), which tell the colours


def _walk_jpeg(content: bytes) -> Walked:
    """Walk the segments before the first scan (ITU-T T.81, B.1) and require an end-of-image marker after it.

    The marker can not occur inside entropy-coded data, so without it the file was cut, or its writer has not finished.
    What follows it is fine: many cameras append a second picture or their own data.
    """
    exif: bytes | None = None
    kept = [content[:2]]
    position = 2
    while match := _JPEG_MARKER.search(content, position):
        code, start = match[1][0], match.end() - 2
        if code in _JPEG_STANDALONE:
            position = match.end()
            continue
        if code == _JPEG_END:
            raise _corrupt("it holds no picture")
        position = start + 2 + int.from_bytes(content[start + 2 : start + 4], "big")
        if code == _JPEG_SCAN:
            if content.rfind(b"\xff\xd9", position) < 0:
                break
            kept.append(content[start:])
            return exif, b"".join(kept)
        if position < start + 4:
            raise _corrupt("a segment has no length")
        if code not in _JPEG_METADATA:
            kept.append(content[start:position])
        elif code == 0xE1 and exif is None and content.startswith(b"Exif\0", start + 4):
            exif = content[start + 10 : position]
    raise _truncated("before its end-of-image marker")


_PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT"}  # of an animated PNG that is its default image


def _walk_png(content: bytes) -> Walked:
    """Walk every chunk to IEND and prove the checksums of those that hold pixels (PNG, third edition, §5)."""
    exif: bytes | None = None
    kept = [content[:8]]
    position = 8
    while position + 12 <= len(content):
        end = position + 12 + int.from_bytes(content[position : position + 4], "big")
        kind = content[position + 4 : position + 8]
        if end > len(content):
            break
        if kind == b"IEND":
            kept.append(content[position:end])
            return exif, b"".join(kept)
        if kind in _PNG_PIXELS:
            if zlib.crc32(memoryview(content)[position + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
                raise _corrupt(f"the checksum of its {kind.decode()} chunk does not match")
            kept.append(content[position:end])
        elif kind == b"eXIf":
            exif = content[position + 8 : end - 4]
        position = end
    raise _truncated("before its last chunk")


def _walk_gif(content: bytes) -> Walked:
    """Walk every block to the trailer (GIF89a, appendix B), through all frames.

    A first frame larger than the screen grows the screen, as browsers do, so that its size is known before decoding.
    """
    if len(content) < 13:
        raise _truncated("inside its header")
    screen: tuple[int, int] | None = None
    position = 13 + _gif_table_size(content[10])
    while position < len(content):
        kind = content[position]
        if kind == 0x3B:
            if screen is None:
                raise _corrupt("it holds no picture")
            return None, content[:6] + b"".join(side.to_bytes(2, "little") for side in screen) + content[10:]
        if kind == 0x21:
            position += 2
        elif kind == 0x2C:
            if position + 10 > len(content):
                break
            if screen is None:
                left, top, width, height = _gif_numbers(content, position + 1, 4)
                declared = _gif_numbers(content, 6, 2)
                screen = min(max(declared[0], left + width), 0xFFFF), min(max(declared[1], top + height), 0xFFFF)
            position += 11 + _gif_table_size(content[position + 9])
        else:
            raise _corrupt("a block is of no known kind")
        while position < len(content) and content[position]:
            position += 1 + content[position]
        position += 1
    raise _truncated("before its last frame")


def _gif_numbers(content: bytes, at: int, count: int) -> list[int]:
    return [int.from_bytes(content[start : start + 2], "little") for start in range(at, at + 2 * count, 2)]


def _gif_table_size(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _walk_webp(content: bytes) -> Walked:
    """Compare the size the RIFF header declares with what is there, and find the EXIF chunk (RFC 9649, §2)."""
    declared = 8 + int.from_bytes(content[4:8], "little")
    if declared > len(content):
        raise _truncated(f"after {len(content):,} of {declared:,} bytes")
    _require_written_end(declared, content)
    position = 12
    while position + 8 <= declared:
        size = int.from_bytes(content[position + 4 : position + 8], "little")
        if content[position : position + 4] == b"EXIF":
            return content[position + 8 : position + 8 + size], content
        position += 8 + size + size % 2
    return None, content


def _walk_bmp(content: bytes) -> Walked:
    return None, content


_SUBFILE, _PHOTOMETRIC, _DNG_VERSION = 254, 262, 50706
_STRIPS, _TILES = (273, 279), (324, 325)  # offsets with byte counts
_RAW_PHOTOMETRICS = {32803, 34892}
_TIFF_SINGLE = {256, 257, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323, 332}
_TIFF_PIXELS = _TIFF_SINGLE | {258, 273, 279, 320, 324, 325, 338, 339, 347, 530, 532}


def _walk_tiff(content: bytes) -> Walked:
    """Require all strips or tiles of the first picture; show the decoder a directory of only what pixels need.

    Camera raws built on TIFF hold a small preview first, which says so (NewSubfileType); it is not taken for the image.
    """
    order = read_byte_order(content) or "little"
    start = int.from_bytes(content[4:8], order)
    if start + 2 + 12 * int.from_bytes(content[start : start + 2], order) > len(content):
        raise _truncated("before its directory")
    directory = read_first_directory(content)
    numbers = {
        tag: directory[tag].integers() for tag in (_SUBFILE, _PHOTOMETRIC, *_STRIPS, *_TILES) if tag in directory
    }
    photometric = numbers.get(_PHOTOMETRIC, [])
    if (
        _DNG_VERSION in directory
        or numbers.get(_SUBFILE, [0])[:1] == [1]
        or _RAW_PHOTOMETRICS.intersection(photometric)
    ):
        raise _unreadable("camera raw")
    for offsets, counts in (_STRIPS, _TILES):
        pieces = zip(numbers.get(offsets, []), numbers.get(counts, []), strict=False)
        if any(offset + count > len(content) for offset, count in pieces):
            raise _truncated("before its last row")
    needed = [
        entry.record
        for tag, entry in sorted(directory.items())
        if tag in _TIFF_PIXELS and (entry.count == 1 or tag not in _TIFF_SINGLE)
    ]
    padding = len(content) % 2
    shown = (
        content[:4],
        (len(content) + padding).to_bytes(4, order),
        content[8:],
        bytes(padding),
        len(needed).to_bytes(2, order),
        *needed,
        bytes(4),
    )
    return content, b"".join(shown)


def _walk_heif(content: bytes) -> Walked:
    """Walk the boxes to the end of the file and hide the EXIF item (ISO/IEC 14496-12 §8.11, 23008-12 annex A)."""
    metadata: tuple[int, int] | None = None
    for kind, start, end in iterate_boxes(content, 0, len(content)):
        if end > len(content):
            raise _truncated("inside its last box")
        if kind == b"mdat":
            _require_written_end(end, content)
        if kind == b"meta" and metadata is None:
            metadata = start + 4, end
    if metadata is None:
        raise _truncated("before its directory")
    parts = {kind: (start, end) for kind, start, end in iterate_boxes(content, *metadata)}
    item = find_exif_item(content, parts[b"iinf"]) if b"iinf" in parts else None
    if item is None:
        return None, content
    number, kind_at = item
    # Pillow's AVIF plugin would parse it, and fail with it
    shown = b"".join((content[:kind_at], b"free", content[kind_at + 4 :]))
    place = locate_item(content, parts[b"iloc"], number) if b"iloc" in parts else None
    if place is None:
        return None, shown
    inside, offset, length = place
    start = offset + (parts.get(b"idat", (0, 0))[0] if inside else 0)
    payload = content[start : start + length]
    return payload[4 + int.from_bytes(payload[:4], "big") :], shown


_WALKS: dict[str, Callable[[bytes], Walked]] = {
    "jpeg": _walk_jpeg,
    "png": _walk_png,
    "gif": _walk_gif,
    "webp": _walk_webp,
    "bmp": _walk_bmp,
    "tiff": _walk_tiff,
    "heif": _walk_heif,
    "avif": _walk_heif,
}
