"""A tile: one number large, its unit and bounds in the border, its recent course below.

On a short terminal the same in two rows: name and number, then the course.
"""

from collections.abc import Callable
from typing import NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual.renderables.digits import Digits

from dashboard.measures import Reader
from dashboard.scene import Scene
from dashboard.theme import ink
from dashboard.widgets.bands import Spark
from dashboard.widgets.board import Board, Cells
from dashboard.widgets.chart import Timeline

_LARGE = 4
_SHORTEST = 5  # letters to which a name is cut so that the number has its unit


def digits(text: str, style: Style) -> list[Cells]:
    """Three rows of large digits."""
    parts = (part for part in Digits(text).render(style) if isinstance(part, Segment))
    return [[Segment(part.text, style)] for part in parts if part.text != "\n"]


class Reading(NamedTuple):
    """What a tile says now."""

    title: str
    unit: str
    value: str
    note: str = ""
    short: str = ""  # the title in one word
    close: str = ""  # the unit glued to the value where there is no border
    alert: bool = False
    brief: str = ""  # the note where there is less room for it


class Tile(Board):
    """`read` gives the words of a scene, `course` a column of the spark, which stays as it was
    while somebody is on the way: all sparks take as long as the charts, which show the same."""

    def __init__(
        self,
        read: Callable[[Scene], Reading],
        course: Callable[[Scene], Reader],
        id: str | None = None,
        large: str = "",
    ) -> None:
        """`large` is the panel that `enter` shows instead of the tile; without one it takes no
        keys."""
        super().__init__(id=id, classes="tile")
        self.can_focus = bool(large)
        self.large = large
        self._read = read
        self._course = course
        self._timeline: Timeline | None = None
        self._reads: object = None
        self._values: list[float | None] = []
        self._reading = Reading("", "", "")

    def titles(self, scene: Scene) -> None:
        reading = self._reading = self._read(scene)
        sign = "▲ " if reading.alert else ""
        self.head(
            f"{sign}{reading.title} [dim]{reading.unit}[/]",
            f"{sign}{reading.title}",
            f"{sign}{reading.short}",
            below=(reading.note, reading.brief),
        )
        self.set_class(reading.alert, "-alert")

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        reading, spark = self._reading, self._spark(scene, width)
        if height < _LARGE:
            return [self._line(reading, width), [spark]]
        style = ink(self.ink.text)
        if Digits.get_width(reading.value) > width or not any(map(str.isdigit, reading.value)):
            return [
                [],
                [Segment(reading.value[:width], ink(self.ink.text, bold=True))],
                [],
                [spark],
            ]
        return [*digits(reading.value, style), [spark]]

    def _line(self, reading: Reading, width: int) -> Cells:
        colour = self.ink.p99 if reading.alert else self.ink.text
        quiet = ink(self.ink.quiet)
        name, sign = reading.short, "▲" if reading.alert else ""
        room = width - 1 - len(reading.value) - len(sign) - 1
        known = any(map(str.isdigit, reading.value))
        spare = room - len(reading.close)
        unit = reading.close if known and spare >= min(len(name), _SHORTEST) else ""
        return [
            Segment(f"{name[: max(0, room - len(unit))]} ", quiet),
            Segment(sign + reading.value, ink(colour, bold=True)),
            Segment(unit, quiet),
        ]

    def _spark(self, scene: Scene, width: int) -> Segment:
        reads = self._course(scene)
        if self._timeline is None or reads is not self._reads:
            self._timeline, self._reads, self._values = Timeline(reads), reads, []
        wide = max(1, width - 1 if self.size.height < _LARGE else width)
        if not scene.hasty or len(self._values) != wide:
            points = self._timeline.points(scene, wide)
            self._values = [points[x].bands[0] if x in points else None for x in range(wide)]
        return Spark(self._values).cells(ink(self.ink.p95))
