"""From windows to the numbers that panels show: one small function for each quantity.

Percentiles count what failed as slower than everything (a server that refuses must not look fast):
they are infinite where they fall among the failed, and `ms_text` prints those as `> limit`.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, wraps

from dashboard.scene import Scene
from dashboard.widgets.bands import Point
from loadbench import units
from loadbench.bin import Bin, failures
from loadbench.histogram import Histogram
from loadbench.machine import Gpu, highest
from loadbench.merge import merged_part
from loadbench.model import Part, Window
from loadbench.serverside import Server
from loadbench.streams import Stream, rest

SHARES = (0.5, 0.95, 0.99)
Column = Sequence[Bin]
Reader = Callable[[Sequence[Column]], Sequence[Point]]  # of all columns in one go


def each(read: Callable[[Column], Point]) -> Reader:
    """A reader of columns, out of one of a single column."""

    @wraps(read)
    def all_of_them(columns: Sequence[Column]) -> list[Point]:
        return [read(bins) for bins in columns]

    return all_of_them


def served(bins: Column) -> list[Server]:
    """What the server told in a column."""
    return [bin.window.server for bin in bins if bin.window.server]


def quantile_ms(window: Window, share: float, overdue: int = 0) -> float | None:
    """A percentile of what was asked, in ms. `overdue`: unanswered and over the limit already, so
    that a server that stands still does not look fast until its requests time out."""
    value = window.latency.quantile_of_asked(share, failures(window) + overdue)
    return None if value is None else value / units.MS


def part_ms(part: Part | None, share: float) -> float | None:
    """A percentile of a part of the server's time, or its mean where it tells no more."""
    if part is None or not part.count:
        return None
    value: float | None = part.mean_ns
    if part.histogram is not None:
        value = part.histogram.quantile(share)
    return None if value is None else value / units.MS


def inner_parts(server: Server) -> dict[str, Part | None]:
    """What the server tells of a request's way, in its order."""
    return {"queue": server.queue, "batch wait": server.batch_wait, "compute": server.compute}


def parts_ms(window: Window, service_ns: float) -> dict[str, float]:
    """Mean ms of a request in each part of its way, and what they leave (`streams.rest`).

    Means, because they add up. Empty where the target does not tell. `service_ns`: the sum of all
    requests, from begun to done; the server's are of warm-up's last ones, too."""
    server = window.server
    if server is None or not window.done:
        return {}
    known = {
        name: part.mean_ns / units.MS * server.modelled
        for name, part in inner_parts(server).items()
        if part is not None and part.mean_ns is not None
    }
    if not known:
        return {}
    done = window.done + window.tail_done
    mean = (service_ns + window.tail_service_ns) / done / units.MS
    left = max(0.0, mean - sum(known.values()))
    return {**known, rest(known, window.stream is not None): left}


def computed(window: Window) -> dict[str, float]:
    """Mean ms of a request in what compute is made of; empty where the target does not tell."""
    server = window.server
    if server is None:
        return {}
    return {name: value * server.modelled for name, value in server.compute_parts_ms.items()}


def written_ms(window: Window) -> dict[str, float]:
    """The same of answers that come token by token, where the server tells nothing: mean ms from
    when it was due to its first token, and from there to its end."""
    stream, mean = window.stream, window.latency.mean
    first = stream.first.mean if stream else None
    if first is None or mean is None:
        return {}
    return {"first token": first / units.MS, "the others": max(0.0, mean - first) / units.MS}


def tokens(stream: Stream, scene: Scene) -> float:
    """Those that came in a window."""
    return stream.came(scene.view.totals.tokens, scene.view.totals.counted)


def error_share(window: Window) -> float | None:
    """Failed of all that ended or could not be sent."""
    failed = failures(window)
    total = window.done + failed
    return failed / total if total else None


def cards(scene: Scene, window: Window | None) -> tuple[Gpu, ...]:
    """The GPU that serves the model, or all that a target told of; none on a CPU."""
    start, machine = scene.view.start, window.machine if window else None
    return machine.on(start.device) if start and machine else ()


def own_number(scene: Scene) -> int | None:
    """Of the GPU that serves, as `Span` wants it: those that a target told of need none."""
    return next((card.index for card in cards(scene, scene.recent)), None)


def most(found: Sequence[Gpu], look: Callable[[Gpu], float | None]) -> Gpu | None:
    """The card of which this is the highest; the first if it is known of none."""
    return highest(found, look) or next(iter(found), None)


def latency(columns: Sequence[Column]) -> list[Point]:
    """p50 ⊂ p95 ⊂ p99 of each column."""
    return _latency(columns, SHARES)


def tail(columns: Sequence[Column]) -> list[Point]:
    return _latency(columns, (0.99,))


