"""The engine's scheduler on a clock of its own: no threads, no sockets, no waiting.

An instance that gets free, a request that comes and a timer that ends are the only moments at which
anything is decided, as in the batcher; the times of batches are learned from the batches that ran,
as there.
"""

import heapq
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench.engine.job import Job
from loadbench.engine.measure import sizes
from loadbench.engine.rule import NEVER, Rule
from loadbench.engine.scheduler import Scheduler, Terms
from loadbench.engine.service import ServiceTimes
from loadbench.optimum import Times
from loadbench.units import MS

Shapes = tuple[tuple[int, ...], ...]


class Asked(NamedTuple):
    """A request to come."""

    at: int
    timeout_ns: int | None = None
    rows: int = 1
    priority: int = 0
    shapes: Shapes = ((1,),)


class Ran(NamedTuple):
    """A batch: the requests by their place in the order of arrivals."""

    began: int
    ended: int
    rows: int
    members: tuple[int, ...]
    reason: str


class History(NamedTuple):
    """What became of the requests, each by its place: when it was answered, None if it was not;
    who was given up while waiting, and who was refused at once."""

    answered: list[int | None]
    deadlines: list[int]
    ran: list[Ran]
    shed: list[int]
    refused: list[int]

    @property
    def served(self) -> int:
        return sum(at is not None for at in self.answered)

    @property
    def on_time(self) -> int:
        return sum(
            at is not None and at <= due
            for at, due in zip(self.answered, self.deadlines, strict=True)
        )


class Case(NamedTuple):
    """What batches of each size take (ns by rows), and the SLO."""

    table: Times
    slo_ns: int
    sizes: tuple[int, ...] = ()  # that batches are padded to

    @property
    def largest(self) -> int:
        return len(self.table) - 1

    @property
    def capacity(self) -> float:
        """Requests per ns in batches of which two fit into the SLO; a + c · b through the ends."""
        row = (self.table[-1] - self.table[1]) / (self.largest - 1)
        fitting = (self.slo_ns / 2 - (self.table[1] - row)) / row
        best = max(1, min(self.largest, int(fitting)))
        return float(best / self.table[best])


def _table(largest: int, ms: Callable[[int], float]) -> Times:
    return np.array([0, *(round(ms(rows) * MS) for rows in range(1, largest + 1))], np.int64)


_POWERS = tuple(1 << number for number in range(7))
CASES = {
    "affine": Case(_table(64, lambda rows: 2 + rows / 4), 15 * MS),
    "padded": Case(
        _table(64, lambda rows: 2 + (1 << (rows - 1).bit_length()) / 4), 20 * MS, _POWERS
    ),
    # `loadbench doctor mlp`, bf16 on one core of an AMD EPYC: medians of 1, 2, 4 … 32
    "measured": Case(
        _table(
            32,
            lambda rows: float(
                np.interp(rows, _POWERS[:6], (0.651, 0.661, 0.664, 0.818, 1.20, 1.88))
            ),
        ),
        10 * MS,
    ),
}


def arrivals(kind: str, rate: float, number: int, seed: int) -> Times:
    """Moments (ns). `gamma`: the gaps have a coefficient of variation of 3; `spikes`: in a tenth of
    the time, every 300 arrivals, the rate is 5.5 times as high as on average, else half of it."""
    draw = np.random.default_rng(seed)
    if kind == "poisson":
        moments = np.cumsum(draw.exponential(1 / rate, number))
    elif kind == "gamma":
        moments = np.cumsum(draw.gamma(1 / 9, 9 / rate, number))
    else:
        period = 300 / rate
        calm = 0.9 * period * 0.5 * rate  # arrivals
        begun, within = np.divmod(np.cumsum(draw.exponential(1, number)), 300)
        calmly = within / (0.5 * rate)
        moments = begun * period + np.where(
            within < calm, calmly, 0.9 * period + (within - calm) / (5.5 * rate)
        )
    return moments.astype(np.int64)


