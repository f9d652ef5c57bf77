"""Requests on connections: begun, sent, answered or failed, each with its row in the ledger.

The lane says when what is begun; here is what becomes of it. Decisions: a request that fails is
never sent again, not even when the server closed its kept-alive connection just as the request went
out; that fails as `closed` or `reset` (`failure` names all). A connection that is closed while it
is idle costs nobody anything. In a closed loop the next request follows the answer on the same
connection; a place whose request failed together with its connection rests before it connects
again, longer each time, until one gets through (`rest`).
"""

import select
import struct
import time

from loadbench.load.connection import CONNECTING, IDLE, SENDING, WAITING, Connection
from loadbench.load.course import Course
from loadbench.load.examples import example
from loadbench.load.exemplar import Parts, sample
from loadbench.load.failure import (
    CLOSED_EARLY,
    RESET,
    WHOLE,
    forgotten,
    may_be_forgotten,
)
from loadbench.load.ledger import ROWS
from loadbench.load.patience import Patience
from loadbench.load.pool import Pool
from loadbench.load.ready import Load
from loadbench.load.rest import Rest
from loadbench.load.schedule import NEVER
from loadbench.load.sequences import Run
from loadbench.plan import told_to
from loadbench.targets.region import NO_REGION

EVENTS = 256  # at most so many answers at a time
# An answer of so many bytes is one of Python's own small objects; others are the C library's, which
# costs a tenth of a microsecond more
_TAKE_LEAST = 479
_TAKE_MOST = 1 << 18
_WRITABLE = select.EPOLLOUT
_pack = struct.Struct("5q").pack_into


