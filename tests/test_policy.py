"""The dispatch rule on a clock of its own: what holds for every load, and known answers."""

import heapq
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.curve import interpolated, isotonic
from loadbench.engine.policy import NEVER, Decision, Level, Rule, State, decide
from loadbench.engine.returns import Hold
from loadbench.engine.service import ServiceTimes

MS, SECOND = 1_000_000, 1_000_000_000


class Request(NamedTuple):
    arrived: int
    rows: int
    deadline: int = NEVER
    level: int = 1


class Ran(NamedTuple):
    started: int
    ended: int
    batch: list[Request]
    reason: str


class History(NamedTuple):
    ran: list[Ran]
    shed: list[Request]


def simulate(
    rule: Rule, requests: list[Request], service: Callable[[int], int], instances: int = 1
) -> History:
    """Runs the rule against arrivals on a virtual clock: an instance that gets free, a request that
    comes and a timer that ends are the only moments at which anything is decided."""
    table = tuple(service(rows) for rows in range(4 * rule.max_batch + 1))
    coming = deque(sorted(requests, key=lambda request: request.arrived))
    queue: deque[Request] = deque()
    free: list[int] = [0] * instances  # since when
    busy: list[int] = []  # until when
    history = History([], [])
    wake = NEVER
    while coming or queue or busy:
        now = min(
            coming[0].arrived if coming else NEVER,
            busy[0] if busy else NEVER,
            wake,
        )
        assert now < NEVER, "requests wait and nothing will ever happen"
        wake = NEVER
        while coming and coming[0].arrived <= now:
            queue.append(coming.popleft())
            if rule.policy == "deadline":
                queue = deque(sorted(queue, key=lambda request: request.deadline))
        while busy and busy[0] <= now:
            free.append(heapq.heappop(busy))
        while free and queue:
            state = State(free[-1], table, rate=(len(requests) - len(coming)) / max(now, 1))
            decision: Decision[Request] = decide(rule, queue, state, now)
            front = len(decision.take) + len(decision.shed)
            gone = {id(request) for request in (*decision.take, *decision.shed)}
            assert len(gone) == front, "a request is taken twice"
            queue = deque(request for request in queue if id(request) not in gone)
            history.shed.extend(decision.shed)
            if not decision.take:
                assert not queue or (decision.until or 0) > now
                wake = decision.until if decision.until is not None else NEVER
                break
            free.pop()
            ended = now + service(sum(request.rows for request in decision.take))
            heapq.heappush(busy, ended)
            history.ran.append(Ran(now, ended, decision.take, decision.reason))
    return history


def affine(a: int, c: int) -> Callable[[int], int]:
    return lambda rows: a + c * rows


loads = st.lists(
    st.tuples(st.integers(0, 50 * MS), st.integers(1, 5), st.integers(1, 40 * MS)),
    min_size=1,
    max_size=40,
)
rules = st.one_of(
    st.integers(1, 8).map(lambda most: Rule("none", most)),
    st.tuples(
        st.integers(5, 16), st.integers(0, 10 * MS), st.lists(st.integers(1, 8), max_size=3)
    ).map(lambda drawn: Rule("fixed", drawn[0], drawn[1], tuple(drawn[2]))),
    st.integers(5, 16).map(lambda most: Rule("deadline", most)),
)


@given(loads, rules, st.booleans(), st.integers(1, 3))
def test_every_request_is_served_once_or_given_up_once_in_order_and_in_batches_that_fit(
    load: list[tuple[int, int, int]], rule: Rule, deadlines: bool, instances: int
) -> None:
    requests = [
        Request(arrived, rows, arrived + limit if deadlines else NEVER)
        for arrived, rows, limit in load
    ]
    history = simulate(rule, requests, affine(2 * MS, MS // 4), instances)
    served = [request for ran in history.ran for request in ran.batch]
    assert sorted(served + history.shed) == sorted(requests)
    if not deadlines:
        assert not history.shed
        arrivals = [request.arrived for request in served]
        assert arrivals == sorted(arrivals)
    for ran in history.ran:
        rows = sum(request.rows for request in ran.batch)
        assert len(ran.batch) == 1 or rows <= rule.max_batch
        assert all(request.arrived <= ran.started for request in ran.batch)
        if rule.policy == "none":
            assert len(ran.batch) == 1


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=20),
    st.integers(5, 12),
    st.sampled_from(["fixed", "deadline"]),
)
def test_a_batch_takes_from_the_front_what_fits_and_nothing_more(
    sizes: list[int], most: int, policy: Literal["fixed", "deadline"]
) -> None:
    queue = [Request(at, rows) for at, rows in enumerate(sizes)]
    decision = decide(Rule(policy, most), queue, State(0, (MS,) * (most + 1)), MS)
    taken = len(decision.take)
    assert decision.take == queue[:taken]
    assert sum(sizes[:taken]) <= most
    assert taken == len(queue) or sum(sizes[: taken + 1]) > most


