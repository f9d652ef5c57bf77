"""What chance alone does to ranks, counted exactly: of two samples, and of one over time.

Two samples of m and n values that come from one distribution: of their m·n pairs u have the first
value larger, with the distribution of Mann and Whitney (1947). Nothing is assumed of the values but
that they are independent. For large samples the normal approximation stands in.
"""

import math
from functools import lru_cache

import numpy as np

_EXACT = 60  # values, of two samples of each, counted one by one up to here


def tail(m: int, n: int, u: int) -> float:
    """The probability that at most `u` of the m·n pairs go one way, if both samples are alike."""
    if u < 0:
        return 0.0
    if u >= m * n:
        return 1.0
    if max(m, n) > _EXACT:
        spread = math.sqrt(m * n * (m + n + 1) / 12)
        return 0.5 * math.erfc((m * n / 2 - u - 0.5) / spread / math.sqrt(2))
    return _sums(m, n)[u]


def rank(m: int, n: int, level: float) -> int:
    """Which of the sorted pairwise differences, counted from 1, bounds the shift from below with
    an error of at most `level`; 0: the samples are too small to bound it."""
    if tail(m, n, 0) > level:
        return 0
    low, high = 0, m * n // 2  # tail(low) is fine; at the middle it is about a half
    while high - low > 1:
        middle = (low + high) // 2
        if tail(m, n, middle) <= level:
            low = middle
        else:
            high = middle
    return low + 1


@lru_cache(maxsize=256)
def _sums(m: int, n: int) -> list[float]:
    """Sums of the distribution of u: the coefficients of the Gaussian binomial (m + n over m)."""
    most = m * n // 2  # the rest mirrors it
    ways = [1] + [0] * most
    for k in range(1, m + 1):
        for at in range(most, n + k - 1, -1):  # times 1 − q^(n+k)
            ways[at] -= ways[at - n - k]
        for at in range(k, most + 1):  # divided by 1 − q^k
            ways[at] += ways[at - k]
    total, below, found = math.comb(m + n, m), 0, []
    for count in ways:
        below += count
        found.append(below / total)
    return found + [1 - found[m * n - u - 1] for u in range(most + 1, m * n)]


def trend(values: list[float]) -> float:
    """The two-sided probability of as many pairs in or against order as the values have, if their
    order says nothing (Kendall 1938); ties count as half. 1 for fewer than 4 values."""
    n = len(values)
    if n < 4:
        return 1.0
    found = np.array(values)
    first, second = np.triu_indices(n, 1)
    against = (found[first] > found[second]).sum() + (found[first] == found[second]).sum() / 2
    pairs = len(first)
    fewer = math.floor(min(against, pairs - against) + 0.5)  # half a pair does not help
    if n > _EXACT:
        spread = math.sqrt(n * (n - 1) * (2 * n + 5) / 72)
        return min(1.0, math.erfc((pairs / 2 - fewer - 0.5) / spread / math.sqrt(2)))
    return min(1.0, 2 * _inversions(n, fewer))


def _inversions(n: int, most: int) -> float:
    """The share of the orders of n things that have at most so many pairs against order."""
    shares = [1.0]
    for size in range(2, n + 1):  # the next thing stands before 0 … size − 1 of the others
        longer = [0.0] * (len(shares) + size - 1)
        for at, share in enumerate(shares):
            for step in range(size):
                longer[at + step] += share / size
        shares = longer
    return sum(shares[: most + 1])
