"""The lane as a Locust user: its task runs the loop in gevent's hub until the run is over.

The hub watches the lane's epoll like any other file, so that Locust's heartbeats, stop and reports
go on at full load. One such user is enough for a process; it offers the load of the whole plan.
"""

import gc
import time
from collections.abc import Callable
from typing import ClassVar

import gevent
from gevent.event import AsyncResult
from locust import User, task
from locust.exception import StopUser

from loadbench.load.lane import Lane
from loadbench.load.ready import Load
from loadbench.load.reporter import feed
from loadbench.model import Window
from loadbench.plan import Message, Started
from loadbench.units import MS

_LEAD_NS = 20 * MS  # from Started to the first arrival
_WATCH_READ = 1


class LaneUser(User):  # type: ignore[misc]
    """Set `load` in a subclass. Its windows feed Locust's statistics, and go to `tell`."""

    abstract = True
    fixed_count = 1
    load: ClassVar[Load]
    tell: Callable[[Message], None] = staticmethod(lambda _: None)

    def begun(self, lane: Lane) -> None:
        """Called once, before the first arrival."""

    @task  # type: ignore[untyped-decorator]
    def drive(self) -> None:
        """The whole run."""
        plan = self.load.plan
        kind = plan.endpoint.method if plan.endpoint.protocol == "http" else "POST"

        def emit(window: Window) -> None:
            feed(self.environment.stats, kind, window)
            self.tell(window)

        lane = Lane(self.load, emit)
        origin = time.monotonic_ns() + _LEAD_NS + plan.warmup_ns
        lane.begin(origin)
        self.tell(Started(origin, tuple(self.load.notes)))
        self.begun(lane)
        self.environment.events.test_stopping.add_listener(lambda **_: lane.stop())
        gc.collect()
        gc.freeze()  # what was prepared is never looked through again
        try:
            run(lane)
        finally:
            lane.close()
            self.tell(lane.finished())
        raise StopUser


def run(lane: Lane) -> None:
    """Runs a lane that has begun in gevent's hub; returns when it is over."""
    over: AsyncResult[None] = AsyncResult()
    watcher = gevent.get_hub().loop.io(lane.fileno(), _WATCH_READ)

    def turn() -> None:
        try:
            lane.turn()
        except BaseException as error:  # noqa: BLE001 - the hub would only print it
            over.set_exception(error)
            watcher.stop()
            return
        if lane.over:
            watcher.stop()
            over.set()

    watcher.start(turn)
    try:
        over.get()
    finally:
        watcher.stop()
        watcher.close()
