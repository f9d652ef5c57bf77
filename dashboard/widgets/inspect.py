"""One line on the second that is looked at: its figures, and what happened in it."""

from collections.abc import Iterator

from rich.segment import Segment
from rich.style import Style

from dashboard.measures import (
    brief,
    cards,
    error_share,
    most,
    ms_text,
    number,
    parts_ms,
    quantile_ms,
)
from dashboard.scene import Scene
from dashboard.theme import ink
from dashboard.widgets.board import Board, Cells
from dashboard.widgets.panels import moment
from loadbench import units
from loadbench.model import Window
from loadbench.streams import RESTS
from loadbench.view import merged, pieces


class Inspected(Board):
    """Shown only while a second is looked at."""

    def show(self, scene: Scene) -> None:
        self.display = scene.sight.cursor is not None
        super().show(scene)

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        second = scene.sight.cursor
        if second is None:
            return []
        found = merged(pieces(scene.view, second, second + 1))
        cells: Cells = [Segment(f" ▽ {units.clock(second * units.SECOND)}", self._bold())]
        room = width - cells[0].cell_length
        for event in scene.view.events:
            if event.second == second and event.kind in (
                "alert",
                "ended",
                "unknown",
                "mark",
                "failure",
            ):
                _, sign, colour = moment(event, self.ink)
                text = event.text if len(event.text) <= room // 2 else f"{event.text[: room // 2]}…"
                cells.append(Segment(f"  {sign} {text}", ink(colour)))
                room -= len(text) + 4
                break
        if found is None:
            text = "reading, or nothing was recorded"
            return [[*cells, Segment(f"  {text}"[:room], ink(self.ink.quiet))]]
        for name, value, unit in self._figures(scene, found):
            if len(name) + len(value) + len(unit) + 3 > room:
                break
            cells += [Segment(f"  {name} ", ink(self.ink.quiet)), Segment(value, self._bold())]
            cells.append(Segment(unit, ink(self.ink.quiet)))
            room -= len(name) + len(value) + len(unit) + 3
        return [cells]

    def _bold(self) -> Style:
        return ink(self.ink.text, bold=True)

    def _figures(self, scene: Scene, window: Window) -> Iterator[tuple[str, str, str]]:
        """The most telling first: what does not fit is left out from the end."""
        late = scene.overdue + scene.unfinished
        tail, middle = (
            ms_text(quantile_ms(window, share, late), scene.limit_ns) for share in (0.99, 0.5)
        )
        yield "done", number(window.done), f" of {number(window.asked)}/s"
        yield "p99", tail, " ms"
        yield "failed", units.percent(error_share(window)), "%"
        server, service = window.server, 0.0
        if server is not None and server.waiting is not None:
            yield "waiting", number(server.waiting), ""
        for name, value in parts_ms(window, service).items():
            if name not in RESTS:
                yield name, brief(value), " ms"
        if server is not None and server.mean_batch is not None:
            yield "batch", units.significant(server.mean_batch), ""
        gpu = most(cards(scene, window), lambda card: card.utilization)
        if gpu is not None:
            yield "GPU", units.percent(gpu.utilization), "%"
            if gpu.sm_clock_mhz is not None:
                yield "clock", number(gpu.sm_clock_mhz), " MHz"
        if window.machine is not None and window.machine.cpu is not None:
            yield "CPU", units.percent(window.machine.cpu), "%"
        yield "p50", middle, " ms"
        yield "in flight", number(window.in_flight), ""
