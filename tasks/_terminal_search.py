"""Find a terminal's pictures: for every date and stream what is known and what is new, several looked for at once.

Each date and stream fails alone, and says so; what may heal is tried once more after all the others.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from queue import SimpleQueue
from typing import Literal, TypeAlias

from blocks._catalog_captures import make_due
from blocks._catalog_probes import (
    KnownPicture,
    Search,
    drop_expired_probes,
    find_source_id,
    read_captures,
    read_pictures,
    read_probes,
    record_search,
    remember_probes,
)
from blocks._errors import SourceRefused, SourceUnavailable, WrongUse
from blocks._records import Page, Quality, RemoteFile, make_listing
from blocks._schema import FileState
from blocks._terminal_addresses import PictureAddress, find_instants, local_day, parse_picture_address, picture_key
from blocks._terminal_cdn import Manners, Sight, refuse_all
from blocks._terminal_page import HistoryPage
from blocks.library import ImageLibrary
from blocks.terminal_camera import TerminalCamera
from tasks._cadence import Rhythm
from tasks._probing import Probing, Purse
from tasks._store import RunIds

Method: TypeAlias = Literal["direct", "browser"]

AT_ONCE = 4
"""So many dates and streams are looked for at the same time."""

_LEARNED = 300
"""Captures before a day, and after it, that its rhythm is learned from: two days of one in ten minutes."""
_TELLING_DENIALS = 20
"""Probes that were all denied before it is no chance any more."""
_STORED = {FileState.STORED, FileState.DUPLICATE}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for: which days and streams, how, and for how many probes.

    `times`: pictures somebody knows of, by local date and time, or by a time of day that holds for every day.
    """

    days: tuple[date, ...]
    streams: tuple[str, ...]
    method: Method = "direct"
    max_images_per_date: int | None = None
    max_probes_per_image: int = 3
    max_probes: int = 50_000
    times: tuple[datetime | time, ...] = ()


_Item: TypeAlias = tuple[date, str]


@dataclass(frozen=True, slots=True)
class _Found:
    """What came of one date and stream: how the search went, and every file there is, known and new."""

    search: Search
    files: list[RemoteFile]


class _Trail:
    """When one stream took its pictures, as far as is known: seconds since 1970-01-01 UTC, in order."""

    def __init__(self, captures: Iterable[datetime]) -> None:
        self._moments = sorted(int(captured.timestamp()) for captured in captures)
        self._lock = threading.Lock()

    def add(self, captures: Iterable[datetime]) -> None:
        """Add what was found."""
        with self._lock:
            self._moments = sorted({*self._moments, *(int(captured.timestamp()) for captured in captures)})

    def near(self, moment: datetime) -> list[int]:
        """Return the captures around `moment`."""
        with self._lock:
            place = bisect_left(self._moments, int(moment.timestamp()))
            return self._moments[max(0, place - _LEARNED) : place + _LEARNED]

    def distance(self, moment: datetime) -> float:
        """Return how many seconds away the nearest capture is."""
        second = moment.timestamp()
        return min((abs(other - second) for other in self.near(moment)), default=0.0)


