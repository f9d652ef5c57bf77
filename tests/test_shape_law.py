"""Properties of every shape, whatever its parts: arrivals are as many as the integrated rate says,
lie where it says, follow their law (Kolmogorov–Smirnov after the change of time), come again with
their seed, and are dealt out to load processes without one lost or doubled.

The integrated rate is written down here again, in closed form, not taken from the product.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from loadbench import shape
from loadbench.load.schedule import NEVER, Schedule
from loadbench.plan import Share
from loadbench.shape import Phase
from loadbench.units import SECOND
from tests.lanes import plan

ORIGIN = 50 * SECOND
BY_CHANCE = 1e-4  # how often a true law may look false; the examples are always the same ones
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

rates = st.floats(0, 3000, allow_nan=False).map(lambda rate: round(rate, 3))
lengths = st.integers(SECOND // 10, 6 * SECOND)


def hold(rate: float, length: int) -> list[Phase]:
    return [Phase(rate, rate, length)]


def spike(rate: float, peak: float, length: int) -> list[Phase]:
    return [*hold(rate, length), *hold(rate + peak, length // 8), *hold(rate, length)]


@st.composite
def wave(draw: st.DrawFn, sine: bool) -> list[Phase]:
    """From one rate to another in each period; the last period may break off."""
    length = draw(lengths)
    return [Phase(draw(rates), draw(rates), length, draw(st.integers(length // 9, length)), sine)]


PARTS = {
    "hold": st.builds(hold, rates, lengths),
    "pause": st.builds(hold, st.just(0.0), lengths),
    "ramp": st.builds(lambda a, b, length: [Phase(a, b, length)], rates, rates, lengths),
    "step": st.builds(
        lambda a, b, length: hold(a, length) + hold(b, length), rates, rates, lengths
    ),
    "spike": st.builds(spike, rates, rates, lengths),
    "sine": wave(True),
    "sawtooth": wave(False),
}
sequences = st.lists(st.one_of(*PARTS.values()), min_size=1, max_size=4).map(
    lambda parts: tuple(phase for part in parts for phase in part)
)


def within(phase: Phase, t: Floats) -> Floats:
    """Requests of one phase in its first t seconds."""
    period = (phase.period_ns or phase.length_ns) / SECOND
    a, b = phase.start, phase.end
    whole, rest = np.floor(t / period), t % period
    if phase.sine:
        swing = (b - a) / 2 * np.sin(2 * np.pi * t / period) * period / (2 * np.pi)
        return np.asarray((a + b) / 2 * t - swing)
    return np.asarray(whole * (a + b) / 2 * period + a * rest + (b - a) * rest**2 / (2 * period))


def reached(phases: tuple[Phase, ...], times: Floats) -> Floats:
    """The integrated rate at moments in ns."""
    total, begin = np.zeros(len(times)), 0
    for phase in phases:
        inside = np.clip((times - begin) / SECOND, 0, phase.length_ns / SECOND)
        if phase.length_ns % (phase.period_ns or phase.length_ns) == 0:  # its end is no beginning
            full = within(phase, np.array([phase.length_ns / SECOND * (1 - 1e-15)]))
            total += np.where(inside >= phase.length_ns / SECOND, full, within(phase, inside))
        else:
            total += within(phase, inside)
        begin += phase.length_ns
    return total


def whole(phases: tuple[Phase, ...]) -> float:
    return float(reached(phases, np.array([float(shape.length_ns(phases))]))[0])


def due(phases: tuple[Phase, ...], kind: shape.Arrivals, seed: int = 1, cv: float = 1.0) -> Ints:
    found = list(shape.arrivals(phases, kind, seed, cv))
    return np.concatenate([np.empty(0, np.int64), *found])


def taken(**changed: Any) -> list[int]:
    """All that a load process takes, in its order."""
    found = Schedule(plan(1, **changed), ORIGIN)
    times = []
    while found.next < NEVER:
        times.append(found.next)
        found.advance()
    return times


@pytest.mark.parametrize("name", [*PARTS, "sequence"])
def test_constant_arrivals_are_where_the_integral_says(name: str) -> None:
    @settings(max_examples=100, deadline=None)
    @given(PARTS.get(name, sequences))
    def check(parts: list[Phase]) -> None:
        phases = tuple(parts)
        found, total = due(phases, "constant"), whole(phases)
        assert sum(phase.requests for phase in phases) == pytest.approx(total, rel=1e-9, abs=1e-6)
        assert abs(len(found) - np.ceil(total)) <= (abs(total - round(total)) < 1e-6)
        # to a ns of the moment, and where the rate is next to nothing to a part of the count
        error = np.abs(reached(phases, found.astype(float)) - np.arange(len(found)))
        assert (error <= 1e-4 + 1e-9 * total).all()

    check()


@pytest.mark.parametrize("kind", ["constant", "poisson", "gamma"])
@settings(max_examples=100, deadline=None)
@given(phases=sequences, seed=st.integers(0, 2**32), cv=st.floats(0.2, 3))
def test_arrivals_rise_within_the_shape_and_leave_pauses_out(
    kind: shape.Arrivals, phases: tuple[Phase, ...], seed: int, cv: float
) -> None:
    found = due(phases, kind, seed, cv)
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found < shape.length_ns(phases))).all()
    edges = np.cumsum([0, *(phase.length_ns for phase in phases)])
    for phase, (begin, end) in zip(phases, pairwise(edges), strict=True):
        if phase.start == phase.end == 0:
            assert not ((found >= begin) & (found < end)).any()


def busy(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """The same shape, repeated until it holds some thousand arrivals."""
    while 0 < whole(phases) < 1000:
        phases = (*phases, *phases)
    return phases


laws = sequences.filter(lambda phases: whole(phases) > 20).map(busy)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(laws, st.integers(0, 2**32))
def test_poisson_arrivals_are_a_poisson_process_in_the_time_of_the_shape(
    phases: tuple[Phase, ...], seed: int
) -> None:
    counts, total = reached(phases, due(phases, "poisson", seed).astype(float)), whole(phases)
    assert abs(len(counts) - total) < 5 * total**0.5
    assert stats.kstest(np.diff(counts), "expon").pvalue > BY_CHANCE
    assert stats.kstest(counts / total, "uniform").pvalue > BY_CHANCE
    lag = np.diff(counts)
    assert abs(np.corrcoef(lag[1:], lag[:-1])[0, 1]) < 5 / len(lag) ** 0.5


@settings(max_examples=80, deadline=None, derandomize=True)
@given(laws, st.integers(0, 2**32), st.floats(0.2, 1.5))
def test_gamma_arrivals_have_gamma_gaps_in_the_time_of_the_shape(
    phases: tuple[Phase, ...], seed: int, cv: float
) -> None:
    counts, total = reached(phases, due(phases, "gamma", seed, cv).astype(float)), whole(phases)
    assert abs(len(counts) - total) < 5 * cv * total**0.5 + 2
    law = stats.gamma(cv**-2, scale=cv**2)
    assert stats.kstest(np.diff(counts), law.cdf).pvalue > BY_CHANCE
    lag = np.diff(counts)
    assert abs(np.corrcoef(lag[1:], lag[:-1])[0, 1]) < 6 / len(lag) ** 0.5


def test_the_laws_can_be_found_wrong() -> None:
    """A rate that is off by 12 %, gaps that are too even, and a shape half a second late."""
    phases = (Phase(100, 900, 12 * SECOND, 3 * SECOND, sine=True),)
    counts = reached(phases, due(phases, "poisson", 5).astype(float))
    even = reached(phases, due(phases, "gamma", 5, 0.8).astype(float))
    late = reached(phases, due(phases, "poisson", 5).astype(float) + SECOND / 2)
    assert stats.kstest(np.diff(counts) * 1.12, "expon").pvalue < BY_CHANCE
    assert stats.kstest(np.diff(even), "expon").pvalue < BY_CHANCE
    assert stats.kstest(np.diff(late), "expon").pvalue < BY_CHANCE


@settings(max_examples=50, deadline=None)
@given(laws, st.sampled_from(["poisson", "gamma"]), st.integers(0, 2**32), st.floats(0.2, 3))
def test_a_seed_is_one_sequence_and_another_seed_another(
    phases: tuple[Phase, ...], kind: shape.Arrivals, seed: int, cv: float
) -> None:
    found = due(phases, kind, seed, cv)
    assert np.array_equal(found, due(phases, kind, seed, cv))
    assert not np.array_equal(found[:100], due(phases, kind, seed + 1, cv)[:100])


@settings(max_examples=100, deadline=None)
@given(sequences)
def test_once_is_the_whole_number_at_the_beginning(phases: tuple[Phase, ...]) -> None:
    found, total = due(phases, "once"), whole(phases)
    assert not found.any()
    assert len(found) in (int(total - 1e-5), int(total + 1e-5))


traces = st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=200).map(sorted)


@settings(max_examples=100, deadline=None)
@given(traces, st.integers(1, 12 * SECOND), st.none() | st.integers(SECOND // 10, 3 * SECOND))
def test_a_trace_is_played_as_it_is_and_again(
    times: list[int], length: int, pause: int | None
) -> None:
    loop = None if pause is None else times[-1] + pause
    expected, begin = [time for time in times if time < length], loop
    while begin is not None and begin < length and loop:
        expected += [begin + time for time in times if begin + time < length]
        begin += loop
    played = list(shape.replay(np.array(times, np.int64), length, loop))
    assert np.concatenate([np.empty(0, np.int64), *played]).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(
    phases=sequences,
    kind=st.sampled_from(["constant", "poisson", "gamma", "once", "trace"]),
    seed=st.integers(0, 2**32),
    processes=st.integers(1, 7),
    warmup=st.sampled_from([0, SECOND // 3]),
    times=traces,
)
def test_the_shares_of_all_processes_are_the_whole(
    phases: tuple[Phase, ...], kind: shape.Arrivals, seed: int, processes: int, warmup: int,
    times: list[int],
) -> None:  # fmt: skip
    """Arrival number k goes to process k mod W, in the warm-up as in the load."""
    fields = {
        "phases": phases, "arrivals": kind, "seed": seed, "cv": 1.7, "warmup_ns": warmup,
        "trace": np.array(times, "<i8").tobytes(), "loop_ns": times[-1] + SECOND // 9,
    }  # fmt: skip
    alone = taken(**fields)
    early = [time for time in alone if time < ORIGIN]
    load = alone[len(early) :]
    for index in range(processes):
        mine = taken(**fields, share=Share(index, processes))
        assert mine == early[index::processes] + load[index::processes]
    if kind in ("constant", "poisson", "gamma"):
        assert load == (due(phases, kind, seed, 1.7) + ORIGIN).tolist()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(laws, st.integers(0, 2**32), st.integers(2, 4))
def test_the_share_of_a_poisson_process_has_the_law_of_every_so_many_of_its_gaps(
    phases: tuple[Phase, ...], seed: int, processes: int
) -> None:
    mine = taken(phases=phases, arrivals="poisson", seed=seed, share=Share(1, processes))
    gaps = np.diff(reached(phases, np.array(mine, float) - ORIGIN))
    assert stats.kstest(gaps, stats.erlang(processes).cdf).pvalue > BY_CHANCE