class Exchange:
    """What is under way. `woken` says that there is something to do which depends on the clock."""

    def __init__(self, load: Load, pool: Pool, course: Course) -> None:
        plan = load.plan
        self.again = False  # closed loop: the next request follows the answer
        self.woken = False
        self.rest = Rest()  # closed loop: places without a connection
        self._course = course
        self._ledger = course.ledger
        self._pool = pool
        self._deals = [replica.begin for replica in load.replicas]
        self._new = [replica.connection for replica in load.replicas]
        self._patience = Patience(pool.open, plan.connect_timeout_ns, plan.timeout_ns)
        self._headers = told_to((plan.endpoint, *plan.replicas), plan.requests)
        self.parts = Parts(self._headers)
        self._memory = load.memory
        self._turn = 0
        self._take = _TAKE_LEAST  # bytes read at a time; grows with the answers

    @property
    def expiry(self) -> int:
        """When `expire` has something to do."""
        return self._patience.next

    def open(self, due: int, now: int, held: int, tries: int, replica: int) -> None:
        """Begins a request on a new connection to a replica."""
        deal = self._deals[replica]()
        data, _, kind = deal()
        connection = self._new[replica](kind, tries)
        connection.replica, connection.deal = replica, deal
        connection.due, connection.begun, connection.code = due, now, kind.index | held
        connection.rest = memoryview(data)
        if replica in self._pool.unkept:
            connection.retire()
        failure = self._pool.connect(connection)
        if failure:
            self._fail(connection, failure)

    def begin(self, connection: Connection, due: int, now: int, held: int) -> None:
        """Begins a request on an idle connection."""
        data, size, kind = connection.deal()
        connection.due, connection.begun = due, now
        connection.kind, connection.code = kind, kind.index | held
        connection.state = WAITING
        connection.uses += 1
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

    def handle(self, events: list[tuple[int, int]], turn: int) -> None:
        """Reads answers, in the turn of the loop that began then. In a closed loop the next request
        follows at once."""
        self._turn = turn
        idle, ledger = self._pool.idle, self._ledger
        cells, take, again, clock = ledger.cells, self._take, self.again, time.monotonic_ns
        opened, begin = self._pool.open.get, self.begin
        for fd, event in events:
            connection = opened(fd)
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
                ledger.exemplar(sample(connection, now, "", connection.head(data), self.parts))
            if connection.partial:
                connection.forget()
                now = clock()  # reading it may have taken a while: none of the next one's
            if again:
                begin(connection, now, now, 0)
            else:
                connection.state, connection.idle_since = IDLE, now
                idle[connection.replica].append(connection)
        if ledger.rows > ROWS // 2:
            self.woken = True

    def _progress(self, connection: Connection, event: int) -> None:
        """An event on a connection that does not just wait for its answer."""
        if connection.state == IDLE:  # the server closed it, or said what nobody asked for
            self._pool.leave(connection, time.monotonic_ns(), self._headers)
            self.woken = True
            return
        try:
            if connection.state == CONNECTING:
                if not self._pool.establish(connection, self._turn):
                    return
            elif event & ~_WRITABLE:  # an answer before the request is out: it is being refused
                self._whole(connection, connection.recv(self._take))
            if connection.state != SENDING:
                return
            if connection.flush():
                connection.sent = time.monotonic_ns()
                connection.state = WAITING
                self._pool.await_answer(connection)
            else:
                self._pool.await_room(connection)
        except OSError as error:
            self._broken(connection, error)

    def _whole(self, connection: Connection, data: bytes) -> bool:
        """Takes what came. True if it made a good answer whole and the connection is to be used
        on; all else is dealt with here."""
        if len(data) == self._take and self._take < _TAKE_MOST:
            self._take = min(_TAKE_MOST, 4 * self._take)
        failure = connection.take(data)
        if failure is None:
            return False
        kept = connection.reusable and (not failure or failure.startswith(WHOLE))
        if connection.tries and (kept or not failure):
            self._through(connection)
        if kept:
            self._pool.hear(connection)
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
        self.rest.wake(time.monotonic_ns())
        self.woken = True

    def _follow(self, connection: Connection, now: int) -> None:
        """The connection is free for the next request."""
        if self.again:
            self.begin(connection, now, now, 0)
        else:
            connection.state, connection.idle_since = IDLE, now
            self._pool.idle[connection.replica].append(connection)

    def _broken(self, connection: Connection, error: OSError) -> None:
        if not isinstance(error, BlockingIOError):
            self._fail(connection, connection.failure(error.errno))

    def _fail(self, connection: Connection, failure: str, data: bytes = b"") -> None:
        """The request on it failed, and the connection is of no more use."""
        self._record(connection, failure, data)
        if failure in (CLOSED_EARLY, RESET):
            self._pool.cut(connection, time.monotonic_ns())
        self._drop(connection, 1 if connection.uses else connection.tries + 1)

    def _record(self, connection: Connection, failure: str, data: bytes) -> None:
        now = time.monotonic_ns()
        ledger = self._ledger
        if self._memory and may_be_forgotten(failure):
            said = connection.reason.encode() + b"\n" + connection.answer(data)
            if forgotten(said):
                failure = NO_REGION
                self._memory.forgotten(connection.begun)
        if ledger.rows >= ROWS - EVENTS:
            self._course.fold()
        connection.sent = min(connection.sent, now)
        stamps = (connection.due, connection.begun, connection.sent, now)
        found = connection.code | ledger.failure(failure)
        _pack(ledger.cells, ledger.place(), *stamps, found)
        if failure:
            connection.failed(now)
            if isinstance(connection.deal, Run):
                connection.deal.broken()
        if now - connection.due > ledger.floor:
            ledger.exemplar(sample(connection, now, failure, connection.head(data), self.parts))
        if failure and ledger.examples.wanted(failure, connection.due):
            peer = self._pool.peer(connection)
            first = example(connection, now, peer, data, self._headers)
            ledger.examples.add(failure, connection.due, now, first)

    def _drop(self, connection: Connection, failures: int) -> None:
        """In a closed loop its place rests; in an open one whoever waits may have it."""
        self._pool.drop(connection)
        if self.again:
            self.rest.add(time.monotonic_ns(), failures)
        self.woken = True

    def expire(self, now: int) -> None:
        """Fails what has been under way for too long."""
        for connection in self._patience.expired(now):
            self._fail(connection, connection.expired(self._patience.limit(connection)))
