"""When requests fall due: warm-up and load on one absolute axis, and the account of what was asked.

Due times come from `shape.arrivals` and are never shifted: what waits keeps its due time. Whoever
sends takes them in order with `next` and `advance`.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from loadbench.plan import Plan
from loadbench.shape import Phase, arrivals, length_ns, replay

NEVER = 1 << 62
_NOTHING = np.empty(0, np.int64)

Ints = NDArray[np.int64]


class Schedule:
    """The arrivals of an open loop from `origin` − warm-up on. A closed loop has none."""

    def __init__(self, plan: Plan, origin: int) -> None:
        self._chunks = _closed() if plan.arrivals == "closed" else _chunks(plan, origin)
        self._pulled: deque[Ints] = deque()  # not all taken yet; the first is being taken
        self._asked: list[Ints] = []  # not all accounted for yet
        self._due: list[int] = [NEVER]
        self._at = 0
        self._refill()

    @property
    def next(self) -> int:
        """When the next request falls due (or fell due, if it waits); NEVER after the last."""
        return self._due[self._at]

    def advance(self) -> None:
        """The next request has been taken up."""
        self._at += 1
        if self._due[self._at] == NEVER:
            self._pulled.popleft()
            self._refill()

    def asked(self, begin: int, end: int) -> int:
        """How many fell due in [begin, end). Accounts must be asked in order of time."""
        self._reach(end)
        number = 0
        for chunk in self._asked:
            first, last = np.searchsorted(chunk, (begin, end))
            number += int(last - first)
        self._asked = [chunk for chunk in self._asked if chunk[-1] >= end]
        return number

    def waiting(self, end: int) -> Ints:
        """Due times before `end` of what has not been taken up."""
        self._reach(end)
        parts = [chunk[self._at :] if not index else chunk for index, chunk in self._numbered(end)]
        found = np.concatenate([_NOTHING, *parts])
        return found[: np.searchsorted(found, end)]

    def stop(self, moment: int) -> None:
        """Nothing falls due from `moment` on, and what waits is given up."""
        self._reach(moment)
        self._asked = [chunk[chunk < moment] for chunk in self._asked]
        self._asked = [chunk for chunk in self._asked if len(chunk)]
        self._chunks = iter(())
        self._pulled.clear()
        self._due, self._at = [NEVER], 0

    def _numbered(self, end: int) -> Iterator[tuple[int, Ints]]:
        for index, chunk in enumerate(self._pulled):
            if chunk[0] >= end:
                return
            yield index, chunk

    def _pull(self) -> bool:
        for chunk in self._chunks:
            self._pulled.append(chunk)
            self._asked.append(chunk)
            return True
        return False

    def _reach(self, end: int) -> None:
        """Pulls until all that falls due before `end` is here."""
        while not (self._asked and self._asked[-1][-1] >= end) and self._pull():
            pass

    def _refill(self) -> None:
        if self._pulled or self._pull():
            self._due, self._at = [*self._pulled[0].tolist(), NEVER], 0


def _chunks(plan: Plan, origin: int) -> Iterator[Ints]:
    """Warm-up draws from a stream of its own, so that the load's arrivals do not depend on it."""
    if plan.warmup_ns:
        rate = plan.phases[0].start
        flat = (Phase(rate, rate, plan.warmup_ns),)
        kind = "poisson" if plan.arrivals in ("trace", "once") else plan.arrivals
        for chunk in arrivals(flat, kind, plan.seed + 1, plan.cv):
            yield chunk + (origin - plan.warmup_ns)
    if plan.arrivals == "trace":
        due = np.frombuffer(plan.trace, "<i8").astype(np.int64)
        chunks = replay(due, length_ns(plan.phases), plan.loop_ns)
    else:
        chunks = arrivals(plan.phases, plan.arrivals, plan.seed, plan.cv)
    for chunk in chunks:
        yield chunk + origin


def _closed() -> Iterator[Ints]:
    return iter(())
