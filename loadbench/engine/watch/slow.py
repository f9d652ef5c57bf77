"""Requests that took long in the engine, named on stderr with where their time went."""

import time
from collections.abc import Callable, Sequence
from typing import TextIO

from loadbench.engine import log
from loadbench.engine.execution import Piece
from loadbench.engine.job import Job
from loadbench.printable import printable
from loadbench.units import ms

LINES = 10  # a second


class SlowLog:
    """Names requests that took longer than `limit_ns`: ten a second, and how many more there
    were."""

    def __init__(
        self,
        limit_ns: int,
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
    ) -> None:
        self._limit = limit_ns
        self._clock = clock
        self._stream = stream
        self._second = 0
        self._lines = self._untold = 0

    def look(self, piece: Piece, jobs: Sequence[Job], now: int) -> None:
        """`jobs` of this piece were answered at `now`."""
        limit = now - self._limit
        if min([job.arrived for job in jobs], default=limit) >= limit:
            return
        for job in jobs:
            if job.arrived >= limit:
                continue
            second = int(self._clock())
            if second != self._second:
                if self._untold:
                    log.write(f"and {self._untold} more slow requests", self._stream)
                self._second, self._lines, self._untold = second, 0, 0
            if self._lines >= LINES:
                self._untold += 1
                continue
            self._lines += 1
            log.write(self._line(piece, job, now), self._stream)

    def _line(self, piece: Piece, job: Job, now: int) -> str:
        name = f"request {printable(job.plan.id)!r}" if job.plan and job.plan.id else "a request"
        rows = f"{job.rows} row{'s' if job.rows != 1 else ''}"
        return (
            f"slow: {name} of {rows} took {ms(now - job.arrived)} ms: queue {ms(job.queue_ns)},"
            f" held {ms(job.batch_wait_ns)}, compute {ms(piece.compute_ns)},"
            f" answer {ms(now - piece.ended)}, in a batch of {piece.rows}"
        )
