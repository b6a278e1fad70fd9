"""Measure a whole ingest beside its peers: JPEGs from nginx over loopback, list to catalogued.

    python -m tests.benchmarks.bench_ingest [--files 10000] [--kilobytes 60] [--rounds 1] [--only NAME …]

Peers that only download: rclone and wget2, where they are installed. Peers that process too: img2dataset and Scrapy's
ImagesPipeline, from the virtual environment that `CATCHMENT_PEERS` names. The limit is a bare loop of two threads that
does the same work (fetch, SHA-256, decode, EXIF, thumbnail, hash, fsync, rename) without Prefect or catalog. Every
contender is a process of its own; printed are wall and CPU seconds, peak memory, and the rate beside the bare loop.

The flow runs against a Prefect server that is up already, whose CPU time is printed beside it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

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
print(f"{report.summary}; {report.planned} planned")
"""

BARE = """
import hashlib, os, sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
import httpx
from blocks._index import parse_index
from tasks._image import inspect_image
url, folder = sys.argv[1], Path(sys.argv[2])
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
    print(len(list(threads.map(bring, keys))))
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
    "LOG_LEVEL": "ERROR",
    "ROBOTSTXT_OBEY": False,
    "TELNETCONSOLE_ENABLED": False,
}
process = CrawlerProcess(settings)
process.crawl(Directory)
process.start()
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one contender took: seconds, and peak memory in MB of its largest process."""

    wall: float
    cpu: float
    peak: float
    said: str


def measure(command: list[str], environment: dict[str, str] | None = None) -> Figures:
    """Run `command` to its end."""
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **(environment or {})})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
        output.seek(0)
        said = output.read().decode(errors="replace").strip().splitlines()
    if process.returncode:
        said = [f"exit code {process.returncode}", *said[-3:]]
    return Figures(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000, said[-1] if said else "")


def draw_pictures(folder: Path, files: int, kilobytes: int) -> None:
    """Draw JPEGs of about the wanted size, no two alike."""
    rng = np.random.default_rng(1)
    height, width = (480, 640) if kilobytes < 500 else (3000, 4000)
    noise = 30 if kilobytes < 500 else 12
    base = cv2.GaussianBlur(rng.integers(0, 255, (height, width, 3), dtype=np.uint8), (0, 0), 3)
    grain = rng.integers(0, noise, (height, width, 3), dtype=np.uint8)
    quality = _find_quality(cv2.add(base, grain), kilobytes)
    for number in range(files):
        picture = cv2.add(np.roll(base, number % width, 1), np.roll(grain, number, 0))
        cv2.putText(picture, str(number), (40, height // 2), 0, height / 160, (255, 255, 255), height // 120)
        _, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        content.tofile(folder / f"IMG_{number:06}.jpg")


def _find_quality(picture: np.ndarray, kilobytes: int) -> int:
    for quality in range(95, 20, -3):
        if len(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]) <= kilobytes * 1000:
            return quality
    return 20


@contextmanager
def prefect_server(home: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    """Run a Prefect server and yield its API's URL and a look at the CPU seconds it has used."""
    port = find_free_port()
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-ui"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        import httpx

        url = f"http://127.0.0.1:{port}/api"
        for _ in range(600):
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        ticks = os.sysconf("SC_CLK_TCK")

        def cpu() -> float:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / ticks

        yield url, cpu
    finally:
        process.terminate()
        process.wait()


def find_contenders(url: str, scratch: Path) -> dict[str, Callable[[Path], list[str]]]:
    """Return the command of every contender that is installed, by name, given the folder to fill."""
    peers = Path(os.environ.get("CATCHMENT_PEERS", "/nowhere"))
    rclone = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    wget2 = shutil.which("wget2")
    contenders: dict[str, Callable[[Path], list[str]]] = {
        "bare loop": lambda folder: [sys.executable, "-c", BARE, url, str(folder)],
        "catchment": lambda folder: [sys.executable, "-c", FLOW, url, str(folder)],
    }
    if rclone:
        flags = ["--http-url", url, "--transfers", "4", "--checkers", "4", "--config", os.devnull]
        contenders["rclone copy"] = lambda folder: [rclone, "copy", ":http:", str(folder), *flags]
    if wget2:
        flags2 = ["-q", "-r", "-np", "-nd", "-N", "--max-threads", "4", "-A", "jpg"]
        contenders["wget2"] = lambda folder: [wget2, *flags2, "-P", str(folder), url]
    if (peers / "img2dataset").exists():
        urls = scratch / "urls.txt"
        flags3 = ["--thread_count", "8", "--processes_count", "2", "--image_size", "512", "--resize_mode", "keep_ratio"]
        contenders["img2dataset"] = lambda folder: [
            str(peers / "img2dataset"), "--url_list", str(urls), "--output_folder", str(folder), *flags3,
            "--compute_hash", "sha256", "--extract_exif", "True", "--number_sample_per_shard", "1000",
        ]  # fmt: skip
    if (peers / "scrapy").exists():
        contenders["Scrapy"] = lambda folder: [str(peers / "python"), "-c", SCRAPY, url, str(folder)]
    return contenders


def main() -> None:
    """Print a line a contender and round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--kilobytes", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="catchment-bench-") as name:
        scratch = Path(name)
        scratch.chmod(0o755)
        pictures = scratch / "pictures"
        pictures.mkdir()
        draw_pictures(pictures, options.files, options.kilobytes)
        mean = sum(path.stat().st_size for path in pictures.iterdir()) / options.files
        print(f"{options.files:,} JPEGs of {mean / 1000:,.0f} kB")
        print(f"{'':12} {'wall s':>8} {'files/s':>8} {'of bare':>8} {'CPU s':>8} {'peak MB':>8}")
        with serve_nginx(pictures) as nginx, prefect_server(scratch / "prefect") as (api, server_cpu):
            (scratch / "urls.txt").write_text("".join(f"{nginx.url}{path.name}\n" for path in pictures.iterdir()))
            environment = {"PREFECT_API_URL": api, "PREFECT_LOGGING_LEVEL": "WARNING"}
            for turn in range(options.rounds):
                bare = 0.0
                for contender, command in find_contenders(nginx.url, scratch).items():
                    if options.only and contender not in options.only:
                        continue
                    folder = scratch / f"{contender.replace(' ', '-')}-{turn}"
                    before = server_cpu()
                    took = measure(command(folder), environment)
                    if contender == "bare loop":
                        bare = took.wall
                    print(
                        f"{contender:12} {took.wall:8.1f} {options.files / took.wall:8.0f} {bare / took.wall:8.2f} "
                        f"{took.cpu:8.1f} {took.peak:8.0f}  {took.said}"
                        + (f"; Prefect's server: {server_cpu() - before:.1f} s CPU" if contender == "catchment" else "")
                    )
                    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
