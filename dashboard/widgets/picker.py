"""A table with a cursor: rows of text from a Scene, moved through by keys and mouse.

The cursor stays on its row when others come before it, and the row in sight when there are more
than fit; until it is moved it leaves a row that is no longer strong for one that is. What a row
means is the subclass's; what is done with it the screen's.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.message import Message

from dashboard.scene import Scene
from dashboard.theme import ink
from dashboard.widgets.board import Board, Cells
from dashboard.widgets.table import Column, table


@dataclass(frozen=True, slots=True)
class Row:
    """`key` says what it is about, `colour` is its first column's; the cursor begins at the first
    `strong` one."""

    key: Hashable
    cells: Sequence[str]
    colour: str
    strong: bool = False


class Picker(Board, can_focus=True):
    """`rows` are drawn under `columns`; one of them is picked."""

    COLUMNS: Sequence[Column] = ()
    EMPTY = "nothing yet"
    BINDINGS = [
        Binding("up", "step(-1)", show=False),
        Binding("down", "step(1)", show=False),
        Binding("pageup", "step(-10)", show=False),
        Binding("pagedown", "step(10)", show=False),
        Binding("enter", "screen.show_episode", show=False),
    ]

    @dataclass
    class Picked(Message):
        """Another row is picked."""

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.words = ""  # rows without them are left out
        self._key: Hashable = None
        self._begun: Hashable = None  # where the cursor was by itself
        self._top = 0  # the uppermost row that is drawn
        self._made: tuple[Scene, str, str, list[Row]] | None = None

    def rows(self, scene: Scene) -> list[Row]:
        """All rows, the filter left aside."""
        raise NotImplementedError

    def found(self, scene: Scene) -> list[Row]:
        """Those with all words of the filter; made once for a scene."""
        made = self._made
        if made is None or made[0] is not scene or made[1:3] != (self.words, self.app.theme):
            words = self.words.lower().split()
            rows = [row for row in self.rows(scene) if _has(row, words)]
            made = self._made = (scene, self.words, self.app.theme, rows)
        return made[3]

    @property
    def picked(self) -> Hashable:
        """The key of the row under the cursor; None if there is none."""
        rows = self.found(self.scene) if self.scene else []
        return rows[self._at(rows)].key if rows else None

    def pick(self, key: Hashable) -> None:
        self._key = key
        self._redraw()

    def _at(self, rows: Sequence[Row]) -> int:
        for key, least in ((self._key, False), (self._begun, True)):
            for at, row in enumerate(rows):
                if row.key == key and row.strong >= least:
                    return at
        return next((at for at, row in enumerate(rows) if row.strong), 0)

    def action_step(self, steps: int) -> None:
        rows = self.found(self.scene) if self.scene else []
        if rows:
            self.pick(rows[max(0, min(len(rows) - 1, self._at(rows) + steps))].key)

    def on_click(self, event: events.Click) -> None:
        place = event.get_content_offset(self)
        rows = self.found(self.scene) if self.scene else []
        at = self._top + place.y - 1 if place is not None and place.y > 0 else -1
        if 0 <= at < len(rows):
            self.pick(rows[at].key)
            if event.chain == 2:
                self.call_later(self.run_action, "screen.show_episode")

    def on_focus(self) -> None:
        self._redraw()

    def on_blur(self) -> None:
        self._redraw()

    def _redraw(self) -> None:
        if self.scene is not None:
            self.show(self.scene)
        self.post_message(self.Picked())

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        rows = self.found(scene)
        quiet = ink(self.ink.quiet)
        if not rows:
            text = "nothing with these words" if self.words else self.EMPTY
            return [[Segment(f" {text}", quiet)]]
        at, room = self._at(rows), max(1, height - 1)
        if self.has_focus:  # what is read there stays, as long as it matters
            self._begun = rows[at].key
        self._top = max(0, min(self._top, at, len(rows) - room), at - room + 1)
        plain, cells = ink(self.ink.text), [row.cells for row in rows]
        head, *lines = table(self.COLUMNS, cells, width, (quiet, plain, plain))
        drawn = [
            self._line(line, row, row is rows[at] and self.has_focus, width)
            for line, row in zip(lines, rows, strict=True)
        ]
        hidden = len(rows) - room
        if hidden > 0 and not self.styles.gutter.height:  # no border that could tell it
            head = _telling(head, hidden, width)
        return [head, *drawn[self._top : self._top + room]]

    def _line(self, line: Cells, row: Row, picked: bool, width: int) -> Cells:
        text = "".join(segment.text for segment in line)
        if picked:
            return [Segment(f"›{text[1:]}".ljust(width), Style(reverse=True, bold=True))]
        split = 1 + len(row.cells[0])
        return [
            Segment(text[:split], ink(row.colour, bold=row.strong)),
            Segment(text[split:], ink(self.ink.text)),
        ]


def _telling(head: Cells, hidden: int, width: int) -> Cells:
    """The head of the table with how many rows are not in sight, at its end."""
    text = "".join(segment.text for segment in head).rstrip()
    room = width - len(text) - 1
    words = next((words for words in (f"{hidden} more", f"+{hidden}") if len(words) <= room), "")
    return [Segment(text + words.rjust(width - len(text)), head[0].style)] if words else head


def _has(row: Row, words: Sequence[str]) -> bool:
    text = " ".join(row.cells).lower()
    return all(word in text for word in words)
