"""The windows of many workers as one a second, and the account of those that were lost.

A second goes out when every worker that is still there has told it. What a lost worker had told is
kept; what was in flight there is `lost`, what waited there or fell due until others took over its
share is `unsent`. So at each window's end, summed over the run, asked = sent + unsent + waiting and
sent = done + failed + lost + in flight.

Moments here are those of the master's clock. Who is lost, and when, is decided by `roll`.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from loadbench.load.axis import Axis
from loadbench.load.schedule import NEVER
from loadbench.merge import together
from loadbench.model import Window
from loadbench.plan import Share
from loadbench.units import SECOND

Deals = Sequence[tuple[int, Share | None]]  # from when on whose; rising


class Loss(NamedTuple):
    """What was lost with a worker."""

    lost: int
    unsent: int


class Tally:
    """Workers tell it their windows by `add`; `due` gives what is known of all."""

    def __init__(self, axis: Axis) -> None:
        self._axis = axis
        self._parts: dict[int, list[Window]] = {}  # second → what is known of it
        self._awaited: dict[str, int] = {}  # worker → the second it is to tell next
        self._last: dict[str, Window] = {}
        self._left: list[tuple[int, int]] = []  # (from this second on, in flight for ever)
        self._free: list[tuple[int, int]] = []  # [begin, end) in which nobody had the load
        self._next = axis.second(axis.begin)

    @property
    def unfinished(self) -> int:
        """In flight at workers that have finished."""
        return sum(number for _, number in self._left)

    def awaited(self, worker: str) -> int:
        """The second that the worker is to tell next."""
        return self._awaited[worker]

    def join(self, worker: str, second: int) -> None:
        """The worker tells the seconds from this one on, or from the next that goes out."""
        self._awaited[worker] = max(second, self._next)

    def add(self, worker: str, window: Window) -> None:
        """A worker tells a second."""
        if window.second >= self._next:  # one that joins late tells of seconds without any of it
            self._parts.setdefault(window.second, []).append(window)
        self._last[worker] = window
        self._awaited[worker] = window.second + 1

    def finish(self, worker: str) -> None:
        """A worker has told all."""
        second = self._awaited.pop(worker)
        last = self._last.pop(worker, None)
        if last and last.in_flight:
            self._left.append((second, last.in_flight))

    def lose(self, worker: str, deals: Deals, until: int) -> Loss:
        """A worker is lost; what falls due from `until` on is the others'."""
        second = self._awaited.pop(worker)
        last = self._last.pop(worker, None)
        lost, unsent = (last.in_flight, last.waiting) if last else (0, 0)
        if second == 0:  # warm-up's account ends with it
            lost = unsent = 0
        part = replace(self._axis.blank(second), lost=lost, unsent=unsent)
        self._parts.setdefault(second, []).append(part)
        for begin, end in self._seconds(second, until):
            number = sum(
                self._axis.held(share, max(begin, since), min(end, to))
                for share, since, to in _spans(deals)
                if max(begin, since) < min(end, to)
            )
            self._unsent(begin, number)
            unsent += number
        return Loss(lost, unsent)

    def abandon(self, begin: int) -> None:
        """From a moment on nobody has any of the load, if it is not so already."""
        if not self._nobodys:
            self._free.append((begin, NEVER))

    def resume(self, end: int) -> None:
        """From a moment on it is somebody's again."""
        if self._nobodys:
            self._free[-1] = (self._free[-1][0], end)

    @property
    def _nobodys(self) -> bool:
        return bool(self._free) and self._free[-1][1] == NEVER

    def due(self, now: int) -> Iterator[Window]:
        """The seconds that are over, and known in full."""
        limit = min([*self._awaited.values(), self._axis.second(now)])
        while self._next < limit:
            yield self._one()
        self._axis.forget(self._next)

    def rest(self, until: int) -> Iterator[Window]:
        """When nobody tells any more: all seconds until a moment, and what is known beyond."""
        while self._next <= max([self._axis.second(until), *self._parts]):
            yield self._one()

    def _one(self) -> Window:
        second = self._next
        begin = self._axis.at(second)
        for free, taken in self._free:
            since, until = max(begin, free), min(begin + SECOND, taken)
            if since < until:
                self._unsent(begin, self._axis.held(Share(), since, until))
        self._free = [span for span in self._free if span[1] > begin + SECOND]
        self._next += 1
        parts = self._parts.pop(second, [])
        left = sum(number for since, number in self._left if since <= second)
        base = parts.pop() if parts else self._axis.blank(second)
        parts.append(replace(base, in_flight=base.in_flight + left))
        return together(parts, self._axis.slowest)

    def _seconds(self, first: int, until: int) -> Iterator[tuple[int, int]]:
        begin = max(self._axis.begin, self._axis.at(first))
        while begin < until:
            end = min(until, self._axis.at(self._axis.second(begin) + 1))
            yield begin, end
            begin = end

    def _unsent(self, moment: int, number: int) -> None:
        """So many fell due in the second of this moment, and nobody sent them."""
        second = self._axis.second(moment)
        part = replace(self._axis.blank(second), asked=number, unsent=number)
        self._parts.setdefault(second, []).append(part)


def _spans(deals: Deals) -> Iterator[tuple[Share, int, int]]:
    """(share, from, to) of what was dealt."""
    ends = [*(since for since, _ in deals[1:]), NEVER]
    for (since, share), end in zip(deals, ends, strict=True):
        if share:
            yield share, since, end
