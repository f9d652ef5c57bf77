"""All keys, and how to read the screen."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from dashboard.keys import ACTIONS, Action, written
from dashboard.theme import Palette, palette

READING = (
    "Tiles show the last 10 s; charts, tables and the time split what is visible (zoom: + and -). "
    "Latency counts from the moment a request was due, so a server that stands still cannot hide "
    "it. What failed, or is open and over the limit, counts as slower than everything: a "
    "percentile that falls there is shown as > limit; max is that of the answered. The small "
    "number of the errors counts the whole run. A column of a chart shows its highest value, "
    "percentiles are those of all its requests. Gaps are seconds without data. Pausing freezes "
    "the view, never the run.",
    "Time: a click into a chart looks at that second, dragging moves the picture, the wheel zooms; "
    "a click at an event, or into the bar of line 1, goes there. ← and → go from second to second "
    "while one is looked at. All of it works on runs that go on as well; end is back to now.",
    "tab brings the next panel into focus, enter makes it large, ? tells how to read it, ctrl+p "
    "has every action by name.",
    "▲ alert or attention   ◆ mark   ✓ over   ● running   ◔ warm-up   ‖ view paused   ■ done   "
    "✗ failed   ↺ replay   ▓ queue   ▒ batch wait   █ compute   ░ network",
)

_WIDE = 110


def keys(colours: Palette, wide: bool, own: tuple[Action, ...] = ()) -> Table:
    """The groups, side by side where there is room; `own` are those of the screen below."""
    actions = (*own, *ACTIONS)
    groups = dict.fromkeys(action.group for action in actions)
    table = Table.grid(padding=(0, 3, 0, 0))
    texts = [_group([one for one in actions if one.group == group], colours) for group in groups]
    if wide:
        at = _half([len(text.plain.splitlines()) for text in texts])
        table.add_row(Text("\n").join(texts[:at]), Text("\n").join(texts[at:]))
    else:
        for text in texts:
            table.add_row(text)
    return table


def _half(heights: Sequence[int]) -> int:
    """How many of the groups stand left, so that both columns are about as high."""
    return min(
        range(1, len(heights)), key=lambda at: max(sum(heights[:at]), sum(heights[at:])), default=1
    )


def _group(actions: Sequence[Action], colours: Palette) -> Text:
    text = Text()
    text.append(f"{actions[0].group}\n", style=f"bold {colours.p95}")
    for action in actions:
        text.append(f"{written(action):>6}  ", style="bold")
        text.append(f"{action.title}\n")
    return text


class Help(ModalScreen[None]):
    """Closes on any of the usual keys."""

    BINDINGS = [Binding("escape,question_mark,q,enter,space", "dismiss", "Back", show=False)]

    def compose(self) -> ComposeResult:
        below = self.app.screen_stack[-2]
        self._own = getattr(below, "actions", ())
        with VerticalScroll(classes="sheet") as sheet:
            sheet.border_subtitle = "esc = back"  # in sight however far it is scrolled
            yield Static(id="keys")
            focused = getattr(below.focused, "reading", ())
            for paragraph in (*focused, *getattr(below, "reading", ()), *READING):
                yield Static(Text(f"\n{paragraph}"))

    def on_resize(self) -> None:
        table = keys(palette(self.app.theme), self.size.width >= _WIDE, self._own)
        self.query_one("#keys", Static).update(table)
