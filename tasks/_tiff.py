"""Read TIFF directories: the container of EXIF (CIPA DC-008 §4.6) and of TIFF files (TIFF 6.0 §2).

Why not Pillow's reader: it warns through process-wide filters, which threads can not silence for themselves, and one
bad entry costs it the directory. Here an entry that does not lie within the bytes is left out and its neighbours stay.
"""

import struct
from dataclasses import dataclass
from typing import Literal

ByteOrder = Literal["little", "big"]

_BYTE_ORDERS: dict[bytes, ByteOrder] = {b"II*\0": "little", b"MM\0*": "big"}
_UNIT_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_TEXT_KINDS = {1, 2, 7, 129}  # BYTE and UNDEFINED as cameras misuse them, ASCII, EXIF 3.0's UTF-8
_UNSIGNED = {1: 1, 3: 2, 4: 4, 13: 4}
_RATIONALS = {5: False, 10: True}


@dataclass(frozen=True, slots=True)
class Entry:
    """One field of a directory.

    `record`: its 12 bytes as they stand; `value`: the bytes of all its `count` values of type `kind`.
    """

    order: ByteOrder
    kind: int
    count: int
    value: bytes
    record: bytes

    def text(self) -> str | None:
        """Return the field as text up to the first NUL, without control characters; None if nothing is left."""
        if self.kind not in _TEXT_KINDS:
            return None
        raw = self.value.split(b"\0", 1)[0]
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        return "".join(letter for letter in text if letter.isprintable()).strip() or None

    def integers(self) -> list[int]:
        """Return the field's unsigned integers; an empty list if it holds something else."""
        if (unit := _UNSIGNED.get(self.kind)) is None:
            return []
        return [int.from_bytes(self.value[at : at + unit], self.order) for at in range(0, len(self.value), unit)]

    def rationals(self) -> list[float | None]:
        """Return the field's numbers, None for each one divided by zero; an empty list if it holds something else."""
        if (signed := _RATIONALS.get(self.kind)) is None:
            return [float(number) for number in self.integers()]
        halves = [
            int.from_bytes(self.value[at : at + 4], self.order, signed=signed) for at in range(0, len(self.value), 4)
        ]
        return [top / bottom if bottom else None for top, bottom in zip(halves[::2], halves[1::2], strict=True)]


Directory = dict[int, Entry]
"""Fields by tag; of two with one tag the first stays."""


def read_byte_order(block: bytes) -> ByteOrder | None:
    """Return the byte order that the header of `block` declares, or None if it is no TIFF header."""
    return _BYTE_ORDERS.get(block[:4])


def read_first_directory(block: bytes) -> Directory:
    """Return the directory the header of `block` points to; empty where there is none."""
    order = read_byte_order(block)
    return {} if order is None else read_directory(block, int.from_bytes(block[4:8], order))


def read_directory(block: bytes, offset: int) -> Directory:
    """Return the directory at `offset` of `block`: every field that lies within the bytes; never raises."""
    order = read_byte_order(block)
    if order is None:
        return {}
    layout = struct.Struct("<HHL" if order == "little" else ">HHL")
    first = offset + 2
    claimed = int.from_bytes(block[offset:first], order)
    present = max(0, min(claimed, (len(block) - first) // 12))
    directory: Directory = {}
    for at in range(first, first + 12 * present, 12):
        tag, kind, count = layout.unpack_from(block, at)
        if tag in directory or kind not in _UNIT_SIZES:
            continue
        size = count * _UNIT_SIZES[kind]
        start = at + 8 if size <= 4 else int.from_bytes(block[at + 8 : at + 12], order)
        if start + size <= len(block):
            directory[tag] = Entry(order, kind, count, block[start : start + size], block[at : at + 12])
    return directory
