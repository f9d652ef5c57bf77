"""Charts that are not over time: distributions, percentile curves, curves through points, bars."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from loadbench import units
from loadbench.histogram import Histogram
from loadbench.report.markup import Markup, joined, tag
from loadbench.report.svg import (
    WIDE,
    Frame,
    Level,
    Tick,
    across,
    chart,
    log_axis,
    percent,
    stretched,
    top_of,
    upwards,
)

_BARS = 44
_STOPS = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)
_POINTS = 160  # of a percentile curve
Bands = Mapping[str, tuple[float, float | None]]
# the share that each percentile of a summary is of
SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}


class Bar(NamedTuple):
    """One bar of a distribution: from, to (ms), how many requests."""

    low: float
    high: float
    number: int


def spread(found: Histogram, most: int = _BARS) -> list[Bar]:
    """Up to `most` bars of equal ratio between the extremes; none of an empty one."""
    if not found.count:
        return []
    edges, counts = found.buckets()
    low, high = edges[0] / units.MS, edges[-1] / units.MS
    if low >= high:
        return [Bar(low, high, int(counts.sum()))]
    steps = np.geomspace(low, high * (1 + 1e-9), most + 1)
    place = np.clip(np.searchsorted(steps, edges / units.MS, side="right") - 1, 0, most - 1)
    totals = np.bincount(place, weights=counts, minlength=most).astype(int)
    return [Bar(float(steps[at]), float(steps[at + 1]), int(totals[at])) for at in range(most)]


def distribution(
    bars: Sequence[Bar], limit_ms: float | None, words: str, of: str = "requests"
) -> Markup:
    """How often which time, on a logarithmic axis; what is over the limit in another colour."""
    low, high = bars[0].low, max(bars[-1].high, bars[0].low * 1.5)
    span = math.log(high / low)
    most = max(bar.number for bar in bars)
    top = most * 1.06

    def x(value: float) -> float:
        return math.log(max(low, value) / low) / span

    drawn = []
    for bar in bars:
        if not bar.number:
            continue
        over = limit_ms is not None and bar.low >= limit_ms
        left, right = x(bar.low) * WIDE, x(bar.high) * WIDE
        share = max(0.006, bar.number / top) * WIDE
        text = (
            f"{units.significant(bar.low)} to {units.significant(bar.high)} ms:"
            f" {units.count(bar.number)} {of}"
        )
        drawn.append(
            tag(
                "rect",
                tag("title", text),
                class_="over" if over else "area",
                x=left,
                y=WIDE - share,
                width=max(1.0, right - left - 2.5),
                height=share,
            )
        )
    limit = joined()
    if limit_ms is not None and low < limit_ms < high:
        at = percent(x(limit_ms))
        limit = tag("line", class_="limit", x1=at, x2=at, y1=0, y2="100%")
    frame = Frame(words, log_axis(low, high, 7), upwards(top, 3), 190, of)
    return chart(frame, stretched(*drawn), limit)


class Curve(NamedTuple):
    """A run's latencies as a percentile curve: the class of its line, the answered, how many were
    asked and not answered well, and the bands (ms) of some percentiles."""

    kind: str
    latency: Histogram
    missed: int = 0
    bands: Bands = {}
    name: str = ""


def percentiles(curves: Sequence[Curve], limit: Level | None, words: str) -> Markup:
    """Latency by percentile as HdrHistogram draws it: each further nine is as wide as the one
    before. A curve ends where the requests end, or where those that failed begin."""
    deepest = max((_depth(curve) for curve in curves), default=1.0)
    reach = min(4.0, max(1.0, deepest))
    points = [_points(curve, reach) for curve in curves]
    values = [value for found in points for _, value in found]
    top = top_of([*values, limit.value * 1.1 if limit and limit.value < 4 * top_of(values) else 0])
    x = [
        Tick(_nines(share) / reach, f"{share * 100:g}%")
        for share in _STOPS
        if _nines(share) <= reach
    ]
    drawn = [_curve(found, curve.kind, top) for found, curve in zip(points, curves, strict=True)]
    around = [_whiskers(curve, reach, top) for curve in curves]
    lost = [_lost(curve, reach) for curve in curves] if len(curves) == 1 else []
    level = across(limit, top) if limit and limit.value <= top else None
    frame = Frame(words, x, upwards(top), 190, "ms")
    return chart(frame, *lost, stretched(*drawn), joined(level), *around, _pointed(points))


def _nines(share: float) -> float:
    return -math.log10(1 - share)


def _depth(curve: Curve) -> float:
    asked = curve.latency.count + curve.missed
    return math.log10(asked) if asked > 1 else 1.0


def _points(curve: Curve, reach: float) -> list[tuple[float, float]]:
    """(place as a share of the axis, ms)."""
    found = []
    end = min(reach, _depth(curve))
    for at in range(_POINTS + 1):
        nines = end * at / _POINTS
        value = curve.latency.quantile_of_asked(1 - 10**-nines, curve.missed)
        if value is None or math.isinf(value):
            break
        found.append((nines / reach, value / units.MS))
    return found


def _curve(points: Sequence[tuple[float, float]], kind: str, top: float) -> Markup:
    path = " ".join(f"{x * WIDE:.1f} {(1 - min(1, y / top)) * WIDE:.1f}" for x, y in points)
    return tag("path", class_=f"line {kind}", d=f"M{path}" if path else "M0 0")


def _pointed(points: Sequence[Sequence[tuple[float, float]]]) -> Markup:
    """The named percentiles of a single curve, to be pointed at."""
    if len(points) != 1 or not points[0]:
        return joined()
    return stretched(
        *(
            tag(
                "rect",
                tag("title", f"{units.significant(y)} ms"),
                class_="hit",
                x=x * WIDE - 3,
                y=0,
                width=7,
                height=WIDE,
            )
            for x, y in points[0]
        )
    )


def _whiskers(curve: Curve, reach: float, top: float) -> Markup:
    """The bands of the percentiles that have one."""
    found = []
    for name, (low, high) in curve.bands.items():
        if name not in SHARES or _nines(SHARES[name]) > reach:
            continue
        x = percent(_nines(SHARES[name]) / reach)
        above = 0.0 if high is None else max(0.0, 1 - high / top)
        below = percent(max(0.0, 1 - low / top))
        ends = "unknown" if high is None else units.significant(high)
        title = f"{name.replace('_', '.')}: {units.significant(low)} to {ends} ms at 95 %"
        found.append(
            tag(
                "g",
                tag("title", title),
                tag("line", class_="whisker", x1=x, x2=x, y1=percent(above), y2=below),
            )
        )
    return joined(*found)


def _lost(curve: Curve, reach: float) -> Markup:
    """Where the requests begin that were not answered well."""
    asked = curve.latency.count + curve.missed
    if not curve.missed or not asked:
        return joined()
    at = min(1.0, _nines(1 - curve.missed / asked) / reach) if curve.missed < asked else 0.0
    if at >= 1:
        return joined()
    return joined(
        tag("rect", class_="lost", x=percent(at), y=0, width=percent(1 - at), height="100%"),
        tag("text", "not answered well", class_="lost-text", x="100%", y="100%", dx=-6, dy=-8),
    )


class Point(NamedTuple):
    """A place on a curve, and what it stands for."""

    x: float
    y: float | None
    text: str


class Series(NamedTuple):
    """Points joined by lines; a value that is infinite lies at the top."""

    name: str
    kind: str
    points: Sequence[Point]


def curve(series: Sequence[Series], knee: Point | None, level: Level | None, words: str) -> Markup:
    """Latency (ms) over throughput (per second); the knee with a ring and its words."""
    right = max(point.x for one in series for point in one.points) * 1.04
    values = [point.y for one in series for point in one.points]
    top = top_of([*values, level.value if level else None])
    drawn = [_joined(one, right, top) for one in series]
    marked = joined()
    if knee is not None and knee.y is not None:
        x, y = percent(knee.x / right), percent(_height(knee.y, top))
        marked = joined(
            tag("line", class_="knee", x1=x, x2=x, y1=y, y2="100%"),
            tag("circle", tag("title", knee.text), class_="knee", cx=x, cy=y, r=7),
            tag("text", knee.text, class_="knee-text", x=x, y=y, dx=-10, dy=-10),
        )
    frame = Frame(words, _rates(right), upwards(top), 220, "ms")
    line = across(level, top) if level and level.value <= top else None
    return chart(frame, joined(line), *drawn, marked)


def _rates(right: float) -> list[Tick]:
    found = upwards(right, 7)
    return [tick if tick.at else Tick(0.0, "0/s") for tick in found]


def _height(value: float, top: float) -> float:
    return max(0.0, 1 - value / top) if math.isfinite(value) else 0.0


def _joined(one: Series, right: float, top: float) -> Markup:
    known = [(point, point.y) for point in one.points if point.y is not None]
    path = " ".join(
        f"{point.x / right * WIDE:.1f} {_height(y, top) * WIDE:.1f}" for point, y in known
    )
    dots = [
        tag(
            "circle",
            tag("title", point.text),
            class_=f"dot {one.kind}",
            cx=percent(point.x / right),
            cy=percent(_height(y, top)),
            r=4,
        )
        for point, y in known
    ]
    if not known:
        return joined()
    last, y = known[-1]
    place = {"x": percent(last.x / right), "y": percent(_height(y, top))}
    return joined(
        stretched(tag("path", class_=f"line {one.kind}", d=f"M{path}")),
        *dots,
        tag("text", one.name, class_="end", dy=-9, dx=4, **place),
    )


def bar(share: float) -> Markup:
    """A bar of a table's row; what is above zero is at least a sliver. The number stands beside."""
    width = max(0.006, min(1.0, share)) if share > 0 else 0.0
    return tag(
        "svg",
        tag("rect", class_="rail", x=0, y=0, width="100%", height="100%"),
        tag("rect", class_="area", x=0, y=0, width=percent(width), height="100%"),
        class_="bar",
        aria_hidden="true",
        height=12,
    )


