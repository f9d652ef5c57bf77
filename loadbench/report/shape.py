"""A load shape drawn as text before anything runs: rate over time, and the phases in a list.

It draws what `shape` gives the load generator, and leaves printing to others.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from loadbench.errors import SpecError
from loadbench.loadspec import LoadSpec
from loadbench.shape import Phase, arrivals, length_ns, replay
from loadbench.units import SECOND, clock, count, duration, significant

_BLOCKS = " ▁▂▃▄▅▆▇█"
_STEPS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18_000, 36_000, 72_000)
_LISTED = 40  # phases
_COUNTED = 5_000_000  # requests; of more the number is not drawn but expected
_APART = 10  # columns between the ticks of time
_MARGIN = 13  # columns for the axis of rates


def shape_text(load: LoadSpec, capacity: float | None, width: int, height: int) -> str:
    """The load as a chart of `width` columns and `height` rows and a list of its phases.

    Without a `capacity` (requests per second) rates in % stay in %. Raises SpecError if they
    would have to share the axis with rates per second.
    """
    if load.arrivals == "journey":
        return _journey(load)
    phases, unit = _resolved(load, capacity)
    lines = [*_listed(load, phases, unit), "", _whole(load, phases, unit)]
    if drawn := chart_lines(load, capacity, width, height):
        lines = [*drawn, "", *lines]
    return "\n".join(line.rstrip() for line in lines)


def chart_lines(load: LoadSpec, capacity: float | None, width: int, height: int) -> list[str]:
    """The chart alone: `height` rows, the axis of time and its labels. Nothing for a load that has
    no rate: a closed loop, all at once, a journey. Raises SpecError as `shape_text` does."""
    if load.arrivals in ("closed", "once", "journey"):
        return []
    phases, unit = _resolved(load, capacity)
    return list(_chart(load, phases, unit, (width, height)))


def whole_text(load: LoadSpec) -> str:
    """One line: how requests arrive, how many, how long. Raises SpecError as `shape_text` does."""
    return _journey(load) if load.arrivals == "journey" else _whole(load, *_resolved(load, None))


def rates_text(load: LoadSpec) -> str:
    """The rate in a word or two: `300/s`, `20 → 300/s`, `60 … 140 %`; empty where there is none."""
    if load.arrivals in ("closed", "journey") or not load.resolve(1.0):
        return ""
    phases, unit = _resolved(load, None)
    if len(phases) == 1:
        return _rate(phases[0], unit)
    rates = [rate for phase in phases for rate in (phase.start, phase.end)]
    low, high = min(rates), max(rates)
    return f"{_number(low)} … {_number(high)}{unit}" if low < high else f"{_number(low)}{unit}"


def _resolved(load: LoadSpec, capacity: float | None) -> tuple[tuple[Phase, ...], str]:
    """The phases and the unit of their rates."""
    relative = capacity is None and _relative(load)
    return load.resolve(100.0 if relative else capacity), " %" if relative else "/s"


def _journey(load: LoadSpec) -> str:
    """What a Locust file will do is known only to itself."""
    length = sum(phase.length for phase in load.phases)
    users = "1 user" if load.users == 1 else f"{count(load.users)} users"
    many = f"{users} of {load.locustfile}, each waiting for its answers"
    if length:
        return f"{many}, for {duration(length)} (a LoadTestShape in it may change that)"
    return f"{many}, for 1 minute, or what a LoadTestShape in it says"


def _relative(load: LoadSpec) -> bool:
    rates = [rate for phase in load.phases for rate in (phase.rate, phase.start, phase.end) if rate]
    found = {rate.relative for rate in rates if rate.value}
    if len(found) > 1:
        hint = "give what 100 % is: --capacity 500"
        raise SpecError("rates in % and rates per second have no common axis", hint)
    return True in found


def _whole(load: LoadSpec, phases: Sequence[Phase], unit: str) -> str:
    """The last line: how requests arrive, how many, how long."""
    length = duration(length_ns(phases))
    if load.arrivals == "closed":
        many = "1 request" if load.concurrency == 1 else f"{count(load.concurrency)} requests"
        return f"closed loop: {many} in flight for {length}"
    how = {
        "gamma": f"gamma arrivals, cv {load.cv}, seed {load.seed}",
        "poisson": f"poisson arrivals, seed {load.seed}",
        "trace": f"from {load.trace.path if load.trace else ''}",
        "once": "all at the beginning",
    }.get(load.arrivals, f"{load.arrivals} arrivals")
    if unit != "/s":
        return f"{how}: {length}, rates in % of what a calibration finds"
    number = math.fsum(phase.requests for phase in phases)
    if number > _COUNTED:
        return f"{how}: about {count(round(number))} requests in {length}"
    return f"{how}: {count(sum(map(len, _due(load, phases))))} requests in {length}"


def _due(load: LoadSpec, phases: Sequence[Phase]) -> Iterator[NDArray[np.int64]]:
    """As the load generator makes them."""
    trace = load.replay
    if trace:
        return replay(trace.due, length_ns(phases), trace.loop_ns)
    return arrivals(phases, load.arrivals, load.seed, load.cv or 1.0)


def _listed(load: LoadSpec, phases: Sequence[Phase], unit: str) -> Iterator[str]:
    begin = 0
    rows = []
    for number, phase in enumerate(phases[:_LISTED], 1):
        requests = count(round(phase.requests)) if unit == "/s" else ""
        rate = "" if load.arrivals == "closed" else _rate(phase, unit)
        requests = "" if load.arrivals == "closed" else requests
        rows.append((str(number), clock(begin), rate, duration(phase.length_ns), requests))
        begin += phase.length_ns
    heads = ("phase", "begins", "rate", "for", "requests")
    widths = [max(map(len, cells)) for cells in zip(heads, *rows, strict=True)]
    used = [any(cells) for cells in zip(*rows, strict=True)]
    for row in (heads, *rows):
        cells = [
            cell.ljust(width) if column == 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cell for cell, is_used in zip(cells, used, strict=True) if is_used)
    if len(phases) > _LISTED:
        yield f"… and {count(len(phases) - _LISTED)} more"


def _rate(phase: Phase, unit: str) -> str:
    start, end = _number(phase.start), _number(phase.end)
    if phase.start == phase.end:
        return f"{start}{unit}"
    if phase.period_ns is None:
        return f"{start} → {end}{unit}"
    kind = "sine" if phase.sine else "sawtooth"
    return f"{start} … {end}{unit}, {kind} of {duration(phase.period_ns)}"


def _number(rate: float) -> str:
    whole = round(rate)
    return count(whole) if abs(rate - whole) < 1e-6 else significant(rate)


def _chart(
    load: LoadSpec, phases: Sequence[Phase], unit: str, size: tuple[int, int]
) -> Iterator[str]:
    width, height = size
    columns = max(_APART, width - _MARGIN)
    rates = _columns(load, phases, columns)
    highest = max(rates) or 1.0
    step = _step(highest, max(1, height // 3))
    top = step * math.ceil(highest / step - 1e-9)
    labels = {
        round(tick * step / top * height): f"{_number(tick * step)}{unit}"
        for tick in range(round(top / step) + 1)
    }
    room = max(map(len, labels.values()))
    eighths = [max(1, round(rate / top * height * 8)) if rate else 0 for rate in rates]
    for row in range(height, 0, -1):
        cells = "".join(_BLOCKS[min(8, max(0, level - 8 * (row - 1)))] for level in eighths)
        yield f"{labels.get(row, ''):>{room}} {'┤' if row in labels else '│'}{cells}"
    yield from _time_axis(length_ns(phases), columns, f"{labels[0]:>{room}}")


def _time_axis(whole: int, columns: int, zero: str) -> Iterator[str]:
    """The line under the chart and its labels; ticks are at least `_APART` columns apart."""
    seconds = whole / SECOND
    step = next((s for s in _STEPS if s * columns >= _APART * seconds), _STEPS[-1])
    ticks = {
        int(at * columns / seconds): clock(at * SECOND) for at in range(0, math.ceil(seconds), step)
    }
    yield f"{zero} └" + "".join("┬" if column in ticks else "─" for column in range(columns))
    labels = ""
    for column, label in ticks.items():
        labels = labels.ljust(column) + label
    yield " " * (len(zero) + 2) + labels


def _step(highest: float, ticks: int) -> float:
    """The smallest 1, 2 or 5 times a power of ten that needs at most so many ticks."""
    least = highest / ticks
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= least * (1 - 1e-9))


def _columns(load: LoadSpec, phases: Sequence[Phase], columns: int) -> list[float]:
    """The rate in each column: the highest in it, so that a short spike is not lost; of a trace
    the mean, as it has no other."""
    whole = length_ns(phases)
    if load.trace:
        found = np.zeros(columns, np.int64)
        for due in _due(load, phases):
            found += np.histogram(due, columns, (0, whole))[0]
        return [float(number) / (whole / SECOND / columns) for number in found]
    rates = [0.0] * columns
    begin = 0
    for phase in phases:
        end = begin + phase.length_ns
        for column in range(begin * columns // whole, (end - 1) * columns // whole + 1):
            left = max(begin, column * whole // columns) - begin
            right = min(end, (column + 1) * whole // columns) - begin
            rates[column] = max(rates[column], _highest(phase, left, right))
        begin = end
    return rates


def _highest(phase: Phase, left: int, right: int) -> float:
    """The highest rate of a phase in [left, right)."""
    if right - left >= phase.period:
        return max(phase.start, phase.end)
    return max(phase.rate(left + (right - 1 - left) * part // 8) for part in range(9))
