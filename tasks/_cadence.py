"""The rhythm of a camera, learned from its captures: at which seconds its next pictures are most likely.

A camera's clock beats evenly, but its pictures bear the second at which they were finished: a few typical delays, a
drift, or a pause that only begins when the last picture is done. Three views of that are kept, and weighed by how well
they would have told the learned captures (one left out at a time), and then every further one:

- `line`: delays behind a straight line through all captures (a trigger by the clock, perhaps one that runs slow);
- `recent`: the same delays behind the line as the nearest few captures shift it (a trigger whose phase wanders);
- `chain`: a step from the neighbour (a pause after each picture, whose deviations add up).

Where the line is uncertain or was seen to wander, the first two widen with the distance to what is known. Captures are
whole seconds since 1970-01-01 UTC: local time and its changes have no part in a rhythm.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import sqrt
from typing import Self

import numpy as np
from numpy.typing import NDArray

FEWEST = 12
"""So many captures are needed before anything is concluded from them."""

_BINS = 4
"""Places to a second: names are cut to whole seconds, the moments behind them are not."""
_WIDEST = 300
_MARGIN = 40
_NEAREST = 16
_LEVELS = 12 * _BINS
_FARTHEST_CHAIN = 32
_PAIRED = 300
_SAMPLED = 100
_BLOCK = 12
_FORGETTING = 0.05
_LOOSE = 0.2
_TOLD = 40
_ROUND_STEPS = (60, 30, 15, 10, 5, 1)
_SEEN, _NEAR, _ANY = 0.94, 0.05, 0.01

Array = NDArray[np.float64]


class _Spread:
    """How likely each deviation is, by those that came: an array over -width … +width seconds, `bins` to a second.

    A deviation counts for the second around it, near ones are likelier than any, and any is possible.
    """

    def __init__(self, deviations: Array, width: int, bins: int) -> None:
        self.bins, self.width = bins, width
        size = 2 * width * bins + 1
        places = self._place(deviations[np.abs(deviations) <= width])
        counts = np.bincount(places, minlength=size).astype(np.float64)
        slope = 1 - np.abs(np.arange(-bins + 1, bins)) / bins
        self._total = max(1, len(deviations))
        seen: Array = np.convolve(counts, slope, mode="same")
        around = np.convolve(seen, _bell(1.5 * bins, size // 2), mode="same")
        reach = float(np.abs(deviations).max(initial=0.0)) + 10
        anywhere = np.abs(np.arange(size) - width * bins) <= reach * bins
        self._floor: Array = _NEAR * around / self._total + _ANY * anywhere * bins / anywhere.sum()
        self._seen = seen
        self.likelihood: Array = _SEEN * seen / self._total + self._floor
        self.middle = float(np.median(deviations)) if len(deviations) else 0.0

    def _place(self, deviations: Array) -> NDArray[np.int64]:
        places: NDArray[np.int64] = np.rint((deviations + self.width) * self.bins).astype(np.int64)
        return places

    def of(self, deviations: Array) -> Array:
        """Return the likelihood of each deviation, a second wide."""
        places = np.clip(self._place(deviations), 0, len(self.likelihood) - 1)
        likely: Array = np.where(np.abs(deviations) <= self.width, self.likelihood[places], 0.0)
        return np.maximum(likely, 1e-9)

    def without_itself(self, deviations: Array) -> Array:
        """Return how likely each of the learned deviations would have been, had it not been learned from."""
        places = np.clip(self._place(deviations), 0, len(self.likelihood) - 1)
        others = np.maximum(self._seen[places] - 1, 0) / max(1, self._total - 1)
        likely: Array = np.where(np.abs(deviations) <= self.width, _SEEN * others + self._floor[places], 1e-9)
        return likely


@dataclass(frozen=True, slots=True)
class _Line:
    """Seconds a beat and the second of beat 0; how far each may be off a beat: by a wrong slope, by a random walk."""

    step: float
    start: float
    slope_error: float
    wander: float

    def at(self, beat: int) -> float:
        return self.start + self.step * beat

    def doubt(self, beats: int) -> float:
        """Return the standard deviation in seconds, so many beats away from what is known."""
        return sqrt((self.slope_error * beats) ** 2 + self.wander**2 * beats)


class Rhythm:
    """When pictures come, beat by beat; beats are numbered, and those with a picture are `known`.

    `availability`: the share of beats that had a picture, while the camera was at work. `unease`: how many seconds more
    than by what was learned its level may be off; to be set by whoever looks where it tells, and finds nothing.
    """

    def __init__(self, captures: Sequence[int], step_seconds: float) -> None:
        beats = _count_beats(captures, step_seconds)
        self._line = _fit_line(beats, captures)
        self.step_seconds = self._line.step
        self._beats = list(beats)
        self.known = dict(zip(beats, captures, strict=True))
        off = np.array([moment - self._line.at(beat) for beat, moment in self.known.items()])
        self._width = int(min(self.step_seconds // 2, _WIDEST, np.abs(off).max() + _MARGIN))
        self._weights: Array = np.full(3, 1 / 3)
        self._chains: dict[int, Array] = {}
        self._told: dict[int, tuple[tuple[int, float], list[tuple[float, int]]]] = {}
        gaps = np.diff(self._beats)
        missing = float(np.sum(gaps[gaps <= _BLOCK] - 1))
        self.availability = min(0.995, max(0.5, len(beats) / (len(beats) + missing)))
        self.unease = 0.0
        self._learn(beats, captures, off)

    @classmethod
    def learn(cls, captures: Iterable[int]) -> Self | None:
        """Return the rhythm of `captures`, or None where they are too few or keep none."""
        ordered = sorted(set(captures))
        if len(ordered) < FEWEST:
            return None
        step = float(np.median(np.diff(ordered)))
        kept = ordered[:1]
        for moment in ordered[1:]:
            if moment - kept[-1] >= step / 2:  # else a second picture of the same beat
                kept.append(moment)
        gaps = np.diff(kept)
        single = gaps[(gaps > step / 2) & (gaps < step * 1.5)]
        return cls(kept, float(np.mean(single))) if len(kept) >= FEWEST and len(single) >= FEWEST // 2 else None

    @property
    def is_steady(self) -> bool:
        """Tell whether a day can be told without the one before."""
        return bool(self._weights[0] >= 0.5) and not self._line.wander

    def beats_between(self, start: int, end: int) -> list[int]:
        """Return the beats whose picture is most likely within `start` <= second < `end`."""
        first = int((start - self._line.start) // self.step_seconds) - 1
        last = int((end - self._line.start) // self.step_seconds) + 1
        delay = self._delays.middle
        return [
            beat for beat in range(first, last + 1) if start <= self.known.get(beat, self._line.at(beat) + delay) < end
        ]

    def add(self, beat: int, moment: int) -> None:
        """Take note of a picture that was found: where it lay tells which view to believe."""
        if beat not in self.known:
            base, views = self._view(beat)
            place = moment - base + self._width
            if 0 <= place <= 2 * self._width:
                shares: Array = self._weights * views[:, place]
                moved = (1 - _FORGETTING) * self._weights + _FORGETTING * shares / max(float(shares.sum()), 1e-12)
                self._weights = _floored(moved)
            insort(self._beats, beat)
        self.known[beat] = moment

    def loosen(self) -> None:
        """Believe that the level walks, if it was not known to: a picture was found where it was not told."""
        self._line = replace(self._line, wander=max(_LOOSE, self._line.wander))

    def note(self, moment: int) -> None:
        """Take note of a picture that was found by other means."""
        place = bisect_left(self._beats, round((moment - self._line.start) / self.step_seconds))
        near = self._beats[min(place, len(self._beats) - 1)]
        self.add(near + round((moment - self.known[near]) / self.step_seconds), moment)

    def distance_to_known(self, beat: int) -> int:
        """Return how many beats away the nearest other one with a picture is."""
        place = bisect_left(self._beats, beat)
        return min(abs(beat - near) for near in self._beats[max(0, place - 1) : place + 2] if near != beat)

    def tell(self, beat: int) -> list[tuple[float, int]]:
        """Return the seconds at which the picture of `beat` may be, with their likelihoods, the likeliest first."""
        state = (len(self.known), self.unease)
        if (told := self._told.get(beat)) and told[0] == state:
            return told[1]
        base, views = self._view(beat)
        mixed: Array = np.einsum("v,vs->s", self._weights, views)
        total = float(mixed.sum())
        order = np.argsort(-mixed, kind="stable")[:_TOLD]
        first = base - self._width
        seconds = [(float(mixed[place]) / total, first + int(place)) for place in order if mixed[place] > 0]
        self._told[beat] = state, seconds
        return seconds

    def _view(self, beat: int) -> tuple[int, Array]:
        """Return what each view says of a beat, a likelihood a second, and the second in the middle of the window."""
        near = self._near(beat)
        line = self._line.at(beat)
        doubt = min(_MARGIN, self.unease + self._line.doubt(self.distance_to_known(beat) - 1))
        level, recent = self._shifted(beat, near)
        base = round(line + level)
        seconds = [
            self._seconds(self._delays.likelihood, 0.0, base - line, doubt),
            self._seconds(recent, level, base - line, doubt),
        ]
        return base, np.vstack([*seconds, self._chain_view(beat, near, base)])

    def _seconds(self, likelihood: Array, middle: float, base: float, doubt: float) -> Array:
        """Return the likelihood of each whole second around `base`, of one around `middle`; both behind the line."""
        if doubt > 1 / _BINS:
            likelihood = np.convolve(likelihood, _bell(doubt * _BINS, len(likelihood) // 2), mode="same")
        places = np.arange(-self._width, self._width + 1) * _BINS + round((base - middle) * _BINS)
        places += len(likelihood) // 2
        inside = (places >= 0) & (places < len(likelihood))
        seconds: Array = np.where(inside, likelihood[np.clip(places, 0, len(likelihood) - 1)], 0.0)
        return seconds

    def _near(self, beat: int) -> list[int]:
        """Return the nearest other beats with a picture, the nearest first."""
        place = bisect_left(self._beats, beat)
        around = self._beats[max(0, place - _NEAREST) : place + _NEAREST]
        return sorted((other for other in around if other != beat), key=lambda other: abs(other - beat))[:_NEAREST]

    def _shifted(self, beat: int, near: Sequence[int]) -> tuple[float, Array]:
        """Return by how much the captures of `near` beats shift the line, and the delays as that shift is uncertain."""
        off = np.array([self.known[other] - self._line.at(other) for other in near])
        away = np.abs(np.array(near) - beat)
        trust = 1 / (1 + (self._line.doubt(1) * 2) ** 2 * away)
        level = round((float(np.median(off)) - self._delays.middle) * _BINS) / _BINS
        shifts = np.arange(-_LEVELS, _LEVELS + 1) / _BINS
        told = np.log(self._delays.of(off[:, None] - level - shifts[None, :])) * trust[:, None]
        odds: Array = np.exp(told.sum(axis=0) - told.sum(axis=0).max())
        odds /= odds.sum()
        return level, np.convolve(self._delays.likelihood, odds, mode="same")

    def _chain_view(self, beat: int, near: Sequence[int], base: int) -> Array:
        """Return how likely each second is as so many steps after the last picture, and before the next."""
        views = []
        for is_wanted_side in (lambda other: other < beat, lambda other: other > beat):
            other = next(filter(is_wanted_side, near), None)
            if other is None or abs(beat - other) > _FARTHEST_CHAIN:
                continue
            steps = beat - other
            chained = self._chain(abs(steps))
            center = self.known[other] + steps * round(self.step_seconds)
            views.append(_shift(chained if steps > 0 else chained[::-1], center - base))
        if not views:
            return np.zeros(2 * self._width + 1)
        both = np.prod(views, axis=0)
        view: Array = both if both.sum() > 1e-9 else np.mean(views, axis=0)
        return view / max(float(view.sum()), 1e-12)

    def _chain(self, steps: int) -> Array:
        if steps == 1:
            return self._steps.likelihood
        if steps not in self._chains:
            self._chains[steps] = np.convolve(self._chain(steps - 1), self._steps.likelihood, mode="same")
        return self._chains[steps]

    def _learn(self, beats: Sequence[int], captures: Sequence[int], off: Array) -> None:
        steps = {
            number: late - soon - round(self.step_seconds)
            for number, ((beat, following), (soon, late)) in enumerate(
                zip(pairwise(beats), pairwise(captures), strict=True), start=1
            )
            if following == beat + 1
        }
        moved = np.array(list(steps.values()), dtype=np.float64)
        self._steps = _Spread(moved, self._width, 1)
        self._delays = _Spread(off, self._width, _BINS)
        levels = np.zeros(len(off))
        if self._line.wander:
            levels = _running_median(off) - float(np.median(off))
        for _ in range(2 if self._line.wander else 0):
            self._delays = _Spread(off - levels, self._width, _BINS)
            levels = np.array([self._level_of(beat) for beat in beats])
        self._delays = _Spread(off - levels, self._width, _BINS)
        told = np.full((3, len(off)), 1e-9)
        told[0] = (_Spread(off, self._width, _BINS) if self._line.wander else self._delays).without_itself(off)
        if steps:
            told[2, list(steps)] = self._steps.without_itself(moved)
        sample = np.arange(1, len(off), max(1, len(off) // _SAMPLED))
        told[1, sample] = [self._told_by_recent(int(number), beats, off) for number in sample]
        self._weights = _weigh(told[:, sample])

    def _level_of(self, beat: int) -> float:
        """Return the likeliest shift of the line at a known beat, by its neighbours on both sides."""
        near = self._near(beat)
        level, _ = self._shifted(beat, near)
        off = np.array([self.known[other] - self._line.at(other) for other in near])
        shifts = np.arange(-_LEVELS, _LEVELS + 1) / _BINS
        told = np.log(self._delays.of(off[:, None] - level - shifts[None, :])).sum(axis=0)
        return level + float(shifts[int(np.argmax(told))])

    def _told_by_recent(self, number: int, beats: Sequence[int], off: Array) -> float:
        """Return how likely the captures before it make one: what it would have been told as."""
        before = list(beats[max(0, number - _NEAREST) : number][::-1])
        if not before:
            return 1e-9
        level, likelihood = self._shifted(beats[number], before)
        place = round((off[number] - level) * _BINS) + len(likelihood) // 2
        return float(likelihood[place]) if 0 <= place < len(likelihood) else 1e-9


def _count_beats(captures: Sequence[int], step_seconds: float) -> list[int]:
    beats = [0]
    for soon, late in pairwise(captures):
        beats.append(beats[-1] + max(1, round((late - soon) / step_seconds)))
    return beats


def _fit_line(beats: Sequence[int], captures: Sequence[int]) -> _Line:
    """Return a robust line through the captures (Theil 1950, Sen 1968), and its doubts.

    A round number of seconds is taken where the captures do not contradict it: it holds for months, a fitted one for
    days.
    """
    chosen = np.unique(np.linspace(0, len(beats) - 1, min(len(beats), _PAIRED)).astype(np.int64))
    x = np.array(beats, dtype=np.float64)[chosen]
    y = (np.array(captures, dtype=np.int64) - captures[0]).astype(np.float64)[chosen]
    first, second = np.triu_indices(len(x), k=1)
    slope = float(np.median((y[second] - y[first]) / (x[second] - x[first])))
    off = y - slope * x
    noise = max(0.3, 1.4826 * float(np.median(np.abs(off - np.median(off)))))
    wander = _measure_wander(off)
    span = float(x[-1] - x[0])
    error = max(1.25 * noise * sqrt(12 / len(x)) / span, wander / sqrt(span))
    for unit in _ROUND_STEPS:
        rounded = unit * round(slope / unit)
        if rounded and abs(slope - rounded) <= 3 * error:
            slope, error = float(rounded), 0.0
            break
    return _Line(slope, captures[0] + float(np.median(y - slope * x)), error, wander)


def _measure_wander(off: Array) -> float:
    """Return by how many seconds a beat the level of `off` walks at random; 0.0 where its noise explains all of it.

    The means of neighbouring blocks of a walk differ by two thirds of a block's variance, beside the noise.
    """
    blocks = [off[start : start + _BLOCK] for start in range(0, len(off) - _BLOCK + 1, _BLOCK)]
    if len(blocks) < 4:
        return 0.0
    noise = 2 * float(np.mean([np.var(block, ddof=1) for block in blocks])) / _BLOCK
    moves = float(np.mean(np.diff([np.mean(block) for block in blocks]) ** 2))
    return sqrt((moves - noise) * 1.5 / _BLOCK) if moves > 2 * noise else 0.0


def _running_median(values: Array) -> Array:
    half = _NEAREST // 2
    padded = np.pad(values, half, mode="edge")
    medians: Array = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1)
    return medians


def _bell(deviation: float, most: int) -> Array:
    """Return a normal curve over whole places, its sum 1, reaching at most `most` to either side."""
    reach = min(most, int(3 * deviation) + 1)
    curve: Array = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(deviation, 0.3)) ** 2)
    curve /= curve.sum()
    return curve


def _shift(likelihood: Array, seconds: int) -> Array:
    """Return `likelihood` moved by `seconds`; what leaves its window is lost."""
    moved = np.zeros_like(likelihood)
    if abs(seconds) >= len(likelihood):
        return moved
    if seconds >= 0:
        moved[seconds:] = likelihood[: len(likelihood) - seconds]
    else:
        moved[:seconds] = likelihood[-seconds:]
    return moved


def _weigh(told: Array) -> Array:
    """Return the weights of a mixture under which what the views told is likeliest (expectation maximisation)."""
    weights = np.full(len(told), 1 / len(told))
    for _ in range(30):
        shares = weights[:, None] * told
        weights = (shares / shares.sum(axis=0)).mean(axis=1)
    return _floored(weights)


def _floored(weights: Array) -> Array:
    """Return `weights` with none so small that it could not grow again."""
    floored: Array = np.maximum(weights, 0.01) / np.maximum(weights, 0.01).sum()
    return floored
