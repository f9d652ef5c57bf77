"""When requests fall due, as the load takes them, and the account of what was asked."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from loadbench.load.schedule import NEVER, Schedule
from loadbench.shape import Phase, arrivals, length_ns
from loadbench.units import MS, SECOND
from tests.lanes import plan

ORIGIN = 1_000 * SECOND


def schedule(*phases: Phase, kind: str = "constant", warmup_ns: int = 0, seed: int = 3) -> Schedule:
    wanted = plan(1, arrivals=kind, phases=phases, warmup_ns=warmup_ns, seed=seed)
    return Schedule(wanted, ORIGIN)


def taken(found: Schedule, most: int = 10**9) -> list[int]:
    due: list[int] = []
    while found.next < NEVER and len(due) < most:
        due.append(found.next)
        found.advance()
    return due


def test_constant_arrivals_are_taken_at_their_times_on_the_absolute_axis() -> None:
    assert taken(schedule(Phase(4, 4, SECOND))) == [ORIGIN + k * 250 * MS for k in range(4)]


def test_warm_up_comes_before_and_does_not_change_the_load() -> None:
    phases = (Phase(9000, 3000, 2 * SECOND), Phase(100, 100, SECOND))
    cold = taken(schedule(*phases, kind="poisson"))
    warm = taken(schedule(*phases, kind="poisson", warmup_ns=SECOND))
    before = [due for due in warm if due < ORIGIN]
    assert warm[len(before) :] == cold
    assert len(before) == pytest.approx(9000, rel=0.05)
    assert min(before) >= ORIGIN - SECOND
    assert cold == list(np.concatenate(list(arrivals(phases, "poisson", 3))) + ORIGIN)


def test_poisson_gaps_are_exponential() -> None:
    """Kolmogorov–Smirnov against the textbook distribution, at a seed that is fixed."""
    due = np.array(taken(schedule(Phase(2000, 2000, 10 * SECOND), kind="poisson")))
    gaps = np.diff(due) / SECOND
    assert stats.kstest(gaps, "expon", args=(0, 1 / 2000)).pvalue > 0.01
    assert stats.kstest(gaps * 1.05, "expon", args=(0, 1 / 2000)).pvalue < 0.01  # it can fail
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(1, abs=0.02)


def test_arrivals_of_a_ramp_follow_the_integrated_rate() -> None:
    phases = (Phase(100, 5000, 4 * SECOND),)
    due = np.array(taken(schedule(*phases, kind="poisson"))) - ORIGIN
    t = due / SECOND
    reached = 100 * t + (5000 - 100) * t**2 / 8
    assert stats.kstest(reached / (2550 * 4), "uniform").pvalue > 0.01
    assert due.max() < length_ns(phases)


def test_what_was_asked_is_counted_by_due_time_however_far_the_taking_is() -> None:
    phases = (Phase(3000, 9000, 3 * SECOND),)
    due = np.array(taken(schedule(*phases, kind="poisson")))
    edges = [ORIGIN + second * SECOND for second in range(5)]
    expected = np.histogram(due, edges)[0].tolist()
    for most in (0, 5000, 10**9):
        found = schedule(*phases, kind="poisson")
        taken(found, most)
        counts = [found.asked(a, b) for a, b in pairwise(edges)]
        assert counts == expected


def test_what_waits_is_what_fell_due_and_was_not_taken() -> None:
    found = schedule(Phase(5000, 5000, 3 * SECOND))
    assert found.waiting(ORIGIN + 2 * SECOND).tolist() == [
        ORIGIN + k * SECOND // 5000 for k in range(10_000)
    ]
    first = taken(found, 6_000)
    assert len(first) == 6_000
    assert len(found.waiting(ORIGIN + 2 * SECOND)) == 4_000
    assert len(found.waiting(ORIGIN + SECOND)) == 0
    assert found.next == ORIGIN + 6_000 * SECOND // 5000


def test_after_a_stop_nothing_is_asked() -> None:
    found = schedule(Phase(100, 100, 3 * SECOND))
    taken(found, 30)
    assert found.asked(ORIGIN, ORIGIN + SECOND // 2) == 50
    moment = ORIGIN + SECOND + 1
    assert len(found.waiting(moment)) == 71
    found.stop(moment)
    assert found.next == NEVER
    assert len(found.waiting(ORIGIN + 3 * SECOND)) == 0
    assert found.asked(ORIGIN + SECOND // 2, ORIGIN + 3 * SECOND) == 51


def test_a_closed_loop_has_no_schedule() -> None:
    found = schedule(Phase(0, 0, SECOND), kind="closed", warmup_ns=SECOND)
    assert found.next == NEVER
    assert found.asked(0, NEVER) == 0
    assert len(found.waiting(NEVER)) == 0


def test_a_pause_in_the_shape_is_a_pause() -> None:
    due = taken(schedule(Phase(10, 10, SECOND), Phase(0, 0, SECOND), Phase(10, 10, SECOND)))
    assert len(due) == 20
    assert not [d for d in due if SECOND <= d - ORIGIN < 2 * SECOND]
