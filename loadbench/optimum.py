"""How good a batcher was: what it reached of the most that anyone could have, had they known all
arrivals beforehand.

Arrivals, what became of them and what a batch of each size costs go in, an Optimum comes out; where
they come from is the business of `yardstick`. Times are ns, sizes are requests.

The most requests that one instance can answer within D of their arrivals is found exactly by
dynamic programming. Deadlines come in the order of the arrivals and no batch is quicker than a
smaller one, so batches of consecutive requests are enough: an inverted pair can be swapped, and a
batch can take the latest of those before its last member. Let h[j][d] be the least time at which
the first j requests are dealt with, d of them given up:

    h[j][d] = min(h[j−1][d−1], min over m of f = max(h[j−m][d], r_j) + L(m) where f ≤ r_{j−m+1} + D)

(equal processing times: Baptiste, Batching identical jobs, 2000). Only a few d matter at each j:
below them no schedule exists, and above the first at which the instance is free before the next
arrival more given up gains nothing.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from loadbench.model import Optimum

Times = NDArray[np.int64]

EXACTLY = 45_000  # arrivals that are looked at in one piece, or in blocks of about 2,000: a second
BLOCKS = 20  # evenly spread, where there are more
NEVER = 1 << 62
_CLEARLY = 0.01  # blocks are a sample: where both say about the same, the bound for all counts
_ROWS = 1024
_WIDTH = 128


class Trace(NamedTuple):
    """Requests in the order of their arrivals: when they came and ended, and whether they were
    served in time."""

    arrived: Times
    ended: Times
    in_time: NDArray[np.bool_]


class Costs(NamedTuple):
    """Of a batch by how many requests it has, none of them falling: the model's own time, what the
    host adds before the instance is free again, and what it takes from then to the answers."""

    model: Times
    host: Times
    answer: Times


def judge(
    trace: Trace, slo_ns: int, costs: Costs, instances: int = 1, exactly: int = EXACTLY
) -> Optimum:
    """What was reached of the best possible, and where the rest went.

    The best is exact for one instance and up to about `exactly` arrivals that were not seen to be
    served anyway. Else it is rather too high, and the share too low: that of blocks that each begin
    idle (by what is served within the SLO, so little where that is) or a bound for all arrivals
    (little where batches are full, or the SLO is many of them long), whichever is the closer.
    """
    clean, number = _clean(trace), len(trace.arrived)
    room = _affordable(slo_ns, costs.model, exactly)
    begins = np.flatnonzero(clean)
    unseen = number - int((clean[begins] - begins).sum())
    if instances == 1 and unseen <= room.arrivals:
        return replace(_judged(trace, slo_ns, costs, [(0, number)], clean), exact=True)
    bound = _judged(trace, slo_ns, costs, [(0, number)], instances)
    length = room.arrivals // BLOCKS
    if instances > 1 or length <= room.width:
        return bound
    starts = [at * (number - length) // (BLOCKS - 1) for at in range(BLOCKS)]
    spans = [(start, start + length) for start in starts]
    blocks = _judged(trace, slo_ns, costs, spans, clean)
    return blocks if (blocks.share or 0) > (bound.share or 0) + _CLEARLY else bound


def _judged(
    trace: Trace, slo_ns: int, costs: Costs, spans: Sequence[tuple[int, int]], by: Times | int
) -> Optimum:
    """The sums over some spans of the arrivals; `by` the table, with what `_clean` found, or by
    the bound for so many instances."""
    reached = hosted = best = above = 0
    for begin, end in spans:
        arrived, own = trace.arrived[begin:end], int(trace.in_time[begin:end].sum())
        found = [
            at_most(arrived, slo_ns, occupied, answer, by)
            if isinstance(by, int)
            else most_in_time(
                arrived, slo_ns, occupied, answer, np.clip(by[begin:end] - begin, 0, end - begin)
            )
            for occupied, answer in (
                (costs.model, np.zeros_like(costs.model)),
                (costs.model + costs.host, costs.answer),
            )
        ]
        reached += own
        best += max(found[0], own)  # measured times scatter; what was done could be done
        hosted += max(found[1], own)
        above += max(0, own - found[1])
    return Optimum(
        slo_ns=slo_ns,
        arrivals=sum(end - begin for begin, end in spans),
        of=len(trace.arrived),
        reached=reached,
        hosted=min(hosted, best),
        best=best,
        above=above,
        exact=False,
    )


def summed(judged: Sequence[Optimum]) -> Optimum:
    """Of the parts of a run, each judged by its own SLO, together; that of the last is told."""
    if len(judged) == 1:
        return judged[0]
    return Optimum(
        slo_ns=judged[-1].slo_ns,
        arrivals=sum(part.arrivals for part in judged),
        of=sum(part.of for part in judged),
        reached=sum(part.reached for part in judged),
        hosted=sum(part.hosted for part in judged),
        best=sum(part.best for part in judged),
        above=sum(part.above for part in judged),
        exact=all(part.exact for part in judged),
    )


class _Room(NamedTuple):
    """How many arrivals the table can be filled for, and how many of its columns matter at once:
    about as many as can be served within the SLO."""

    arrivals: int
    width: int


def _affordable(slo_ns: int, occupied: Times, exactly: int) -> _Room:
    """An arrival costs some 10 µs and 1 ns for each batch size and column."""
    largest = len(occupied) - 1
    width = int(slo_ns * (np.arange(1, largest + 1) / np.maximum(occupied[1:], 1)).max())
    return _Room(int(exactly / (1 + largest * width / 10_000)), width)


def _clean(trace: Trace) -> Times:
    """For the first request of each busy period in which all were served in time: the index after
    its last. 0 for all others. Such a period shows by itself that nobody could do better."""
    number = len(trace.arrived)
    clean = np.zeros(number, np.int64)
    if not number:
        return clean
    ended = np.maximum.accumulate(trace.ended)
    begins = np.flatnonzero(np.concatenate(([True], ended[:-1] <= trace.arrived[1:])))
    ends = np.append(begins[1:], number)
    missed = np.concatenate(([0], np.cumsum(~trace.in_time)))
    whole = missed[ends] == missed[begins]
    clean[begins[whole]] = ends[whole]
    return clean


def most_in_time(
    arrived: Times, slo_ns: int, occupied: Times, answer: Times, clean: Times | None = None
) -> int:
    """The most requests that one instance, idle at first, can answer in time.

    A batch of m keeps it for `occupied[m]`; its answers are out `answer[m]` later. `clean[i]` is
    the end of a stretch from i on that was seen to be served wholly by an instance idle at its
    beginning and idle at its end.

    With `occupied[i, m]` each request has such times of its own, and a batch takes those of its
    last one: then it is the most for batches of consecutive requests, one after the other.
    """
    number = len(arrived)
    own = occupied if occupied.ndim == 2 else None
    table = _Table(occupied if own is None else own[0], answer)
    due = arrived + slo_ns
    # the first request that could be in one batch with each, were the batch no longer than for one
    quickest = int(occupied[..., 1].min() + answer[1]) if number else 0
    first = np.searchsorted(arrived, arrived - slo_ns + quickest).tolist()
    moments = [*arrived.tolist(), NEVER]
    skips = [0] * number if clean is None else clean.tolist()
    given_up = at = 0
    while at < number:
        if skips[at]:
            at = skips[at]
            continue
        table.restart()
        begin = at
        while at < number:
            at += 1
            most = min(at - begin, at - first[at - 1])
            if own is not None:
                table.take(own[at - 1])
            over = table.add(moments[at - 1], due[max(begin, at - most) : at], moments[at])
            if over and own is None:  # else a quick last one might still take others along
                break
        given_up += table.given_up
    return number - given_up


class _Table:
    """The rows of h that are still needed, of each only the columns that matter."""

    def __init__(self, occupied: Times, answer: Times) -> None:
        self._largest = len(occupied) - 1
        self.take(occupied)
        self._answer = answer[:0:-1].copy()
        self._rows = np.full((self._largest + _ROWS, _WIDTH), NEVER)
        self._low = [0] * len(self._rows)
        self._high = [0] * len(self._rows)
        self._at = self._base = 0

    def take(self, occupied: Times) -> None:
        """What a batch keeps the instance for from now on."""
        self._occupied = occupied[:0:-1, None].copy()  # from the largest batch to one

    @property
    def given_up(self) -> int:
        """The least number to give up until now."""
        return self._base + self._low[self._at]

    def restart(self) -> None:
        """Nothing has come, the instance is idle."""
        self._at = self._base = 0
        self._rows[0] = NEVER
        self._rows[0, 0] = 0
        self._low[0], self._high[0] = 0, 1

    def add(self, arrived: int, due: Times, following: int) -> bool:
        """One more request, the last of those that are `due`. True if the least number given up
        leaves the instance idle when the `following` one arrives: then the past is over."""
        if self._at + 1 == len(self._rows) or self._high[self._at] + 1 > len(self._rows[0]):
            self._compact()
        at, low = self._at, self._low[self._at]
        most = min(len(due), self._largest, at + 1)
        row = self._rows[at + 1]
        row[:] = NEVER
        high = self._high[at] + 1
        row[low + 1 : high] = self._rows[at, low : high - 1]  # given up
        if most > 0:
            begin = at + 1 - most
            low = min(self._low[begin : at + 1])  # with times of their own it may fall again
            until = max(self._high[begin : at + 1])
            ended = np.maximum(self._rows[begin : at + 1, low:until], arrived)
            ended += self._occupied[-most:]
            late = due[-most:] - self._answer[-most:]
            ended[ended > late[:, None]] = NEVER
            np.minimum(row[low:until], ended.min(axis=0), out=row[low:until])
            high = max(high, until)
        return self._keep(at + 1, low, high, following)

    def _keep(self, at: int, low: int, high: int, following: int) -> bool:
        """Cuts a new row to what matters of it."""
        found = self._rows[at, low:high]
        least = low + int((found < NEVER).argmax())
        free = found <= following
        enough = low + int(free.argmax()) if free.any() else high - 1
        self._rows[at, enough + 1 : high] = NEVER
        self._at, self._low[at], self._high[at] = at, least, enough + 1
        return least == enough and bool(free.any())

    def _compact(self) -> None:
        """Moves the rows that are still needed to the front, and their columns too."""
        begin = max(0, self._at + 1 - self._largest)
        lows, highs = self._low[begin : self._at + 1], self._high[begin : self._at + 1]
        base, until = min(lows), max(highs)
        kept = self._rows[begin : self._at + 1, base:until].copy()
        width = max(_WIDTH, 2 * (until - base))
        if width > len(self._rows[0]):
            self._rows = np.full((len(self._rows), width), NEVER)
        self._rows[: len(kept)] = NEVER
        self._rows[: len(kept), : until - base] = kept
        self._low[: len(kept)] = [low - base for low in lows]
        self._high[: len(kept)] = [high - base for high in highs]
        self._at = len(kept) - 1
        self._base += base


def at_most(arrived: Times, slo_ns: int, occupied: Times, answer: Times, instances: int) -> int:
    """No more than so many can one or several instances answer in time.

    A request in a batch that ends in time takes at least 1/X of an instance's time within its own
    deadline, where X is the highest throughput of such batches. As if that time could be shared
    out at will: then one after the other is best, leaving out who would be late.
    """
    sizes = np.arange(1, len(occupied))
    fits = occupied[1:] + answer[1:] <= slo_ns
    if not fits.any():
        return 0
    share = float((occupied[1:] / sizes)[fits].min()) / instances
    limit = slo_ns - int(answer[1])
    free = 0.0
    served = 0
    for moment in _moments(arrived):
        ended = max(free, moment) + share
        if ended <= moment + limit:
            served += 1
            free = ended
    return served


def _moments(arrived: Times) -> Iterator[int]:
    """As Python's own numbers, a piece at a time."""
    for begin in range(0, len(arrived), 65_536):
        yield from arrived[begin : begin + 65_536].tolist()
