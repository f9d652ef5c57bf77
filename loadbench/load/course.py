"""The course of a run: warm-up, load, drain; what falls due when; and the windows of its seconds.

Second 0 begins at `origin`. Warm-up runs into the load without a break. The load ends with its
last phase, or when it is stopped; then what is under way is awaited until the drain is over.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench.load.ledger import Cut, Ledger
from loadbench.load.schedule import Schedule
from loadbench.load.tokens import Tokens
from loadbench.model import Stage, Window
from loadbench.plan import Plan, Share
from loadbench.shape import Phase, Steering, length_ns, phase_at, rate_at, steered
from loadbench.units import SECOND


class Traffic(NamedTuple):
    """What the loop tells about a window when it is cut."""

    rows: NDArray[np.int64]  # requests under way, as rows of the ledger
    connections: int
    stall_ns: int


History = Sequence[tuple[int, Steering]]  # how a load was steered, and from when on


class Course:
    """Schedule, ledger and the boundaries between windows and stages."""

    def __init__(
        self,
        plan: Plan,
        origin: int,
        traffic: Callable[[], Traffic],
        since: int | None = None,
        history: History = (),
        tokens: Tokens | None = None,
    ) -> None:
        names = [request.name for request in plan.requests]
        self._plan = plan
        self._traffic = traffic
        self._origin = origin
        self._closed = plan.arrivals == "closed"
        self._paced = plan.arrivals in ("constant", "poisson", "gamma")  # by the rate of the shape
        self._begin = origin - plan.warmup_ns if since is None else since  # of the next window
        self._phases = plan.phases  # as they are steered
        self._steering = Steering()
        self._pauses: list[int] = []  # when one began, when it ended, when the next began …
        self._share: Share | None = plan.share
        self._left = (0, 0, 0)  # in flight, waiting, under way at the last boundary
        changes = [(at, self._shape(steering, at)) for at, steering in history]
        self.schedule = Schedule(plan, origin, since, changes if self._paced else ())
        self.ledger = Ledger(names, origin, plan.slowest, tokens)
        self.end = origin + length_ns(plan.phases)
        self.over = self.end + plan.drain_ns
        self.boundary = self._next_boundary()

    def _next_boundary(self) -> int:
        return self._origin + ((self._begin - self._origin) // SECOND + 1) * SECOND

    @property
    def in_flight(self) -> int:
        """At the end of the last window."""
        return self._left[0]

    def windows(self, now: int) -> Iterator[Window]:
        """The windows that are over by now."""
        while now >= self.boundary:
            yield self._cut(self.boundary)

    def fold(self) -> None:
        """Takes the ledger's rows in before its place runs out."""
        self.ledger.fold(self._begin, self.boundary)

    @property
    def width(self) -> int:
        """Of a closed loop: how many requests are to be under way here."""
        if self._share is None or self._steering.paused:
            return 0
        whole = round(self._plan.concurrency * self._steering.scale)
        return self._share.part(whole)

    def deal(self, share: Share | None, at: int) -> None:
        """From a moment on this share of the load is ours; None: nothing."""
        self._share = share
        self.schedule.deal(None if self._steering.paused else share, at)

    def steer(self, steering: Steering, at: int) -> None:
        """From a moment on, the beginning of the load at the earliest, its shape is another."""
        at = max(at, self._origin)
        paused = self._steering.paused
        phases = self._shape(steering, at)
        if self._paced:
            self.schedule.steer(phases, at)
        if paused != steering.paused:
            self.deal(self._share, at)

    def _shape(self, steering: Steering, at: int) -> Sequence[Phase]:
        """The shape as it is from now on."""
        if steering.paused != self._steering.paused:
            self._pauses.append(at)
        self._steering = steering
        if self._paced:
            since = at - self._origin
            self._phases = steered(self._plan.phases, self._phases, since, steering)
        return self._phases

    def _rate(self, stage: Stage, end: int) -> float | None:
        """What the schedule asks for in the middle of the window until `end`."""
        if stage == "warmup" and not self._closed:
            return self._plan.phases[0].start
        if not self._paced or stage == "warmup":
            return None
        middle = (self._begin + end) // 2
        if stage == "drain" or bisect_right(self._pauses, middle) % 2:
            return 0.0
        return rate_at(self._phases, middle - self._origin)

    def complete(self, now: int) -> None:
        """All that was to be done at once is done: the load ends before its time."""
        self.end = min(self.end, max(now, self._origin))

    def stop(self, now: int) -> None:
        """No arrivals from now on; what waits is given up. All windows until now must be cut."""
        self._give_up(now)
        self.end = min(self.end, now)
        self.over = self.end + self._plan.drain_ns

    def _give_up(self, now: int) -> None:
        waiting = self.schedule.waiting(now)
        if self._begin >= self._origin:
            waiting = waiting[waiting >= self._origin]
        self.ledger.unsent(len(waiting))
        self.schedule.stop(now)

    def finish(self, now: int) -> Iterator[Window]:
        """The run ends: the windows until now, the last of them shorter than a second.

        What was due or begun and never sent becomes unsent.
        """
        yield from self.windows(now)
        rows = self._traffic().rows
        if self._begin >= self._origin:
            rows = rows[rows[:, 0] >= self._origin]
        self._give_up(now)
        self.ledger.unsent(int((rows[:, 2] > now).sum()))
        if any(self._left) or self._begin < min(now, self.end):
            yield self._cut(now)

    def _stage(self) -> Stage:
        if self._begin < self._origin:
            return "warmup"
        return "load" if self._begin < self.end else "drain"

    def _cut(self, end: int) -> Window:
        begin, since = self._begin, self._begin - self._origin
        traffic = self._traffic()
        stage = self._stage()
        window = self.ledger.cut(
            Cut(
                begin=begin,
                end=end,
                second=since // SECOND,
                stage=stage,
                asked=None if self._closed else self.schedule.asked(begin, end),
                waiting=self.schedule.waiting(end),
                open=traffic.rows,
                limit_ns=self._plan.limit_ns,
                phase=phase_at(self._plan.phases, since) if stage == "load" else None,
                rate=self._rate(stage, end),
                stall_ns=traffic.stall_ns,
                connections=traffic.connections,
            )
        )
        self._begin = end
        self.boundary = self._next_boundary()
        self._left = (window.in_flight, window.waiting, len(traffic.rows))
        return window
