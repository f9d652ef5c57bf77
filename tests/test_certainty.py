"""The arithmetic of certainty, against known answers and in queues whose truth is known."""

import math

import numpy as np
import pytest

from loadbench import certainty
from tests.benchmarks.verdicts.live import BATCH_S, ROW_S, SERVICE_S, batches, cell, constant, truth


@pytest.mark.parametrize(("asked", "share"), [(20, 0.01), (60, 0.1), (200, 0.5)])
def test_the_mixture_is_fair_against_the_truth(asked: int, share: float) -> None:
    """Its mean over all outcomes is 1: what Ville's inequality needs."""
    mean = sum(
        math.comb(asked, over)
        * share**over
        * (1 - share) ** (asked - over)
        * math.exp(certainty.evidence(over, asked, share))
        for over in range(asked + 1)
    )
    assert mean == pytest.approx(1.0, rel=1e-6)


def test_the_mixture_is_the_integral_it_says() -> None:
    """Beta(1/2, 1/(2·share)) over the likelihoods, by the midpoint rule."""
    over, asked, share = 3, 900, 0.01
    p = (np.arange(2_000_000) + 0.5) / 2_000_000
    a, b = 0.5, 0.5 / share
    prior = (a - 1) * np.log(p) + (b - 1) * np.log1p(-p)
    prior -= math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    likelihood = over * np.log(p / share) + (asked - over) * np.log((1 - p) / (1 - share))
    assert certainty.evidence(over, asked, share) == pytest.approx(
        math.log(float(np.exp(prior + likelihood).mean())), abs=2e-3
    )


def test_as_many_more_as_it_says_show_it() -> None:
    more = certainty.further(20, 4000, 0.01, 2.0)
    assert more is not None
    factor = 1 + more / 4000
    assert certainty.shown(20 * factor * 1.01, 4000 * factor * 1.01, 0.01, 2.0)
    assert not certainty.shown(20 * factor * 0.98, 4000 * factor * 0.98, 0.01, 2.0)
    assert certainty.further(40, 4000, 0.01, 2.0) is None  # on the limit: never
    assert certainty.further(0, 0, 0.01, 2.0) is None
    assert not certainty.shown(79, 79, 0.01, 2.0)  # plain, but fewer than 40 times the effect
    assert certainty.shown(80, 80, 0.01, 2.0)


def test_the_design_effect_is_how_many_go_together() -> None:
    rng = np.random.default_rng(1)
    asked = np.full(4096, 200)
    alone = rng.binomial(200, 0.05, 4096)
    fives = rng.binomial(40, 0.05, 4096) * 5
    assert certainty.design_effect(asked, alone) == pytest.approx(1.0, abs=0.15)
    found = certainty.design_effect(asked, fives)
    assert found == pytest.approx(5.0, rel=0.15)
    assert type(found) is float  # numpy's own have no JSON form


def test_what_lasts_longer_than_a_block_is_seen_in_longer_ones() -> None:
    rng = np.random.default_rng(2)
    asked = np.full(4096, 200)
    lasting = np.repeat(rng.binomial(40, 0.05, 512) * 5, 8)  # the same for 8 blocks
    assert certainty.design_effect(asked, lasting) == pytest.approx(40.0, rel=0.3)


def test_it_says_nothing_too_early() -> None:
    rng = np.random.default_rng(3)
    over = rng.binomial(200, 0.05, 79)
    assert certainty.design_effect(np.full(79, 200), over) is None
    drifting = np.repeat(np.arange(64), 8)  # grows for ever: no block is long enough
    assert certainty.design_effect(np.full(512, 200), drifting) is None
    nobody = certainty.design_effect(np.full(500, 200), np.zeros(500, np.int64))
    assert nobody is not None
    assert math.isnan(nobody)
    assert certainty.larger([nobody, 3.0]) == 3.0
    assert certainty.larger([nobody, nobody]) == 1.0
    assert certainty.larger([3.0, None]) is None


def test_a_band_is_wider_the_more_requests_depend_on_each_other() -> None:
    few, many = certainty.bounds(100_000, 0.01, 1.0)
    assert few < 1000 < many
    fewer, more = certainty.bounds(100_000, 0.01, 9.0)
    assert 1000 - fewer > 2.5 * (1000 - few)
    assert more - 1000 > 2.5 * (many - 1000)
    assert certainty.bounds(100, 0.01, 1.0)[0] == 0.0  # nothing bounds it above


def test_the_queues_are_the_textbook_ones() -> None:
    """M/D/1: the mean wait is load · service / (2 · (1 − load)) (Pollaczek and Khinchine); and a
    batch server with nothing to do serves each request alone."""
    _, latency = constant(np.random.default_rng(5), 0.7, 4000.0)
    wait = latency.mean() - SERVICE_S
    assert wait == pytest.approx(0.7 * SERVICE_S / (2 * 0.3), rel=0.05)
    _, alone = batches(np.random.default_rng(5), 0.001, 2000.0)
    assert np.median(alone) == pytest.approx(BATCH_S + ROW_S)
    assert truth("M/D/1", 0.7)["p99"] > 2 * SERVICE_S


@pytest.mark.parametrize("off", [0.9, 1.1])
def test_a_verdict_that_is_looked_at_every_second_is_not_wrong(off: float) -> None:
    found = cell("M/D/1", 0.7, off, 40, 200)
    assert found.wrong == 0
    assert len(found.right) >= 3
    assert found.naive >= 3  # so the correction is what does it
    told, held = found.bands["p99"]
    assert held >= 0.9 * told > 0


def test_where_nothing_breaks_a_claim_an_upper_guess_stands_for_what_never_settles() -> None:
    asked = np.full(360, 200)
    slow = np.where(np.arange(360) < 180, 17, 23)  # it drifts: no length of blocks is enough
    none, one = np.zeros(360, np.int64), np.eye(1, 360, 5, dtype=np.int64)[0]
    assert certainty.design_effect(asked, slow) is None
    effect = certainty.effect_of(asked, none, slow)
    assert effect is not None
    assert effect > 5
    assert certainty.shown(0, int(asked.sum()), 0.05, effect)
    assert not certainty.shown(0, int(asked.sum()), 0.0001, effect)
    assert certainty.effect_of(asked, one, slow) is None
