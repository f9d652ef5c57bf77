"""How latency is spread, and where the time of the middle and of the slow requests went."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from loadbench import units
from loadbench.causes import (
    ANSWER,
    COMPUTE,
    FIRST,
    HELD,
    LATE,
    OTHERS,
    PARTS,
    QUEUE,
    SENDING,
    WAIT,
    latency,
    stretches,
)
from loadbench.histogram import Histogram
from loadbench.model import Part, Sample
from loadbench.report.markup import Markup, tag
from loadbench.report.page.course import joined_grid
from loadbench.report.page.figures import (
    SHARES,
    Curve,
    Piece,
    distribution,
    patterns,
    percentiles,
    spread,
    stack,
    swatch,
)
from loadbench.report.page.material import Material
from loadbench.report.page.sections import csv, entries, figure, key, quiet, section, signed
from loadbench.report.parts import mean_split
from loadbench.report.slowest import slowest_text
from loadbench.report.svg import Level
from loadbench.streams import RESTS, rest
from loadbench.units import MS, count, percent, significant

_ENOUGH = 5  # recorded requests before their mean is shown
_TAIL = 0.5  # of the share above a percentile: so far from it a request still counts as one of it
_KINDS = {
    LATE: "late", HELD: "late", SENDING: "late", QUEUE: "queue", WAIT: "wait", COMPUTE: "compute",
    **dict.fromkeys((*RESTS, ANSWER), "network"), FIRST: "wait", OTHERS: "compute",
}  # fmt: skip


def shape(material: Material) -> Markup | None:
    """The distribution, and the percentile curve with its bands."""
    summary, found = material.summary, material.total.whole.latency
    if not found.count:
        return None
    limit = summary.limit_ms
    bars = spread(found)
    low, high = significant(bars[0].low), significant(bars[-1].high)
    words = f"Distribution of {count(found.count)} answered requests, from {low} to {high} ms."
    left = figure(
        "Distribution",
        distribution(bars, limit, words),
        key("area", "answered requests", count(found.count)),
        key("limit", "limit", f"{significant(limit)} ms", "dashed") if limit else None,
    )
    said = ", ".join(
        f"{name.replace('_', '.')} {significant(value)} ms"
        for name in SHARES
        if (value := summary.latency_ms.get(name)) is not None
    )
    level = Level(limit, "limit") if limit else None
    curve = Curve("main", found, summary.missed, summary.bands_ms)
    marks = key("whisker", "95 % interval", "", "stroke") if summary.bands_ms else None
    right = figure(
        "Percentiles of all that was asked",
        percentiles([curve], level, f"Latency by percentile: {said}."),
        marks,
    )
    return section(
        "Latency", joined_grid([left, right], "two"), _table(found, summary.missed), name="latency"
    )


def _table(found: Histogram, missed: int) -> Markup:
    """The curve at finer and finer steps, as HdrHistogram lists it."""
    rows = []
    asked = found.count + missed
    for step in range(65):
        share = 1 - 2 ** (-step / 4)
        value = found.quantile_of_asked(share, missed)
        if value is None or asked * (1 - share) < 0.5:
            break
        text = "not answered well" if math.isinf(value) else value / MS
        rows.append((share * 100, text, round(asked * share)))
    return csv("Data of the percentiles", ("percentile", "ms", "requests_below"), rows)


# ── where the time goes ──────────────────────────────────────────────────────


class Way(NamedTuple):
    """A request, or the mean of some, in its parts (ms), and what that rests on."""

    who: str
    parts: dict[str, float]
    rests: str


def where(material: Material) -> Markup | None:
    """The mean request, the middle one, and those near p95 and p99, each for itself: the tail has
    other causes than the middle."""
    ways, missing = _ways(material)
    if not ways:
        text = "This target does not report queue and batch times, and no request was kept."
        return section("Where the time goes", quiet(text), name="where")
    whole = max(sum(way.parts.values()) for way in ways)
    slow = material.summary.slowest
    told = [signed("·", "quiet", slowest_text(one)) for one in slow]
    return section(
        "Where the time goes",
        patterns(),
        [_drawn(way, whole) for way in ways],
        [quiet(text) for text in missing],
        tag("h3", "The slowest, and why") if told else None,
        tag("div", entries(told), class_="small"),
        name="where",
    )


def _drawn(way: Way, whole: float) -> Markup:
    total = sum(way.parts.values())
    pieces = [Piece(name, _KINDS[name], value) for name, value in way.parts.items() if value > 0]
    keys = [
        tag(
            "span",
            swatch(piece.kind),
            f"{piece.name} ",
            tag("b", _part(piece.value, total)),
            class_="key",
        )
        for piece in pieces
        if piece.value >= total * 0.005
    ]
    said = ", ".join(f"{piece.name} {significant(piece.value)} ms" for piece in pieces)
    words = f"{way.who}: {significant(total)} ms, of it {said}."
    who = tag(
        "div",
        tag("b", way.who),
        tag("div", f"{significant(total)} ms", class_="quiet small"),
        class_="who",
    )
    picture = tag("div", stack(pieces, whole, words), tag("div", keys, class_="keys"))
    below = tag("div", way.rests, class_="quiet small")
    return tag("div", who, tag("div", picture, below), class_="way")


def _part(value: float, total: float) -> str:
    return f"{significant(value)} ms {percent(value / total)} %"


def _ways(material: Material) -> tuple[list[Way], list[str]]:
    found, missing = [], []
    split = mean_split(material.summary)
    if split:
        found.append(Way("Mean request", split, "means of all: they add up"))
    middle = _middle(material)
    if middle is not None:
        found.append(middle)
    samples = _samples(material)
    for name in ("p95", "p99"):
        way = _near(name, samples, material)
        if way is not None:
            found.append(way)
        else:
            missing.append(name)
    slowest = sorted(samples, key=latency, reverse=True)[: max(_ENOUGH, len(samples) // 100)]
    if slowest and len(slowest) >= min(_ENOUGH, len(samples)):
        least = significant(latency(slowest[-1]) / MS)
        rests = f"mean of the {count(len(slowest))} slowest that were answered: ≥ {least} ms"
        found.append(Way("Slowest", _mean(slowest), rests))
    return found, _why(missing, material)


def _why(missing: Sequence[str], material: Material) -> list[str]:
    """Why there is no way of requests near some percentiles."""
    failed = [name for name in missing if material.summary.latency_ms.get(name) is None]
    rare = [name for name in missing if name not in failed]
    if rare and not _samples(material):
        return ["No bars for p95 and p99: the log has kept no single requests."]
    told = []
    if failed:
        told.append(f"{' and '.join(failed)} fall among the requests that were not answered well.")
    if rare:
        kept = "minute" if material.coarse else "second"
        told.append(
            f"No bar for requests near {' and '.join(rare)}: the log keeps the way of the slowest"
            f" few of each {kept}, and too few of them took about so long."
        )
    return told


def _middle(material: Material) -> Way | None:
    """The median of each part: requests in the middle are not kept one by one."""
    server = material.total.whole.server
    whole = material.total.whole.latency.quantile(0.5)
    if server is None or whole is None:
        return None
    given: Mapping[str, Part | None] = {
        QUEUE: server.queue,
        WAIT: server.batch_wait,
        COMPUTE: server.compute,
    }
    parts = {
        name: value / MS
        for name, part in given.items()
        if part is not None and part.histogram is not None
        if (value := part.histogram.quantile(0.5)) is not None
    }
    if COMPUTE not in parts or sum(parts.values()) > whole / MS:
        return None
    left = whole / MS - sum(parts.values())
    name = rest(parts, material.total.whole.stream is not None)
    said = f"the median of each part by itself; {name} is what they leave of the p50"
    return Way("p50 request", {**parts, name: left}, said)


def _samples(material: Material) -> list[Sample]:
    windows = (*material.total.steady, *material.total.rest)
    return [sample for window in windows for sample in window.slowest if not sample.failure]


def _near(name: str, samples: Sequence[Sample], material: Material) -> Way | None:
    """Of the requests that were kept, those about as slow as the percentile."""
    histogram, missed = material.total.whole.latency, material.summary.missed
    share = SHARES[name]
    aside = (1 - share) * _TAIL
    low, high = (histogram.quantile_of_asked(s, missed) for s in (share - aside, share + aside))
    if low is None or high is None or math.isinf(low):
        return None
    found = [sample for sample in samples if low <= latency(sample) <= high]
    if len(found) < _ENOUGH:
        return None
    bounds = f"{significant(low / MS)} to {units.ms(high) if high < math.inf else '…'} ms"
    rests = f"mean of {count(len(found))} recorded requests of {bounds}"
    return Way(f"{name} request", _mean(found), rests)


def _mean(samples: Iterable[Sample]) -> dict[str, float]:
    """Each stretch of their way, ms; those before the server's together."""
    total: dict[str, float] = {}
    number = 0
    for sample in samples:
        number += 1
        for name, length in stretches(sample):
            total[name] = total.get(name, 0.0) + length / MS
    return {name: total[name] / number for name in PARTS if name in total}
