"""How long a batch of n rows will take, planned from the batches that ran last.

A sliding window per batch size gives a high quantile: a plan made with the mean serves many
requests just too late. Sizes that have not run yet are interpolated, and a larger batch is never
planned to be quicker than a smaller one.
"""

import math
from collections import deque
from itertools import pairwise

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


def isotonic(values: list[float], weights: list[int]) -> list[float]:
    """The nearest non-decreasing values (least squares; pool adjacent violators)."""
    pools: list[tuple[float, int, int]] = []  # value, weight, how many it stands for
    for value, weight in zip(values, weights, strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m, i), (b, n, j) = pools[-2:]
            pools[-2:] = [((a * m + b * n) / (m + n), m + n, i + j)]
    return [value for value, _, number in pools for _ in range(number)]


def interpolated(known: list[int], values: list[float], largest: int) -> tuple[int, ...]:
    """Straight lines between known sizes, flat before the first, in proportion after the last."""
    table = [values[0]] * (largest + 1)
    for (low, start), (high, end) in pairwise(zip(known, values, strict=True)):
        for rows in range(low, min(high, largest + 1)):
            table[rows] = start + (end - start) * (rows - low) / (high - low)
    for rows in range(known[-1], largest + 1):
        table[rows] = values[-1] * rows / known[-1]
    return tuple(round(value) for value in table)
