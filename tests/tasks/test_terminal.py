"""Which days, streams and times are asked for: ranges, lists, yesterday, and what is refused at once."""

# ruff: noqa: DTZ001 - names tell wall clocks

from datetime import UTC, date, datetime, time

import pytest

from blocks._errors import WrongUse
from blocks.terminal_camera import TerminalCamera
from tasks.terminal import choose_days, choose_streams, parse_times

CAMERA = TerminalCamera()
NOW = datetime(2025, 9, 4, 3, 0, tzinfo=UTC)  # at the terminal it is the evening of the third
SEPTEMBER = [date(2025, 9, day) for day in range(1, 4)]


def test_a_range_has_both_its_ends_and_a_start_alone_is_one_day() -> None:
    assert choose_days(SEPTEMBER[0], SEPTEMBER[2], [], CAMERA, NOW) == tuple(SEPTEMBER)
    assert choose_days(SEPTEMBER[0], None, [], CAMERA, NOW) == (SEPTEMBER[0],)
    assert choose_days(date(2025, 8, 30), SEPTEMBER[0], [], CAMERA, NOW)[1:] == (date(2025, 8, 31), SEPTEMBER[0])


def test_single_days_stand_alone_or_beside_a_range_each_once_in_order() -> None:
    assert choose_days(None, None, [SEPTEMBER[2], SEPTEMBER[0], SEPTEMBER[2]], CAMERA, NOW) == (
        SEPTEMBER[0],
        SEPTEMBER[2],
    )
    assert choose_days(SEPTEMBER[1], None, [SEPTEMBER[0]], CAMERA, NOW) == (SEPTEMBER[0], SEPTEMBER[1])


def test_without_any_day_it_is_yesterday_at_the_terminal() -> None:
    assert choose_days(None, None, [], CAMERA, NOW) == (date(2025, 9, 2),)
    assert choose_days(None, None, [], TerminalCamera(timezone="Europe/Zurich"), NOW) == (date(2025, 9, 3),)


@pytest.mark.parametrize(
    ("start", "end", "days", "told"),
    [
        (SEPTEMBER[2], SEPTEMBER[0], [], "before it starts"),
        (None, SEPTEMBER[0], [], "needs a start"),
        (SEPTEMBER[0], date(2025, 9, 4), [], "2025-09-04 is in the future"),
        (None, None, [date(2026, 1, 1)], "it is 2025-09-03 now"),
        (date(1990, 1, 1), SEPTEMBER[0], [], "ten years"),
    ],
)
def test_what_can_not_be_asked_for_is_said_in_a_sentence(
    start: date | None, end: date | None, days: list[date], told: str
) -> None:
    with pytest.raises(WrongUse, match=told):
        choose_days(start, end, days, CAMERA, NOW)


def test_streams_are_all_of_the_cameras_or_those_named() -> None:
    assert choose_streams(None, CAMERA) == choose_streams([], CAMERA) == ("in_gate", "out_gate")
    assert choose_streams(["out_gate", "out_gate"], CAMERA) == ("out_gate",)
    with pytest.raises(WrongUse, match="in_gate, out_gate"):
        choose_streams(["rear_gate"], CAMERA)


def test_times_are_of_one_day_or_of_every_day() -> None:
    assert parse_times(["2025-09-01T10:00:07", " 2025-09-01 10:10:09", "10:00:07"]) == (
        datetime(2025, 9, 1, 10, 0, 7),
        datetime(2025, 9, 1, 10, 10, 9),
        time(10, 0, 7),
    )


@pytest.mark.parametrize("text", ["", "noon", "2025-09-01", "25:00:00", "2025-09-01T10:00:07Z", "10"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(WrongUse, match="is no time"):
        parse_times([text])
