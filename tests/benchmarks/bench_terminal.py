"""Measure a month of gate pictures beside its peers: JPEGs from nginx over loopback, found, fetched and catalogued.

    python -m tests.benchmarks.bench_terminal [--days 30] [--kilobytes 150] [--browser-days 3] [--rounds 1] [--only …]

Two streams take a picture in ten minutes each, a few typical delays behind the minute: 288 a day. `direct` knows one
day before the range and finds the names itself, by HEAD; the others get the complete list of addresses. They are
`curl --parallel`, which only fetches, and img2dataset, which processes too, from the `bin` folder that
`CATCHMENT_PEERS` names, of a virtual environment with `pip install img2dataset`. `browser` reads the history page with
Chromium, of fewer days, as its rate does not depend on their number; it needs npm for the page's Vue and Element Plus.

Every contender is a process of its own, and what it stored is counted on disk: one that did not store enough gets no
rate, and the benchmark ends with exit code 1. Direct mode may miss one picture in twenty; all else stores every one.
Printed are wall and CPU seconds and peak memory of the largest process; `own s` is the flow's own time from its
report, without the start of its process. The flows run against a Prefect server that is up already.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from blocks._terminal_addresses import picture_url
from tests.benchmarks.bench_ingest import Figures, apart, draw_pictures, measure, prefect_server
from tests.servers.nginx import serve_nginx
from tests.servers.terminal_cdn import PATH, ZONE, by_the_clock, locals_of, on_day
from tests.servers.terminal_site import find_builds, serve_terminal_site

STREAMS = ["in_gate", "out_gate"]
FIRST = date(2025, 9, 1)
LEAST_FOUND = 0.95
UNASKED = "http://127.0.0.1/{stream}"

FLOW = """
import json, sys
from datetime import date
from pathlib import Path
from blocks.library import ImageLibrary
from blocks.terminal_camera import TerminalCamera
from flows.ingest_terminal_camera import ingest_terminal_camera
asked = json.loads(sys.argv[1])
camera = TerminalCamera(picture_url=asked["picture_url"], page_url=asked["page_url"], connections=8)
report = ingest_terminal_camera(
    camera, start_date=date.fromisoformat(asked["start"]), end_date=date.fromisoformat(asked["end"]),
    method=asked["method"], known_times=asked["times"], library=ImageLibrary(folder=Path(sys.argv[2])),
)
print(f"{report.stored} stored of {report.planned} planned; own seconds: {report.seconds:.2f}")
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """A program to measure: its command, given the folder to fill, and how many pictures it has to store."""

    command: Callable[[Path], list[str]]
    pictures: int
    glob: str
    least: int
    prepare: Callable[[Path], None] = lambda folder: None


def place_pictures(folder: Path, kilobytes: int, days: int) -> None:
    """Draw a picture for every time of both streams, and put each where its address says."""
    taken = _month(days)
    draw_pictures(folder, len(STREAMS) * len(taken), kilobytes)
    drawn = iter(sorted(folder.glob("IMG_*.jpg")))
    for stream in STREAMS:
        for moment in taken:
            place = folder / _path_of(moment, stream)
            place.parent.mkdir(parents=True, exist_ok=True)
            next(drawn).rename(place)


