"""A run as columns over time: stretches of equal length, few enough for a chart and a table.

Percentiles are those of all requests of a stretch, rates its mean, the queue its deepest; of the
machine shares and watts are means, memory its highest. What has no data is None, never 0.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from loadbench import units
from loadbench.bin import Bin, failures
from loadbench.histogram import Histogram
from loadbench.merge import machines
from loadbench.model import Gpu, Machine, Start
from loadbench.report.svg import Moment
from loadbench.report.ticks import TIME_STEPS
from loadbench.units import SECOND, clock
from loadbench.view import View, bins

MOST = 240  # columns
_QUANTILES = (0.5, 0.95, 0.99)
_MOMENTS = 40


class Stretch(NamedTuple):
    """One column. Rates per second, latencies in ms (infinite among the failed), shares as such,
    memory in GB."""

    begin: int
    end: int
    seconds: int  # of it that were recorded
    asked: float
    done: float
    failed: float
    latency: tuple[float | None, ...]
    in_flight: int
    queue: int | None
    cpu: float | None
    engine: float | None  # of a core
    cards: tuple[Gpu, ...]  # that served
    drained: bool = False  # nothing is due any more, what is open is waited for

    @property
    def when(self) -> str:
        return clock(self.begin * SECOND)


def timeline(view: View, most: int = MOST) -> list[Stretch]:
    """The recorded part of a run, in order."""
    first, newest = view.first, view.newest
    if first is None or newest is None:
        return []
    width = _width(newest - first, most)
    groups: dict[int, list[Bin]] = {}
    for bin in bins(view, first, newest):
        groups.setdefault((bin.second - first) // width, []).append(bin)
    return [_stretch(group, view.start) for group in groups.values()]


def _width(span: int, most: int) -> int:
    """Seconds of a column: a human number of them."""
    needed = max(1.0, span / most)
    found = next((step for step in TIME_STEPS if step >= needed), 0)
    return found or math.ceil(needed / 3600) * 3600


def _stretch(found: Sequence[Bin], start: Start | None) -> Stretch:
    seconds = sum(bin.seconds for bin in found)
    beyond = sum(failures(bin.window) for bin in found)
    (values,) = Histogram.quantiles([[bin.window.latency for bin in found]], _QUANTILES, [beyond])
    depths = [bin.deepest for bin in found if bin.deepest is not None]
    machine = machines([bin.window.machine for bin in found if bin.window.machine])
    engine = machine.processes.get("engine") if machine else None
    return Stretch(
        begin=found[0].second,
        end=found[-1].until,
        seconds=seconds,
        asked=sum(bin.window.asked for bin in found) / seconds,
        done=sum(bin.window.done for bin in found) / seconds,
        failed=beyond / seconds,
        latency=tuple(None if value is None else value / units.MS for value in values),
        in_flight=max(bin.fullest for bin in found),
        queue=max(depths, default=None),
        cpu=machine.cpu if machine else None,
        engine=engine.cpu if engine else None,
        cards=cards_of(machine, start),
        drained=all(bin.window.stage == "drain" for bin in found),
    )


def cards_of(machine: Machine | None, start: Start | None) -> tuple[Gpu, ...]:
    """The GPU that serves the model, or all that a target told of; none on a CPU."""
    return machine.on(start.device) if machine and start else ()


def moments(view: View) -> list[Moment]:
    """Alerts, what ended them, and marks, as charts show them."""
    kinds = {
        "alert": ("▲", "alert"), "ended": ("✓", "ended"), "unknown": ("○", "ended"),
        "mark": ("◆", "mark"),
    }  # fmt: skip
    found = [
        Moment(event.second, *kinds[event.kind], f"{clock(event.second * SECOND)} {event.text}")
        for event in view.events
        if event.kind in kinds
    ]
    return found[:_MOMENTS]


def ms(value: float | None) -> str:
    """`46.2 ms`, `> limit` where it falls among the failed."""
    if value is not None and math.isinf(value):
        return "among the failed"
    return f"{units.significant(value)} ms"
