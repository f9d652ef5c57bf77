"""Alert rules: windows in, state changes out.

A rule watches one of the `quantities` over the last 10 s, merged. It goes ok → pending when the
quantity is beyond the limit, → firing when it has been so for the rule's time, and ends when it has
not been beyond it for the same time: within the limit, or without a value, which is then what it
ends as. What a machine does not have is `no data`: never 0, never firing.

A request that failed, or is unanswered and already older than the limit, counts as over it; so a
server that hangs raises the P99 alert. Under 100 requests the latency rules say `few data`.
"""

import difflib
import math
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from loadbench import units
from loadbench.errors import SpecError
from loadbench.merge import merge
from loadbench.model import AlertChange, AlertState, Check, Rule, Window
from loadbench.quantities import QUANTITIES as QUANTITIES
from loadbench.quantities import SPAN_S, Reading, Span

_RULE = re.compile(r"\s*([a-z0-9_]+)\s*([<>])=?\s*(.+)")


def parse_rule(text: str, for_ns: int) -> Rule:
    """`gpu_memory > 80 %` → Rule. Raises SpecError."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise SpecError(f"{text!r} is not an alert rule", 'write it like "p99 > 100 ms"')
    name, sign, limit = match.groups()
    if name not in QUANTITIES:
        near = difflib.get_close_matches(name, QUANTITIES, 1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise SpecError(f"{text!r}: unknown quantity", f"{guess}known: {', '.join(QUANTITIES)}")
    return Rule(name, name, sign == ">", _limit(limit, QUANTITIES[name].unit), for_ns)


def _limit(text: str, unit: str) -> float:
    if unit == "ms":
        return units.parse_duration(text) / units.MS
    if unit == "s":
        return units.parse_duration(text) / units.SECOND
    if unit == "%":
        return units.parse_share(text)
    return units.parse_rate(text.removesuffix(unit).strip() if unit != "/s" else text)


def built_in(gpu: bool | None, writes: bool = False) -> tuple[Rule, ...]:
    """The rules that are on in every run. Where there is no GPU the host's memory stands in; where
    a target may tell of one later (None) both are watched. Of a model that `writes` nobody expects
    whole answers in a tenth of a second, but first tokens."""
    s = units.SECOND
    memories = ["gpu_memory"] if gpu else ["memory"] if gpu is False else ["gpu_memory", "memory"]
    watched = [
        ("first_token_p99 > 1 s" if writes else "p99 > 100 ms", 5 * s),
        ("gpu_utilization < 30 %", 10 * s),
        *((f"{memory} > 80 %", 5 * s) for memory in memories),
        ("errors > 1 %", 5 * s),
        ("lateness > 5 ms", 5 * s),
        ("queue_growth > 20/s", 10 * s),
        ("silence > 3 s", 0),
    ]
    return tuple(parse_rule(text, for_ns) for text, for_ns in watched)


def changed(rules: Iterable[Rule], own: Iterable[tuple[Rule, bool]]) -> tuple[Rule, ...]:
    """The built-in rules with a scenario's (rule, off): same quantity and side replaces, or
    removes; others are added."""
    result = list(rules)
    for rule, off in own:
        at = [
            index
            for index, known in enumerate(result)
            if (known.quantity, known.above) == (rule.quantity, rule.above)
        ]
        if off:
            result = [known for index, known in enumerate(result) if index not in at]
        elif at:
            result[at[0]] = rule
        else:
            taken = any(known.name == rule.name for known in result)
            name = f"{rule.quantity} {'>' if rule.above else '<'}" if taken else rule.name
            result.append(Rule(name, rule.quantity, rule.above, rule.limit, rule.for_ns))
    return tuple(result)


def matching(rules: Iterable[Rule], wanted: Rule) -> Rule | None:
    """The one that watches the same quantity on the same side."""
    side = (wanted.quantity, wanted.above)
    return next((rule for rule in rules if (rule.quantity, rule.above) == side), None)


def latency_limit(rules: Iterable[Rule], checks: Iterable[Check]) -> int | None:
    """The latency limit of the run in ns: a p99 check's, else the p99 alert's."""
    for found in checks:
        if found.name == "p99" and not found.above:
            return round(found.limit)
    for rule in rules:
        if rule.quantity == "p99" and rule.above:
            return round(rule.limit * units.MS)
    return None


def show(rule: Rule, value: float | None) -> str:
    """A value of the rule's quantity with its unit; a percentile among the failed is `> limit`."""
    unit = QUANTITIES[rule.quantity].unit
    if value is None:
        return "n/a"
    if math.isinf(value):
        return f"> {limit_text(rule)}"
    return _with_unit(units.percent(value) if unit == "%" else units.significant(value), unit)


