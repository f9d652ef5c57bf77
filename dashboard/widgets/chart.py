"""Charts over the visible time: bands, a line, a limit, moments, axes.

What was not measured is a gap, never zero. Columns that are over are computed once.
"""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import is_

from rich.segment import Segment
from textual.events import (
    Click,
    MouseDown,
    MouseEvent,
    MouseMove,
    MouseScrollDown,
    MouseScrollUp,
)
from textual.message import Message

from dashboard.measures import Reader
from dashboard.scene import Scene, last_column
from dashboard.theme import Palette, faded, ink
from dashboard.widgets.axis import Scale, Top, highest, lowest, time_axis
from dashboard.widgets.bands import (
    Grid,
    Point,
    draw_bands,
    draw_limit,
    draw_line,
    draw_moment,
    join,
)
from dashboard.widgets.board import NEVER, Board, Cells, Inspect
from loadbench.report.ticks import label
from loadbench.view import Bin

AXIS = 6  # cells left of the data: a label of four, a space, the line
_SMALL = 4  # rows below which an axis would leave nothing to see


class Timeline:
    """Bins → points, one a column; columns of the same bins as before are not computed anew."""

    def __init__(self, read: Reader) -> None:
        self._read = read
        self._known: dict[int, tuple[Sequence[Bin], Point]] = {}

    def points(self, scene: Scene, width: int) -> dict[int, Point]:
        """By place on the screen, 0 is the leftmost; columns without a value are left out."""
        grouped = scene.columns(width)
        known = self._known
        missing = [
            at for at, bins in grouped.items() if at not in known or not _same(known[at][0], bins)
        ]
        read = self._read([grouped[at] for at in missing])
        fresh = dict(zip(missing, read, strict=True))
        self._known = {
            at: (bins, fresh[at] if at in fresh else known[at][1]) for at, bins in grouped.items()
        }
        first = last_column(scene.span, scene.end, width) - width + 1
        return {
            at - first: point
            for at, (_, point) in self._known.items()
            if any(value is not None for value in (*point.bands, point.line))
        }


def _same(ones: Sequence[Bin], others: Sequence[Bin]) -> bool:
    return len(ones) == len(others) and all(map(is_, ones, others))


@dataclass(frozen=True, slots=True)
class Plot:
    """What a chart shows: how a column's bins become a point, and in which colours."""

    read: Reader
    colours: Callable[[Palette], Sequence[str]]
    unit: str
    limit: Callable[[Scene], float | None] = lambda scene: None
    top: float | None = None  # fixed, as 100 for a share
    log: bool = False  # may be shown on a logarithmic scale
    empty: str = "no data yet"


@dataclass
class Dragged(Message):
    """The picture was moved: its right edge shall be this second."""

    end: int


@dataclass
class Wheel(Message):
    """Closer (negative) or wider, around the second under the mouse."""

    steps: int
    second: int | None


