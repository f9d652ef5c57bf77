"""The lane: one loop that drives many connections from an epoll of its own.

It knows nothing of gevent or Locust: whoever owns it watches `fileno()` and calls `turn()` when
that is readable (`user.LaneUser` does, in gevent's hub). Arrivals are woken by a timerfd within the
same epoll. Requests are prebuilt bytes, answers are read as cheaply as is still strict (`answer`),
stamps go into the `ledger`, which makes the windows.

Decisions: a request that fails is never sent again, not even when the server closed its kept-alive
connection just as the request went out; that fails as `closed` or `reset` (`failure` names all).
A connection that is closed while it is idle costs nobody anything. Idle ones are reused last in,
first out. In an open loop each arrival is an attempt of its own, whatever became of those before
it. In a closed loop a place whose request failed together with its connection rests before it
connects again, longer each time, until one gets through (`rest`).
"""

import select
import struct
import time
from collections.abc import Callable

from gevent import monkey

from loadbench.load.connection import CONNECTING, IDLE, SENDING, WAITING, Connection
from loadbench.load.course import Course, History, Traffic
from loadbench.load.examples import example
from loadbench.load.exemplar import sample
from loadbench.load.failure import WHOLE
from loadbench.load.ledger import HELD, ROWS
from loadbench.load.patience import Patience
from loadbench.load.pool import Pool
from loadbench.load.ready import Load
from loadbench.load.rest import Rest
from loadbench.load.schedule import NEVER
from loadbench.load.stall import Standstill
from loadbench.load.timer import Timer
from loadbench.model import Window
from loadbench.plan import Finished, Share
from loadbench.shape import Steering
from loadbench.units import MS

BUDGET_NS = 2 * MS  # after so long the owner gets its turn, also under full load
_EVENTS = 256  # at a time
_BEGINS = 64  # at a time, between looks at what has arrived
_TICK_NS = 10 * MS  # the loop wakes at least so often, so that a stall of it is noticed
_TAKE_MOST = 1 << 18
_READABLE, _WRITABLE = select.EPOLLIN, select.EPOLLOUT
_epoll = monkey.get_original("select", "epoll")  # gevent takes it out of the module
_pack = struct.Struct("5q").pack_into


