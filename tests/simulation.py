"""The engine's scheduler on a clock of its own: no threads, no sockets, no waiting.

An instance that gets free, a request that comes and a timer that ends are the only moments at which
anything is decided, as in the batcher; the times of batches are learned from the batches that ran,
as there.
"""

import heapq
from collections.abc import Callable, Sequence
from typing import NamedTuple

from loadbench.engine.job import Job
from loadbench.engine.measure import sizes
from loadbench.engine.rule import NEVER
from loadbench.engine.scheduler import Scheduler, Terms
from loadbench.engine.service import ServiceTimes

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
    def on_time(self) -> int:
        return sum(
            1 for at, due in zip(self.answered, self.deadlines, strict=True) if at and at <= due
        )

    @property
    def late(self) -> int:
        """Of those that were served."""
        return sum(
            1 for at, due in zip(self.answered, self.deadlines, strict=True) if at and at > due
        )


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
        self.scheduler.stamp(job, asked.timeout_ns)
        self.history.deadlines[place] = job.deadline
        if self.scheduler.refusal(job, lambda: self._free_at(asked.at)) is not None:
            self.history.refused.append(place)
            return
        self._places[job] = place
        self.scheduler.queues.add(job)

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
