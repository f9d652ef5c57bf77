"""Whether anybody is at the other end of the terminal, and how one goes on until that is seen."""

import select
from contextlib import suppress
from typing import Any, TextIO

from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver


def is_gone(stream: TextIO | None) -> bool:
    """Whether the terminal was closed. Not every one that closes sends a signal (SIGHUP goes only
    to whom it controls), and reading on from its end would take a core for ever."""
    if stream is None or stream.closed:
        return True
    watch = select.poll()
    watch.register(stream.fileno(), 0)  # that it was hung up is told unasked
    return bool(watch.poll(0))


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
    """Textual's own, writing so."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._file = Lasting(self._file)  # type: ignore[assignment,arg-type]


def lasting(found: type[Driver]) -> type[Driver]:
    """The driver of a terminal; others, for a browser or a test, are left alone."""
    return LastingDriver if found is LinuxDriver else found
