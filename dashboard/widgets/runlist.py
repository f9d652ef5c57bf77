"""The list of runs, newest first: a table with a cursor.

It shows entries that others have read, and keeps the cursor on its run while runs come and go.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from rich.text import Text
from textual.binding import Binding
from textual.widgets import DataTable

from dashboard.theme import Palette, ink, palette
from dashboard.widgets.table import Column
from loadbench.catalogue import Entry
from loadbench.units import percent, significant

COLUMNS = (
    Column("", left=True),
    Column("run", left=True),
    Column("when", 3, left=True),
    Column("target", 1, left=True),
    Column("scenario", left=True),
    Column("req/s"),
    Column("p50", 4),
    Column("p99"),
    Column("err", 5),
    Column("checks", left=True),
    Column("state", left=True),
)
_MARK, _TARGET, _SCENARIO, _CHECKS, _STATE = 0, 3, 4, 9, 10
_WIDEST = {_TARGET: 32, _SCENARIO: 26}
_NARROWEST = {_TARGET: 14, _SCENARIO: 8}
_GAP = 2
_EDGES = 3  # columns that the table's padding and its scrollbar take
_LINE = "line"
_STATES = {
    "running": "● running", "done": "■ done", "stopped": "■ stopped", "failed": "✗ failed",
    "killed": "✗ killed", "not begun": "○ not begun", "unreadable": "✗ unreadable",
    "other version": "✗ other version",
}  # fmt: skip
_DOUBT = ("doubtful", "invalid")


def state(entry: Entry) -> str:
    """How the run ended and how far it can be trusted, in few words."""
    doubted = entry.trust in _DOUBT
    if doubted and entry.state == "done":
        return f"▲ {entry.trust}"
    return _STATES[entry.state] + (" ▲" if doubted else "")


def when(began: str, now: datetime) -> str:
    """`today 14:02`, `yesterday`, `18 Nov`, `2024-11-18`, in the time zone of `now`."""
    try:
        moment = datetime.fromisoformat(began).astimezone(now.tzinfo)
    except (ValueError, OverflowError):
        return ""
    if moment.date() == now.date():
        return f"today {moment:%H:%M}"
    if moment.date() == (now - timedelta(days=1)).date():
        return "yesterday"
    return f"{moment.day} {moment:%b}" if moment.year == now.year else f"{moment:%Y-%m-%d}"


def cells(entry: Entry, now: datetime) -> list[str]:
    """The texts of a row, but for the mark."""

    def figure(value: float | None) -> str:
        return "" if value is None else significant(value)

    def latency(value: float | None) -> str:
        beyond = value is None and entry.limit_ms is not None
        return f">{significant(entry.limit_ms)}" if beyond else figure(value)

    target = entry.target.removeprefix("local:").removeprefix("http://").removeprefix("https://")
    scenario = entry.scenario or entry.name.partition("-")[2]
    return [
        "",
        entry.number,
        when(entry.began, now),
        f"{target} {entry.device}".strip(),
        scenario if entry.repeats == 1 else f"{scenario} ×{entry.repeats}",
        figure(entry.done_per_s),
        latency(entry.p50_ms),
        latency(entry.p99_ms),
        "" if entry.failed is None else f"{percent(entry.failed)}%",
        entry.checked,
        state(entry),
    ]


def fitting(natural: Sequence[int], width: int) -> dict[int, int]:
    """Column → its width: the names get shorter first, then columns go by their rank."""
    widths = {at: min(wide, _WIDEST.get(at, wide)) for at, wide in enumerate(natural)}

    def over() -> int:
        return sum(widths.values()) + _GAP * (len(widths) - 1) - width

    while over() > 0:
        for at, least in _NARROWEST.items():
            if at in widths and over() > 0:
                widths[at] = max(min(least, widths[at]), widths[at] - over())
        droppable = [at for at in widths if COLUMNS[at].rank]
        if over() <= 0 or not droppable:
            break
        del widths[max(droppable, key=lambda at: COLUMNS[at].rank)]
        for at in _NARROWEST.keys() & widths.keys():
            widths[at] = min(natural[at], _WIDEST[at])
    return widths


class RunList(DataTable[Text]):
    """`show` gives it the runs; `entry` is the one under the cursor.

    Each row is one cell with all its columns: measuring ten cells for each of a thousand runs would
    hold up the keys."""

    BINDINGS = [
        Binding("home", "scroll_top", show=False),
        Binding("end", "scroll_bottom", show=False),
    ]

    def __init__(self, id: str) -> None:
        super().__init__(id=id, cursor_type="row")
        self._entries: list[Entry] = []
        self._marks: dict[str, str] = {}
        self._drawn: dict[str, tuple[Entry, list[str]]] = {}
        self._widths: dict[int, int] = {}

    @property
    def entry(self) -> Entry | None:
        at = self.cursor_row
        return self._entries[at] if 0 <= at < len(self._entries) else None

    def show(self, entries: Sequence[Entry], marks: Mapping[str, str]) -> None:
        """Newest first; `marks` by the runs' names. Rows that are the same are left alone."""
        here = self.entry
        before, self._entries = [entry.name for entry in self._entries], list(entries)
        now = datetime.now().astimezone()
        drawn, self._drawn = self._drawn, {}
        old, self._marks = self._marks, dict(marks)
        changed = set()
        for entry in entries:
            known = drawn.get(entry.name)
            if known is None or known[0] is not entry:
                known = (entry, cells(entry, now))
                changed.add(entry.name)
            elif old.get(entry.name) != self._marks.get(entry.name):
                changed.add(entry.name)
            self._drawn[entry.name] = known
        names = [entry.name for entry in entries]
        if self._fitted() or names[: len(before)] != before:
            self._rebuild(here)
            return
        for name in changed.intersection(before):
            self.update_cell(name, _LINE, self._line(name))
        for name in names[len(before) :]:
            self.add_row(self._line(name), key=name)

    def on_resize(self) -> None:
        if self._fitted():
            self._rebuild(self.entry)

    def recolour(self) -> None:
        """After a change of theme."""
        self._rebuild(self.entry)

    def _fitted(self) -> bool:
        """Whether the columns have to be others than they are."""
        natural = [len(column.title) for column in COLUMNS]
        natural[_MARK] = 2
        for _, row in self._drawn.values():
            natural = [max(wide, len(text)) for wide, text in zip(natural, row, strict=True)]
        widths = fitting(natural, max(20, self.outer_size.width - _EDGES))
        changed, self._widths = widths != self._widths, widths
        return changed

    def _rebuild(self, here: Entry | None) -> None:
        names = [entry.name for entry in self._entries]
        at, row = self.scroll_offset.y, self.cursor_row
        if here is not None and here.name in names:
            row = names.index(here.name)
        self.clear(columns=True)
        titles = [self._cell(column.title, at) for at, column in enumerate(COLUMNS)
                  if at in self._widths]  # fmt: skip
        width = max(1, self.outer_size.width - _EDGES)
        self.add_column(Text((" " * _GAP).join(titles)), width=width, key=_LINE)
        for name in names:
            self.add_row(self._line(name), key=name)
        if names:
            self.move_cursor(row=max(0, min(row, len(names) - 1)), scroll=False)
            self.scroll_to(y=at, animate=False)
            self.call_after_refresh(self.move_cursor, row=self.cursor_row)

    def _line(self, name: str) -> Text:
        entry, texts = self._drawn[name]
        colours = palette(self.app.theme)
        line = Text(no_wrap=True, end="")
        for at in self._widths:
            text = self._marks.get(name, "") if at == _MARK else texts[at]
            line.append(" " * _GAP if line.plain else "")
            line.append(self._cell(text, at), ink(_colour(entry, at, colours), bold=at == _MARK))
        return line

    def _cell(self, text: str, column: int) -> str:
        width = self._widths[column]
        text = f"{text[: width - 1]}…" if len(text) > width else text
        return text.ljust(width) if COLUMNS[column].left else text.rjust(width)


def _colour(entry: Entry, column: int, colours: Palette) -> str:
    if column == _CHECKS and entry.checks:
        return {"✓": colours.ok, "✗": colours.error}.get(entry.checked[0], colours.quiet)
    if column == _MARK:
        return colours.asked
    if column == _STATE:
        if entry.state == "running":
            return colours.ok
        if entry.state in ("failed", "unreadable", "other version"):
            return colours.error
        doubted = entry.trust in _DOUBT or entry.state in ("killed", "not begun")
        return colours.p99 if doubted else colours.quiet
    return colours.text
