"""Sequences: each connection goes through one after the other, a request at a time, so that a
server sees the requests of each in order. One that has failed anywhere is broken, and the next
begins.

There are as many sequences at once as connections in use: `concurrency` of a closed loop, at most
`target.connections` of an open one, where idle connections have their turns in order, so that none
is left amid its sequence for longer than the others.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle

import numpy as np

from loadbench import distribution
from loadbench.load.deck import Card, Deal
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets.sequence import FIRST, HIGHEST, LAST, LOWEST, split, written
from loadbench.targets.wire import Prepared

_DRAWN = 4096  # lengths, over and over
_ROOM = 10**12  # sequences of one process


class Run:
    """The sequences of one connection: called, it gives the next request."""

    __slots__ = ("_left", "_number", "_of")

    def __init__(self, of: "Sequences") -> None:
        self._of = of
        self._left = 0
        self._number = b""

    def __call__(self) -> Card:
        of, place = self._of, 0
        if not self._left:
            place = FIRST
            self._left, self._number = next(of.lengths), of.number()
        self._left -= 1
        if not self._left:
            place += LAST
        data, _, kind = of.deal()
        before, after = of.places[data][place]
        whole = b"".join((before, self._number, after))
        return whole, len(whole), kind

    @property
    def amid(self) -> bool:
        """Whether the sequence that has begun goes on."""
        return self._left > 0

    def broken(self) -> None:
        self._left = 0


def amid(deal: Deal) -> bool:
    """Whether what a connection is dealt next belongs to a sequence that has begun."""
    return isinstance(deal, Run) and deal.amid


class Sequences:
    """Of one server. `places` has, by the bytes that `deal` gives, the same request in each place
    of a sequence."""

    def __init__(
        self, endpoint: Endpoint, request: RequestPlan, pool: Sequence[Prepared], deal: Deal,
        seed: int,
    ) -> None:  # fmt: skip
        drawn = distribution.parse(request.sequence)
        found = drawn.whole(np.random.Generator(np.random.PCG64([seed, 1])), _DRAWN)
        self.lengths: Iterator[int] = cycle(np.maximum(found, 1).tolist())
        self.deal = deal
        self.places = {
            one.data: tuple(split(endpoint, data) for data in one.places) for one in pool
        }
        # others load the same server, maybe from other machines
        first = random.SystemRandom().randrange(LOWEST, HIGHEST - _ROOM)
        numbers = count(first)
        self.number: Callable[[], bytes] = lambda: written(endpoint, next(numbers))

    def begin(self) -> Run:
        """For a new connection."""
        return Run(self)


class Turns(deque):  # type: ignore[type-arg]
    """Idle connections of which the one that has waited longest is the next."""

    pop = deque.popleft
