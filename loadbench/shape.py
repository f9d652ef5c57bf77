"""The load shape: phases → rate(t) → arrival times. The preview and the generator both use it.

A phase goes in a straight line from one rate to another, so hold, ramp, step and spike are all
sequences of phases. Arrivals are made on a unit-rate axis (one per unit of integrated rate) and
mapped through the inverse of the integrated rate, which is exact for Poisson at changing rates
(time change; Çinlar, Introduction to Stochastic Processes, 1975).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loadbench.model import Value
from loadbench.units import SECOND

Arrivals = Literal["constant", "poisson", "closed"]
_CHUNK = 4096


class Phase(Value, frozen=True):
    """A stretch of load: `start` to `end` requests per second over `length_ns`."""

    start: float
    end: float
    length_ns: int

    @property
    def requests(self) -> float:
        """How many arrivals the phase holds on average."""
        return (self.start + self.end) / 2 * self.length_ns / SECOND


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
    return phase.start + (phase.end - phase.start) * (at_ns - begun) / phase.length_ns


def peak(phases: Sequence[Phase]) -> float:
    return max((max(phase.start, phase.end) for phase in phases), default=0.0)


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
    seconds = np.array([phase.length_ns for phase in phases])[index] / SECOND
    rest = counts - totals[index]
    # rest = first·t + (last − first)·t² / (2·seconds), solved for t without cancellation
    root = np.sqrt(np.maximum(first**2 + 2 * (last - first) * rest / seconds, 0.0))
    down = first + root
    within = np.divide(2 * rest, down, out=np.zeros_like(rest), where=down > 0)
    inside = np.minimum(np.rint(within * SECOND).astype(np.int64), np.rint(seconds * SECOND))
    found: NDArray[np.int64] = begins[index] + inside.astype(np.int64)
    return found


def arrivals(phases: Sequence[Phase], kind: Arrivals, seed: int) -> Iterator[NDArray[np.int64]]:
    """Arrival times of the whole shape in ns from its beginning, in rising chunks.

    `constant` puts arrival k where the integrated rate reaches k; `poisson` draws seeded
    exponential gaps. The same seed gives the same times on every machine.
    """
    if kind == "closed":
        raise ValueError("a closed loop has no arrival times: its answers make them")
    total = math.fsum(phase.requests for phase in phases)
    draw = np.random.Generator(np.random.PCG64(seed))
    reached = 0.0
    number = 0
    while reached < total:
        if kind == "constant":
            counts = np.arange(number, number + _CHUNK, dtype=np.float64)
            number += _CHUNK
            reached = float(number)
        else:
            counts = reached + np.cumsum(draw.standard_exponential(_CHUNK))
            reached = float(counts[-1])
        found = times(phases, counts)
        if len(found):
            yield found