class Lane:
    """A run of a plan: from `begin` to `over`. Its methods are called from one thread."""

    def __init__(self, load: Load, emit: Callable[[Window], None]) -> None:
        plan = load.plan
        self.over = False
        self.stopped = False
        self._plan = plan
        self._deal = load.deal
        self._new = load.connection
        self._emit = emit
        self._epoll = _epoll()
        self._timer = Timer()
        self._epoll.register(self._timer.fileno(), _READABLE | select.EPOLLET)
        self._closed = plan.arrivals == "closed"
        most = plan.concurrency if self._closed else (plan.share or Share()).part(plan.connections)
        self._pool = Pool(self._epoll, load.address, max(1, most))
        self._patience = Patience(self._pool.open, plan.connect_timeout_ns, plan.timeout_ns)
        self._once = plan.arrivals == "once"
        self._rest = Rest()  # closed loop: places without a connection
        self._take = 4096  # bytes read at a time; grows with the answers
        self._blocked = False  # all connections are busy, and something is due
        self._again = False  # closed loop: the next request follows the answer
        self.ending = False  # nothing falls due any more
        self._wake = self._expiry = 0
        self._stood = 0  # longest standstill since the last window
        self._seen = 0  # when the loop last was known to run, or was to be woken
        self._turned = 0  # when its last turn ended

    def begin(self, origin: int, since: int | None = None, history: History = ()) -> None:
        """Arrivals begin at origin − warm-up; of a process that joins late `since` that moment, and
        it is told how the load was steered before."""
        self._origin = origin
        self._course = Course(self._plan, origin, self._traffic, since, history)
        self._ledger = self._course.ledger
        start = origin - self._plan.warmup_ns if since is None else since
        if self._closed:
            self._level(start)
        self._cpu = time.process_time_ns()
        self._still = Standstill(time.monotonic_ns())
        self._seen = self._wake = self._expiry = start
        self._timer.set(start)

    def fileno(self) -> int:
        return int(self._epoll.fileno())

    def deal(self, share: Share | None, at: int) -> None:
        """From a moment on this share of the load is ours; None: nothing, but it is told on."""
        self._course.deal(share, max(at, time.monotonic_ns() + 1))
        if share:
            self._pool.most = max(1, share.part(self._plan.connections))
        self._change()

    def steer(self, steering: Steering, at: int = 0) -> None:
        """From a moment on, now at the earliest, the shape of the load is another."""
        self._course.steer(steering, max(at, time.monotonic_ns() + 1))
        self._change()

    def _change(self) -> None:
        """What is to be begun next is another than it was."""
        self._again = False  # until there are as many places as are wanted now
        self._wake = 0
        self._timer.set(1)

    def stop(self) -> None:
        """No further arrivals; what is under way is awaited."""
        if self.ending or self.over:
            return
        self.stopped = True
        now = time.monotonic_ns()
        self._cut(now)
        self._course.stop(now)
        self._end_arrivals()
        self._timer.set(1)

    def kill(self) -> None:
        """Ends at the next turn; what is under way stays unfinished."""
        if not self.over:
            self.stopped = True
            self._course.over = 0
            self._end_arrivals()
            self._timer.set(1)

    def close(self) -> None:
        """Ends now, without another turn."""
        if not self.over:
            self.stopped = True
            self._finish()

    def finished(self) -> Finished:
        """The last message of a lane that is over."""
        return Finished(
            reason="stopped" if self.stopped else "done",
            unfinished=self._course.in_flight,
            cpu_ns=time.process_time_ns() - self._cpu,
            notes=self._pool.notes(self._origin),
        )

    def turn(self) -> None:
        """Does what there is to do, for not much longer than the budget, without ever blocking."""
        poll, clock = self._epoll.poll, time.monotonic_ns
        started = now = clock()
        while True:
            if now - self._seen > self._stood:
                turned = self._turned if now == started else now
                self._stood = self._still.stood(now, now - self._seen, turned)
            self._seen = now
            if now >= self._wake:
                self._on_time(now)
                if self.over:
                    return
            events = poll(0, _EVENTS)
            if events:
                self._handle(events)
            elif self._wake > now:
                self._seen = max(now, self._wake)
                break
            now = clock()
            if now - started > BUDGET_NS:
                self._wake = 0
                break
        self._timer.set(self._wake)
        self._turned = clock()

    def _on_time(self, now: int) -> None:
        """All that depends on the clock, and when to look at it again."""
        course = self._course
        if now >= self._still.next:
            self._still.look(now)
        self._cut(now)
        if self._once and self._settled():
            course.complete(now)
        if now >= course.end:
            self._end_arrivals()
        if now >= self._expiry:
            self._expire(now)
        if self._closed:
            self._level(now)
            self._wake_resting(now)
        else:
            self._take_up(now)
        if self._ledger.rows > ROWS // 2:
            course.fold()
        if self.ending and (now >= course.over or self._settled()):
            self._finish()
        due = NEVER if self._blocked else course.schedule.next
        end = course.over if self.ending else course.end
        self._wake = min(due, self._rest.next, end, course.boundary, self._expiry, now + _TICK_NS)

    def _settled(self) -> bool:
        """Nothing is under way and nothing waits."""
        return self._pool.settled and self._course.schedule.next == NEVER

    def _end_arrivals(self) -> None:
        self.ending = True
        self._again = False
        self._rest.clear()
        self._wake = 0

    def _cut(self, now: int) -> None:
        for window in self._course.windows(now):
            self._tell(window)

    def _tell(self, window: Window) -> None:
        self._stood = 0
        self._emit(self._still.told(window))

    def _finish(self) -> None:
        after = time.monotonic_ns() + 1  # the last stamps are before it
        for window in self._course.finish(after):
            self._tell(window)
        self.over = True
        self._still.close()
        self._pool.close()
        self._timer.close()
        self._epoll.close()

    def _traffic(self) -> Traffic:
        return Traffic(self._pool.under_way(), len(self._pool.open), self._stood)

    def _take_up(self, now: int) -> None:
        """Begins what is due. What finds no connection waits, its due time unchanged."""
        schedule, idle = self._course.schedule, self._pool.idle
        held = HELD if self._blocked or self._once else 0  # at once: all but the first have to wait
        for _ in range(_BEGINS):
            due = schedule.next
            if due > now:
                self._blocked = False
                return
            if idle:
                schedule.advance()
                self._begin(idle.pop(), due, now, held)
            elif not self._pool.full:
                schedule.advance()
                self._open(due, now, held, 0)
            else:
                self._blocked = True
                return
            now = time.monotonic_ns()

    def _level(self, now: int) -> None:
        """Closed loop: sees to it that there are as many places as are wanted."""
        if self._again or self.ending:
            return
        idle, rest = self._pool.idle, self._rest
        missing = self._course.width - (len(self._pool.open) - len(idle) + len(rest))
        rest.drop(-missing)
        while missing > 0 and idle:
            self._begin(idle.pop(), now, now, 0)
            missing -= 1
        for _ in range(missing):
            rest.add(now, 0)
        self._again = len(self._pool.open) - len(idle) + len(rest) == self._course.width

    def _wake_resting(self, now: int) -> None:
        """Closed loop: places that have rested connect and send."""
        for _ in range(_BEGINS):
            if self._rest.next > now:
                return
            self._open(now, now, 0, self._rest.take(now))
            now = time.monotonic_ns()

    def _open(self, due: int, now: int, held: int, tries: int) -> None:
        """Begins a request on a new connection."""
        data, _, kind = self._deal()
        connection = self._new(kind, tries)
        connection.due, connection.begun, connection.code = due, now, kind.index | held
        connection.rest = memoryview(data)
        failure = self._pool.connect(connection)
        if failure:
            self._fail(connection, failure)

    def _begin(self, connection: Connection, due: int, now: int, held: int) -> None:
        """Begins a request on an idle connection."""
        data, size, kind = self._deal()
        connection.due, connection.begun = due, now
        connection.kind, connection.code = kind, kind.index | held
        connection.state = WAITING
        connection.reused = True
        try:
            sent = connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            connection.sent = NEVER
            self._fail(connection, connection.failure(error.errno))
            return
        if sent == size:
            connection.sent = time.monotonic_ns()
            return
        connection.sent = NEVER
        connection.rest = memoryview(data)[sent:]
        connection.state = SENDING
        self._pool.await_room(connection)

    def _handle(self, events: list[tuple[int, int]]) -> None:
        """Reads answers. In a closed loop the next request follows at once."""
        connections, idle, ledger = self._pool.open, self._pool.idle, self._ledger
        cells, take, again, clock = ledger.cells, self._take, self._again, time.monotonic_ns
        for fd, event in events:
            connection = connections.get(fd)
            if connection is None:  # the timer, or a connection closed a moment ago
                continue
            if connection.state != WAITING:
                self._progress(connection, event)
                continue
            try:
                data = connection.recv(take)
            except OSError as error:
                self._broken(connection, error)
                continue
            now = clock()
            if (data != connection.kind.exact or connection.partial) and not self._whole(
                connection, data
            ):
                continue
            due = connection.due
            _pack(
                cells, ledger.place(), due, connection.begun, connection.sent, now, connection.code
            )
            if now - due > ledger.floor:
                ledger.exemplar(sample(connection, now, "", connection.head(data)))
            if connection.partial:
                connection.forget()
                now = clock()  # reading it may have taken a while: none of the next one's
            if again:
                self._begin(connection, now, now, 0)
            else:
                connection.state = IDLE
                idle.append(connection)
        waits = self._closed and not again
        if self.ending or waits or (self._blocked and idle) or ledger.rows > ROWS // 2:
            self._wake = 0

    def _progress(self, connection: Connection, event: int) -> None:
        """An event on a connection that does not just wait for its answer."""
        if connection.state == IDLE:  # the server closed it, or said what nobody asked for
            self._pool.leave(connection, time.monotonic_ns())
            self._wake = 0
            return
        try:
            if connection.state == CONNECTING:
                if not self._pool.establish(connection, self._seen):
                    return
            elif event & ~_WRITABLE:  # an answer before the request is out: it is being refused
                self._whole(connection, connection.recv(self._take))
            if connection.state == SENDING and connection.flush():
                connection.sent = time.monotonic_ns()
                connection.state = WAITING
                self._pool.await_answer(connection)
        except OSError as error:
            self._broken(connection, error)

    def _whole(self, connection: Connection, data: bytes) -> bool:
        """Takes what came. True if it made a good answer whole and the connection is to be used
        on; all else is dealt with here."""
        if len(data) == self._take and self._take < _TAKE_MOST:
            self._take *= 2
        failure = connection.take(data)
        if failure is None:
            return False
        kept = connection.reusable and (not failure or failure.startswith(WHOLE))
        if connection.tries and (kept or not failure):
            self._through(connection)
        if kept and not failure:
            return True
        if failure and not kept:
            self._fail(connection, failure, data)
            return False
        self._record(connection, failure, data)
        if not kept:
            self._drop(connection, 0)
        else:
            connection.forget()
            self._follow(connection, time.monotonic_ns())
        return False

    def _through(self, connection: Connection) -> None:
        """A place that had failed has got an answer: the target is back."""
        connection.tries = 0
        self._rest.wake(time.monotonic_ns())
        self._wake = 0

    def _follow(self, connection: Connection, now: int) -> None:
        """The connection is free for the next request."""
        if self._again:
            self._begin(connection, now, now, 0)
        else:
            connection.state = IDLE
            self._pool.idle.append(connection)

    def _broken(self, connection: Connection, error: OSError) -> None:
        if not isinstance(error, BlockingIOError):
            self._fail(connection, connection.failure(error.errno))

    def _fail(self, connection: Connection, failure: str, data: bytes = b"") -> None:
        """The request on it failed, and the connection is of no more use."""
        self._record(connection, failure, data)
        self._drop(connection, 1 if connection.reused else connection.tries + 1)

    def _record(self, connection: Connection, failure: str, data: bytes) -> None:
        now = time.monotonic_ns()
        ledger = self._ledger
        if ledger.rows >= ROWS - _EVENTS:
            self._course.fold()
        connection.sent = min(connection.sent, now)
        stamps = (connection.due, connection.begun, connection.sent, now)
        found = connection.code | ledger.failure(failure)
        _pack(ledger.cells, ledger.place(), *stamps, found)
        if now - connection.due > ledger.floor:
            ledger.exemplar(sample(connection, now, failure, connection.head(data)))
        if failure and ledger.examples.wanted(failure, connection.due):
            first = example(connection, now, self._pool.peer, data)
            ledger.examples.add(failure, connection.due, now, first)

    def _drop(self, connection: Connection, failures: int) -> None:
        """In a closed loop its place rests; in an open one whoever waits may have it."""
        self._pool.drop(connection)
        if self._again:
            self._rest.add(time.monotonic_ns(), failures)
        self._wake = 0

    def _expire(self, now: int) -> None:
        """Fails what has been under way for too long."""
        for connection in self._patience.expired(now):
            self._fail(connection, connection.expired(self._patience.limit(connection)))
        self._expiry = self._patience.next
