"""Write what became of a batch of files into the catalog: images once, files as they stand, outcomes as the ledger."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, Connection, Table, and_, bindparam, case, delete, exists, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from blocks._database import chunks_of
from blocks._errors import LibraryUnavailable, Reason, WrongUse
from blocks._records import CaptureTime, ImageFacts, Outcome, Quality, Verdict
from blocks._schema import FileState, RunStatus, files, images, outcomes, runs, sources

MAX_ATTEMPTS = 5
"""So many failures in a row park a file until it changes or a person asks."""

KEPT = (Verdict.STORED, Verdict.DUPLICATE)


class StoredImage(NamedTuple):
    """Where the bytes of an image and its thumbnail lie in the library's storage."""

    storage_key: str
    thumbnail_key: str | None


class _Word(NamedTuple):
    """What this run has said of a file before; a batch that is recorded again is not counted twice.

    `stand_in`: the digest of the thumbnail that the catalog has in the picture's place.
    """

    file_id: int
    verdict: str | None
    sha256: str | None
    size: int
    stand_in: str | None


def write_outcomes(
    connection: Connection, run_id: int, source_id: int, said: Sequence[Outcome], now: datetime, max_attempts: int
) -> list[Outcome]:
    """Write `said` in the caller's transaction and return it as it stands, in the same order."""
    keys = [outcome.file.key for outcome in said]
    if len(set(keys)) != len(keys):
        raise WrongUse("One file can have only one outcome in a run: the batch names a key twice.")
    earlier = _read_earlier(connection, run_id, source_id, keys)
    firsts = {outcome.sha256: outcome for outcome in reversed(said) if outcome.verdict is Verdict.STORED}
    won = _insert_images(connection, source_id, firsts.values(), now)
    named = {o.sha256 for o in said if o.verdict in KEPT} | {word.sha256 for word in earlier.values()}
    known = find_images(connection, filter(None, named))

    settled: list[Outcome] = []
    fresh: list[Outcome] = []
    for outcome in said:
        word = earlier.get(outcome.file.key)
        if word and word.verdict in KEPT and word.sha256 in known and outcome.sha256 in {None, word.sha256}:
            first = replace(outcome, verdict=Verdict(word.verdict), reason=None, message=None, sha256=word.sha256)
            settled.append(replace(first, **known[word.sha256]._asdict()))
            continue
        is_winner = outcome.sha256 in won and firsts.get(outcome.sha256) is outcome
        settled.append(outcome if is_winner else _settle(outcome, known))
        fresh.append(settled[-1])
    _write_files(connection, run_id, source_id, fresh, earlier, now, max_attempts)
    _count(connection, run_id, fresh, earlier)
    return _drop_stand_ins(connection, settled, earlier)


def find_images(connection: Connection, sha256s: Iterable[str]) -> dict[str, StoredImage]:
    """Return where those images lie that the catalog knows."""
    found: dict[str, StoredImage] = {}
    for few in chunks_of(list(sha256s)):
        rows = connection.execute(
            select(images.c.sha256, images.c.storage_key, images.c.thumbnail_key).where(images.c.sha256.in_(few))
        )
        found.update((sha256, StoredImage(storage_key, thumbnail)) for sha256, storage_key, thumbnail in rows)
    return found


def recount_run(connection: Connection, run_id: int, **ending: Any) -> None:
    """Set the run's counts from its outcomes, so that planned is their sum and what is left of the plan is deferred.

    `ending`: further columns to set in the same statement, as a run may end only with counts that add up.
    """
    rows = connection.execute(
        select(outcomes.c.verdict, func.count(), func.sum(outcomes.c.size))
        .where(outcomes.c.run_id == run_id)
        .group_by(outcomes.c.verdict)
    ).all()
    counts = {verdict.value: 0 for verdict in Verdict} | {verdict: count for verdict, count, _ in rows}
    done = sum(counts.values())
    left = runs.c.planned + runs.c.deferred - done
    connection.execute(
        update(runs)
        .where(runs.c.id == run_id)
        .values(
            **counts,
            **ending,
            planned=done,
            deferred=case((left > 0, left), else_=0),
            bytes=sum(int(size) for _, _, size in rows),
        )
    )


def insert_for(connection: Connection) -> Any:
    """Return the `insert` of this database's dialect, the one that knows ON CONFLICT."""
    return postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert


