"""The panels of a run that is being put together: its load shape, its settings, what stands in
the way. They show what they are given; the screen decides."""

from collections.abc import Iterable, Mapping, Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Grid, VerticalScroll
from textual.widget import Widget
from textual.widgets import Input, Label, Static

from dashboard.asking import Finding
from dashboard.draft import FIELDS, Checked
from dashboard.theme import Palette, palette
from loadbench.errors import SpecError
from loadbench.loadspec import LoadSpec
from loadbench.report.shape import chart_lines

_ORDER = "✗▲✓"
_NOT_OURS = "n/a"
_AXIS = "┤│└"


class ShapeChart(Widget):
    """The load before it runs, from 0 forward, drawn by what `loadbench shape` draws with."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id, classes="panel")
        self._load: LoadSpec | None = None
        self._line = ""
        self._lines: list[str] = []
        self._drawn_for: tuple[int, int] | None = None

    def show(self, load: LoadSpec | None, line: str) -> None:
        """`line` says how much it is; without a load, why there is none."""
        self._load, self._line, self._drawn_for = load, line, None
        self.titles()
        self.refresh()

    def on_resize(self) -> None:
        self.titles()

    def titles(self) -> None:
        """How requests arrive, how many and how long; without the first where that is too long."""
        room = self.outer_size.width - 20
        short = self._line.rpartition(": ")[2]
        fitting = next((text for text in (self._line, short) if len(text) <= room), "")
        fitting = fitting if self._load else ""
        self.border_title = Text(f"Load shape  {fitting}".rstrip()).markup

    def render(self) -> Text:
        colours = palette(self.app.theme)
        width, height = self.size
        if self._load is None or height < 4:
            return Text(self._line, style=colours.quiet)
        if self._drawn_for != (width, height):
            self._drawn_for, self._lines = (width, height), self._drawn(self._load, width, height)
        if not self._lines:
            return Text(self._line, style=colours.quiet)
        drawn = [_coloured(line, colours) for line in self._lines[:-1]]
        return Text("\n").join([*drawn, Text(self._lines[-1], style=colours.quiet)])

    def _drawn(self, load: LoadSpec, width: int, height: int) -> list[str]:
        """The second time in the width that the labels of the axis have left over."""
        try:
            lines = chart_lines(load, None, width, height - 2)
            return chart_lines(load, None, 2 * width - len(lines[0]), height - 2) if lines else []
        except SpecError:  # rates in % beside rates per second: the line says it
            return []


def _coloured(line: str, colours: Palette) -> Text:
    """The axis quiet, the load in the colour of what was done."""
    at = next((at for at, char in enumerate(line) if char in _AXIS), len(line) - 1)
    return Text(line[: at + 1], style=colours.quiet) + Text(
        line[at + 1 :], style=colours.quiet if line[at] == "└" else colours.area
    )


class Settings(Widget):
    """What people change, as inputs: empty is as the scenario says, which is shown dim."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id, classes="panel")
        self.border_title = "Settings"

    def compose(self) -> ComposeResult:
        with Grid(id="fields"):
            for one in FIELDS:
                yield Label(one.label, id=f"label-{one.id}")
                yield Input(id=one.id, compact=True, max_length=500, select_on_focus=False)
        yield Static(id="fault")

    def show(self, checked: Checked, local: bool) -> None:
        """`local`: the engine is ours, so that its settings mean something."""
        for one in checked.fields or FIELDS:
            box = self.query_one(f"#{one.id}", Input)
            box.disabled = one.local and not local
            box.placeholder = _NOT_OURS if box.disabled else checked.present.get(one.id, "")
            box.set_class(one.id in checked.faults, "-invalid")
            fault = one.id in checked.faults
            self.query_one(f"#label-{one.id}", Label).update(f"{'✗ ' if fault else ''}{one.label}")
        self.tell(checked.faults)

    def tell(self, faults: Mapping[str, str]) -> None:
        """One fault: that of the field in focus first."""
        focused = self.screen.focused
        here = focused.id if focused is not None and focused.id in faults else None
        text = faults.get(here or "") or next(iter(faults.values()), "")
        colours = palette(self.app.theme)
        if text:
            line = Text(f"✗ {text}", style=colours.error)
        else:
            ours = not any(box.disabled for box in self.query(Input))
            why = "" if ours else "; the engine's are for local: targets"
            line = Text(f"empty = as the scenario says{why}", style=colours.quiet)
        self.query_one("#fault", Static).update(line)

    @property
    def values(self) -> dict[str, str]:
        return {box.id: box.value for box in self.query(Input) if box.id and box.value.strip()}


class Ready(VerticalScroll, can_focus=True):
    """The list before the start: ✗ blocks it, ▲ does not. It scrolls where it is too long."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id, classes="panel")
        self.border_title = "Ready?"
        self._shown = Text()

    def compose(self) -> ComposeResult:
        yield Static(id="findings", markup=False)

    def show(self, findings: Iterable[Finding], doing: str) -> None:
        colours = palette(self.app.theme)
        inks = {"✗": colours.error, "▲": colours.p99, "✓": colours.ok}
        text = Text()
        for finding in sorted(findings, key=lambda finding: _ORDER.find(finding.sign)):
            text.append(f"{finding.sign} ", style=inks.get(finding.sign, ""))
            text.append(f"{finding.text}\n")
        text.rstrip()
        self.border_subtitle = doing
        if text != self._shown:  # what is new at its top is not left out of sight
            self._shown = text
            self.query_one("#findings", Static).update(text)
            self.scroll_home(animate=False)


def row(name: str, text: str, fault: str, width: int, colours: Palette) -> Text:
    """A line of a list: its name, what it is or why it cannot be had."""
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{name:<{width}}  ", style=colours.error if fault else "")
    # dim and not grey: it has to be readable on the cursor, too
    line.append(f"✗ {fault}" if fault else text, style=colours.error if fault else "dim")
    return line


def names_width(names: Sequence[str], most: int = 22) -> int:
    return min(most, max((len(name) for name in names), default=0))