def limit_text(rule: Rule) -> str:
    """The limit as people write it: `100 ms`, `30 %`."""
    unit = QUANTITIES[rule.quantity].unit
    return _with_unit(f"{rule.limit * 100 if unit == '%' else rule.limit:.6g}", unit)


def _with_unit(text: str, unit: str) -> str:
    return f"{text}{unit}" if unit.startswith("/") else f"{text} {unit}".rstrip()


def announce(rule: Rule, change: AlertChange) -> str:
    """A change in words: `p99 latency > 100 ms for 5 s (184 ms)`, `p99 latency back under 100 ms`.

    A firing change without a value is one whose percentile falls among the failed.
    """
    if change.state == "firing":
        value = show(rule, math.inf if change.value is None else change.value)
        return f"{describe(rule)} ({value}; {change.context})"
    side = "under" if rule.above else "over"
    title = QUANTITIES[rule.quantity].title
    if change.state == "ok":
        return f"{title} back {side} {limit_text(rule)}"
    if change.state == "pending":
        return f"{title} beyond {limit_text(rule)} ({show(rule, change.value)})"
    return f"{title}: {change.state}"


def sign(change: AlertChange) -> str:
    """▲ what fires, ✓ what is over, ○ what nothing is known of any more."""
    return {"firing": "▲", "ok": "✓", "pending": "✓"}.get(change.state, "○")


def _finite(reading: Reading) -> float | None:
    """JSON has no infinity: a percentile among the failed is left without a number."""
    known = isinstance(reading, float | int) and math.isfinite(reading)
    return float(reading) if known else None  # type: ignore[arg-type]


def describe(rule: Rule) -> str:
    """`p99 latency > 100 ms for 5 s`."""
    return f"{QUANTITIES[rule.quantity].title} {condition(rule)}"


def condition(rule: Rule) -> str:
    """`> 100 ms for 5 s`."""
    text = f"{'>' if rule.above else '<'} {limit_text(rule)}"
    return f"{text} for {units.duration(rule.for_ns)}" if rule.for_ns else text


def written(rule: Rule) -> str:
    """As a scenario has it in `when`: `p99 > 100 ms`."""
    return f"{rule.quantity} {'>' if rule.above else '<'} {limit_text(rule)}"


