"""What the runner itself reads each second, just after the ends of the load's windows: the
machine, and the target's statistics as what came since the reading before.

A reading that fails or comes late is a gap; what it missed is in the next one, so sums stay exact.
The machine is read also while the target does not answer, or what it tells cannot be worked with:
just then it is wanted.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from loadbench.merge import in_turn
from loadbench.model import Machine, Note, Server
from loadbench.units import MS, SECOND

# With each of the target's servers, so that one that hangs does not take the others along. Almost
# the whole second: what is told later stands in the next one, where the client's figures are others
_EACH_S = 0.75
_PATIENCE_S = 0.8  # with all of them
_WAIT_S = 0.9
# Even rates have an arrival at each full second: asked just then, the server would be a bit slower
# for one request in each second, and that one is the P99 of 50 or 100/s.
_AFTER_NS = 13 * MS


class Readings:
    """Reads just after each full second until stopped; `of` gives a second's pair once. `server`
    takes the patience with each server in seconds; without it all are awaited. `seen` adds to the
    machine what the server told of it; `notes` say what went wrong."""

    def __init__(
        self,
        origin: int,
        first: int,
        machine: Callable[[], Machine],
        server: Callable[..., Server | None],
        seen: Callable[[Machine], Machine] = lambda machine: machine,
    ) -> None:
        self._origin = origin
        self._machine = machine
        self._seen = seen
        self._server = server
        self.notes: tuple[Note, ...] = ()
        self._found: dict[int, tuple[Machine, Server | None]] = {}
        self._newest = first - 1
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, "statistics")
        self._asked: Future[Server | None] | None = None  # it has not answered yet
        self._thread = threading.Thread(target=self._run, name="readings", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        second = self._newest + 1
        while True:
            due = self._origin + (second + 1) * SECOND + _AFTER_NS
            if self._stop.wait(max(0.0, (due - time.monotonic_ns()) / SECOND)):
                return
            machine = self._machine()  # first: a server may take its time
            server = self._told()
            pair = (self._seen(machine), server)
            with self._changed:
                # what was missed while a slow target kept us waiting is in this reading
                now = (time.monotonic_ns() - self._origin) // SECOND - 1
                self._found[second] = pair
                self._newest = second = max(second, now)
                self._changed.notify_all()
            second += 1

    def _told(self) -> Server | None:
        """What the server tells if it answers soon; later it is in a later second's reading."""
        asked = self._asked or self._pool.submit(self._server, _EACH_S)
        self._asked = None if wait([asked], _PATIENCE_S).done else asked
        return self._guarded(asked.result) if self._asked is None else None

    def _guarded(self, told: Callable[[], Server | None]) -> Server | None:
        """What nobody foresaw is a gap, and told once."""
        try:
            return told()
        except Exception as error:  # noqa: BLE001  whatever it is, the machine is to be read
            if not self.notes:
                text = f"the server's figures could not be read: {type(error).__name__}: {error}"
                hint = "each such second is a gap; that is a fault of loadbench: please report it"
                self.notes = (Note("inside-unread", text, hint),)
            return None

    def of(self, second: int) -> tuple[Machine | None, Server | None]:
        """The readings for a window, waiting a little for one that is due now."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest >= second, _WAIT_S)
            return self._found.pop(second, (None, None))

    def last(self) -> Server | None:
        """Stops, and reads the server once more: what came since the last second."""
        self._stop.set()
        self._thread.join()
        late = self._guarded(self._asked.result) if self._asked else None
        self._asked = None
        return in_turn([told for told in (late, self._guarded(self._server)) if told])

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._pool.shutdown()
