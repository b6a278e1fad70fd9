"""Look for one day's pictures of one camera by asking for names, the most promising first, within a budget."""

import heapq
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from blocks._catalog_probes import Probe
from blocks._records import Quality
from blocks._schema import ProbeAnswer
from blocks._terminal_addresses import PictureAddress, find_instants, parse_picture_address, picture_key
from blocks._terminal_cdn import Sight
from tasks._cadence import Rhythm

NOT_YET = timedelta(days=2)
"""A picture that is missing so long after it was due is not to be expected any more."""

_SOONEST = timedelta(minutes=10)
_NEVER_LASTS = timedelta(days=90)
_LEAST_PROMISE = 0.03
"""Hits a probe: less than one in thirty is not worth the asking."""
_CALM = 2.0
"""So many hits expected in vain, one after the other, are hardly chance."""
_FARTHEST_MOVE = 16.0
_APART = 24
"""Beats so far apart that no pause of the camera's is likely to explain why nothing is at either."""
_PATIENT = 0.9
"""A name whose promise has sunk by less than this share of the best is asked for all the same."""


class Purse:
    """A number of probes that several searches spend together."""

    def __init__(self, probes: int) -> None:
        self._left = probes
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take one, unless none is left."""
        with self._lock:
            if self._left <= 0:
                return False
            self._left -= 1
            return True

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing is left."""
        return self._left <= 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A picture that is there: its wall-clock time, and its size in bytes where that is told and it is a full one."""

    local: datetime
    size: int | None = None


def expire(taken: datetime, now: datetime) -> tuple[ProbeAnswer, datetime]:
    """Return what it means that a picture due at `taken` is not there at `now`, and until when to believe it.

    What is young may be on its way: it is asked for again when it is twice as old. What is old will not come.
    """
    age = now - taken
    if age < NOT_YET:
        return ProbeAnswer.NOT_YET, now + max(_SOONEST, age)
    return ProbeAnswer.NEVER, now + _NEVER_LASTS


class _Vain:
    """What was asked for in vain: is the camera off where we look, or is its level lost everywhere?

    `off`: beats that were given up after most of their names were missed; their neighbours are doubtful, too.
    """

    def __init__(self) -> None:
        self.off: set[int] = set()
        self._missed: set[int] = set()
        self._here = self._afar = self._calm_until = 0.0
        self._first = 0
        self._hits = 0

    def add(self, beat: int, chance: float) -> None:
        """Take note of a miss where a hit had that chance."""
        if not self._missed:
            self._first = beat
        self._missed.add(beat)
        if abs(beat - self._first) < _APART:
            self._here += chance
        else:
            self._afar += chance
        if min(self._here, self._afar) < _CALM:
            self._calm_until = self._here + self._afar

    def end(self) -> None:
        """Take note of a hit."""
        if self.unease:
            self.off.clear()
        self._missed.clear()
        self._here = self._afar = 0.0
        self._hits += 1

    @property
    def is_puzzling(self) -> bool:
        """Tell whether more was missed here than by chance, and not yet enough elsewhere."""
        return self._here >= _CALM and self._afar < _CALM

    @property
    def unease(self) -> float:
        """Return by how many seconds the level may have moved: it grows while hits are missed far and wide."""
        if min(self._here, self._afar) < _CALM:
            return 0.0
        return min(_FARTHEST_MOVE, 2.0 ** int(self._here + self._afar - self._calm_until))

    def choose(self, queue: list[tuple[float, int, int]]) -> tuple[float, int, int]:
        """Take the best entry out of the heap `queue`, or while it is puzzling the one farthest from what was missed.

        That one tells a camera that was off for a while from one whose level is lost.
        """
        if self.is_puzzling:
            far = max(queue, key=lambda entry: min(abs(entry[2] - beat) for beat in self._missed))
            if min(abs(far[2] - beat) for beat in self._missed) > 1:
                queue.remove(far)
                heapq.heapify(queue)
                return far
        return heapq.heappop(queue)

    def correct(self, beat: int, availability: float) -> float:
        """Return how likely there is a picture at `beat`, as beats that had none are many, or next to it.

        Where the level is lost they prove nothing.
        """
        if self.unease:
            return availability
        availability *= (self._hits + _APART) / (self._hits + _APART + len(self.off))
        return min(availability, 0.5) if {beat - 1, beat + 1} & self.off else availability


class Probing:
    """One look for the pictures of `stream` between two instants; what is asked and answered adds up here.

    `look` asks the source. `remembered`: answers that still hold, which cost nothing. `allowance`: probes for this
    look, taken out of `purse` too. `thumbnail_share`: how often only a thumbnail is there.
    """

    def __init__(
        self,
        look: Callable[[PictureAddress], Sight | None],
        stream: str,
        zone: ZoneInfo,
        *,
        remembered: Iterable[Probe],
        purse: Purse,
        thumbnail_share: float,
        now: datetime,
    ) -> None:
        self.answers: list[Probe] = []
        self.sightings: dict[datetime, Sighting] = {}
        self.probes = 0
        self.hits = 0
        self.allowance = 0
        self._look = look
        self._stream = stream
        self._zone = zone
        self._vain = _Vain()
        self._small: set[int] = set()
        self._said: dict[tuple[datetime, Quality], bool] = {}
        self._taken: set[datetime] = set()
        self._purse = purse
        self._thumbnail_share = thumbnail_share
        self._now = now
        for probe in remembered:
            if address := parse_picture_address(probe.key):
                self._said[address.local, probe.quality] = probe.answer is ProbeAnswer.THERE

    def know(self, locals_: Iterable[datetime]) -> None:
        """Take note of pictures that are here already: their names are no candidates."""
        self._taken.update(locals_)

    def recall(self) -> None:
        """See again the pictures that were there when somebody asked, and are not here yet."""
        for (local, _), was_there in self._said.items():
            if was_there and local not in self._taken:
                self.sightings[local] = Sighting(local)
        self._taken.update(self.sightings)

    def inform(self, rhythm: Rhythm) -> None:
        """Let `rhythm` know what was seen so far."""
        for local in self.sightings:
            for instant in find_instants(local, self._zone)[:1]:
                rhythm.note(int(instant.timestamp()))

    def is_full_there(self, local: datetime) -> bool:
        """Tell whether the full picture of a thumbnail is there by now."""
        return bool(self._ask(local, Quality.FULL))

    def try_times(self, times: Iterable[datetime]) -> None:
        """Ask for the pictures of these wall-clock times, and where there is none for its thumbnail."""
        for local in times:
            if local not in self._taken and not self._see(local, Quality.FULL):
                self._see(local, Quality.THUMBNAIL)

    def walk(self, rhythm: Rhythm, beats: Iterable[int], start: int, end: int) -> None:
        """Look for the picture of each of these beats of `rhythm`, within `start` <= second < `end`.

        Always the name with the best promise is asked for: the chance of a hit a probe, looking as many names ahead as
        makes it largest (Gittins 1979). What one hit tells about its neighbours counts at once.
        """
        beats = set(beats)
        bounds = (start, end)
        self._vain = _Vain()
        self._small.clear()
        queue: list[tuple[float, int, int]] = []

        def enqueue(beat: int) -> None:
            if beat in beats and beat not in rhythm.known:
                promise, *_ = self._find_best(rhythm, beat, bounds)
                if promise >= _LEAST_PROMISE:
                    heapq.heappush(queue, (-promise, rhythm.distance_to_known(beat), beat))

        for beat in beats:
            enqueue(beat)
        while queue and self._may_ask:
            entry = self._vain.choose(queue)
            beat = entry[2]
            if beat in rhythm.known:
                continue
            promise, chance, moment, quality = self._find_best(rhythm, beat, bounds)
            if promise < _LEAST_PROMISE:
                continue
            if (
                not self._vain.is_puzzling and queue and promise < _PATIENT * -queue[0][0]
            ):  # it promised more when it was put there
                heapq.heappush(queue, (-promise, entry[1], beat))
                continue
            if self._see(self._local(moment), quality):
                if self._vain.unease:  # lost and found: its level does move
                    rhythm.loosen()
                rhythm.add(beat, moment)
                self._vain.end()
                if quality is Quality.THUMBNAIL:
                    self._small.add(beat)
                    enqueue(beat - 1)
                    enqueue(beat + 1)
                for neighbour in () if rhythm.is_steady else (beat - 1, beat + 1):
                    enqueue(neighbour)
            else:
                self._vain.add(beat, chance)
                enqueue(beat)
            rhythm.unease = self._vain.unease

    @property
    def _may_ask(self) -> bool:
        return self.probes < self.allowance and not self._purse.is_empty

    def _find_best(self, rhythm: Rhythm, beat: int, bounds: tuple[int, int]) -> tuple[float, float, int, Quality]:
        """Return a beat's promise, and chance, second and quality of the name to ask for next; 0.0 if none is left."""
        small = 0.5 if {beat - 1, beat + 1} & self._small else self._thumbnail_share
        shares = ((Quality.FULL, 1 - small), (Quality.THUMBNAIL, small))
        missed = 0.0
        open_: list[tuple[float, int, Quality]] = []
        for likelihood, moment in rhythm.tell(beat):
            if not bounds[0] <= moment < bounds[1]:
                continue
            local = self._local(moment)
            for quality, share in shares:
                if local in self._taken or self._said.get((local, quality)) is False:
                    missed += likelihood * share
                elif share:
                    open_.append((likelihood * share, moment, quality))
        if not open_:
            return 0.0, 0.0, 0, Quality.FULL
        open_.sort(reverse=True)
        available = self._vain.correct(beat, rhythm.availability)
        chances = [available * likelihood / (1 - available * min(missed, 0.999)) for likelihood, _, _ in open_]
        if (promise := _promise_of(chances)) < _LEAST_PROMISE and missed > 0.5:
            self._vain.off.add(beat)
        return promise, chances[0], open_[0][1], open_[0][2]

    def _see(self, local: datetime, quality: Quality) -> bool:
        """Ask for a picture and take note of it if it is there."""
        sight = self._ask(local, quality)
        if not sight:
            return False
        size = sight.size if isinstance(sight, Sight) and quality is Quality.FULL else None
        self.sightings[local] = Sighting(local, size)
        self._taken.add(local)
        return True

    def _ask(self, local: datetime, quality: Quality) -> Sight | bool:
        """Return what the source says of a name, or what it said: a bare True where that is remembered."""
        if (local, quality) in self._said:
            return self._said[local, quality]
        if self.probes >= self.allowance or not self._purse.take():
            return False
        self.probes += 1
        sight = self._look(PictureAddress(local, self._stream, is_thumbnail=quality is Quality.THUMBNAIL))
        self._said[local, quality] = sight is not None
        taken = (find_instants(local, self._zone) or [local.replace(tzinfo=self._zone).astimezone(UTC)])[-1]
        answer, expires = expire(taken, self._now)
        if sight is not None:
            self.hits += 1
            answer, expires = ProbeAnswer.THERE, self._now + NOT_YET
        self.answers.append(Probe(picture_key(local, self._stream), quality, answer, self._now, expires))
        return sight or False

    def _local(self, moment: int) -> datetime:
        return datetime.fromtimestamp(moment, self._zone).replace(tzinfo=None, fold=0)


def _promise_of(chances: Sequence[float]) -> float:
    """Return the most hits a probe that asking for names with these chances in turn can bring, left off anywhere."""
    best = probes = 0.0
    found = 0.0
    for chance in chances:
        probes += 1 - found
        found += chance
        best = max(best, found / probes)
    return best
