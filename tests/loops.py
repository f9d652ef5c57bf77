"""Clients of all kinds against the real scheduler on a virtual clock: nothing waits, and a second
of traffic takes well under one.

Closed loops send again when they are answered; open ones send whatever happens, over connections
that they keep. A request costs the front end some time, one after the other, which is what makes a
burst of returns last; on the model's core it is read late while a batch runs.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from statistics import mean, median
from typing import NamedTuple

import numpy as np

from loadbench.engine.job import Job
from loadbench.engine.measure import sizes
from loadbench.engine.returns import Client
from loadbench.engine.rule import Rule
from loadbench.engine.scheduler import Scheduler, Terms
from loadbench.engine.service import ServiceTimes
from loadbench.units import MS, SECOND

US = 1000
READ_NS, WRITE_NS, WIRE_NS = 15 * US, 12 * US, 30 * US
SLICE_NS = 2.8 * MS  # for which the kernel may let the model's thread keep a shared core
Service = Callable[[int], float]  # ms by rows
Think = Callable[[random.Random], float]  # ms from an answer to the next request

MODELS: dict[str, Service] = {
    "mlp": lambda rows: 1.85 + 0.25 * rows,
    "quick mlp": lambda rows: 1.25 + 0.17 * rows,
    "gpu": lambda rows: 4 + 0.2 * max(0, rows - 16),
    "small": lambda rows: 0.5 + 0.047 * rows,
}


class Machine(NamedTuple):
    """What serves. `shared`: model and front end have one core; `noise`: how often others take it
    for up to 4 ms."""

    service: Service
    hold: bool = True
    most: int = 32
    seed: int = 1
    shared: bool = False
    noise: float = 0.0


class Asked(Job):
    """A request of a client, which is told of its answer."""

    def __init__(self, client: Client, kind: str, sent: int, then: Callable[[], None]) -> None:
        super().__init__({"x": np.zeros((1, 1))}, 1, ((1,),), lambda _: True)
        self._client, self.kind, self.sent, self.then = client, kind, sent, then

    @property
    def client(self) -> Client:
        return self._client


class World:
    """One server and its clients."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.now = 0
        self.latencies: dict[str, list[tuple[int, int]]] = {}  # kind → (answered, ns)
        self.batches: list[tuple[int, int, str]] = []  # started, rows, reason
        self.clients = random.Random(machine.seed)  # the same with and without holding
        self._server = random.Random(machine.seed + 1)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._number = count()
        self._front_free = 0
        self._free_since: int | None = 0
        times = ServiceTimes(machine.most)
        for rows in sizes(machine.most) * 3:
            times.observe(rows, round(machine.service(rows) * MS))
        rule = Rule("deadline", machine.most, hold=machine.hold)
        self.scheduler = Scheduler(Terms(rule, 10**6, 10**12, None), times)
        self._times = times

    def at(self, moment: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (round(moment), next(self._number), what))

    def run(self, seconds: float) -> None:
        while self._events and self._events[0][0] <= seconds * SECOND:
            self.now, _, what = heapq.heappop(self._events)
            what()

    # ---- clients

    def send(self, client: Client, kind: str, then: Callable[[], None]) -> None:
        """A client sends a request now."""
        job = Asked(client, kind, self.now, then)
        self.at(self.now + WIRE_NS, lambda: self._read(job))

    def closed(self, number: int, think: Think, kind: str = "closed") -> None:
        """So many clients, each with one request in flight, from the first millisecond on."""
        for _ in range(number):
            self.at(self.clients.random() * MS, self._loop(Client(), think, kind))

    def _loop(self, client: Client, think: Think, kind: str) -> Callable[[], None]:
        def send() -> None:
            self.send(client, kind, again)

        def again() -> None:
            self.at(self.now + think(self.clients) * MS, send)

        return send

    def opened(self, per_s: float, kind: str = "open") -> None:
        """Poisson arrivals over connections of which the one that was used last is used first: of
        all habits the one that looks most like clients who come back."""
        free: deque[Client] = deque()

        def come() -> None:
            self.at(self.now + self.clients.expovariate(per_s) * SECOND, come)
            client = free.pop() if free else Client()
            self.send(client, kind, lambda: free.append(client))

        self.at(0, come)

    # ---- the server

    def _read(self, job: Asked) -> None:
        machine, draw = self.machine, self._server.random
        start = max(self.now, self._front_free)
        if machine.shared and self._free_since is None and start == self.now and draw() < 0.3:
            start += round(draw() * SLICE_NS)
        if machine.noise and start == self.now and draw() < machine.noise:
            start += round(draw() * 4 * MS)
        self._front_free = start + READ_NS
        self.at(self._front_free, lambda: self._arrive(job))

    def _arrive(self, job: Asked) -> None:
        job.arrived = self.now
        assert self.scheduler.admit(job, None, lambda: self.now) is None
        self._look()

    def _look(self) -> None:
        if self._free_since is None:
            return
        decision = self.scheduler.take(self._free_since, self.now, self.machine.most)
        if decision.until is not None:
            self.at(decision.until, self._look)
        if decision.take:
            self._free_since = None
            jobs = [job for job in decision.take if isinstance(job, Asked)]
            self.batches.append((self.now, len(jobs), decision.reason))
            took = self.machine.service(len(jobs)) * (1 + self._server.expovariate(50)) * MS
            if self._server.random() < 4 * self.machine.noise:
                took += self._server.random() * 3 * MS
            self.at(self.now + took, lambda: self._end(jobs, round(took)))

    def _end(self, jobs: list[Asked], took: int) -> None:
        self._free_since = self.now
        self.scheduler.answered(jobs, self.now, self._times)
        self.scheduler.ended(len(jobs), took, 0, self.now)
        self._front_free = max(self.now, self._front_free) + 60 * US
        for job in jobs:
            self._front_free += WRITE_NS
            self.at(self._front_free + WIRE_NS, partial(self._answered, job))
        self._look()

    def _answered(self, job: Asked) -> None:
        self.latencies.setdefault(job.kind, []).append((self.now, self.now - job.sent))
        job.then()

    # ---- what came of it

    def result(self, kind: str, after_s: float, until_s: float) -> "Result":
        found = [ns for at, ns in self.latencies[kind] if at >= after_s * SECOND]
        own = [batch for batch in self.batches if batch[0] >= after_s * SECOND]
        return Result(
            len(found) / (until_s - after_s),
            mean(found) / MS,
            median(found) / MS,
            mean(rows for _, rows, _ in own),
            mean(reason == "hold" for _, _, reason in own),
        )


class Result(NamedTuple):
    """Of one kind of clients; `size` and `held` of all batches."""

    rate: float  # requests/s
    mean_ms: float
    p50_ms: float
    size: float
    held: float  # share of the batches that were held


def both(
    machine: Machine, clients: Callable[[World], None], kinds: Iterable[str], seconds: float
) -> dict[str, tuple[Result, Result]]:
    """The same clients without and with holding, from a quarter of the time on."""
    results: list[dict[str, Result]] = []
    for hold in (False, True):
        world = World(machine._replace(hold=hold))
        clients(world)
        world.run(seconds)
        results.append({kind: world.result(kind, seconds / 4, seconds) for kind in kinds})
    return {kind: (results[0][kind], results[1][kind]) for kind in results[0]}


def steady(ms: float) -> Think:
    return lambda draw: ms * (1 + 0.1 * draw.random())


def uniform(low: float, high: float) -> Think:
    return lambda draw: draw.uniform(low, high)


def exponential(ms: float) -> Think:
    return lambda draw: draw.expovariate(1 / ms)
