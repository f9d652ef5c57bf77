"""Two moments of a run beside each other: what changed, in a table and in sentences.

A moment is the ten seconds that lead to it, merged. The sentences name what users felt first, then
where the time went, then what the server and its machine did; what changed by less than a tenth is
said to be the same. All pure; what could not be read (yet) is None.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dashboard.measures import brief, error_share, ms_text, number, parts_ms, quantile_ms
from loadbench import units
from loadbench.episodes import LIKELY
from loadbench.machine import Gpu, highest
from loadbench.model import Server, Window
from loadbench.ride import WHY_CLOSED
from loadbench.streams import NETWORK, STREAMED
from loadbench.view import Event, View, merged, pieces
from loadbench.view import seconds as covered

SPAN_S = 10
_SAME = 0.1  # relative change below which two figures are told as one
_LEAST_MS = 0.05  # by which a part is larger than the whole


@dataclass(frozen=True, slots=True)
class Moment:
    """`second` is what it is called by; `window` the seconds before `until`, None until read."""

    second: int
    until: int
    window: Window | None = None
    seconds: int = 0
    service_ns: float = 0.0
    cards: tuple[Gpu, ...] = ()  # that served


def read(moment: Moment, view: View) -> Moment:
    """The moment with its figures, if the view has its seconds."""
    found = pieces(view, moment.until - SPAN_S, moment.until)
    if moment.window is not None or not found or found[-1].until != moment.until:
        return moment
    service = sum(bin.service_ns for bin in found)
    window = merged(found)
    machine = window.machine if window else None
    cards = machine.on(view.start.device) if view.start and machine else ()
    return Moment(moment.second, moment.until, window, covered(found), service, cards)


class Figure(NamedTuple):
    """A quantity of a moment: its name, unit, how it is read and written, and what is too small a
    change to be one."""

    name: str
    unit: str
    read: Callable[[Moment, Window], float | None]
    write: Callable[[float | None], str] = units.significant
    least: float = 0.0


class Row(NamedTuple):
    """A figure at both moments, and how it changed in words."""

    name: str
    before: str
    after: str
    change: str


def _server(read: Callable[[Server], float | None]) -> Callable[[Moment, Window], float | None]:
    return lambda moment, window: read(window.server) if window.server else None


def _card(read: Callable[[Gpu], float | None]) -> Callable[[Moment, Window], float | None]:
    """Of several the highest."""

    def value(moment: Moment, window: Window) -> float | None:
        card = highest(moment.cards, read)
        return read(card) if card else None

    return value


def _latency(share: float) -> Callable[[Moment, Window], float | None]:
    return lambda moment, window: quantile_ms(window, share)


def _part(name: str) -> Callable[[Moment, Window], float | None]:
    return lambda moment, window: parts(moment).get(name)


def _rest(moment: Moment, window: Window) -> float | None:
    found = parts(moment)
    return found.get(NETWORK, found.get(STREAMED))


def parts(moment: Moment) -> dict[str, float]:
    """Mean ms of a request in each part of its way, as far as the target tells."""
    return parts_ms(moment.window, moment.service_ns) if moment.window else {}


def _late(moment: Moment, window: Window) -> float | None:
    found = window.lateness.quantile(0.99)
    return None if found is None else found / units.MS


def _rate(counted: Callable[[Window], int]) -> Callable[[Moment, Window], float | None]:
    return lambda moment, window: counted(window) / max(1, moment.seconds)


def _percent(value: float | None) -> str:
    return units.percent(value)


def _gigabytes(value: float | None) -> str:
    return units.gigabytes(None if value is None else int(value))


FIGURES = (
    Figure("asked", "/s", _rate(lambda window: window.asked), number),
    Figure("done", "/s", _rate(lambda window: window.done), number),
    Figure("failed", "%", lambda moment, window: error_share(window), _percent, 0.001),
    Figure("p50", "ms", _latency(0.5), least=0.1),
    Figure("p95", "ms", _latency(0.95), least=0.1),
    Figure("p99", "ms", _latency(0.99), least=0.1),
    Figure("queue", "ms", _part("queue"), brief, 0.1),
    Figure("batch wait", "ms", _part("batch wait"), brief, 0.1),
    Figure("compute", "ms", _part("compute"), brief, 0.1),
    Figure("network", "ms", _rest, brief, 0.2),
    Figure("waiting", "", _server(lambda server: server.waiting), number, 2),
    Figure("in flight", "", lambda moment, window: window.in_flight, number, 2),
    Figure("batch size", "rows", _server(lambda server: server.mean_batch), least=0.5),
    Figure("batch fill", "%", _server(lambda server: server.fill), _percent, 0.02),
    Figure("GPU busy", "%", _card(lambda card: card.utilization), _percent, 0.03),
    Figure("GPU memory", "GB", _card(lambda card: card.memory_used), _gigabytes, 2e8),
    Figure("GPU clock", "MHz", _card(lambda card: card.sm_clock_mhz), least=30),
    Figure("GPU power", "W", _card(lambda card: card.power_w), least=10),
    Figure("GPU temperature", "°C", _card(lambda card: card.temperature_c), least=2),
    Figure("CPU", "%", lambda moment, window: window.machine.cpu if window.machine else None,
           _percent, 0.03),
    Figure("sent late p99", "ms", _late, brief, 0.5),
)  # fmt: skip
_BY_NAME = {figure.name: figure for figure in FIGURES}


def value(name: str, moment: Moment) -> float | None:
    return None if moment.window is None else _BY_NAME[name].read(moment, moment.window)


def same(name: str, before: float, after: float) -> bool:
    """Whether a change is too small to be told as one."""
    if before == after:
        return True
    change = abs(after - before)  # NaN of two infinite ones is no change either
    return not change > max(_BY_NAME[name].least, _SAME * min(abs(before), abs(after)))


def rows(before: Moment, after: Moment, limit_ns: int | None) -> list[Row]:
    """All figures that at least one of the two has."""
    found = []
    for figure in FIGURES:
        one, two = value(figure.name, before), value(figure.name, after)
        if one is None and two is None:
            continue
        name = f"{figure.name} {figure.unit}".strip()
        latency = figure.name in ("p50", "p95", "p99")
        texts = [ms_text(at, limit_ns) if latency else figure.write(at) for at in (one, two)]
        found.append(Row(name, texts[0], texts[1], _change(figure, one, two)))
    return found


def _change(figure: Figure, before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return ""
    if same(figure.name, before, after):
        return "≈ same"
    sign = "▲" if after > before else "▼"
    if not before or not after or not abs(after) + abs(before) < float("inf"):
        return sign
    if after >= 2 * before > 0:
        return f"{sign} {units.significant(after / before, 2)}×"
    return f"{sign} {100 * (after / before - 1):+.0f} %"


def sentences(before: Moment, after: Moment, view: View) -> list[str]:
    """What changed from one to the other, and what happened in between."""
    if before.window is None or after.window is None:
        missing = [moment for moment in (before, after) if moment.window is None]
        at = " and ".join(units.clock(moment.second * units.SECOND) for moment in missing)
        return [f"Nothing is known of {at} yet: it is being read, or nothing was recorded then."]
    limit = view.start.limit_ns if view.start else None
    told = [_felt(before, after, limit), *_where(before, after), *_load(before, after)]
    told += [*_batches(before, after), *_machine(before, after), *_generator(before, after)]
    return [*told, *_between(view.events, before.second, after.second)]


def _felt(before: Moment, after: Moment, limit_ns: int | None) -> str:
    one, two = value("p99", before), value("p99", after)
    if one is None or two is None:
        return "Latency cannot be compared: nothing was answered at one of them."
    texts = [ms_text(at, limit_ns) for at in (one, two)]
    if math.isinf(one) and math.isinf(two):
        return "p99 has no time at either of them: so many requests fail."
    if same("p99", one, two):
        return f"p99 is about the same: {texts[0]} and {texts[1]} ms."
    if math.isinf(two):  # not a time: "from 106 to > 100 ms" would be no rise
        return f"p99 rose from {texts[0]} ms to where requests fail: it has no time any more."
    if math.isinf(one):
        return f"p99 fell from where requests fail to {texts[1]} ms."
    return f"p99 {'rose' if two > one else 'fell'} from {texts[0]} to {texts[1]} ms."


def _where(before: Moment, after: Moment) -> Iterator[str]:
    """The part of the way that changed most, and compute if that is not it."""
    one, two = parts(before), parts(after)
    changes = {name: two[name] - one[name] for name in one if name in two}
    total = sum(changes.values())
    if not changes or abs(total) < 0.2:
        return
    ordered = sorted(changes, key=lambda name: changes[name] * (1 if total > 0 else -1))
    most, against = ordered[-1], ordered[0]
    text = f"A mean request takes {units.significant(abs(total))} ms"
    text += f" {'longer' if total > 0 else 'less'}: "
    told = {most}
    if abs(changes[most]) < abs(total) + _LEAST_MS:
        share = units.significant(abs(changes[most]))
        text += f"{share} ms of it in {most} ({_course(most, one, two)})"
    else:  # more than the whole is no part of it: something else went the other way
        told.add(against)
        text += f"{_went(most, one, two)}, {_went(against, one, two)}"
    if "compute" in changes.keys() - told:
        stays = same("compute", one["compute"], two["compute"])
        text += f"; compute is {'unchanged' if stays else 'not what it was'}"
        text += f" ({brief(two['compute']) if stays else _course('compute', one, two)} ms)"
    yield f"{text}."


def _went(name: str, one: dict[str, float], two: dict[str, float]) -> str:
    by = two[name] - one[name]
    far = f"{'rose' if by > 0 else 'fell'} by {units.significant(abs(by))} ms"
    return f"{name} {far} ({_course(name, one, two)})"


def _course(name: str, one: dict[str, float], two: dict[str, float]) -> str:
    return f"{brief(one[name])} → {brief(two[name])}"


def _load(before: Moment, after: Moment) -> Iterator[str]:
    text = _moved("asked", "/s", before, after) or _stayed("asked", "/s", before, after)
    if text:
        yield text
    text = _moved("done", "/s", before, after)
    asked, done = value("asked", after), value("done", after)
    if text and asked and done is not None and done < 0.9 * asked:
        text = f"{text[:-1]}: {number(asked - done)}/s fewer than asked."
    if text:
        yield text
    yield from filter(None, [_moved("failed", " %", before, after)])


def _batches(before: Moment, after: Moment) -> Iterator[str]:
    for name, unit in (("waiting", " requests"), ("batch size", " rows")):
        text = _moved(name, unit, before, after)
        if text:
            yield text
    one, two = _reason(before), _reason(after)
    if one and two and one != two:
        words = [WHY_CLOSED.get(reason, reason) for reason in (one, two)]
        yield f"Batches closed mostly by “{words[0]}”, then by “{words[1]}”."


def _reason(moment: Moment) -> str:
    server = moment.window.server if moment.window else None
    counted = {why: sum(sizes.values()) for why, sizes in server.closed.items()} if server else {}
    return max(counted, key=lambda why: counted[why]) if counted else ""


def _machine(before: Moment, after: Moment) -> Iterator[str]:
    for name, unit in (
        ("GPU busy", " %"), ("GPU clock", " MHz"), ("GPU memory", " GB"), ("CPU", " %"),
    ):  # fmt: skip
        text = _moved(name, unit, before, after)
        if text:
            yield text
    if not before.cards or not after.cards:
        return
    held = dict.fromkeys(reason for card in after.cards for reason in card.throttle)
    if held and not any(card.throttle for card in before.cards):
        yield f"The GPU's clock was held down: {', '.join(held)}."
    old = {pid for card in before.cards for pid, _ in card.processes}
    new = [str(pid) for card in after.cards for pid, _ in card.processes if pid not in old]
    if new:
        yield f"Another process came onto the GPU: pid {', '.join(new[:3])}."


def _generator(before: Moment, after: Moment) -> Iterator[str]:
    late = value("sent late p99", after)
    text = _moved("sent late p99", " ms", before, after)
    if text and late is not None and late > 1:
        yield f"{text[:-1]}: that is the load generator's, not the server's."


def _moved(name: str, unit: str, before: Moment, after: Moment) -> str:
    """A sentence for a figure that changed; else nothing."""
    one, two = value(name, before), value(name, after)
    if one is None or two is None or same(name, one, two):
        return ""
    write = _BY_NAME[name].write
    word = "rose" if two > one else "fell"
    return f"{_named(name)} {word} from {write(one)} to {write(two)}{unit}."


def _stayed(name: str, unit: str, before: Moment, after: Moment) -> str:
    one, two = (value(name, moment) for moment in (before, after))
    if one is None or two is None:
        return ""
    before_text, after_text = (_BY_NAME[name].write(at) for at in (one, two))
    if before_text == after_text:
        return f"{_named(name)} is the same: {after_text}{unit}."
    return f"{_named(name)} is about the same: {before_text} and {after_text}{unit}."


def _named(name: str) -> str:
    return name[:1].upper() + name[1:]


def _between(events: tuple[Event, ...], one: int, two: int) -> Iterator[str]:
    """Alerts and marks from the earlier to the later, those of both included; the first three."""
    low, high = min(one, two), max(one, two)
    found = [
        event
        for event in events
        if event.kind in ("alert", "ended", "unknown", "mark") and low <= event.second <= high
    ]
    if not found:
        yield "No alert and no mark lies between them."
        return
    texts = [f"{units.clock(event.second * units.SECOND)} {_short(event)}" for event in found[:3]]
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    yield f"Between them: {'; '.join(texts)}{more}."


def _short(event: Event) -> str:
    """What happened, without the guess why: that is on the Alerts screen."""
    return event.text.partition(f" {LIKELY}")[0].rstrip(".")