def _latency(columns: Sequence[Column], shares: Sequence[float]) -> list[Point]:
    beyond = [sum(bin.failures for bin in bins) + _overdue(bins) for bins in columns]
    found = Histogram.quantiles([[bin.latency for bin in bins] for bins in columns], shares, beyond)
    return [
        Point(tuple(None if value is None else value / units.MS for value in values))
        for values in found
    ]


def _overdue(bins: Column) -> int:
    """At the end of the column; a merged bin tells only the most there were at once."""
    return bins[-1].window.overdue if bins[-1].seconds == 1 else 0


@each
def throughput(bins: Column) -> Point:
    """Done per second, at its highest; the line is what was asked for."""
    done = max(bin.done / bin.seconds for bin in bins)
    return Point((done,), max(asked_rate(bin) for bin in bins))


def asked_rate(bin: Bin) -> float:
    """What the schedule says; in a closed loop what its users asked."""
    rate = bin.window.rate
    return bin.window.asked / bin.seconds if rate is None else rate


@each
def errors(bins: Column) -> Point:
    known = [bin.failures / total for bin in bins if (total := bin.done + bin.failures)]
    return Point((max(known, default=None),))


@each
def queue(bins: Column) -> Point:
    """Waiting in the server, at the deepest; for a server that does not tell, in flight."""
    known = [bin.deepest for bin in bins if bin.deepest is not None]
    return Point((float(max(known)) if known else None,))


@each
def in_flight(bins: Column) -> Point:
    return Point((float(max(bin.fullest for bin in bins)),))


@cache
def gpu_busy(*titles: str) -> Reader:
    """Of the busiest of these cards, in per cent."""

    @each
    def busy(bins: Column) -> Point:
        known = [
            gpu.utilization * 100
            for bin in bins
            if bin.window.machine
            for gpu in bin.window.machine.gpus
            if gpu.title in titles and gpu.utilization is not None
        ]
        return Point((max(known, default=None),))

    return busy


@each
def cpu_busy(bins: Column) -> Point:
    """In per cent of all cores."""
    machines = [bin.window.machine for bin in bins]
    known = [m.cpu * 100 for m in machines if m is not None and m.cpu is not None]
    return Point((max(known, default=None),))


@each
def inside(bins: Column) -> Point:
    """p95 of compute, of batch wait on top, of queue on top of both, in ms."""
    found = served(bins)
    if not found:
        return Point((None, None, None))
    parts = (
        merged_part([server.compute for server in found]),
        merged_part([server.batch_wait for server in found]),
        merged_part([server.queue for server in found]),
    )
    heights: list[float | None] = []
    total = 0.0
    for part in parts:
        value = part_ms(part, 0.95)
        total += value or 0.0
        heights.append(None if value is None else total)
    return Point(tuple(heights))


@each
def batches_per_second(bins: Column) -> Point:
    told = [(b.window.server.batches, b.seconds) for b in bins if b.window.server]
    known = [batches / seconds for batches, seconds in told if batches is not None]
    return Point((max(known, default=None),))


@each
def fill(bins: Column) -> Point:
    """Rows of the room there was, in per cent."""
    rows = room = 0.0
    for server in served(bins):
        rooms = server.ran_in
        rows += (server.mean_batch or 0.0) * sum(rooms.values())
        room += sum(limit * batches for limit, batches in rooms.items())
    return Point((100 * min(1.0, rows / room) if room else None,))


@each
def queue_wait(bins: Column) -> Point:
    return Point((part_ms(merged_part([server.queue for server in served(bins)]), 0.5),))


@each
def compute(bins: Column) -> Point:
    return Point((part_ms(merged_part([server.compute for server in served(bins)]), 0.5),))


@each
def instances_busy(bins: Column) -> Point:
    """How many were busy on average, at the highest."""
    known = [
        bin.window.server.busy_ns / (bin.seconds * units.SECOND)
        for bin in bins
        if bin.window.server and bin.window.server.busy_ns is not None
    ]
    return Point((max(known, default=None),))


def ms_text(value: float | None, limit_ns: int | None) -> str:
    """`46.2`, `> 100` for a percentile among the failed, `n/a`."""
    if value is not None and math.isinf(value):
        return f"> {units.ms(limit_ns)}" if limit_ns else "failed"
    return units.significant(value)


def number(value: float | None) -> str:
    """A count or a rate without a unit: 12, 1184, 34,043."""
    if value is None:
        return "n/a"
    if value >= 10_000 or isinstance(value, int):
        return units.count(round(value)) if value >= 10_000 else str(value)
    return units.significant(value)


def brief(value: float | None) -> str:
    """Times beside each other: three digits, below 1 no more than two decimals."""
    return f"{value:.2f}" if value is not None and 0 < value < 0.995 else units.significant(value)


def part_of(share: float | None) -> str:
    """A share of a whole with its sign: 46%, 4.1%, <1%."""
    if share is not None and 0 < share < 0.01:
        return "<1%"
    return f"{units.percent(share)}%" if share is not None else "n/a"
