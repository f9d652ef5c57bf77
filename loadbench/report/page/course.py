"""The run over time: throughput, latency with the queue below it, the machine; one time axis."""

from collections.abc import Callable, Sequence

from loadbench import units
from loadbench.machine import Gpu, highest
from loadbench.report.markup import Markup, joined
from loadbench.report.page.material import Material
from loadbench.report.page.sections import csv, figure, key, quiet, section
from loadbench.report.page.timeline import Stretch, moments, ms
from loadbench.report.svg import Column, Level, Over, bands, lines
from loadbench.units import MS, count, percent, significant

_GB = 1e9
Reader = Callable[[Stretch], float | None]


def course(material: Material, stretches: Sequence[Stretch]) -> Markup:
    """Throughput, failures, latency, queue; the table behind them."""
    if not stretches:
        return section("Over time", quiet("Nothing was recorded."), name="time")
    return section(
        "Over time",
        throughput(material, stretches),
        latency(material, stretches),
        _queue(material, stretches),
        quiet(_reading(stretches)),
        _table(stretches),
        name="time",
    )


def _reading(stretches: Sequence[Stretch]) -> str:
    width = max(stretch.end - stretch.begin for stretch in stretches)
    length = units.duration(width * units.SECOND)
    signs = "▲ an alert fires, ✓ it ends, ◆ a mark"
    return (
        f"One column is {length}: rates are its mean, percentiles those of all its requests, the"
        f" queue its deepest. {signs}."
    )


def over(
    material: Material, stretches: Sequence[Stretch], label: str, unit: str, height: int = 170
) -> Over:
    """The time axis that all charts of a run share."""
    begin, end = stretches[0].begin, stretches[-1].end
    return Over(begin, end, label, unit, height, moments=moments(material.view))


def throughput(material: Material, stretches: Sequence[Stretch]) -> Markup:
    """Done as an area, asked as a line, what failed below."""
    columns = [
        Column(
            stretch.begin,
            stretch.end,
            (stretch.done, None if stretch.drained else stretch.asked),
            f"{stretch.when}: asked {significant(stretch.asked)}/s,"
            f" done {significant(stretch.done)}/s, failed {significant(stretch.failed)}/s",
        )
        for stretch in stretches
    ]
    rate = material.summary.rate
    label = (
        f"Throughput over time: {_range([stretch.asked for stretch in stretches])} asked each"
        f" second, {_range([stretch.done for stretch in stretches])} done."
    )
    failed = [stretch.failed for stretch in stretches]
    shared = over(material, stretches, label, "/s")
    if any(failed):
        shared = shared._replace(times=0)
    picture = lines(columns, ("area", "asked"), shared, "area")
    keys = [
        key("area", "done", f"{significant(rate['done'])}/s"),
        key("asked", "asked", f"{significant(rate['asked'])}/s", "stroke"),
    ]
    if not any(failed):
        return figure("Throughput", picture, *keys, "none failed")
    keys.append(key("failed", "not answered well, below", count(material.summary.missed)))
    below = _strip(material, stretches, "Failed over time", "/s", lambda stretch: stretch.failed)
    return figure("Throughput", joined(picture, below), *keys)


def _strip(
    material: Material, stretches: Sequence[Stretch], title: str, unit: str, read: Reader
) -> Markup:
    """A low chart of one value, without a caption, under another one."""
    found = [read(stretch) for stretch in stretches]
    label = f"{title}: {_range(found)}{unit}."
    columns = [
        Column(stretch.begin, stretch.end, (value,), f"{stretch.when}: {significant(value)}{unit}")
        for stretch, value in zip(stretches, found, strict=True)
    ]
    shared = over(material, stretches, label, "", 44)._replace(moments=(), most=2, least=1.0)
    return lines(columns, ("failed",), shared, "failed")


def latency(
    material: Material, stretches: Sequence[Stretch], title: str = "Latency", top: float = 0.0
) -> Markup:
    """Nested bands p50 ⊂ p95 ⊂ p99 under the limit. With a `top` it is one of several."""
    columns = [
        Column(
            stretch.begin,
            stretch.end,
            stretch.latency,
            f"{stretch.when}: p50 {ms(stretch.latency[0])}, p95 {ms(stretch.latency[1])},"
            f" p99 {ms(stretch.latency[2])}",
        )
        for stretch in stretches
    ]
    limit_ns, found = material.start.limit_ns, material.summary.latency_ms
    p50, p99 = ([stretch.latency[at] for stretch in stretches] for at in (0, 2))
    label = f"Latency over time: p50 {_range(p50)} ms, p99 {_range(p99)} ms."
    level = None
    if limit_ns:
        level = Level(limit_ns / MS, f"limit {significant(limit_ns / MS)} ms")
        label += f" The limit is {significant(limit_ns / MS)} ms."
    shared = over(material, stretches, label, "ms", 210)
    shared = shared._replace(level=level, least=top, times=4 if top else 8)
    keys = [
        key(name, name, ms_or_limit(found.get(name), material)) for name in ("p50", "p95", "p99")
    ]
    if any(value == float("inf") for value in p99):
        keys.append(key("failed", "strip on top: falls among the failed"))
    return figure(title, bands(columns, ("p50", "p95", "p99"), shared), *keys)


