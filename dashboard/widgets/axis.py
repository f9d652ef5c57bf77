"""The arithmetic of a chart's axes: ticks, labels, where a value falls, when the top may sink."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadbench import units
from loadbench.report.ticks import TIME_STEPS, log_ticks, ticks

HEADROOM = 1.25
SINK_S = 10


def ago(seconds: int) -> str:
    """How long before the right edge: now, -45s, -3m, -1m30, -2h."""
    if seconds == 0:
        return "now"
    if seconds < 60:
        return f"-{seconds}s"
    if seconds < 3600:
        rest = seconds % 60
        return f"-{seconds // 60}m{rest:02d}" if rest else f"-{seconds // 60}m"
    minutes = seconds % 3600 // 60
    return f"-{seconds // 3600}h{minutes:02d}" if minutes else f"-{seconds // 3600}h"


def time_axis(span: int, width: int, now: int | None) -> str:
    """Labels below the columns: ages up to now, or the clock when the right edge is `now` second
    of the run."""
    room = max(2, width // 12)
    step = next((step for step in TIME_STEPS if span / step <= room), TIME_STEPS[-1])
    cells = [" "] * width
    offset = 0 if now is None else now % step
    marks = [0] if now is not None and offset else []
    marks += list(range(offset, span + 1, step))
    for age in marks:
        text = ago(age) if now is None else units.clock((now - age) * units.SECOND)
        if now is not None and now - age < 0:
            continue
        at = width - 1 - age * (width - 1) // span
        left = max(0, min(width - len(text), at - len(text) + 1))
        around = cells[max(0, left - 1) : left + len(text) + 1]
        if len(text) <= width and all(cell == " " for cell in around):
            cells[left : left + len(text)] = text
    return "".join(cells)


@dataclass(frozen=True, slots=True)
class Scale:
    """From a value to a height in eighths of a cell."""

    top: float
    height: int  # cells
    low: float = 0.0  # above zero: a logarithmic scale from here

    def eighths(self, value: float) -> int:
        """0 … 8·height. What is above zero has at least the lowest eighth: it is not nothing."""
        most = self.height * 8
        if value <= 0:
            return 0
        if value >= self.top:  # infinite too: a percentile among the failed
            return most
        return max(1, min(most, round(self._share(value) * most)))

    def row(self, value: float) -> int | None:
        """The row (0 is the uppermost) that a line at this value runs through."""
        share = self._share(value) if value > 0 else 0.0
        if share > 1:
            return None
        return self.height - 1 - min(self.height - 1, max(0, int(share * self.height - 1e-9)))

    def _share(self, value: float) -> float:
        if not self.low:
            return value / self.top
        if value <= self.low:
            return 0.0
        return math.log(value / self.low) / math.log(self.top / self.low)

    def ticks(self) -> list[float]:
        most = max(2, self.height // 3)
        return log_ticks(self.low, self.top, most) if self.low else ticks(self.top, most)


class Top:
    """The top of an automatic axis: rises at once, sinks after 10 s of much lower values."""

    def __init__(self) -> None:
        self.value = 0.0
        self._key: object = None
        self._low_since: int | None = None

    def update(self, highest: float, second: int, key: object) -> float:
        """`key` is what the picture shows (zoom, place): another one starts afresh."""
        wanted = highest * HEADROOM if highest > 0 else 1.0
        if key != self._key or highest > self.value:
            self._key, self.value, self._low_since = key, wanted, None
        elif wanted > self.value * 0.75:
            self._low_since = None
        elif self._low_since is None:
            self._low_since = second
        elif second - self._low_since >= SINK_S:
            self.value, self._low_since = wanted, None
        return self.value


def highest(columns: Sequence[Sequence[float | None]]) -> float:
    """The largest finite value; 0 when there is none."""
    known = (value for column in columns for value in column if value is not None)
    return max((value for value in known if math.isfinite(value)), default=0.0)


def lowest(columns: Sequence[Sequence[float | None]]) -> float:
    """The smallest value above zero; 0 when there is none."""
    known = (value for column in columns for value in column if value is not None and value > 0)
    return min(known, default=0.0)
