"""The latency panel large: the bands over time, below them the distribution of what is in view."""

import numpy as np
from rich.segment import Segment
from textual.app import ComposeResult
from textual.containers import Horizontal

from dashboard.measures import ms_text, quantile_ms
from dashboard.scene import Scene
from dashboard.screens.live import LATENCY, LatencyChart
from dashboard.screens.run import RunScreen
from dashboard.sureness import InView
from dashboard.theme import ink
from dashboard.widgets.board import Board, Cells
from dashboard.widgets.engine import bar
from dashboard.widgets.table import Column, table
from loadbench import units
from loadbench.assurance import BRIEF
from loadbench.bin import failures
from loadbench.histogram import Histogram
from loadbench.report.certain import within

_SHARES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999)


def spread(found: Histogram, rows: int) -> list[tuple[float, float, int]]:
    """(from ms, to ms, requests) of up to `rows` steps of equal ratio between the extremes."""
    edges, counts = found.buckets()
    low, high = edges[0] / units.MS, edges[-1] / units.MS
    if low >= high:
        return [(low, high, int(counts.sum()))]
    steps = np.geomspace(low, high, rows + 1)
    place = np.clip(np.searchsorted(steps, edges / units.MS, side="left") - 1, 0, rows - 1)
    totals = np.bincount(place, weights=counts, minlength=rows).astype(int)
    return [(float(steps[at]), float(steps[at + 1]), int(totals[at])) for at in range(rows)]


class Distribution(Board):
    """A histogram of the answered requests; each row covers the same ratio."""

    def titles(self, scene: Scene) -> None:
        detail = f"[dim](answered, {scene.stretch}, ms)[/]"
        self.head(f"Distribution {detail}", "Distribution [dim](ms)[/]", "Distribution")

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        quiet = ink(self.ink.quiet)
        found = scene.visible.latency if scene.visible else None
        if found is None or not found.count:
            return [[Segment(" no requests in view", quiet)]]
        rows = spread(found, height)
        most = max(number for _, _, number in rows)
        room = max(4, width - 28)
        lines: list[Cells] = []
        for low, high, number in rows:
            over = scene.limit_ns is not None and high > scene.limit_ns / units.MS
            colour = self.ink.p99 if over else self.ink.p95
            name = f"{units.significant(low):>7} …{units.significant(high):>6} "
            blocks = bar(number / most, room)
            lines.append(
                [
                    Segment(name, quiet),
                    Segment(blocks.ljust(room), ink(colour)),
                    Segment(f"{units.count(number):>10}", ink(self.ink.text)),
                ]
            )
        return lines


class Percentiles(Board):
    """The percentiles of what was asked with their bands, and on how many requests each rests."""

    def __init__(self, sure: InView, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._sure = sure

    def titles(self, scene: Scene) -> None:
        found = self._sure.certainty(scene)
        effect = f"design effect {units.significant(found.effect, 2)}"
        below = [f"no ±: {found.why}", f"no ±: {BRIEF.get(found.why, found.why)}", "no ±"]
        if found.effect is not None:
            below = [effect, ""]
        self.head("Percentiles [dim](ms, ± at 95 %)[/]", below=below)

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        plain, window = ink(self.ink.text), scene.visible
        if window is None:
            return []
        asked = window.latency.count + failures(window) + scene.visible_overdue
        rows = []
        for share in _SHARES:
            value = ms_text(quantile_ms(window, share, scene.visible_overdue), scene.limit_ns)
            beyond = round(asked * (1 - share))
            rows.append([f"p{share * 100:g}", value, self._band(scene, share), units.count(beyond)])
        rows.append(["max", units.ms(window.latency.maximum), "", ""])
        columns = (Column("", left=True), Column("ms"), Column("±", 2), Column("beyond", 1))
        return table(columns, rows, width, (ink(self.ink.quiet), plain, plain))

    def _band(self, scene: Scene, share: float) -> str:
        """`±1.1`; `≥ 44.1` where nothing bounds it above."""
        window, found = scene.visible, self._sure.band(scene, share)
        value = quantile_ms(window, share, scene.visible_overdue) if window else None
        if found is None or value is None:
            return ""
        return within(value, (found.low / units.MS, found.high and found.high / units.MS)).strip(
            " ()"
        )


class Latency(RunScreen):
    """Chart above, distribution and percentiles below."""

    def body(self) -> ComposeResult:
        sure = InView()
        yield LatencyChart(LATENCY, sure, id="latency")
        with Horizontal(id="below"):
            yield Distribution(id="distribution", classes="panel")
            yield Percentiles(sure, id="percentiles", classes="panel")
