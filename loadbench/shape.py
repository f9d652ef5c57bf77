"""The load shape: phases → rate(t) → arrival times. The preview and the generator both use it.

A phase goes in a straight line from one rate to another, once or as a sawtooth, or swings between
them as a sine; hold, ramp, step and spike are all sequences of phases. Arrivals are made on a
unit-rate axis (one per unit of integrated rate) and mapped through the inverse of the integrated
rate, which is exact for Poisson at changing rates (time change; Çinlar, Introduction to Stochastic
Processes, 1975).
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from loadbench.model import Value
from loadbench.units import SECOND

Arrivals = Literal["constant", "poisson", "gamma", "trace", "once", "closed", "journey"]
_CHUNK = 4096


class Phase(Value, frozen=True):
    """A stretch of load between `start` and `end` requests per second over `length_ns`."""

    start: float
    end: float
    length_ns: int
    period_ns: int | None = None  # begins anew so often; None: once over the whole length
    sine: bool = False  # from start to end and back in each period, else straight to end
    begin_ns: int = 0  # so much of the pattern is left out in front: the rest of a phase cut in two

    @property
    def period(self) -> int:
        return self.period_ns or self.length_ns

    @property
    def requests(self) -> float:
        """How many arrivals the phase holds on average."""
        found = self.reached(self.begin_ns + self.length_ns)
        return found - self.reached(self.begin_ns) if self.begin_ns else found

    def reached(self, until_ns: int) -> float:
        """The integrated rate of the pattern from its beginning on."""
        whole, rest = divmod(until_ns, self.period)
        full = (self.start + self.end) / 2 * self.period / SECOND
        part, seconds = rest / self.period, rest / SECOND
        if not self.sine:
            return whole * full + (self.start + (self.end - self.start) / 2 * part) * seconds
        swing = (self.end - self.start) / 2 * math.sin(2 * math.pi * part) / (2 * math.pi)
        return whole * full + full * part - swing * self.period / SECOND

    def rate(self, at_ns: int) -> float:
        """Requests per second at a moment of the phase."""
        part = ((self.begin_ns + at_ns) % self.period) / self.period
        if self.sine:
            part = (1 - math.cos(2 * math.pi * part)) / 2
        return self.start + (self.end - self.start) * part


class Steering(Value, frozen=True):
    """What is done to a shape by hand while it runs, the whole of it, from one moment on."""

    rate: float | None = None  # per second; held instead of the scenario's
    scale: float = 1.0  # times the scenario's; in a closed loop times its concurrency
    paused: bool = False  # nothing falls due; the end of the run stays where it is
    spike: float | None = None  # per second until `spike_until_ns`; then what would be without it
    spike_until_ns: int = 0  # from the first phase on


def length_ns(phases: Sequence[Phase]) -> int:
    return sum(phase.length_ns for phase in phases)


def phase_at(phases: Sequence[Phase], at_ns: int) -> int | None:
    """Index of the phase at a moment; None before the first and after the last."""
    if at_ns < 0:
        return None
    for index, phase in enumerate(phases):
        if at_ns < phase.length_ns:
            return index
        at_ns -= phase.length_ns
    return None


def rate_at(phases: Sequence[Phase], at_ns: int) -> float:
    """Requests per second at a moment; 0 outside of the shape."""
    index = phase_at(phases, at_ns)
    if index is None:
        return 0.0
    phase = phases[index]
    begun = sum(before.length_ns for before in phases[:index])
    return phase.rate(at_ns - begun)


def peak(phases: Sequence[Phase]) -> float:
    return max((max(phase.start, phase.end) for phase in phases), default=0.0)


def cut(phases: Sequence[Phase], begin_ns: int, end_ns: int) -> tuple[Phase, ...]:
    """What of the shape lies in [begin, end)."""
    found, at = [], 0
    for phase in phases:
        first, last = max(begin_ns, at), min(end_ns, at + phase.length_ns)
        if first < last:
            left_out = phase.begin_ns + first - at if phase.start != phase.end else 0
            found.append(
                Phase(phase.start, phase.end, last - first, phase.period, phase.sine, left_out)
            )
        at += phase.length_ns
    return tuple(found)


def steered(
    planned: Sequence[Phase], now: Sequence[Phase], at_ns: int, steering: Steering
) -> tuple[Phase, ...]:
    """The shape `now` until a moment, from then on the planned one as it is steered. A pause is
    no matter of the shape: it goes on meanwhile, and what falls due is left out."""
    end = length_ns(planned)
    if at_ns >= end:  # told in time, and on its way when the load ended
        return tuple(now)
    if steering.rate is not None:
        rest: tuple[Phase, ...] = (Phase(steering.rate, steering.rate, end - at_ns),)
    else:
        factor = steering.scale
        rest = tuple(
            replace(phase, start=phase.start * factor, end=phase.end * factor)
            for phase in cut(planned, at_ns, end)
        )
    if steering.spike is not None and steering.spike_until_ns > at_ns:
        until = min(steering.spike_until_ns, end) - at_ns
        spike = Phase(steering.spike, steering.spike, until)
        rest = (spike, *cut(rest, until, end))
    return (*cut(now, 0, at_ns), *rest)


def times(phases: Sequence[Phase], counts: NDArray[np.float64]) -> NDArray[np.int64]:
    """When the integrated rate reaches each of `counts` (rising), in ns from the first phase on.

    Values beyond the whole integral are left out.
    """
    totals = np.concatenate([[0.0], np.cumsum([phase.requests for phase in phases])])
    begins = np.concatenate([[0], np.cumsum([phase.length_ns for phase in phases])])
    counts = counts[counts < totals[-1]]
    index = np.searchsorted(totals, counts, side="right") - 1
    first = np.array([phase.start for phase in phases])[index]
    last = np.array([phase.end for phase in phases])[index]
    period = np.array([phase.period for phase in phases])[index]
    full = (first + last) / 2 * period / SECOND  # of one period; some of it, as the phase has some
    begun = np.array([phase.begin_ns for phase in phases], np.int64)[index]
    before = np.array([phase.reached(phase.begin_ns) for phase in phases])[index]
    counted = (counts - totals[index] + before) / full
    whole = np.floor(counted)
    share = np.clip(counted - whole, 0.0, 1.0)
    # share = part of the period's requests; within = part of the period
    root = np.sqrt(np.maximum(first**2 + (last**2 - first**2) * share, 0.0))
    down = first + root
    within = np.divide(share * (first + last), down, out=np.zeros_like(share), where=down > 0)
    sine = np.array([phase.sine for phase in phases])[index]
    if sine.any():
        within[sine] = _swing((last - first)[sine] / (last + first)[sine], share[sine])
    inside = np.maximum(whole * period + np.rint(within * period) - begun, 0)
    length = np.array([phase.length_ns for phase in phases])[index]
    found: NDArray[np.int64] = begins[index] + np.minimum(inside, length - 1).astype(np.int64)
    return found


def _swing(depth: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part x of a period at which `share` of its requests have come: the root of
    x − depth·sin(2πx)/2π = share for a rate of 1 − depth·cos(2πx).

    With E = 2πx that is Kepler's equation E − depth·sin E = M. Folded into 0…π the left side is
    convex, so Newton's method falls onto the root from any point above it without overshooting.
    """
    turn = np.where(depth < 0, np.pi, 0.0)  # a negative depth is a positive one half a turn on
    depth = np.abs(depth)
    angle = 2 * np.pi * share + turn
    around = 2 * np.pi * np.rint(angle / (2 * np.pi))
    mean = np.abs(angle - around)
    # bounds from above; the last because (E − sin E)/E³ falls to 1/π² at π
    straight = np.divide(mean, 1 - depth, out=np.full_like(mean, np.pi), where=depth < 1)
    bounds = (mean + depth, np.full_like(mean, np.pi), straight, np.cbrt(np.pi**2 * mean))
    found = np.minimum.reduce(bounds)
    for _ in range(20):
        slope = 1 - depth * np.cos(found)
        excess = found - depth * np.sin(found) - mean
        step = np.divide(excess, slope, out=np.zeros_like(found), where=slope > 0)
        found = np.maximum(found - step, 0.0)
        if np.abs(step).max() < 1e-9:  # the next would be the square of it
            break
    root: NDArray[np.float64] = (around + np.copysign(found, angle - around) - turn) / (2 * np.pi)
    return root


