"""Inside the engine: batch sizes, why batches closed, what a row costs; and where the knee is."""

import math
from collections import Counter
from collections.abc import Sequence

from loadbench import units
from loadbench.assurance import Blocks
from loadbench.bin import failures
from loadbench.histogram import Histogram
from loadbench.judge.bands import Bands, of_blocks
from loadbench.model import Server, Window
from loadbench.report.batches import Group, groups, hint, median_size, per_row_ms, reasons, rows_of
from loadbench.report.certain import within
from loadbench.report.markup import Markup, tag
from loadbench.report.page.course import joined_grid
from loadbench.report.page.figures import Point, Series, bar, curve
from loadbench.report.page.material import Material
from loadbench.report.page.sections import (
    csv,
    figure,
    line_key,
    quiet,
    section,
    table,
    unbounded,
)
from loadbench.report.parts import made_of
from loadbench.report.svg import Level
from loadbench.units import MS, count, percent, significant

_GROUPS, _REASONS = 8, 8
_STEPS, _PARTS = 24, 12  # rates that are shown one by one; of more, so many stretches of them
_FEWEST = 3  # rates that make a curve
_LEAST_S = 3  # seconds at a rate
_RAMP = 0.2  # of the seconds at rates that were hardly held: the load was a ramp
_BEND = 2.0  # times the first latency: from there on a curve has a knee


def engine(material: Material) -> Markup | None:
    """What the server told of its batches; nothing for one that tells nothing."""
    server = material.total.whole.server
    if server is None or not server.batches:
        if server is None and not material.start.device:
            text = "This target does not report queue and batch times. Shown: client side only."
            return section("Engine", quiet(text), name="engine")
        return None
    made = made_of(server.parts_ms, server.cached, server.requests, server.cache_misses)
    advice = hint(server)
    return section(
        "Engine",
        joined_grid([_sizes(server), _closed(server), _costs(server)], "three"),
        quiet(_sentence(server)),
        quiet(advice) if advice else None,
        quiet(made) if made else None,
        _table(server),
        name="engine",
    )


def _sentence(server: Server) -> str:
    parts = [f"{significant(server.mean_batch)} rows per batch on average"]
    if (median := median_size(server)) is not None:
        parts.append(f"median {median}")
    if server.fill is not None:
        parts.append(f"{percent(server.fill)} % full")
    parts.append(f"{count(server.batches)} batches")
    if server.shed:
        parts.append(f"{count(server.shed)} requests shed")
    return ", ".join(parts) + f" (told by: {server.source})."


def _sizes(server: Server) -> Markup:
    found = groups(server, _GROUPS)
    if not found:
        return figure("Batch size", quiet("not told by this target"))
    total = sum(group.sizes.batches for group in found) or 1
    most = max(group.sizes.batches for group in found) / total or 1.0
    rows = [
        (group.name, _filled(group.sizes.batches / total, most), _share(group.sizes.batches, total))
        for group in found
    ]
    return figure("Batch size, rows", table(("rows", "", "of batches"), rows))


def _filled(share: float, most: float) -> Markup:
    return tag("td", bar(share / most), class_="fill")


def _share(part: int, whole: int) -> str:
    return f"{percent(part / whole)} %"


def _closed(server: Server) -> Markup:
    found = reasons(server)[:_REASONS]
    if not found:
        return figure("Why batches closed", quiet("not told by this target"))
    total = sum(number for _, _, number in found)
    most = found[0][2] / total
    rows = [
        (words, _filled(number / total, most), _share(number, total)) for _, words, number in found
    ]
    return figure("Why batches closed", table(("reason", "", "of batches"), rows))


def _costs(server: Server) -> Markup:
    found = [group for group in groups(server, _GROUPS) if group.sizes.batches]
    costs = [_cost(server, group) for group in found]
    most = max((cost for cost in costs if cost is not None), default=0.0)
    if not most:
        return figure("Compute time per row", quiet("not told by this target"))
    rows = [
        (group.name, _filled((cost or 0.0) / most, 1.0), f"{significant(cost)} ms")
        for group, cost in zip(found, costs, strict=True)
    ]
    return figure("Compute time per row", table(("rows", "", "per row"), rows))


def _cost(server: Server, group: Group) -> float | None:
    rows = rows_of(server, group.low, group.high)
    return group.sizes.compute_ns / rows / MS if rows else None


def _table(server: Server) -> Markup:
    heads = ("rows", "batches", "requests", "queue_ms", "batch_wait_ms", "compute_ms", "per_row_ms")
    rows = [
        (
            size,
            found.batches,
            found.requests,
            _mean(found.queue_ns, found.requests),
            _mean(found.batch_wait_ns, found.requests),
            _mean(found.compute_ns, found.batches),
            per_row_ms(size, found),
        )
        for size, found in sorted(server.sizes.items())
    ]
    return csv("Data by batch size", heads, rows)


def _mean(total_ns: int | None, number: int) -> float | None:
    return total_ns / number / MS if total_ns is not None and number else None


# ── throughput and latency ───────────────────────────────────────────────────


