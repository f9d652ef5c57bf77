"""Sines, sawtooths and bursts: their arrival times against integrals and distributions known from
elsewhere."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from loadbench import shape
from loadbench.shape import Phase
from loadbench.units import SECOND

SINE = Phase(20, 180, 70 * SECOND, 20 * SECOND, sine=True)  # 3.5 periods
WAVES = (
    SINE,
    Phase(180, 20, 70 * SECOND, 20 * SECOND, sine=True),  # from its height down
    Phase(0, 100, 45 * SECOND, 10 * SECOND, sine=True),  # stands still at its foot
    Phase(100, 0, 45 * SECOND, 10 * SECOND, sine=True),
    Phase(50, 50, 30 * SECOND, 10 * SECOND, sine=True),  # no wave at all
    Phase(10, 210, 33 * SECOND, 10 * SECOND),  # a sawtooth that breaks off in its fourth tooth
    Phase(200, 0, 40 * SECOND, 8 * SECOND),
)


def wanted(phase: Phase, seconds: float) -> float:
    """The rate as the words say it: written down again, not the product's."""
    period = (phase.period_ns or phase.length_ns) / SECOND
    part = seconds % period / period
    if phase.sine:
        middle, swing = (phase.start + phase.end) / 2, (phase.end - phase.start) / 2
        return middle - swing * math.cos(2 * math.pi * part)
    return phase.start + (phase.end - phase.start) * part


def reached(phase: Phase, seconds: np.ndarray) -> np.ndarray:
    """Requests until each moment, by quadrature from period to period."""
    period = (phase.period_ns or phase.length_ns) / SECOND
    full = integrate.quad(lambda t: wanted(phase, t), 0, period, epsabs=1e-9)[0]
    return np.array([
        at // period * full
        + integrate.quad(lambda t: wanted(phase, t), 0, at % period, epsabs=1e-9)[0]
        for at in seconds
    ])  # fmt: skip


def due(
    phases: tuple[Phase, ...], kind: shape.Arrivals, seed: int = 1, cv: float = 1
) -> np.ndarray:
    return np.concatenate(list(shape.arrivals(phases, kind, seed, cv)))


@pytest.mark.parametrize("phase", WAVES)
def test_a_wave_sends_what_its_integral_says(phase: Phase) -> None:
    found = due((phase,), "constant")
    total = reached(phase, np.array([phase.length_ns / SECOND - 1e-9]))[0]
    assert phase.requests == pytest.approx(total, abs=1e-4)
    assert abs(len(found) - total) <= 1
    assert (np.diff(found) >= 0).all()
    assert found[0] >= 0
    assert found[-1] < phase.length_ns
    k = np.arange(0, len(found), 37)
    back = reached(phase, found[k] / SECOND)
    # where the rate is 0 a nanosecond holds no request, so the count is what is compared
    assert np.abs(back - k).max() < 1e-4
    for at in np.linspace(0, phase.length_ns - 1, 200):
        assert phase.rate(int(at)) == pytest.approx(wanted(phase, int(at) / SECOND), abs=1e-6)


def test_waves_stand_in_sequences() -> None:
    phases = (Phase(100, 100, 5 * SECOND), SINE, Phase(0, 0, SECOND), Phase(0, 90, SECOND))
    found = due(phases, "constant")
    assert len(found) == round(sum(phase.requests for phase in phases))
    inside = found[(found >= 5 * SECOND) & (found < 75 * SECOND)]
    assert abs(len(inside) - SINE.requests) <= 1
    assert not ((found >= 75 * SECOND) & (found < 76 * SECOND)).any()
    assert shape.rate_at(phases, 15 * SECOND) == pytest.approx(180)
    assert shape.rate_at(phases, 25 * SECOND) == pytest.approx(20)


def test_poisson_on_a_sine_is_poisson_after_the_change_of_time() -> None:
    phases = (Phase(100, 900, 40 * SECOND, 8 * SECOND, sine=True),)
    found = due(phases, "poisson", seed=3)
    assert len(found) == pytest.approx(20_000, abs=5 * 20_000**0.5)
    operational = reached(phases[0], found[:3000] / SECOND)
    assert stats.kstest(np.diff(operational), "expon").pvalue > 0.01


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.5])
def test_gamma_gaps_have_their_distribution(cv: float) -> None:
    found = due((Phase(1000, 1000, 60 * SECOND),), "gamma", seed=11, cv=cv)
    gaps = np.diff(found) / SECOND
    law = stats.gamma(cv**-2, scale=cv**2 / 1000)
    assert stats.kstest(gaps[gaps > 1e-6], lambda x: (law.cdf(x) - law.cdf(1e-6)) / law.sf(1e-6)
                        ).pvalue > 0.01  # fmt: skip
    assert (gaps <= 1e-6).mean() == pytest.approx(law.cdf(1e-6), abs=0.01)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)
    assert 1 / gaps.mean() == pytest.approx(1000, rel=0.05)


def test_gamma_is_reproducible_by_its_seed_and_begins_like_any_moment() -> None:
    phases = (Phase(50, 50, SECOND),)
    assert np.array_equal(due(phases, "gamma", 4, 3.0), due(phases, "gamma", 4, 3.0))
    assert not np.array_equal(due(phases, "gamma", 4, 3.0), due(phases, "gamma", 5, 3.0))
    # begun with a whole gap it would ask (cv² − 1)/2 = 4 more in its first second on average
    numbers = [sum(map(len, shape.arrivals(phases, "gamma", seed, 3.0))) for seed in range(4000)]
    error = np.std(numbers) / len(numbers) ** 0.5
    assert error < 0.4
    assert abs(np.mean(numbers) - 50) < 3.5 * error


def test_gamma_follows_the_rate() -> None:
    phases = (Phase(100, 1900, 100 * SECOND),)
    found = due(phases, "gamma", seed=2, cv=2.0)
    half = int((found < 50 * SECOND).sum())
    assert half == pytest.approx(27_500, abs=6 * 2 * 27_500**0.5)
    assert len(found) - half == pytest.approx(72_500, abs=6 * 2 * 72_500**0.5)


def test_once_is_all_at_the_beginning() -> None:
    found = due((Phase(1000, 1000, 10 * SECOND), Phase(0, 10, SECOND)), "once")
    assert len(found) == 10_005
    assert not found.any()


def test_a_trace_has_no_shape() -> None:
    with pytest.raises(ValueError, match="trace arrivals"):
        next(shape.arrivals((Phase(1, 1, SECOND),), "trace", 1))
