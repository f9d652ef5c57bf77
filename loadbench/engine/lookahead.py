"""Whom to give up when not all that wait can be in time: a few whole plans, one of them chosen.

Window drop gives up every head that the one large batch would be too late for. Often these could
have ridden in a smaller batch before it, at the price of its fixed time; where the load is passing
(a burst) that time costs nobody anything, where it is lasting it costs those to come more than it
saves. And where batches are padded to certain sizes, a batch that would not fill its size is often
better cut at the one below: the rest ride with those who come meanwhile. So each plan deals with
those that wait, batch by batch, and is worth the rows that it serves in time, less those that the
time it takes is expected to cost among who comes meanwhile.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from loadbench.engine.rule import NEVER, State

CLEARLY = 0.95  # times are measured; a batch more costs what is not in them, too
CLUMPED = 3  # times as many as on average may come for one batch, as chance has it
TIE = 1e-12  # rows a ns: of plans that are else worth the same the shorter one,
KEEP = 1e-4  # rows a request: and the one that gives up less now


class Outlook(NamedTuple):
    """What time is worth; ns."""

    service: Sequence[int]  # of a batch by its rows
    largest: int  # rows of a batch
    rate: float  # rows that come in a ns
    now: int
    free: float  # who comes from now on is in time if all that wait are dealt with by then…
    price: float  # …and so many rows are lost for each ns that this takes longer


class Plan(NamedTuple):
    """The first batch: the requests before `first` are given up, those up to `last` run."""

    first: int
    last: int
    worth: float


def outlook(state: State, largest: int, limit_ns: int, now: int, unseen_ns: float) -> Outlook:
    """For requests that may take `limit_ns`; those that wait behind whom a plan deals with take
    `unseen_ns` more.

    Those that come until a moment t are run after it, and the first of them came at once. A ns is
    worth the rows that are served in it by batches of which two fit into the limit.
    """
    service, rate = state.service, max(state.rate, 1 / NEVER)
    gap = 1 / (CLUMPED * rate)
    sizes = range(1, largest + 1)
    rows = bisect_right(sizes, float(limit_ns), key=lambda size: size * gap + service[size])
    if rows < largest:
        free = max(rows * gap, limit_ns - service[rows + 1])
    else:  # more than one batch, and chance evens out
        free = limit_ns / (1 + rate * service[largest] / largest)
    best = target(service, largest, limit_ns)
    free += now - unseen_ns
    return Outlook(service, largest, rate, now, free, best / max(1, service[best]))


def target(service: Sequence[int], largest: int, limit_ns: int) -> int:
    """The rows of the largest batch of which two fit into the limit: who comes just after one began
    is in time with the next."""
    return min(largest, max(1, bisect_right(service, limit_ns // 2) - 1))


def line(service: Sequence[int], largest: int) -> tuple[int, float]:
    """A batch's time as a fixed part and one for each row."""
    if largest < 2:
        return service[largest], 0.0
    row = (service[largest] - service[1]) / (largest - 1)
    return max(0, service[1] - round(row)), row


def cut(service: Sequence[int], rows: int, rate: float) -> int:
    """A smaller batch than one of so many rows that, the rest following in another with those who
    come meanwhile, takes clearly less time a row; 0: there is none. Only padding, or a device's own
    steps, make so."""
    whole = service[rows]
    below = bisect_left(service, whole) - 1
    if below <= 0:
        return 0
    then = min(below, rows - below + int(rate * service[below]))
    both = service[below] + service[then]
    return below if both * rows < CLEARLY * whole * (below + then) else 0


def window(
    due: Sequence[int], rows: Sequence[int], largest: int, service: Sequence[int], now: int
) -> int:
    """How many of the first window drop gives up: until the head can bear a batch of all that
    fit."""

    def fits(at: int) -> bool:
        return due[at] - now >= service[min(rows[-1] - rows[at], largest)]

    return bisect_left(range(len(due)), True, key=fits)


def best_plan(due: Sequence[int], rows: Sequence[int], view: Outlook) -> Plan | None:
    """The plan that is worth most; None: nobody can be in time. `due` are the deadlines, rising;
    `rows` how many rows the requests before each have, and at the end all of them.

    Its first batch is as large as window drop's, or as the oldest can bear, or is cut where padding
    makes that quicker; at its head is the oldest that can bear it.
    """
    service, largest, now = view.service, view.largest, view.now
    least = window(due, rows, largest, service, now)
    if least == len(due):
        return None
    size = min(largest, rows[-1] - rows[least])
    oldest = max(1, bisect_right(service, due[0] - now) - 1)
    sizes = {size, min(size, oldest), cut(service, size, view.rate) or size}
    plans = [_plan(due, rows, bisect_left(due, now + service[most]), most, view) for most in sizes]
    best = max(plans, key=_worth)
    return best if best.last else None


def _plan(due: Sequence[int], rows: Sequence[int], first: int, most: int, view: Outlook) -> Plan:
    """Gives up the first so many and runs batches, each as large as its head allows, the first of
    `most` rows at most; until going on is worth no more, or has a price."""
    service, largest, _, ended, free, price = view
    number, at, served = len(due), first, 0
    begin = last = 0
    worth = -1.0
    while at < number:
        room = bisect_right(service, due[at] - ended) - 1
        size = room if room < most else most
        if size < rows[at + 1] - rows[at] <= room:  # of more rows than a batch may have for now:
            size = rows[at + 1] - rows[at]  # it runs alone
        until = bisect_right(rows, rows[at] + size) - 1 if size > 0 else at
        if until == at:  # it is too late for this one, and for whom not even one row could serve
            at = max(at + 1, bisect_left(due, ended + service[1], at))
            continue
        size = rows[until] - rows[at]
        ended += service[size]
        served += size
        found = served - TIE * (ended - view.now)
        if ended > free:
            found -= price * (ended - free)
        if not last:
            begin, last, worth = at, until, found
        elif found > worth:
            worth = found
        if ended > free:
            break
        most, at = largest, until
    return Plan(begin, last, worth - KEEP * begin)


def _worth(plan: Plan) -> float:
    return plan.worth
