"""Measure a whole ingest beside its peers: JPEGs from nginx over loopback, list to catalogued.

    python -m tests.benchmarks.bench_ingest [--files 10000] [--kilobytes 60] [--rounds 1] [--only NAME …]

Peers that only download: rclone and wget2, where they are installed. Peers that process too: img2dataset (which keeps
the small pictures only) and Scrapy's ImagesPipeline, from the `bin` folder that `CATCHMENT_PEERS` names, of a virtual
environment with `pip install img2dataset scrapy pillow`. The limit is a bare loop of two threads that does the same
work (fetch, SHA-256, decode, EXIF, thumbnail, hash, fsync, rename) without Prefect or catalog.

Every contender is a process of its own, and what it stored is counted on disk: one that did not store every picture,
and every thumbnail where it makes any, gets no ratio, and the benchmark ends with exit code 1. Printed are wall and
CPU seconds, peak memory of the largest process, and the rate beside the bare loop (`of bare`). `own s` is what a
contender says that the work took without the start of its process, a constant: the flow's seconds from its report,
list to catalogued, and the bare loop's from its first request; `of bare` beside it compares these two.

The flow runs against a Prefect server that is up already, whose CPU time is printed beside it.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Process
from pathlib import Path

from tests.servers.http_server import find_free_port
from tests.servers.nginx import serve_nginx

FLOW = """
import sys
from pathlib import Path
from blocks.http_directory import HttpDirectory
from blocks.library import ImageLibrary
from flows.ingest_http_directory import ingest_http_directory
library = ImageLibrary(folder=Path(sys.argv[2]))
report = ingest_http_directory(HttpDirectory(base_url=sys.argv[1]), library, max_files=None)
print(f"{report.stored} stored of {report.planned} planned; own seconds: {report.seconds:.2f}")
"""

BARE = """
import hashlib, os, sys, time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
import httpx
from blocks._index import parse_index
from tasks._image import inspect_image
url, folder = sys.argv[1], Path(sys.argv[2])
started = time.perf_counter()
thumbnails = folder / "thumbnails"
thumbnails.mkdir(parents=True)
client = httpx.Client()
page = client.get(url)
keys = parse_index(url, page.content, page.headers["content-type"]).files["key"]
def bring(key):
    content = client.get(url + key).content
    sha256 = hashlib.sha256(content).hexdigest()
    seen = inspect_image(content, key=key, sha256=sha256, modified=None, arrived=datetime.now(UTC))
    part = folder / (key + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.rename(folder / key)
    (thumbnails / (sha256 + ".jpg")).write_bytes(seen.thumbnail)
with ThreadPoolExecutor(2) as threads:
    brought = len(list(threads.map(bring, keys)))
print(f"{brought} brought; own seconds: {time.perf_counter() - started:.2f}")
"""

SCRAPY = """
import sys
import scrapy
from scrapy.crawler import CrawlerProcess
class Directory(scrapy.Spider):
    name = "directory"
    start_urls = [sys.argv[1]]
    def parse(self, response):
        for href in response.css("a::attr(href)").getall():
            if href.endswith(".jpg"):
                yield {"image_urls": [response.urljoin(href)]}
settings = {
    "ITEM_PIPELINES": {"scrapy.pipelines.images.ImagesPipeline": 1},
    "IMAGES_STORE": sys.argv[2],
    "IMAGES_THUMBS": {"small": (512, 512)},
    "CONCURRENT_REQUESTS_PER_DOMAIN": 16,
    "DOWNLOAD_DELAY": 0,
    "LOG_LEVEL": "WARNING",
    "ROBOTSTXT_OBEY": False,
    "TELNETCONSOLE_ENABLED": False,
}
process = CrawlerProcess(settings)
process.crawl(Directory)
process.start()
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """A program to measure: its command, given the folder to fill, and the globs of what it leaves there."""

    command: Callable[[Path], list[str]]
    pictures: str = "*.jpg"
    thumbnails: str | None = None

    def count_stored(self, folder: Path) -> int:
        """Return how many whole pictures lie in `folder`, or how many thumbnails where these are fewer."""
        globs = [glob for glob in (self.pictures, self.thumbnails) if glob]
        return min(sum(path.stat().st_size > 0 for path in folder.glob(glob)) for glob in globs)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one contender took: seconds, and peak memory in MB of its largest process; `said` are its last lines."""

    wall: float
    cpu: float
    peak: float
    said: str
    exit_code: int

    @property
    def own_seconds(self) -> float | None:
        """Return how long the work took by the contender's own clock, where it tells."""
        told = re.search(r"own seconds: ([\d.]+)", self.said)
        return float(told[1]) if told else None


def measure(
    command: list[str], environment: dict[str, str] | None = None, limit_seconds: float | None = None
) -> Figures:
    """Run `command` to its end, or kill it after `limit_seconds`, which shows as exit code -9.

    A process counts the memory of the one that started it as its own (getrusage(2): ru_maxrss survives execve), so
    whoever calls this must be small.
    """
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **(environment or {})})
        killer = threading.Timer(limit_seconds or threading.TIMEOUT_MAX, process.kill)
        killer.daemon = True
        killer.start()
        _, status, usage = os.wait4(process.pid, 0)
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
        output.seek(0)
        said = output.read().decode(errors="replace").strip().splitlines()
    last = " | ".join(" ".join(line.split()) for line in said[-3:])
    return Figures(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000, last, process.returncode)


