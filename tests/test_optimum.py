"""The most that anyone could have served in time: by brute force, by hand, by what must hold."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loadbench.engine.policy import Rule
from loadbench.optimum import Costs, Times, Trace, judge, most_in_time
from loadbench.units import MS
from tests.test_policy import Request, affine, simulate


def times(*values: int) -> Times:
    return np.array(values, np.int64)


def by_hand(slo: int, costs: list[int], *arrived: int) -> int:
    """`costs` of a batch of 1, 2, …; arrivals and times in one unit."""
    occupied = times(0, *costs)
    return most_in_time(times(*arrived), slo, occupied, np.zeros_like(occupied))


def brute(arrived: list[int], slo: int, occupied: list[int], answer: list[int]) -> int:
    """Every way to make batches of whichever requests, in whichever order."""

    def best(left: frozenset[int], free: int) -> int:
        most = 0
        for size in range(1, min(len(left), len(occupied) - 1) + 1):
            for batch in combinations(sorted(left), size):
                ended = max(free, *(arrived[i] for i in batch)) + occupied[size]
                if all(ended + answer[size] <= arrived[i] + slo for i in batch):
                    most = max(most, size + best(left - set(batch), ended))
        return most

    return best(frozenset(range(len(arrived))), 0)


rising = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(lambda found: [0, *sorted(found)])


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=6).map(sorted),
    st.integers(1, 16),
    rising,
    st.lists(st.integers(0, 3), min_size=4, max_size=4).map(sorted),
)
def test_no_schedule_serves_more_and_one_serves_as_many(
    arrived: list[int], slo: int, occupied: list[int], answers: list[int]
) -> None:
    answer = [0, *answers][: len(occupied)]
    found = most_in_time(times(*arrived), slo, times(*occupied), times(*answer))
    assert found == brute(arrived, slo, occupied, answer)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=6).map(sorted),
    st.integers(1, 16),
    rising,
    st.lists(st.integers(1, 3), min_size=6, max_size=6),
)
@example([0, 0, 0, 1], 5, [0, 2, 2], [1, 3, 1, 1, 1, 1])  # the third makes good for the second
def test_with_times_of_their_own_none_in_order_serves_more_and_one_as_many(
    arrived: list[int], slo: int, occupied: list[int], slower: list[int]
) -> None:
    own = [[factor * ns for ns in occupied] for factor in slower[: len(arrived)]]

    def best(at: int, free: int) -> int:
        """Of the requests from `at` on: some are left out, then a batch of the next few."""
        most = 0
        for first in range(at, len(arrived)):
            for until in range(first + 1, min(len(arrived), first + len(occupied) - 1) + 1):
                ended = max(free, arrived[until - 1]) + own[until - 1][until - first]
                if ended <= arrived[first] + slo:
                    most = max(most, until - first + best(until, ended))
        return most

    none = times(*[0] * len(occupied))
    assert most_in_time(times(*arrived), slo, np.array(own), none) == best(0, 0)


def test_it_is_right_where_it_can_be_counted_by_hand() -> None:
    # A batch of m takes 2 + m: two at once are served within 4, a third is not, unless it comes
    # when the first batch is over; one that comes in between makes all three worth two
    assert by_hand(4, [3, 4, 5], 0, 0, 0) == 2
    assert by_hand(4, [3, 4, 5], 0, 0, 4) == 3
    assert by_hand(4, [3, 4, 5], 0, 0, 2) == 2
    assert by_hand(2, [3, 4, 5], 0, 9) == 0


def test_answers_that_take_long_make_the_deadline_nearer_but_keep_no_instance() -> None:
    occupied = times(0, 3)
    assert most_in_time(times(0, 3, 6), 4, occupied, times(0, 1)) == 3
    assert most_in_time(times(0, 3, 6), 4, occupied, times(0, 2)) == 0


def poisson(load: float, number: int, seed: int) -> Times:
    """Arrivals at a load of 22 rows in 7.5 ms."""
    gaps = np.random.default_rng(seed).exponential(7.5 * MS / 22 / load, number)
    return np.cumsum(gaps).astype(np.int64)


AFFINE = np.array([0, *(2 * MS + m * MS // 4 for m in range(1, 33))], np.int64)
NONE = np.zeros_like(AFFINE)
SLO = 15 * MS


def whole(arrived: Times, slo: int) -> int:
    """The table as it is written, without leaving anything out."""
    number = len(arrived)
    least = np.full((number + 1, number + 1), np.inf)
    least[0, 0] = 0.0
    for j in range(1, number + 1):
        least[j, 1:] = least[j - 1, :-1]
        for m in range(1, min(len(AFFINE) - 1, j) + 1):
            ended = np.maximum(least[j - m], arrived[j - 1]) + AFFINE[m]
            ended[ended > arrived[j - m] + slo] = np.inf
            least[j] = np.minimum(least[j], ended)
    return number - int(np.flatnonzero(np.isfinite(least[number]))[0])


@pytest.mark.parametrize("slo", [SLO, 8 * SLO])  # 8: more columns than there were at first
@pytest.mark.parametrize("load", [0.9, 1.1, 3.0])
def test_leaving_out_what_does_not_matter_changes_nothing(load: float, slo: int) -> None:
    arrived = poisson(load, 900, 11)
    assert most_in_time(arrived, slo, AFFINE, NONE) == whole(arrived, slo)


@pytest.mark.parametrize("load", [1.0, 3.0])
def test_many_arrivals_fill_the_table_again_and_again(load: float) -> None:
    """Where a long gap makes the parts independent, the whole is their sum."""
    part = poisson(load, 2500, 5)
    gap = int(part[-1]) + 2 * SLO
    both = np.concatenate([part, part + gap])
    assert most_in_time(both, SLO, AFFINE, NONE) == 2 * most_in_time(part, SLO, AFFINE, NONE)
    close = np.concatenate([part, part + int(part[-1])])
    assert most_in_time(close, SLO, AFFINE, NONE) <= 2 * most_in_time(part, SLO, AFFINE, NONE)


@pytest.mark.parametrize("load", [0.9, 1.5])
def test_blocks_of_2000_are_above_the_whole_by_no_more_than_what_waits_at_their_cuts(
    load: float,
) -> None:
    """A block's schedule reaches into the next one only with requests that arrived less than the
    SLO before the cut: without them the blocks' schedules are one."""
    arrived = poisson(load, 6000, 3)
    exact = most_in_time(arrived, SLO, AFFINE, NONE)
    blocks = sum(
        most_in_time(arrived[begin : begin + 2000], SLO, AFFINE, NONE)
        for begin in range(0, 6000, 2000)
    )
    waiting = sum(
        cut - int(np.searchsorted(arrived, arrived[cut] - SLO, "right")) for cut in (2000, 4000)
    )
    assert exact <= blocks <= exact + waiting


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40).map(sorted), rising)
def test_more_time_is_never_worse_and_slower_batches_never_better(
    arrived: list[int], costs: list[int]
) -> None:
    occupied, none = times(*costs), np.zeros(len(costs), np.int64)
    found = [most_in_time(times(*arrived), slo, occupied, none) for slo in range(1, 20)]
    assert found == sorted(found)
    slower = most_in_time(times(*arrived), 10, occupied + np.sign(occupied), none)
    assert slower <= found[9]
    assert most_in_time(times(*arrived), 10, occupied[:2], none[:2]) <= found[9]  # no batches


