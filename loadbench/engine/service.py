"""How long a batch of n rows will take, planned from the batches that ran last.

A sliding window per batch size gives a high quantile: a plan made with the mean serves many
requests just too late. Sizes that have not run yet are interpolated, and a larger batch is never
planned to be quicker than a smaller one.
"""

import math
from collections import deque

from loadbench.curve import interpolated, isotonic

WINDOW = 64  # batches of one size that count
ENOUGH = 20  # below this a quantile means little: the median and a margin stand in
MARGIN = 1.1
QUANTILE = 0.95
REFRESH = 8  # batches between two looks at a size that is well known


class ServiceTimes:
    """Planned service times (ns) by rows; `table[n]` for n in 0…`largest`."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._samples: dict[int, deque[int]] = {}
        self._unseen = 0
        self._table: tuple[int, ...] = (0,) * (largest + 1)

    def observe(self, rows: int, ns: int) -> None:
        """A batch of `rows` took `ns` from dispatch to outputs."""
        samples = self._samples.get(rows)
        if samples is None:
            samples = self._samples[rows] = deque(maxlen=WINDOW)
        samples.append(ns)
        self._unseen += 1 if len(samples) > ENOUGH else REFRESH

    @property
    def table(self) -> tuple[int, ...]:
        """The plan for every number of rows; zeros as long as nothing ran."""
        if self._unseen >= REFRESH:
            known = sorted(self._samples)
            quantiles = [_quantile(self._samples[rows]) for rows in known]
            rising = isotonic(quantiles, [len(self._samples[rows]) for rows in known])
            self._table = interpolated(known, rising, self._largest)
            self._unseen = 0
        return self._table


def _quantile(samples: deque[int]) -> float:
    ordered = sorted(samples)
    if len(ordered) < ENOUGH:
        return ordered[(len(ordered) - 1) // 2] * MARGIN
    return ordered[math.ceil(QUANTILE * len(ordered)) - 1]
