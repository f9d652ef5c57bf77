"""Reading a run: the growing log of a live one, or a finished one by a clock.

A log is only ever appended to, so following it is remembering an offset; plain polling works on
every file system. Both sources fold records into a View and post one ViewChanged a step, which a
newer one replaces while it waits: a slow terminal makes no backlog.
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from textual.message import Message

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.model import Minute, Record, Start, decode_record
from loadbench.view import LENGTHS, View, fold

POLL_S = 0.2
SLICE_S = 0.03  # longest stretch of reading between two turns of the event loop
_CHUNK = 4_000_000
_WINDOW, _MINUTE = b'{"kind":"window"', b'{"kind":"minute"'
_SLACK = 120  # windows that a backlog may be too long before it is cut


@dataclass
class ViewChanged(Message):
    """More of the run is known."""

    view: View
    at: float  # when, by time.monotonic()

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, ViewChanged)


@dataclass
class Unreadable(Message):
    """The log has a line that is no record: nothing after it can be trusted."""

    reason: str


Post = Callable[[Message], object]


class Tail:
    """Whole lines of a growing file, each once. A half-written last line waits for its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self._inode: int | None = None
        self.behind = False  # there was more than one reading takes

    def read(self) -> tuple[list[bytes], bool]:
        """(new lines, begun anew): the file was cut or replaced, so what was read is void."""
        try:
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                anew = status.st_size < self._offset or self._inode not in (None, status.st_ino)
                if anew:
                    self._offset, self._rest = 0, b""
                self._inode = status.st_ino
                file.seek(self._offset)
                data = file.read(_CHUNK)
        except FileNotFoundError:
            return [], False
        self._offset += len(data)
        self.behind = len(data) == _CHUNK
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines, anew


def newest_only(lines: list[bytes]) -> list[bytes]:
    """Of a long backlog the seconds that the finest ring can hold, and the minutes for the rest."""
    windows = [index for index, line in enumerate(lines) if line.startswith(_WINDOW)]
    if len(windows) <= LENGTHS[0] + _SLACK:
        return lines
    enough = windows[-LENGTHS[0]]
    minutes = [at for at in range(enough) if lines[at].startswith(_MINUTE)]
    cut = minutes[-1] if minutes else 0  # what follows a minute is in no minute before it
    return [line for at, line in enumerate(lines) if at > cut or not line.startswith(_WINDOW)]


class Follow:
    """A run that may still be going on."""

    mode: Literal["live", "replay"] = "live"
    speed = 1

    def __init__(self, folder: Path) -> None:
        self.view = View()
        self._tail = Tail(folder / runlog.LOG)

    async def run(self, post: Post) -> None:
        """Reads until cancelled, or until a line is no record."""
        backlog: list[bytes] = []
        while True:
            lines, anew = self._tail.read()
            if anew:
                self.view, backlog = View(), []
            backlog = newest_only(backlog + lines)
            if self._tail.behind:
                await asyncio.sleep(0)
                continue
            if not backlog:
                await asyncio.sleep(POLL_S)
                continue
            try:
                await self._fold(backlog)
            except SpecError as error:
                post(ViewChanged(self.view, time.monotonic()))
                post(Unreadable(error.message))
                return
            backlog = []
            post(ViewChanged(self.view, time.monotonic()))

    async def _fold(self, lines: list[bytes]) -> None:
        until = time.monotonic() + SLICE_S
        for line in lines:
            self.view = fold(self.view, _decode(line))
            if time.monotonic() > until:
                await asyncio.sleep(0)
                until = time.monotonic() + SLICE_S


class Replay:
    """A finished run, told again by the clock."""

    mode: Literal["live", "replay"] = "replay"

    def __init__(self, folder: Path, speed: int = 1) -> None:
        self.view = View()
        self.speed = speed
        self.held = False
        self._records = runlog.read(folder)
        self._clock = 0.0  # seconds of the run

    async def run(self, post: Post) -> None:
        """Plays to the end of the log."""
        record = next(self._records, None)
        if isinstance(record, Start):
            self._clock = -record.warmup_ns / 1e9
        before = time.monotonic()
        while record is not None:
            changed = False
            try:
                while record is not None and due(record) <= self._clock:
                    self.view, changed = fold(self.view, record), True
                    record = next(self._records, None)
            except SpecError as error:
                post(Unreadable(error.message))
                record = None
            if changed:
                post(ViewChanged(self.view, time.monotonic()))
            await asyncio.sleep(POLL_S / 2)
            now = time.monotonic()
            self._clock += 0.0 if self.held else (now - before) * self.speed
            before = now


def due(record: Record) -> float:
    """The second of the run at which a record was written."""
    if isinstance(record, Start):
        return float("-inf")
    if isinstance(record, Minute):
        return record.window.second + record.seconds
    second = record.second
    return second + 1 if record.__struct_config__.tag == "window" else second


def _decode(line: bytes) -> Record:
    try:
        return decode_record(line)
    except (msgspec.MsgspecError, ValueError) as error:
        text = line[:40].decode("utf-8", "replace")
        raise SpecError(f"the log is damaged at {text!r}: {error}") from error
