"""The lane: one loop that drives many connections from an epoll of its own.

It knows nothing of gevent or Locust: whoever owns it watches `fileno()` and calls `turn()` when
that is readable (`user.LaneUser` does, in gevent's hub). Arrivals are woken by a timerfd within the
same epoll. Requests are prebuilt bytes, answers are read as cheaply as is still strict (`answer`),
stamps go into the `ledger`, which makes the windows.

Decisions: a request that fails is never sent again. A connection that the server closed while it
was idle is dropped unseen; if it closes just as a request goes out on it, that request fails as
`stale`. Idle connections are reused last in, first out. In a closed loop a place whose request
failed together with its connection rests before it connects again, longer each time.
"""

import heapq
import select
import struct
import time
from collections.abc import Callable

import numpy as np
from gevent import monkey

from loadbench.load.connection import (
    CONNECT_TIMEOUT,
    CONNECTING,
    IDLE,
    SENDING,
    TIMEOUT,
    WAITING,
    Connection,
)
from loadbench.load.course import Course, Traffic
from loadbench.load.exemplar import sample
from loadbench.load.ledger import HELD, ROWS
from loadbench.load.ready import Load
from loadbench.load.schedule import NEVER
from loadbench.load.timer import Timer
from loadbench.model import Note, Window
from loadbench.plan import Finished
from loadbench.units import MS

