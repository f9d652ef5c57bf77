"""The scheduler on a clock of its own: what must hold of every policy, and how near the policies
come to the most that anyone could have served in time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.engine.job import Job
from loadbench.engine.rule import Level, Policy, Rule
from loadbench.engine.scheduler import Scheduler, Terms
from loadbench.engine.service import ServiceTimes
from loadbench.optimum import Times, most_in_time
from loadbench.units import MS, SECOND
from tests.simulation import CASES, Asked, Case, History, Simulation, arrivals, play, warm

NARROW, WIDE = ((1,),), ((2,),)
TABLE = [0, *(2 * MS + rows * MS // 4 for rows in range(1, 65))]


def best(case: Case, moments: Times) -> int:
    return most_in_time(moments, case.slo_ns, case.table, np.zeros_like(case.table))


def schedule(
    rule: Rule, asked: list[Asked], slo: int | None = None, instances: int = 1, waiting: int = 1000
) -> History:
    """Batches of 2 ms and 0.25 ms a row, well known."""
    service = ServiceTimes(64)
    for rows in [*range(1, 65)] * 20:
        service.observe(rows, TABLE[rows])
    terms = Terms(rule, waiting, 1 << 40, slo)
    return Simulation(terms, service, lambda _, rows: TABLE[rows], instances).run(asked)


def drawn(number: int, per_ms: float, seed: int = 0) -> tuple[list[int], np.random.Generator]:
    """Poisson arrivals, and what else is to be drawn."""
    draw = np.random.default_rng(seed)
    return np.cumsum(draw.exponential(MS / per_ms, number)).astype(int).tolist(), draw


asks = st.lists(
    st.builds(
        Asked,
        st.integers(0, 60 * MS),
        st.none() | st.integers(1, 40 * MS),
        st.integers(1, 6),
        st.integers(0, 4),
        st.sampled_from([NARROW, WIDE]),
    ),
    max_size=50,
).map(lambda found: sorted(found, key=lambda asked: asked.at))


@settings(deadline=None, max_examples=300)
@given(
    asks,
    st.sampled_from(["deadline", "efficient", "failfast", "fixed", "adaptive", "none"]),
    st.integers(6, 20),
    st.integers(0, 8 * MS),
    st.integers(1, 3),
    st.lists(
        st.builds(Level, st.integers(0, 9 * MS), st.booleans(), st.booleans(), st.integers(0, 4)),
        min_size=1,
        max_size=3,
    ),
)
def test_everyone_is_served_or_given_up_once_in_batches_that_fit(
    asked: list[Asked], policy: Policy, most: int, wait: int, instances: int, levels: list[Level]
) -> None:
    rule = Rule(policy, most, wait, (4,), tuple(levels), len(levels))
    history = schedule(rule, asked, 30 * MS, instances)
    served = [place for ran in history.ran for place in ran.members]
    everyone = [*served, *history.shed, *history.refused]
    assert sorted(everyone) == list(range(len(asked)))
    for ran in history.ran:
        assert len({asked[place].shapes for place in ran.members}) == 1
        assert ran.rows == sum(asked[place].rows for place in ran.members) <= most
        assert all(asked[place].at <= ran.began for place in ran.members)
        if policy == "none":
            assert len(ran.members) == 1
    if rule.foreseeing:  # the times are known exactly: who is served is in time
        assert all((history.answered[place] or 0) <= history.deadlines[place] for place in served)


@settings(deadline=None, max_examples=100)
@given(asks, st.sampled_from(["deadline", "failfast", "fixed", "adaptive", "none"]))
def test_who_may_wait_as_long_is_served_in_the_order_of_arrival(
    asked: list[Asked], policy: Policy
) -> None:
    same = [one._replace(timeout_ns=None, priority=0) for one in asked]
    history = schedule(Rule(policy, 8), same, 12 * MS)
    for key in (NARROW, WIDE):
        served = [place for ran in history.ran for place in ran.members]
        order = [same[place].at for place in served if same[place].shapes == key]
        assert order == sorted(order)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("kind", "load", "least"),
    [
        ("poisson", 0.7, 0.985), ("poisson", 1.0, 0.9), ("poisson", 1.5, 0.97),
        ("poisson", 3.0, 0.97), ("gamma", 0.9, 0.93), ("gamma", 1.5, 0.94), ("spikes", 0.9, 0.91),
        ("spikes", 2.0, 0.85),
    ],
)  # fmt: skip
def test_nearly_all_of_what_anyone_could_have_served_in_time(
    name: str, kind: str, load: float, least: float
) -> None:
    case = CASES[name]
    moments = arrivals(kind, load * case.capacity, 1500, 3)
    history = play(case, Rule("deadline", case.largest), moments)
    assert least * best(case, moments) <= history.on_time <= best(case, moments)


@pytest.mark.parametrize("load", [0.9, 1.0, 2.0])
def test_times_that_scatter_cost_little_and_make_few_late(load: float) -> None:
    case = CASES["affine"]
    moments = arrivals("poisson", load * case.capacity, 2000, 5)
    slower = 1 + np.random.default_rng(5).exponential(0.05, len(moments))
    history = play(case, Rule("deadline", case.largest), moments, slower)
    own = np.rint(slower[:, None] * case.table).astype(np.int64)
    most = most_in_time(moments, case.slo_ns, own, np.zeros_like(case.table))
    assert 0.85 * most <= history.on_time <= most
    assert history.served - history.on_time <= 0.02 * history.served


@pytest.mark.parametrize("policy", ["efficient", "failfast", "fixed", "adaptive", "none"])
def test_no_policy_is_above_the_best(policy: Policy) -> None:
    case = CASES["affine"]
    moments = arrivals("poisson", 1.2 * case.capacity, 1500, 1)
    history = play(case, Rule(policy, case.largest, 2 * MS), moments)
    assert history.on_time <= best(case, moments)


def test_a_rare_shape_fares_as_well_as_a_common_one() -> None:
    moments, draw = drawn(4000, 4.5)  # about one and a half times what batches of one shape bear
    rare = draw.random(len(moments)) < 0.02
    asked = [
        Asked(at, shapes=WIDE if odd else NARROW) for at, odd in zip(moments, rare, strict=True)
    ]
    history = schedule(Rule("deadline", 64), asked, 15 * MS)
    good = np.array([at is not None for at in history.answered])
    assert 0.3 < good[~rare].mean() < 0.9
    assert good[rare].mean() > 0.8 * good[~rare].mean()


def test_without_deadlines_nobody_waits_much_longer_than_the_others() -> None:
    moments, draw = drawn(8000, 3.8)  # more than batches of 64 bear
    rare = draw.random(len(moments)) < 0.005
    asked = [
        Asked(at, shapes=WIDE if odd else NARROW) for at, odd in zip(moments, rare, strict=True)
    ]
    history = schedule(Rule("deadline", 64), asked, waiting=1 << 30)
    waited = np.array(history.answered) - np.array(moments)
    assert not history.shed
    assert waited[rare].max() < 1.2 * waited[~rare].max()


def test_the_urgent_are_served_and_the_others_given_up() -> None:
    moments, draw = drawn(4000, 4.5)
    urgent = draw.random(len(moments)) < 0.3
    asked = [Asked(at, priority=1 if odd else 2) for at, odd in zip(moments, urgent, strict=True)]
    history = schedule(Rule("deadline", 64, levels=(Level(),) * 2, normal=2), asked, 15 * MS)
    good = np.array([at is not None for at in history.answered])
    assert good[urgent].mean() > 0.97
    assert 0.2 < good[~urgent].mean() < 0.8


def test_who_is_less_urgent_rides_along_where_it_makes_nobody_late() -> None:
    levels = (Level(),) * 2
    busy = Asked(0)  # runs until 2.25 ms
    soon = Asked(MS, 6 * MS, priority=1)
    asked = [busy, soon, *[Asked(2 * MS, 20 * MS, priority=2)] * 30]
    history = schedule(Rule("deadline", 64, levels=levels, normal=2), asked)
    assert 1 in history.ran[1].members
    assert len(history.ran[1].members) == 11  # 2 ms + 0.25 ms · 11 after 2.25 ms: its 7 ms
    assert not history.shed


def test_those_behind_many_who_are_too_late_are_served_at_once() -> None:
    asked = [Asked(0, rows=4), *[Asked(1, MS)] * 200, Asked(2, SECOND)]
    history = schedule(Rule("deadline", 4), asked)
    assert len(history.shed) == 200
    assert history.ran[1].began == history.ran[0].ended == TABLE[4]


def test_expired_requests_keep_no_place_behind_urgent_ones_that_fill_every_batch() -> None:
    """20 that can never run, then half more urgent ones than are served, for 50 ms."""
    asked = [Asked(0, 10 * MS, priority=2)] * 20
    asked += [Asked(number * MS // 2, priority=1) for number in range(100)]
    asked.sort(key=lambda found: found.at)
    history = schedule(Rule("deadline", 4, levels=(Level(),) * 2), asked, waiting=45)
    assert not history.refused
    assert len(history.shed) >= 16  # but for a first batch of them


def test_efficient_waits_until_one_more_would_not_fit() -> None:
    history = schedule(Rule("efficient", 64), [Asked(0), Asked(MS)], 15 * MS)
    (ran,) = history.ran
    assert ran.reason == "defer"
    assert ran.began == 15 * MS - TABLE[3] - MS  # a timer may be late by 1 ms
    (ran,) = schedule(Rule("efficient", 64), [Asked(0)], 160 * MS).ran
    assert ran.began == 160 * MS - TABLE[2] - 10 * MS  # or by a sixteenth
    enough = schedule(Rule("efficient", 64), [Asked(0)] * 30, 15 * MS)
    assert enough.ran[0].began == 0


@pytest.mark.parametrize("levels", [1, 2])
def test_whoever_has_the_least_time_says_how_long_a_batch_is_held(levels: int) -> None:
    patient = Asked(0, 10 * SECOND, priority=1)
    asked = [patient, Asked(150 * MS, priority=levels)]
    rule = Rule("efficient", 64, levels=(Level(),) * levels)
    history = schedule(rule, asked, 900 * MS)
    (ran,) = history.ran
    assert ran.members == (0, 1)
    # the deadline leaves something for the answer to be written, and for a late timer
    assert 900 * MS < ran.ended <= 1050 * MS
    assert not history.shed


def test_failfast_refuses_at_once_whom_deadline_would_give_up_later() -> None:
    moments, _ = drawn(3000, 6.0)
    asked = [Asked(at) for at in moments]
    history = schedule(Rule("failfast", 64), asked, 15 * MS)
    assert not history.shed
    assert len(history.refused) > 1000
    assert history.on_time == history.served == len(asked) - len(history.refused)
    calm = schedule(Rule("failfast", 64), [Asked(at * 20) for at in moments], 15 * MS)
    assert not calm.refused


def test_a_level_has_a_place_for_so_many() -> None:
    rule = Rule("fixed", 1, levels=(Level(), Level(most=2)), normal=2)
    asked = [Asked(0), *[Asked(1)] * 5, *[Asked(1, priority=1)] * 5]
    history = schedule(rule, asked)
    assert history.refused == [3, 4, 5]
    order = [ran.members[0] for ran in history.ran]
    assert order == [0, 6, 7, 8, 9, 10, 1, 2]


def test_adaptive_learns_to_wait_and_gives_up_the_oldest() -> None:
    moments, _ = drawn(20_000, 1.0)
    history = schedule(Rule("adaptive", 64), [Asked(at) for at in moments], 30 * MS)
    reasons = [ran.reason for ran in history.ran]
    assert reasons.count("hold") > 100
    assert history.served == len(moments)
    loaded = schedule(Rule("adaptive", 64), [Asked(at // 8) for at in moments], 30 * MS)
    assert len(loaded.shed) > 1000


def test_a_body_that_is_on_its_way_is_awaited_for_a_tenth_of_a_batch() -> None:
    service = ServiceTimes(64)
    warm(service, TABLE.__getitem__, 64)
    simulation = Simulation(
        Terms(Rule("deadline", 64), 100, 1 << 40, None), service, lambda _, rows: TABLE[rows]
    )
    scheduler = simulation.scheduler
    scheduler.announce(1, SECOND)
    (ran,) = simulation.run([Asked(SECOND)]).ran
    assert ran.reason == "announced"
    assert ran.began - SECOND == pytest.approx(0.2 * MS, rel=0.15)
    late = simulation.run([Asked(2 * SECOND)]).ran  # it is still not here: nobody waits for it
    assert (late[0].reason, late[0].began) == ("idle", 2 * SECOND)


def test_what_answers_take_is_left_to_them() -> None:
    scheduler = Scheduler(Terms(Rule("deadline", 64), 100, 1 << 40, 16 * MS), ServiceTimes(64))
    for ns in (MS, MS, MS, 9 * MS, MS, MS, MS, MS):  # one standstill does not count
        scheduler.answer_times.observe(ns)
    job = Job({}, 1, NARROW, bool)
    job.arrived = SECOND
    scheduler.stamp(job, None)
    assert job.deadline == SECOND + 15 * MS
    for _ in range(64):
        scheduler.answer_times.observe(50 * MS)
    scheduler.stamp(job, None)
    assert job.deadline == SECOND + 14 * MS  # an eighth at most
