"""The account of a journey: requests as they are begun and ended, windows of one second out.

Every event is told with its moment, and windows that are over by then are cut before it is taken
in. Some requests are known from their beginning, others (of clients that only tell the end) are
asked, sent and ended in the second in which they ended; their latency is exact all the same.
"""

import struct
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from loadbench import timing
from loadbench.environment import hidden
from loadbench.histogram import EMPTY
from loadbench.load.exemplar import OTHER, Parts
from loadbench.load.ledger import ROWS, Cut, Ledger
from loadbench.load.schedule import NEVER
from loadbench.model import Example, Sample, Stage, Window
from loadbench.plan import Plan
from loadbench.printable import printable
from loadbench.shape import phase_at
from loadbench.units import SECOND

MOST_NAMES = 200
_MOST_FAILURES = 50
_LONGEST = 120  # characters of a name
_pack = struct.Struct("5q").pack_into


class Begun:
    """A request under way."""

    __slots__ = ("at",)

    def __init__(self, at: int) -> None:
        self.at = at


class Failed(NamedTuple):
    """How a request failed: the name, the words, and where that can be told the answer's."""

    name: str
    reason: str = ""
    answer: str = ""


class Diary:
    """A run from `origin` − warm-up to `finish`. Moments are ns of the monotonic clock."""

    def __init__(self, plan: Plan, origin: int, length: int, emit: Callable[[Window], None]):
        self.over = False
        self._users = 0  # the most since the last window
        self.stood = 0  # the longest standstill since the last window
        self.ended_at = origin + length  # of the load
        self.renamed = 0  # requests whose name was one too many
        self.in_flight = 0  # at the end of the last window
        self.begun = self.after = 0  # requests that were seen to begin; of them, when all was over
        self._plan = plan
        self._headers = plan.journey.headers if plan.journey else {}
        self.parts = Parts(self._headers)
        self._origin = origin
        self._emit = emit
        self._kinds: list[str] = []
        self._numbers: dict[str, int] = {}
        self._failures: set[str] = set()
        self._ledger = Ledger(self._kinds, origin, plan.slowest)
        self._open: set[Begun] = set()
        self._asked = 0  # in the window that is being gathered
        self._window = origin - plan.warmup_ns  # its beginning
        self._boundary = self._next_boundary()

    def _next_boundary(self) -> int:
        return self._origin + ((self._window - self._origin) // SECOND + 1) * SECOND

    def begin(self) -> Begun:
        """A request is begun now."""
        now = self.turn()
        found = Begun(now)
        if not self.over:
            self._open.add(found)
            self._asked += 1
            self.begun += 1
            self.after += now >= self.ended_at
        return found

    def end(
        self,
        begun: Begun | None,
        name: str,
        took: int | None,
        failed: Failed | None,
        says: Callable[[], bytes] = bytes,
    ) -> None:
        """A request has ended after `took` ns (None: it was not timed), well or not. None as
        `begun`: nobody knew that it was under way. `says` gives its answer's Server-Timing."""
        now = self.turn()
        if self.over:
            return
        if begun is None:
            due = begin = now - (took or 0)
            sent = done = now
            if begin >= self._origin or self._window < self._origin:
                self._asked += 1
        elif begun in self._open:
            self._open.remove(begun)
            due = begin = sent = begun.at
            done = now if took is None else begin + took
        else:
            return
        ledger = self._ledger
        if ledger.rows >= ROWS // 2:
            ledger.fold(self._window, self._boundary)
        if now >= ledger.next_probe:
            ledger.probe(now)
        number = self._number(name[:_LONGEST])
        failure = self._bounded(failed.name) if failed else ""
        code = number | (ledger.failure(failure) if failure else 0)
        _pack(ledger.cells, ledger.place(), due, begin, sent, done, code)
        if done - due > ledger.floor:
            told = timing.read(says())
            sample = Sample(
                self._kinds[number], due, begin, min(sent, done), done, failure,
                told.queue, told.batch, told.compute, told.size,
                parts=self.parts.told(told.parts),
            )  # fmt: skip
            ledger.exemplar(sample)
        if failed and ledger.examples.wanted(failure, due):
            example = Example(
                second=0,
                request=self._kinds[number],
                peer="",
                after_ns=done - begin,
                reason=printable(hidden(failed.reason, self._headers)),
                answer=printable(hidden(failed.answer, self._headers)),
            )
            ledger.examples.add(failure, due, now, example)

    def _number(self, name: str) -> int:
        """The index of a name; of `other` when there are too many."""
        if name not in self._numbers and len(self._kinds) >= MOST_NAMES:
            self.renamed += 1
            name = OTHER
        if name not in self._numbers:
            self._numbers[name] = len(self._kinds)
            self._kinds.append(printable(hidden(name, self._headers)))  # a redirect may have one
        return self._numbers[name]

    def _bounded(self, failure: str) -> str:
        if failure not in self._failures:
            if len(self._failures) >= _MOST_FAILURES:
                return OTHER
            self._failures.add(failure)
        return failure

    def saw(self, users: int) -> None:
        """So many users run now."""
        self.turn()
        self._users = max(self._users, users)

    def turn(self) -> int:
        """Cuts the windows that are over; gives the moment."""
        now = time.monotonic_ns()
        while now >= self._boundary and not self.over:
            self._cut(self._boundary)
        return now

    def complete(self) -> int | None:
        """The load ends now, unless it is over. Gives the moment if that is before its time."""
        now = self.turn()
        early = now if now < self.ended_at else None
        self.ended_at = min(self.ended_at, now)
        return early

    def finish(self) -> None:
        """The run is over: the rest of the last second. What is under way stays unfinished."""
        now = self.turn()
        if self.over:
            return
        left = self._asked or self._open or self.in_flight or self._ledger.rows
        if left or self._window < min(now, self.ended_at):
            self._cut(now + 1)
        self.over = True

    def _stage(self) -> Stage:
        if self._window < self._origin:
            return "warmup"
        return "load" if self._window < self.ended_at else "drain"

    def _cut(self, end: int) -> None:
        begin, since = self._window, self._window - self._origin
        stage = self._stage()
        open_rows = [(found.at, found.at, found.at, NEVER, 0) for found in self._open]
        window = self._ledger.cut(
            Cut(
                begin=begin,
                end=end,
                second=since // SECOND,
                stage=stage,
                asked=self._asked,
                waiting=np.empty(0, np.int64),
                open=np.array(open_rows, np.int64).reshape(-1, 5),
                limit_ns=self._plan.limit_ns,
                phase=phase_at(self._plan.phases, since) if stage == "load" else None,
                rate=None,
                stall_ns=self.stood,
                connections=0,
            )
        )
        # due is begun here: there is no lateness to tell
        window = replace(window, lateness=EMPTY, users=self._users)
        self._users = 0
        self._asked = 0
        self.stood = 0
        self._window = end
        self._boundary = self._next_boundary()
        self.in_flight = window.in_flight
        self._emit(window)
