"""The diff: what of a listing has to be fetched, as a set difference against the catalog."""

from collections.abc import Iterator, Set
from dataclasses import dataclass

import polars as pl

from blocks._catalog import KNOWN_SCHEMA
from blocks._catalog_outcomes import MAX_ATTEMPTS
from blocks._errors import Reason
from blocks._records import LISTING_SCHEMA, Listing, Page, RemoteFile, Rows, iter_files
from blocks._schema import LONGEST_NAME
from blocks.library import ImageLibrary

MAX_BATCH_BYTES = 128_000_000
"""Most listed bytes in one batch, so that the staging area stays small whatever the size of the files."""

_FETCHED = ("new", "changed", "retry")

_MAY_HEAL_UNSEEN = [Reason.TRUNCATED.value, Reason.HTML_PAGE.value, Reason.CORRUPT.value]
"""Quarantined for a fault that its writer or server may mend without the listing showing it."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Batch:
    """Files that go through download, process and store together; `number` counts from 1 of `total`."""

    number: int
    total: int
    files: Rows[RemoteFile]

    @property
    def title(self) -> str:
        """Return what people see as the name of the batch's task runs."""
        if len(self.files) == 1:
            return self.files[0].name
        return f"batch {self.number} of {self.total} ({len(self.files)} files)"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Plan:
    """What the diff decided about every listed or known file; each is in exactly one class.

    `decisions`: the listing's columns plus `decision`, one of new, changed, retry, deferred; rows that will be fetched
    come first, in that order. `vanished`: keys that were there at the last listing and no longer are. `returned`: keys
    that had vanished and are there again, whatever was decided about them. `unchanged` counts the rest, `parked` those
    of them that were given up until they change or a person asks.
    """

    decisions: pl.DataFrame
    vanished: pl.Series
    returned: pl.Series
    unchanged: int
    parked: int

    def count(self, decision: str) -> int:
        """Return how many files got `decision`."""
        return int((self.decisions["decision"] == decision).sum())

    @property
    def counts(self) -> dict[str, int]:
        """Return the size of every class."""
        found = {name: self.count(name) for name in (*_FETCHED, "deferred")}
        return {**found, "unchanged": self.unchanged, "vanished": len(self.vanished)}

    @property
    def listed(self) -> int:
        """Return how many files the listing holds."""
        return len(self.decisions) + self.unchanged

    @property
    def planned(self) -> int:
        """Return how many files will be fetched."""
        return len(self.decisions) - self.count("deferred")

    def take(self, max_files: int | None) -> "Plan":
        """Return the plan with all but `max_files` of the files deferred.

        New and changed files go first, so that a file that fails again and again blocks nobody; where there are more
        of them than the cap, a quarter of it is kept for retries, so that these do not starve.
        """
        if max_files is None or self.planned <= max_files:
            return self
        retries = self.decisions.filter(pl.col("decision") == "retry")
        others = self.decisions.filter(pl.col("decision") != "retry")
        kept_retries = min(len(retries), max(max_files // 4, max_files - len(others)))
        kept_others = min(len(others), max_files - kept_retries)
        left = pl.concat([others[kept_others:], retries[kept_retries:]]).with_columns(decision=pl.lit("deferred"))
        decisions = pl.concat([others[:kept_others], retries[:kept_retries], left])
        return Plan(decisions, self.vanished, self.returned, self.unchanged, self.parked)

    def batches(self, at_least: int = 1) -> Iterator[Batch]:
        """Yield the planned files in batches: one file each in a small run, up to 200 in a large one.

        `at_least` so many go together where there are as many.
        """
        fetched = self.decisions[: self.planned]
        sizes = _batch_sizes(fetched["size"], at_least)
        start = 0
        for number, length in enumerate(sizes, start=1):
            yield Batch(number, len(sizes), Rows(iter_files(fetched[start : start + length])))
            start += length


def _batch_sizes(file_sizes: pl.Series, at_least: int) -> list[int]:
    total = len(file_sizes)
    most = max(at_least, 1 if total <= 24 else min(200, max(50, total // 20)))
    sizes: list[int] = []
    count, filled = 0, 0
    for size in file_sizes:
        if count and (count == most or filled + (size or 0) > MAX_BATCH_BYTES):
            sizes.append(count)
            count, filled = 0, 0
        count += 1
        filled += size or 0
    return [*sizes, count] if count else sizes


def make_plan(listing: Listing, known: pl.DataFrame) -> Plan:
    """Compare what a source lists with what the catalog knows of it.

    `known`: one row a file of this source, as `Catalog.known_files` gives it (key, size, modified, validator, state,
    attempts, reason, vanished). A file is changed when its validator differs, or its size or time where both sides
    tell them; a failed one is tried again; a parked one stays until it changes; a file that comes back is fetched again
    unless the listing proves that it is the same. A picture that was cut short is tried again where the listing gives
    no exact size, since there the rest could arrive unseen.
    """
    joined = listing.select(list(LISTING_SCHEMA)).join(
        known, on="key", how="left", suffix="_known", maintain_order="left"
    )
    is_known = pl.col("state").is_not_null()
    differs = pl.any_horizontal(
        (pl.col(name) != pl.col(f"{name}_known")).fill_null(value=False) for name in ("validator", "size", "modified")
    )
    has_witness = pl.any_horizontal(
        pl.col(name).is_not_null() & pl.col(f"{name}_known").is_not_null() for name in ("validator", "modified")
    )
    is_due = pl.col("state").is_in(["failed", "retry"]) | (
        (pl.col("state") == "quarantined")
        & pl.col("reason").is_in(_MAY_HEAL_UNSEEN)
        & pl.col("size").is_null()
        & (pl.col("attempts") < MAX_ATTEMPTS)
    )
    decided = joined.with_columns(
        decision=pl.when(~is_known)
        .then(pl.lit("new"))
        .when(differs | (pl.col("vanished") & ~has_witness))
        .then(pl.lit("changed"))
        .when(is_due)
        .then(pl.lit("retry"))
        .otherwise(pl.lit("unchanged"))
    )
    unchanged = decided["decision"] == "unchanged"
    rank = pl.col("decision").replace_strict({"new": 0, "changed": 1, "retry": 2}, return_dtype=pl.Int8)
    vanished = known.filter(~pl.col("vanished")).join(listing, on="key", how="anti")["key"]
    return Plan(
        decisions=decided.filter(~unchanged).sort(rank, "key").select(*LISTING_SCHEMA, "decision"),
        vanished=vanished,
        returned=decided.filter(pl.col("vanished").fill_null(value=False))["key"],
        unchanged=int(unchanged.sum()),
        parked=int(decided.filter(unchanged & (decided["state"] == "parked"))["key"].len()),
    )


def drop_long_names(listing: Listing) -> Listing:
    """Return `listing` without the files whose names no catalog can hold; one of them must not fail its batch."""
    return listing.filter(pl.col("key").str.len_bytes() <= LONGEST_NAME)


def read_known(library: ImageLibrary, source_name: str, page: Page) -> pl.DataFrame:
    """Return what the catalog knows of a source's files, or of those that a page which is not all of it is about.

    Nothing where the source or the library is new.
    """
    if not library.has_catalog:  # opening would make it, and a dry run makes nothing
        return pl.DataFrame(schema=KNOWN_SCHEMA)
    catalog = library.catalog()
    if page.is_whole:
        return catalog.known_files_of(source_name)
    if not page.gone:
        return catalog.known_files_of(source_name, page.files["key"].to_list())
    listed, gone = set(page.files["key"]), set(page.gone)
    known = catalog.known_files_of(source_name)
    is_meant = [key in listed or _lies_in(key, gone) for key in known["key"]]
    return known.filter(pl.Series(is_meant, dtype=pl.Boolean))


def _lies_in(key: str, places: Set[str]) -> bool:
    return key in places or any(key[:end] in places for end, letter in enumerate(key) if letter == "/")
