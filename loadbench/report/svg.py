"""Charts as inline SVG: values in, markup out. Nothing is read, nothing is kept.

A chart is as wide as its place: shapes lie in an inner picture that is stretched, everything that
must not be (text, dots, marks) is placed in percent. So one chart serves a phone, a screen and a
sheet of paper, without a script. Colours are classes: the page's style has them for both grounds.
Each chart says in words what it shows (`label`), and each of its columns what it stands for.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from loadbench.report.markup import Markup, joined, tag
from loadbench.report.ticks import TIME_STEPS, label, log_ticks, ticks
from loadbench.units import SECOND, clock

WIDE = 1000  # units of the stretched picture, both ways
DAY = 86_400
_NEAR = 0.012  # of the width: signs nearer than that would lie on each other


class Column(NamedTuple):
    """A stretch of an axis and its values, the innermost band first: None for no data, infinite
    for what has no number because it falls among the failed."""

    begin: float
    end: float
    values: tuple[float | None, ...]
    text: str = ""


class Tick(NamedTuple):
    """A place on an axis, as a share of it, and what is written there."""

    at: float
    text: str


class Moment(NamedTuple):
    """Something that happened: where on the axis, its sign, its class, its words."""

    at: float
    sign: str
    kind: str
    text: str


class Frame(NamedTuple):
    """What lies around a chart. `top` is the value at its upper edge."""

    label: str
    x: Sequence[Tick]
    y: Sequence[Tick]
    height: int = 200
    unit: str = ""


class Level(NamedTuple):
    """A value that is drawn across: the latency limit."""

    value: float
    text: str


class Over(NamedTuple):
    """A chart over time: its span in seconds of the run, how high it is, and what is drawn across
    and along it."""

    begin: float
    end: float
    label: str
    unit: str
    height: int = 200
    level: Level | None = None
    moments: Sequence[Moment] = ()
    most: int = 4  # ticks upwards
    least: float = 0.0  # the top is no lower
    times: int = 8  # ticks along it; none where the chart below has them


def chart(frame: Frame, *inside: Markup) -> Markup:
    """The frame with its axes around what is drawn."""
    return tag(
        "svg",
        [_across(tick) for tick in frame.y],
        _unit(frame.unit),
        inside,
        tag("line", class_="base", x1=0, x2="100%", y1="100%", y2="100%"),
        [_below(tick, odd=bool(number % 2)) for number, tick in enumerate(frame.x)],
        class_="chart" if frame.x else "chart joined",
        role="img",
        aria_label=frame.label,
        height=frame.height,
    )


def _unit(unit: str) -> Markup | None:
    """Above the ticks: a short one as they are, a word from the left edge on."""
    if not unit:
        return None
    short = len(unit) <= 3
    return tag("text", unit, class_="y" if short else None, x=-8 if short else -40, y=0, dy=-8)


def _across(tick: Tick) -> Markup:
    y = percent(1 - tick.at)
    return joined(
        tag("line", class_="grid", x1=0, x2="100%", y1=y, y2=y),
        tag("text", tick.text, class_="y", x=-8, y=y, dy=".32em"),
    )


def _below(tick: Tick, odd: bool) -> Markup:
    x = percent(tick.at)
    return joined(
        tag("line", class_="base", x1=x, x2=x, y1="100%", y2="100%", transform="translate(0 3)"),
        tag("text", tick.text, class_="x odd" if odd else "x", x=x, y="100%", dy=17),
    )


def percent(share: float) -> str:
    """A place in the chart: `12.5%`."""
    return f"{share * 100:.2f}".rstrip("0").rstrip(".") + "%"


def stretched(*shapes: Markup) -> Markup:
    """Shapes in units of WIDE, as wide and high as the chart."""
    return tag(
        "svg",
        shapes,
        viewBox=f"0 0 {WIDE} {WIDE}",
        preserveAspectRatio="none",
        width="100%",
        height="100%",
    )


# ── axes ─────────────────────────────────────────────────────────────────────


def top_of(values: Iterable[float | None], least: float = 0.0) -> float:
    """The upper edge of an axis from zero: a little above the highest value that is a number."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return max([*(value * 1.06 for value in known), least], default=0.0) or 1.0


def upwards(top: float, most: int = 4) -> list[Tick]:
    """Round values from zero on, one above it at least."""
    found = next(values for more in range(most, most + 9) if (values := ticks(top, more)))
    return [Tick(0.0, "0"), *(Tick(value / top, label(value)) for value in found)]


def time_ticks(begin: float, end: float, most: int = 8) -> list[Tick]:
    """The run's clock at human steps."""
    span = max(1.0, end - begin)
    step = next((step for step in TIME_STEPS if span / step <= most), 0)
    step = step or DAY * math.ceil(span / most / DAY)
    first = math.ceil(begin / step) * step
    return [
        Tick((at - begin) / span, clock(at * SECOND))
        for at in range(first, math.floor(end) + 1, step)
    ]


def log_axis(low: float, high: float, most: int) -> list[Tick]:
    """1-2-5 values between two."""
    span = math.log(high / low)
    return [
        Tick(math.log(value / low) / span, label(value)) for value in log_ticks(low, high, most)
    ]


# ── over time ────────────────────────────────────────────────────────────────


