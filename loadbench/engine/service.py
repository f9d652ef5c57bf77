"""How long a batch of n rows will take, planned from the batches that ran last.

A sliding window per batch size gives a high quantile: a plan made with the mean serves many
requests just too late. A size that ran too seldom for that has its median, and above it what the
batches of any size that ran last say. Sizes that have not run yet are interpolated, and a larger
batch is never planned to be quicker than a smaller one.
"""

import math
from collections import deque

from loadbench.curve import interpolated, isotonic
from loadbench.engine.buckets import Sizes, padded

WINDOW = 64  # batches of one size that count
SPREAD = 128  # batches of whatever size that tell how far they are above their median
ENOUGH = 20  # below this a quantile means little
MARGIN = 1.1  # as long as nothing tells
QUANTILE = 0.95
REFRESH = 8  # batches between two looks
SLOWER = 1.05  # a clock that changes by less is not throttled further


class ServiceTimes:
    """Planned service times (ns) by rows; `table[n]` for n in 0…`largest`. With `sizes` a batch is
    padded to the next of them."""

    def __init__(self, largest: int, sizes: Sizes = ()) -> None:
        self._largest = largest
        self._runs = [min(largest, padded(sizes, rows)) for rows in range(largest + 1)]
        self._samples: dict[int, deque[int]] = {}
        self._unthrottled: dict[int, deque[int]] = {}
        self._slowdown = 1.0
        self._unseen = 0
        self._changed: set[int] = set()  # sizes that ran since the last look
        self._middle: dict[int, int] = {}  # of each size the median at the last look,
        self._high: dict[int, int] = {}  # and the quantile, if enough ran
        self._above: deque[float] = deque(maxlen=SPREAD)  # the last batches by their median
        self._table: tuple[int, ...] = (0,) * (largest + 1)

    def observe(self, rows: int, ns: int) -> None:
        """A batch of `rows` took `ns` from dispatch to outputs."""
        rows = self._runs[rows] if rows <= self._largest else rows
        samples = self._samples.get(rows)
        if samples is None:
            samples = self._samples[rows] = deque(maxlen=WINDOW)
            self._unseen = REFRESH
        elif middle := self._middle.get(rows):
            self._above.append(ns / middle)
        samples.append(ns)
        self._changed.add(rows)
        self._unseen += 1

    def clocked(self, slowdown: float) -> None:
        """The device's clock is now so many times slower than at its full speed (1: it is not).

        What ran at full speed is put aside until it is back. As long as nothing has run at the
        slower clock, it is planned in proportion, which is the worst that it can be.
        """
        if slowdown < SLOWER:
            if self._slowdown > 1:
                self._samples, self._unthrottled = self._unthrottled, {}
                self._slowdown = 1.0
                self._anew()
        elif slowdown > self._slowdown * SLOWER:
            if self._slowdown == 1:
                self._unthrottled = self._samples
            ratio, self._slowdown = slowdown / self._slowdown, slowdown
            self._samples = {
                rows: deque([round(ns * ratio) for ns in samples], WINDOW)
                for rows, samples in self._samples.items()
            }
            self._anew()

    def _anew(self) -> None:
        self._changed, self._unseen = set(self._samples), REFRESH
        self._middle, self._high = {}, {}

    @property
    def table(self) -> tuple[int, ...]:
        """The plan for every number of rows; zeros as long as nothing ran."""
        if self._unseen >= REFRESH and self._samples:
            for rows in self._changed:
                self._look(rows)
            self._changed.clear()
            above = MARGIN
            if len(self._above) >= ENOUGH:
                above = sorted(self._above)[_rank(len(self._above))]
            known = sorted(self._samples)
            quantiles = [self._high.get(rows) or self._middle[rows] * above for rows in known]
            rising = isotonic(quantiles, [len(self._samples[rows]) for rows in known])
            table = interpolated(known, rising, self._largest)
            self._table = tuple([table[rows] for rows in self._runs])
            self._unseen = 0
        return self._table

    def _look(self, rows: int) -> None:
        ordered = sorted(self._samples[rows])
        self._middle[rows] = ordered[(len(ordered) - 1) // 2]
        if len(ordered) >= ENOUGH:
            self._high[rows] = ordered[_rank(len(ordered))]


def _rank(number: int) -> int:
    return math.ceil(QUANTILE * number) - 1