class Piece(NamedTuple):
    """A part of a whole: its name, its class, its size."""

    name: str
    kind: str
    value: float


def stack(pieces: Sequence[Piece], whole: float, words: str) -> Markup:
    """Parts beside each other, each with a pattern of its own; `whole` is the full width."""
    drawn, at = [], 0.0
    for piece in pieces:
        share = piece.value / whole if whole else 0.0
        place = {"x": percent(at), "y": 0, "width": percent(share), "height": "100%"}
        title = tag("title", f"{piece.name} {units.significant(piece.value)} ms")
        drawn.append(
            joined(
                tag("rect", title, class_=f"piece {piece.kind}", **place),
                tag("rect", class_=f"pattern {piece.kind}", fill=f"url(#{piece.kind})", **place),
            )
        )
        at += share
    return tag("svg", drawn, class_="stack", role="img", aria_label=words, height=22)


def swatch(kind: str) -> Markup:
    """A part of a stack as its key shows it."""
    place = {"width": "100%", "height": "100%"}
    return tag(
        "svg",
        tag("rect", class_=f"piece {kind}", **place),
        tag("rect", class_=f"pattern {kind}", fill=f"url(#{kind})", **place),
        class_="swatch",
        aria_hidden="true",
        width=12,
        height=12,
    )


def patterns() -> Markup:
    """What the parts of a stack are drawn with: once in a page."""

    def pattern(name: str, path: str, size: int = 6) -> Markup:
        return tag(
            "pattern",
            tag("path", class_="hatch", d=path),
            id=name,
            width=size,
            height=size,
            patternUnits="userSpaceOnUse",
        )

    return tag(
        "svg",
        tag(
            "defs",
            pattern("queue", "M-1 1L1 -1M0 6L6 0M5 7L7 5"),
            pattern("wait", "M3 0V6"),
            pattern("network", "M0 3H6"),
            pattern("late", "M0 0L6 6M0 6L6 0"),
            pattern("compute", "M0 0"),
        ),
        class_="defs",
        aria_hidden="true",
        width=0,
        height=0,
    )
