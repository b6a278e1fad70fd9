"""Requests as their senders ask after them: where one stands, what was said of its pictures, how its files ended."""

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Numeric, and_, case, cast, column, exists, func, select

from blocks._catalog import Catalog
from blocks._database import chunks_of
from blocks._errors import WrongUse
from blocks._schema import RunStatus, files, images, runs, sources

Row = dict[str, Any]


class RequestState(StrEnum):
    """Where a request stands; every run is one."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


_IS_HANDED_OVER = sources.c.kind.in_(["upload", "drop-folder"])
_NOTHING_KEPT = and_(_IS_HANDED_OVER, runs.c.planned > 0, runs.c.stored + runs.c.duplicate == 0)

request_state = case(
    (runs.c.status == RunStatus.RUNNING, RequestState.IN_PROGRESS.value),
    (runs.c.status.in_([RunStatus.FAILED, RunStatus.INTERRUPTED]), RequestState.FAILED.value),
    (runs.c.status.in_([RunStatus.CANCELLED, RunStatus.SKIPPED, RunStatus.INACTIVE]), RequestState.CANCELLED.value),
    (_NOTHING_KEPT, RequestState.FAILED.value),
    (runs.c.status == RunStatus.PARTIAL, RequestState.PARTIAL.value),
    else_=RequestState.COMPLETED.value,
).label("state")
"""The state of a run, for a query that joins `sources`. Files handed over of which none was good: a failed request."""


def has_status(status: str) -> ColumnElement[bool]:
    """Return the condition that a run has `status`, a `RequestState` or else a `RunStatus`.

    What is a word of both means the state, so that no run is found by two of them.

    Raises:
        WrongUse: it is neither.
    """
    states, known = list(RequestState), list(dict.fromkeys([*RunStatus, *RequestState]))
    if status not in known:
        raise WrongUse(f"There is no status {status!r}; choose one of {', '.join(known)}.")
    return request_state.element == status if status in states else runs.c.status == status


def find_run(catalog: Catalog, flow_run_id: str) -> int | None:
    """Return the number of the last run that the flow run with this id made, or None where it has made none."""
    query = select(func.max(runs.c.id)).where(runs.c.flow_run_id == flow_run_id)
    with catalog.reading() as connection:
        found: int | None = connection.scalar(query)
    return found


def describe_files(catalog: Catalog, source_name: str, keys: Sequence[str]) -> dict[str, Row]:
    """Return how those files of a source stand that the catalog knows, by key."""
    names = ("key", "validator", "state", "reason", "message", "attempts", "attempted_at", "size", "sha256")
    query = select(*(files.c[name] for name in names)).join_from(files, sources).where(sources.c.name == source_name)
    with catalog.reading() as connection:
        return {
            row["key"]: dict(row)
            for few in chunks_of(keys)
            for row in connection.execute(query.where(files.c.key.in_(few))).mappings()
        }


def says(wanted: Mapping[str, str], *, is_postgres: bool) -> Iterable[ColumnElement[bool]]:
    """Yield the conditions that what is kept of an image says `wanted`, whatever the keys.

    Text, numbers and true, false and null are compared as people write them; 1, 1.0 and 1e0 are one number. What is
    kept of a key that holds a list or an object matches nothing.
    """
    said = _says_on_postgres if is_postgres else _says_on_sqlite
    return [said(key, value, _read_number(value)) for key, value in wanted.items()]


def _says_on_postgres(key: str, value: str, number: float | None) -> ColumnElement[bool]:
    kept = images.c.extra.op("->")(key)
    text = images.c.extra.op("->>")(key)
    kind = func.json_typeof(kept)
    # CASE, because AND promises no order, and only numbers can be cast
    is_equal = case(
        (kind == "number", cast(text, Numeric) == number if number is not None else False),
        (kind.in_(["string", "boolean"]), text == value),
        (kind == "null", value == "null"),
        else_=False,
    )
    return and_(func.json_typeof(images.c.extra) == "object", is_equal)


def _says_on_sqlite(key: str, value: str, number: float | None) -> ColumnElement[bool]:
    # https://www.sqlite.org/json1.html#jeach: a path would have to quote the key, and knows no way to quote a quote
    pairs = func.json_each(images.c.extra).table_valued(column("key"), column("value"), column("type"), name="said")
    kind = pairs.c.type
    is_equal = case(
        (kind.in_(["integer", "real"]), pairs.c.value == number if number is not None else False),
        (kind == "text", pairs.c.value == value),
        (kind.in_(["true", "false", "null"]), kind == value),
        else_=False,
    )
    return exists(select(1).select_from(pairs).where(pairs.c.key == key, is_equal))


def _read_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
