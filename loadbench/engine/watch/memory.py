"""Does the engine's memory only ever grow?

What a process holds jumps: caches fill, allocators round up. So growth counts only when it goes on:
over at least three minutes every value of the last third lies above every value of the first, the
slope between all pairs (Theil and Sen) says the same, and it comes to something.
"""

from collections import deque
from statistics import median

from loadbench import units
from loadbench.model import Note
from loadbench.units import SECOND

PERIOD_NS = 10 * SECOND
SETTLING = 3  # looks that are not counted: the first batches fill pools
ENOUGH = 18
KEPT = 180
GROWTH = 32 << 20  # bytes over the time that is looked at


class Growth:
    """One kind of memory, looked at every `PERIOD_NS`."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._looks = 0
        self._values: deque[int] = deque(maxlen=KEPT)
        self._told = False

    def look(self, size: int) -> Note | None:
        """The size now, in bytes; a note, once, when it has grown for long enough."""
        self._looks += 1
        if self._looks > SETTLING:
            self._values.append(size)
        values = list(self._values)
        if self._told or len(values) < ENOUGH:
            return None
        third = len(values) // 3
        rising = min(values[-third:]) > max(values[:third])
        grown = slope(values) * (len(values) - 1)
        if not rising or grown < GROWTH:
            return None
        self._told = True
        minutes = (len(values) - 1) * PERIOD_NS / (60 * SECOND)
        rate = units.significant(grown / minutes / 1e6)
        text = f"{self._title} grows by {rate} MB a minute: {_mb(values[0])} → {_mb(values[-1])}"
        return Note("memory-grows", text, "does the model or its code keep what it was given?")


def slope(values: list[int]) -> float:
    """The median of the slopes between all pairs, per step."""
    return median(
        (later - earlier) / (j - i)
        for i, earlier in enumerate(values)
        for j, later in enumerate(values[i + 1 :], i + 1)
    )


def _mb(size: int) -> str:
    return f"{units.significant(size / 1e6)} MB"
