"""The figures of a stretch of a run as the verdicts in words need them: what was asked and done,
what the generator, the server and the machine were at, and how it was before.

All of it is read out of merged windows; what a target or a machine does not tell is None.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from loadbench import units
from loadbench.model import AlertChange, Gpu, Mark, Rule, Server, Window

LOOK_S = 30  # so much of an episode is looked at, and so much before it
_APART_S = 3  # a quantity is beyond its limit some seconds after the trouble began
_CHANGED_S = 15  # so long before one that a change of a setting can be behind it
_SPAN_S = 10  # and so long after it is over
PARTS = ("queue", "batch wait", "compute")


@dataclass(frozen=True, slots=True)
class Situation:
    """`now` are the seconds that are looked at, `before` the calm ones that came before, each
    merged; `quantity` is what the alert watches, `device` what serves (`cuda:0`, `cpu`), `ours`
    whether that is an engine which the run has started: its log is at hand; `changed` is what was
    changed shortly before (`changes`)."""

    now: Window
    seconds: int
    quantity: str = ""
    device: str = ""
    before: Window | None = None
    ours: bool = True
    changed: tuple[Mark, ...] = ()

    @property
    def settings(self) -> bool:
        """Whether what serves has the settings `engine.…`."""
        return self.ours or (self.now.server is not None and self.now.server.source == "loadbench")

    @property
    def asked(self) -> float:
        """Requests a second, as the next."""
        return self.now.asked / self.seconds

    @property
    def done(self) -> float:
        return self.now.done / self.seconds

    @property
    def closed(self) -> bool:
        """Whether the next request waits for an answer: nothing can pile up then."""
        return self.now.rate is None

    @property
    def growth(self) -> float:
        """By how many the open requests grow in a second."""
        ended = self.now.done + sum(self.now.failed.values()) + self.now.unsent + self.now.lost
        return (self.now.asked - ended) / self.seconds

    @property
    def open(self) -> int:
        return self.now.in_flight + self.now.waiting

    @property
    def late_ns(self) -> int | None:
        """How late the generator sent: its P99."""
        return self.now.lateness.quantile(0.99)

    @property
    def load_cpu(self) -> float | None:
        """Cores that the load process used; of several, the fullest."""
        if self.now.cpu_ns is not None:
            return self.now.cpu_ns / (self.seconds * units.SECOND)
        machine = self.now.machine
        found = machine.processes.get("load") if machine else None
        return found.cpu if found else None

    @property
    def card(self) -> Gpu | None:
        """The GPU that serves the model."""
        match = re.fullmatch(r"(?:cuda|gpu):?(\d*).*", self.device)
        machine = self.now.machine
        if match is None or machine is None:
            return None
        return next((gpu for gpu in machine.gpus if gpu.index == int(match[1] or 0)), None)

    @property
    def others(self) -> dict[int, int | None]:
        """Processes on the serving devices that are not ours, with their bytes where known."""
        found = dict(self.card.processes) if self.card else {}
        for ground in self.now.server.grounds if self.now.server else ():
            found |= {pid: None for pid in ground.others if pid not in found}
        return found

    @property
    def throttle(self) -> tuple[str, ...]:
        """Why the clocks of the serving devices are slowed down."""
        found = list(self.card.throttle) if self.card else []
        for ground in self.now.server.grounds if self.now.server else ():
            found += ground.throttle
        return tuple(dict.fromkeys(found))

    @property
    def busy(self) -> float | None:
        """Share of the time in which the server's instances were at it."""
        server = self.now.server
        if server is None or server.busy_ns is None or not server.instances:
            return None
        return min(1.0, server.busy_ns / (self.seconds * units.SECOND * server.instances))

    @property
    def mean_ms(self) -> float | None:
        """Of an answered request, from the moment it was due."""
        mean = self.now.latency.mean
        return None if mean is None else mean / units.MS

    @property
    def parts_ms(self) -> dict[str, float]:
        """The mean request's time in the server's parts; those that it tells."""
        return parts_ms(self.now.server)

    @property
    def prepared(self) -> float | None:
        """Share of a batch's time that goes into preprocessing; None if it has none."""
        parts = self.now.server.parts_ms if self.now.server else {}
        before = [time for name, time in parts.items() if name.startswith("preprocess")]
        return sum(before) / sum(parts.values()) if before else None

    @property
    def inferred(self) -> float | None:
        """Share of a batch's time in which the model itself ran."""
        sizes = self.now.server.sizes.values() if self.now.server else ()
        known = [(size.infer_ns, size.compute_ns) for size in sizes if size.infer_ns is not None]
        whole = sum(compute for _, compute in known)
        return sum(infer for infer, _ in known) / whole if whole else None


class Stretch(NamedTuple):
    """Seconds [begin, end) of a run."""

    begin: int
    end: int


def stretches(change: AlertChange, rule: Rule) -> tuple[Stretch, Stretch]:
    """What to look at to tell of an episode, and calm seconds before it: while it goes on its
    newest seconds, afterwards those around its worst, else the last in trouble."""
    since = change.second if change.since is None else change.since
    end = change.second + 1
    if change.state != "firing":
        end = max(since + 1, end - _SPAN_S - rule.for_ns // units.SECOND)
        if change.worst is not None:  # that was the end of the span in which it was found
            end = min(end, max(since + LOOK_S, change.worst + 1 + (LOOK_S - _SPAN_S) // 2))
    before = since - _APART_S
    return Stretch(max(since, end - LOOK_S), end), Stretch(before - LOOK_S, before)


def changes(change: AlertChange, marks: Iterable[object]) -> tuple[Mark, ...]:
    """What of it are settings of the load or the engine that were changed shortly before the
    episode began."""
    since = change.second if change.since is None else change.since
    return tuple(
        mark
        for mark in marks
        if isinstance(mark, Mark)
        and mark.standing is not None
        and since - _CHANGED_S <= mark.second <= since
    )


def parts_ms(server: Server | None) -> dict[str, float]:
    """Mean ms of a request in queue, batch wait and compute, as far as the server tells."""
    if server is None:
        return {}
    parts = zip(PARTS, (server.queue, server.batch_wait, server.compute), strict=True)
    return {
        name: part.mean_ns / units.MS
        for name, part in parts
        if part is not None and part.mean_ns is not None
    }