def arrivals(
    phases: Sequence[Phase], kind: Arrivals, seed: int, cv: float = 1.0
) -> Iterator[NDArray[np.int64]]:
    """Arrival times of the whole shape in ns from its beginning, in rising chunks.

    `constant` puts arrival k where the integrated rate reaches k; `poisson` draws seeded
    exponential gaps, `gamma` gaps whose coefficient of variation is `cv`; `once` puts all that the
    phases hold at the beginning. The same seed gives the same times on every machine.
    """
    if kind == "once":
        left = math.floor(math.fsum(phase.requests for phase in phases) + 1e-6)
        while left > 0:
            yield np.zeros(min(left, _CHUNK), np.int64)
            left -= _CHUNK
        return
    for counts in unit_arrivals(kind, seed, cv):
        found = times(phases, counts)
        if len(found):
            yield found
        if len(found) < len(counts):
            return


def unit_arrivals(kind: Arrivals, seed: int, cv: float = 1.0) -> Iterator[NDArray[np.float64]]:
    """Arrivals at a rate of one, without end: what `times` maps to a shape. Chunks are never
    empty."""
    draw = np.random.Generator(np.random.PCG64(seed))
    if kind == "constant":
        return _numbers()
    if kind == "poisson":
        return _renewals(draw.standard_exponential)
    if kind == "gamma":
        return _gamma(draw, cv)
    raise ValueError(f"{kind} arrivals do not come from a shape")


def _numbers() -> Iterator[NDArray[np.float64]]:
    """0, 1, 2 …"""
    for number in itertools.count(0, _CHUNK):
        yield np.arange(number, number + _CHUNK, dtype=np.float64)


def _renewals(
    gaps: Callable[[int], NDArray[np.float64]], reached: float = 0.0
) -> Iterator[NDArray[np.float64]]:
    """Sums of gaps."""
    while True:
        counts = reached + np.cumsum(gaps(_CHUNK))
        reached = float(counts[-1])
        yield counts


def _gamma(draw: np.random.Generator, cv: float) -> Iterator[NDArray[np.float64]]:
    """Gamma gaps of mean 1, begun as if they had long been going on, so that a burst is as likely
    at the beginning as anywhere: what is left of the gap that the beginning falls into is evenly
    spread over it, and such gaps are drawn by their length (Cox, Renewal Theory, 1962)."""
    shape, scale = cv**-2, cv**2
    first = draw.random() * draw.gamma(shape + 1, scale)
    yield np.array([first])
    yield from _renewals(lambda size: draw.gamma(shape, scale, size), first)


def replay(
    due: NDArray[np.int64], length: int, loop_ns: int | None = None
) -> Iterator[NDArray[np.int64]]:
    """The times of a trace (rising, ns from the beginning) until `length`, in chunks; again every
    `loop_ns`."""
    begin = 0
    while begin < length:
        for at in range(0, len(due), _CHUNK):
            chunk = begin + due[at : at + _CHUNK]
            chunk = chunk[chunk < length]
            if not len(chunk):
                return
            yield chunk
        if loop_ns is None:
            return
        begin += loop_ns