def ms_or_limit(value: float | None, material: Material) -> str:
    """`46.2 ms`, `> 100 ms` where it falls among the failed."""
    limit = material.summary.limit_ms
    if value is None and material.summary.asked and limit:
        return f"> {significant(limit)} ms"
    return f"{significant(value)} ms"


def _queue(material: Material, stretches: Sequence[Stretch]) -> Markup:
    """What waits in the server where it tells, else what is open at it."""
    told = any(stretch.queue is not None for stretch in stretches)
    title, words = ("Queue", "waiting") if told else ("In flight", "sent and unanswered")
    found = [stretch.queue if told else stretch.in_flight for stretch in stretches]
    columns = [
        Column(s.begin, s.end, (value,), f"{s.when}: {count(value)} {words}")
        for s, value in zip(stretches, found, strict=True)
    ]
    label = f"{title} over time: {_range(found)} requests {words}."
    shared = over(material, stretches, label, "", 70)._replace(most=2, least=4.0, moments=())
    deepest = max((value for value in found if value is not None), default=None)
    mark = key("area", words, f"at most {count(deepest)}")
    return figure(title, lines(columns, ("area",), shared, "area"), mark)


def _range(values: Sequence[float | None]) -> str:
    """`3.1 to 46.2`, as far as they are numbers."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return "n/a"
    low, high = (
        "beyond the limit" if value == float("inf") else significant(value)
        for value in (known[0], known[-1])
    )
    return low if low == high else f"{low} to {high}"


# ── the machine ──────────────────────────────────────────────────────────────


def machine(material: Material, stretches: Sequence[Stretch]) -> Markup | None:
    """The card where there is one, the processor, on the time axis of the others. Of several cards
    that may serve it is the highest of each."""
    readers: list[tuple[str, str, Reader, float]] = [
        ("GPU busy", "%", lambda s: _percent(_of(s, lambda card: card.utilization)), 100.0),
        ("GPU memory", "GB", _memory, 1.0),
        ("GPU power", "W", lambda s: _of(s, lambda card: card.power_w), 1.0),
        ("GPU clock", "MHz", lambda s: _of(s, lambda card: card.sm_clock_mhz), 1.0),
        ("CPU, all cores", "%", lambda s: _percent(s.cpu), 100.0),
        ("Engine, of a core", "%", lambda s: _percent(s.engine), 100.0),
    ]
    drawn = [
        _small(material, stretches, title, unit, (read, least))
        for title, unit, read, least in readers
        if any(read(stretch) is not None for stretch in stretches)
    ]
    if not drawn:
        return None
    columns = "three" if len(drawn) > 2 else "two"
    return section("Machine", joined_grid(drawn, columns), _hidden(stretches), name="machine")


def joined_grid(figures: Sequence[Markup], columns: str) -> Markup:
    """Charts beside each other, below each other where there is no room."""
    return Markup(f'<div class="{columns}">{"".join(figures)}</div>')


def _hidden(stretches: Sequence[Stretch]) -> Markup | None:
    reasons = dict.fromkeys(why for s in stretches for card in s.cards for why in card.throttle)
    return quiet(f"The card was throttled: {', '.join(reasons)}.") if reasons else None


def _percent(share: float | None) -> float | None:
    return None if share is None else share * 100


def _of(stretch: Stretch, look: Callable[[Gpu], float | None]) -> float | None:
    """The highest of its cards."""
    card = highest(stretch.cards, look)
    return look(card) if card else None


def _memory(stretch: Stretch) -> float | None:
    used = _of(stretch, lambda card: card.memory_used)
    return None if used is None else used / _GB


def _small(
    material: Material,
    stretches: Sequence[Stretch],
    title: str,
    unit: str,
    how: tuple[Reader, float],
) -> Markup:
    read, least = how
    found = [read(stretch) for stretch in stretches]
    columns = [
        Column(s.begin, s.end, (value,), f"{s.when}: {significant(value)} {unit}")
        for s, value in zip(stretches, found, strict=True)
    ]
    known = [value for value in found if value is not None]
    mean = sum(known) / len(known)
    label = f"{title} over time: {_range(found)} {unit}."
    shared = over(material, stretches, label, unit, 90)._replace(
        most=2, least=least, moments=(), times=4
    )
    shown = percent(mean / 100) if unit == "%" else significant(mean)
    return figure(
        title,
        lines(columns, ("area",), shared, "area"),
        key("area", "mean", f"{shown} {unit}"),
    )


def _table(stretches: Sequence[Stretch]) -> Markup:
    heads = (
        "second", "until", "asked_per_s", "done_per_s", "failed_per_s", "p50_ms", "p95_ms",
        "p99_ms", "in_flight", "queue", "cpu_percent", "gpu_percent",
    )  # fmt: skip
    rows = [
        (
            s.begin,
            s.end,
            s.asked,
            s.done,
            s.failed,
            *s.latency,
            s.in_flight,
            s.queue,
            _percent(s.cpu),
            _percent(_of(s, lambda card: card.utilization)),
        )
        for s in stretches
    ]
    return csv("Data over time", heads, rows)