def bands(columns: Sequence[Column], kinds: Sequence[str], over: Over) -> Markup:
    """Nested bands from zero, the outermost drawn first: a class of colour for each, the innermost
    first. Where the outermost has no number it goes to the top and is marked there."""
    level = over.level.value if over.level else 0.0
    highest = top_of((value for column in columns for value in column.values), over.least)
    top = max(highest, level * 1.1 if level <= highest * 4 else 0.0)
    areas = [
        area([(c.begin, c.end, c.values[at]) for c in columns], kind, over, top)
        for at, kind in reversed(list(enumerate(kinds)))
    ]
    beyond = [c for c in columns if c.values and c.values[-1] == math.inf]
    return _timed(over, top, stretched(*areas), beyond_marks(beyond, over), hits(columns, over))


def lines(columns: Sequence[Column], kinds: Sequence[str], over: Over, filled: str = "") -> Markup:
    """A line for each value of the columns; the first one `filled` if a class is given for it."""
    top = top_of((value for column in columns for value in column.values), over.least)
    drawn = [
        step_line([(c.begin, c.end, c.values[at]) for c in columns], kind, over, top)
        for at, kind in enumerate(kinds)
    ]
    if filled:
        drawn[0] = area([(c.begin, c.end, c.values[0]) for c in columns], filled, over, top)
    return _timed(over, top, stretched(*drawn), hits(columns, over))


def _timed(over: Over, top: float, *inside: Markup) -> Markup:
    frame = Frame(
        over.label,
        time_ticks(over.begin, over.end, over.times) if over.times else (),
        upwards(top, over.most),
        over.height,
        over.unit,
    )
    level = across(over.level, top) if over.level and over.level.value <= top else None
    return chart(frame, *inside, joined(level), joined(*marks(over)))


Steps = Sequence[tuple[float, float, float | None]]


def area(steps: Steps, kind: str, over: Over, top: float) -> Markup:
    """From the base up to each step; gaps stay empty."""
    path = ""
    for run in _unbroken(steps):
        path += f"M{_x(run[0][0], over)} {WIDE}"
        path += "".join(f"V{_y(value, top)}H{_x(end, over)}" for _, end, value in run)
        path += f"V{WIDE}Z"
    return tag("path", class_=kind, d=path)


def step_line(steps: Steps, kind: str, over: Over, top: float) -> Markup:
    path = ""
    for run in _unbroken(steps):
        path += f"M{_x(run[0][0], over)} {_y(run[0][2], top)}"
        path += "".join(f"V{_y(value, top)}H{_x(end, over)}" for _, end, value in run)
    return tag("path", class_=f"line {kind}", d=path)


def _unbroken(steps: Steps) -> Iterator[list[tuple[float, float, float]]]:
    found: list[tuple[float, float, float]] = []
    for begin, end, value in steps:
        if found and (value is None or begin > found[-1][1]):
            yield found
            found = []
        if value is not None:
            found.append((begin, end, value))
    if found:
        yield found


def _x(second: float, over: Over) -> str:
    return _short((second - over.begin) / max(1e-9, over.end - over.begin) * WIDE)


def _y(value: float, top: float) -> str:
    return _short(WIDE - min(1.0, max(0.0, value / top)) * WIDE)


def _short(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def hits(columns: Sequence[Column], over: Over) -> Markup:
    """Invisible columns that say what they stand for when pointed at."""
    return stretched(
        *(
            tag(
                "rect",
                tag("title", column.text),
                class_="hit",
                x=_x(column.begin, over),
                y=0,
                width=_x(over.begin + column.end - column.begin, over),
                height=WIDE,
            )
            for column in columns
            if column.text
        )
    )


def beyond_marks(columns: Sequence[Column], over: Over) -> Markup:
    """A strip above what has no number because it falls among the failed."""
    return joined(
        *(
            tag(
                "rect",
                class_="beyond",
                x=percent(float(_x(column.begin, over)) / WIDE),
                y=-5,
                width=percent(float(_x(over.begin + column.end - column.begin, over)) / WIDE),
                height=4,
            )
            for column in columns
        )
    )


def across(level: Level, top: float) -> Markup:
    """A dashed line and its words."""
    y = percent(1 - level.value / top)
    return joined(
        tag("line", class_="limit", x1=0, x2="100%", y1=y, y2=y),
        tag("text", level.text, class_="limit-text", x="100%", y=y, dy=-4),
    )


def marks(over: Over) -> Iterator[Markup]:
    """Vertical lines with their signs on top; one that would lie on another stands above it, and
    where there is one already it has none."""
    free = [-1.0, -1.0]  # up to where the row of signs, and the one above it, are taken
    for moment in sorted(over.moments, key=lambda moment: moment.at):
        share = (moment.at - over.begin) / max(1e-9, over.end - over.begin)
        if not 0 <= share <= 1:
            continue
        x = percent(share)
        row = next((row for row in (0, 1) if share >= free[row]), None)
        if row is not None:
            free[row] = share + _NEAR
        yield tag(
            "g",
            tag("title", moment.text),
            tag("line", class_=f"moment {moment.kind}", x1=x, x2=x, y1=-4, y2="100%"),
            tag("text", moment.sign, class_=f"sign {moment.kind}", x=x, y=-7 - 10 * row)
            if row is not None
            else None,
        )
