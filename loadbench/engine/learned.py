"""What some rules learn from what has passed: the rate of arrivals, and BentoML's line."""

import math
from collections import deque

from loadbench.engine.rule import Learned
from loadbench.units import MS, SECOND

KEPT = 50  # batches that count
LOOK = 8  # batches between two looks at how long answers take
REFIT_NS = 5 * SECOND
SKIPPED = 2  # batches at the beginning
WAIT_NS = 10 * MS  # that the line begins with


class Rate:
    """Rows that come per ns, averaged over about so long."""

    def __init__(self, memory_ns: int) -> None:
        self._memory_ns = memory_ns
        self._value = 0.0
        self._at = self._number = 0

    def over(self, memory_ns: int) -> "Rate":
        """The same, averaged over another time from now on."""
        self._memory_ns = memory_ns
        return self

    def of(self, number: int, now: int) -> float:
        """The rate, given how many have come ever; the past fades exponentially."""
        passed = now - self._at
        if passed > 0:
            weight = 1 - math.exp(-passed / self._memory_ns)
            self._value += weight * ((number - self._number) / passed - self._value)
            self._at, self._number = now, number
        return self._value


class Answering:
    """How long it takes from the end of a batch until its answers are out: nine tenths of the
    batches that ran last took no longer."""

    def __init__(self) -> None:
        self.ns = 0
        self._seen: deque[int] = deque(maxlen=KEPT)
        self._unseen = 0

    def observe(self, ns: int) -> None:
        """A batch was answered."""
        self._seen.append(ns)
        self._unseen += 1
        if self._unseen >= LOOK:
            self._unseen = 0
            self.ns = sorted(self._seen)[len(self._seen) * 9 // 10 - 1]


class Line:
    """The last 50 batches by least squares, fitted anew every 5 s (`Optimizer` of BentoML)."""

    def __init__(self, latest_ns: int) -> None:
        self._seen: deque[tuple[int, int, int]] = deque(maxlen=KEPT)
        self._skipped = 0
        self._fitted_at = 0
        self.found = Learned(latest_ns / 15, latest_ns / 30, WAIT_NS, latest_ns)

    def observe(self, rows: int, wait_ns: int, took_ns: int, now: int) -> None:
        """A batch whose first request had waited so long took so long."""
        if self._skipped < SKIPPED:
            self._skipped += 1
            return
        self._seen.append((rows, wait_ns, took_ns))
        if len(self._seen) <= 3 or now - self._fitted_at >= REFIT_NS:
            self._fitted_at = now
            self._fit()

    def _fit(self) -> None:
        number = len(self._seen)
        rows, waits, took = (sum(column) / number for column in zip(*self._seen, strict=True))
        spread = sum([(n - rows) ** 2 for n, _, _ in self._seen])
        slope = 0.0
        if spread:
            slope = sum([(n - rows) * (ns - took) for n, _, ns in self._seen]) / spread
        elif rows:  # of all lines through one point the one of least norm, as numpy.linalg.lstsq
            slope = took * rows / (rows * rows + 1)
        self.found = Learned(
            max(1000.0, slope), max(0.0, took - slope * rows), waits, self.found.latest_ns
        )