@given(loads, st.integers(5, 16))
def test_deadline_never_lets_an_instance_idle_while_someone_waits(
    load: list[tuple[int, int, int]], most: int
) -> None:
    requests = [Request(arrived, rows) for arrived, rows, _ in load]
    history = simulate(Rule("deadline", most), requests, affine(2 * MS, MS // 4))
    free = 0
    for ran in history.ran:
        oldest = min(request.arrived for request in ran.batch)
        assert ran.started == max(free, oldest)
        free = ran.ended


@given(loads)
def test_what_the_plan_says_is_feasible_ends_in_time(load: list[tuple[int, int, int]]) -> None:
    requests = [Request(arrived, rows, arrived + limit) for arrived, rows, limit in load]
    history = simulate(Rule("deadline", 8), requests, affine(2 * MS, MS // 4))
    for ran in history.ran:
        assert all(request.deadline >= ran.ended for request in ran.batch)


@given(st.lists(st.integers(0, 60 * MS), min_size=1, max_size=40), st.integers(0, 9 * MS))
def test_fixed_starts_when_full_or_when_the_oldest_has_waited_enough(
    arrivals: list[int], wait: int
) -> None:
    history = simulate(
        Rule("fixed", 4, wait), [Request(at, 1) for at in arrivals], affine(MS, MS // 4)
    )
    times = sorted(arrivals)
    free = served = 0
    for ran in history.ran:
        due = times[served] + wait
        filled = times[served + 3] if served + 3 < len(times) else NEVER
        assert ran.started == max(free, min(due, filled))
        come = sum(1 for at in times if at <= ran.started) - served
        assert len(ran.batch) == min(come, 4)
        served += len(ran.batch)
        free = ran.ended


def test_fixed_sends_a_preferred_size_exactly_until_the_wait_is_over() -> None:
    rule = Rule("fixed", 8, 5 * MS, (2, 4))
    queue = [Request(at, 1) for at in (0, 1, 2, 3, 4)]
    idle = State(0, (MS,) * 9)
    assert decide(rule, queue, idle, MS) == Decision(queue[:4], "bucket", [])
    assert decide(rule, queue[:1], idle, MS) == Decision([], "hold", [], 5 * MS)
    assert decide(rule, queue, idle, 5 * MS) == Decision(queue, "hold", [])
    assert decide(rule, queue, State(6 * MS, (MS,) * 9), 6 * MS).reason == "late-bind"
    assert decide(rule, [Request(0, 5), Request(0, 4)], idle, 0).reason == "full"


def test_fixed_closes_at_a_preferred_size_even_if_more_wait_and_nothing_is_held() -> None:
    table = (MS,) * 9
    queue = [Request(0, 1)] * 7
    assert len(decide(Rule("fixed", 8, 0, (4,)), queue, State(0, table), MS).take) == 4
    assert len(decide(Rule("fixed", 8, 5 * MS, (4,)), queue, State(0, table), 9 * MS).take) == 7
    over = [Request(0, 3), Request(0, 3)]  # the next would exceed every preferred size: no waiting
    assert len(decide(Rule("fixed", 8, 5 * MS, (4,)), over, State(0, table), MS).take) == 1


def test_fixed_refuses_or_delays_who_has_waited_too_long() -> None:
    table = (MS,) * 9
    queue = [Request(0, 1, 2), Request(0, 1, 9), Request(0, 1, 2), Request(0, 1, level=2)]
    levels = (Level(), Level())
    refusing = decide(Rule("fixed", 8, levels=levels), queue, State(0, table), 5)
    assert (refusing.take, refusing.shed) == ([queue[1], queue[3]], [queue[0], queue[2]])
    delaying = Rule("fixed", 3, levels=(Level(delay=True), Level()))
    found = decide(delaying, queue, State(0, table), 5)
    assert (found.take, found.shed) == ([queue[1], queue[0], queue[2]], [])
    held = decide(Rule("fixed", 8, 5 * MS, levels=levels), queue[1:2], State(0, table), 5)
    assert (held.take, held.until) == ([], 9)  # its timeout comes before its wait is over


def test_a_timeout_of_ones_own_can_only_shorten_that_of_a_level() -> None:
    for level, own, limit in (
        (Level(5, override=True), 3, 3), (Level(5, override=True), 9, 5),
        (Level(5, override=True), None, 5), (Level(5), 3, 5), (Level(0, override=True), 3, 0),
    ):  # fmt: skip
        assert level.limit(own) == limit


def test_reasons_say_why_a_batch_started() -> None:
    table = (MS,) * 9
    alone = [Request(10, 1)]
    rule = Rule("deadline", 2)
    assert decide(rule, alone, State(0, table), 10).reason == "idle"
    assert decide(rule, alone, State(20, table), 20).reason == "late-bind"
    assert decide(rule, alone * 3, State(0, table), 10).reason == "full"
    assert decide(rule, alone, State(0, table, draining=True), 10).reason == "drain"


def test_a_hold_ends_in_time_for_everyone_in_the_batch() -> None:
    table = (MS,) * 9
    queue = [Request(0, 1, SECOND, 1), Request(0, 1, 5 * MS, 2)]
    rule = Rule("deadline", 8, levels=(Level(), Level()), hold=True)
    state = State(0, table, returning=Hold(30 * MS, 4))
    held = decide(rule, queue, state, 0)
    assert (held.take, held.reason, held.until) == ([], "hold", 4 * MS)
    assert decide(rule, queue, state, 4 * MS).take == queue


def test_a_lasting_load_costs_the_head_and_a_passing_one_a_batch_more() -> None:
    queue = [Request(0, 1, 3 * MS), Request(0, 1, 9 * MS), Request(0, 1, 9 * MS)]
    table = tuple(affine(2 * MS, MS)(rows) for rows in range(9))
    rule = Rule("deadline", 8)
    lasting = decide(rule, queue, State(0, table, rate=2 / MS), 0)
    assert (lasting.take, lasting.shed) == (queue[1:], queue[:1])
    passing = decide(rule, queue, State(0, table, rate=0.01 / MS), 0)
    assert (passing.take, passing.reason, passing.shed) == (queue[:1], "deadline", [])
    after = decide(rule, queue[1:], State(3 * MS, table, rate=0.01 / MS), 3 * MS)
    assert after.take == queue[1:]


def test_a_batch_just_over_a_padded_size_is_cut_there_if_that_is_quicker() -> None:
    table = (0, 4, 5, 7, 7, 12, 12, 12, 12)  # padded to 1, 2, 4, 8
    rule = Rule("deadline", 8)
    for number, taken in ((4, 4), (5, 4), (6, 6), (8, 8)):
        queue = [Request(0, 1, 100) for _ in range(number)]
        assert len(decide(rule, queue, State(0, table), 0).take) == taken
    tight = [Request(0, 1, 12)] * 4 + [Request(0, 1, 10)]  # the last could not wait for the next
    assert len(decide(rule, tight, State(0, table, rate=1.0), 0).take) == 4


def test_a_batch_that_leaves_a_padded_size_empty_is_cut_where_others_will_fill_it() -> None:
    table = (0, 4, 5, 7, 7, 12, 12, 12, 12)  # padded to 1, 2, 4, 8
    queue = [Request(0, 1, 20)] * 6
    for rate, taken in ((0.01, 6), (0.3, 4)):
        decision = decide(Rule("deadline", 8), queue, State(0, table, rate=rate), 0)
        assert (decision.take, decision.shed) == (queue[:taken], [])


def test_the_urgent_are_served_first_where_the_others_can_wait() -> None:
    table = tuple(affine(2 * MS, MS // 4)(rows) for rows in range(33))
    urgent, rule = [Request(0, 1, 4 * MS)] * 2, Rule("deadline", 32)
    state = State(0, table, rate=2 / MS)
    patient = [Request(0, 1, 100 * MS)] * 20
    decision = decide(rule, urgent + patient, state, 0)
    assert (decision.take, decision.reason, decision.shed) == (
        urgent + patient[:6], "deadline", []
    )  # fmt: skip
    hurried = [Request(0, 1, 8 * MS)] * 20  # they cannot, nor can those who come
    decision = decide(rule, urgent + hurried, state, 0)
    assert (decision.take, decision.shed) == (hurried, urgent)


def test_a_plan_that_gives_everybody_up_is_doubted_when_it_is_old() -> None:
    queue = [Request(0, 1, 5 * MS), Request(1, 1, 6 * MS)]
    table = (100 * MS,) * 9
    given_up = decide(Rule("deadline", 8), queue, State(0, table), MS)
    assert (given_up.take, given_up.shed) == ([], queue)
    probe = decide(Rule("deadline", 8), queue, State(0, table, stale=True), MS)
    assert (probe.take, probe.reason, probe.shed) == (queue[1:], "probe", queue[:1])


def test_service_times_are_quantiles_that_rise_with_the_batch() -> None:
    times = ServiceTimes(8)
    for ns in range(1, 41):
        times.observe(8, 1000 + ns)
    times.observe(1, 100)
    assert times.table[8] == 1000 + 38
    assert times.table[1] == 110
    assert times.table[4] == round(110 + (1038 - 110) * 3 / 7)
    assert list(times.table) == sorted(times.table)


def test_one_slow_batch_does_not_spoil_the_plan() -> None:
    times = ServiceTimes(4)
    for ns in (1000, 1000, 500_000, 1000, 1000):
        times.observe(4, ns)
    assert times.table[4] == 1100


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 9)), min_size=1, max_size=12))
def test_isotonic_values_rise_and_keep_the_weighted_mean(pairs: list[tuple[float, int]]) -> None:
    values, weights = [list(column) for column in zip(*pairs, strict=True)]
    rising = isotonic(values, weights)
    assert all(low <= high + 1e-9 for low, high in pairwise(rising))
    assert np.dot(rising, weights) == pytest.approx(np.dot(values, weights))


def test_sizes_that_never_ran_are_interpolated() -> None:
    assert interpolated([2, 4], [10.0, 20.0], 6) == (10, 10, 10, 15, 20, 25, 30)
