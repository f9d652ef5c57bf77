"""The lane: one loop that drives many connections from an epoll of its own.

It knows nothing of gevent or Locust: whoever owns it watches `fileno()` and calls `turn()` when
that is readable (`user.LaneUser` does, in gevent's hub). Arrivals are woken by a timerfd within the
same epoll. Requests are prebuilt bytes, answers are read as cheaply as is still strict (`answer`),
stamps go into the `ledger`, which makes the windows.

What becomes of a request once it is begun is the `exchange`'s. In an open loop each arrival is an
attempt of its own, whatever became of those before it; idle connections are reused last in, first
out. Of several replicas each has its turn there; in a closed loop each has its part of the places.
"""

import select
import time
from collections.abc import Callable
from itertools import cycle

from gevent import monkey

from loadbench.load.connection import Address
from loadbench.load.course import Course, History, Traffic
from loadbench.load.exchange import EVENTS, Exchange
from loadbench.load.ledger import HELD, ROWS
from loadbench.load.pool import Pool
from loadbench.load.ready import Load
from loadbench.load.schedule import NEVER
from loadbench.load.stall import Standstill
from loadbench.load.timer import Timer
from loadbench.model import Window
from loadbench.plan import Finished, Share
from loadbench.shape import Steering
from loadbench.units import MS

BUDGET_NS = 2 * MS  # after so long the owner gets its turn, also under full load
_BEGINS = 64  # at a time, between looks at what has arrived
_TICK_NS = 10 * MS  # the loop wakes at least so often, so that a stall of it is noticed
_READABLE = select.EPOLLIN
_epoll = monkey.get_original("select", "epoll")  # gevent takes it out of the module


