"""`catchment download-range`: dates as people give them, exit codes, and what is printed."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from blocks.terminal_camera import TerminalCamera
from tests.flows.commands import Command
from tests.servers.terminal_cdn import TerminalCdn, by_the_clock, locals_of, on_day, serve_terminal_cdn

DAYS = [date(2025, 9, 1), date(2025, 9, 2), date(2025, 9, 3)]
TAKEN = by_the_clock(DAYS, step_seconds=3600)


@pytest.fixture
def cdn() -> Iterator[TerminalCdn]:
    with serve_terminal_cdn() as server:
        for moment in TAKEN:
            server.put(moment, "in_gate")
        yield server


def times_of(day: date) -> list[str]:
    return [f"--time={text}" for text in locals_of(on_day(TAKEN, day))]


@pytest.mark.usefixtures("with_api", "without_waiting")
def test_days_come_as_a_range_as_single_days_and_as_a_list(catchment: Command, cdn: TerminalCdn) -> None:
    there = ["--picture-url", cdn.template, "--stream", "in_gate", "--library", "gates", "--format", "json"]
    said = catchment("download-range", "2025-09-01", *times_of(DAYS[0]), *there)
    assert (said.code, said.rows[0]["stored"]) == (0, 24), said.err
    said = catchment("download-range", "--from", "2025-09-01", "--to", "2025-09-02", *there)
    assert (said.code, said.rows[0]["stored"], said.rows[0]["unchanged"]) == (0, 24, 24), said.err
    for days in (
        ["--date", "2025-09-03", "--date", "2025-09-01"],
        ["2025-09-03", "2025-09-01"],
        ["2025-09-01..2025-09-03"],
    ):
        said = catchment("download-range", *days, "--dry-run", *there)
        assert said.code == 0, said.err
        assert said.rows[0]["planned"] == 24
    said = catchment("download-range", "2025-09-01..2025-09-03", *there[:-2])
    assert said.code == 0, said.err
    assert "24 stored" in said.out
    assert "2025-09-03" in said.out


@pytest.mark.usefixtures("with_api", "without_waiting")
def test_a_saved_camera_is_taken_by_its_name_with_options_in_place_of_its_fields(
    catchment: Command, cdn: TerminalCdn
) -> None:
    TerminalCamera(picture_url=cdn.template, streams=["in_gate", "out_gate"]).save("test-gates", overwrite=True)
    try:
        said = catchment(
            "download-range", DAYS[0], "--source", "terminal-camera/test-gates", "--stream", "in_gate",
            *times_of(DAYS[0])[:3], "--library", "gates", "--format", "json",
        )  # fmt: skip
        assert said.code == 0, said.err
        assert (said.rows[0]["source"], said.rows[0]["stored"]) == ("terminal-camera/test-gates", 3)
        said = catchment("download-range", DAYS[0], "--source", "terminal-camera/nobody", "--library", "gates")
        assert (said.code, said.out) == (2, "")
    finally:
        TerminalCamera.delete("test-gates")


@pytest.mark.usefixtures("with_api", "without_waiting")
def test_what_failed_ends_with_1_and_nothing_learned_with_2(catchment: Command, cdn: TerminalCdn) -> None:
    there = ["--picture-url", cdn.template, "--stream", "in_gate", "--library", "gates"]
    said = catchment("download-range", DAYS[0], *there)
    assert (said.code, said.out) == (2, "")
    assert "--method browser" in said.err
    with serve_terminal_cdn() as gone:
        template = gone.template
    there[1] = template
    said = catchment("download-range", DAYS[0], "--time", "10:00:07", *there)
    assert said.code == 1
    assert said.err.startswith("error: ")


@pytest.mark.usefixtures("with_api")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["2025-9-1"], "write YYYY-MM-DD"),
        (["2025-09-31"], "write YYYY-MM-DD"),
        (["--from", "2025-09-03", "--to", "2025-09-01"], "before it starts"),
        (["2025-09-03..2025-09-01"], "before it starts"),
        (["--to", "2025-09-01"], "needs a start"),
        (["2999-01-01"], "in the future"),
        (["2025-09-01", "--time", "noon"], "is no time"),
        (["2025-09-01", "--max-images", "0"], "--max-images"),
        (["2025-09-01", "--max-probes-per-image", "0"], "--max-probes-per-image"),
        (["2025-09-01", "--timezone", "Mars/Olympus"], "IANA"),
        (["2025-09-01", "--picture-url", "http://me:canary@127.0.0.1/{local:%Y}"], "without a user"),
        (["2025-09-01", "--stream", "../x"], "is no stream"),
        (["2025-09-01", "--source", "http-directory/garden"], "terminal-camera/NAME"),
        (["2025-09-01", "--method", "magic"], "magic"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_ends_with_2_and_one_line(
    catchment: Command, tmp_path: Path, arguments: list[str], told: str
) -> None:
    said = catchment("download-range", *arguments, "--library", tmp_path / "gates")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: ")
    assert told in said.err
    assert "canary" not in said.err
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "gates").exists()
