"""A canary: a new version gets a share of the requests that name no version, and is watched.

It is rolled back when more of its requests fail than of the old version's, or more are slow, beyond
what chance explains; a request whose client goes away unanswered counts as failed. Both are looked
at over the same time, so that a spell that was bad for both is nobody's fault. What a rollback does
is the business of `versions`.
"""

import math
import random
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from loadbench.engine.endpoint import Endpoint
from loadbench.engine.exchange import Exchange, Form
from loadbench.engine.forwarding import Forwarding
from loadbench.engine.job import Ran, Served
from loadbench.engine.tensors import Refused
from loadbench.units import MS, percent

LEAST = 50  # answers of either version before anything is said
WINDOW = 5000  # of each version's last requests that count
MORE = 4  # times as many of the old version's as of the new one's are enough
FAILED = -1  # in place of a latency
SLOWER = 2.0  # times the old version's P99: what the new one's may not be above
WORSE = 0.01  # share of failed requests that the new version may have more than the old one
SURE = 4.0  # standard deviations
FEWEST = 5

Clock = Callable[[], int]


class Side:
    """One of the two versions, and the last requests to it, or every so-manieth of them."""

    def __init__(self, endpoint: Endpoint, clock: Clock, every: int = 1) -> None:
        self.endpoint = endpoint
        self._clock = clock
        self._every = every
        self._seen = 0
        self._ends: deque[int] = deque(maxlen=WINDOW)
        self._latencies: deque[int] = deque(maxlen=WINDOW)  # ns, or FAILED

    @property
    def since(self) -> int:
        """From when on it is known what became of requests."""
        return self._ends[0] if len(self._ends) == WINDOW else 0

    def latencies(self, since: int) -> list[int]:
        """Of the requests that ended since then."""
        return list(islice(self._latencies, bisect_left(self._ends, since), None))

    def _ended(self, arrived: int | None) -> None:
        """A request ended that had arrived then; None: it failed."""
        self._seen += 1
        if self._seen % self._every == 0:
            now = self._clock()
            self._ends.append(now)
            self._latencies.append(FAILED if arrived is None else now - arrived)

    def infer(self, exchange: Exchange, data: bytes, start: int) -> None:
        """Passes the request on and takes its time. Raises Refused for a fault of the client's."""
        exchange.endpoint = self
        exchange.arrived = self._clock()
        self.endpoint.infer(exchange, data, start)
        if exchange.endpoint is None and not exchange.taken:  # refused at once: no room
            self._ended(None)

    def settle(self, exchange: Exchange, result: Served | Refused) -> bool:
        good = self.endpoint.settle(exchange, result)
        self._ended(exchange.arrived if good else None)
        return good

    def abandon(self, exchange: Exchange) -> None:
        """Who has gone may have waited too long; both versions have the others alike."""
        self._ended(None)
        exchange.endpoint = self.endpoint
        self.endpoint.abandon(exchange)

    def announce(self, number: int) -> None:
        self.endpoint.announce(number)

    def form(self, exchange: Exchange, ran: Ran) -> Form | None:
        """None: each is settled by itself."""
        return None


class Canary(Forwarding):
    """Answers the requests that name no version: a share of them, drawn from the seed, goes to the
    new version."""

    def __init__(
        self,
        old: Endpoint,
        new: Endpoint,
        share: float,
        seed: int,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        # Were all of the old version's kept, the time they cover would hold too few of a small
        # share's
        every = max(1, int((1 - share) / (MORE * max(share, 1 / WINDOW))))
        self.old, self.new = Side(old, clock, every), Side(new, clock)
        self.share = share
        self._random = random.Random(seed)

    def infer(self, exchange: Exchange, data: bytes, start: int) -> None:
        """Passes a request on to one of the versions. Raises Refused."""
        side = self.new if self._random.random() < self.share else self.old
        side.infer(exchange, data, start)

    def verdict(self) -> str:
        """Why the new version should be given up; empty as long as it should not."""
        since = max(self.old.since, self.new.since)
        return verdict(self.old.latencies(since), self.new.latencies(since))


def verdict(old: Sequence[int], new: Sequence[int]) -> str:
    """Compares latencies (ns, FAILED for requests that failed) of two versions.

    The new one is given up when its failed share is more than `WORSE` above the old one's, or when
    more than one in a hundred of its answers take more than `SLOWER` times the old one's P99, which
    is to say that its own P99 is above that; either by `SURE` standard deviations and at least
    `FEWEST` requests. Nothing is said before either has `LEAST` requests.
    """
    if min(len(old), len(new)) < LEAST:
        return ""
    olds, news = np.array(old), np.array(new)
    failed, before = int((news == FAILED).sum()), float((olds == FAILED).mean())
    if _beyond(failed, len(news), min(1.0, before + WORSE)):
        return (
            f"{failed} of {len(news)} requests failed, "
            f"of the old version's {percent(before)} %"
        )  # fmt: skip
    good, known = news[news != FAILED], olds[olds != FAILED]
    if not len(good) or not len(known):
        return ""
    limit = SLOWER * float(np.quantile(known, 0.99))
    slow = int((good > limit).sum())
    if _beyond(slow, len(good), 0.01):
        p99 = float(np.quantile(good, 0.99))
        return (
            f"its P99 is {p99 / MS:.3g} ms, more than {SLOWER:g} × "
            f"the old version's {limit / SLOWER / MS:.3g} ms"
        )
    return ""


def _beyond(found: int, number: int, share: float) -> bool:
    """Whether so many of `number` are more than a share that is at most this would give."""
    expected = share * number
    return found >= FEWEST and found > expected + SURE * math.sqrt(expected)