def _insert_many(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> tuple[Any, Any]:
    """Return an insert of `rows`, to be given its ON CONFLICT, and the values to execute it with."""
    if connection.dialect.name != "postgresql":
        return sqlite.insert(table), rows
    # one array a column: a statement with a parameter for every value takes psycopg three times as long
    names = list(rows[0])
    arrays = [bindparam(f"all_{name}", [row[name] for row in rows], ARRAY(table.c[name].type)) for name in names]
    given = func.unnest(*arrays).table_valued(*names, name="given").render_derived()
    return postgresql.insert(table).from_select(names, select(*given.c)), None


def _read_earlier(connection: Connection, run_id: int, source_id: int, keys: Sequence[str]) -> dict[str, _Word]:
    rows = connection.execute(
        select(files.c.key, files.c.id, outcomes.c.verdict, outcomes.c.sha256, outcomes.c.size, images.c.sha256)
        .outerjoin_from(files, outcomes, and_(outcomes.c.file_id == files.c.id, outcomes.c.run_id == run_id))
        .outerjoin(images, and_(images.c.sha256 == files.c.sha256, images.c.quality == Quality.THUMBNAIL))
        .where(files.c.source_id == source_id, files.c.key.in_(keys))
    )
    return {
        key: _Word(file_id, verdict, sha256, size or 0, stand_in)
        for key, file_id, verdict, sha256, size, stand_in in rows
    }


def _drop_stand_ins(connection: Connection, settled: Sequence[Outcome], earlier: dict[str, _Word]) -> list[Outcome]:
    """Forget the thumbnails whose pictures came in full, and return `settled` with where they lay."""
    replaced = {
        word.stand_in
        for outcome in settled
        if (word := earlier.get(outcome.file.key)) and word.stand_in and _is_full(outcome)
    }
    if not replaced:
        return list(settled)
    is_referred_to = exists().where(files.c.sha256 == images.c.sha256)
    dropped = connection.execute(
        delete(images)
        .where(images.c.sha256.in_(replaced), ~is_referred_to)
        .returning(images.c.sha256, images.c.storage_key, images.c.thumbnail_key)
    )
    places = {sha256: tuple(filter(None, keys)) for sha256, *keys in dropped}
    return [
        replace(outcome, superseded=places.pop(word.stand_in or "", ()))
        if (word := earlier.get(outcome.file.key))
        else outcome
        for outcome in settled
    ]


def _is_full(outcome: Outcome) -> bool:
    return outcome.verdict in KEPT and outcome.facts is not None and outcome.facts.quality is Quality.FULL


def _insert_images(connection: Connection, source_id: int, stored: Iterable[Outcome], now: datetime) -> set[str]:
    """Insert the images that are not there yet and return the digests of those that this call inserted."""
    owner, location_id = connection.execute(
        select(sources.c.owner, sources.c.location_id).where(sources.c.id == source_id)
    ).one()
    seen = {"source_id": source_id, "owner": owner, "location_id": location_id, "stored_at": now}
    # in one order everywhere, so that two writers wait for each other instead of deadlocking
    rows = sorted((_image_row(outcome) | seen for outcome in stored), key=lambda row: str(row["sha256"]))
    if not rows:
        return set()
    # no conflict target: a storage key taken by other bytes must cost only that one file
    insert, values = _insert_many(connection, images, rows)
    return set(connection.scalars(insert.on_conflict_do_nothing().returning(images.c.sha256), values))


def _image_row(outcome: Outcome) -> dict[str, Any]:
    facts = outcome.facts
    if facts is None or outcome.storage_key is None or outcome.sha256 != facts.sha256:
        raise WrongUse("A stored outcome needs the image's facts and the place where its bytes lie.")
    captured = facts.captured
    return {name: getattr(facts, name) for name in ImageFacts.__slots__ if name != "captured"} | {
        "captured_local": captured.local,
        "captured_offset_minutes": captured.offset_minutes,
        "captured_utc": _to_utc(captured),
        "captured_witness": captured.witness,
        "storage_key": outcome.storage_key,
        "thumbnail_key": outcome.thumbnail_key,
        "key": outcome.file.key,
    }


def _to_utc(captured: CaptureTime) -> datetime | None:
    if captured.offset_minutes is None:
        return None
    return captured.local.replace(tzinfo=UTC) - timedelta(minutes=captured.offset_minutes)


def _settle(outcome: Outcome, known: dict[str, StoredImage]) -> Outcome:
    """Return what holds for a file whose image this call did not insert for it."""
    if outcome.verdict not in KEPT:
        return outcome
    if place := known.get(outcome.sha256 or ""):
        return replace(outcome, verdict=Verdict.DUPLICATE, **place._asdict())
    if outcome.verdict is Verdict.DUPLICATE:
        raise LibraryUnavailable(
            f"The image of {outcome.file.key} is no longer in the catalog; it was taken out for repair: try again."
        )
    return replace(
        outcome,
        verdict=Verdict.FAILED,
        reason=Reason.STORAGE,
        message=f"Its place in the library, {outcome.storage_key}, is taken by another image.",
    )


def _write_files(
    connection: Connection,
    run_id: int,
    source_id: int,
    fresh: Sequence[Outcome],
    earlier: dict[str, _Word],
    now: datetime,
    max_attempts: int,
) -> None:
    if not fresh:
        return
    rows = sorted((_file_row(o, earlier.get(o.file.key), max_attempts) for o in fresh), key=lambda row: str(row["key"]))
    seen = {"source_id": source_id, "first_seen": now, "attempted_at": now, "last_seen": now, "vanished_at": None}
    insert, values = _insert_many(connection, files, [row | seen for row in rows])
    upsert = _file_upsert(insert, max_attempts).returning(files.c.key, files.c.id)
    ids = {key: int(file_id) for key, file_id in connection.execute(upsert, values)}
    ledger = [
        {
            "run_id": run_id,
            "file_id": ids[o.file.key],
            "at": now,
            "verdict": o.verdict,
            "reason": o.reason,
            "message": o.message,
            "sha256": o.sha256,
            "size": o.size,
            "warning": o.warning,
        }
        for o in fresh
    ]
    insert, values = _insert_many(connection, outcomes, ledger)
    replaced = {column.name: column for column in insert.excluded if column.name not in {"id", "run_id", "file_id"}}
    connection.execute(insert.on_conflict_do_update(index_elements=["run_id", "file_id"], set_=replaced), values)


def _file_row(outcome: Outcome, word: _Word | None, max_attempts: int) -> dict[str, Any]:
    is_kept = outcome.verdict in KEPT
    is_repeated = word is not None and word.verdict is not None
    is_last_try = outcome.verdict is Verdict.FAILED and max_attempts <= 1
    return {
        "key": outcome.file.key,
        "size": outcome.file.size,
        "modified": outcome.file.modified,
        "validator": outcome.file.validator,
        "state": FileState.PARKED if is_last_try else FileState(outcome.verdict),
        "attempts": 0 if is_kept or is_repeated else 1,
        "reason": outcome.reason,
        "message": outcome.message,
        "sha256": outcome.sha256 if is_kept else None,
        "extra": outcome.facts.extra if outcome.facts else None,
    }


def _file_upsert(insert: Any, max_attempts: int) -> Any:
    """Return `insert` with what happens to a file that was attempted before.

    Attempts add up until the file is kept, and start anew when the source lists it as changed.
    """
    new = insert.excluded
    is_changed = or_(*(files.c[name].is_distinct_from(new[name]) for name in ("size", "modified", "validator")))
    attempts = case(
        (or_(*(new.state == verdict for verdict in KEPT)), 0),
        (is_changed, new.attempts),
        else_=files.c.attempts + new.attempts,
    )
    is_worn_out = and_(new.state == FileState.FAILED, attempts >= bindparam("max_attempts", max_attempts))
    replaced = ("size", "modified", "validator", "reason", "message", "attempted_at", "last_seen", "vanished_at")
    return insert.on_conflict_do_update(
        index_elements=["source_id", "key"],
        set_={name: new[name] for name in replaced}
        | {
            "state": case((is_worn_out, FileState.PARKED), else_=new.state),
            "attempts": attempts,
            "sha256": func.coalesce(new.sha256, files.c.sha256),
            "extra": case((new.sha256.is_(None), files.c.extra), else_=new.extra),
        },
    )


def _count(connection: Connection, run_id: int, fresh: Sequence[Outcome], earlier: dict[str, _Word]) -> None:
    change = dict.fromkeys((verdict.value for verdict in Verdict), 0)
    size = 0
    for outcome in fresh:
        change[outcome.verdict] += 1
        size += outcome.size
        word = earlier.get(outcome.file.key)
        if word and word.verdict:
            change[word.verdict] -= 1
            size -= word.size
    counted = connection.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.status == RunStatus.RUNNING)
        .values({name: runs.c[name] + count for name, count in change.items()} | {"bytes": runs.c.bytes + size})
    )
    if not counted.rowcount:  # a later run has declared this one interrupted; its ledger stays right all the same
        recount_run(connection, run_id)
