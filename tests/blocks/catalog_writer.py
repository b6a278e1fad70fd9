"""Outcomes to fill a catalog with, and a process that writes them until it is done or killed."""

import hashlib
import random
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from blocks._catalog import Catalog, open_catalog
from blocks._errors import Reason
from blocks._records import CaptureTime, ImageFacts, Outcome, RemoteFile, TimeWitness, Verdict

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


def make_facts(number: int, *, camera: str | None = "north gate", offset_minutes: int | None = 120) -> ImageFacts:
    """The facts of image `number`, captured that many minutes after 2026-01-01 00:00."""
    return ImageFacts(
        sha256=hashlib.sha256(str(number).encode()).hexdigest(),
        size=60_000 + number,
        format="jpeg",
        width=640,
        height=480,
        orientation=1,
        captured=CaptureTime(datetime(2026, 1, 1) + timedelta(minutes=number), offset_minutes, TimeWitness.EXIF),  # noqa: DTZ001
        camera_make="Reconyx",
        camera_model="HP2X",
        camera_serial="H500",
        camera=camera,
        latitude=52.5,
        longitude=13.25,
        perceptual_hash=f"{number:016x}",
        brightness=0.5,
        sharpness=120.0,
    )


def make_file(key: str, *, size: int | None = 60_000, validator: str | None = '"1"') -> RemoteFile:
    return RemoteFile(key, size, NOW - timedelta(days=1), validator)


def stored(number: int, key: str | None = None, *, place: str = "library", facts: ImageFacts | None = None) -> Outcome:
    facts = facts or make_facts(number)
    return Outcome(
        make_file(key or f"IMG_{number:04}.JPG"),
        Verdict.STORED,
        sha256=facts.sha256,
        size=facts.size,
        facts=facts,
        storage_key=f"{place}/{number}.jpg",
        thumbnail_key=f"thumbnails/{number}.webp",
    )


def duplicate(number: int, key: str) -> Outcome:
    return replace(stored(number, key), verdict=Verdict.DUPLICATE, thumbnail_key=None)


def failed(key: str, reason: Reason = Reason.TIMEOUT, *, validator: str | None = '"1"') -> Outcome:
    return Outcome(make_file(key, validator=validator), Verdict.FAILED, reason, "The server did not answer in time.")


def quarantined(key: str, reason: Reason = Reason.TRUNCATED) -> Outcome:
    return Outcome(make_file(key), Verdict.QUARANTINED, reason, "The picture ends early.", sha256="f" * 64, size=7)


def begin(catalog: Catalog, name: str = "gate") -> tuple[int, int]:
    """A source and a run of it: (run_id, source_id)."""
    source_id = catalog.ensure_source(name, "http-directory", f"http://{name}.example/", now=NOW)
    return catalog.begin_run(source_id, now=NOW), source_id


def main(url: str, name: str, batches: int, seed: int) -> None:
    """Record `batches` of 20 images from source `name`, the same ones for every seed; print how many were new."""
    numbers = list(range(20 * batches))
    random.Random(seed).shuffle(numbers)
    won = 0
    with open_catalog(url) as catalog:
        run_id, source_id = begin(catalog, name)
        print("ready", flush=True)
        for start in range(0, len(numbers), 20):
            said = [stored(number, place=name) for number in numbers[start : start + 20]]
            settled = catalog.record_outcomes(run_id, source_id, said, now=NOW)
            won += sum(outcome.verdict is Verdict.STORED for outcome in settled)
    print(won)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
