"""Over a screen: how the run is driven, and one line to drive it otherwise, in the words of
`loadbench tell`. While a command is typed the command line that does the same stands below it."""

import shlex
from collections.abc import Awaitable, Callable
from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

from dashboard.screens.run import RunScreen
from dashboard.steering import Row, require
from dashboard.theme import palette
from loadbench import control
from loadbench.errors import LoadbenchError, SpecError

WORDS = (
    "rate 500   scale 1.5   spike 1500 5s   pause   resume   stop   kill",
    'mark TEXT   alert "p99 > 200 ms" 5s   alert "p99 > 200 ms" off',
    "engine max_batch=16 policy=fixed slo=50ms max_wait=2ms hold=false",
    "policies: deadline efficient failfast fixed adaptive none",
)
_BEGINNINGS = (
    "rate ", "scale ", "pause", "resume", "spike ", "mark ", "engine max_batch=", "engine policy=",
    "engine slo=", "engine max_wait=", "engine hold=", "alert ", "stop", "kill",
)  # fmt: skip


def _command(text: str) -> dict[str, Any]:
    """The command that is typed; SpecError if it is none."""
    try:
        command = control.order(shlex.split(text))
    except ValueError as error:
        raise SpecError(f"{text}: {error}", "close the quote") from error
    require(command)
    return command


def _why(error: SpecError) -> str:
    return f"{error.message}: {error.hint}" if error.hint else error.message


Tell = Callable[[dict[str, Any]], Awaitable[str]]


class Steer(ModalScreen[None]):
    """`present` tells how the run is driven now; `tell` sends a command and gives what was done;
    `line` is its command line."""

    HORIZONTAL_BREAKPOINTS = RunScreen.HORIZONTAL_BREAKPOINTS
    VERTICAL_BREAKPOINTS = RunScreen.VERTICAL_BREAKPOINTS
    BINDINGS = [
        Binding("escape", "dismiss", "Back", show=False),
        Binding("ctrl+y", "copy", "Copy the command line", show=False, priority=True),
    ]

    def __init__(
        self, present: Callable[[], list[Row]], tell: Tell, line: Callable[[dict[str, Any]], str]
    ) -> None:
        super().__init__()
        self._present, self._tell, self._line = present, tell, line
        self._written = ""  # the command line of what is typed, or was sent last
        self._sending = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="sheet", id="steer"):
            yield Static(id="steer-now")
            yield Input(
                placeholder="a command …", compact=True, max_length=200,
                suggester=SuggestFromList(_BEGINNINGS),
            )  # fmt: skip
            yield Static(id="steer-line")
            yield Static("\n".join(WORDS), id="steer-words", markup=False)
            yield Static("enter = do it   ctrl+y = copy it   esc = back",
                         id="steer-keys", markup=False)  # fmt: skip

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self._refresh()
        self.set_interval(1.0, self._refresh)

    def _refresh(self) -> None:
        colours, text = palette(self.app.theme), Text()
        for row in self._present():
            text.append(f"{row.name:<10}", style=colours.quiet)
            text.append(f"{row.text}\n")
        self.query_one("#steer-now", Static).update(text)

    def _say(self, sign: str, text: str, colour: str) -> None:
        said = Text(f"{sign} ", style=colour)
        self.query_one("#steer-line", Static).update(said.append(text, style=""))

    def on_input_changed(self, event: Input.Changed) -> None:
        colours = palette(self.app.theme)
        if not event.value.strip():
            return  # what was done last stays
        try:
            self._written = self._line(_command(event.value))
        except SpecError as error:
            self._written = ""
            self._say("·", _why(error), colours.quiet)
        else:
            self._say("$", self._written, colours.quiet)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        try:
            command = _command(event.value)
        except SpecError as error:
            self._say("✗", _why(error), palette(self.app.theme).error)
            return
        if not self._sending:  # enter was pressed again before the runner had answered
            self._sending = True
            self.run_worker(self._send(command, event.value))

    async def _send(self, command: dict[str, Any], typed: str) -> None:
        """What was refused stays, to be typed otherwise."""
        colours = palette(self.app.theme)
        self._say("…", self._line(command), colours.quiet)
        try:
            done = await self._tell(command)
        except LoadbenchError as error:
            self._say("✗", error.said, colours.error)
            return
        finally:
            self._sending = False
        box = self.query_one(Input)
        if box.value == typed:
            box.clear()
        self._say("✓", f"{done}\n$ {self._line(command)}", colours.ok)
        self._refresh()

    def action_copy(self) -> None:
        if self._written:
            self.app.copy_to_clipboard(self._written)
            self.notify(f"copied: {self._written}", markup=False)
