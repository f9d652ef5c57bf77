"""Where windows go: as JSON lines to the runner, and in bulk into Locust's own statistics."""

import os
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent.queue import SimpleQueue
from locust.stats import RequestStats, StatsEntry, StatsError

from loadbench.model import Requests, Window, encode
from loadbench.plan import Message
from loadbench.units import MS


class Outlet:
    """Writes messages to a file descriptor without ever making the loop wait for its reader.

    The encoding is done when the hub is free, the writing in a thread of gevent's pool. `gone` is
    called when nobody reads any more.
    """

    def __init__(self, fd: int, gone: Callable[[], None]) -> None:
        self._fd = fd
        self._gone = gone
        self._queue: SimpleQueue[Message | None] = SimpleQueue()
        self._greenlet = gevent.spawn(self._run)

    def put(self, message: Message) -> None:
        self._queue.put(message)

    def close(self) -> None:
        """Returns when all is written, or nobody reads any more."""
        self._queue.put(None)
        self._greenlet.join()

    def _run(self) -> None:
        pool = gevent.get_hub().threadpool
        while (message := self._queue.get()) is not None:
            data = encode(message) + b"\n"
            while data:
                written = pool.apply(_write, (self._fd, data))
                if not written:
                    self._gone()
                    return
                data = data[written:]


def _write(fd: int, data: bytes) -> int:
    """0 when nobody reads any more. gevent would print an error here to stderr, and the thread die
    of it, unheard of, where nobody reads that either."""
    try:
        return os.write(fd, data)
    except BrokenPipeError:
        return 0


def feed(stats: RequestStats, method: str, window: Window) -> None:
    """Adds a window to Locust's statistics, as if its requests had been logged one by one.

    Warm-up is left out, as it is from all statistics.
    """
    if window.stage == "warmup":
        return
    for name, part in window.requests.items():
        entry = _entry(stats, name, method, part)
        stats.entries[(name, method)].extend(entry)
        stats.total.extend(entry)
        for failure, number in part.failed.items():
            key = StatsError.create_key(method, name, failure)
            error = stats.errors.setdefault(key, StatsError(method, name, failure))
            error.occurrences += number


def _entry(stats: RequestStats, name: str, method: str, part: Requests) -> StatsEntry:
    """One second of one request, in Locust's terms: ms, two digits."""
    entry: Any = StatsEntry(stats, name, method)
    failed = sum(part.failed.values())
    now = time.time()
    entry.num_requests = part.done + failed
    entry.num_none_requests = failed  # Locust has no percentiles without the failed otherwise
    entry.num_failures = failed
    entry.last_request_timestamp = now
    second = int(now) - 1  # the window is over; Locust's rates count from the first second on
    entry.num_reqs_per_sec[second] = entry.num_requests
    if failed:
        entry.num_fail_per_sec[second] = failed
    if part.done:
        edges, counts = part.latency.buckets()
        times = edges / MS
        entry.total_response_time = part.latency.total / MS
        entry.min_response_time, entry.max_response_time = float(times[0]), float(times[-1])
        for value, count in zip(times, counts, strict=True):
            entry.response_times[_rounded(float(value))] += int(count)
    return entry


def _rounded(value: float) -> int:
    """Locust's buckets: whole ms, and two digits from 100 ms on."""
    digits = 0 if value < 100 else -1 if value < 1000 else -2 if value < 10_000 else -3
    return int(round(value, digits))
