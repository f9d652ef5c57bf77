"""A page of text over a screen, made in a thread: reading a long run's log takes a while."""

import re
import textwrap
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import ScrollableContainer
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Static

from loadbench.errors import LoadbenchError

Made = str | Callable[[int], str]

_BACK, _READING = "esc = back", "reading the log…"
_APART = re.compile(r"\S {2,}\S")  # as the parts of a table's line do, and words do not


class Page(ModalScreen[None]):
    """`make` returns the text, or what makes it for so many columns, or raises LoadbenchError,
    which is shown instead. Lines that are too long are folded; those of tables only if asked to:
    else one moves to the end of them."""

    BINDINGS = [
        Binding("escape,q", "dismiss", "Back", show=False),
        Binding("space", "page_down", show=False),
    ]

    @dataclass
    class Read(Message):
        """The text is there."""

        text: Made

    def __init__(self, title: str, make: Callable[[], Made], fold: bool = False) -> None:
        super().__init__()
        self._title, self._make, self._fold = title, make, fold
        self._text: Made = _READING

    def compose(self) -> ComposeResult:
        with ScrollableContainer(classes="sheet page") as sheet:
            sheet.border_title = Text(self._title).markup
            sheet.border_subtitle = _BACK
            yield Static(_READING, id="page-text")

    def on_mount(self) -> None:
        self.query_one(ScrollableContainer).focus()
        # a daemon: leaving the dashboard does not wait for a log of hours
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        text: Made
        try:
            text = self._make()
        except LoadbenchError as error:
            text = f"✗ {error.message}" + (f"\n  → {error.hint}" if error.hint else "")
        with suppress(RuntimeError):  # the loop is closed: nobody looks any more
            self.post_message(self.Read(text))

    def on_page_read(self, message: Read) -> None:
        self._text = message.text
        self._fill()

    def on_resize(self) -> None:
        self.call_after_refresh(self._fill)  # when the sheet has its new width

    def _fill(self) -> None:
        if not self.is_attached:  # left meanwhile
            return
        width = self.query_one(ScrollableContainer).scrollable_content_region.width
        text = self._text if isinstance(self._text, str) else self._text(width)
        text = folded(text, width, self._fold) if width else text
        goes_on = 0 < width < max(map(cell_len, text.splitlines()), default=0)
        sheet = self.query_one(ScrollableContainer)
        sheet.border_subtitle = f"→ = the rest of the lines   {_BACK}" if goes_on else _BACK
        self.query_one("#page-text", Static).update(Text(text))

    def action_page_down(self) -> None:
        self.query_one(ScrollableContainer).scroll_page_down(animate=False)


def folded(text: str, width: int, tables: bool = True) -> str:
    """Long lines on several, the rest of each below the beginning of its words; if not `tables`
    those whose parts stand apart are left as they are."""
    lines = []
    for line in text.splitlines():
        if not tables and not line.lstrip().startswith("▲") and _APART.search(line):
            lines.append(line)
            continue
        label = re.match(r"  [A-Z]{3,} +|\s*(?:[▲·✗] )?", line)
        indent = min(len(label[0]) if label else 0, width // 2)
        wrapped = textwrap.wrap(line, width, subsequent_indent=" " * indent, break_on_hyphens=False)
        lines += wrapped or [""]
    return "\n".join(lines)
