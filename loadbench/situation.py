"""The figures of a stretch of a run as the verdicts in words need them: what was asked and done,
what the generator, the server and the machine were at, and how it was before.

All of it is read out of merged windows; what a target or a machine does not tell is None.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from loadbench import units
from loadbench.machine import Gpu, card_number
from loadbench.merge import merge
from loadbench.model import AlertChange, Mark, Rule, Server, Window
from loadbench.outages import Outages
from loadbench.quantities import QUANTITIES, SPAN_S, Span
from loadbench.standing import Standing, more

LOOK_S = 30  # so much of an episode is looked at, and so much before it
APART_S = 3  # a quantity is beyond its limit some seconds after the trouble began
_CHANGED_S = 15  # so long before one that a change of a setting can be behind it
BEFORE_S = _CHANGED_S + SPAN_S  # what is asked for of the seconds before those looked at
_WORSE = 1.3  # times what it was before a change: less of a rise is no work of the change
LESS = ("throughput", "gpu_utilization", "gpu_power")  # low where little is asked
PARTS = ("queue", "batch wait", "compute")


class Changed(NamedTuple):
    """A change by hand, and whether the episode had begun already."""

    mark: Mark
    during: bool


@dataclass(frozen=True, slots=True)
class Situation:
    """`now` are the seconds that are looked at, `before` the calm ones that came before, each
    merged; `quantity` is what the alert watches, `device` what serves (`cuda:0`, `cpu`), `ours`
    whether that is an engine which the run has started: its log is at hand; `changed` is the change
    by hand that can be behind it, `outages` when servers were away, by their names (`outages`),
    `sent` the names of the headers with a key that the target is sent."""

    now: Window
    seconds: int
    quantity: str = ""
    device: str = ""
    before: Window | None = None
    ours: bool = True
    changed: Changed | None = None
    outages: Mapping[str, Outages] = field(default_factory=dict)
    sent: tuple[str, ...] = ()

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
    def cards(self) -> tuple[Gpu, ...]:
        """The GPU that serves the model; all that a target told of, which may."""
        machine = self.now.machine
        return machine.serving(card_number(self.device)) if machine else ()

    @property
    def others(self) -> dict[int, int | None]:
        """Processes on the serving devices that are not ours, with their bytes where known."""
        found = dict(process for card in self.cards for process in card.processes)
        for ground in self.now.server.grounds if self.now.server else ():
            found |= {pid: None for pid in ground.others if pid not in found}
        return found

    @property
    def throttle(self) -> tuple[str, ...]:
        """Why the clocks of the serving devices are slowed down."""
        found = [reason for card in self.cards for reason in card.throttle]
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
        """Of an answered request, from the moment it was due; of warm-up's last ones too, for the
        server's parts are of these as well."""
        latency, done = self.now.latency, self.now.done + self.now.tail_done
        if not latency.count:
            return None
        return (latency.total + self.now.tail_latency_ns) / done / units.MS

    @property
    def parts_ms(self) -> dict[str, float]:
        """The mean request's time in the server's parts; those that it tells."""
        return parts_ms(self.now.server)

    @property
    def untold(self) -> bool:
        """Whether what these parts leave may have passed in the server all the same: it tells no
        queue, or answers piece by piece, of which it tells the making of none but the first."""
        return "queue" not in self.parts_ms or self.now.stream is not None

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
        end = max(since + 1, end - SPAN_S - rule.for_ns // units.SECOND)
        if change.worst is not None:  # that was the end of the span in which it was found
            end = min(end, max(since + LOOK_S, change.worst + 1 + (LOOK_S - SPAN_S) // 2))
    before = since - APART_S
    return Stretch(max(since, end - LOOK_S), end), Stretch(before - LOOK_S, before)


def ever(change: AlertChange) -> Stretch:
    """All of an episode, and the seconds before it in which the trouble may have begun."""
    since = change.second if change.since is None else change.since
    return Stretch(max(0, since - APART_S), change.second + 1)


def changed(
    change: AlertChange,
    rule: Rule,
    marks: Iterable[object],
    planned: float | None,
    seen: Callable[[Stretch], Sequence[Window]],
) -> Changed | None:
    """The last change by hand, shortly before the episode or before what is looked at of it, that
    can have made it as bad as it became. `planned` is the rate that was asked for before, `seen`
    tells the windows of a stretch.

    More load is felt at once, so that of an episode which goes on counts until its worst second.
    The engine's settings are what people turn to when something is wrong already: those that were
    changed in the very seconds that are looked at are no cause of them."""
    since = change.second if change.since is None else change.since
    worst = since if change.worst is None else change.worst
    looked_at, _ = stretches(change, rule)
    found, stood = None, Standing()
    for mark in marks:
        if not isinstance(mark, Mark) or mark.standing is None:
            continue
        before, stood, during = stood, mark.standing, mark.second >= since
        if mark.text.startswith("engine: "):  # of which a generator feels nothing
            fits, until = rule.quantity != "lateness", looked_at.begin
        else:  # less load explains only what is too low
            fits, until = rule.quantity in LESS or more(before, stood, mark.second, planned), worst
        begin = looked_at.begin if during else since
        near = begin - _CHANGED_S <= mark.second and (mark.second < until or not during)
        if fits and near and _worse(change, rule, seen(Stretch(mark.second - SPAN_S, mark.second))):
            found = Changed(mark, during)
    return found


def _worse(change: AlertChange, rule: Rule, before: Sequence[Window]) -> bool:
    """Whether it came clearly further than it was in these seconds; so where that is unknown."""
    span = Span(tuple(before), merge(before), None) if before else None
    value = QUANTITIES[rule.quantity].read(span) if span else None
    if not isinstance(value, float | int):
        return True
    if change.peak is None or math.isinf(value):
        return not math.isinf(value)
    return change.peak >= _WORSE * value if rule.above else _WORSE * change.peak <= value


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
