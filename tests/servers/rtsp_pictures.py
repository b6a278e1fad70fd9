"""Pictures that say their own number, and how they travel in RTP: as H.264 (RFC 6184) or JPEG (RFC 2435)."""

import base64
import itertools
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal, Protocol

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Scene = Literal["still", "moving", "black", "grey", "frozen"]
Pixels = NDArray[np.uint8]

WIDTH, HEIGHT = 320, 240
_BITS, _BLOCK = 20, 8  # number and its inverse, 40 blocks of 8 pixels: the whole width
_PAYLOAD = 1200


def draw_picture(number: int, scene: Scene = "still") -> Pixels:
    """Return picture `number`, BGR: a still room, with its number along the lower edge.

    Neighbouring numbers differ in two small blocks (Gray code), so that counting alone is hardly motion. In `moving` a
    bright square walks through the room; `black` and `grey` are even and have no number; a `frozen` camera shows
    whatever number it is told again.
    """
    if scene in {"black", "grey"}:
        return np.full((HEIGHT, WIDTH, 3), 0 if scene == "black" else 128, np.uint8)
    picture = _ROOM.copy()
    if scene == "moving":
        left, top = number * 16 % (WIDTH - 80), 40 + number * 8 % 80
        picture[top : top + 80, left : left + 80] = (240, 250, 230)
    gray = number ^ (number >> 1)
    bits = [gray >> place & 1 for place in range(_BITS)]
    for place, bit in enumerate([*bits, *(1 - bit for bit in bits)]):
        picture[HEIGHT - _BLOCK :, place * _BLOCK : (place + 1) * _BLOCK] = 235 if bit else 16
    return picture


def read_counter(pixels: Pixels) -> int | None:
    """Return the number that a picture shows, whatever its size; None where it shows none, or a damaged one."""
    height, width = pixels.shape[:2]
    strip = pixels[height - height * _BLOCK // HEIGHT :].mean(axis=2)
    rows = strip[strip.shape[0] // 4 : max(strip.shape[0] * 3 // 4, 1)]
    centres = [rows[:, int((place + 0.25) * width / 40) : int((place + 0.75) * width / 40)] for place in range(40)]
    bits = [bool(centre.mean() > 128) for centre in centres]
    if any(bit == inverse for bit, inverse in zip(bits[:_BITS], bits[_BITS:], strict=True)):
        return None
    gray = sum(bit << place for place, bit in enumerate(bits[:_BITS]))
    number = 0
    while gray:
        number ^= gray
        gray >>= 1
    return number


class Encoder(Protocol):
    """Turns pictures into RTP payloads for one viewer, and says so in SDP."""

    payload_type: int

    def describe(self) -> list[str]:
        """Return the media's SDP attributes."""

    def encode(self, pixels: Pixels) -> Iterator[bytes]:
        """Yield the RTP payloads of one picture, in order."""


class H264Encoder:
    """x264 as PyAV carries it; a whole picture every `group` pictures, changes in between."""

    payload_type = 96

    def __init__(self, group: int = 10) -> None:
        self._codec = av.CodecContext.create("libx264", "w")
        self._codec.width, self._codec.height, self._codec.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        self._codec.time_base = Fraction(1, 25)
        self._codec.gop_size = group
        self._codec.thread_count = 1
        self._codec.flags |= av.codec.context.Flags.global_header
        self._codec.options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "crf": "20"}
        self._codec.options |= {"x264-params": "repeat-headers=1"}
        self._codec.open()
        self._numbers = itertools.count()

    def describe(self) -> list[str]:
        sets = ",".join(base64.b64encode(unit).decode() for unit in _split_units(self._codec.extradata or b""))
        return ["rtpmap:96 H264/90000", f"fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}"]

    def encode(self, pixels: Pixels) -> Iterator[bytes]:
        frame = av.VideoFrame.from_ndarray(pixels, format="bgr24").reformat(format="yuv420p")
        frame.pts = next(self._numbers)
        for packet in self._codec.encode(frame):
            for unit in _split_units(bytes(packet)):
                yield from self._cut(unit)

    @staticmethod
    def _cut(unit: bytes) -> Iterator[bytes]:
        if len(unit) <= _PAYLOAD:
            yield unit
            return
        indicator, kind = unit[0] & 0xE0 | 28, unit[0] & 0x1F  # FU-A, RFC 6184 §5.8
        pieces = [unit[start : start + _PAYLOAD] for start in range(1, len(unit), _PAYLOAD)]
        for index, piece in enumerate(pieces):
            edges = (index == 0) << 7 | (index == len(pieces) - 1) << 6
            yield bytes((indicator, edges | kind)) + piece


class JpegEncoder:
    """Every picture for itself."""

    payload_type = 26

    def describe(self) -> list[str]:
        return ["rtpmap:26 JPEG/90000"]

    def encode(self, pixels: Pixels) -> Iterator[bytes]:
        tables, scan = _split_jpeg(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())
        for start in range(0, len(scan), _PAYLOAD):
            header = struct.pack("!B3sBBBB", 0, start.to_bytes(3, "big"), 1, 255, WIDTH // 8, HEIGHT // 8)
            if start == 0:
                header += struct.pack("!BBH", 0, 0, len(tables)) + tables
            yield header + scan[start : start + _PAYLOAD]


ENCODERS: dict[str, type[Encoder]] = {"h264": H264Encoder, "mjpeg": JpegEncoder}


def _split_units(stream: bytes) -> list[bytes]:
    """Split an Annex B byte stream at its start codes."""
    return [unit.rstrip(b"\0") for unit in stream.split(b"\0\0\1") if unit.strip(b"\0")]


def _split_jpeg(jpeg: bytes) -> tuple[bytes, bytes]:
    """Return the quantisation tables and the entropy-coded scan of a baseline JPEG."""
    tables, position = b"", 2
    while (marker := jpeg[position + 1]) != 0xDA:  # start of scan
        length = int.from_bytes(jpeg[position + 2 : position + 4], "big")
        segment = jpeg[position + 4 : position + 2 + length]
        if marker == 0xDB:
            tables += b"".join(segment[start + 1 : start + 65] for start in range(0, len(segment), 65))
        position += 2 + length
    position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    return tables, jpeg[position:-2]


def _draw_room() -> Pixels:
    across, down = np.meshgrid(np.linspace(60, 150, WIDTH), np.linspace(0, 50, HEIGHT))
    room = np.stack([across + down, across * 0.8 + down, 200 - across], axis=2).astype(np.uint8)
    cv2.rectangle(room, (200, 60), (290, 200), (70, 90, 60), -1)
    cv2.circle(room, (80, 100), 40, (180, 160, 120), 3)
    return room


_ROOM = _draw_room()
