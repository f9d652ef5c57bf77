"""Where a series of results changed: E-divisive of Matteson and James (2014, "A nonparametric
approach for multiple change point analysis of multivariate data"), as MongoDB uses it on its
performance tests.

A segment is cut where the energy distance between its two parts is largest. Whether that is more
than chance is told by permutations of the segment: how often is the largest distance of the same
values in another order as large? What is cut is looked at again, until nothing more is found. The
right part may end before the segment does, so that what was bad for a while and then mended is
seen. The permutations are seeded: the same history gives the same points.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.02  # of the segments in which nothing changed, so many are cut by chance
PERMUTATIONS = 499
LEAST = 2  # values on each side of a cut: one alone has no spread
MOST = 200  # values looked at, the last ones
Floats = NDArray[np.float64]


class Change(NamedTuple):
    """`at` is the index of the first value that is different; `p` the share of chance."""

    at: int
    p: float


def changes(values: Sequence[float], seed: int = 1) -> list[Change]:
    """The change points of values in the order in which they were measured, which may be infinite
    (larger than any number). Of more than 200 the last 200 are looked at."""
    offset = max(0, len(values) - MOST)
    scaled = _scaled(values[offset:])
    chance = np.random.default_rng(seed)
    found: list[Change] = []
    segments = [(0, len(scaled))]
    while segments:
        begin, end = segments.pop()
        change = _strongest(scaled[begin:end], chance)
        if change is not None:
            cut = begin + change.at
            found.append(Change(offset + cut, change.p))
            segments += [(begin, cut), (cut, end)]
    return sorted(found)


def _scaled(values: Sequence[float]) -> Floats:
    """Logarithms where all are positive, so that ratios count; what is infinite lies as far above
    the others as those are apart, and more."""
    known = np.array(values, np.float64)
    finite = known[np.isfinite(known)]
    if finite.size and finite.min() > 0:
        known, finite = np.log(known), np.log(finite)
    if not finite.size:
        return np.zeros(len(known))
    beyond = finite.max() + max(float(finite.max() - finite.min()), 1.0)
    return np.where(np.isfinite(known), known, beyond)


def _strongest(values: Floats, chance: np.random.Generator) -> Change | None:
    """The best cut of a segment, if it is more than chance."""
    if len(values) < 2 * LEAST or values.min() == values.max():
        return None
    distances = np.abs(values[:, None] - values[None, :])
    energies = energy(distances)
    at = int(np.argmax(energies.max(1)))
    strongest = energies.max() * (1 - 1e-12)
    as_large = 0
    for _ in range(PERMUTATIONS):
        order = chance.permutation(len(values))
        as_large += bool(energy(distances[np.ix_(order, order)]).max() >= strongest)
        if as_large + 1 > LEVEL * (PERMUTATIONS + 1):
            return None  # however the rest turn out
    return Change(at, (as_large + 1) / (PERMUTATIONS + 1))


def energy(distances: Floats) -> Floats:
    """The scaled energy distance between the values before a cut and those from it on, up to an
    end: [cut, end], −inf where a part would have fewer than two. `distances` is symmetric, n × n.
    """
    count = len(distances)
    sums = np.zeros((count + 1, count + 1))
    sums[1:, 1:] = distances.cumsum(0).cumsum(1)
    cut, end = np.arange(count + 1)[:, None], np.arange(count + 1)[None, :]
    before, after = np.maximum(cut, LEAST), np.maximum(end - cut, LEAST)
    inside = np.diagonal(sums)[:, None]  # each pair counted twice, here and in the rest
    across = sums - inside
    rest = np.diagonal(sums)[None, :] - 2 * sums + inside
    within = inside / (before * (before - 1)) + rest / (after * (after - 1))
    scaled = before * after / (before + after) * (2 * across / (before * after) - within)
    found: Floats = np.where((cut >= LEAST) & (end - cut >= LEAST), scaled, -np.inf)
    return found


def level(values: Sequence[float]) -> float:
    """The median, in which what is infinite is larger than any number."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    low, high = ordered[middle - 1 : middle + 1]
    return math.inf if math.isinf(high) else (low + high) / 2
