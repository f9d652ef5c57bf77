"""Two moments of the run beside each other: what changed, in sentences and in a table."""

import textwrap
from collections.abc import Sequence

from rich.segment import Segment
from textual.app import ComposeResult
from textual.geometry import Size

from dashboard.moments import Moment, Row, rows, sentences
from dashboard.scene import Scene
from dashboard.screens.run import RunScreen
from dashboard.theme import ink
from dashboard.widgets.board import Board, Cells
from dashboard.widgets.table import Column, table
from loadbench import units

HOW = (
    "Two moments are compared here. Go to one (← →, [ ], a click into a chart) and press ,"
    " for A; go to the other and press , again for B. Each stands for the 10 s that lead to it."
)

_MORE = "… more: enter makes this large"


def _clock(moment: Moment) -> str:
    return units.clock(moment.second * units.SECOND)


def _texts(scene: Scene) -> Sequence[str]:
    moments = scene.sight.moments
    if len(moments) < 2:
        kept = [f"A is kept: {_clock(moments[0])}."] if moments else []
        return [*kept, HOW]
    return sentences(moments[0], moments[1], scene.view)


class Changes(Board, can_focus=True):
    """The sentences, what users felt first. Where they are too many for its place it says so, and
    how they are to be seen."""

    def show(self, scene: Scene) -> None:
        before = self.get_content_height(self.size, self.size, self.size.width)
        super().show(scene)
        if self.get_content_height(self.size, self.size, self.size.width) != before:
            self.refresh(layout=True)

    def titles(self, scene: Scene) -> None:
        moments = scene.sight.moments
        if len(moments) == 2:
            self.head(f"What changed from A {_clock(moments[0])} to B {_clock(moments[1])}")
        else:
            self.head("What changed between two moments")

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._lines(self.scene, width)) if self.scene and width else 1

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        lines = self._lines(scene, width)
        if len(lines) <= height:
            return lines
        more = [Segment(_MORE[: max(0, width)], ink(self.ink.quiet))]
        return [*lines[: height - 1], more]

    def _lines(self, scene: Scene, width: int) -> list[Cells]:
        lines: list[Cells] = []
        for number, text in enumerate(_texts(scene)):
            first, *rest = textwrap.wrap(text, max(20, width - 2)) or [""]
            style = ink(self.ink.text, bold=number == 0)
            lines.append([Segment("· ", ink(self.ink.quiet)), Segment(first, style)])
            lines += [[Segment(f"  {line}", style)] for line in rest]
        return lines


class Figures(Board, can_focus=True):
    """Every figure that one of the two has; what changed stands out."""

    def titles(self, scene: Scene) -> None:
        hidden = len(self._rows(scene)) - max(1, self.size.height - 1)
        below = f"{hidden} more" if hidden > 0 and self.size.height else ""
        title = "Figures [dim](each of 10 s; queue … network: the mean request)[/]"
        self.head(title, "Figures", below=(below,))

    def _rows(self, scene: Scene) -> list[Row]:
        if len(scene.sight.moments) < 2:
            return []
        one, two = scene.sight.moments
        return rows(one, two, scene.limit_ns)

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        found = self._rows(scene)
        if not found:
            return []
        one, two = scene.sight.moments
        columns = (
            Column("", left=True),
            Column(f"A {_clock(one)}"),
            Column(f"B {_clock(two)}"),
            Column("B vs A", left=True),
        )
        if len(found) > height - 1:  # what changed must not be what is cut
            found = sorted(found, key=lambda row: row.change in ("≈ same", ""))
        plain, quiet = ink(self.ink.text), ink(self.ink.quiet)
        lines = table(columns, [list(row) for row in found], width, (quiet, plain, plain))
        for line, row in zip(lines[1:], found, strict=False):
            if row.change not in ("≈ same", ""):
                line[0] = line[0]._replace(style=ink(self.ink.text, bold=True))
        return lines


class Difference(RunScreen):
    """Sentences above, figures below."""

    AUTO_FOCUS = "Changes"

    def body(self) -> ComposeResult:
        yield Changes(id="changes", classes="panel")
        yield Figures(id="figures", classes="panel")
