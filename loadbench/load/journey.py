"""A journey: people's own Locust file, run as it is, under our account.

Locust's local runner starts and stops the users, so tags, weights, wait times, shapes and events
work as they do under its own command line; `witness` sees the requests, `diary` keeps the account.

Decisions: second 0 begins when the `test_start` listeners are through. Who stops is asked to finish
the task it is at, for as long as the drain lasts; then it is cut off. Without a shape and without
a length the load lasts a minute. Several processes are not for journeys: each would need a share of
the users, and shapes and `test_start` listeners a place of their own.
"""

import gc
import inspect
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gevent
import locust
from gevent import GreenletExit
from gevent.event import Event
from locust.exception import StopTest
from locust.runners import STATE_CLEANUP, STATE_RUNNING, STATE_STOPPED

from loadbench.errors import SpecError
from loadbench.load import locustfile
from loadbench.load.diary import MOST_NAMES, Diary
from loadbench.load.exemplar import OTHER
from loadbench.load.locustfile import Complaints
from loadbench.load.stall import Standstill
from loadbench.load.witness import Witness
from loadbench.model import Mark, Note
from loadbench.plan import Finished, Message, Plan, Started
from loadbench.shape import length_ns
from loadbench.units import MS, SECOND, count, duration

LENGTH_NS = 60 * SECOND  # of a file without a shape, when nobody says
_ENDLESS_NS = 10_000 * 3600 * SECOND  # of a shape that has to say itself when it is over
_TICK_NS = 10 * MS
_RAMP_NS = 3 * SECOND // 2  # a start that takes longer is told
_AFTER = 0.05  # of all requests; if more are begun when the load is over, that is told
_FAREWELL_S = 2.0  # for what the file does when all is over


