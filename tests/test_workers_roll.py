"""Who takes part in a load of several processes, who is lost when, and who takes over: messages in
and out, in a time of its own."""

from typing import Any

from loadbench import __version__
from loadbench.load import link
from loadbench.load.axis import Axis
from loadbench.load.clock import identity
from loadbench.load.link import LEASE, SILENCE
from loadbench.load.roll import Roll
from loadbench.model import Note, Window
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
from tests.test_workers_account import ORIGIN, poisson, window


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


def test_one_request_that_is_lost_is_told_as_one() -> None:
    stage = begun()
    stage.run(stage.origin + 1100 * MS, "ab", "ab")
    stage.roll.hear("b", window(1, 1, 1), stage.now)
    stage.run(stage.now + SILENCE + 200 * MS, "a", "a")
    (note,) = stage.notes
    assert ": 1 request in flight is lost, " in note.text


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


def test_the_last_that_leaves_and_is_killed_meanwhile_is_counted_once() -> None:
    stage = begun(3)
    stage.run(stage.origin + 1100 * MS, "ab", "ab")
    stage.roll.hear("a", link.Leaving(at_once=True), stage.now)
    stage.roll.hear("b", link.Leaving(), stage.now)
    (deal,) = [m for m in stage.of(link.Deal, "b") if m.share is None]
    stage.run(stage.now + 500 * MS, "b")
    stage.roll.hear("b", link.Leaving(at_once=True), stage.now)
    stage.run(stage.now + 4 * SECOND)
    axis = Axis(poisson(100, 3), stage.origin)
    begin, whole = axis.at(1), axis.held(Share(), axis.at(1), axis.end)
    windows = [message for message in stage.told if isinstance(message, Window)]
    assert begin < deal.at < axis.end
    assert sum(w.asked for w in windows if w.second > 0) == whole


def test_what_was_told_of_a_loss_holds_when_the_load_is_stopped() -> None:
    """What falls due until others take over is counted when a worker is lost: no stop is before."""
    stage = begun()
    stage.run(stage.origin + 1100 * MS, "ab", "ab")
    while not stage.of(link.Deal):
        stage.run(stage.now + 50 * MS, "ab", "a")  # a slow one, which may send for a while
    (deal,) = stage.of(link.Deal)
    assert deal.at > stage.now + SECOND
    stage.roll.command(Command("stop"), stage.now)
    (stop,) = stage.of(link.Stop)
    assert deal.at <= stop.at < deal.at + SECOND


def test_a_beginning_is_a_lease() -> None:
    """Whoever stands still right then must not send on for longer than the master thinks."""
    stage = begun()
    (begin, _) = stage.of(link.Begin)
    assert ORIGIN < begin.leased - LEASE <= stage.now


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
