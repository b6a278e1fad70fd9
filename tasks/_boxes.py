"""Read the boxes of HEIF and AVIF files (ISO/IEC 14496-12 §4.2, §8.11)."""

from collections.abc import Iterator


def iterate_boxes(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each box in `content[start:end]` and where its content begins and should end.

    Raises:
        ValueError: a box claims to be smaller than its own header.
    """
    while start + 8 <= end:
        size, header = int.from_bytes(content[start : start + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(content[start + 8 : start + 16], "big"), 16
        stop = end if size == 0 else start + size
        if stop < start + header:
            raise ValueError("a box is smaller than its header")
        yield content[start + 4 : start + 8], start + header, stop
        start = stop


def find_exif_item(content: bytes, item_list: tuple[int, int]) -> tuple[int, int] | None:
    """Return the number of the EXIF item in an `iinf` box and where its kind is written; None if there is none."""
    start, end = item_list
    first = start + (6 if content[start] == 0 else 8) if start < end else end
    for kind, entry, stop in iterate_boxes(content, first, min(end, len(content))):
        width = {2: 2, 3: 4}.get(content[entry], 0) if entry < len(content) else 0
        kind_at = entry + 4 + width + 2
        if kind == b"infe" and width and kind_at + 4 <= stop and content[kind_at : kind_at + 4] == b"Exif":
            return int.from_bytes(content[entry + 4 : entry + 4 + width], "big"), kind_at
    return None


def locate_item(content: bytes, locations: tuple[int, int], wanted: int) -> tuple[bool, int, int] | None:
    """Return whether an `iloc` box places the item in `idat`, and its first extent's offset and length; None if not."""
    position, end = locations
    box = content[position:end]
    if len(box) < 8:
        return None
    version = box[0]
    offset_size, length_size, base_size, index_size = box[4] >> 4, box[4] & 15, box[5] >> 4, box[5] & 15
    wide = 4 if version == 2 else 2
    count = int.from_bytes(box[6 : 6 + wide], "big")
    at = 6 + wide
    for _ in range(count):
        number = int.from_bytes(box[at : at + wide], "big")
        at += wide
        method = box[at + 1] & 15 if version and at + 2 <= len(box) else 0
        at += 4 if version else 2  # construction method, data reference
        base = int.from_bytes(box[at : at + base_size], "big")
        extents = int.from_bytes(box[at + base_size : at + base_size + 2], "big")
        at += base_size + 2
        extra = index_size if version else 0
        if at > len(box):
            return None
        if number == wanted:
            offset = int.from_bytes(box[at + extra : at + extra + offset_size], "big")
            length = box[at + extra + offset_size : at + extra + offset_size + length_size]
            return method == 1, base + offset, int.from_bytes(length, "big")
        at += extents * (extra + offset_size + length_size)
    return None
