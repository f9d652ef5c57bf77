"""A dry run: the command, and what it prints as it goes."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Sequence

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from dashboard.starting import command_line
from dashboard.theme import palette

_MOST = 20_000  # characters
_END_S = 8.0  # for its engine to end with it


class TryOut(ModalScreen[None]):
    """`loadbench run … --dry-run` as a child; leaving ends it."""

    BINDINGS = [Binding("escape,q,enter,space", "dismiss", "Back", show=False)]

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__()
        self._arguments = [*arguments, "--dry-run"]
        self._said = ""

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="sheet"):
            yield Static(id="tried")

    def on_mount(self) -> None:
        self._show("one request of each kind is on its way …")
        self._try()

    @work
    async def _try(self) -> None:
        command = [sys.executable, "-m", "loadbench", "run", *self._arguments]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
        )
        try:
            assert process.stdout is not None
            async for line in process.stdout:
                self._said = (self._said + line.decode("utf-8", "replace"))[:_MOST]
                self._show("")
            code = await process.wait()
            self._show("esc = back" if code == 0 else f"exit code {code}   esc = back")
        finally:
            if process.returncode is None:
                process.terminate()  # it ends its engine first
                try:
                    await asyncio.wait_for(process.communicate(), _END_S)
                except TimeoutError:
                    process.kill()
                    await process.communicate()

    def _show(self, last: str) -> None:
        colours = palette(self.app.theme)
        text = Text(f"$ {command_line(self._arguments)}\n\n", style=colours.p95)
        text.append(self._said, style=colours.text)
        text.append(f"\n{last}", style=colours.quiet)
        for shown in self.query("#tried").results(Static):  # none once it is left
            shown.update(text)
