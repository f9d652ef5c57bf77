"""One account of many workers: merged windows, what a lost one leaves, clocks, addresses. All of it
as values; who is lost when is in test_workers_roll.py, the processes are in test_workers.py."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from loadbench.errors import SpecError
from loadbench.histogram import Histogram
from loadbench.load.axis import Axis
from loadbench.load.clock import Clock, identity
from loadbench.load.course import Course, Traffic
from loadbench.load.schedule import Schedule
from loadbench.load.tally import Tally
from loadbench.merge import together
from loadbench.model import Requests, Sample, Window, decode, encode
from loadbench.plan import (
    Plan,
    Share,
    place,
)
from loadbench.shape import Steering
from loadbench.units import MS, SECOND
from tests.lanes import plan

ORIGIN = 1_000 * SECOND
samples = st.lists(st.integers(0, 3_000 * SECOND), max_size=200)


@settings(max_examples=50, deadline=None)
@given(st.lists(samples, min_size=1, max_size=4))
def test_percentiles_of_all_are_those_of_one_histogram(parts: list[list[int]]) -> None:
    """Over the link and back: exactly the histogram of all samples, so every percentile is."""
    told = [
        Window(
            second=3, stage="load", lateness=Histogram.of(part),
            requests={"a": Requests(len(part), {}, Histogram.of(part), Histogram.of(part))},
        )
        for part in parts
    ]  # fmt: skip
    merged = together([decode(Window, encode(window)) for window in told])
    whole = Histogram.of([value for part in parts for value in part])
    assert merged.latency == merged.lateness == merged.requests["a"].service == whole
    for share in (0.5, 0.9, 0.99, 0.999, 1.0):
        assert merged.latency.quantile(share) == whole.quantile(share)
    assert merged.done == sum(map(len, parts))


def test_every_field_of_a_window_is_thought_of() -> None:
    """A field that `together` forgot would be its default: here all differ from that."""
    sample = Sample("a", 0, 1, 2, 30)
    full = Window(
        second=3, stage="load", phase=1, rate=9.0, asked=7, unsent=1, sent=5, lost=1, in_flight=2,
        waiting=1, held=1, requests={"a": Requests(2, {"reset": 1})}, tail_sent=1, tail_done=1,
        tail_failed=1, tail_service_ns=6, tail_latency_ns=7, lateness=Histogram.of([5]),
        oldest_ns=4, overdue=1, stall_ns=8, connections=3, slowest=(sample,),
        stall_cause="gc", cpu_ns=6, users=4,
    )  # fmt: skip
    both = together([full, replace(full, stall_ns=9, stall_cause="cpu", cpu_ns=None)])
    for field in fields(Window):
        if field.name not in ("server", "machine"):
            assert getattr(both, field.name) != field.default, field.name
    assert (both.asked, both.in_flight, both.connections, both.overdue) == (14, 4, 6, 2)
    assert (both.rate, both.phase, both.stall_ns, both.stall_cause) == (9.0, 1, 9, "cpu")
    assert both.failed == {"reset": 2}
    assert both.slowest == (sample, sample)
    assert together([full, full], slowest=1).slowest == (sample,)
    with pytest.raises(ValueError, match="no windows"):
        together([])


def poisson(rate: float = 5000, seconds: float = 6, **changed: Any) -> Plan:
    return plan(1, rate, seconds, arrivals="poisson", seed=3, **changed)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 5), st.floats(0, 6), st.floats(0, 6),
    st.sampled_from(["constant", "poisson", "gamma", "trace"]),
)  # fmt: skip
def test_what_is_counted_of_a_share_is_what_falls_due_there(
    of: int, begin: float, length: float, kind: Any
) -> None:
    trace = np.sort(np.random.default_rng(1).integers(0, 6 * SECOND, 9000)).astype("<i8")
    wanted = replace(poisson(warmup_ns=SECOND, cv=2.0), arrivals=kind, trace=trace.tobytes())
    axis = Axis(wanted, ORIGIN)
    first = ORIGIN + round((begin - 1) * SECOND)
    last = first + round(length * SECOND)
    for index in range(of):
        own = Schedule(replace(wanted, share=Share(index, of)), ORIGIN)
        assert axis.held(Share(index, of), first, last) == own.asked(first, last)


def test_one_that_joins_late_knows_the_sequence_as_it_was_steered() -> None:
    history = [(ORIGIN + SECOND, Steering(rate=9000)), (ORIGIN + 3 * SECOND, Steering(scale=0.5))]
    axis = Axis(poisson(), ORIGIN)
    for at, steering in history:
        axis.steer(steering, at)
    nothing = Traffic(np.empty((0, 5), np.int64), 0, 0)
    late = replace(poisson(), share=None)
    for since in (2.5, 3.5, 5.0):
        moment = ORIGIN + round(since * SECOND)
        course = Course(late, ORIGIN, lambda: nothing, moment, history)
        course.deal(Share(1, 3), moment)
        end = ORIGIN + 6 * SECOND
        assert course.schedule.asked(moment, end) == axis.held(Share(1, 3), moment, end) > 300


def window(second: int, asked: int, in_flight: int = 0, waiting: int = 0, **more: Any) -> Window:
    done = asked - in_flight - waiting
    return Window(
        second=second, stage="load", asked=asked, sent=asked - waiting, in_flight=in_flight,
        waiting=waiting, requests={"infer": Requests(done)}, **more,
    )  # fmt: skip


def check(windows: list[Window]) -> None:
    """The identity at the end of each, seconds without gaps."""
    assert [w.second for w in windows] == list(range(windows[0].second, windows[-1].second + 1))
    asked = sent = unsent = done = lost = 0
    for found in windows:
        asked, sent, unsent = asked + found.asked, sent + found.sent, unsent + found.unsent
        done, lost = done + found.done, lost + found.lost
        assert asked == sent + unsent + found.waiting, found
        assert sent == done + lost + found.in_flight, found


def test_what_a_lost_worker_leaves() -> None:
    axis = Axis(poisson(), ORIGIN)
    tally = Tally(axis)
    for name in ("a", "b"):
        tally.join(name, 0)
    held = [axis.held(Share(1, 2), axis.at(n), axis.at(n + 1)) for n in range(4)]
    tally.add("a", window(0, 100))
    assert list(tally.due(axis.at(9))) == []
    tally.add("b", window(0, held[0], in_flight=5, waiting=7))
    (first,) = tally.due(axis.at(1))
    loss = tally.lose("b", [(ORIGIN, Share(1, 2))], axis.at(2) + SECOND // 2)
    part = axis.held(Share(1, 2), axis.at(2), axis.at(2) + SECOND // 2)
    assert loss == (5, 7 + held[1] + part)
    for second in (1, 2, 3):
        tally.add("a", window(second, 100))
    rest = list(tally.due(axis.at(4)))
    assert [w.asked for w in rest] == [100 + held[1], 100 + part, 100]
    assert [w.unsent for w in rest] == [7 + held[1], part, 0]
    assert [w.lost for w in rest] == [5, 0, 0]
    check([first, *rest])


def test_what_was_under_way_when_warm_up_ended_is_in_no_account() -> None:
    axis = Axis(poisson(warmup_ns=SECOND), ORIGIN)
    tally = Tally(axis)
    tally.join("a", -1)
    tally.add("a", replace(window(-1, 50, in_flight=5, waiting=2), stage="warmup"))
    assert tally.lose("a", [(axis.begin, Share())], ORIGIN) == (0, 0)


def test_a_load_that_nobody_has_is_unsent() -> None:
    axis = Axis(poisson(), ORIGIN)
    tally = Tally(axis)
    tally.join("a", 0)
    tally.add("a", window(0, 10, in_flight=1))
    until = axis.at(1) + 300 * MS
    tally.abandon(until)
    tally.lose("a", [(ORIGIN, Share())], until)
    early = list(tally.due(axis.at(4)))
    tally.resume(axis.at(4) + SECOND // 2)
    windows = [*early, *tally.rest(axis.at(4) + SECOND // 2)]
    truth = Axis(poisson(), ORIGIN)
    whole = [truth.held(Share(), axis.at(n), axis.at(n + 1)) for n in range(4)]
    half = truth.held(Share(), axis.at(4), axis.at(4) + SECOND // 2)
    assert [w.unsent for w in windows] == [0, *whole[1:4], half]
    check(windows)


def test_clocks() -> None:
    """The quickest exchange tells most; drift is told and not followed."""
    clock = Clock(same=False)
    ahead = 70 * SECOND
    for there, back in ((9 * MS, MS), (2 * MS, MS), (MS, 7 * MS)):
        now = ORIGIN + there + 10 * MS + back
        clock.take(ORIGIN, ORIGIN + there + ahead, ORIGIN + there + 10 * MS + ahead, now)
    assert abs(clock.offset - ahead) <= clock.bound <= 2 * MS
    assert clock.here(clock.there(5)) == 5
    clock.fix()
    offset = clock.offset
    for second in range(1, 100):  # 100 µs a second
        sent = ORIGIN + second * SECOND
        drift = ahead + second * MS // 10
        clock.take(sent, sent + MS + drift, sent + MS + drift, sent + 2 * MS)
    assert clock.offset == offset
    assert 4 * MS < clock.error < 11 * MS
    same = Clock(same=True)
    same.take(0, 5, 5, 9)
    assert (same.offset, same.bound, same.error) == (0, 0, 0)
    assert identity()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.0.0.7", ("10.0.0.7", None)),
        ("a-host:5557", ("a-host", 5557)),
        ("*:1", ("*", 1)),
        ("[::1]", ("::1", None)),
        ("[fe80::1%eth0]:5557", ("fe80::1%eth0", 5557)),
        *((text, None) for text in ("", ":5", "a:", "a:0", "a:65536", "a:b:5", "a b", "a:5 ")),
        *((text, None) for text in ("::1", "[::1", "::1]", "[]:5", "[a]:5", "[::1]5", "[::1]:")),
    ],
)
def test_where_a_master_is(text: str, found: tuple[str, int | None] | None) -> None:
    if found:
        assert place(text) == found
    else:
        with pytest.raises(SpecError, match="is no HOST:PORT"):
            place(text)
