"""What the screens of a run share: line 1, the body, the footer, the keys."""

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import Screen
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Footer, Static

from dashboard.keys import ACTIONS
from dashboard.scene import Scene
from dashboard.widgets.board import Board
from dashboard.widgets.header import Header
from dashboard.widgets.inspect import Inspected
from dashboard.widgets.outcome import Outcome

SMALLEST = (60, 16)
SAID_S = 4.0
_PALETTE = 76  # columns that the footer needs to show the palette's key too


class TooSmall(Static):
    """One centred line; the run goes on."""

    _focused: Widget | None = None  # before everything else was hidden

    def keep_focus(self) -> None:
        """For the screen's new sizes: what is hidden loses the focus, and with it all its keys."""
        width, height = self.screen.size
        if width < SMALLEST[0] or height < SMALLEST[1]:
            self._focused = self.screen.focused or self._focused
        elif self._focused is not None:
            self.call_after_refresh(self.screen.set_focus, self._focused)
            self._focused = None

    def on_resize(self) -> None:
        width, height = self.app.size
        self.update(f"loadbench needs {SMALLEST[0]}×{SMALLEST[1]}, this is {width}×{height}")


class Said(Static):
    """A sentence in the footer's place, for a few seconds. It is there all the time, for keys are
    held down: to lay out a notice of Textual's takes longer than a picture may."""

    _going: Timer | None = None

    def say(self, text: str) -> None:
        if self._going is not None:
            self._going.stop()
        self.update(Text(f" {text}"))
        self.visible = True
        self._going = self.set_timer(SAID_S, self._hide)

    def _hide(self) -> None:
        self.visible = False


class RunScreen(Screen[None]):
    """Header, `body()`, footer. `show` hands a scene to all that draw."""

    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-narrow"), (100, "-normal"), (160, "-wide")]
    VERTICAL_BREAKPOINTS = [
        (0, "-flat"), (16, "-low"), (22, "-short"), (32, "-normal-height"), (50, "-tall"),
    ]  # fmt: skip
    AUTO_FOCUS = ""
    ALLOW_IN_MAXIMIZED_VIEW = "Footer, Header, Said, TooSmall"  # line 1 stands over it, too
    BINDINGS = [action.binding for action in ACTIONS]
    _left: Widget | None = None  # the panel from which one was made large

    def body(self) -> ComposeResult:
        """The panels between line 1 and the footer."""
        yield from ()

    def compose(self) -> ComposeResult:
        yield TooSmall(id="too-small")
        yield Header(id="header")
        with Vertical(id="body"):
            yield Outcome(id="outcome")
            yield Inspected(id="inspected")
            yield from self.body()
        yield Footer(compact=True)
        yield Said()

    def on_resize(self) -> None:
        """The palette's own entry covers the others where the line is too short for all."""
        self.query_one(TooSmall).keep_focus()
        footer, wide = self.query_one(Footer), self.size.width >= _PALETTE
        if footer.show_command_palette != wide:
            footer.show_command_palette = wide
            footer.refresh(recompose=True)

    def enlarge(self, panel: Widget) -> None:
        """This panel alone; instead of a tile what it is of."""
        large = getattr(panel, "large", "")
        self._left = panel
        self.maximize(self.query_one(f"#{large}") if large else panel)

    def minimize(self) -> None:
        super().minimize()
        if self._left is not None:  # which was hidden, and so lost its keys
            self.call_after_refresh(self.set_focus, self._left, scroll_visible=False)
            self._left = None

    def show(self, scene: Scene) -> None:
        """Hands the scene to every widget that draws it."""
        for board in self.query(Board):
            board.show(scene)
