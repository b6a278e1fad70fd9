"""Measure `inspect_image` against the obvious way of doing the same, in one run on one machine.

Run by hand: `python -m tests.benchmarks.bench_inspect`. The obvious way opens a file three times: `verify`, a full
`load` for the thumbnail, and once more for the hash, all with Pillow.
"""

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import cv2
import numpy as np
from PIL import Image, ImageOps

from tasks._image import inspect_image
from tests.pictures import make_jpeg

_ARRIVED = datetime(2025, 9, 1, tzinfo=UTC)
_EXIF = {"taken": "2025:09:01 10:00:07", "make": "Canon", "model": "Canon EOS 80D", "position": (52.1, 9.35)}


def inspect(content: bytes) -> None:
    """Look at `content` our way."""
    inspect_image(content, key="IMG_0001.JPG", sha256="0" * 64, modified=None, arrived=_ARRIVED)


def inspect_naively(content: bytes) -> None:
    """Look at `content` the obvious way."""
    with Image.open(io.BytesIO(content)) as image:
        image.verify()
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        dict(image.getexif().get_ifd(0x8769))
        thumbnail = ImageOps.exif_transpose(image)
        thumbnail.thumbnail((512, 512))
        thumbnail.save(io.BytesIO(), "JPEG", quality=80)
        luma = np.asarray(thumbnail.convert("L"))
        float(luma.mean()), float(cv2.Laplacian(luma, cv2.CV_64F).var())
    with Image.open(io.BytesIO(content)) as image:
        small = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float32)
        low = cv2.dct(small)[:8, :8]
        np.packbits(low > np.median(low)).tobytes()


def measure(work: Callable[[bytes], None], content: bytes, rounds: int) -> float:
    """Return the shortest time of one call, in milliseconds: what the machine's other work added least to."""
    work(content)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work(content)
        times.append(time.perf_counter() - began)
    return min(times) * 1000


def measure_threads(content: bytes, rounds: int, threads: int) -> float:
    """Return the shortest time a picture when `threads` of them are looked at at once, in milliseconds."""
    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            began = time.perf_counter()
            list(pool.map(inspect, [content] * rounds))
            times.append(time.perf_counter() - began)
    return min(times) / rounds * 1000


def main() -> None:
    """Print one line a picture size."""
    for size, quality, rounds in (((640, 480), 92, 300), ((4000, 3000), 92, 20)):
        content = make_jpeg(0, size, quality=quality, **_EXIF)
        naive, ours = measure(inspect_naively, content, rounds), measure(inspect, content, rounds)
        two = measure_threads(content, rounds, 2)
        print(
            f"{size[0]}x{size[1]}, {len(content) / 1000:,.0f} KB: naive {naive:.2f} ms, ours {ours:.2f} ms "
            f"(x{naive / ours:.1f}), two threads {two:.2f} ms a picture (x{ours / two:.2f})"
        )


if __name__ == "__main__":
    main()
