"""Arrival times against what the shape says, exactly and statistically."""

import numpy as np
import pytest
from scipy import stats

from loadbench import shape
from loadbench.shape import Phase
from loadbench.units import SECOND


def all_times(phases: tuple[Phase, ...], kind: shape.Arrivals, seed: int = 1) -> np.ndarray:
    return np.concatenate(list(shape.arrivals(phases, kind, seed)))


def test_constant_is_evenly_spaced_and_complete() -> None:
    found = all_times((Phase(500, 500, 60 * SECOND),), "constant")
    assert len(found) == 30_000
    assert (np.diff(found) == 2_000_000).all()


def test_constant_on_a_ramp_follows_the_integral() -> None:
    phases = (Phase(0, 100, 10 * SECOND), Phase(100, 100, 5 * SECOND), Phase(100, 0, 10 * SECOND))
    found = all_times(phases, "constant")
    assert len(found) == 1500
    # 0 → 100/s in 10 s: the k-th comes when 5 t² = k
    k = np.arange(500)
    assert np.abs(found[:500] - np.sqrt(k / 5) * SECOND).max() <= 1
    assert (np.diff(found) > 0).all()
    assert found[-1] < 25 * SECOND


def test_poisson_gaps_are_exponential_and_seeded() -> None:
    phases = (Phase(1000, 1000, 30 * SECOND),)
    found = all_times(phases, "poisson", seed=4)
    assert (found == all_times(phases, "poisson", seed=4)).all()
    assert not np.array_equal(found[:100], all_times(phases, "poisson", seed=5)[:100])
    gaps = np.diff(found) / SECOND
    assert stats.kstest(gaps, "expon", args=(0, 1 / 1000)).pvalue > 0.01


def test_poisson_at_changing_rates_has_the_right_number_everywhere() -> None:
    phases = (Phase(100, 900, 20 * SECOND), Phase(300, 300, 10 * SECOND))
    found = all_times(phases, "poisson", seed=9)
    for second in range(30):
        expected = shape.rate_at(phases, second * SECOND + SECOND // 2)
        number = int(((found >= second * SECOND) & (found < (second + 1) * SECOND)).sum())
        assert abs(number - expected) < 5 * expected**0.5, second


def test_a_pause_has_no_arrivals() -> None:
    phases = (Phase(50, 50, SECOND), Phase(0, 0, 2 * SECOND), Phase(50, 50, SECOND))
    for kind in ("constant", "poisson"):
        found = all_times(phases, kind)
        assert not ((found >= SECOND) & (found < 3 * SECOND)).any()
        assert (found >= 3 * SECOND).any()


def test_rates_and_phases_at_a_moment() -> None:
    phases = (Phase(0, 100, 10 * SECOND), Phase(40, 40, SECOND))
    assert shape.rate_at(phases, 5 * SECOND) == 50
    assert shape.rate_at(phases, 10 * SECOND) == 40
    assert shape.rate_at(phases, 11 * SECOND) == 0
    assert shape.rate_at(phases, -1) == 0
    assert shape.phase_at(phases, 10 * SECOND) == 1
    assert shape.peak(phases) == 100
    assert shape.length_ns(phases) == 11 * SECOND


def test_a_closed_loop_has_no_schedule() -> None:
    with pytest.raises(ValueError, match="closed arrivals"):
        next(shape.arrivals((Phase(0, 0, SECOND),), "closed", 1))