def steps(material: Material) -> Markup | None:
    """Latency over throughput, if the load had several rates."""
    found = _levels([w for w in material.total.steady if w.rate])
    if len(found) < _FEWEST:
        return None
    seconds = 60 if material.coarse else 1
    sure = [of_blocks(Blocks(level), (*_NAMES,)) for level in found]
    known = [(level, bands) for level, (bands, _) in zip(found, sure, strict=True)]
    points = {name: [_point(*one, name, seconds) for one in known] for name in _NAMES}
    series = [Series(name, name, tuple(points[name])) for name in _NAMES]
    bend = knee(points["p99"])
    marked = None
    if bend is not None:
        marked = bend._replace(text=f"knee {significant(bend.x)}/s")
    limit = material.summary.limit_ms
    said = f"the knee is at {significant(bend.x)}/s" if bend else "there is no knee"
    top = found[-1]
    words = f"Latency over throughput at {len(found)} rates up to {_rate(top)}/s: {said}."
    level = Level(limit, f"limit {significant(limit)} ms") if limit else None
    highest = max((p.y for p in points["p99"] if p.y and math.isfinite(p.y)), default=0.0)
    if level and level.value > 3 * highest:
        level = None
    text = (
        "The knee is where more throughput begins to cost more latency than before it: the point"
        " that lies farthest below the straight line between both ends."
        if bend
        else f"No knee: p99 was {_ms(points['p99'][0].y, sure[0][0].get('p99'))} at the lowest rate"
        f" and {_ms(points['p99'][-1].y, sure[-1][0].get('p99'))} at the highest."
    )
    whys = (why for _, none in sure for why in none.values())
    keys = [line_key(name, name) for name in _NAMES]
    rows = [(_rate(level_), *(p[at].x and p[at].y for p in points.values()), len(level_) * seconds)
            for at, level_ in enumerate(found)]  # fmt: skip
    return section(
        "Throughput and latency",
        figure("Latency at each rate", curve(series, marked, level, words), *keys),
        quiet(text),
        unbounded(whys),
        csv("Data by rate", ("asked_per_s", "p50_ms", "p99_ms", "seconds"), rows),
        name="steps",
    )


_NAMES = {"p50": 0.5, "p99": 0.99}
Windows = Sequence[Window]


def _rate(level: Windows) -> str:
    rates = [window.rate for window in level if window.rate]
    return significant(sum(rates) / len(rates))


def _levels(windows: Windows) -> list[Windows]:
    """Windows of about the same rate, the lowest first, without rates that were hardly held."""
    rates = sorted({window.rate or 0.0 for window in windows})
    if len(rates) < _FEWEST:
        return []
    low, high = rates[0], rates[-1]
    held = Counter(window.rate or 0.0 for window in windows)
    passing = sum(number for number in held.values() if number < _LEAST_S)
    many = len(rates) > _STEPS or passing > len(windows) * _RAMP
    groups_: dict[float, list[Window]] = {}
    for window in windows:
        rate = window.rate or 0.0
        if many:  # a ramp
            rate = min(_PARTS - 1, int((rate - low) / (high - low) * _PARTS))
        groups_.setdefault(rate, []).append(window)
    return [groups_[rate] for rate in sorted(groups_) if len(groups_[rate]) >= _LEAST_S]


def _point(level: Windows, bands: Bands, name: str, seconds: int) -> Point:
    done = sum(window.done for window in level) / len(level) / seconds
    missed = sum(failures(window) for window in level)
    latency = Histogram.merged(window.latency for window in level)
    value = latency.quantile_of_asked(_NAMES[name], missed)
    ms = None if value is None else value / MS
    shown = _ms(ms, bands.get(name))
    length = units.duration(len(level) * seconds * units.SECOND)
    text = f"asked {_rate(level)}/s, done {significant(done)}/s for {length}: {name} {shown}"
    return Point(done, ms, text)


def _ms(value: float | None, found: tuple[float, float | None] | None = None) -> str:
    if value == math.inf:
        return "among the failed"
    return f"{significant(value)}{within(value, found)} ms"


def knee(points: Sequence[Point]) -> Point | None:
    """Where a rising curve bends: the point farthest below the straight line between its ends, both
    axes as shares (Satopää et al., "Finding a Kneedle in a Haystack", 2011). None where it does not
    rise, or hardly. A latency without a number counts as twice the highest that is one."""
    known = [(point, point.y) for point in sorted(points) if point.y is not None]
    finite = [y for _, y in known if math.isfinite(y)]
    if len(known) < 3 or not finite:
        return None
    ys = [y if math.isfinite(y) else 2 * max(finite) for _, y in known]
    xs = [point.x for point, _ in known]
    if ys[-1] < _BEND * ys[0] or xs[-1] <= xs[0]:
        return None
    low, high = min(ys), max(ys)
    below = [
        (x - xs[0]) / (xs[-1] - xs[0]) - (y - low) / (high - low)
        for x, y in zip(xs, ys, strict=True)
    ]
    at = max(range(len(below)), key=below.__getitem__)
    return known[at][0] if 0 < at < len(known) - 1 and below[at] > 0.05 else None
