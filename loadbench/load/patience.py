"""Which requests have been under way for too long.

Nothing is noted down when a request begins. Four times in the shortest limit all connections are
looked at once, and those that may run out before the next look are kept as suspects, the first to
run out first; whatever begins after a look cannot run out before the next one.
"""

import heapq
from collections.abc import Mapping

from loadbench.load.connection import CLOSED, CONNECTING, IDLE, Connection
from loadbench.load.schedule import NEVER
from loadbench.units import MS

_LOOKS = 4
_AT_ONCE = 256  # requests given up between looks at what has arrived


class Patience:
    """Limits of the connections in `known`: to be connected, and to be answered as a whole."""

    def __init__(self, known: Mapping[int, Connection], connect_ns: int, whole_ns: int) -> None:
        self._known = known
        self._connect = min(connect_ns, whole_ns)
        self._whole = whole_ns
        self._stride = max(MS, self._connect // _LOOKS)
        self._look = 0  # when all are looked at the next time
        self._suspects: list[tuple[int, int, Connection]] = []

    @property
    def next(self) -> int:
        """When `expired` has something to do."""
        return min(self._look, self._suspects[0][0] if self._suspects else NEVER)

    def expired(self, now: int) -> list[Connection]:
        """Those that have run out, a limited number at once."""
        if now >= self._look:
            self._look_at_all(now)
        found: list[Connection] = []
        while self._suspects and self._suspects[0][0] <= now and len(found) < _AT_ONCE:
            _, fd, connection = heapq.heappop(self._suspects)
            if connection.state in (IDLE, CLOSED):
                continue
            deadline = self._deadline(connection)
            if deadline <= now:
                found.append(connection)
            elif deadline < self._look:  # connected meanwhile, or begun anew
                heapq.heappush(self._suspects, (deadline, fd, connection))
        return found

    def limit(self, connection: Connection) -> int:
        """How long its request may take, as far as it has got."""
        return self._connect if connection.state == CONNECTING else self._whole

    def _deadline(self, connection: Connection) -> int:
        return connection.begun + self.limit(connection)

    def _look_at_all(self, now: int) -> None:
        self._look = now + self._stride
        self._suspects = [
            (deadline, fd, connection)
            for fd, connection in self._known.items()
            if connection.state != IDLE and (deadline := self._deadline(connection)) < self._look
        ]
        heapq.heapify(self._suspects)
