"""Requests that failed in the model or in code around it, told on stderr with their names.

A line each, so that whoever asked can be found; what raised is printed in full once. A model that
fails all the time must not fill the disk: a few lines a second are told, and how many were not.
"""

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TextIO

from loadbench.engine import log
from loadbench.engine.job import Job
from loadbench.engine.tensors import Refused
from loadbench.printable import harmless, printable

LINES = 10  # a second
NAMED = 8  # requests of a batch that failed together
KINDS = 64  # of exceptions that are printed in full


class Mishaps:
    """Writes them down. Safe to be told of from several threads."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, stream: TextIO | None = None
    ) -> None:
        self._clock = clock
        self._stream = stream
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._second = 0
        self._lines = self._untold = 0

    def tell(self, jobs: Sequence[Job], fault: Refused, error: BaseException | None) -> None:
        """`jobs` failed for this; `error` is what was raised, if it is worth its traceback."""
        with self._lock:
            second = int(self._clock())
            if second != self._second:
                if self._untold:
                    log.write(f"and {self._untold} more requests failed", self._stream)
                self._second, self._lines, self._untold = second, 0, 0
            if error is not None and self._is_new(error):
                told = "".join(traceback.format_exception(error)).rstrip()
                log.write(harmless(told), self._stream)
            if self._lines >= LINES:
                self._untold += len(jobs)
                return
            self._lines += 1
        log.write(f"failed: {_names(jobs)}: {printable(fault.message)}", self._stream)

    def _is_new(self, error: BaseException) -> bool:
        """Whether its like, raised in the same line, has not been printed yet."""
        deepest = error.__cause__ or error
        last = traceback.extract_tb(deepest.__traceback__)[-1:]
        key = f"{type(deepest).__name__} {last[0].filename}:{last[0].lineno}" if last else ""
        if key in self._seen or len(self._seen) >= KINDS:
            return False
        self._seen.add(key)
        return True


def _names(jobs: Sequence[Job]) -> str:
    known = [
        f"request {printable(job.plan.id)!r}" if job.plan and job.plan.id else "a request"
        for job in jobs[:NAMED]
    ]
    rows = sum(job.rows for job in jobs)
    more = [f"{len(jobs) - NAMED} more"] if len(jobs) > NAMED else []
    return f"{', '.join(known + more)} ({rows} row{'s' if rows != 1 else ''})"
