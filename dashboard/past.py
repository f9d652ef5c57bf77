"""Seconds of a run that its rings no longer hold, or never held: read from the log as one looks.

The log is read a minute at a time, at the places that its index names, the newest first, and in
small slices, so that keys are answered meanwhile. What was read last is kept, a bounded number of
bins. Where nothing has been read yet the minutes stand in, so there is always a picture.
"""

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from loadbench import logindex
from loadbench.bin import Bin, bin_of, joined
from loadbench.errors import SpecError
from loadbench.logindex import Block
from loadbench.model import Window
from loadbench.view import View, bins

FINE_S, MIDDLE_S = 900, 3600  # spans up to which single seconds and tens of them are worth reading
_KEPT = 1400  # bins: 15 minutes of seconds, with the tens of them and what is played next
_SLICE_S = 0.001  # longest stretch of reading between two turns of the event loop: a key takes some
_AFTER_S = 0.1  # what is known already is shown first, on slow machines too
_TELL_S = 0.6  # between two pictures while it reads: each of them makes a key wait


@dataclass(frozen=True, slots=True)
class Wanted:
    """A minute of the log, and how many seconds a bin of it shall have."""

    block: Block
    width: int


class Past:
    """Of one log."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._blocks: list[Block] = []
        self._kept: OrderedDict[int, dict[int, tuple[Bin, ...]]] = OrderedDict()  # by width
        self._wanted: list[Wanted] = []
        self._shown: dict[int, int] = {}  # minutes of which bins of a width are to be seen
        self._wake = asyncio.Event()
        self._looked = 0.0

    def open(self, blocks: list[Block]) -> None:
        """Another log, or the same begun anew; `blocks` grows with it."""
        self._blocks, self._wanted = blocks, []
        self._kept.clear()

    def look(self, view: View, begin: int, end: int, moments: Sequence[int] = ()) -> None:
        """What is in view, and single moments of which the second itself is wanted."""
        span, self._looked = end - begin, time.monotonic()
        width = 1 if span <= FINE_S else 10 if span <= MIDDLE_S else 0
        wanted = {block.second: Wanted(block, 1) for at in moments for block in self._around(at)}
        if width and not _held(view, begin, width):
            for block in reversed(self._between(begin, end)):
                wanted.setdefault(block.second, Wanted(block, width))
        self._shown = {second: found.width for second, found in wanted.items()}
        self._wanted = [
            found
            for found in reversed(wanted.values())  # what is wanted first is forgotten last
            if not _held(view, found.block.second, found.width) and not self._has(found)
        ][::-1]
        if self._wanted:
            self._wake.set()

    def filled(self, view: View, begin: int, end: int) -> View:
        """The view with what was read of [begin, end) in the place of coarser bins, as far as it
        was asked for last: hours do not get better by single seconds, but slow."""
        read = [
            self._kept[block.second].get(self._shown[block.second], ())
            for block in self._between(begin, end)
            if block.second in self._shown.keys() & self._kept.keys()
            and not _held(view, block.second, 1)
        ]
        read = [found for found in read if found]
        if not read:
            return view
        coarse = iter(bins(view, begin, end))
        mixed: list[Bin] = []
        bin = next(coarse, None)
        for found in read:
            while bin is not None and bin.second < found[0].second:
                mixed.append(bin)
                bin = next(coarse, None)
            mixed += found
            while bin is not None and bin.second < found[-1].until:
                bin = next(coarse, None)
        mixed += [*([bin] if bin else []), *coarse]
        later = bisect_left(view.rings[0], mixed[-1].until, key=lambda bin: bin.second)
        return replace(view, rings=((*mixed, *view.rings[0][later:]), *view.rings[1:]))

    async def run(self, tell: Callable[[], object], fail: Callable[[str], object]) -> None:
        """Reads what is wanted until cancelled. `tell`: there is more to see."""
        told = time.monotonic()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._wanted:
                wanted = self._wanted.pop(0)
                await self._stand_aside()
                if self._has(wanted):  # it was on its way when it was wanted again
                    continue
                try:
                    await self._read(wanted)
                except (SpecError, OSError) as error:
                    fail(error.message if isinstance(error, SpecError) else str(error))
                    self._keep(wanted, ())  # is not tried again
                if not self._wanted or time.monotonic() - told > _TELL_S:
                    await self._stand_aside()
                    told = time.monotonic()
                    tell()

    async def _stand_aside(self) -> None:
        """For whoever else has something to do, and for the picture of somebody who has just
        looked elsewhere; a key that is held down only makes it slow."""
        await asyncio.sleep(0)
        await asyncio.sleep(max(0.0, self._looked + _AFTER_S - time.monotonic()))

    async def _read(self, wanted: Wanted) -> None:
        found: list[Bin] = []
        lines = await asyncio.to_thread(logindex.seconds_of, self._log, wanted.block)
        until = time.monotonic() + _SLICE_S
        for line in lines:
            window = logindex.decode(line)
            if isinstance(window, Window) and window.stage != "warmup":
                found.append(bin_of(window))
            if time.monotonic() > until:
                await self._stand_aside()
                until = time.monotonic() + _SLICE_S
        self._keep(wanted, found)

    def _keep(self, wanted: Wanted, seconds: Sequence[Bin]) -> None:
        kept = {10: tuple(_tens(seconds))}
        if wanted.width == 1:
            kept[1] = tuple(seconds)
        self._kept[wanted.block.second] = kept
        total = sum(len(found) for kept in self._kept.values() for found in kept.values())
        for second, kept in self._kept.items():
            if total > _KEPT and self._shown.get(second) != 1:  # tens of them will do
                total -= len(kept.pop(1, ()))
        while total > _KEPT and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            total -= sum(len(found) for found in gone.values())

    def _has(self, wanted: Wanted) -> bool:
        if wanted.width not in self._kept.get(wanted.block.second, ()):
            return False
        self._kept.move_to_end(wanted.block.second)
        return True

    def _between(self, begin: int, end: int) -> list[Block]:
        low = bisect_right(self._blocks, begin, key=lambda block: block.second) - 1
        high = bisect_left(self._blocks, end, key=lambda block: block.second)
        return self._blocks[max(0, low) : high]

    def _around(self, second: int) -> list[Block]:
        """The ten seconds that lead to it may begin in the minute before."""
        return self._between(second - 10, second + 1)


def _held(view: View, second: int, width: int) -> bool:
    """Whether the rings have it as fine as this."""
    rings = view.rings[:1] if width == 1 else view.rings[:2]
    firsts = [ring[0].second for ring in rings if ring]
    return any(first <= second or first == view.first for first in firsts)


def _tens(seconds: Sequence[Bin]) -> list[Bin]:
    groups: dict[int, list[Bin]] = {}
    for bin in seconds:
        groups.setdefault(bin.second // 10, []).append(bin)
    return [joined(tuple(group)) for group in groups.values()]
