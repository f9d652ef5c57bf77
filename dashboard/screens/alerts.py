"""Screen 3, Alerts: where each rule stands, what it did in this run, and what casts doubt on it."""

import textwrap

from rich.segment import Segment
from textual.app import ComposeResult
from textual.geometry import Size

from dashboard.scene import Scene
from dashboard.screens.run import RunScreen
from dashboard.theme import ink
from dashboard.widgets.board import Board, Cells
from dashboard.widgets.checks import Checks
from dashboard.widgets.panels import Events
from dashboard.widgets.table import Column, table
from loadbench import units
from loadbench.alerts import describe, show
from loadbench.model import Note, Rule
from loadbench.view import Event

_COLUMNS = (
    Column("state", left=True),
    Column("rule", left=True),
    Column("value then", 1),
    Column("peak", 2),
    Column("since", 3),
)
_SIGNS = {
    "ok": "●", "pending": "◔", "firing": "▲", "no data": "○", "few data": "○",
}  # fmt: skip


class Rules(Board):
    """One row a rule: its state, the value that brought it there, the peak, since when."""

    _known = 0

    def titles(self, scene: Scene) -> None:
        self.head("Rules [dim](over the last 10 s, merged)[/]")
        if len(scene.view.rules) != self._known:
            self._known = len(scene.view.rules)
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return 1 + (len(self.scene.view.rules) if self.scene else 0)

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        plain = ink(self.ink.text)
        rows = [self._row(scene, rule) for rule in scene.view.rules]
        lines = table(_COLUMNS, rows, width, (ink(self.ink.quiet), plain, plain))
        for line, rule in zip(lines[1:], scene.view.rules, strict=False):
            change = scene.view.alerts.get(rule.name)
            state = change.state if change else "ok"
            colour = {
                "firing": self.ink.p99, "pending": self.ink.asked, "ok": self.ink.text,
            }.get(state, self.ink.quiet)  # fmt: skip
            line[0] = line[0]._replace(style=ink(colour, bold=state == "firing"))
        return lines

    def _row(self, scene: Scene, rule: Rule) -> list[str]:
        change = scene.view.alerts.get(rule.name)
        if change is None:
            return ["● ok", describe(rule), "", "", ""]
        word = "FIRING" if change.state == "firing" else change.state
        open_now = change.state in ("pending", "firing")
        since = change.since if open_now and change.since is not None else change.second
        return [
            f"{_SIGNS[change.state]} {word}",
            describe(rule),
            "" if change.value is None else show(rule, change.value),
            "" if change.peak is None else show(rule, change.peak),
            units.clock(since * units.SECOND),
        ]


class History(Events):
    """How far the run can be trusted and why not further; what alerts did, and the marks beside."""

    def titles(self, scene: Scene) -> None:
        grade = scene.view.trust[0]
        self.head("History of this run" if grade == "trusted" else f"Why this run is {grade}")

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        doubts = [line for note in scene.view.trust[1] for line in self._doubt(note, width)]
        return [*doubts, *super().draw(scene, width, max(0, height - len(doubts)))]

    def _doubt(self, note: Note, width: int) -> list[Cells]:
        text = f"{note.text}: {note.hint}" if note.hint else note.text
        first, *rest = textwrap.wrap(text, max(8, width - 2))
        head = [Segment("▲ ", ink(self.ink.p99)), Segment(first, ink(self.ink.text))]
        return [head, *([Segment(f"  {line}", ink(self.ink.text))] for line in rest)]

    def found(self, scene: Scene) -> list[Event]:
        return [event for event in scene.view.events if event.kind in ("alert", "ended", "mark")]


class Alerts(RunScreen):
    """Rules above, their history below."""

    def body(self) -> ComposeResult:
        yield Rules(id="rules", classes="panel")
        yield Checks(id="checks", classes="panel")
        yield History(id="history", classes="panel")
