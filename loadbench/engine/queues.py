"""What waits: one queue for each set of shapes that can share a batch, in the order of service."""

from bisect import insort
from collections import deque
from collections.abc import Iterable

from loadbench.engine.job import Job
from loadbench.engine.rule import Ahead

Shapes = tuple[tuple[int, ...], ...]
KEPT = 64  # shapes may be many over time; beyond so many, those that nobody waits for are forgotten


class Queues:
    """The requests that wait, and how many. Not safe among threads by itself."""

    def __init__(self, levels: int = 1) -> None:
        self.requests = self.rows = self.bytes = 0
        self.rows_added = 0  # ever
        self.by_level = [0] * (levels + 1)
        self._by_shapes: dict[Shapes, deque[Job]] = {}
        self._cancelled = 0  # of those still in a queue

    def add(self, job: Job) -> None:
        """Puts a request where its `order` says, behind its equals."""
        queue = self._by_shapes.get(job.shapes)
        if queue is None:
            queue = self._by_shapes[job.shapes] = deque()
        if queue and queue[-1].order > job.order:
            insort(queue, job, key=_order)
        else:
            queue.append(job)
        self.rows_added += job.rows
        self.by_level[job.level] += 1
        self.requests += 1
        self.rows += job.rows
        self.bytes += job.size_bytes

    def ahead(self, job: Job) -> Ahead:
        """Who would be served before a request that has not been added; those with whom it cannot
        ride count as if they came before it."""
        queue = self._by_shapes.get(job.shapes, deque[Job]())
        shared = len(self._by_shapes) > 1 or not queue
        rows = sum([other.rows for other in queue]) if shared else self.rows
        apart = self.rows - rows
        for other in reversed(queue):
            if other.order <= job.order:
                break
            rows -= other.rows
        return Ahead(rows, apart, queue[0] if rows else None)

    def cancel(self, job: Job) -> bool:
        """Nobody wants the request any more; False if it has already left."""
        if job.taken or job.cancelled:
            return False
        job.cancelled = True
        self._cancelled += 1
        self.by_level[job.level] -= 1
        self.requests -= 1
        self.rows -= job.rows
        self.bytes -= job.size_bytes
        return True

    def in_order(self) -> list[deque[Job]]:
        """The queues in which someone waits; first the one whose first request is to be first."""
        if self._cancelled:
            for shapes, queue in self._by_shapes.items():
                self._by_shapes[shapes] = deque(job for job in queue if not job.cancelled)
            self._cancelled = 0
        if len(self._by_shapes) > KEPT:
            self._by_shapes = {shapes: queue for shapes, queue in self._by_shapes.items() if queue}
        found = [queue for queue in self._by_shapes.values() if queue]
        return found if len(found) < 2 else sorted(found, key=_first)

    def remove(self, queue: deque[Job], gone: Iterable[Job]) -> None:
        """Takes requests, which are near its front, out of their queue."""
        left = rows = size = 0
        by_level = self.by_level
        for job in gone:
            job.taken = True
            by_level[job.level] -= 1
            rows += job.rows
            size += job.size_bytes
            left += 1
        self.requests -= left
        self.rows -= rows
        self.bytes -= size
        kept: list[Job] = []
        while left:
            front = [queue.popleft() for _ in range(left)]
            others = [job for job in front if not job.taken]
            kept += others
            left = len(others)
        queue.extendleft(reversed(kept))

    def expire(self, now: int) -> list[Job]:
        """Takes out everyone whose deadline has passed."""
        gone: list[Job] = []
        for queue in self.in_order():
            late = [job for job in queue if job.deadline <= now]
            self.remove(queue, late)
            gone += late
        return gone


def _order(job: Job) -> int:
    return job.order


def _first(queue: deque[Job]) -> int:
    return queue[0].order
