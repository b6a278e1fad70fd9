"""What a run adds up to, and how it reads; nothing that a stranger named can break a report."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks._schema import RunStatus
from tasks._report import IngestReport, decide_status, escape_cell, format_bytes, markdown_table, report_table
from tasks.report import artifact_key


@pytest.mark.parametrize(
    ("planned", "quarantined", "failed", "status"),
    [
        (0, 0, 0, RunStatus.NO_NEW_FILES),
        (3, 0, 0, RunStatus.SUCCESS),
        (3, 1, 0, RunStatus.PARTIAL),
        (3, 0, 3, RunStatus.PARTIAL),
    ],
)
def test_a_status_says_whether_everything_that_was_there_came(
    planned: int, quarantined: int, failed: int, status: RunStatus
) -> None:
    assert decide_status(planned=planned, quarantined=quarantined, failed=failed) is status


@given(st.text())
def test_a_cell_never_ends_its_column_or_row_and_holds_no_markup(text: str) -> None:
    cell = escape_cell(text)
    assert "<" not in cell
    assert ">" not in cell
    assert cell.splitlines() in ([], [cell])
    bare = cell.replace("\\\\", "")
    assert not any(bare[max(at - 1, 0)] != "\\" for at, character in enumerate(bare) if character in "|`*_[]!")


def test_a_table_of_hostile_names_has_the_columns_it_should() -> None:
    rows = [(escape_cell(name), 1) for name in ("a|b", "<script>", "x\ny", "![i](http://h/)")]
    table = markdown_table(["key", "count"], rows)
    assert len(table.splitlines()) == 2 + len(rows)
    assert "<script>" not in table


def test_every_source_has_its_line() -> None:
    reports = [
        IngestReport("a", RunStatus.SUCCESS, stored=2, bytes=61_000),
        IngestReport("b|c", RunStatus.FAILED, message="No answer.\nTry later."),
    ]
    *_, first, second = report_table(reports).splitlines()
    assert first == "| a | success | 2 | 0 | 0 | 0 | 0 | 0 | 61.0 kB |  |"
    assert second == "| b\\|c | failed | 0 | 0 | 0 | 0 | 0 | 0 | 0 B | No answer. Try later. |"


def test_a_summary_says_what_came_of_it() -> None:
    report = IngestReport("cam", RunStatus.PARTIAL, listed=9, planned=4, stored=3, failed=1, bytes=1_500_000, seconds=2)
    assert report.summary == "cam: 3 stored, 1 failed, 1.5 MB in 2.0 s"
    assert IngestReport("cam", RunStatus.NO_NEW_FILES, listed=9).summary == "cam: nothing new among 9 listed files"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (60_200, "60.2 kB"), (3e12, "3.0 TB")]
)
def test_bytes_read_as_people_write_them(count: float, text: str) -> None:
    assert format_bytes(count) == text


@given(st.text())
def test_an_artifact_key_is_one_that_prefect_takes(name: str) -> None:
    key = artifact_key("report", name)
    assert key.startswith("report")
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not key.endswith("-")
