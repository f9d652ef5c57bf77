"""What a screen needs to know about a run: records in, a new View out.

`fold` takes one record of the log at a time and is pure, so live, attached, replayed and tested
runs are the same thing. Windows are kept in four rings: 1 s for 15 minutes, 10 s for 3 hours, 60 s
for 2 days and hours for two weeks, the coarser ones made of the finer by merging their histograms:
the p99 of a minute is that minute's own. Warm-up is told as a state and is in no ring and no total.

Left to others: clocks (how old the newest record is), colours, what is visible.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from msgspec.structs import replace

from loadbench import evidence, units
from loadbench.alerts import announce
from loadbench.bin import Bin as Bin
from loadbench.bin import bin_of, joined
from loadbench.episodes import Spell, following, likely
from loadbench.evidence import Evidence
from loadbench.histogram import Histogram
from loadbench.merge import merge
from loadbench.model import (
    AlertChange,
    End,
    Example,
    Mark,
    Minute,
    Note,
    Record,
    Remark,
    Rule,
    Start,
    Trust,
    Value,
    Window,
)
from loadbench.standing import Standing
from loadbench.streams import Stream
from loadbench.trust import ASIDES, NOTED, grade

HOUR = 3600
WIDTHS = (1, 10, 60, HOUR)  # seconds of a bin in each ring
LENGTHS = (900, 1080, 2880, 336)  # bins
_MOST_EVENTS = 500
_MOST_CHANGES = 1000
_RECENT_S = 10

Kind = Literal[
    "alert",
    "ended",
    "unknown",
    "mark",
    "note",
    "stage",
    "load",
    "hour",
    "failure",
    "done",
    "failed",
]


class Event(NamedTuple):
    """Something worth a line: what kind, when, and the words."""

    second: int
    kind: Kind
    text: str


class Totals(Value, frozen=True):
    """The run so far, without warm-up."""

    asked: int = 0
    unsent: int = 0
    sent: int = 0
    done: int = 0
    failed: int = 0
    lost: int = 0
    tokens: int = 0  # as servers counted them
    counted: int = 0  # pieces of the answers with those tokens


class View(Value, frozen=True):
    """A run as far as it has been read."""

    start: Start | None = None
    latest: Window | None = None  # of any stage
    end: End | None = None
    first: int | None = None  # the first recorded second
    rings: tuple[tuple[Bin, ...], ...] = ((), (), (), ())
    pending: tuple[tuple[Bin, ...], ...] = ((), (), ())  # of the next bin of the coarser rings
    totals: Totals = Totals()
    warmed: int = 0  # requests done in warm-up
    standing: Standing = Standing()  # how the run is driven by hand
    reached: float | None = None  # the rate last announced as reached
    alerts: dict[str, AlertChange] = {}
    changes: tuple[AlertChange | Mark, ...] = ()  # of rules, alerts and how it is driven
    events: tuple[Event, ...] = ()
    spells: tuple[Spell, ...] = ()  # what alerts did, in the order in which they began
    changed: tuple[Rule, ...] | None = None  # the rules, once they were changed meanwhile
    notes: tuple[Note, ...] = ()
    examples: dict[str, Example] = {}  # the first of each kind of failure
    evidence: Evidence = Evidence()  # of how well it is measured

    @property
    def newest(self) -> int | None:
        """The second after the last recorded one."""
        ends = [ring[-1].until for ring in self.rings if ring]
        return max(ends, default=None)

    @property
    def trust(self) -> tuple[Trust, list[Note]]:
        """How far the figures until now can be trusted, and why not further."""
        found, told = grade(self.evidence, self.notes, running=self.end is None)
        noted = [note for note in self.notes if note.code in NOTED]
        return found, sorted([*told, *noted], key=lambda note: note.code in ASIDES)

    @property
    def rules(self) -> tuple[Rule, ...]:
        if self.changed is not None:
            return self.changed
        return self.start.rules if self.start else ()

    @property
    def firing(self) -> tuple[Rule, ...]:
        return tuple(
            rule
            for rule in self.rules
            if rule.name in self.alerts and self.alerts[rule.name].state == "firing"
        )

    @property
    def unheard(self) -> int:
        """How many alerts fire that nobody has acknowledged."""
        return sum(not self.alerts[rule.name].acknowledged for rule in self.firing)


def fold(view: View, record: Record) -> View:
    """The view after one more record."""
    if isinstance(record, Window):
        return _window(view, record)
    if isinstance(record, Minute):
        return _minute(view, record)
    if isinstance(record, AlertChange):
        return _alert(view, record)
    if isinstance(record, Mark):
        if record.rules is not None or record.standing is not None:
            view = _kept(view, record)
        view = _ruled(view, record.rules) if record.rules is not None else view
        view = view if record.standing is None else replace(view, standing=record.standing)
        return _event(view, record.second, "mark", record.text)
    if isinstance(record, Remark):
        noted = replace(view, notes=(*view.notes, record.note))
        return _event(noted, record.second, "note", record.note.text)
    if isinstance(record, Start):
        notes = (*view.notes, *record.notes)
        return replace(view, start=record, notes=notes, evidence=evidence.begin(record))
    failed = record.reason == "failed"
    text = record.text or {"done": "run done", "stopped": "stopped early"}.get(record.reason, "")
    second = max(record.second, view.newest or 0)  # it is over when its last second is
    if failed and (cut := _cut(view)):
        second, view = cut.second, replace(view, events=tuple(e for e in view.events if e != cut))
    ended = replace(view, end=record)
    return _event(ended, second, "failed" if failed else "done", text or "run failed")


def _cut(view: View) -> Event | None:
    """The end of the load that was none: who makes it was killed before its time, and after that
    only the server told of one second more."""
    stages = (event for event in reversed(view.events) if event.kind == "stage")
    last, planned = next(stages, None), view.start.planned_ns if view.start else 0
    if last is None or view.latest is None or view.latest.stage != "drain":
        return None
    early = not planned or last.second * units.SECOND < planned
    return last if early and last.second + 1 == view.newest else None


def over_at(view: View) -> int:
    """The second at which it was over, as its last event says; until then the newest."""
    ends = (event.second for event in reversed(view.events) if event.kind in ("done", "failed"))
    return next(ends, view.newest or 0)


def as_of(view: View, second: int) -> View:
    """The rules, the alerts, the totals and what is to be said of how it is measured, as they stood
    at the beginning of a second, and no end yet."""
    then = View(start=view.start)
    for change in view.changes:
        then = fold(then, change) if change.second < second else then
    past = pieces(view, view.first or 0, second)
    return replace(
        view,
        totals=_totals([bin.window for bin in past]),
        alerts=then.alerts,
        spells=then.spells,
        changed=then.changed,
        standing=then.standing,
        end=None,
        notes=_notes_until(view, second),
        evidence=_evidence_of(view, past),
    )


def _notes_until(view: View, second: int) -> tuple[Note, ...]:
    """Notes have no time of their own: those are left out that are told of later."""
    later = {event.text for event in view.events if event.kind == "note" and event.second >= second}
    begun = view.start.notes if view.start else ()
    return tuple(note for note in view.notes if note in begun or note.text not in later)


def _evidence_of(view: View, past: Sequence[Bin]) -> Evidence:
    """What these bins show of how the run is measured."""
    found = evidence.begin(view.start) if view.start else Evidence()
    for width in dict.fromkeys(bin.seconds for bin in past):
        group = [bin.window for bin in past if bin.seconds == width]
        found = evidence.gather(found, group, width)
    return found


def bins(view: View, begin: float, end: float) -> tuple[Bin, ...]:
    """The finest bins that reach back to `begin`, those that overlap [begin, end).

    What a coarser ring has not closed yet is filled with the finer bins it will be made of."""
    level = next((at for at in range(len(WIDTHS)) if _covers(view, at, begin)), len(WIDTHS) - 1)
    found = view.rings[level]
    for finer in range(level - 1, -1, -1):
        found = (*found, *view.pending[finer])
    low = bisect_left(found, begin, key=lambda bin: bin.until - 0.5)
    high = bisect_left(found, end, key=lambda bin: bin.second)
    return found[low:high]


def pieces(view: View, begin: int, end: int, fine: bool = False) -> list[Bin]:
    """[begin, end) out of as few bins as there are: minutes within, finer ones at the edges. With
    `fine` out of as many, for who looks at single seconds."""
    found, at = [], begin
    levels = range(len(WIDTHS)) if fine else range(len(WIDTHS) - 1, -1, -1)
    while at < end:
        piece = next((bin for level in levels if (bin := _at(view, level, at, end))), None)
        if piece is None:
            at += 1
            continue
        found.append(piece)
        at = piece.until
    return found


def merged(parts: Iterable[Bin]) -> Window | None:
    """One window for all bins, to be looked at now; None when there are none."""
    windows = [bin.window for bin in parts]
    return merge(windows, Histogram.later) if windows else None


def recent(view: View, end: int) -> Window | None:
    """The last 10 s before `end`, merged."""
    return merged(pieces(view, end - _RECENT_S, end))


def seconds(parts: Iterable[Bin]) -> int:
    """How many seconds the bins cover, gaps left out."""
    return sum(bin.seconds for bin in parts)


def _covers(view: View, level: int, begin: float) -> bool:
    ring = view.rings[level]
    return bool(ring) and (ring[0].second <= begin or ring[0].second == view.first)


def _at(view: View, level: int, second: int, end: int) -> Bin | None:
    ring = view.rings[level]
    at = (second - ring[0].second) // WIDTHS[level] if ring else -1  # where none is missing
    if at < 0:
        return None
    if at >= len(ring) or ring[at].second != second:
        at = bisect_left(ring, second, key=lambda bin: bin.second)
    if at < len(ring) and ring[at].second == second and ring[at].until <= end:
        return ring[at]
    return None


def _event(view: View, second: int, kind: Kind, text: str) -> View:
    return replace(view, events=(*view.events[-_MOST_EVENTS:], Event(second, kind, text)))


def _kept(view: View, change: AlertChange | Mark) -> View:
    return replace(view, changes=(*view.changes[-_MOST_CHANGES:], change))


def _ruled(view: View, rules: tuple[Rule, ...]) -> View:
    """Other rules from here on: what is known of those that went is history."""
    names = {rule.name for rule in rules}
    alerts = {name: change for name, change in view.alerts.items() if name in names}
    spells = tuple(
        spell for spell in view.spells if spell.fired is not None or spell.rule.name in names
    )
    return replace(view, changed=rules, alerts=alerts, spells=spells)


def _alert(view: View, change: AlertChange) -> View:
    view = _kept(view, change)
    before = view.alerts.get(change.rule)
    if before is not None and before.state == change.state == "firing":
        seen = before.acknowledged or change.acknowledged
        change = replace(change, value=before.value, context=before.context, acknowledged=seen)
    after = replace(view, alerts={**view.alerts, change.rule: change})
    rule = next((rule for rule in view.rules if rule.name == change.rule), None)
    if rule is None:
        return after
    after = replace(after, spells=following(view.spells, rule, change))
    if before is not None and before.state == change.state == "firing":
        return after  # only its peak is new, or that somebody has seen it
    if change.state == "firing":
        text = " ".join(filter(None, [announce(rule, change), likely(change.words)]))
        return _event(after, change.second, "alert", text)
    if before is not None and before.state == "firing":
        kind: Kind = "ended" if change.state == "ok" else "unknown"  # without a value any more
        return _event(after, change.second, kind, announce(rule, change))
    return after


def _window(view: View, window: Window) -> View:
    if window.stage == "warmup":
        return replace(view, latest=window, warmed=view.warmed + window.done)
    newest = view.newest
    if newest is not None and window.second < newest:
        return view  # a second told twice, as when the minute it is part of was read before
    after = _failures(_reached(_stage(view, window), window), window)
    after = _add(after, 0, bin_of(window))
    first = window.second if view.first is None else view.first
    totals = _total(view.totals, window)
    seen = evidence.gather(view.evidence, (window,))
    after = replace(after, latest=window, first=first, totals=totals, evidence=seen)
    begun = window.second + 1 - first
    return _hour(after, begun // HOUR) if begun and begun % HOUR == 0 else after


def _totals(windows: Sequence[Window]) -> Totals:
    streams = [window.stream for window in windows if window.stream]
    return Totals(
        asked=sum(window.asked for window in windows),
        unsent=sum(window.unsent for window in windows),
        sent=sum(window.sent for window in windows),
        done=sum(window.done for window in windows),
        failed=sum(sum(window.failed.values()) for window in windows),
        lost=sum(window.lost for window in windows),
        tokens=sum(stream.tokens for stream in streams),
        counted=sum(stream.counted for stream in streams),
    )


def _total(totals: Totals, window: Window) -> Totals:
    stream = window.stream or Stream()
    return Totals(
        asked=totals.asked + window.asked,
        unsent=totals.unsent + window.unsent,
        sent=totals.sent + window.sent,
        done=totals.done + window.done,
        failed=totals.failed + sum(window.failed.values()),
        lost=totals.lost + window.lost,
        tokens=totals.tokens + stream.tokens,
        counted=totals.counted + stream.counted,
    )


def _stage(view: View, window: Window) -> View:
    before = view.latest.stage if view.latest else "warmup"
    if window.stage == before:
        return view
    if window.stage == "load":
        count = units.count(view.warmed)
        text = f"warm-up done ({count} requests)" if view.warmed else "load begins"
        return _event(view, window.second, "stage", text)
    left = window.in_flight + window.waiting  # waited for; or lost, where the generator was killed
    text = f"the load is over, with {units.count(left)} requests open" if left else ""
    return _event(view, window.second, "stage", text or "the load is over")


def _reached(view: View, window: Window) -> View:
    """Two seconds at the same rate: the load holds; a ramp is told when it ends."""
    before = view.latest
    held = before is not None and before.stage == window.stage and before.rate == window.rate
    if before is None or not held or not window.rate or window.rate == view.reached:
        return view
    text = f"load reached {units.significant(window.rate)}/s"
    return _event(replace(view, reached=window.rate), before.second, "load", text)


def _failures(view: View, window: Window) -> View:
    """A kind of failure is told when it is the first of its kind."""
    for name, example in window.examples.items():
        if name not in view.examples:
            view = _event(view, example.second, "failure", f"first {name}: {example.text}")
            view = replace(view, examples={**view.examples, name: example})
    return view


def _minute(view: View, minute: Minute) -> View:
    """Only of use where its seconds were not read: an hour-long log opens from its minutes."""
    window = minute.window
    begin, until = window.second, window.second + minute.seconds
    if view.latest is not None and view.latest.second >= begin:
        return view
    last = replace(window, second=until - 1)
    if window.stage == "warmup":
        return replace(view, latest=last, warmed=view.warmed + window.done)
    after = _failures(_reached(_stage(view, window), window), window)
    first = begin if view.first is None else view.first
    seen = evidence.gather(view.evidence, (window,), minute.seconds)
    totals = _total(view.totals, window)
    after = _add(after, 2, bin_of(window, minute.seconds))
    after = replace(after, totals=totals, first=first, latest=last, evidence=seen)
    hours = (until - first) // HOUR
    return _hour(after, hours) if hours > (begin - first) // HOUR else after


def _add(view: View, level: int, bin: Bin) -> View:
    """The bin at the end of a ring; a full 10 s or minute goes on to the next."""
    rings = list(view.rings)
    rings[level] = (*rings[level][1 - LENGTHS[level] :], bin)
    view = replace(view, rings=tuple(rings))
    if level == len(WIDTHS) - 1:
        return view
    pending, width = view.pending[level], WIDTHS[level + 1]
    if pending and pending[0].second // width != bin.second // width:
        view = _add(view, level + 1, joined(pending))
        pending = ()
    pending_now = list(view.pending)
    pending_now[level] = (*pending, bin)
    return replace(view, pending=tuple(pending_now))


def _hour(view: View, number: int) -> View:
    """One line an hour: drift is what long runs are for."""
    end = view.newest or 0
    parts = pieces(view, end - HOUR, end)
    window = merged(parts)
    if window is None:
        return view
    rate = units.significant(window.done / max(1, seconds(parts)))
    p99 = window.latency.quantile(0.99)
    text = f"h{number}: {rate}/s, p99 {units.ms(p99)} ms"
    earlier = merged(pieces(view, end - 2 * HOUR, end - HOUR))
    before = earlier.latency.quantile(0.99) if earlier else None
    if p99 is not None and before is not None:
        change = (p99 - before) / units.MS
        text += f", {'+' if change >= 0 else '−'}{units.significant(abs(change))} ms in an hour"
    return _event(view, end, "hour", text)
