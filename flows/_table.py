"""Rows for people and for programs: an aligned table, or one JSON object a line."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import Any, Literal, TextIO, TypeAlias

Row: TypeAlias = Mapping[str, Any]
Format: TypeAlias = Literal["table", "json"]

_MEASURED = 1_000
"""So many rows decide how wide the columns are; longer values further down only push their own line."""


def print_rows(
    rows: Iterable[Row], columns: Sequence[str], *, style: Format = "table", out: TextIO | None = None
) -> int:
    """Print `rows` as they come and return how many there were.

    `json`: every item of each row. `table`: `columns` of it, never cut where `out` is no terminal; a table without
    rows prints nothing.
    """
    out = out or sys.stdout
    if style == "json":
        return _print_json(rows, out)
    numbered = iter(rows)
    printed = 0
    widths: list[int] | None = None
    while some := [[show(row.get(name)) for name in columns] for row in islice(numbered, _MEASURED)]:
        if out.isatty():
            _print_rich(some, columns, out)
        else:
            widths = widths or [max(map(len, column)) for column in zip(columns, *some, strict=True)]
            lines = some if printed else chain([[name.upper() for name in columns]], some)
            out.writelines(f"{line}\n" for line in _align(lines, widths))
        printed += len(some)
    return printed


def print_fields(fields: Row, *, style: Format = "table", out: TextIO | None = None) -> None:
    """Print one thing: a line per field, or one JSON object."""
    out = out or sys.stdout
    if style == "json":
        _print_json([fields], out)
        return
    told = {name.replace("_", " "): show(value) for name, value in fields.items() if value is not None}
    width = max(map(len, told), default=0)
    out.writelines(f"{name:<{width}}  {value}\n" for name, value in told.items())


def print_nested(fields: Row, name: str, rows: Iterable[Row], *, out: TextIO | None = None) -> None:
    """Print one JSON object: `fields`, and under `name` the list of `rows`, as they come."""
    out = out or sys.stdout
    out.write(json.dumps(dict(fields), default=_to_json)[:-1] + f", {json.dumps(name)}: [")
    for number, row in enumerate(rows):
        out.write((", " if number else "") + json.dumps(dict(row), default=_to_json))
    out.write("]}\n")


def show(value: object) -> str:
    """Return `value` as a table shows it; instants in UTC end in Z, times without a zone in nothing.

    Names come from strangers: characters that would steer a terminal are shown as escapes.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds").replace("+00:00", "Z")
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _print_json(rows: Iterable[Row], out: TextIO) -> int:
    printed = 0
    for row in rows:
        # ASCII, so that any name survives any terminal's encoding.
        out.write(json.dumps(dict(row), default=_to_json) + "\n")
        printed += 1
    return printed


def _to_json(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _align(lines: Iterable[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    for line in lines:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()


def _print_rich(rows: Sequence[Sequence[str]], columns: Sequence[str], out: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(file=out).print(table)
