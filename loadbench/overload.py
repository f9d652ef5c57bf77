"""Was the target overloaded, not just slow? At a constant rate the requests in flight and their
latency both rise, and go on rising (the test of GuideLLM's over-saturation detection).

Such percentiles depend on how long the run was: they describe no steady state. That is no doubt
about the generator. Both series must rise by their ranks (Kendall's tau with time), because a queue
at high load wanders so that the slope of a straight line is often significant by chance; and what
was left over must be more than the arrivals' own noise can leave.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from loadbench import units
from loadbench.model import Note, Window

_SECONDS = 8  # the shortest stretch that says anything
_POINTS = 60  # a longer one is looked at in so many parts
_TAU = 0.6  # of 8 points or more by chance in less than 2.5 % of runs, and in both more rarely
_NOISE = 3.0  # standard deviations of a Poisson process

Floats = NDArray[np.float64]


def overloaded(windows: Sequence[Window]) -> Note | None:
    """The doubt about percentiles, for the longest stretch that was overloaded; None if none was.
    `windows` are the whole seconds of the load, in order."""
    found = [stretch for stretch in _stretches(windows) if _rises(stretch)]
    if not found:
        return None
    worst = max(found, key=len)
    backlog, latency = _series(worst)
    open_slope, late_slope = (_slope(values) for values in (backlog, latency))
    text = (
        f"the target was overloaded at {units.significant(worst[0].rate)}/s: for"
        f" {units.duration(len(worst) * units.SECOND)} its open requests rose by"
        f" {units.significant(open_slope)} and latency by {units.ms(late_slope)} ms each second"
    )
    hint = "the percentiles depend on how long that went on: ask for less to get ones that hold"
    return Note("overloaded", text, hint)


def _stretches(windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Long enough ones of a constant rate. A closed loop has no rate: it cannot be overloaded."""
    for (rate, _), group in groupby(windows, lambda window: (window.rate, window.phase)):
        stretch = list(group)
        if rate and len(stretch) >= _SECONDS:
            yield stretch


def _rises(stretch: Sequence[Window]) -> bool:
    if not all(window.done for window in stretch):
        return False  # a target that answers nothing is not slow but stands still
    backlog, latency = _series(stretch)
    asked = sum(window.asked for window in stretch)
    left = _slope(backlog) * len(stretch)
    if left < _NOISE * math.sqrt(asked):
        return False
    return _tau(backlog) >= _TAU and _tau(latency) >= _TAU


def _series(stretch: Sequence[Window]) -> tuple[Floats, Floats]:
    """By second: requests that are open at its end, and the mean latency (ns) of those done."""
    backlog = [window.in_flight + window.waiting for window in stretch]
    latency = [window.latency.mean or 0.0 for window in stretch]
    return np.array(backlog, np.float64), np.array(latency, np.float64)


def _slope(values: Floats) -> float:
    """Of the straight line through the values, per step."""
    steps = np.arange(len(values)) - (len(values) - 1) / 2
    return float((steps * values).sum() / (steps * steps).sum())


def _tau(values: Floats) -> float:
    """Kendall's rank correlation with time; of a long series that of the means of its parts."""
    if len(values) > _POINTS:
        values = np.array([part.mean() for part in np.array_split(values, _POINTS)])
    later, earlier = np.triu_indices(len(values), 1)[::-1]
    return float(np.sign(values[later] - values[earlier]).mean())
