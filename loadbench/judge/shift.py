"""By what factor one side's figure differs from the other's, and what can be said of that.

The shift is the median of all pairwise differences of the logarithms (Hodges and Lehmann 1963); its
bounds are among these differences, as the rank sum test counts them (`ranks`), so that they hold
whatever the figures' distribution is. n counts repeats: runs made anew. Which figures are judged,
and in which direction they are bad, is for `comparison`.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench.judge.ranks import rank, tail

LEVEL = 0.01  # how often "worse", or "better", may be said of two sides that are alike
LEVEL_INSIDE = 0.05  # the same of "ruled out" and "same": one-sided
FEWEST = 5  # repeats a side: with 4 + 4 the smallest probability is 0.0143
POWER = 0.95  # of the smallest difference that is told as one that would be found
_SIMULATED = 4000
_DRAWN = 1000  # of each comparison anew
_MANY = 2500  # differences: with more the limit of large numbers is nearer than a simulation
_MOST = 1000  # repeats that anyone would make
_EFFICIENCY = 3 / math.pi  # of ranks beside means, where the noise is normal
_CHANCE = 0.8  # that the repeats which are asked for settle it

Floats = NDArray[np.float64]


class Limits(NamedTuple):
    """How far a figure may move: `bad` and `good` are positive differences of logarithms."""

    bad: float
    good: float


class Shift(NamedTuple):
    """The pairwise differences of two sides' logarithms, sorted; positive is worse. Infinite where
    one of the values is among the failed. Of so many pairs (`unknown`) both are: which of these
    would be larger is not known, so they count against whatever is said."""

    differences: Floats
    m: int
    n: int
    unknown: int = 0

    @property
    def least(self) -> Floats:
        """All of them, the unknown as small as can be."""
        return np.concatenate([np.full(self.unknown, -math.inf), self.differences])

    @property
    def most(self) -> Floats:
        """And as large."""
        return np.concatenate([self.differences, np.full(self.unknown, math.inf)])

    @property
    def middle(self) -> float:
        """The shift itself; NaN if it is not known."""
        return halfway(_middle(self.least), _middle(self.most))

    def low(self, level: float) -> float:
        """What the shift is at least, wrong in at most `level` of all cases."""
        k = rank(self.m, self.n, level)
        return float(self.least[k - 1]) if k else -math.inf

    def high(self, level: float) -> float:
        """What it is at most."""
        k = rank(self.m, self.n, level)
        return float(self.most[-k]) if k else math.inf

    @property
    def p_worse(self) -> float:
        """How likely so much worse is by chance, one-sided; ties speak against it."""
        return tail(self.m, self.n, int((self.least <= 0).sum()))

    @property
    def p_better(self) -> float:
        return tail(self.m, self.n, int((self.most >= 0).sum()))


def halfway(low: float, high: float) -> float:
    """Between the two that something is at least and at most; NaN if that may be anywhere."""
    return low if low == high else (low + high) / 2 if math.isfinite(high - low) else math.nan


def _middle(d: Floats) -> float:
    low, high = float(d[(len(d) - 1) // 2]), float(d[len(d) // 2])
    return low if low == high else (low + high) / 2


def between(a: Sequence[float], b: Sequence[float], larger_is_worse: bool = True) -> Shift:
    """Of B against A; values are not negative, and infinite where they are among the failed. Two
    that are both zero are alike; of two that are both infinite nothing is known."""
    left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (np.log(right)[:, None] - np.log(left)[None, :]).ravel()
    found[((right[:, None] == 0) & (left[None, :] == 0)).ravel()] = 0.0
    known = np.sort(found[~np.isnan(found)])
    known = known if larger_is_worse else -known[::-1]
    return Shift(known, len(left), len(right), len(found) - len(known))


def holm(probabilities: Sequence[float], level: float) -> list[float]:
    """The level at which each is tested (Holm 1979): the smallest at level/k, the next at
    level/(k − 1), and so on until one fails; those after it at the level of that one."""
    found = [0.0] * len(probabilities)
    order = sorted(range(len(probabilities)), key=lambda at: probabilities[at])
    strict = True
    at_level = level
    for passed, at in enumerate(order):
        if strict:
            at_level = level / (len(order) - passed)
            strict = probabilities[at] <= at_level
        found[at] = at_level
    return found


def word(found: Shift, limits: Limits, worse_level: float, better_level: float) -> str:
    """`better`, `same`, `ruled out` (a regression is), `worse` or `inconclusive`."""
    if min(found.m, found.n) < FEWEST:
        return "inconclusive"
    if found.p_worse <= worse_level and found.middle > limits.bad:
        return "worse"
    if found.p_better <= better_level and -found.middle > limits.good:
        return "better"
    if found.high(LEVEL_INSIDE) < limits.bad:
        return "same" if found.low(LEVEL_INSIDE) > -limits.good else "ruled out"
    return "inconclusive"


def spread(*sides: Sequence[float]) -> float | None:
    """The run-to-run standard deviation of the logarithms, pooled; values without one are left
    out. None if no side has two."""
    squares, freedom = 0.0, 0
    for side in sides:
        logs = [math.log(value) for value in side if 0 < value < math.inf]
        if len(logs) > 1:
            mean = sum(logs) / len(logs)
            squares += sum((value - mean) ** 2 for value in logs)
            freedom += len(logs) - 1
    return math.sqrt(squares / freedom) if freedom else None


def least_found(a: Sequence[float], b: Sequence[float], bad: float, level: float) -> float | None:
    """The smallest difference of logarithms that would be called worse in 95 % of all comparisons
    of sides like these; None if they are too few for any. Values are as for `between`.

    A true shift moves all differences alike, so each simulated pair of sides without one tells the
    smallest shift that it would have been found with. They are drawn from normal noise of the
    sides' own spread, and from their own deviations (a bootstrap); the larger of both counts: few
    deviations understate the spread, and a spread understates what a run that went wrong does."""
    sd = spread(a, b)
    m, n = len(a), len(b)
    k = rank(m, n, level)
    if sd is None or not k or min(m, n) < FEWEST:
        return None
    bounds, middles = _noise(m, n, k)
    least = _needed(bounds * sd, middles * sd, bad)
    if m * n <= _MANY:
        least = max(least, _needed(*_drawn(_deviations(a, b), m, n, k), bad))
    return least


def _needed(bounds: Floats, middles: Floats, bad: float) -> float:
    """What all but 5 % of these pairs need; they have no shift of their own."""
    return max(float(np.quantile(np.maximum(-bounds, bad - middles), POWER)), 0.0)


def _deviations(*sides: Sequence[float]) -> Floats:
    """Of the logarithms from the middle of their side."""
    logs = [np.log([value for value in side if 0 < value < math.inf]) for side in sides]
    return np.concatenate([side - np.median(side) for side in logs if len(side)])


def _drawn(pool: Floats, m: int, n: int, k: int) -> tuple[Floats, Floats]:
    """As `_noise`, drawn from a pool with replacement."""
    draw = np.random.default_rng(20)
    many = min(_DRAWN, 4_000_000 // (m * n))
    return _parted(draw.choice(pool, (many, 1, m)), draw.choice(pool, (many, n, 1)), k)


@lru_cache(maxsize=64)
def _noise(m: int, n: int, k: int) -> tuple[Floats, Floats]:
    """(k-th smallest differences, middles) of sides of standard normal noise."""
    draw = np.random.default_rng(20)
    if m * n > _MANY:
        return _limit(m, n, k, draw)
    many = min(_SIMULATED, 4_000_000 // (m * n))
    return _parted(draw.standard_normal((many, 1, m)), draw.standard_normal((many, n, 1)), k)


def _parted(left: Floats, right: Floats, k: int) -> tuple[Floats, Floats]:
    differences = (right - left).reshape(len(left), -1)
    size = differences.shape[1]
    wanted = sorted({k - 1, (size - 1) // 2, size // 2})
    parted = np.partition(differences, wanted, axis=1)
    middles = (parted[:, (size - 1) // 2] + parted[:, size // 2]) / 2
    return parted[:, k - 1].copy(), middles


def _limit(m: int, n: int, k: int, draw: np.random.Generator) -> tuple[Floats, Floats]:
    """The same of large sides: both are normal then, and as far from each other as the rank is
    from the middle one (Hodges and Lehmann 1963)."""
    deviation = math.sqrt((1 / m + 1 / n) / _EFFICIENCY)
    ranks = math.sqrt(m * n * (m + n + 1) / 12)
    middles = deviation * draw.standard_normal(_SIMULATED)
    return middles - deviation * (m * n / 2 - k + 0.5) / ranks, middles


def further(found: Shift, spread: float | None, limits: Limits, level: float) -> int | None:
    """How many repeats more on each side would probably (80 %) settle it, if the shift is what it
    looks like now; None if that cannot be said or is more than anyone would make."""
    have = min(found.m, found.n)
    least = next(n for n in range(FEWEST, _MOST) if tail(n, n, 0) <= level)
    if have < least:
        return least - have  # what few runs say of the spread is no guide
    if spread is None or not math.isfinite(found.middle):
        return None
    if -found.middle > limits.good:
        room, z = -found.middle, _z(1 - level)
        beyond = room - limits.good
    elif found.middle > limits.bad:
        room, z = found.middle, _z(1 - level)
        beyond = room - limits.bad
    else:
        room, z = limits.bad - found.middle, _z(1 - LEVEL_INSIDE)
        beyond = room
    if beyond <= 0:
        return None
    noise = 2 * spread**2 / _EFFICIENCY
    chance = _z(_CHANCE)
    needed = max(noise * ((z + chance) / room) ** 2, noise * (chance / beyond) ** 2, least)
    return max(1, math.ceil(needed) - have) if needed <= _MOST else None


_z = NormalDist().inv_cdf
