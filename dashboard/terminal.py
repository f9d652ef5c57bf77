"""Whether anybody is at the other end of the terminal, how one goes on until that is seen, and
whether what was drawn has come there."""

import select
import time
from contextlib import suppress
from typing import Any, TextIO

from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message
from textual.messages import TerminalSupportsSynchronizedOutput

_ASK = "\x1b[?2026$p"  # does it know frames? Answered in its turn: after what was sent before
_AHEAD = 2  # frames: with one at a time a far terminal would wait for each answer
_PATIENCE_S = 2.0
_LAST_S = 1.0  # at the end, for the last answers


def is_gone(stream: TextIO | None) -> bool:
    """Whether the terminal was closed. Not every one that closes sends a signal (SIGHUP goes only
    to whom it controls), and reading on from its end would take a core for ever."""
    if stream is None or stream.closed:
        return True
    watch = select.poll()
    watch.register(stream.fileno(), 0)  # that it was hung up is told unasked
    return bool(watch.poll(0))


class Frames:
    """Those that a terminal was sent and has not drawn yet.

    A terminal that is slow, or far away, takes what it is sent into its buffers, and shows it
    seconds later. So it is asked something behind each frame; where two answers are missing the
    next frame waits, and is then of that time. One that answers nothing is not waited for."""

    def __init__(self) -> None:
        self._answers = False
        self._open = 0
        self._asked = 0.0

    def sent(self, driver: Driver) -> None:
        """A frame is on its way."""
        if self._answers:
            self._open, self._asked = self._open + 1, time.monotonic()
            driver.write(_ASK)

    def drawn(self) -> None:
        """An answer came; the first one is to a question of Textual's."""
        self._answers = True
        self._open = max(0, self._open - 1)

    @property
    def behind(self) -> bool:
        """Whether the next one has to wait."""
        if time.monotonic() - self._asked > _PATIENCE_S:
            self._open = 0
        return self._open >= _AHEAD

    def wait(self) -> None:
        """For the answers that are on their way, a while: whoever reads the terminal next, the
        shell or an editor, would take them for keys."""
        until = time.monotonic() + _LAST_S
        while self._open and time.monotonic() < until:
            time.sleep(0.005)


class Lasting:
    """A terminal's file to write to that outlives the terminal: what nobody can read is dropped.

    An error would end Textual's thread that writes, and soon the whole dashboard would wait for
    ever to hand over its next picture to it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        return self._file.isatty()


class LastingDriver(LinuxDriver):
    """Textual's own, writing so; it knows which frames have come to the terminal."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._file = Lasting(self._file)  # type: ignore[assignment,arg-type]
        self.frames = Frames()

    def process_message(self, message: Message) -> None:
        if isinstance(message, TerminalSupportsSynchronizedOutput):
            self.frames.drawn()
        super().process_message(message)

    def disable_input(self) -> None:
        self.frames.wait()
        super().disable_input()


def lasting(found: type[Driver]) -> type[Driver]:
    """The driver of a terminal; others, for a browser or a test, are left alone."""
    return LastingDriver if found is LinuxDriver else found