class Lane:
    """A run of a plan: from `begin` to `over`. Its methods are called from one thread."""

    def __init__(self, load: Load, emit: Callable[[Window], None]) -> None:
        plan = load.plan
        self.over = False
        self.stopped = False
        self._plan = plan
        self._load = load
        self._emit = emit
        self._epoll = _epoll()
        self._timer = Timer()
        self._epoll.register(self._timer.fileno(), _READABLE | select.EPOLLET)
        self._closed = plan.arrivals == "closed"
        most = plan.concurrency if self._closed else (plan.share or Share()).part(plan.connections)
        addresses = [replica.address for replica in load.replicas]
        in_turn = any(replica.sequences for replica in load.replicas)
        self._pool = Pool(self._epoll, addresses, max(1, most), plan.weights, in_turn)
        # not all processes of a load begin with the same replica
        first = plan.share.index % len(load.turns) if plan.share else 0
        self._next_turn = cycle((*load.turns[first:], *load.turns[:first])).__next__
        self._replica = self._next_turn()  # that the next request goes to
        self._once = plan.arrivals == "once"
        self._blocked = False  # all connections are busy, and something is due
        self.ending = False  # nothing falls due any more
        self._wake = 0
        self._stood = 0  # longest standstill since the last window
        self._seen = 0  # when the loop last was known to run, or was to be woken
        self._turned = 0  # when its last turn ended

    def begin(self, origin: int, since: int | None = None, history: History = ()) -> None:
        """Arrivals begin at origin − warm-up; of a process that joins late `since` that moment, and
        it is told how the load was steered before."""
        self._origin = origin
        self._course = Course(self._plan, origin, self._traffic, since, history, self._load.tokens)
        self._exchange = Exchange(self._load, self._pool, self._course)
        start = origin - self._plan.warmup_ns if since is None else since
        if self._closed:
            self._level(start)
        self._cpu = time.process_time_ns()
        self._still = Standstill(time.monotonic_ns())
        self._seen = self._wake = start
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

    def move(self, replica: int, address: Address) -> None:
        """A replica is somewhere else from now on."""
        if not self.over:
            self._pool.move(replica, address, time.monotonic_ns())
            self._change()

    def _change(self) -> None:
        """What is to be begun next is another than it was."""
        self._exchange.again = False  # until there are as many places as are wanted now
        self._wake = 0
        self._timer.set(1)

    def stop(self) -> None:
        """No further arrivals; what is under way is awaited. What is due by now is sent still: the
        moment that a stop takes to be heard is not to make anything unsent."""
        if self.ending or self.over:
            return
        self.stopped = True
        now = time.monotonic_ns()
        self._cut(now)
        if not self._closed:
            self._take_up(now)
            now = time.monotonic_ns() + 1  # that took a while, and all that fell due in it
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
        memory = self._load.memory
        return Finished(
            reason="stopped" if self.stopped else "done",
            unfinished=self._course.in_flight,
            cpu_ns=time.process_time_ns() - self._cpu,
            notes=(
                *self._pool.notes(self._origin),
                *(memory.notes() if memory else ()),
                *self._exchange.parts.notes(),
            ),
        )

    def turn(self) -> None:
        """Does what there is to do, for not much longer than the budget, without ever blocking."""
        poll, clock, exchange = self._epoll.poll, time.monotonic_ns, self._exchange
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
            events = poll(0, EVENTS)
            if events:
                exchange.handle(events, now)
                if exchange.woken or self._pressed:
                    self._wake = 0
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
        course, exchange = self._course, self._exchange
        if now >= self._still.next:
            self._still.look(now)
        self._cut(now)
        if self._once and self._settled():
            course.complete(now)
        if now >= course.end:
            self._end_arrivals()
        if now >= exchange.expiry:
            exchange.expire(now)
        if self._closed:
            self._level(now)
            self._wake_resting(now)
        else:
            self._take_up(now)
        if course.ledger.rows > ROWS // 2:
            course.fold()
        self._pool.weed(now)
        if now >= course.ledger.next_probe:
            course.ledger.probe(now)
        if self.ending and (now >= course.over or self._settled()):
            self._finish()
        due = NEVER if self._blocked else course.schedule.next
        end = course.over if self.ending else course.end
        wakes = (due, exchange.rest.next, end, course.boundary, exchange.expiry, now + _TICK_NS)
        self._wake = min(wakes)
        exchange.woken = False

    @property
    def _pressed(self) -> bool:
        """Answers may have made way for what waits for them."""
        waits = self._closed and not self._exchange.again
        return self.ending or waits or (self._blocked and bool(self._pool.resting))

    def _settled(self) -> bool:
        """Nothing is under way and nothing waits."""
        return self._pool.settled and self._course.schedule.next == NEVER

    def _end_arrivals(self) -> None:
        self.ending = True
        self._exchange.again = False
        self._exchange.rest.clear()
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
        schedule, pool = self._course.schedule, self._pool
        held = HELD if self._blocked or self._once else 0  # at once: all but the first have to wait
        for _ in range(_BEGINS):
            due = schedule.next
            if due > now:
                self._blocked = False
                return
            if idle := pool.idle[self._replica]:
                schedule.advance()
                self._exchange.begin(idle.pop(), due, now, held)
            elif pool.room():
                schedule.advance()
                self._exchange.open(due, now, held, 0, self._replica)
            elif idle := max(pool.idle, key=len):  # amid sequences of others: these go on instead
                schedule.advance()
                self._exchange.begin(idle.pop(), due, now, held)
            else:
                self._blocked = True
                return
            self._replica = self._next_turn()
            now = time.monotonic_ns()

    def _level(self, now: int) -> None:
        """Closed loop: sees to it that there are as many places as are wanted."""
        if self._exchange.again or self.ending:
            return
        pool, rest = self._pool, self._exchange.rest
        missing = self._course.width - (len(pool.open) - pool.resting + len(rest))
        rest.drop(-missing)
        while missing > 0 and (idle := max(pool.idle, key=len)):
            self._exchange.begin(idle.pop(), now, now, 0)
            missing -= 1
        for _ in range(missing):
            rest.add(now, 0)
        self._exchange.again = len(pool.open) - pool.resting + len(rest) == self._course.width

    def _wake_resting(self, now: int) -> None:
        """Closed loop: places that have rested connect and send."""
        for _ in range(_BEGINS):
            if self._exchange.rest.next > now:
                return
            tries = self._exchange.rest.take(now)
            self._exchange.open(now, now, 0, tries, self._pool.lacking())
            now = time.monotonic_ns()
