"""How sure a share is that was counted over requests which are not independent of each other.

Requests that are near each other wait in the same queue, so n of them say less than n. By how much
is the design effect: the variance of the shares of blocks, in parts of what it would be were they
independent. Counts are divided by it and fed to a bound that holds at every look (a beta-binomial
mixture martingale, Robbins 1970; Ville's inequality), because a run is looked at every second and
may be stopped when it looks good. All of it is for a stretch of constant load.

Pure arithmetic: what is counted, and what is made of it, is for others (`loadbench.assurance`).
"""

import math

import numpy as np
from numpy.typing import NDArray

LEAST = 40  # blocks, and requests in parts of the design effect, before anything is said
WRONG = 0.01  # how often a verdict may be wrong, looked at as often as one likes
BAND = 0.05  # the same of a percentile's band
_FEWEST = 5  # blocks that a guess is made from
_GROWTH = 1.1
_CORRELATION = 0.05
_NOTHING = 1e-12  # a share that cannot be told from none
_FURTHEST = 1e5  # times as many requests: beyond that nobody waits

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def design_effect(asked: Ints, over: Ints) -> float | None:
    """Of an indicator that `over` of `asked` requests had, block by block; at least 1. Blocks are
    doubled until that no longer adds to it; None: there are too few for that. NaN where all or
    none had it: then it says nothing."""
    total = int(asked.sum())
    if not 0 < int(over.sum()) < total:
        return math.nan
    before = math.inf
    found, correlation = 0.0, 0.0
    while len(asked) >= LEAST:
        found, correlation = _spread(asked, over)
        if found <= before * _GROWTH and correlation < _CORRELATION and before < math.inf:
            return max(1.0, found)
        before = found
        asked, over = _doubled(asked), _doubled(over)
    return None


def effect_of(asked: Ints, over: Ints, slow: Ints) -> float | None:
    """Of a claim about `over`, also by the requests that were `slow`, which show how long a queue
    remembers where the claim's own are too rare to. Where there is none of those at all, and what
    was slow depends on ever longer stretches, the most that it may well be stands for it."""
    found = larger([design_effect(asked, each) for each in (over, slow)])
    if found is None and not over.any():
        guess = rough_effect(asked, slow)
        return guess[1] if guess else None
    return found


def rough_effect(asked: Ints, over: Ints) -> tuple[float, float] | None:
    """The same guessed from fewer blocks: (as it looks, as it may well be), each at least 1. For
    whoever has to decide how to go on; nothing is shown by the first. None and NaN as above."""
    if not 0 < int(over.sum()) < int(asked.sum()):
        return math.nan, math.nan
    if len(asked) < _FEWEST:
        return None
    seen, most = 1.0, 1.0
    while len(asked) >= _FEWEST:
        found, _ = _spread(asked, over)
        seen = max(seen, found)
        most = max(most, found / _least_chi(len(asked) - 1))
        asked, over = _doubled(asked), _doubled(over)
    return seen, most


def _least_chi(degrees: int) -> float:
    """Below which χ² ÷ its degrees of freedom falls once in twenty (Wilson and Hilferty, 1931)."""
    part = 2 / (9 * degrees)
    return (1 - part - 1.645 * math.sqrt(part)) ** 3


def _spread(asked: Ints, over: Ints) -> tuple[float, float]:
    """The variance of blocks in parts of the binomial's, and the correlation of neighbours."""
    share = float(over.sum() / asked.sum())  # numpy's own floats have no JSON form
    left = over - share * asked  # blocks have their own numbers of requests: a ratio estimate
    squares = float((left * left).sum())
    binomial = float(asked.sum()) * share * (1 - share)
    if not squares:
        return 0.0, 0.0
    blocks = len(asked)
    return squares * blocks / (blocks - 1) / binomial, float((left[1:] * left[:-1]).sum()) / squares


def _doubled(counts: Ints) -> Ints:
    """Neighbours added up; an odd one out joins the last."""
    even = len(counts) // 2 * 2
    found: Ints = counts[:even].reshape(-1, 2).sum(axis=1)
    if even < len(counts) and len(found):
        found[-1] += counts[-1]
    return found


def larger(effects: list[float | None]) -> float | None:
    """The design effect by several indicators: the largest; None if one is not known yet. Where
    none says anything (all requests alike) there is nothing that could depend: 1."""
    if None in effects:
        return None
    return max((found for found in effects if found and not math.isnan(found)), default=1.0)


def evidence(over: float, asked: float, share: float) -> float:
    """The logarithm of the mixture against `over` of `asked` independent requests having a true
    share of `share` (between 0 and 1): large where that is hard to believe."""
    a, b = 0.5, 0.5 / share
    return (
        _log_beta(a + over, b + asked - over)
        - _log_beta(a, b)
        - over * math.log(share)
        - (asked - over) * math.log1p(-share)
    )


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def shown(over: float, asked: float, share: float, effect: float) -> bool:
    """Whether the true share certainly lies on that side of `share` on which the counted does."""
    if asked < LEAST * effect:
        return False
    return evidence(over / effect, asked / effect, share) >= -math.log(WRONG)


def further(over: float, asked: float, share: float, effect: float) -> float | None:
    """How many requests more would show it, were they like those so far; None: far too many."""
    low, high = 1.0, _FURTHEST
    if not asked or not shown(over * high, asked * high, share, effect):
        return None
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        if shown(over * middle, asked * middle, share, effect):
            high = middle
        else:
            low = middle
    return asked * (high - 1)


def bounds(asked: float, share: float, effect: float) -> tuple[float, float]:
    """(fewest, most) of `asked` requests that may be found beyond a value for it to be still
    believable that a `share` of all is: the counts that enclose a percentile's band."""
    n = asked / effect
    middle = n * share

    def edge(inside: float, outside: float) -> float:
        if evidence(outside, n, share) < -math.log(BAND):
            return outside
        for _ in range(60):
            at = (inside + outside) / 2
            if evidence(at, n, share) < -math.log(BAND):
                inside = at
            else:
                outside = at
        return inside

    return edge(middle, 0.0) * effect, edge(middle, n) * effect


def believable(over: float, asked: float, effect: float) -> tuple[float, float] | None:
    """The shares that are still believable (95 %, at every look) when `over` of `asked` requests
    had it; None where there are too few to say."""
    if asked < LEAST * effect:
        return None
    n, found = asked / effect, over / effect
    limit = -math.log(BAND)

    def edge(inside: float, outside: float) -> float:
        for _ in range(60):
            at = (inside + outside) / 2
            if evidence(found, n, at) < limit:
                inside = at
            else:
                outside = at
        return inside

    point = min(1 - 1e-12, max(1e-12, over / asked))
    low = edge(point, _NOTHING) if over else 0.0
    high = edge(point, 1 - _NOTHING) if over < asked else 1.0
    return (low if low > 2 * _NOTHING else 0.0), high