class Chart(Board, can_focus=True):
    """A plot over the visible time. Closed columns are computed once.

    A click looks at the second under it, dragging moves the picture, the wheel zooms."""

    _held: tuple[int, int] | None = None  # where the mouse went down, and the right edge then
    _dragged = False
    dims = False  # cells have two colours, and dim is the ink only: bands would change places

    def __init__(self, plot: Plot, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.plot = plot
        self._top = Top()
        self._timeline = Timeline(plot.read)

    @property
    def ink(self) -> Palette:
        if self.scene is None or not self.scene.stale:
            return super().ink
        return faded(self.app.theme, self.background_colors[1])

    def plot_now(self, plot: Plot) -> None:
        """Shows another quantity: what there is to see of a run is known only while it runs."""
        if plot is not self.plot:
            self.plot, self._top, self._timeline = plot, Top(), Timeline(plot.read)

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        axis = self._axis(width, height)
        wide, high = width - axis, height - (1 if axis else 0)
        points = self._points(scene, wide)
        if not points:
            return _message(self._empty(scene), width, height, self.ink.quiet)
        limit = self.plot.limit(scene)
        scale = self._scale(scene, points, limit, high)
        grid = draw_bands(points, self.plot.colours(self.ink), wide, scale)
        draw_line(grid, points, self.ink.asked, scale)
        draw_limit(grid, scale.row(limit) if limit else None, self.ink.limit)
        self._moments(grid, scene, wide)
        rows = [join(row) for row in grid]
        return self._framed(rows, scale, scene, wide) if axis else rows

    def _empty(self, scene: Scene) -> str:
        latest = scene.view.latest
        if latest is not None and latest.stage == "warmup" and scene.going:
            return "warming up, not recorded"
        if latest is None and scene.going:
            return scene.source.said or "waiting for the run"
        if scene.over and scene.view.newest is None:
            return NEVER
        return self.plot.empty

    def _points(self, scene: Scene, width: int) -> dict[int, Point]:
        return self._timeline.points(scene, width)

    def _scale(
        self, scene: Scene, points: Mapping[int, Point], limit: float | None, height: int
    ) -> Scale:
        values = [(*point.bands, point.line) for point in points.values()]
        peak = highest(values)
        log = self.plot.log and scene.sight.log
        if limit and (log or peak > limit / 3):
            peak = max(peak, limit)
        if self.plot.top is not None:
            return Scale(self.plot.top, height)
        place = None if scene.sight.speed else scene.sight.at
        key = (scene.source.run, scene.span, log, place)
        top = self._top.update(peak, scene.newest, key)
        if log:
            low = lowest(values)
            base = 10.0 ** math.floor(math.log10(low)) if low else 0.0
            return Scale(max(top, base * 10), height, low=base)
        return Scale(top, height)

    def _moments(self, grid: Grid, scene: Scene, width: int) -> None:
        """Alerts and marks: what happened shows in every chart."""
        for event in scene.view.events:
            if event.kind in ("alert", "mark"):
                alert = event.kind == "alert"
                colour = self.ink.p99 if alert else self.ink.limit
                self._moment(grid, scene, width, event.second, "▲" if alert else "◆", colour)

        if scene.sight.cursor is not None:
            self._moment(grid, scene, width, scene.sight.cursor, "▽", self.ink.text)
        for sign, kept in zip("AB", scene.sight.moments, strict=False):
            second = min(kept.second, scene.newest - 1)
            self._moment(grid, scene, width, second, sign, self.ink.ok)

    def _moment(
        self, grid: Grid, scene: Scene, width: int, second: int, sign: str, colour: str
    ) -> None:
        at = second * width // scene.span - self._first(scene, width)
        if scene.begin <= second < scene.end and 0 <= at < width:
            draw_moment(grid, at, sign, colour)

    @staticmethod
    def _first(scene: Scene, width: int) -> int:
        return last_column(scene.span, scene.end, width) - width + 1

    def second_at(self, x: int) -> int | None:
        """The second that is drawn at this column of the widget's inside; of a wide column its
        first alert or mark, else its middle. None beside the data."""
        scene, axis = self.scene, self._axis(*self.size)
        width = self.size.width - axis
        if scene is None or not 0 <= x - axis < width:
            return None
        at = self._first(scene, width) + x - axis
        low = -(-at * scene.span // width)
        high = max(low + 1, -(-(at + 1) * scene.span // width))
        for event in scene.view.events:
            if event.kind in ("alert", "mark") and low <= event.second < high:
                return event.second
        second = (low + high - 1) // 2
        return second if scene.begin <= second < scene.end and second >= 0 else None

    def on_mouse_down(self, event: MouseDown) -> None:
        if event.button == 1 and self.scene is not None:
            self._held, self._dragged = (event.screen_x, self.scene.end), False
            self.capture_mouse()

    def on_mouse_move(self, event: MouseMove) -> None:
        width = self.size.width - self._axis(*self.size)
        if self._held is None or self.scene is None or width < 1:
            return
        x, end = self._held
        if self._dragged or abs(event.screen_x - x) > 1:
            self._dragged = True
            self.post_message(Dragged(end - (event.screen_x - x) * self.scene.span // width))

    def on_mouse_up(self) -> None:
        self._held = None
        self.release_mouse()

    def on_click(self, event: Click) -> None:
        offset = event.get_content_offset(self)
        second = None if offset is None or self._dragged else self.second_at(offset.x)
        if second is not None:
            self.post_message(Inspect(second))

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self._wheel(event, -1)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self._wheel(event, 1)

    def _wheel(self, event: MouseEvent, steps: int) -> None:
        event.stop()
        offset = event.get_content_offset(self)
        self.post_message(Wheel(steps, None if offset is None else self.second_at(offset.x)))

    @staticmethod
    def _axis(width: int, height: int) -> int:
        return AXIS if width > 3 * AXIS and height >= _SMALL else 0

    def _framed(self, rows: list[Cells], scale: Scale, scene: Scene, width: int) -> list[Cells]:
        quiet = ink(self.ink.quiet)
        at = {scale.row(value): label(value) for value in scale.ticks()}
        framed = [
            [Segment(f"{at.get(y, ''):>{AXIS - 2}} {'┤' if y in at else '│'}", quiet), *row]
            for y, row in enumerate(rows)
        ]
        live = not scene.past and scene.going
        below = time_axis(scene.span, width, None if live else scene.end)
        framed.append([Segment(f"{self.plot.unit:>{AXIS - 2}} └{below}", quiet)])
        return framed


def _message(text: str, width: int, height: int, colour: str) -> list[Cells]:
    lines = textwrap.wrap(text, width)
    blank: list[Cells] = [[] for _ in range(max(0, (height - len(lines)) // 2))]
    return [*blank, *([Segment(line.center(width), ink(colour))] for line in lines)]
