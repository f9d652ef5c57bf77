"""Where a share that rises with the rate crosses its limit: what a few noisy counts say of it.

Around the crossing the log-odds of being over the limit rise with the logarithm of the rate, about
as a straight line: a queue's tail falls exponentially, at a pace that falls with the load. Its
place and its slope are weighed against the counts on a grid, so that few, short and lopsided counts
give a wide answer instead of a wrong one. Far from the crossing the line does not hold: there a
count only tells on which side it lies.

Pure arithmetic; which rates to try is for `search`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_PLACES = 1200  # of the crossing
_SLOPES = np.geomspace(4, 120, 14)  # of the log-odds over the logarithm of the rate
_FAR = math.log(8)  # in log-odds: beyond that a count tells only its side
_BEYOND = math.log(1.5)  # so far outside of the rates that were tried it is looked for

Floats = NDArray[np.float64]


class Point(NamedTuple):
    """At a rate, so many of so many independent requests were over the limit."""

    rate: float
    over: float
    asked: float
    surely: bool = False  # over the limit for other reasons than the count


class Crossing:
    """How believable each place is. Without points nothing is known of it."""

    def __init__(self, points: Sequence[Point], share: float) -> None:
        """`share` of the requests may be over the limit; points must not be empty."""
        rates = np.log([point.rate for point in points])
        self._places = np.linspace(rates.min() - _BEYOND, rates.max() + _BEYOND, _PLACES)
        middle = math.log(share / (1 - share))
        total = np.zeros((len(_SLOPES), _PLACES))
        for point, rate in zip(points, rates, strict=True):
            rise = np.clip(_SLOPES[:, None] * (rate - self._places), -_FAR, _FAR)
            found = _likelihood(point, middle, rise)
            total += found
        weights = np.exp(total - total.max()).sum(axis=0)
        self._below: Floats = np.cumsum(weights) / weights.sum()

    def quantile(self, part: float) -> float:
        """The rate below which the crossing lies with that probability."""
        return math.exp(float(np.interp(part, self._below, self._places)))


def _likelihood(point: Point, middle: float, rise: Floats) -> Floats:
    """The logarithm of how likely a count is where the log-odds are `rise` above the limit's."""
    low, high = (1 / (1 + math.exp(-(middle + far))) for far in (-_FAR, _FAR))
    seen = high if point.surely else min(high, max(low, point.over / point.asked))
    odds = middle + rise
    # log p = −log(1 + e^−odds), log(1 − p) = −log(1 + e^odds)
    found: Floats = -point.asked * (
        seen * np.logaddexp(0, -odds) + (1 - seen) * np.logaddexp(0, odds)
    )
    return found