def play(
    case: Case, rule: Rule, moments: Times, slower: NDArray[np.float64] | None = None
) -> History:
    """Requests of one row and the case's SLO on one instance. `slower` are factors: a batch takes
    that of its last request."""
    table = case.table.tolist()
    service = ServiceTimes(case.largest, case.sizes)
    warm(service, table.__getitem__, case.largest)

    def took(members: Sequence[int], rows: int) -> int:
        return int(table[rows] if slower is None else table[rows] * slower[members[-1]])

    terms = Terms(rule, 1 << 40, 1 << 40, case.slo_ns)
    history = Simulation(terms, service, took).run([Asked(at) for at in moments.tolist()])
    return history._replace(deadlines=(moments + case.slo_ns).tolist())


Took = Callable[[Sequence[int], int], int]  # members, rows → ns


def warm(service: ServiceTimes, took: Callable[[int], int], largest: int) -> None:
    """Three batches of each size that the warm-up tries."""
    for rows in sizes(largest):
        for _ in range(3):
            service.observe(rows, took(rows))


class Simulation:
    """One batcher, with as many instances as is said."""

    def __init__(self, terms: Terms, service: ServiceTimes, took: Took, instances: int = 1) -> None:
        self.scheduler = Scheduler(terms, service, instances)
        self._took = took
        self._free: list[int] = [0] * instances  # since when
        self._busy: list[tuple[int, int]] = []  # until when, which batch
        self._wake = NEVER
        self._places: dict[Job, int] = {}
        self._asked: Sequence[Asked] = ()
        self.history = History([], [], [], [], [])

    def run(self, asked: Sequence[Asked]) -> History:
        """Until everyone has an answer. `asked` must be in the order of arrivals."""
        self.history = History([None] * len(asked), [0] * len(asked), [], [], [])
        self._asked = asked
        coming = at = 0
        while True:
            following = asked[coming].at if coming < len(asked) else NEVER
            now = min(following, self._busy[0][0] if self._busy else NEVER, self._wake)
            if now == NEVER:
                break
            assert now >= at, "time runs backwards"
            at = now
            while self._busy and self._busy[0][0] <= now:
                self._end(now)
            while coming < len(asked) and asked[coming].at <= now:
                self._come(coming, asked[coming])
                coming += 1
            self._look(now)
        assert not self.scheduler.queues.requests, "requests wait and nothing will ever happen"
        return self.history

    def _come(self, place: int, asked: Asked) -> None:
        job = Job({}, asked.rows, asked.shapes, bool)
        job.arrived = asked.at
        job.priority = asked.priority
        refusal = self.scheduler.admit(job, asked.timeout_ns, lambda: self._free_at(asked.at))
        self.history.deadlines[place] = job.deadline
        if refusal is None:
            self._places[job] = place
        else:
            self.history.refused.append(place)

    def _free_at(self, now: int) -> int:
        return now if self._free else max(now, self._busy[0][0])

    def _look(self, now: int) -> None:
        scheduler, history = self.scheduler, self.history
        self._wake = NEVER
        while self._free and scheduler.queues.requests:
            decision = scheduler.take(self._free[-1], now, scheduler.rule.max_batch)
            history.shed.extend(self._places.pop(job) for job in decision.shed)
            if not decision.take:
                assert decision.until is not None or not scheduler.queues.requests
                assert decision.until is None or decision.until > now, "asks again at once"
                self._wake = NEVER if decision.until is None else decision.until
                return
            self._free.pop()
            members = tuple([self._places.pop(job) for job in decision.take])
            rows = sum([job.rows for job in decision.take])
            ended = now + self._took(members, rows)
            heapq.heappush(self._busy, (ended, len(history.ran)))
            history.ran.append(Ran(now, ended, rows, members, decision.reason))

    def _end(self, now: int) -> None:
        ended, number = heapq.heappop(self._busy)
        ran = self.history.ran[number]
        for place in ran.members:
            assert self.history.answered[place] is None, "answered twice"
            self.history.answered[place] = ended
        self._free.append(now)
        self.scheduler.last_batch = now
        self.scheduler.ended(
            ran.rows, ended - ran.began, ran.began - self._asked[ran.members[0]].at, now
        )
