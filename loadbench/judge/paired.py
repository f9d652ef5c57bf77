"""Pairs of blocks: what their differences show, when they are looked at after each pair.

Of each pair there is one difference, log(B) − log(A). Wilcoxon's signed ranks (1945) ask for no
more than that the differences lie alike on both sides of the true one, and inverted they bound it:
the bounds are Walsh averages (Hodges and Lehmann, 1963). Looking after each pair would spoil a
level that is meant for one look, so it is spent: by the n-th of N pairs the chance that any look
until then was wrong is at most n/N of it (Lan and DeMets, 1983; Kim and DeMets, 1987, with a power
of 1). How large the rank sum has to be at each look does not depend on how the differences are
spread, only on their symmetry, so it is found once by drawing symmetric ones. The bounds hold at
all looks together, whenever one stops (repeated confidence intervals: Jennison and Turnbull, 1989).

Where the values come from is `judge.blocks`'s.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist, median

import numpy as np
from numpy.typing import NDArray

from loadbench.judge.shift import halfway
from loadbench.value import Value

MOST_PAIRS = 100
SURE, LIKELY = 0.01, 0.05  # of a false better or worse, both together; of a false bound inside
_PATHS, _CHUNK = 400_000, 20_000
_SESSIONS = 2000
_FOUND = 0.95  # how often the smallest detectable change is to be found
_DRAWN = 1.05  # of a level: so far may what is drawn be beside what is true

Floats = NDArray[np.float64]


class Limits(Value, frozen=True):
    """For each number of pairs the rank sum from which on a side is excluded; None: no sum will do.
    `sure` for better and worse, `likely` for what lies within the margin; so many `metrics` share
    the level."""

    sure: tuple[int | None, ...]
    likely: tuple[int | None, ...]
    metrics: int = 1


class Paired(Value, frozen=True, omit_defaults=False):
    """A metric over all pairs. `a` and `b` are the medians of the blocks' values, `values` those of
    each pair; None lies among requests that were not answered well. `shift` is B against A as a
    ratio − 1, which a level of 1 % puts between `low` and `high`, and one of 5 % a side between
    `inner`; None is no bound. `mde`: the smallest change found in 95 % of such sessions. `more`:
    further pairs that would settle it. `word` is empty for a metric that gets no verdict."""

    metric: str
    unit: str
    n: int
    a: float | None
    b: float | None
    shift: float | None
    low: float | None
    high: float | None
    inner: tuple[float | None, float | None]
    word: str
    margin: float
    mde: float | None
    more: int | None
    values: tuple[tuple[float | None, float | None], ...]

    @property
    def decided(self) -> bool:
        """Further pairs would not change the word to the better of the reader."""
        return self.word in ("better", "same", "worse")


def fewest(metrics: int = 1) -> int:
    """Pairs below which nothing is shown: even if all speak for the same side, that happens by
    chance too often."""
    return math.ceil(math.log2(_DRAWN * 2 * metrics / SURE))


@lru_cache(maxsize=8)
def limits(most: int, metrics: int = 1) -> Limits:
    """For sessions of up to so many pairs in which so many metrics get a verdict; they share the
    level (Bonferroni). Both are found to about a fiftieth of themselves."""
    if not 1 <= most <= MOST_PAIRS:
        raise ValueError(f"{most} pairs: 1 to {MOST_PAIRS} are looked at")
    draw = np.random.Generator(np.random.PCG64(1945))
    sums = np.empty((most, _PATHS), np.int16)
    for begin in range(0, _PATHS, _CHUNK):
        values = draw.standard_normal((most, _CHUNK), np.float32)
        total = np.zeros(_CHUNK, np.int16)
        for n in range(most):
            total += (values[: n + 1] > -values[n]).sum(0, dtype=np.int16)
            sums[n, begin : begin + _CHUNK] = total
    sure, likely = (_spent(sums, level / metrics) for level in (SURE / 2, LIKELY))
    return Limits(sure, likely, metrics)


def _spent(sums: NDArray[np.int16], level: float) -> tuple[int | None, ...]:
    """The smallest sums whose paths, with all that crossed before, stay within what may be spent
    by then."""
    most, paths = sums.shape
    inside = np.ones(paths, bool)
    found: list[int | None] = []
    for n in range(1, most + 1):
        left = math.floor(level * n / most * paths) - int(paths - inside.sum())
        highest = n * (n + 1) // 2
        at_least = np.bincount(sums[n - 1][inside], minlength=highest + 1)[::-1].cumsum()[::-1]
        limit = int(np.searchsorted(-at_least, -left))  # the first with no more than are left
        found.append(limit if limit <= highest else None)
        if limit <= highest:
            inside &= sums[n - 1] < limit
    return tuple(found)


def walsh(differences: Sequence[float], unknown: float) -> Floats:
    """The means of all pairs of differences, each with itself too, rising; of two infinities
    against each other, and of differences that are NaN, the mean is `unknown`."""
    found = np.asarray(differences, np.float64)
    first, second = np.triu_indices(len(found))
    with np.errstate(invalid="ignore"):
        means = (found[first] + found[second]) / 2
    means[np.isnan(means)] = unknown
    return np.sort(means)


def bounds(differences: Sequence[float], limit: int | None) -> tuple[float, float]:
    """What so large a rank sum bounds, among the Walsh averages: those that are not known count as
    small below and as large above."""
    if limit is None or not differences:
        return -math.inf, math.inf
    least, most = walsh(differences, -math.inf), walsh(differences, math.inf)
    return float(least[len(least) - limit]), float(most[limit - 1])


def judge(
    metric: str,
    values: Sequence[tuple[float | None, float | None]],
    margin: float,
    allowed: Limits,
    gated: bool = True,
) -> Paired:
    """A metric of which less is better, in ms, from its values in each pair (A, B); None is larger
    than any number. `margin` is the ratio − 1 that does not matter."""
    differences = [_difference(*pair) for pair in values]
    n = len(differences)
    shift = _middle(differences)
    sure = bounds(differences, allowed.sure[n - 1] if n else None)
    likely = bounds(differences, allowed.likely[n - 1] if n else None)
    edge = math.log1p(margin)
    finite = [found for found in differences if math.isfinite(found)]
    spread = float(np.std(finite, ddof=1)) if len(finite) > 1 else None
    word = _word(shift, sure, likely, edge) if gated else ""
    least = None if spread is None else _detectable(spread, allowed, edge)
    return Paired(
        metric=metric,
        unit="ms",
        n=n,
        a=_median([a for a, _ in values]),
        b=_median([b for _, b in values]),
        shift=_ratio(shift),
        low=_ratio(sure[0]),
        high=_ratio(sure[1]),
        inner=(_ratio(likely[0]), _ratio(likely[1])),
        word=word,
        margin=margin,
        mde=None if least is None else math.expm1(least),
        more=_more(shift, spread, n, edge, allowed.metrics) if word == "inconclusive" else None,
        values=tuple(values),
    )


def _difference(a: float | None, b: float | None) -> float:
    """Of logarithms; NaN where neither has a number: nobody knows which would be larger."""
    if a is None or b is None:
        return math.nan if a is b else math.copysign(math.inf, 1 if b is None else -1)
    if a == b:
        return 0.0
    return math.log(b / a) if a and b else math.copysign(math.inf, b - a)


def _middle(differences: Sequence[float]) -> float:
    """The shift (Hodges and Lehmann); NaN if it is not known."""
    if not differences:
        return math.nan
    with np.errstate(invalid="ignore"):
        return halfway(*(float(np.median(walsh(differences, to))) for to in (-math.inf, math.inf)))


def _word(shift: float, sure: tuple[float, float], likely: tuple[float, float], edge: float) -> str:
    if sure[0] > 0 and shift > edge:
        return "worse"
    if sure[1] < 0 and shift < -edge:
        return "better"
    if likely[1] < edge:
        return "same" if likely[0] > -edge else "ruled out"
    return "inconclusive"


def _median(values: Sequence[float | None]) -> float | None:
    if not values:
        return None
    found = median(math.inf if value is None else value for value in values)
    return found if math.isfinite(found) else None


def _ratio(shift: float) -> float | None:
    return math.expm1(shift) if math.isfinite(shift) else None


def _detectable(spread: float, allowed: Limits, edge: float) -> float | None:
    """The shift (log) that is called worse in 95 % of whole sessions; None where none would be. A
    true shift moves all Walsh averages alike, so each session without one, of normal differences,
    tells the smallest that it would have been found with."""
    limit = allowed.sure[-1]
    if limit is None:
        return None
    lows, middles = _noise(len(allowed.sure), limit)
    return float(np.quantile(np.maximum(-lows * spread, edge - middles * spread), _FOUND))


@lru_cache(maxsize=16)
def _noise(pairs: int, limit: int) -> tuple[Floats, Floats]:
    """(lower bounds, shifts) at the end of sessions of standard normal differences."""
    first, second = np.triu_indices(pairs)
    size = len(first)
    lows, middles = [], []
    draw = np.random.default_rng(20)
    for _ in range(_SESSIONS // 100):
        drawn = draw.standard_normal((100, pairs))
        means = np.sort((drawn[:, first] + drawn[:, second]) / 2, axis=1)
        lows.append(means[:, size - limit])
        middles.append((means[:, (size - 1) // 2] + means[:, size // 2]) / 2)
    return np.concatenate(lows), np.concatenate(middles)


def _more(shift: float, spread: float | None, n: int, edge: float, metrics: int) -> int | None:
    """Further pairs after which, were the shift and the spread as they seem, one word would hold:
    the nearest of worse or better, and same. None: not known, or far too many."""
    if spread is None or not math.isfinite(shift):
        return None
    normal = NormalDist()
    away, inside = abs(shift), edge - abs(shift)
    wanted = [(normal.inv_cdf(1 - SURE / 2 / metrics), away)] if away > edge else []
    wanted += [(normal.inv_cdf(1 - LIKELY / metrics), inside)] if inside > 0 else []
    pairs = [math.pi / 3 * (z * spread / gap) ** 2 for z, gap in wanted if gap > 0]
    if not pairs or min(pairs) >= 10_000:
        return None
    return max(1, max(math.ceil(min(pairs)), fewest(metrics)) - n)
