"""Measure download_file beside a bare httpx loop: 60 KB files from nginx over loopback, four threads.

    python -m tests.benchmarks.bench_download [files]

Prints files per second of each and their ratio; runs alternate, and the best of each counts.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from blocks._http import HttpSettings, open_client
from blocks._http_download import download_file
from blocks._pace import Pace
from tests.servers.nginx import serve_nginx

THREADS = 4
ROUNDS = 5
BODY = b"\xff\xd8\xff\xe0\x00\x10" + bytes(range(250)) * 240


def measure(files: int) -> None:
    """Print files per second of both."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "root")
        root.mkdir()
        for number in range(files):
            (root / f"{number}.jpg").write_bytes(BODY)
        Path(scratch).chmod(0o755)
        with serve_nginx(root) as nginx:
            limits = httpx.Limits(max_connections=THREADS, max_keepalive_connections=THREADS)
            pace = Pace()
            with httpx.Client(limits=limits) as bare, open_client(HttpSettings(nginx.url, connections=THREADS)) as ours:

                def get(name: str) -> None:
                    Path(scratch, name).write_bytes(bare.get(nginx.url + name).content)

                def download(name: str) -> None:
                    download_file(ours, nginx.url + name, Path(scratch, name), expected_size=len(BODY), pace=pace)

                best = {"bare httpx": 0.0, "download_file": 0.0}
                for _ in range(ROUNDS):
                    for name, fetch in (("bare httpx", get), ("download_file", download)):
                        best[name] = max(best[name], _rate(fetch, files))
                        # Replacing a file costs more than making one, and an ingest only makes new ones.
                        for path in Path(scratch).glob("*.jpg"):
                            path.unlink()
    for name, rate in best.items():
        print(f"{name:14} {rate:8,.0f} files/s")
    print(f"{'ratio':14} {best['download_file'] / best['bare httpx']:8.2f}")


def _rate(fetch: Callable[[str], None], files: int) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fetch, [f"{number}.jpg" for number in range(files)]))
    return files / (time.perf_counter() - started)


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
