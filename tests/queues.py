"""A single server with a queue, told as events of its own: the truth that searches and verdicts are
held to. It shares no line with the engine's batcher or the load generator.

Requests come one by one (Poisson) and run in batches of at most `largest`; a batch starts when the
server is free and is full, or its oldest has waited `wait_s`. With no wait whoever is there goes at
once. A batch of b takes a + c · b.
"""

import math
from bisect import bisect_right
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench.histogram import Histogram
from loadbench.model import Requests, Window

Floats = NDArray[np.float64]


class Server(NamedTuple):
    """Seconds."""

    a: float
    c: float = 0.0
    largest: int = 1
    wait_s: float = 0.0

    @property
    def capacity(self) -> float:
        """Requests per second in full batches."""
        return self.largest / (self.a + self.c * self.largest)


class Line:
    """A server at work: who waits, until when it is busy."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._waiting: list[float] = []
        self._head = 0
        self._free = 0.0
        self.slower = 1.0  # all batches take so many times as long

    def serve(self, arrivals: list[float], until: float) -> tuple[list[float], list[float]]:
        """Takes further arrivals and starts what starts until then: (ends, latencies)."""
        largest, wait = self.server.largest, self.server.wait_s
        waiting = self._waiting = self._waiting[self._head :] + arrivals
        head, free = 0, self._free
        ends: list[float] = []
        latencies: list[float] = []
        while head < len(waiting):
            full = waiting[head + largest - 1] if head + largest <= len(waiting) else math.inf
            start = max(free, min(full, waiting[head] + wait))
            if start > until:
                break
            last = min(bisect_right(waiting, start, head), head + largest)
            free = start + (self.server.a + self.server.c * (last - head)) * self.slower
            ends += [free] * (last - head)
            latencies += [free - came for came in waiting[head:last]]
            head = last
        self._head, self._free = head, free
        return ends, latencies

    @property
    def waiting(self) -> list[float]:
        return self._waiting[self._head :]


def latencies(server: Server, rate: float, number: int, seed: int) -> Floats:
    """Of so many requests (s), the first hundredth left out."""
    draw = np.random.default_rng(seed)
    arrivals = np.cumsum(draw.exponential(1 / rate, number)).tolist()
    found = np.array(Line(server).serve(arrivals, math.inf)[1])
    return found[number // 100 :]


def highest_rate(server: Server, limit_s: float, share: float, number: int = 1_000_000) -> float:
    """The rate at which `share` of the requests take longer than the limit, by the regula falsi on
    the log-odds over runs with the same random numbers."""

    def odds(rate: float) -> float:
        over = float((latencies(server, rate, number, 5) > limit_s).mean())
        over = min(1 - 1 / number, max(1 / number, over))
        return math.log(over / (1 - over) / (share / (1 - share)))

    low, high = 0.3 * server.capacity, 0.999 * server.capacity
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (low, middle) if odds(middle) > 0 else (middle, high)
    return (low + high) / 2


def waits_longer(load: float, times: float) -> float:
    """P(wait > times · service) in M/D/1, exactly (Erlang, 1909): for waits of t services
    P(W ≤ t) = (1 − load) Σ (load (j − t))^j / j! · e^(load (t − j)), j = 0 … floor(t)."""
    found = math.fsum(
        (load * (j - times)) ** j / math.factorial(j) * math.exp(-load * (j - times))
        for j in range(int(times) + 1)
    )
    return 1 - (1 - load) * found


class Simulated:
    """A run against a simulated server: a window a second at whatever rate is asked for."""

    def __init__(self, server: Server, limit_s: float, seed: int, rate: float) -> None:
        self.line = Line(server)
        self.rate, self.paused = rate, False
        self._limit = limit_s
        self._draw = np.random.default_rng(seed)
        self._second = 0
        self._pending: list[tuple[float, float]] = []  # ends and latencies to come

    def window(self) -> Window:
        begin, end = float(self._second), float(self._second + 1)
        rate = 0.0 if self.paused else self.rate
        number = int(self._draw.poisson(rate))
        came = np.sort(self._draw.uniform(begin, end, number)).tolist()
        ends, took = self.line.serve(came, end)
        self._pending += zip(ends, took, strict=True)
        at = bisect_right(self._pending, (end, math.inf))
        done, self._pending = self._pending[:at], self._pending[at:]
        open_since = [ended - waited for ended, waited in self._pending] + self.line.waiting
        values = np.array([waited for _, waited in done], np.float64)
        self._second += 1
        return Window(
            second=self._second - 1,
            stage="load",
            rate=rate,
            asked=number,
            sent=number,
            in_flight=len(open_since),
            overdue=sum(end - since > self._limit for since in open_since),
            requests={
                "infer": Requests(
                    done=len(done), latency=Histogram.of((values * 1e9).astype(np.int64))
                )
            },
        )