def apart(work: Callable[..., None], *values: object) -> None:
    """Do heavy work in a process of its own, so that this one stays small.

    Raises:
        RuntimeError: it failed.
    """
    process = Process(target=work, args=values)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{work.__name__} failed with exit code {process.exitcode}")


def read_cpu_seconds(process_id: int) -> float:
    """Return the CPU seconds that a process has used so far."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def draw_pictures(folder: Path, files: int, kilobytes: int) -> None:
    """Draw JPEGs of about the wanted size, no two alike."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(1)
    height, width = (480, 640) if kilobytes < 500 else (3000, 4000)
    noise = 30 if kilobytes < 500 else 12
    base = cv2.GaussianBlur(rng.integers(0, 255, (height, width, 3), dtype=np.uint8), (0, 0), 3)
    grain = rng.integers(0, noise, (height, width, 3), dtype=np.uint8)
    sample = cv2.add(base, grain)
    quality = 95
    while quality > 20 and len(cv2.imencode(".jpg", sample, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]) > kilobytes * 1000:
        quality -= 3
    for number in range(files):
        picture = cv2.add(np.roll(base, number % width, 1), np.roll(grain, number, 0))
        cv2.putText(picture, str(number), (40, height // 2), 0, height / 160, (255, 255, 255), height // 120)
        _, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        content.tofile(folder / f"IMG_{number:06}.jpg")


@contextmanager
def prefect_server(home: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    """Run a Prefect server and yield its API's URL and a look at the CPU seconds it has used."""
    port = find_free_port()
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-ui"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health"):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/api", lambda: read_cpu_seconds(process.pid)
    finally:
        process.terminate()
        process.wait()


def find_contenders(url: str, scratch: Path, files: int) -> dict[str, Contender]:
    """Return every contender that is installed, by name."""
    peers = Path(os.environ.get("CATCHMENT_PEERS", "/nowhere"))
    rclone = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    wget2 = shutil.which("wget2")
    contenders = {
        "bare loop": Contender(
            lambda folder: [sys.executable, "-c", BARE, url, str(folder)], thumbnails="thumbnails/*.jpg"
        ),
        "catchment": Contender(
            lambda folder: [sys.executable, "-c", FLOW, url, str(folder)],
            pictures="[!.]*/**/*.jpg",
            thumbnails=".catchment/thumbnails/*/*.jpg",
        ),
    }
    if rclone:
        flags = ["--http-url", url, "--transfers", "4", "--checkers", "4", "--config", os.devnull]
        contenders["rclone copy"] = Contender(lambda folder: [rclone, "copy", ":http:", str(folder), *flags])
    if wget2:
        flags2 = ["-q", "-r", "-np", "-nd", "-N", "--max-threads", "4", "-A", "jpg"]
        contenders["wget2"] = Contender(lambda folder: [wget2, *flags2, "-P", str(folder), url])
    if (peers / "img2dataset").exists():
        # a shard is worked on by one process: enough of them for both to be busy to the end
        shard = min(1000, max(1, files // 8))
        flags3 = ["--url_list", str(scratch / "urls.txt"), "--number_sample_per_shard", str(shard)]
        flags3 += ["--thread_count", "8", "--processes_count", "2", "--compute_hash", "sha256"]
        flags3 += ["--image_size", "512", "--resize_mode", "keep_ratio", "--extract_exif", "True"]
        contenders["img2dataset"] = Contender(
            lambda folder: [str(peers / "img2dataset"), "--output_folder", str(folder), *flags3], pictures="*/*.jpg"
        )
    if (peers / "scrapy").exists():
        contenders["Scrapy"] = Contender(
            lambda folder: [str(peers / "python"), "-c", SCRAPY, url, str(folder)],
            pictures="full/*.jpg",
            thumbnails="thumbs/small/*.jpg",
        )
    return contenders


def compare(
    contenders: dict[str, Contender],
    scratch: Path,
    files: int,
    server_cpu: Callable[[], float],
    environment: dict[str, str],
) -> list[str]:
    """Print a line a contender and return the names of those that did not store everything."""
    bare: Figures | None = None
    short = []
    for name, contender in contenders.items():
        folder = scratch / name.replace(" ", "-")
        before = server_cpu()
        took = measure(contender.command(folder), environment)
        used = server_cpu() - before
        stored = contender.count_stored(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if stored != files or took.exit_code:
            short.append(name)
            print(f"{name:12} FAILED: stored {stored:,} of {files:,}, exit code {took.exit_code}: {took.said}")
            continue
        bare = took if name == "bare loop" else bare
        line = f"{name:12} {stored:8} {took.wall:8.1f} {files / took.wall:8.0f} "
        line += _ratio(bare.wall if bare else None, took.wall) + " " + _seconds(took.own_seconds) + " "
        line += _ratio(bare.own_seconds if bare else None, took.own_seconds) + f" {took.cpu:8.1f} {took.peak:8.0f}"
        print(line + (f"  and Prefect's server {used:.1f} s CPU" if name == "catchment" else ""), flush=True)
    return short


def _ratio(bare: float | None, seconds: float | None) -> str:
    return f"{bare / seconds:8.2f}" if bare and seconds else f"{'':8}"


def _seconds(value: float | None) -> str:
    return f"{'':8}" if value is None else f"{value:8.1f}"


def main() -> None:
    """Print a line a contender and round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--kilobytes", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    short = []
    with tempfile.TemporaryDirectory(prefix="catchment-bench-") as name:
        scratch = Path(name)
        scratch.chmod(0o755)
        pictures = scratch / "pictures"
        pictures.mkdir()
        apart(draw_pictures, pictures, options.files, options.kilobytes)
        mean = sum(path.stat().st_size for path in pictures.iterdir()) / options.files
        print(f"{options.files:,} JPEGs of {mean / 1000:,.0f} kB")
        titles = ("stored", "wall s", "files/s", "of bare", "own s", "of bare", "CPU s", "peak MB")
        print(f"{'':12} {' '.join(f'{title:>8}' for title in titles)}")
        with serve_nginx(pictures) as nginx, prefect_server(scratch / "prefect") as (api, server_cpu):
            (scratch / "urls.txt").write_text("".join(f"{nginx.url}{path.name}\n" for path in pictures.iterdir()))
            environment = {"PREFECT_API_URL": api, "PREFECT_LOGGING_LEVEL": "WARNING"}
            found = find_contenders(nginx.url, scratch, options.files)
            chosen = {name: found[name] for name in found if not options.only or name in options.only}
            for _ in range(options.rounds):
                short += compare(chosen, scratch, options.files, server_cpu, environment)
    if short:
        sys.exit(f"These did not store every picture: {', '.join(short)}.")


if __name__ == "__main__":
    main()
