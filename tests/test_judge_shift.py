"""Ranks and shifts against counting by hand, known tables and simulation."""

import math
from collections.abc import Callable
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest

from loadbench.judge import ranks
from loadbench.judge.ranks import _sums, rank, tail, trend
from loadbench.judge.shift import (
    Limits,
    between,
    further,
    holm,
    least_found,
    spread,
    word,
)

LIMITS = Limits(math.log1p(0.05), -math.log1p(-0.05))


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 5), (3, 4), (5, 5), (6, 4)])
def test_the_tail_is_that_of_all_orders(m: int, n: int) -> None:
    counts = [0] * (m * n + 1)
    for chosen in combinations(range(m + n), m):
        others = set(range(m + n)) - set(chosen)
        counts[sum(i > j for i in chosen for j in others)] += 1
    for u in range(m * n + 1):
        assert tail(m, n, u) == pytest.approx(sum(counts[: u + 1]) / sum(counts), abs=1e-12)
    assert tail(m, n, -1) == 0
    assert tail(m, n, m * n + 5) == 1


def test_known_levels() -> None:
    assert tail(4, 4, 0) == pytest.approx(1 / 70)  # 4 + 4 cannot reach 1 %
    assert (rank(4, 4, 0.01), rank(5, 5, 0.01), rank(6, 6, 0.01)) == (0, 2, 4)
    assert rank(6, 6, 0.05) == 8  # Wilcoxon's table: U = 7 at one-sided 5 %


def test_large_samples_go_on_where_counting_ends() -> None:
    """A sample of 61 is approximated; one of 60 is counted."""
    for u in (1400, 1600, 1900, 2300):
        assert tail(61, 61, u) == pytest.approx(_sums(61, 61)[u], rel=0.05)


def test_a_trend_is_that_of_all_orders() -> None:
    for values in ([1, 2, 3, 4, 5], [2, 1, 3, 4, 5], [3, 1, 4, 5, 2]):
        against = sum(a > b for a, b in combinations(values, 2))
        low = min(against, 10 - against)
        orders = [sum(a > b for a, b in combinations(order, 2)) for order in permutations(range(5))]
        wanted = min(1.0, 2 * sum(found <= low for found in orders) / len(orders))
        assert trend([float(value) for value in values]) == pytest.approx(wanted)
    assert trend([5.0, 4.0, 3.0, 2.0, 1.0, 0.0]) == pytest.approx(2 / 720)
    assert trend([1.0] * 6) == trend([1.0, 2.0, 3.0]) == 1.0
    assert trend([math.inf] * 2 + [1.0] * 4) < 1.0


def test_a_trend_of_many_goes_on_where_counting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(3)
    values = [float(one) for one in draw.standard_normal(61) + np.arange(61) * 0.012]
    near = trend(values)
    monkeypatch.setattr(ranks, "_EXACT", 61)
    assert near == pytest.approx(trend(values), rel=0.05)
    monkeypatch.undo()
    monkeypatch.setattr(ranks, "_inversions", None)  # counted, a thousand would take hours
    assert trend([float(one) for one in range(1000)]) < 1e-9


def test_the_shift_is_the_median_of_all_differences() -> None:
    a, b = [10.0, 12.0, 11.0, 13.0, 9.0], [20.0, 26.0, 21.0, 19.0, 30.0]
    ratios = sorted(y / x for x in a for y in b)
    found = between(a, b)
    assert math.exp(found.middle) == pytest.approx(ratios[12])
    assert math.exp(found.low(0.01)) == pytest.approx(ratios[1])
    assert math.exp(found.high(0.01)) == pytest.approx(ratios[-2])
    assert found.p_worse == pytest.approx(1 / 252)
    assert found.p_better == 1.0
    less = between(a, b, larger_is_worse=False)
    assert less.middle == pytest.approx(-found.middle)
    assert less.p_better == found.p_worse