BUDGET_NS = MS  # after so long the owner gets its turn, also under full load
_EVENTS = 256  # at a time
_BEGINS = 64  # at a time, between looks at what has arrived
_TICK_NS = 10 * MS  # the loop wakes at least so often, so that a stall of it is noticed
_REST_NS = 10 * MS  # before a place of a closed loop connects again, doubled with each failure
_REST_DOUBLINGS = 7
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
        self._address = load.address
        self._deal = load.deal
        self._emit = emit
        self._epoll = _epoll()
        self._timer = Timer()
        self._epoll.register(self._timer.fileno(), _READABLE | select.EPOLLET)
        self._connections: dict[int, Connection] = {}
        self._idle: list[Connection] = []
        self._resting: list[tuple[int, int]] = []  # closed loop: (until, failures in a row)
        self._closed = plan.arrivals == "closed"
        self._most = plan.concurrency if self._closed else plan.connections
        self._take = 4096  # bytes read at a time; grows with the answers
        self._blocked = False  # all connections are busy, and something is due
        self._held = 0
        self._again = False  # closed loop: the next request follows the answer
        self._ending = False
        self._wake = self._expiry = 0
        self._stood = 0  # longest standstill since the last window
        self._seen = 0  # when the loop last was known to run, or was to be woken

    def begin(self, origin: int) -> None:
        """Arrivals begin at origin − warm-up."""
        self._course = Course(self._plan, origin, self._traffic)
        self._ledger = self._course.ledger
        start = origin - self._plan.warmup_ns
        if self._closed:
            self._again = True
            self._resting = [(start, 0)] * self._plan.concurrency
        self._cpu = time.process_time_ns()
        self._seen = self._wake = self._expiry = start
        self._timer.set(start)

    def fileno(self) -> int:
        return int(self._epoll.fileno())

    def stop(self) -> None:
        """No further arrivals; what is under way is awaited."""
        if self._ending or self.over:
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
        notes = []
        if self._held:
            text = f"{self._held:,} requests waited for one of {self._most} connections"
            hint = "their wait is in their latency; raise target.connections if users would not"
            notes.append(Note("held", text, hint))
        return Finished(
            reason="stopped" if self.stopped else "done",
            unfinished=self._course.in_flight,
            cpu_ns=time.process_time_ns() - self._cpu,
            notes=tuple(notes),
        )

    def turn(self) -> None:
        """Does what there is to do, for not much longer than the budget, without ever blocking."""
        poll, clock = self._epoll.poll, time.monotonic_ns
        started = now = clock()
        while True:
            if now - self._seen > self._stood:
                self._stood = now - self._seen
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

    def _on_time(self, now: int) -> None:
        """All that depends on the clock, and when to look at it again."""
        course = self._course
        self._cut(now)
        if now >= course.end:
            self._end_arrivals()
        if now >= self._expiry:
            self._expire(now)
        if self._closed:
            self._wake_resting(now)
        else:
            self._take_up(now)
        if self._ledger.rows > ROWS // 2:
            course.fold()
        if self._ending and (now >= course.over or self._settled()):
            self._finish()
        due = NEVER if self._blocked else course.schedule.next
        rest = self._resting[0][0] if self._resting else NEVER
        end = course.over if self._ending else course.end
        self._wake = min(due, rest, end, course.boundary, self._expiry, now + _TICK_NS)

    def _settled(self) -> bool:
        """Nothing is under way and nothing waits."""
        waits = self._course.schedule.next < NEVER or self._resting
        return len(self._idle) == len(self._connections) and not waits

    def _end_arrivals(self) -> None:
        self._ending = True
        self._again = False
        self._resting = []
        self._wake = 0

    def _cut(self, now: int) -> None:
        for window in self._course.windows(now):
            self._tell(window)

    def _tell(self, window: Window) -> None:
        self._held += window.held
        self._stood = 0
        self._emit(window)

    def _finish(self) -> None:
        after = time.monotonic_ns() + 1  # the last stamps are before it
        for window in self._course.finish(after):
            self._tell(window)
        self.over = True
        for connection in self._connections.values():
            connection.close()
        self._connections = {}
        self._timer.close()
        self._epoll.close()

    def _traffic(self) -> Traffic:
        rows = [
            (found.due, found.begun, found.sent, NEVER, found.code)
            for found in self._connections.values()
            if found.state != IDLE
        ]
        table = np.array(rows, np.int64).reshape(-1, 5)
        return Traffic(table, len(self._connections), self._stood)

    def _take_up(self, now: int) -> None:
        """Begins what is due. What finds no connection waits, its due time unchanged."""
        schedule, idle = self._course.schedule, self._idle
        held = HELD if self._blocked else 0
        for _ in range(_BEGINS):
            due = schedule.next
            if due > now:
                self._blocked = False
                return
            if idle:
                schedule.advance()
                self._begin(idle.pop(), due, now, held)
            elif len(self._connections) < self._most:
                schedule.advance()
                self._open(due, now, held, 0)
            else:
                self._blocked = True
                return
            now = time.monotonic_ns()

    def _wake_resting(self, now: int) -> None:
        """Closed loop: places whose rest is over connect and send."""
        while self._resting and self._resting[0][0] <= now:
            _, tries = heapq.heappop(self._resting)
            self._open(now, now, 0, tries)
            now = time.monotonic_ns()

    def _open(self, due: int, now: int, held: int, tries: int) -> None:
        """Begins a request on a new connection."""
        data, _, kind = self._deal()
        connection = Connection(kind, tries)
        connection.due, connection.begun, connection.code = due, now, kind.index | held
        connection.rest = memoryview(data)
        failure = connection.connect(self._address)
        if failure:
            self._fail(connection, failure)
            return
        self._connections[connection.fd] = connection
        self._epoll.register(connection.fd, _READABLE | _WRITABLE)

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
        self._epoll.modify(connection.fd, _READABLE | _WRITABLE)

    def _handle(self, events: list[tuple[int, int]]) -> None:
        """Reads answers. In a closed loop the next request follows at once."""
        connections, idle, ledger = self._connections, self._idle, self._ledger
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
            if (data != connection.kind.exact or connection.partial) and not self._whole(
                connection, data
            ):
                continue
            now = clock()
            due = connection.due
            _pack(
                cells, ledger.place(), due, connection.begun, connection.sent, now, connection.code
            )
            if now - due > ledger.floor:
                ledger.exemplar(sample(connection, now, "", data))
            if connection.partial:
                connection.forget()
            if again:
                self._begin(connection, now, now, 0)
            else:
                connection.state = IDLE
                idle.append(connection)
        if self._ending or (self._blocked and idle) or ledger.rows > ROWS // 2:
            self._wake = 0

    def _progress(self, connection: Connection, event: int) -> None:
        """An event on a connection that does not just wait for its answer."""
        if connection.state == IDLE:  # the server closed it, or said what nobody asked for
            self._idle.remove(connection)
            self._drop(connection)
            return
        if connection.state == CONNECTING:
            error = connection.connected()
            if error:
                self._fail(connection, connection.failure(error))
                return
            connection.state = SENDING
        try:
            if connection.flush():
                connection.sent = time.monotonic_ns()
                connection.state = WAITING
                self._epoll.modify(connection.fd, _READABLE)
            elif event & ~_WRITABLE:  # an answer before the request is out: it is being refused
                self._whole(connection, connection.recv(self._take))
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
        if not failure and connection.reusable:
            return True
        if failure and not (failure.startswith("http_") and connection.reusable):
            self._fail(connection, failure, data)
            return False
        self._record(connection, failure, data)
        if not connection.reusable:
            self._drop(connection)
            self._rest(0)
        else:
            connection.forget()
            self._follow(connection, time.monotonic_ns())
        return False

    def _follow(self, connection: Connection, now: int) -> None:
        """The connection is free for the next request."""
        if self._again:
            self._begin(connection, now, now, 0)
        else:
            connection.state = IDLE
            self._idle.append(connection)

    def _broken(self, connection: Connection, error: OSError) -> None:
        if not isinstance(error, BlockingIOError):
            self._fail(connection, connection.failure(error.errno))

    def _fail(self, connection: Connection, failure: str, data: bytes = b"") -> None:
        """The request on it failed, and the connection is of no more use."""
        self._record(connection, failure, data)
        tries = 0 if connection.reused else connection.tries
        self._drop(connection)
        self._rest(tries + 1)

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
            ledger.exemplar(sample(connection, now, failure, data))

    def _drop(self, connection: Connection) -> None:
        self._connections.pop(connection.fd, None)
        connection.close()
        self._wake = 0

    def _rest(self, tries: int) -> None:
        """Closed loop: a place without a connection rests, the longer the more it failed."""
        if self._again:
            rest = _REST_NS << min(tries - 1, _REST_DOUBLINGS) if tries else 0
            heapq.heappush(self._resting, (time.monotonic_ns() + rest, tries))
            self._wake = 0

    def _expire(self, now: int) -> None:
        """Fails what has been under way for too long. Nothing can expire before the oldest does."""
        oldest = now
        for connection in list(self._connections.values()):
            if connection.state == IDLE:
                continue
            if connection.begun + self._plan.timeout_ns <= now:
                early = connection.state == CONNECTING
                self._fail(connection, CONNECT_TIMEOUT if early else TIMEOUT)
            else:
                oldest = min(oldest, connection.begun)
        self._expiry = max(oldest + self._plan.timeout_ns, now + MS)
