"""One account of many workers: merged windows, what a lost one leaves, clocks, who is lost when.
All of it as values; the processes are in test_workers.py."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from loadbench import __version__
from loadbench.histogram import Histogram
from loadbench.load import link
from loadbench.load.axis import Axis
from loadbench.load.clock import Clock, identity
from loadbench.load.course import Course, Traffic
from loadbench.load.link import LEASE, SILENCE
from loadbench.load.roll import Roll
from loadbench.load.schedule import Schedule
from loadbench.load.tally import Tally
from loadbench.merge import together
from loadbench.model import Note, Requests, Sample, Window, decode, encode
from loadbench.plan import (
    Broken,
    Command,
    Finished,
    Message,
    Noted,
    Plan,
    Share,
    Started,
    Workers,
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
        tail_failed=1, lateness=Histogram.of([5]), oldest_ns=4, overdue=1, stall_ns=8,
        connections=3, slowest=(sample,), stall_cause="gc", cpu_ns=6, users=4,
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


class Stage:
    """A roll with workers that do as they are told, in a time of its own."""

    def __init__(self, wanted: Plan) -> None:
        self.now = ORIGIN
        self.told: list[Message] = []
        self.sent: list[tuple[str, Any]] = []
        self.roll = Roll(wanted, self.now, lambda *pair: self.sent.append(pair), self.told.append)

    def hello(self, name: str, pid: int, clock: str = "") -> None:
        hello = link.Hello(__version__, name, pid, clock or identity(), f"{name}{pid}")
        self.roll.hear(name, hello, self.now)
        self.roll.hear(name, link.Prepared(), self.now)

    def run(self, until: int, beating: str = "", telling: str = "") -> None:
        """Time goes on; the named beat and tell empty windows (of one in flight)."""
        while self.now < until:
            self.now += 50 * MS
            for name in beating:
                self.roll.hear(name, link.Beat(self.now), self.now)
            second = self.second
            if second is not None and (self.now - self.origin) % SECOND < 50 * MS and second >= 0:
                for name in telling:
                    self.roll.hear(name, window(second, 1, second == 0), self.now)
            self.roll.tick(self.now)

    @property
    def origin(self) -> int:
        return next(message.origin for message in self.told if isinstance(message, Started))

    @property
    def second(self) -> int | None:
        """The one that has just ended."""
        if not any(isinstance(message, Started) for message in self.told):
            return None
        return (self.now - self.origin) // SECOND - 1

    def of(self, kind: Any, name: str = "") -> list[Any]:
        found = [message for worker, message in self.sent if name in ("", worker)]
        return [message for message in [*found, *self.told] if isinstance(message, kind)]

    @property
    def notes(self) -> list[Note]:
        return [message.note for message in self.told if isinstance(message, Noted)]


def begun(seconds: float = 30) -> Stage:
    stage = Stage(poisson(100, seconds, workers=Workers(elsewhere=2)))
    stage.hello("a", 1)
    assert not stage.of(Started)
    stage.hello("b", 2)
    stage.run(ORIGIN + 100 * MS, "ab")
    assert [m.share for m in stage.of(link.Begin)] == [Share(0, 2), Share(1, 2)]
    return stage


def test_a_silent_worker_has_stopped_before_others_take_over() -> None:
    stage = begun()
    stage.run(stage.origin + 2100 * MS, "ab", "ab")
    heard = stage.now
    stage.run(heard + SILENCE + 200 * MS, "a", "a")
    (deal,) = stage.of(link.Deal)
    assert deal.share == Share()
    assert heard + LEASE < deal.at <= heard + 3 * SECOND
    (note,) = stage.notes
    assert note.code == "lost"
    assert "worker 2 (b, pid 2) was not heard of" in note.text
    assert stage.of(link.Out, "b")


def test_a_slow_worker_is_lost_though_it_beats() -> None:
    stage = begun()
    stage.run(stage.origin + 1100 * MS, "ab", "ab")
    stage.run(stage.origin + 3900 * MS, "ab", "a")
    assert stage.notes == []
    stage.run(stage.origin + 4300 * MS, "ab", "a")
    (note,) = stage.notes
    assert "too slow: second 1 is missing" in note.text
    (deal,) = stage.of(link.Deal)
    last = stage.of(link.Ack, "b")[-1].heard
    assert deal.at >= last + LEASE, "it may still send on what it was acknowledged"


def test_a_master_that_stood_still_blames_nobody() -> None:
    stage = begun()
    stage.run(stage.origin + 1100 * MS, "ab", "ab")
    stage.now += 5 * SECOND
    stage.roll.tick(stage.now)
    assert stage.notes == []
    for second in range(1, 6):
        for name in "ab":
            stage.roll.hear(name, window(second, 1), stage.now)
    stage.run(stage.now + SECOND, "ab", "ab")
    assert stage.notes == []


def test_another_version_is_sent_away() -> None:
    stage = Stage(poisson(workers=Workers(elsewhere=1)))
    stage.roll.hear("a", link.Hello("0.0.0", "h", 1, "", "t"), stage.now)
    (end,) = stage.of(link.End)
    assert end.code == 3
    assert "0.0.0" in end.text


def test_a_worker_that_cannot_take_part() -> None:
    """Before the beginning it is told at once; later the load goes on without it."""
    broken = Broken("absent.npy: no such file", "copy it there", 2)
    stage = Stage(poisson(workers=Workers(elsewhere=1)))
    stage.roll.hear("a", link.Hello(__version__, "far", 1, "", "t"), stage.now)
    stage.roll.hear("a", broken, stage.now)
    (told,) = stage.of(Broken)
    assert told.message == "worker 1 (far, pid 1): absent.npy: no such file"
    assert stage.roll.over == 2
    later = begun()
    later.roll.hear("c", link.Hello(__version__, "far", 1, "", "t"), later.now)
    later.roll.hear("c", broken, later.now)
    assert [note.code for note in later.notes] == ["worker-gone"]
    assert later.roll.over is None


def test_one_that_comes_again_is_lost_as_what_it_was() -> None:
    stage = begun()
    stage.run(stage.origin + 1100 * MS, "ab", "ab")
    stage.roll.hear("again", link.Hello(__version__, "b", 2, identity(), "b2"), stage.now)
    (note,) = stage.notes
    assert "worker 2 (b, pid 2) stood still" in note.text
    (deal,) = stage.of(link.Deal)
    assert deal.share == Share()
    assert [m.number for m in stage.of(link.Setup)] == [1, 2, 3]


def test_one_that_is_lost_again_and_again_is_not_taken_any_more() -> None:
    stage = begun()
    for name in ("c", "d", "e", "f"):
        stage.roll.hear(name, link.Hello(__version__, "b", 2, identity(), "b2"), stage.now)
        stage.roll.hear(name, link.Prepared(), stage.now)
        stage.run(stage.now + 100 * MS, "a" + name)
        stage.roll.hear(name, link.Begun(), stage.now)
    assert [len(stage.of(link.End, name)) for name in "cdef"] == [0, 0, 1, 1]
    assert [note.code for note in stage.notes].count("lost") == 2


def test_one_that_joins_a_stopped_load_stops_too() -> None:
    stage = begun()
    stage.run(stage.origin + SECOND, "ab", "ab")
    stage.hello("c", 3)
    stage.run(stage.now + 100 * MS, "abc")
    assert stage.of(link.Begin, "c")[0].share is None
    stage.roll.command(Command("stop"), stage.now)
    stage.roll.hear("c", link.Begun(), stage.now)
    assert stage.of(link.Stop, "c")
    assert not stage.of(link.Deal)


def test_a_stop_is_not_at_the_edge_of_a_second() -> None:
    for after in range(0, 1000, 50):
        stage = begun()
        stage.run(stage.origin + SECOND, "ab", "ab")
        stage.roll.command(Command("stop"), stage.now + after * MS)
        found = {(m.at - stage.origin) % SECOND for m in stage.of(link.Stop)}
        assert len(found) == 1
        assert 60 * MS <= found.pop() <= 940 * MS


def test_a_pause_is_nobodys_loss() -> None:
    stage = begun()
    stage.run(stage.origin + 1100 * MS, "ab", "ab")
    stage.roll.command(Command("steer", Steering(paused=True)), stage.now)
    stage.run(stage.now + SECOND, "ab", "ab")
    at = stage.of(link.Steer)[0].at
    axis = Axis(poisson(100, 30), stage.origin)
    stage.run(stage.now + 3 * SECOND, "a", "a")
    unsent = sum(w.unsent for w in stage.told if isinstance(w, Window))
    assert unsent == axis.held(Share(1, 2), axis.at(2), max(at, axis.at(2)))


def test_a_pause_in_which_nobody_is_left_leaves_nothing_unsent() -> None:
    stage = begun(8)
    stage.run(stage.origin + 1100 * MS, "ab", "ab")
    stage.roll.command(Command("steer", Steering(paused=True)), stage.now)
    at = stage.of(link.Steer)[0].at
    stage.run(stage.now + SECOND, "ab", "ab")
    for name in "ab":
        stage.roll.hear(name, link.Leaving(at_once=True), stage.now)
    stage.run(stage.now + 8 * SECOND)
    windows = [message for message in stage.told if isinstance(message, Window)]
    axis = Axis(poisson(100, 8), stage.origin)
    early = axis.held(Share(), axis.at(2), max(at, axis.at(2)))
    assert sum(w.unsent for w in windows) == early
    assert stage.of(Broken)


def test_a_load_that_ends_without_anybody_is_told_to_its_end() -> None:
    stage = begun(3.5)
    stage.run(stage.origin + 1100 * MS, "ab", "ab")
    for name in "ab":
        stage.roll.hear(name, link.Leaving(at_once=True), stage.now)
    stage.run(stage.now + 4 * SECOND)
    windows = [message for message in stage.told if isinstance(message, Window)]
    axis = Axis(poisson(100, 3.5), stage.origin)
    assert [w.second for w in windows] == [0, 1, 2, 3]
    whole = axis.held(Share(), axis.at(1), axis.end)
    assert sum(w.unsent for w in windows) == sum(w.asked for w in windows[1:]) == whole
    assert len(stage.of(Finished)) == 1
    assert stage.roll.over == 0


def test_all_that_finish_make_one_end() -> None:
    stage = begun(2)
    stage.run(stage.origin + 2200 * MS, "ab", "ab")
    for name, unfinished in (("a", 0), ("b", 2)):
        stage.roll.hear(name, window(2, 2, unfinished), stage.now)
        stage.roll.hear(name, Finished("done", unfinished, 5, ()), stage.now)
    stage.roll.tick(stage.now)
    (finished,) = stage.of(Finished)
    assert (finished.reason, finished.unfinished, finished.cpu_ns) == ("done", 2, 10)
    assert stage.roll.over == 0
    assert [end.code for end in stage.of(link.End)] == [0, 0]
    assert not stage.of(Broken)
