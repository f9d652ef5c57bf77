"""The places of a closed loop that have no connection, and when each may open one.

A place rests longer with each failure in a row. However long all of them rest, one of them tries
every so often, and once one gets through all of them are wanted again: a target that comes back is
used at once, whether it was away for a moment or for an hour.
"""

import heapq

from loadbench.load.schedule import NEVER
from loadbench.units import MS

_REST_NS = 10 * MS  # after a failure, doubled with each further one
_DOUBLINGS = 7
_PROBE_NS = 100 * MS  # at most, from one attempt of any place to the next


class Rest:
    """Places at rest. One that never failed may connect at once."""

    def __init__(self) -> None:
        self._places: list[tuple[int, int]] = []  # (until, failures in a row)
        self._stirred = 0  # when one last tried, or failed

    @property
    def next(self) -> int:
        """When a place may connect; NEVER if there is none."""
        return min(self._places[0][0], self._stirred + _PROBE_NS) if self._places else NEVER

    def __len__(self) -> int:
        return len(self._places)

    def drop(self, number: int) -> None:
        """Gives up so many places, those that would have rested longest."""
        if number > 0:
            self._places = sorted(self._places)[: max(0, len(self._places) - number)]

    def add(self, now: int, failures: int) -> None:
        length = 0
        if failures:
            length = _REST_NS << min(failures - 1, _DOUBLINGS)
            self._stirred = now
        heapq.heappush(self._places, (now + length, failures))

    def take(self, now: int) -> int:
        """Removes the first place; how often it has failed in a row."""
        self._stirred = now
        return heapq.heappop(self._places)[1]

    def wake(self, now: int) -> None:
        """One has got through: none needs to rest any longer."""
        self._places = [(now, 0)] * len(self._places)

    def clear(self) -> None:
        self._places.clear()
