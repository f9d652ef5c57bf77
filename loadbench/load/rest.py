"""The places of a closed loop that have no connection, and when each may open one."""

import heapq

from loadbench.load.schedule import NEVER
from loadbench.units import MS

_REST_NS = 10 * MS  # after a failure, doubled with each further one
_DOUBLINGS = 7


class Rest:
    """Places at rest. One that never failed may connect at once."""

    def __init__(self) -> None:
        self._places: list[tuple[int, int]] = []  # (until, failures in a row)

    @property
    def next(self) -> int:
        """When the first place has rested; NEVER if there is none."""
        return self._places[0][0] if self._places else NEVER

    def __len__(self) -> int:
        return len(self._places)

    def drop(self, number: int) -> None:
        """Gives up so many places, those that would have rested longest."""
        if number > 0:
            self._places = sorted(self._places)[: max(0, len(self._places) - number)]

    def add(self, now: int, failures: int) -> None:
        length = _REST_NS << min(failures - 1, _DOUBLINGS) if failures else 0
        heapq.heappush(self._places, (now + length, failures))

    def take(self) -> int:
        """Removes the first place; how often it has failed in a row."""
        return heapq.heappop(self._places)[1]

    def clear(self) -> None:
        self._places.clear()
