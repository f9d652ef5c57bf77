"""Batch sizes that the device likes: a batch of another size is padded to the next, or cut down.

A model of static shapes, or one with a graph recorded for each size, runs these only. Which
requests come to be batched is `policy`'s business, the padding itself that of `execution`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from loadbench.engine.rule import W

Sizes = Sequence[int]  # rising


def padded(sizes: Sizes, rows: int) -> int:
    """The size in which so many rows run: the next that holds them; beyond the largest, and
    without sizes, as they are."""
    at = bisect_left(sizes, rows)
    return sizes[at] if at < len(sizes) else rows


def fitting(sizes: Sizes, batch: Sequence[W], table: Sequence[int], now: int) -> int:
    """How many requests of `batch`, from the first on, are to run now; the rest waits for the next.

    All of them, padded, unless fewer without padding do more rows in their time, and the rest can
    still meet its deadlines after them. `table` is the planned time (ns) of a batch by its rows.
    """
    rows = sum([request.rows for request in batch])
    whole = padded(sizes, rows)
    below = bisect_right(sizes, rows)
    if whole == rows or not below or whole >= len(table):
        return len(batch)
    first, taken = 0, 0
    while taken + batch[first].rows <= sizes[below - 1]:
        taken += batch[first].rows
        first += 1
    if not first or rows * table[padded(sizes, taken)] >= taken * table[whole]:
        return len(batch)
    ended = now + table[padded(sizes, taken)] + table[padded(sizes, rows - taken)]
    return first if all(request.deadline >= ended for request in batch[first:]) else len(batch)