def played(arrived: Times, policy: str) -> Trace:
    """What the engine's policy does with the arrivals on a virtual clock."""
    requests = [Request(at, 1, at + SLO) for at in arrived.tolist()]
    rule = Rule(policy, 32, max_wait_ns=3 * MS)  # type: ignore[arg-type]
    history = simulate(rule, requests, affine(2 * MS, MS // 4))
    ended = np.array(arrived + 2 * SLO)  # of those that were given up
    place: dict[int, list[int]] = {}
    for at, moment in enumerate(arrived.tolist()):
        place.setdefault(moment, []).append(at)
    for ran in history.ran:
        for request in ran.batch:
            ended[place[request.arrived].pop()] = ran.started + affine(2 * MS, MS // 4)(
                len(ran.batch)
            )
    return Trace(arrived, ended, ended <= arrived + SLO)


@pytest.mark.parametrize("load", [0.7, 1.0, 1.5])
@pytest.mark.parametrize("policy", ["deadline", "fixed"])
def test_what_was_reached_is_never_above_the_best(policy: str, load: float) -> None:
    arrived = poisson(load, 1200, 8)
    trace = played(arrived, policy)
    found = judge(trace, SLO, Costs(AFFINE, NONE, NONE))
    assert found.best == most_in_time(arrived, SLO, AFFINE, NONE)  # busy periods skipped or not
    assert found.reached == trace.in_time.sum() <= found.best
    assert found.above == 0
    assert found.exact
    if policy == "deadline":
        assert found.share is not None
        assert found.share > 0.95


def test_what_is_lost_is_lost_to_scheduling_or_to_the_host() -> None:
    arrived = poisson(1.5, 1200, 9)
    trace = played(arrived, "deadline")
    host = np.where(AFFINE > 0, MS, 0)
    found = judge(trace, SLO, Costs(AFFINE - host, host, NONE))
    assert found.hosted == most_in_time(arrived, SLO, AFFINE, NONE)
    assert found.best == most_in_time(arrived, SLO, AFFINE - host, NONE) > found.hosted
    assert None not in (found.share, found.scheduling, found.host)
    assert found.share + found.scheduling + found.host == pytest.approx(1)  # type: ignore[operator]


def test_what_was_done_could_be_done_whatever_the_typical_times_say() -> None:
    trace = played(poisson(1.1, 600, 4), "deadline")
    slow = Costs(AFFINE * 2, NONE, NONE)
    found = judge(trace, SLO, slow)
    assert found.reached == found.hosted == found.best
    assert found.above == found.reached - most_in_time(trace.arrived, SLO, AFFINE * 2, NONE) > 0


@pytest.mark.parametrize("load", [1.0, 3.0])
def test_several_instances_have_a_bound_above_what_they_could_reach(load: float) -> None:
    trace = played(poisson(load, 1200, 6), "deadline")
    costs = Costs(AFFINE, NONE, NONE)
    alone = judge(trace, SLO, costs)
    two = judge(trace, SLO, costs, instances=2)
    assert not two.exact
    assert two.best >= alone.best
    # both instances can do what one can with every other arrival
    halves = sum(most_in_time(trace.arrived[k::2], SLO, AFFINE, NONE) for k in (0, 1))
    assert halves <= two.best <= 1200
    late = trace._replace(in_time=np.zeros(1200, np.bool_))
    assert judge(late, 2 * MS, costs, instances=2).best == 0  # no batch is that quick


def test_more_arrivals_than_are_looked_at_are_sampled_evenly() -> None:
    """Where the batches are small for want of time, blocks are closer than the bound."""
    arrived = poisson(1.0, 20_000, 2)
    nobody = Trace(arrived, arrived + SLO, arrived % 2 == 0)
    costs = Costs(AFFINE, NONE, NONE)
    all_, some = judge(nobody, SLO, costs), judge(nobody, SLO, costs, exactly=19_000)
    assert (all_.arrivals, all_.of, all_.exact) == (20_000, 20_000, True)
    assert (some.of, some.exact) == (20_000, False)
    assert 15_000 < some.arrivals < 19_000
    whole_, blocks = all_.best / all_.arrivals, some.best / some.arrivals
    assert whole_ < blocks < 1.02 * whole_


def test_at_overload_a_bound_for_all_is_closer_than_blocks() -> None:
    trace = played(poisson(3.0, 3000, 2), "deadline")
    costs = Costs(AFFINE, NONE, NONE)
    all_, some = judge(trace, SLO, costs), judge(trace, SLO, costs, exactly=2500)
    assert all_.exact
    assert (some.arrivals, some.exact) == (3000, False)
    assert all_.best <= some.best <= 1.02 * all_.best
    assert judge(trace, SLO, costs, exactly=40).arrivals == 3000  # blocks of two say nothing


def test_nothing_to_judge() -> None:
    nobody = Trace(times(), times(), np.zeros(0, np.bool_))
    assert judge(nobody, SLO, Costs(AFFINE, NONE, NONE)).share is None
