"""What the runner and its children wrote: engine.log, load.log, the runner's own messages.

Libraries and servers of others write there too: what would steer the terminal is escaped.
"""

import re
from pathlib import Path

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from loadbench.printable import harmless

_TAIL = 32_768
_LINES = 400  # more take long to lay out, each second anew
_EVERY_S = 1.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def tail(path: Path) -> str:
    """The last part of a file, from a whole line on; empty if there is no such file."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    whole = text if size <= _TAIL else text.partition("\n")[2]
    return "\n".join(whole.splitlines()[-_LINES:])


class Logs(ModalScreen[None]):
    """The ends of the files, refreshed each second; follows as long as it is scrolled down."""

    BINDINGS = [Binding("escape,o,q", "dismiss", "Back", show=False)]

    def __init__(self, folder: Path, said: str) -> None:
        super().__init__()
        self._folder, self._said = folder, said

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="sheet"):
            yield Static(self._text(), id="log-text")

    def on_mount(self) -> None:
        self.set_interval(_EVERY_S, self._update)
        self.query_one(VerticalScroll).scroll_end(animate=False)

    def _update(self) -> None:
        scroll = self.query_one(VerticalScroll)
        at_end = scroll.is_vertical_scroll_end
        self.query_one("#log-text", Static).update(self._text())
        if at_end:
            scroll.scroll_end(animate=False)

    def _text(self) -> Text:
        parts = [(name, tail(self._folder / name)) for name in ("engine.log", "load.log")]
        parts.append(("runner", self._said))
        text = Text()
        for name, content in parts:
            if content.strip():
                text.append(f"── {name} ──\n", style="bold")
                text.append(f"{harmless(_COLOUR.sub('', content.expandtabs()).rstrip())}\n\n")
        if not text.plain:
            text.append("Nothing was written: no engine.log and no load.log in this run.\n\n")
        text.append("esc = back")
        return text
