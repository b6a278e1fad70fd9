"""Measure a catalog of a million files: opening, the read for the diff, recording a batch, what people ask.

Run by hand: `python -m tests.benchmarks.bench_catalog [rows]`, on SQLite and on PostgreSQL.
"""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from sqlalchemy import text

from blocks._catalog import Catalog, open_catalog
from blocks._catalog_queries import describe_image, iter_stored_images, list_images, list_sources
from tests.blocks.catalog_writer import NOW, begin, stored
from tests.servers.postgres import running_postgres

_DIGEST = {"sqlite": "printf('%064x', i * 2654435761 % 4294967296)", "postgres": "md5(i::text) || md5((i + 1)::text)"}
_NAME = {"sqlite": "printf('2026-01/IMG_%08d.JPG', i)", "postgres": "'2026-01/IMG_' || lpad(i::text, 8, '0') || '.JPG'"}
_INSTANT = {"sqlite": "1767225600000000 + i", "postgres": "timestamptz 'epoch' + make_interval(secs => 1767225600 + i)"}
_LOCAL = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%S.000000', 1767225600 + i, 'unixepoch')",
    "postgres": "timestamp '2026-01-01' + make_interval(secs => i)",
}


def fill(catalog: Catalog, database: str, source_id: int, rows: int) -> None:
    """Make `rows` stored files of one source, each with an image of its own."""
    digest, name, instant, local = (kind[database] for kind in (_DIGEST, _NAME, _INSTANT, _LOCAL))
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
    catalog.write(
        lambda c: c.execute(
            text(
                "INSERT INTO images (sha256, size, format, width, height, orientation, captured_local,"
                " captured_witness, camera, "
                "perceptual_hash, brightness, sharpness, storage_key, source_id, key, stored_at)"
                f" {numbers}"
                f" SELECT {digest}, 60000, 'jpeg', 640, 480, 1, {local}, 'exif', 'camera', '0', 0.5, 100,"
                f" 'library/' || {name}, {source_id}, {name}, {instant} FROM n"
            )
        )
    )
    catalog.write(
        lambda c: c.execute(
            text(
                f"INSERT INTO files (source_id, key, size, modified, validator, state, attempts, sha256, first_seen,"
                f" attempted_at, last_seen) {numbers}"
                f" SELECT {source_id}, {name}, 60000, {instant}, '\"5f0-' || i || '\"', 'stored', 0, {digest},"
                f" {instant}, {instant}, {instant} FROM n"
            )
        )
    )


def measure(what: str, work: Callable[[], object], times: int = 5) -> None:
    """Print the median of `times` rounds, in milliseconds."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    print(f"  {what:<44} {statistics.median(seconds) * 1000:>10,.1f} ms")


def run(url: str, database: str, rows: int) -> None:
    """Print one line a question."""
    print(f"{database}, {rows:,} files")
    measure("make a new catalog", lambda: open_catalog(url).close(), times=1)
    measure("open it again", lambda: open_catalog(url).close())
    with open_catalog(url) as catalog:
        run_id, source_id = begin(catalog)
        began = time.perf_counter()
        fill(catalog, database, source_id, rows)
        print(f"  filled in {time.perf_counter() - began:,.0f} s")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        measure("known_files", lambda: catalog.known_files(source_id), times=3)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"  {'more memory at most':<44} {(after - before) / 1024:>10,.1f} MB")
        batches = iter(range(10_000_000, 20_000_000, 200))

        def record() -> None:
            start = next(batches)
            said = [stored(number) for number in range(start, start + 200)]
            catalog.record_outcomes(run_id, source_id, said, now=NOW)

        measure("record_outcomes of 200 new images", record, times=40)
        measure("acquire_lease", lambda: catalog.acquire_lease(source_id, "bench", NOW - NOW), times=40)
        measure("list_images, the newest 50", lambda: list_images(catalog))
        measure("list_images of a source", lambda: list_images(catalog, source="gate"))
        measure("list_images that failed", lambda: list_images(catalog, status="failed"))
        digest = list_images(catalog, limit=1)[0]["sha256"]
        measure("describe_image", lambda: describe_image(catalog, digest))
        measure("list_sources", lambda: list_sources(catalog))
        measure("iter_stored_images, all", lambda: sum(1 for _ in iter_stored_images(catalog)), times=1)


def main() -> None:
    """Measure both databases."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        run(f"sqlite:///{folder}/catalog.db", "sqlite", rows)
    with running_postgres() as postgres:
        run(postgres.new_database("bench"), "postgres", rows)


if __name__ == "__main__":
    main()
