"""Batch sizes that the device likes: a batch of another size is padded to the next of them.

A model of static shapes, or one with a graph recorded for each size, runs these only. Whether to
cut a batch down instead is `lookahead`'s business, the padding itself that of `execution`.
"""

from bisect import bisect_left
from collections.abc import Sequence

Sizes = Sequence[int]  # rising


def padded(sizes: Sizes, rows: int) -> int:
    """The size in which so many rows run: the next that holds them; beyond the largest, and
    without sizes, as they are."""
    at = bisect_left(sizes, rows)
    return sizes[at] if at < len(sizes) else rows