class Driver:
    """One run of a file. Its methods are called in gevent's hub and its greenlets."""

    def __init__(self, plan: Plan, tell: Callable[[Message], None]) -> None:
        assert plan.journey is not None
        self._plan = plan
        self._journey = plan.journey
        self._tell = tell
        self._diary: Diary | None = None
        self._over, self._parted = Event(), Event()
        self._halted = self._killed = self._stopped = self._running = False
        self._broken: SpecError | None = None
        self._notes: list[Note] = []
        self._raised, self._first = 0, ""  # exceptions of tasks
        self._complaints = Complaints(plan.journey.file)
        logging.getLogger().addHandler(self._complaints)
        events = locust.events
        self._witness = Witness(events.request)
        events.test_stop.add_listener(lambda **_: self._close())  # before the file's own
        try:
            self._environment = locustfile.set_up(plan.journey, self._complaints, self._break)
        except GreenletExit:  # a listener of `init` was broken off in a request
            if self._broken is None:
                raise
            raise self._broken from None
        self._environment.stop_timeout = plan.drain_ns / SECOND
        runner: Any = self._environment.runner
        self._runner = runner
        self._witness.steady = lambda: bool(runner.state == STATE_RUNNING)
        self._shape = self._environment.shape_class
        self._length = length_ns(plan.phases) or (0 if self._shape else LENGTH_NS)
        events.test_start.add_listener(lambda **_: self._begin())  # after the file's own
        events.test_stopping.add_listener(lambda **_: self._end())
        events.test_stop.add_listener(lambda **_: self._parted.set())
        events.spawning_complete.add_listener(lambda **_: self._complete())
        events.user_error.add_listener(self._task_raised)

    @property
    def ending(self) -> bool:
        """Whether no new tasks are begun any more."""
        return self._halted or self._witness.ending

    def run(self) -> Finished:
        """The whole run. Raises SpecError if it cannot begin, or not go on."""
        inspect.stack()  # as Locust's stop() does: the first time costs 30 ms, while users run
        gc.collect()
        gc.freeze()  # what was imported is never looked through again
        hub = gevent.get_hub()
        hub.handle_system_error = partial(self._exits, hub.handle_system_error)
        watch = hub.loop.timer(_TICK_NS / SECOND, _TICK_NS / SECOND)
        self._seen = time.monotonic_ns()
        watch.start(self._tick)
        if self._shape:
            self._runner.start_shape()
        else:
            self._runner.start(self._journey.users, locustfile.spawn_rate(self._journey))
        self._over.wait()
        watch.stop()
        watch.close()
        with gevent.Timeout(_FAREWELL_S, False):
            self._part()
        if self._broken:
            raise self._broken
        return self._finished()

    def stop(self) -> None:
        """No further tasks; those under way are awaited until the drain is over."""
        self._stopped = True
        self._halt()

    def kill(self) -> None:
        """Ends at once; what is under way stays unfinished."""
        self._stopped = self._killed = True
        self._close()

    def _halt(self) -> None:
        """Has Locust stop its users. Returns at once."""
        if not self.ending:
            self._halted = True
            gevent.spawn(self._runner.stop)

    def _begin(self) -> None:
        """The first users are about to start."""
        absent = list(locustfile.hostless(self._environment))
        if absent:
            hint = f"give --target URL, or class {absent[0]} a host"
            self._break(SpecError(f"{self._journey.file}: {', '.join(absent)} has no host", hint))
        if self._diary is not None or self._broken:
            return
        now = time.monotonic_ns()
        self._origin, self._cpu = now + self._plan.warmup_ns, time.process_time_ns()
        length = self._length or _ENDLESS_NS
        still = self._still = Standstill(now)
        diary = Diary(
            self._plan, self._origin, length, lambda window: self._tell(still.told(window))
        )
        self._diary = diary
        self._witness.diary = diary
        where = locustfile.target(self._environment)
        length_ns, notes = self._length or None, tuple(self._decisions())
        self._tell(Started(self._origin, notes, length_ns=length_ns, target=where))
        gevent.spawn_later((diary.ended_at - now) / SECOND, self._halt)

    def _decisions(self) -> Iterator[Note]:
        text = "users wait for their answers: a server that is slow gets less load"
        hint = "latency counts from the moment of sending; for a fixed rate use a scenario"
        yield Note("closed-loop", text, hint)
        if self._shape:
            until = f", after {duration(self._length)} at the latest" if self._length else ""
            text = f"{type(self._shape).__name__} says how many users run, and ends the load{until}"
            yield Note("shape", text, "load.users and load.spawn_rate do not count")

    def _tick(self) -> None:
        """Every 10 ms: notices standstills, cuts windows, looks whether it is over."""
        now = time.monotonic_ns()
        late, self._seen = now - self._seen - _TICK_NS, now
        starting = (self._runner.spawning_greenlet, self._runner.shape_greenlet)
        # a greenlet that is over is false
        failed = [found.exception for found in starting if found is not None and found.exception]
        if failed and not self.ending and not isinstance(failed[0], StopTest):
            text = locustfile.told(failed[0], self._journey.file)
            self._break(SpecError(text, "no more users could be started"))
        diary = self._diary
        if diary is None or diary.over:
            return
        users = self._runner.user_count
        diary.saw(users)
        if late > diary.stood:
            diary.stood = self._still.stood(now, late, 0)
        if now >= self._still.next:
            self._still.look(now)
        self._witness.settle()
        if self.ending and now > diary.ended_at + self._plan.drain_ns + SECOND:
            self._close()  # a user does not end
        elif self._running and not self._shape and not users and not self.ending:
            self._notes.append(Note("users-gone", "all users ended by themselves, and so the load"))
            self._halt()

    def _complete(self) -> None:
        """All users that were asked for have been started."""
        if self._running or self._diary is None:
            return
        self._running = True
        since = time.monotonic_ns() - self._origin
        users = self._runner.user_count
        self._tell(Mark(since // SECOND, f"{count(users)} user{'s' * (users != 1)} running"))
        if since > _RAMP_NS and not self._shape:
            self._notes.append(_spawning(f"the first {duration(since // SECOND * SECOND)}"))

    def _task_raised(self, exception: BaseException, **_: Any) -> None:
        self._raised += 1
        self._first = self._first or locustfile.told(exception, self._journey.file)

    def _break(self, error: SpecError) -> None:
        """The load cannot go on; the first reason is the one that is told."""
        self._broken = self._broken or error
        self._killed = True
        self._close()

    def _exits(self, usual: Callable[..., None], kind: Any, value: Any, *trace: Any) -> None:
        """A greenlet of the file raised what would end the whole process."""
        if not isinstance(value, SystemExit) and kind is not SystemExit:
            usual(kind, value, *trace)
            return
        text = f"the file ended the process (exit {getattr(value, 'code', value)})"
        if self._diary is None:
            self._break(SpecError(f"{self._journey.file}: {text}", "it does so under Locust too"))
        elif not self._killed:
            self._notes.append(Note("own-end", text))
            self._killed = True
            self._close()

    def _end(self) -> None:
        """Locust is about to stop its users: because of us, its shape or its file."""
        self._witness.ending = True
        diary = self._diary
        if diary is None or diary.over:
            return
        early = diary.complete()
        if early and not self._halted and not self._shape:
            text = f"the file ended the load after {duration(max(early - self._origin, 0))}"
            self._notes.append(Note("own-end", text))
        if not self._running and not self._shape:
            self._notes.append(_spawning("the whole load"))

    def _close(self) -> None:
        """The account is closed; what is under way stays unfinished."""
        self._witness.ending = True
        if self._diary is not None:
            self._witness.settle()
            self._diary.finish()
            self._still.close()
        self._over.set()

    def _part(self) -> None:
        """The users go, and the file's own listeners hear of the end."""
        if self._killed or not self._parted.is_set():
            self._environment.stop_timeout = 0
            self._runner.user_greenlets.kill(block=False)
        if self._runner.state not in (STATE_CLEANUP, STATE_STOPPED):
            gevent.spawn(self._runner.stop)
        self._parted.wait()
        events = self._environment.events
        events.quitting.fire(environment=self._environment, reverse=True)
        events.quit.fire(exit_code=self._environment.process_exit_code or 0)

    def _finished(self) -> Finished:
        diary = self._diary
        return Finished(
            reason="stopped" if self._stopped else "done",
            unfinished=diary.in_flight if diary else 0,
            cpu_ns=time.process_time_ns() - self._cpu if diary else 0,
            notes=(*self._notes, *self._doubts(), *(_overall(diary) if diary else ())),
        )

    def _doubts(self) -> Iterator[Note]:
        """What is to be said of the file's doings, when all is over."""
        if self._raised:
            text = f"{count(self._raised)} exceptions in tasks; the first: {self._first}"
            yield Note("task-raised", text, "load.log has them all")
        if self._complaints.count:
            text = f"{count(self._complaints.count)} exceptions in listeners of events; the first: "
            yield Note("listener-raised", text + self._complaints.first, "load.log has them all")
        if self._witness.untold:
            text = f"of {count(self._witness.untold)} answers the file never said how they were"
            yield Note("untold", text, "it raised in a with-block, or used catch_response without")
        if self._witness.untimed:
            text = f"{count(self._witness.untimed)} requests were reported without a response time"
            yield Note("untimed", text, "they count from begin to end where that was seen, else 0")
        code = self._environment.process_exit_code
        if code:
            text = f"the file wants exit code {code}"
            yield Note("exit-code", text, "a check in the scenario decides that here")


def _spawning(when: str) -> Note:
    text = f"users were still being started during {when}: no steady state"
    return Note("spawning", text, 'leave that out: --set load.warmup="10s", or a higher spawn_rate')


def _overall(diary: Diary) -> Iterator[Note]:
    """What is to be said of the requests, when all is over."""
    yield from diary.parts.notes()
    if diary.renamed:
        text = f"{count(diary.renamed)} requests are counted as {OTHER!r}: "
        text += f"more than {MOST_NAMES} names"
        yield Note("many-names", text, 'give those of one kind one name: name="/item/[id]"')
    if diary.after > diary.begun * _AFTER:
        text = f"{count(diary.after)} of {count(diary.begun)} requests were begun after the end of "
        text += "the load, by users at the task they were at"
        yield Note("after-load", text, "rates leave them out; --set load.drain=0s cuts them off")
