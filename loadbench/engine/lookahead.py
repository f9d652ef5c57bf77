"""Whom to give up when not all that wait can be in time: a few whole plans, one of them chosen.

Window drop gives up every head that the one large batch would be too late for. Often these could
have ridden in a smaller batch before it, at the price of its fixed time; where the load is passing
(a burst) that time costs nobody anything, where it is lasting it costs those to come more than it
saves. And where batches are padded to certain sizes, a batch just over such a size is better cut
there. So each plan deals with those that wait, batch by batch, and is worth the rows that it serves
in time, less those that the time it takes is expected to cost among who comes meanwhile.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

CUTS = 1  # steps from window drop's first batch to the largest that the oldest can bear
CLEARLY = 0.95  # times are measured; a batch more costs what is not in them, too
TIE = 1e-12  # rows a ns: of plans that are else worth the same the shorter one,
KEEP = 1e-4  # rows a request: and the one that gives up less now


class Outlook(NamedTuple):
    """What time is worth; ns."""

    service: Sequence[int]  # of a batch by its rows
    largest: int  # rows of a batch
    now: int
    free: float  # who comes from now on is in time if all that wait are dealt with by then…
    price: float  # …and so many rows are lost for each ns that this takes longer


class Plan(NamedTuple):
    """The first batch: the requests before `first` are given up, those up to `last` run."""

    first: int
    last: int
    worth: float
    tight: bool  # it takes no more because its first request could not bear it


def outlook(service: Sequence[int], largest: int, limit_ns: int, rate: float) -> Outlook:
    """As of the moment 0. For requests that may take `limit_ns`, of which `rate` rows come in each
    ns.

    Those that come until a moment t are run after it, and the first of them has just come. A ns is
    worth the rows that are served in it by batches of which two fit into the limit.
    """
    fixed, row = line(service, largest)
    free = (limit_ns - fixed) / (1 + rate * row)
    if rate * free > largest:  # more than one batch
        free = limit_ns / (1 + rate * service[largest] / largest)
    best = target(service, largest, limit_ns)
    return Outlook(service, largest, 0, max(0.0, free), best / max(1, service[best]))


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


def cut(service: Sequence[int], rows: int) -> int:
    """A smaller batch than one of so many rows that, the rest following in another, takes clearly
    less time than all at once; 0: there is none. Only padding, or a device's own steps, make so."""
    whole = service[rows]
    below = bisect_left(service, whole) - 1
    return below if below > 0 and service[below] + service[rows - below] < CLEARLY * whole else 0


def window(
    due: Sequence[int], rows: Sequence[int], largest: int, service: Sequence[int], now: int
) -> int:
    """How many of the first window drop gives up: until the head can bear a batch of all that fit.
    `due` are the deadlines, rising; `rows` how many rows the requests before each have, and at the
    end all of them."""

    def fits(at: int) -> bool:
        return due[at] - now >= service[min(rows[-1] - rows[at], largest)]

    return bisect_left(range(len(due)), True, key=fits)


def best_plan(due: Sequence[int], rows: Sequence[int], least: int, view: Outlook) -> Plan:
    """The plan that is worth most. `least` is what window drop would give up, fewer than all.

    Beside window drop's own plan there are those whose first batch is smaller, with the oldest
    that can bear it at its head, and those that cut the batch where padding makes that quicker.
    """
    service, largest, now = view.service, view.largest, view.now
    size = min(largest, rows[-1] - rows[least])
    best = _plan(due, rows, least, largest, view)
    if least:
        smallest = max(1, bisect_right(service, due[0] - now) - 1)
        last = least
        for most in range(size, smallest - 1, -max(1, -(-(size - smallest) // CUTS))):
            first = bisect_left(due, now + service[most], 0, last)
            if first < last:
                best = max(best, _plan(due, rows, first, largest, view), key=_worth)
                last = first
    if below := cut(service, size):
        first = bisect_left(due, now + service[below])
        best = max(best, _plan(due, rows, first, below, view), key=_worth)
    return best


def _plan(due: Sequence[int], rows: Sequence[int], first: int, most: int, view: Outlook) -> Plan:
    """Gives up the first so many and runs batches, each as large as its head allows, the first of
    `most` rows at most; until going on is worth no more, or has a price."""
    service, largest, ended, free, price = view
    number, at, served = len(due), first, 0
    begin = last = 0
    worth, tight = -1.0, False
    while at < number:
        room = bisect_right(service, due[at] - ended) - 1
        size = room if room < most else most
        if size < rows[at + 1] - rows[at] <= room:  # of more rows than a batch may have for now:
            size = rows[at + 1] - rows[at]  # it runs alone
        until = bisect_right(rows, rows[at] + size) - 1 if size > 0 else at
        if until == at:
            at += 1
            continue
        size = rows[until] - rows[at]
        ended += service[size]
        served += size
        found = served - TIE * (ended - view.now)
        if ended > free:
            found -= price * (ended - free)
        if not last:
            begin, last, tight, worth = at, until, room < most, found
        elif found > worth:
            worth = found
        if ended > free:
            break
        most, at = largest, until
    return Plan(begin, last, worth - KEEP * begin, tight)


def _worth(plan: Plan) -> float:
    return plan.worth
