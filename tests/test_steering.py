"""The shape changed by hand and the load dealt out to several: the same sequence for all of them,
whatever was done to it when."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.load.course import Course, Traffic
from loadbench.load.schedule import NEVER, Schedule
from loadbench.plan import Plan, Share
from loadbench.shape import Phase, Steering, arrivals, cut, length_ns, rate_at, steered, times
from loadbench.units import MS, SECOND
from tests.lanes import plan

ORIGIN = 1_000 * SECOND
PHASES = (
    Phase(3000, 3000, SECOND),
    Phase(0, 8000, 2 * SECOND),
    Phase(1000, 9000, 3 * SECOND, SECOND, sine=True),
    Phase(500, 2500, SECOND, 300 * MS),
)
END = length_ns(PHASES)


def paced(kind: str = "poisson", **changed: Any) -> Plan:
    return plan(1, arrivals=kind, phases=PHASES, seed=5, cv=2.0, **changed)


def course(wanted: Plan, since: int | None = None) -> Course:
    nothing = Traffic(np.empty((0, 5), np.int64), 0, 0)
    return Course(wanted, ORIGIN, lambda: nothing, since)


def until(found: Schedule, moment: int) -> list[int]:
    """Takes up all that falls due before a moment."""
    due = []
    while found.next < moment:
        due.append(found.next)
        found.advance()
    return due


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, END), max_size=4))
def test_a_shape_in_pieces_is_the_whole(edges: list[int]) -> None:
    edges = sorted({0, *edges, END})
    pieces = [piece for a, b in pairwise(edges) for piece in cut(PHASES, a, b)]
    assert length_ns(pieces) == END
    for at in range(0, END, END // 97):
        assert rate_at(pieces, at) == pytest.approx(rate_at(PHASES, at))
    counts = np.arange(0.5, sum(phase.requests for phase in PHASES) - 1, 1.0)
    assert np.abs(times(pieces, counts) - times(PHASES, counts)).max() < 2000  # ns


def test_a_steered_shape_is_the_planned_one_but_for_what_was_done() -> None:
    faster = steered(PHASES, PHASES, SECOND // 2, Steering(rate=100))
    assert [rate_at(faster, at) for at in (0, SECOND // 2, 3 * SECOND)] == [3000, 100, 100]
    twice = steered(PHASES, faster, 2 * SECOND, Steering(scale=2))
    assert rate_at(twice, SECOND) == 100
    assert rate_at(twice, 2 * SECOND) == pytest.approx(2 * rate_at(PHASES, 2 * SECOND))
    spiky = Steering(spike=20_000, spike_until_ns=4 * SECOND)
    spike = steered(PHASES, PHASES, 3 * SECOND, spiky)
    assert rate_at(spike, 3 * SECOND + 1) == 20_000
    assert rate_at(spike, 4 * SECOND) == pytest.approx(rate_at(PHASES, 4 * SECOND))
    assert steered(PHASES, spike, 5 * SECOND, Steering()) != PHASES  # the past stays
    for shape in (faster, twice, spike):
        assert length_ns(shape) == END


@pytest.mark.parametrize("late", [0, 5 * MS])
def test_what_comes_when_the_load_is_over_changes_nothing(late: int) -> None:
    spike = Steering(spike=5, spike_until_ns=END + SECOND)
    for steering in (Steering(rate=500), Steering(scale=2.0), spike):
        found = course(paced())
        before = found.schedule.asked(ORIGIN, ORIGIN + END - SECOND)
        found.steer(steering, ORIGIN + END + late)
        rest = found.schedule.asked(ORIGIN + END - SECOND, ORIGIN + END + SECOND)
        whole = sum(len(part) for part in arrivals(PHASES, "poisson", 5))
        assert before + rest == whole


class Change(NamedTuple):
    """Something done to the load, that long after the change before."""

    after: int
    steering: Steering


changes = st.lists(
    st.builds(
        Change,
        st.integers(1, 3 * SECOND),
        st.builds(
            Steering,
            rate=st.none() | st.sampled_from((0.0, 50.0, 20_000.0)),
            scale=st.sampled_from((0.0, 0.3, 1.0, 3.0)),
            paused=st.booleans(),
            spike=st.none() | st.just(15_000.0),
            spike_until_ns=st.integers(0, END),
        ),
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(changes, st.integers(1, 4), st.sampled_from(("poisson", "constant", "gamma")))
def test_shares_add_up_to_the_whole_however_it_is_steered(
    done: list[Change], number: int, kind: str
) -> None:
    whole = course(paced(kind))
    shares = [course(paced(kind, share=Share(index, number))) for index in range(number)]
    taken: dict[Course, list[int]] = {found: [] for found in (whole, *shares)}
    moment = ORIGIN
    for change in done:
        moment += change.after
        for found, due in taken.items():
            due += until(found.schedule, moment)
            found.steer(change.steering, moment)
    for found, due in taken.items():
        due += until(found.schedule, NEVER)
    assert sorted(due for found in shares for due in taken[found]) == taken[whole]
    sizes = [len(taken[found]) for found in shares]
    assert max(sizes) - min(sizes) <= 1 + len(done)


def test_asked_is_what_is_taken_after_changes_too() -> None:
    found = course(paced())
    first = until(found.schedule, ORIGIN + SECOND)
    found.steer(Steering(rate=4000), ORIGIN + SECOND)
    found.steer(Steering(rate=4000, paused=True), ORIGIN + 2 * SECOND)
    due = first + until(found.schedule, ORIGIN + 3 * SECOND)
    assert found.schedule.next == NEVER
    found.steer(Steering(scale=0.5), ORIGIN + 4 * SECOND)
    due += until(found.schedule, NEVER)
    edges = range(ORIGIN, ORIGIN + END + 1, SECOND)
    asked = [found.schedule.asked(edge, edge + SECOND) for edge in edges]
    assert asked == np.histogram(due, [*edges, edges[-1] + SECOND])[0].tolist()
    assert asked[1] == pytest.approx(4000, abs=300)
    assert asked[2] == asked[3] == 0
    assert asked[4] == pytest.approx(2500, abs=250)


def test_a_pause_leaves_out_what_falls_due_and_shifts_nothing() -> None:
    before = until(course(paced()).schedule, NEVER)
    found = course(paced())
    due = until(found.schedule, ORIGIN + SECOND)
    found.steer(Steering(paused=True), ORIGIN + SECOND)
    assert until(found.schedule, NEVER) == []
    found.steer(Steering(), ORIGIN + 2 * SECOND)
    due += until(found.schedule, NEVER)
    assert len(due) > 10_000
    # mapped anew through pieces of the shape: right to the rounding of the integral
    left = [at for at in before if not ORIGIN + SECOND <= at < ORIGIN + 2 * SECOND]
    assert np.abs(np.array(due) - np.array(left)).max() < 2000


def test_a_share_is_taken_over_from_a_moment_on() -> None:
    """One of three ends; the two others have all of it from then on, and nothing twice."""
    whole = until(course(paced()).schedule, NEVER)
    loads = [course(paced(share=Share(index, 3))) for index in range(3)]
    moment = ORIGIN + 2 * SECOND
    due = [until(found.schedule, moment) for found in loads]
    loads[0].deal(Share(0, 2), moment + 100 * MS)
    loads[2].deal(Share(1, 2), moment + 100 * MS)
    later = [until(found.schedule, NEVER) for found in (loads[0], loads[2])]
    missing = sorted(set(whole) - {at for part in (*due, *later) for at in part})
    assert missing
    assert all(moment <= at < moment + 100 * MS for at in missing)
    assert len(missing) == pytest.approx(
        sum(moment <= at < moment + 100 * MS for at in whole) / 3, abs=2
    )


def test_who_joins_late_has_the_sequence_of_the_others() -> None:
    since = ORIGIN + 3 * SECOND
    late = course(paced(share=Share(1, 2)), since)
    early = course(paced(share=Share(1, 2)))
    until(early.schedule, since)
    assert until(late.schedule, NEVER) == until(early.schedule, NEVER)
    assert late.schedule.asked(since, NEVER) == early.schedule.asked(since, NEVER) > 1000
    over = course(paced(), ORIGIN + END + 1)
    assert over.schedule.next == NEVER


def test_a_trace_is_dealt_and_paused_but_not_sped_up() -> None:
    due = np.arange(0, 3 * SECOND, 10 * MS)
    phases = (Phase(100, 100, 3 * SECOND),)
    wanted = plan(1, arrivals="trace", phases=phases, trace=due.astype("<i8").tobytes())
    found = course(wanted)
    found.steer(Steering(scale=3, paused=True), ORIGIN + SECOND)
    found.steer(Steering(scale=3), ORIGIN + 2 * SECOND)
    assert len(until(found.schedule, NEVER)) == 200


def test_the_concurrency_of_a_closed_loop_is_dealt_too() -> None:
    phases = (Phase(0, 0, SECOND),)
    wanted = [
        plan(1, arrivals="closed", phases=phases, concurrency=10, share=Share(index, 4))
        for index in range(4)
    ]
    found = [course(one) for one in wanted]
    assert [one.width for one in found] == [3, 3, 2, 2]
    found[0].steer(Steering(scale=2.5), ORIGIN)
    assert found[0].width == 7
    found[0].steer(Steering(scale=2.5, paused=True), ORIGIN)
    assert found[0].width == 0
    found[0].deal(None, ORIGIN)
    found[0].steer(Steering(), ORIGIN)
    assert found[0].width == 0


def test_the_arrivals_of_one_process_are_those_of_the_shape() -> None:
    expected = np.concatenate(list(arrivals(PHASES, "gamma", 5, 2.0))) + ORIGIN
    assert until(course(paced("gamma")).schedule, NEVER) == expected.tolist()
