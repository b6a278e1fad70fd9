"""Asking for names: within the budget, never twice, the full picture before its thumbnail."""

# ruff: noqa: DTZ001 - names tell wall clocks

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from threading import Thread

import pytest

from blocks._catalog_probes import Probe
from blocks._errors import SourceUnavailable
from blocks._records import Quality
from blocks._schema import ProbeAnswer
from blocks._terminal_addresses import PictureAddress, local_day, picture_key
from blocks._terminal_cdn import Sight
from tasks._cadence import Rhythm
from tasks._probing import NOT_YET, Probing, Purse, expire
from tests.servers.terminal_cdn import ZONE, by_the_clock, on_day

FIRST, SECOND = date(2025, 9, 1), date(2025, 9, 2)
NOW = datetime(2025, 10, 1, tzinfo=UTC)
TAKEN = by_the_clock([FIRST, SECOND])
START, END = (int(moment.timestamp()) for moment in local_day(SECOND, ZONE))


class Gate:
    """A source that has `full` pictures and `thumbnails`, and counts what it is asked for."""

    def __init__(self, full: Iterable[datetime], thumbnails: Iterable[datetime] = ()) -> None:
        self.full = {moment.astimezone(ZONE).replace(tzinfo=None) for moment in full}
        self.thumbnails = {moment.astimezone(ZONE).replace(tzinfo=None) for moment in thumbnails}
        self.asked: Counter[PictureAddress] = Counter()

    def look(self, address: PictureAddress) -> Sight | None:
        self.asked[address] += 1
        return Sight(100, None) if address.local in (self.thumbnails if address.is_thumbnail else self.full) else None


def probing_of(gate: Gate, *, remembered: Iterable[Probe] = (), purse: int = 10_000, allowance: int = 432) -> Probing:
    probing = Probing(
        gate.look, "in_gate", ZONE, remembered=remembered, purse=Purse(purse), thumbnail_share=0.02, now=NOW
    )
    probing.allowance = allowance
    return probing


def walk(probing: Probing) -> None:
    rhythm = Rhythm.learn(int(moment.timestamp()) for moment in on_day(TAKEN, FIRST))
    assert rhythm is not None
    probing.inform(rhythm)
    probing.walk(rhythm, rhythm.beats_between(START, END), START, END)


def locals_of(moments: Iterable[datetime]) -> set[datetime]:
    return {moment.astimezone(ZONE).replace(tzinfo=None) for moment in moments}


def test_a_day_is_found_and_no_name_asked_for_twice() -> None:
    gate = Gate(on_day(TAKEN, SECOND))
    probing = probing_of(gate)
    walk(probing)
    assert set(probing.sightings) == locals_of(on_day(TAKEN, SECOND))
    assert set(gate.asked.values()) == {1}
    assert probing.probes == gate.asked.total() == len(probing.answers)
    assert probing.hits == len(probing.sightings)


@pytest.mark.parametrize(("purse", "allowance", "spent"), [(10, 432, 10), (10_000, 7, 7), (0, 432, 0), (10_000, 0, 0)])
def test_neither_budget_is_ever_exceeded(purse: int, allowance: int, spent: int) -> None:
    gate = Gate(on_day(TAKEN, SECOND))
    walk(probing_of(gate, purse=purse, allowance=allowance))
    assert gate.asked.total() == spent


def test_a_camera_that_was_off_costs_its_budget_at_most() -> None:
    gate = Gate([])
    probing = probing_of(gate)
    walk(probing)
    assert not probing.sightings
    assert gate.asked.total() <= 432
    assert {answer.answer for answer in probing.answers} == {ProbeAnswer.NEVER}


def test_what_was_answered_before_is_not_asked_for_again() -> None:
    gate = Gate(on_day(TAKEN, SECOND))
    first = probing_of(gate, allowance=100)
    walk(first)
    second = probing_of(gate, remembered=first.answers)
    second.recall()
    assert set(second.sightings) == set(first.sightings)
    walk(second)
    assert set(second.sightings) == locals_of(on_day(TAKEN, SECOND))
    assert set(gate.asked.values()) == {1}


def test_pictures_that_are_here_are_not_asked_for() -> None:
    here = locals_of(on_day(TAKEN, SECOND)[:50])
    gate = Gate(on_day(TAKEN, SECOND))
    probing = probing_of(gate)
    probing.know(here)
    probing.try_times(here)
    assert gate.asked.total() == 0
    walk(probing)
    assert not here & set(probing.sightings)
    assert not here & {address.local for address in gate.asked}


def test_a_thumbnail_is_asked_for_where_no_full_picture_was_found() -> None:
    moments = on_day(TAKEN, SECOND)
    gate = Gate(moments[5:], thumbnails=moments[:5])
    probing = probing_of(gate)
    walk(probing)
    assert len(probing.sightings) >= 0.95 * len(moments)
    assert len(locals_of(moments[:5]) & set(probing.sightings)) >= 4
    assert all(probing.sightings[local].size is None for local in locals_of(moments[:5]) & set(probing.sightings))


def test_times_that_somebody_knows_need_no_rhythm() -> None:
    moments = on_day(TAKEN, SECOND)
    gate = Gate(moments[1:3], thumbnails=moments[:1])
    probing = probing_of(gate, allowance=9)
    probing.try_times(sorted(locals_of(moments[:4])))
    assert set(probing.sightings) == locals_of(moments[:3])
    assert probing.probes == 6


def test_a_failure_keeps_what_was_found_before_it() -> None:
    gate = Gate(on_day(TAKEN, SECOND))
    probing = probing_of(gate)

    def fail_later(address: PictureAddress) -> Sight | None:
        if gate.asked.total() >= 50:
            raise SourceUnavailable("The server stopped answering.")
        return gate.look(address)

    probing._look = fail_later
    with pytest.raises(SourceUnavailable):
        walk(probing)
    assert len(probing.sightings) > 20
    assert len(probing.answers) == 50


def test_what_is_young_may_still_come_and_what_is_old_never_will() -> None:
    def told(age: timedelta) -> tuple[ProbeAnswer, timedelta]:
        answer, expires = expire(NOW - age, NOW)
        return answer, expires - NOW

    assert told(timedelta(minutes=1)) == (ProbeAnswer.NOT_YET, timedelta(minutes=10))
    assert told(timedelta(hours=5)) == (ProbeAnswer.NOT_YET, timedelta(hours=5))
    assert told(NOT_YET) == (ProbeAnswer.NEVER, timedelta(days=90))
    assert told(timedelta(hours=-1)) == (ProbeAnswer.NOT_YET, timedelta(minutes=10))


def test_a_remembered_thumbnail_is_looked_at_for_its_full_picture_once() -> None:
    local = datetime(2025, 9, 2, 10, 0, 27)
    gate = Gate([])
    gate.full = {local}
    assert probing_of(gate).is_full_there(local)
    key = picture_key(local, "in_gate")
    missed = Probe(key, Quality.FULL, ProbeAnswer.NOT_YET, NOW, NOW + timedelta(hours=1))
    assert not probing_of(gate, remembered=[missed]).is_full_there(local)
    assert gate.asked.total() == 1


def test_a_purse_is_shared_without_a_probe_too_many() -> None:
    purse, taken = Purse(1_000), []

    def spend() -> None:
        while purse.take():
            taken.append(1)

    threads = [Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1_000
    assert purse.is_empty
