"""A stretch of a run as a view keeps it: a window, slim, with what a merge would lose.

Left to others: which stretches there are, and how long they are kept.
"""

from typing import NamedTuple

from msgspec.structs import replace

from loadbench.histogram import EMPTY, Histogram
from loadbench.merge import merge
from loadbench.model import Window

_ROUGH_S = 60
SLOWEST = 5  # requests of each second that are kept: all that are shown may be of one


class Bin(NamedTuple):
    """A merged stretch of the run. `deepest` keeps the peak of the queue, which is a state and
    would be lost in a merge; `fullest` the same of the requests in flight. Of the service times
    only the sum stays: their histograms are not shown, and would double the size of a ring.
    `latency` is that of all kinds of requests, rough in minutes and hours: their pictures merge
    hundreds of bins, which is why `done` and `failures` are counted once, too."""

    window: Window
    seconds: int
    deepest: int | None
    fullest: int
    service_ns: float
    latency: Histogram
    done: int
    failures: int

    @property
    def second(self) -> int:
        return self.window.second

    @property
    def until(self) -> int:
        return self.window.second + self.seconds


def failures(window: Window) -> int:
    """Requests that were asked and not answered well."""
    failed = sum(sum(part.failed.values()) for part in window.requests.values())
    return failed + window.unsent + window.lost


def bin_of(window: Window, seconds: int = 1) -> Bin:
    """Without what no panel shows: a ring holds thousands of windows."""
    queued = window.server.waiting if window.server else None
    service = sum(part.service.total for part in window.requests.values() if part.service.count)
    requests = {name: replace(part, service=EMPTY) for name, part in window.requests.items()}
    slim = replace(window, requests=requests, slowest=window.slowest[:SLOWEST], examples={})
    open_now = window.in_flight + window.waiting
    return Bin(
        slim,
        seconds,
        queued,
        open_now,
        service,
        _drawn(window.latency, seconds),
        window.done,
        failures(window),
    )


def joined(parts: tuple[Bin, ...]) -> Bin:
    """One bin of neighbours; ValueError when there are none."""
    depths = [bin.deepest for bin in parts if bin.deepest is not None]
    seconds = parts[-1].until - parts[0].second
    return Bin(
        merge([bin.window for bin in parts]),
        seconds,
        max(depths, default=None),
        max(bin.fullest for bin in parts),
        sum(bin.service_ns for bin in parts),
        _drawn(Histogram.merged(bin.latency for bin in parts), seconds),
        sum(bin.done for bin in parts),
        sum(bin.failures for bin in parts),
    )


def _drawn(latency: Histogram, seconds: int) -> Histogram:
    return latency.rough() if seconds >= _ROUGH_S else latency