def further(rule: Rule, one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether a (value, share beyond the limit) is worse than another: the shares count where both
    values are infinite."""
    if math.isinf(one[0]) and math.isinf(other[0]):
        return one[1] > other[1]
    return one[0] > other[0] if rule.above else one[0] < other[0]


@dataclass(slots=True)
class _Episode:
    """Where one rule stands."""

    rule: Rule
    state: AlertState = "ok"
    begun: int | None = None  # second in which the quantity went beyond
    clean: int | None = None  # second since which a firing rule has not been beyond
    peak: float | None = None
    worst: int | None = None  # second of that peak; among the failed, where most of them were
    _share: float = 0.0  # at that second

    def see(self, second: int, reading: Reading, beyond: float = 0.0) -> AlertState:
        """The state after this second; `beyond` is the span's."""
        if not isinstance(reading, float | int):
            return self._within(second, "no data" if reading is None else "few data")
        over = reading > self.rule.limit if self.rule.above else reading < self.rule.limit
        return self._over(second, reading, beyond) if over else self._within(second, "ok")

    def _over(self, second: int, value: float, beyond: float) -> AlertState:
        if self.begun is None:
            self.begun, self.peak = second, None
        if self.peak is None or further(self.rule, (value, beyond), (self.peak, self._share)):
            self.peak, self._share, self.worst = value, beyond, second
        self.clean = None
        if self.state == "firing" or (second - self.begun + 1) * units.SECOND >= self.rule.for_ns:
            return "firing"
        return "pending"

    def _within(self, second: int, state: AlertState) -> AlertState:
        """Not beyond the limit: `state`, unless it fires and that is not long ago."""
        if self.state == "firing":
            self.clean = second if self.clean is None else self.clean
            if (second - self.clean + 1) * units.SECOND < self.rule.for_ns:
                return "firing"
        self.begun = self.clean = None
        return state


class Watch:
    """All rules of a run over its windows. `gpu` is the card that serves the model."""

    def __init__(self, rules: Iterable[Rule], gpu: int | None) -> None:
        self._episodes = [_Episode(rule) for rule in rules]
        self._windows: deque[Window] = deque(maxlen=SPAN_S)
        self._gpu = gpu

    def see(self, window: Window) -> list[AlertChange]:
        """Takes one window of the stage `load`; the changes of state it brought."""
        self._windows.append(window)
        windows = tuple(self._windows)
        span = Span(windows, merge(windows), self._gpu)
        found = []
        for episode in self._episodes:
            reading = QUANTITIES[episode.rule.quantity].read(span)
            found.append(self._change(episode, window.second, reading, span))
        return [change for change in found if change]

    def silent(self, second: int, silence_s: float) -> list[AlertChange]:
        """No window has come for so long, by the runner's clock."""
        found = [
            self._change(episode, second, silence_s)
            for episode in self._episodes
            if episode.rule.quantity == "silence"
        ]
        return [change for change in found if change]

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(episode.rule for episode in self._episodes)

    def change(self, rules: Iterable[Rule], second: int) -> list[AlertChange]:
        """Other rules from now on. What is known of a rule of the same name and quantity stays;
        of one that goes while it fires, the end."""
        before = {(found.rule.name, found.rule.quantity): found for found in self._episodes}
        episodes = []
        for rule in rules:
            found = before.pop((rule.name, rule.quantity), None) or _Episode(rule)
            found.rule = rule
            episodes.append(found)
        self._episodes = episodes
        return [
            AlertChange(
                second,
                gone.rule.name,
                "ok",
                None,
                gone.begun,
                _finite(gone.peak),
                limit=gone.rule.limit,
                worst=gone.worst,
            )
            for gone in before.values()
            if gone.state == "firing"
        ]

    def acknowledge(self, name: str, second: int) -> AlertChange:
        """Somebody has seen that a rule fires. ValueError if it does not."""
        for found in self._episodes:
            if found.rule.name == name and found.state == "firing":
                return replace(self._told(found, second), acknowledged=True)
        raise ValueError(f"no alert {name!r} fires now")

    def standing(self, second: int) -> list[AlertChange]:
        """What still fires when the run ends, said once more with the peak it came to."""
        return [self._told(found, second) for found in self._episodes if found.state == "firing"]

    def _told(self, found: _Episode, second: int) -> AlertChange:
        """What fires, as far as it has come."""
        return AlertChange(
            second,
            found.rule.name,
            "firing",
            None,
            found.begun,
            _finite(found.peak),
            limit=found.rule.limit,
            worst=found.worst,
        )

    def _change(
        self, episode: _Episode, second: int, reading: Reading, span: Span | None = None
    ) -> AlertChange | None:
        before, since, peak, worst = episode.state, episode.begun, episode.peak, episode.worst
        state = episode.see(second, reading, span.beyond if span else 0.0)
        if state == before:
            return None
        episode.state = state
        ended = before == "firing"
        return AlertChange(
            second=second,
            rule=episode.rule.name,
            state=state,
            value=_finite(reading),
            since=since if ended else episode.begun,
            peak=_finite(peak if ended else episode.peak),
            context=self._context(episode.rule, span) if state == "firing" else "",
            limit=episode.rule.limit if "firing" in (state, before) else None,
            worst=worst if ended else episode.worst,
        )

    def _context(self, rule: Rule, span: Span | None) -> str:
        """What was going on: which of several cards it is, asked against done, what failed."""
        merged = merge(tuple(self._windows)) if self._windows else None
        if merged is None:
            return ""
        seconds = len(self._windows)
        asked = units.significant(merged.asked / seconds)
        text = f"{asked}/s asked, {units.significant(merged.done / seconds)}/s done"
        failed = sum(merged.failed.values())
        if failed:
            text += f", {units.percent(failed / max(1, failed + merged.done))} % failed"
        card = span.card(rule.quantity) if span else None
        several = span is not None and len(span.cards(rule.quantity)) > 1
        return f"GPU {card.title}, {text}" if card and several else text