class TerminalSearch:
    """One run's look for pictures; `searches` tells how each date and stream went.

    With `ids` of a run everything learned is kept in the catalog; without, nothing is touched.
    """

    def __init__(
        self, camera: TerminalCamera, library: ImageLibrary, wanted: Wanted, ids: RunIds | None, now: datetime
    ) -> None:
        self.searches: list[Search] = []
        self._camera = camera
        self._zone = camera.zone
        self._wanted = wanted
        self.ids = ids
        self._now = now
        self._catalog = library.catalog() if ids or library.has_catalog else None
        name = camera.source_name
        self._source_id = ids.source_id if ids else find_source_id(self._catalog, name) if self._catalog else None
        self._purse = Purse(wanted.max_probes)
        self._trails: dict[str, _Trail] = {}
        self._manners: Manners | None = None
        self._manners_lock = threading.Lock()
        self._stopped = threading.Event()

    @property
    def failures(self) -> list[Search]:
        """Return the searches that could not be finished."""
        return [search for search in self.searches if search.error]

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped.set()

    def iter_pages(self) -> Iterator[Page]:
        """Yield a page for every date and stream, as each is done.

        Raises:
            WrongUse: there is no browser; or nothing was learned of any stream, so that no name can be computed.
            SourceUnavailable, SourceRefused: not one date and stream could be searched.
            LibraryUnavailable, LibraryRefused: the catalog can not be used.
        """
        self._recall()
        with ExitStack() as stack:
            history = None
            if self._wanted.method == "browser":
                history = stack.enter_context(self._camera.open_history())
            stack.callback(self.stop)
            items = self._plan()
            left = sum(map(len, items))
            again: list[list[_Item]] = []
            for round_, lanes in enumerate((items, again)):
                for found in self._run(lanes, history):
                    search = found.search
                    if round_ == 0 and isinstance(search.error, SourceUnavailable):
                        again.append([(search.day, search.stream)])
                        continue
                    left -= 1
                    self.searches.append(search)
                    files = make_listing(file for file in found.files if self._camera.is_wanted(file.key))
                    yield Page(files, is_last=not left, is_start=False)
        failures = self.failures
        if failures and len(failures) == len(self.searches) and not any(search.found for search in failures):
            raise failures[0].error or AssertionError

    def _recall(self) -> None:
        start, _ = local_day(min(self._wanted.days), self._zone)
        _, end = local_day(max(self._wanted.days), self._zone)
        for stream in self._wanted.streams:
            known: Iterable[datetime] = ()
            if self._catalog and self._source_id is not None:
                known = read_captures(self._catalog, self._source_id, stream, start, end)
            self._trails[stream] = _Trail(known)
        if self.ids and self._catalog:
            drop_expired_probes(self._catalog, self.ids.source_id, self._now)

    def _plan(self) -> list[list[_Item]]:
        """Return lanes that are searched side by side, each in its order.

        A camera whose pictures follow from the ones before is followed from the nearest known day on.
        """
        lanes: list[list[_Item]] = []
        for stream in self._wanted.streams:
            trail = self._trails[stream]
            items = [(day, stream) for day in self._wanted.days]
            if self._wanted.method == "browser":
                lanes.append(items)
                continue
            rhythm = Rhythm.learn(trail.near(self._middle(items[0][0])))
            if rhythm is None or rhythm.is_steady:
                lanes.extend([item] for item in items)
            else:
                lanes.append(sorted(items, key=lambda item: trail.distance(self._middle(item[0]))))
        return lanes

    def _run(self, lanes: Sequence[Sequence[_Item]], history: HistoryPage | None) -> Iterator[_Found]:
        done: SimpleQueue[_Found | BaseException] = SimpleQueue()

        def follow(lane: Sequence[_Item]) -> None:
            for day, stream in lane:
                if self._stopped.is_set() or self._camera.is_stopped:
                    return
                try:
                    done.put(self._search(day, stream, history))
                except BaseException as error:  # noqa: BLE001 - it is raised where the pages are read
                    done.put(error)
                    return

        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="search") as pool:
            try:
                for lane in lanes:
                    pool.submit(follow, lane)
                for _ in range(sum(map(len, lanes))):
                    yield _or_raise(done.get())
            except BaseException:
                self.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _search(self, day: date, stream: str, history: HistoryPage | None) -> _Found:
        known: list[KnownPicture] = []
        probing = self._begin(day, stream)
        search = Search(stream, day, self._wanted.method)
        new: list[RemoteFile] = []
        try:
            if self._catalog and self._source_id is not None:
                known = read_pictures(self._catalog, self._source_id, day, stream)
            probing.know(address.local for row in known if (address := parse_picture_address(row.key)))
            if history is not None:
                expected, new = self._read_page(history, day, stream, known)
            else:
                expected = self._probe_day(probing, day, stream, known)
            search = replace(search, expected=expected)
            self._renew_thumbnails(probing, known)
        except (SourceUnavailable, SourceRefused, WrongUse) as error:
            search = replace(search, error=error)
        new += [RemoteFile(picture_key(s.local, stream), s.size) for _, s in sorted(probing.sightings.items())]
        most = self._wanted.max_images_per_date
        new = new if most is None else new[: max(0, most - len(known))]
        self._trails[stream].add(self._instant_of(file.key) for file in new)
        search = replace(search, known=len(known), found=len(new), probes=probing.probes, hits=probing.hits)
        self._keep(search, probing)
        return _Found(search, [*(RemoteFile(row.key) for row in known), *new])

    def _begin(self, day: date, stream: str) -> Probing:
        remembered = []
        if self._catalog and self._source_id is not None:
            remembered = read_probes(self._catalog, self._source_id, day, stream, self._now)
        return Probing(
            self._look,
            stream,
            self._zone,
            remembered=remembered,
            purse=self._purse,
            thumbnail_share=0.02,
            now=self._now,
        )

    def _read_page(
        self, history: HistoryPage, day: date, stream: str, known: Sequence[KnownPicture]
    ) -> tuple[int, list[RemoteFile]]:
        shown = self._camera.read_page(history, stream, day)
        here = {row.key for row in known}
        new = {file.key: file for file in shown if file.key not in here}
        return len(shown), sorted(new.values(), key=lambda file: (file.locator is not None, file.key))

    def _probe_day(self, probing: Probing, day: date, stream: str, known: Sequence[KnownPicture]) -> int:
        """Look for a day's pictures by their names and return how many there should be."""
        start, end = (int(moment.timestamp()) for moment in local_day(day, self._zone))
        end = min(end, int(self._now.timestamp()))
        probing.recall()
        times = self._times_on(day)
        rhythm = Rhythm.learn(self._trails[stream].near(self._middle(day)))
        if rhythm:
            probing.inform(rhythm)
        beats = rhythm.beats_between(start, end)[: self._wanted.max_images_per_date] if rhythm else []
        if rhythm is None and not times:
            raise WrongUse(
                f"{'Too little' if known else 'Nothing'} is known yet of when {stream} takes pictures, so their names "
                "can not be computed: learn a day by --method browser, or name pictures you know of by --time "
                "(known_times)."
            )
        missing = sum(beat not in rhythm.known for beat in beats) if rhythm else len(times)
        probing.allowance = self._wanted.max_probes_per_image * missing
        probing.try_times(times)
        if rhythm:
            probing.inform(rhythm)
            probing.walk(rhythm, beats, start, end)
        manners = self._manners
        if manners and manners.is_denial_absence and not probing.hits and probing.probes >= _TELLING_DENIALS:
            probing.answers.clear()
            raise refuse_all(self._camera.root)
        return max(len(beats), len(probing.sightings) + len(known))

    def _renew_thumbnails(self, probing: Probing, known: Sequence[KnownPicture]) -> None:
        """Have thumbnails fetched again whose full pictures are there by now."""
        stand_ins = [row.key for row in known if row.quality is Quality.THUMBNAIL and row.state in _STORED]
        probing.allowance += len(stand_ins)
        addresses = {key: address for key in stand_ins if (address := parse_picture_address(key))}
        due = [key for key, address in addresses.items() if probing.is_full_there(address.local)]
        if due and self.ids and self._catalog:
            make_due(self._catalog, self.ids.source_id, due)

    def _keep(self, search: Search, probing: Probing) -> None:
        if self.ids is None or self._catalog is None or self._stopped.is_set() or self._camera.is_stopped:
            return
        remember_probes(self._catalog, self.ids.source_id, probing.answers)
        record_search(self._catalog, self.ids.run_id, self.ids.source_id, search, now=datetime.now(UTC))

    def _look(self, address: PictureAddress) -> Sight | None:
        if self._stopped.is_set() or self._camera.is_stopped:
            raise SourceUnavailable("The run was stopped; the next one goes on from here.")
        with self._manners_lock:
            if self._manners is None:
                self._manners = self._camera.learn_manners()
        return self._camera.look_for(address, self._manners)

    def _times_on(self, day: date) -> list[datetime]:
        exact = [moment for moment in self._wanted.times if isinstance(moment, datetime) and moment.date() == day]
        daily = [datetime.combine(day, moment) for moment in self._wanted.times if isinstance(moment, time)]
        return sorted({*exact, *daily})

    def _instant_of(self, key: str) -> datetime:
        address = parse_picture_address(key)
        assert address is not None, key  # noqa: S101 - we made it
        return (find_instants(address.local, self._zone) or [address.local.replace(tzinfo=self._zone)])[0]

    def _middle(self, day: date) -> datetime:
        return datetime.combine(day, time(12), self._zone)


def _or_raise(found: _Found | BaseException) -> _Found:
    if isinstance(found, BaseException):
        raise found
    return found
