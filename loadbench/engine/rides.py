"""Numbers batches, and knows of each what was taken before it and whether its like ran before."""

from collections.abc import Sequence

from loadbench.engine.job import Job
from loadbench.ride import Ride

_MOST = 4096  # shapes that are remembered; beyond that none counts as new


class Rides:
    """To be used under the batcher's lock."""

    def __init__(self) -> None:
        self._number = 0
        self._seen: set[tuple[tuple[tuple[int, ...], ...], int]] = set()
        self._last: tuple[int, int, str, bool] | None = None  # closed at, rows, why, whether new

    def next(self, jobs: Sequence[Job], rows: int, size: int, reason: str, now: int) -> Ride:
        """The batch that is closed now, of so many rows and, padded, of this size."""
        self._number += 1
        key = (jobs[0].shapes, size)
        first = key not in self._seen and len(self._seen) < _MOST
        if first:
            self._seen.add(key)
        last, self._last = self._last, (now, rows, reason, first)
        if last is None:
            return Ride(self._number, reason, first)
        at, rows_before, reason_before, first_before = last
        return Ride(self._number, reason, first, now - at, rows_before, reason_before, first_before)
