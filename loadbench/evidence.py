"""What the trust grade looks at, gathered from a run's windows: all at once, or one by one as they
come. Both give the same, so a run that goes on is judged as it will be in its summary.
"""

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from loadbench import units
from loadbench.histogram import EMPTY, Histogram
from loadbench.model import Ground, Start, Value, Window

LIMIT_NS = 100 * units.MS  # of latency, where the run has none
OWN_FAILURES = ("no_ports", "no_files")  # what this machine ran out of


class Evidence(Value, frozen=True):
    """A run's load and drain as far as they show how it was measured."""

    limit_ns: int = LIMIT_NS
    device: str = ""
    percentile: float = 0.99  # the highest that is checked
    seconds: int = 0  # of the load
    asked: int = 0
    sent: int = 0  # asked and sent within the load's seconds
    unsent: int = 0
    lost: int = 0
    held: int = 0
    missed: int = 0  # failed, unsent or lost
    own: dict[str, int] = {}  # failure → how often, of those that are this machine's
    connections: int = 0
    oldest_ns: int = 0
    lateness: Histogram = EMPTY
    stall_ns: int = 0  # the longest standstill
    stall_cause: str = ""
    stood: dict[str, int] = {}  # cause → ns, those that matter to the limit, one a second
    delayed_ns: int = 0  # of the time: what fell due then was late by more than what matters
    delayed_long_ns: int = 0  # the same by more than half of the limit
    cpu_ns: int | None = None  # of the load process within the load's seconds
    throttle: tuple[str, ...] = ()  # of the card that serves
    others: tuple[int, ...] = ()  # processes on it that are not ours
    cached: int = 0  # of what the server answered: from its response cache
    teller: str = ""  # who says so
    served: int = 0

    @property
    def cpu(self) -> float | None:
        """Cores that the load process used on average."""
        if self.cpu_ns is None or not self.seconds:
            return None
        return self.cpu_ns / (self.seconds * units.SECOND)

    @property
    def finest(self) -> float:
        """The percentile by which the generator's own delays are judged: P99 or a higher one that
        is checked."""
        return max(0.99, self.percentile)

    @property
    def stood_ns(self) -> int:
        return sum(self.stood.values())


def begin(start: Start) -> Evidence:
    """Before the first window."""
    percentiles = [quantile(check.name) for check in start.checks]
    return Evidence(
        limit_ns=start.limit_ns or LIMIT_NS,
        device=start.device,
        percentile=max((found for found in percentiles if found), default=0.99),
    )


def quantile(name: str) -> float | None:
    """The share of a percentile by its name: `p99_9` is 0.999; None for other names."""
    digits = name[1:].replace("_", "")
    return float(f"0.{digits}") if name[:1] == "p" and digits.isdigit() else None


def matters(limit_ns: int) -> int:
    """How late is too late for a latency limit: a tenth of it, and 5 ms at least; of a short limit
    a quarter."""
    return min(max(5 * units.MS, limit_ns // 10), limit_ns // 4)


def gather(before: Evidence, windows: Sequence[Window], seconds: int = 1) -> Evidence:
    """After further windows, of so many seconds each. Warm-up shows nothing."""
    recorded = [window for window in windows if window.stage != "warmup"]
    load = [window for window in recorded if window.stage == "load"]
    if not recorded:
        return before
    missed = sum(sum(window.failed.values()) + window.unsent + window.lost for window in recorded)
    stalled = _stalled(before, recorded)
    return replace(
        stalled,
        seconds=before.seconds + len(load) * seconds,
        asked=before.asked + sum(window.asked for window in recorded),
        sent=before.sent + sum(window.sent for window in load),
        unsent=before.unsent + sum(window.unsent for window in recorded),
        lost=before.lost + sum(window.lost for window in recorded),
        held=before.held + sum(window.held for window in recorded),
        missed=before.missed + missed,
        own=_own(before, recorded),
        connections=max(before.connections, *(window.connections for window in recorded)),
        oldest_ns=max(before.oldest_ns, *(window.oldest_ns for window in recorded)),
        lateness=Histogram.merged([before.lateness, *(window.lateness for window in recorded)]),
        cpu_ns=_cpu(before, load),
        throttle=(*dict.fromkeys((*before.throttle, *_throttled(before.device, recorded))),),
        others=(*dict.fromkeys((*before.others, *_others(before.device, recorded))),),
        cached=before.cached + sum(w.server.cached for w in recorded if w.server),
        served=before.served + sum(w.server.requests or 0 for w in recorded if w.server),
        teller=next((w.server.source for w in recorded if w.server), before.teller),
    )


def _stalled(before: Evidence, windows: Sequence[Window]) -> Evidence:
    longest = max(windows, key=lambda window: window.stall_ns)
    least, limit = matters(before.limit_ns), before.limit_ns
    stood = dict(before.stood)
    delayed, long = before.delayed_ns, before.delayed_long_ns
    for window in windows:
        if window.stall_ns > least:
            stood[window.stall_cause] = stood.get(window.stall_cause, 0) + window.stall_ns
        delayed += max(0, window.stall_ns - least)
        long += max(0, window.stall_ns - limit // 2)
    found = replace(before, stood=stood, delayed_ns=delayed, delayed_long_ns=long)
    if longest.stall_ns > before.stall_ns:
        return replace(found, stall_ns=longest.stall_ns, stall_cause=longest.stall_cause)
    return found


def _own(before: Evidence, windows: Sequence[Window]) -> dict[str, int]:
    found = dict(before.own)
    for window in windows:
        for failure, number in window.failed.items():
            if failure in OWN_FAILURES:
                found[failure] = found.get(failure, 0) + number
    return found


def _cpu(before: Evidence, load: Sequence[Window]) -> int | None:
    known = [found for window in load if (found := _cpu_of(window)) is not None]
    return (before.cpu_ns or 0) + sum(known) if known else before.cpu_ns


def _cpu_of(window: Window) -> int | None:
    """As the load process tells it; else as the machine was read."""
    if window.cpu_ns is not None or window.machine is None:
        return window.cpu_ns
    load = window.machine.processes.get("load")
    return None if load is None or load.cpu is None else round(load.cpu * units.SECOND)


def _throttled(device: str, windows: Sequence[Window]) -> list[str]:
    return [
        reason
        for window in windows
        for card in (window.machine.gpus if window.machine else ())
        if device == f"cuda:{card.index}"
        for reason in card.throttle
    ] + [reason for ground in _grounds(windows) for reason in ground.throttle]


def _others(device: str, windows: Sequence[Window]) -> list[int]:
    return [
        pid
        for window in windows
        for card in (window.machine.gpus if window.machine else ())
        if device == f"cuda:{card.index}"
        for pid, _ in card.processes
    ] + [pid for ground in _grounds(windows) for pid in ground.others]


def _grounds(windows: Sequence[Window]) -> Iterator[Ground]:
    """The devices as our engine saw them: all that it serves on, simulated ones too."""
    for window in windows:
        if window.server is not None:
            yield from window.server.grounds