def find_contenders(
    url: str, page_url: str | None, scratch: Path, days: int, browser_days: int
) -> dict[str, Contender]:
    """Return every contender that is installed, by name."""
    taken = [moment for moment in _month(days) if moment >= on_day(_month(days), FIRST)[0]]
    total = len(STREAMS) * len(taken)
    urls = [url + _path_of(moment, stream) for stream in STREAMS for moment in taken]
    (scratch / "urls.txt").write_text("".join(f"{address}\n" for address in urls))
    (scratch / "curl.txt").write_text(
        "".join(f'url = "{address}"\noutput = "{number}.jpg"\n' for number, address in enumerate(urls))
    )
    last = FIRST + timedelta(days=days - 1)
    before = FIRST - timedelta(days=1)
    times = locals_of(on_day(_month(days), before))

    def flow(method: str, start: date, end: date, known: list[str] | None = None) -> Callable[[Path], list[str]]:
        asked = {
            "picture_url": url + PATH, "page_url": page_url or UNASKED, "method": method, "times": known,
            "start": start.isoformat(), "end": end.isoformat(),
        }  # fmt: skip
        return lambda folder: [sys.executable, "-c", FLOW, json.dumps(asked), str(folder)]

    def learn(folder: Path) -> None:
        subprocess.run(flow("direct", before, before, times)(folder), check=True, stdout=subprocess.DEVNULL)

    contenders = {
        "direct": Contender(
            flow("direct", FIRST, last),
            total,
            "20*/*/*.jpg",
            len(STREAMS) * len(times) + int(LEAST_FOUND * total),
            learn,
        ),
    }
    if shutil.which("curl"):
        contenders["curl"] = Contender(
            lambda folder: ["curl", "-s", "--parallel", "--parallel-max", "8", "--output-dir", str(folder), "-K",
                            str(scratch / "curl.txt")],
            total, "*.jpg", total, lambda folder: folder.mkdir(),
        )  # fmt: skip
    peer = Path(os.environ.get("CATCHMENT_PEERS", "/nowhere")) / "img2dataset"
    if peer.exists():
        shard = min(1000, max(1, total // 8))
        flags = ["--url_list", str(scratch / "urls.txt"), "--number_sample_per_shard", str(shard)]
        flags += ["--thread_count", "8", "--processes_count", "2", "--compute_hash", "sha256"]
        flags += ["--image_size", "512", "--resize_mode", "keep_ratio", "--extract_exif", "True"]
        contenders["img2dataset"] = Contender(
            lambda folder: [str(peer), "--output_folder", str(folder), *flags], total, "*/*.jpg", total
        )
    if page_url:
        few = FIRST + timedelta(days=browser_days - 1)
        shown = len(STREAMS) * sum(len(on_day(taken, FIRST + timedelta(days=day))) for day in range(browser_days))
        contenders["browser"] = Contender(flow("browser", FIRST, few), shown, "20*/*/*.jpg", shown)
    return contenders


@contextmanager
def history_page(url: str, days: int) -> Iterator[str]:
    """Serve the history page of pictures at `url`, and yield its address."""
    with serve_terminal_site(find_builds(), today=FIRST + timedelta(days=days), cdn_url=url) as site:
        for stream in STREAMS:
            site.put(stream, *map(datetime.fromisoformat, locals_of(_month(days))))
        yield site.page_url_template


def compare(contenders: dict[str, Contender], scratch: Path, environment: dict[str, str]) -> list[str]:
    """Print a line a contender and return the names of those that did not store enough."""
    short = []
    for name, contender in contenders.items():
        folder = scratch / f"of-{name}"
        contender.prepare(folder)
        took = measure(contender.command(folder), environment)
        stored = sum(path.stat().st_size > 0 for path in folder.glob(contender.glob))
        shutil.rmtree(folder, ignore_errors=True)
        if stored < contender.least or took.exit_code:
            short.append(name)
            print(f"{name:12} FAILED: stored {stored:,} of {contender.least:,}, exit {took.exit_code}: {took.said}")
            continue
        print(_line(name, contender, took), flush=True)
    return short


def _line(name: str, contender: Contender, took: Figures) -> str:
    own = took.own_seconds
    rate = f"{contender.pictures / own:8.0f}" if own else f"{'':8}"
    shown = f"{own:8.1f}" if own else f"{'':8}"
    return (
        f"{name:12} {contender.pictures:8} {took.wall:8.1f} {contender.pictures / took.wall:8.0f} {shown} {rate} "
        f"{took.cpu:8.1f} {took.peak:8.0f}"
    )


def _month(days: int) -> list[datetime]:
    """Return the instants of a stream's pictures: the day that is learned, and the range."""
    return by_the_clock([FIRST - timedelta(days=1), FIRST + timedelta(days=days - 1)])


def _path_of(moment: datetime, stream: str) -> str:
    local = moment.astimezone(ZONE).replace(tzinfo=None)
    return urlsplit(picture_url(f"http://127.0.0.1/{PATH}", local, stream)).path.lstrip("/")


def main() -> None:
    """Print a line a contender and round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--kilobytes", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--browser-days", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="catchment-bench-")))
        scratch.chmod(0o755)
        pictures = scratch / "pictures"
        pictures.mkdir()
        apart(place_pictures, pictures, options.kilobytes, options.days)
        sizes = [path.stat().st_size for path in pictures.glob("apm/*/*/*.jpeg")]
        print(f"{len(sizes):,} JPEGs of {sum(sizes) / len(sizes) / 1000:,.0f} kB, {options.days} days are asked for")
        titles = ("pictures", "wall s", "a second", "own s", "a second", "CPU s", "peak MB")
        print(f"{'':12} {' '.join(f'{title:>8}' for title in titles)}")
        nginx = stack.enter_context(serve_nginx(pictures, autoindex="off"))
        api, _ = stack.enter_context(prefect_server(scratch / "prefect"))
        is_wanted = bool(options.browser_days) and (not options.only or "browser" in options.only)
        page_url = stack.enter_context(history_page(nginx.url, options.days)) if is_wanted else None
        environment = {"PREFECT_API_URL": api, "PREFECT_LOGGING_LEVEL": "WARNING"}
        os.environ.update(environment)  # for what is learned before
        found = find_contenders(nginx.url, page_url, scratch, options.days, options.browser_days)
        chosen = {name: found[name] for name in found if not options.only or name in options.only}
        short = [name for _ in range(options.rounds) for name in compare(chosen, scratch, environment)]
    if short:
        sys.exit(f"These did not store enough pictures: {', '.join(short)}.")


if __name__ == "__main__":
    main()
