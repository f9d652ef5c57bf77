"""Who takes part in a load of several processes: its beginning, who is lost, who takes over, its
end. Values in, messages out; sockets and processes are the business of `master`.

All moments that matter to several workers are announced `AHEAD`, so that all act on them at once.
A worker of this host that exits is lost at once, any other when it has been silent for a while or
does not tell its windows; from a moment on the others then have all of the load. Whoever comes
while the load runs gets a share of the rest.
"""

from collections.abc import Callable
from typing import Literal

from msgspec.structs import replace

from loadbench import __version__
from loadbench.load import link
from loadbench.load.axis import Axis
from loadbench.load.clock import identity
from loadbench.load.link import LEASE, Down, Up
from loadbench.load.member import Member
from loadbench.load.tally import Tally
from loadbench.model import Note, Window
from loadbench.plan import (
    AHEAD,
    ANY,
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
from loadbench.units import MS, SECOND, clock, count, hostport

_LEAD = 500 * MS  # from Started to the first arrival
_EDGE = 60 * MS  # the load does not stop nearer than this to the end of a second
_LATE = 2 * SECOND  # how long after its end a second may be told
_BEGINNING = 60 * SECOND  # how long one may be silent that makes itself ready
_CHANCES = 3  # how often one may come again that was lost: each time costs a share of the load
_AGAIN = 5 * SECOND  # how long a load without workers waits for one
_STOOD = 500 * MS  # the master itself stood still: it may have mail that it has not read
_TOLD = 1 * MS  # clocks that are less apart are one
_APART = 10 * MS  # that much of a second's requests in another second makes a run doubtful
_NAMED = 3  # so many workers that say the same are named


class Roll:
    """`send` brings a message to a worker, `tell` to the runner. It is `over` with an exit code."""

    def __init__(
        self,
        plan: Plan,
        now: int,
        send: Callable[[str, Down], None],
        tell: Callable[[Message], None],
    ) -> None:
        self._wanted = plan.workers or Workers()
        self._plan = replace(plan, workers=None, share=None)
        self._send, self._tell = send, tell
        self._members: dict[str, Member] = {}
        self._children: set[int] = set()
        self._since = self._ticked = now
        self._grace = 0
        self._progress = ""
        self._axis: Axis | None = None  # before the load has begun
        self.stopping = False
        self._alone = 0  # since when nobody is left
        self._dealt = 0  # from when on the last deal holds
        self._notes: list[Note] = []
        self._said: dict[Note, list[str]] = {}  # what workers said at their end, and which
        self._cpu = 0
        self.over: int | None = None

    def started(self, pid: int) -> None:
        """A worker process of this host has been started."""
        self._children.add(pid)

    # what workers say

    def hear(self, worker: str, message: Up, now: int) -> None:
        if isinstance(message, link.Hello):
            self._hello(worker, message, now)
            return
        member = self._members.get(worker)
        if member is None or member.state == "gone" or self.over is not None:
            return
        member.heard = now
        match message:
            case link.Beat(sent, heard, heard_at):
                member.beat(heard, heard_at, sent, now)
                self._send(worker, link.Ack(sent, now))
            case link.Prepared(notes):
                member.prepared, member.notes = True, notes
            case link.Begun() if member.state == "beginning" and self._axis:
                member.state = "running"
                self._tally.join(worker, self._axis.second(member.since))
                self._say("worker-joined", f"{member.name} joined{self._at(now)}")
                self._deal(self._axis, max(now + AHEAD, member.since))
                if self.stopping:
                    self._send(worker, link.Stop(member.clock.there(now)))
            case link.Leaving(at_once) if member.state != "finished":
                self._leave(member, at_once, now)
            case link.Remarked(note):
                self._say(note.code, f"{member.name}: {note.text}", note.hint)
            case Window() if member.live:
                self._tally.add(worker, member.moved(message))
            case Finished() if member.live:
                self._finished(member, message)
            case Broken() if not member.live:
                self._unfit(member, message)

    def _hello(self, worker: str, hello: link.Hello, now: int) -> None:
        if hello.version != __version__:
            text = f"this is loadbench {hello.version}, the master is {__version__}"
            self._send(worker, link.End(3, text))
            return
        if self.over is not None or (self._axis and now >= self._axis.end):
            self._send(worker, link.End(0, "the load is over"))
            return
        former = [other for other in self._members.values() if other.token == hello.token]
        if sum(bool(other.deals) for other in former) >= _CHANCES:
            self._send(
                worker, link.End(3, f"it was lost {_CHANCES} times: the load goes on without")
            )
            return
        same = hello.clock == identity() != ""
        here = same and hello.pid in self._children
        member = Member(worker, len(self._members) + 1, hello, here, same)
        for other in former:
            if other.state not in ("gone", "finished"):
                self._lose(other, "stood still, and comes back as a new one", now, dead=True)
        member.heard = now
        self._members[worker] = member
        self._send(worker, link.Setup(self._plan, member.number))

    def _unfit(self, member: Member, broken: Broken) -> None:
        """It cannot take part: a file is missing there, say."""
        member.state = "gone"
        self._send(member.worker, link.End(broken.exit_code))
        if self._axis:
            self._say("worker-gone", f"{member.name} cannot take part: {broken.message}")
        else:
            name = "" if member.here else f"{member.name}: "
            self._break(name + broken.message, broken.hint, broken.exit_code)

    def _leave(self, member: Member, at_once: bool, now: int) -> None:
        if not member.live or at_once:
            self._lose(member, "left", now, dead=True)
        elif member.state == "running" and self._axis:
            at = self._deal(self._axis, now + AHEAD, without=member)
            member.state = "leaving"
            member.deals.append((at, None))
            self._send(member.worker, link.Deal(None, member.clock.there(at)))
            self._say("worker-left", f"{member.name} was asked to leave{self._at(now)}")

    def _finished(self, member: Member, finished: Finished) -> None:
        self._tally.finish(member.worker)
        self._cpu += finished.cpu_ns
        for note in finished.notes:
            self._said.setdefault(note, []).append(member.name)
        if member.state == "leaving":
            member.state = "gone"
            self._send(member.worker, link.End())
        else:
            member.state = "finished"

    # what the clock and the system say

    def exited(self, pid: int, how: str, now: int) -> None:
        """A worker process of this host has ended."""
        self._children.discard(pid)
        if self.over is not None:
            return
        for member in self._members.values():
            there = member.state not in ("gone", "finished")
            if member.here and member.pid == pid and there:
                self._lose(member, how, now, dead=True)
        if not self._axis and self.over is None:
            self._break(f"worker process {pid} {how} before the load began", "see load.log")

    def tick(self, now: int) -> None:
        """To be called about 20 times a second."""
        if now - self._ticked > _STOOD:
            self._grace = now + _STOOD
        self._ticked = now
        if self.over is None and now >= self._grace:
            self._missing(now)
        if self.over is None and self._axis is None:
            self._assemble(now)
        elif self.over is None and self._axis:
            self._go_on(self._axis, now)

    def _missing(self, now: int) -> None:
        """Who is silent, or slow."""
        for member in [*self._members.values()]:
            limit = link.SILENCE if member.live else _BEGINNING
            if member.state in ("gone", "finished"):
                continue
            if now - member.heard > limit:
                silence = (now - member.heard) / SECOND
                why = f"was not heard of for {silence:.1f} s (killed, frozen or cut off)"
                self._lose(member, why, now)
            elif member.live and self._axis:
                second = self._tally.awaited(member.worker)
                if now > self._axis.at(second + 1) + _LATE:
                    self._lose(member, f"was too slow: second {second} is missing", now)

    def _assemble(self, now: int) -> None:
        """Begins as soon as all are there."""
        ready = [member for member in self._members.values() if member.ready]
        ready = [member for member in ready if now - member.heard < link.SILENCE]
        here = sum(member.here for member in ready)
        wanted = self._wanted
        if here >= wanted.here and len(ready) - here >= wanted.elsewhere and ready:
            self._begin(ready, now)
            return
        lack = wanted.here + wanted.elsewhere
        text = f"waiting for workers: {len(ready)} of {lack} are there"
        if now - self._since > wanted.wait_ns:
            text = f"only {len(ready)} of {lack} workers came within {wanted.wait_ns // SECOND} s"
            self._break(text, self._call if wanted.elsewhere else "see load.log")
        elif text != self._progress and wanted.elsewhere:
            self._say("waiting", text if self._progress else f"{text}: {self._call}")
            self._progress = text

    @property
    def _call(self) -> str:
        """How workers of other hosts are started."""
        host = "THIS-HOST" if self._wanted.host in ANY else self._wanted.host
        where = hostport(host, self._wanted.port)
        return f"start `loadbench worker --master {where}` on their hosts"

    def _begin(self, ready: list[Member], now: int) -> None:
        axis = self._axis = Axis(self._plan, now + _LEAD + self._plan.warmup_ns)
        self._tally = Tally(axis)
        self._dealt = axis.begin
        for index, member in enumerate(ready):
            member.clock.fix()
            member.state = "running"
            share = Share(index, len(ready))
            member.deals = [(axis.begin, share)]
            member.acked = now
            self._tally.join(member.worker, axis.second(axis.begin))
            there = member.clock.there
            start = link.Begin(there(axis.origin), share, there(member.leased))
            self._send(member.worker, start)
        pids = {f"load {member.number}": member.pid for member in ready if member.here}
        notes = dict.fromkeys(note for member in ready for note in member.notes)
        self._tell(Started(axis.origin, tuple(notes), pids))

    def _go_on(self, axis: Axis, now: int) -> None:
        for member in self._members.values():
            if member.state in ("joining", "ready") and member.ready:
                self._join(member, axis, now)
        for window in self._tally.due(now):
            self._tell(window)
        if any(member.live for member in self._members.values()):
            return
        finished = any(member.state == "finished" for member in self._members.values())
        if finished or now >= axis.end:
            self._conclude(axis, now)
        elif not self._alone:
            self._alone = now
        elif now - self._alone > _AGAIN:
            self._tally.resume(now)
            for window in self._tally.rest(now):
                self._tell(window)
            self._break("no worker is left to offer the load", "see the notes and load.log")

    def _join(self, member: Member, axis: Axis, now: int) -> None:
        """It begins without a share, to get one when it is there."""
        member.clock.fix()
        member.state = "beginning"
        there = member.clock.there
        since = member.since = now + AHEAD
        history = tuple((there(at), steering) for at, steering in axis.history)
        start = link.Begin(there(axis.origin), None, there(now + LEASE), there(since), history)
        self._send(member.worker, start)

    def _conclude(self, axis: Axis, now: int) -> None:
        self._tally.resume(min(now, axis.end))
        for window in self._tally.rest(min(now, axis.end) - 1):
            self._tell(window)
        apart = [(m.clock.error, m.name) for m in self._members.values() if m.deals]
        error, name = max(apart, default=(0, ""))
        if error > _TOLD:
            text = f"the seconds of {name} are off by up to {error / MS:.1f} ms"
            code = "clock-drift" if error > _APART else "clocks"
            self._notes.append(Note(code, text, "latencies are not: each has one clock"))
        for note, names in self._said.items():
            who = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} workers"
            self._notes.append(replace(note, text=f"{who}: {note.text}"))
        notes = tuple(dict.fromkeys(self._notes))
        reason: Literal["done", "stopped"] = "stopped" if self.stopping else "done"
        self._tell(Finished(reason, self._tally.unfinished, self._cpu, notes))
        self._close(0)

    def _break(self, text: str, hint: str, code: int = 3) -> None:
        self._tell(Broken(text, hint, code))
        self._close(code, f"the run failed: {text}")

    def _close(self, code: int, text: str = "") -> None:
        for member in self._members.values():
            if member.state != "gone":
                self._send(member.worker, link.End(code and 3, text))
        self.over = code

    # what the runner says

    def command(self, command: Command, now: int) -> None:
        if self._axis is None:
            self._break("stopped before the load began", "")
        elif command.steering is not None:
            self._steer(self._axis, command.steering, now)
        else:
            self._stop(self._axis, command.command == "kill", now)

    def _stop(self, axis: Axis, at_once: bool, now: int) -> None:
        """Nothing falls due any more; `at_once` nothing is awaited either."""
        self.stopping = True
        at = now if at_once else max(now + AHEAD, self._dealt)  # what was told of till then holds
        edge = (at - axis.origin + _EDGE) % SECOND
        if edge < 2 * _EDGE:  # all are to see it in the same second
            at += 2 * _EDGE - edge
        axis.stop(at)
        for member in self._members.values():
            if member.live:
                self._send(member.worker, link.Stop(member.clock.there(at), at_once))

    def _steer(self, axis: Axis, steering: Steering, now: int) -> None:
        at = max(now + AHEAD, axis.origin, self._dealt)
        axis.steer(steering, at)
        for member in self._members.values():
            if member.state in ("beginning", "running", "leaving"):
                self._send(member.worker, link.Steer(steering, member.clock.there(at)))

    # who has which share

    def _deal(self, axis: Axis, at: int, without: Member | None = None) -> int:
        """All of the load to those who are there, from a moment on; which one it has become."""
        at = max(at, self._dealt)
        if at >= axis.end:
            return at
        self._dealt = at
        holders = [m for m in self._members.values() if m.state == "running" and m is not without]
        for index, member in enumerate(holders):
            share = Share(index, len(holders))
            member.deals.append((at, share))
            self._send(member.worker, link.Deal(share, member.clock.there(at)))
        if holders:
            self._tally.resume(at)
            self._alone = 0
        else:
            self._tally.abandon(at)
        return at

    def _lose(self, member: Member, why: str, now: int, dead: bool = False) -> None:
        """A worker is lost. `dead`: it certainly sends nothing any more; any other must be taken to
        do so until what it was acknowledged last has run out."""
        live, member.state = member.live, "gone"
        self._send(member.worker, link.Out())
        if self._axis is None:
            if member.here:
                self._break(f"{member.name} {why} before the load began", "see load.log")
            return
        if not live:
            self._say("worker-gone", f"{member.name} {why}{self._at(now)}; it had no share yet")
            return
        at = now + AHEAD if dead else max(now + AHEAD, member.leased)
        at = self._deal(self._axis, at)
        loss = self._tally.lose(member.worker, member.deals, min(at, self._axis.end))
        left = sum(m.state == "running" for m in self._members.values())
        text = (
            f"{member.name} {why}{self._at(now)}: {_gone(loss.lost, loss.unsent)};"
            f" {left or 'nobody'} took over its share"
        )
        self._say("lost", text, "their outcome is not known; the server may have got more")

    def _at(self, now: int) -> str:
        """In the time of the run."""
        return f" at {clock(now - self._axis.origin)}" if self._axis else ""

    def _say(self, code: str, text: str, hint: str = "") -> None:
        self._tell(Noted(Note(code, text, hint)))


def _gone(lost: int, unsent: int) -> str:
    """`3 requests in flight are lost, 12 were not sent`."""
    first = f"{count(lost)} requests in flight are" if lost != 1 else "1 request in flight is"
    return f"{first} lost, {count(unsent)} {'were' if unsent != 1 else 'was'} not sent"
