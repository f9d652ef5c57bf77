"""Reading a run: its log as far as there is one, then what is appended.

A log is only ever appended to, so following it is remembering an offset; plain polling works on
every file system, and nothing is locked. A long one is opened from its minutes and its index: of
its seconds only the last are read (`past` reads more where one looks). Records are folded into a
View and told by one ViewChanged a step, which a newer one replaces while it waits: a slow terminal
makes no backlog.
"""

import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from textual.message import Message

from dashboard.past import Past
from loadbench import logindex, runlog
from loadbench.errors import SpecError
from loadbench.logindex import Contents
from loadbench.snapshots import files
from loadbench.view import LENGTHS, View, fold

POLL_S = 0.2
SLICE_S = 0.03  # longest stretch of reading between two turns of the event loop
_CHUNK = 4_000_000
_WHOLE = LENGTHS[0] // 60 + 2  # minutes up to which a log is read whole
_LAST = 2  # minutes of a longer one whose seconds are read


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


async def until_cancelled(reading: Awaitable[None]) -> None:
    """Then it has ended, like anything else: a worker keeps the error that it was cancelled with,
    and that all that was read, in a cycle which after `gc.freeze` nobody finds any more."""
    with suppress(asyncio.CancelledError):
        await reading


class Tail:
    """Whole lines of a growing file, each once. A half-written last line waits for its end."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._offset = offset
        self._rest = b""
        self._inode: int | None = None
        self.behind = False  # there was more than one reading takes

    @property
    def at(self) -> int:
        """The offset of the next line."""
        return self._offset - len(self._rest)

    def read(self) -> tuple[list[bytes], bool]:
        """(new lines, begun anew): the file was cut or replaced, so what was read is void."""
        try:
            with files.opened(self._path) as file:
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
        if len(self._rest) > logindex.LONGEST:
            raise SpecError(f"{self._path}: has a line of more than {logindex.LONGEST} bytes")
        return lines, anew


class Follow:
    """A run, finished or going on. `play` is the speed at which it shall be shown from its
    beginning, 0 to show it as it is now."""

    def __init__(self, folder: Path, play: int = 0) -> None:
        self.view, self.play = View(), play
        self._log = folder / runlog.LOG
        self._contents = Contents()
        self._tail = Tail(self._log)
        self.past = Past(self._log)

    async def run(self, post: Post) -> None:
        """Reads until cancelled, or until a line is no record."""
        try:
            await self._open()
            while True:
                # in a thread: a shared disk that stands still must not stop the keys
                lines, anew = await asyncio.to_thread(self._tail.read)
                if anew:
                    await self._open()
                    continue
                if lines:
                    self._note(lines)
                    await self._fold(lines)
                    if not self._tail.behind:
                        post(ViewChanged(self.view, time.monotonic()))
                await asyncio.sleep(0 if self._tail.behind else POLL_S)
        except (SpecError, OSError) as error:
            post(ViewChanged(self.view, time.monotonic()))
            post(Unreadable(error.message if isinstance(error, SpecError) else str(error)))

    async def _open(self) -> None:
        """What there is, a long log without most of its seconds; then the tail goes on."""
        self.view, contents = View(), await asyncio.to_thread(logindex.read, self._log)
        if contents is None:
            contents = await self._scanned()
        blocks = contents.blocks
        cut = blocks[-_LAST].begin if len(blocks) > _WHOLE else 0
        minutes = [block.end for block in blocks[:-_LAST] if cut]
        early = sorted([at for at in contents.others if at < cut] + minutes)
        self._contents, self._tail = contents, Tail(self._log, cut)
        self.past.open(blocks)
        await self._fold(logindex.lines_at(self._log, early) if early else ())
        gc.freeze()  # what is there stays: looking through it for cycles takes its time

    async def _scanned(self) -> Contents:
        contents = Contents()
        if self._log.exists():
            for contents in logindex.scan(self._log):  # noqa: B007  # the last one is whole
                await asyncio.sleep(0)
        return contents

    def _note(self, lines: list[bytes]) -> None:
        """Where the new ones lie; those that were there at the opening are known."""
        at = self._tail.at - sum(len(line) + 1 for line in lines)
        for line in lines:
            if at >= self._contents.end:
                self._contents.add(line)
            at += len(line) + 1

    async def _fold(self, lines: Iterable[bytes]) -> None:
        until = time.monotonic() + SLICE_S
        for line in lines:
            self.view = fold(self.view, logindex.decode(line))
            if time.monotonic() > until:
                await asyncio.sleep(0)
                until = time.monotonic() + SLICE_S
