"""Numbers batches, and knows of each what its instance was given last and whether its like ran."""

from collections.abc import Hashable

from loadbench.engine.queues import Shapes
from loadbench.ride import Ride

_MOST = 4096  # shapes that are remembered; beyond that none counts as new


class Rides:
    """To be used under the batcher's lock."""

    def __init__(self) -> None:
        self._number = 0
        self._seen: set[tuple[tuple[tuple[int, ...], ...], int]] = set()
        # by instance, which has to end that one first: closed at, rows, why, whether new
        self._last: dict[Hashable, tuple[int, int, str, bool]] = {}

    def next(
        self, instance: Hashable, shapes: Shapes, rows: int, size: int, reason: str, now: int
    ) -> Ride:
        """The batch that is closed now for an instance; `size` are its rows, padded."""
        self._number += 1
        key = (shapes, size)
        first = key not in self._seen and len(self._seen) < _MOST
        if first:
            self._seen.add(key)
        last = self._last.get(instance)
        self._last[instance] = (now, rows, reason, first)
        if last is None:
            return Ride(self._number, reason, first)
        at, rows_before, reason_before, first_before = last
        return Ride(self._number, reason, first, now - at, rows_before, reason_before, first_before)