def test_ties_zeros_and_infinities() -> None:
    inf = math.inf
    assert between([0.0] * 5, [0.0] * 5).middle == 0.0
    assert between([0.0] * 5, [1.0] * 5).middle == inf
    assert word(between([1.0] * 5, [1.0] * 5), LIMITS, 0.01, 0.01) == "same"
    assert word(between([1.0] * 5, [inf] * 5), LIMITS, 0.01, 0.01) == "worse"
    assert word(between([inf] * 5, [1.0] * 5), LIMITS, 0.01, 0.01) == "better"
    neither = between([inf] * 5, [inf] * 5)  # 2 % failed of one and 30 % of the other, perhaps
    assert word(neither, LIMITS, 0.01, 0.01) == "inconclusive"
    assert math.isnan(neither.middle)
    assert (neither.low(0.01), neither.high(0.01)) == (-inf, inf)
    one = between([1.0] * 5 + [inf], [9.0] * 5 + [inf])  # of 36 pairs one is unknown
    assert one.unknown == 1
    assert one.middle == pytest.approx(math.log(9))
    assert one.p_worse == pytest.approx(tail(6, 6, 6))
    some = between([1.0] * 6, [1.0, 1.0, 1.0, 1.0, 1.0, inf])
    assert some.p_worse > 0.5  # ties speak against it
    assert some.high(0.01) == inf
    assert spread([1.0, inf, 0.0], [inf, inf]) is None
    assert spread([1.0, math.e], [5.0]) == pytest.approx(math.sqrt(0.5))


def test_holm_stops_at_the_first_that_fails() -> None:
    assert holm([0.001, 0.02, 0.004], 0.01) == pytest.approx([0.01 / 3, 0.01, 0.005])
    assert holm([0.004, 0.02, 0.001], 0.01) == pytest.approx([0.005, 0.01, 0.01 / 3])
    assert holm([0.02, 0.003, 0.02], 0.01) == pytest.approx([0.005, 0.01 / 3, 0.005])
    assert holm([], 0.01) == []


def found_share(sd: float, log: float, draws: int = 1000) -> float:
    random = np.random.default_rng(5)
    hits = 0
    for _ in range(draws):
        a = np.exp(random.normal(0, sd, 6)).tolist()
        b = np.exp(random.normal(log, sd, 6)).tolist()
        hits += word(between(a, b), LIMITS, 0.01, 0.01) == "worse"
    return hits / draws


Noise = Callable[[np.random.Generator], Any]
NOISE: dict[str, Noise] = {
    "normal 2 %": lambda random: random.normal(0, 0.02, 6),
    "normal 6 %": lambda random: random.normal(0, 0.06, 6),
    "heavy tails": lambda random: 0.04 * random.standard_t(3, 6),
    "a run in thirty goes wrong": lambda random: (
        random.normal(0, 0.03, 6) + (random.random(6) < 1 / 30) * random.uniform(0.3, 1, 6)
    ),
}


@pytest.mark.parametrize("kind", NOISE)
def test_what_each_comparison_tells_to_be_found_is_found_within_a_fifth(kind: str) -> None:
    """Of such sides, one of each made longer by what the comparison itself told, or a fifth more
    or less: 95 % are found, more, and clearly fewer."""
    random = np.random.default_rng(5)
    hits = dict.fromkeys((0.8, 1.0, 1.2), 0)
    draws = 400
    for _ in range(draws):
        a, b = NOISE[kind](random), NOISE[kind](random)
        told = least_found(np.exp(a).tolist(), np.exp(b).tolist(), LIMITS.bad, 0.01)
        assert told is not None
        for times in hits:
            longer = b + math.log1p(times * math.expm1(told))
            found = between(np.exp(a).tolist(), np.exp(longer).tolist())
            hits[times] += word(found, LIMITS, 0.01, 0.01) == "worse"
    assert hits[0.8] / draws < 0.9
    assert hits[1.0] / draws == pytest.approx(0.95, abs=0.035)
    assert hits[1.2] / draws > 0.975


def test_too_few_repeats_find_nothing() -> None:
    assert least_found([1.0] * 4, [1.0, 1.1] * 5, LIMITS.bad, 0.01) is None
    assert least_found([math.inf] * 6, [math.inf] * 6, LIMITS.bad, 0.01) is None
    assert found_share(0.06, 0.0) < 0.015


def test_further_repeats_settle_it() -> None:
    """As many as are asked for bring a verdict in about four of five cases."""
    sd, size = 0.06, 6
    random = np.random.default_rng(6)
    for log in (0.0, 0.09):
        a = np.exp(np.linspace(-1, 1, size) * sd)
        first = between(a.tolist(), (a * math.exp(log)).tolist())
        more = further(first, sd, LIMITS, 0.01)
        assert more is not None
        settled = 0
        for _ in range(200):
            left = np.exp(random.normal(0, sd, size + more)).tolist()
            right = np.exp(random.normal(log, sd, size + more)).tolist()
            settled += word(between(left, right), LIMITS, 0.01, 0.01) != "inconclusive"
        assert 0.68 < settled / 200 < 0.95
    on_the_margin = between(a.tolist(), (a * 1.05).tolist())
    assert further(on_the_margin, sd, LIMITS, 0.01) is None
    few = between([1.0] * 3, [1.0] * 3)
    assert further(few, None, LIMITS, 0.01) == 2
