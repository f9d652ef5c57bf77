"""The lane as a Locust user: its task runs the loop in gevent's hub until the run is over.

The hub watches the lane's epoll like any other file, so that Locust's heartbeats, stop and reports
go on at full load. One such user is enough for a process; it offers the load of the whole plan.
"""

import gc
import logging
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import AsyncResult
from locust import User, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from loadbench.errors import LoadbenchError
from loadbench.load.lane import Lane
from loadbench.load.names import follow
from loadbench.load.ready import Load
from loadbench.load.reporter import feed
from loadbench.model import Window
from loadbench.plan import Message, Plan, Started
from loadbench.units import MS

_LEAD_NS = 20 * MS  # from Started to the first arrival
_WATCH_READ = 1
_OVER = "loadbench-over"  # from the worker that has the user to its master

log = logging.getLogger(__name__)


class LaneUser(User):
    """Runs a `Load`. Its windows feed Locust's statistics where those are shown; `tell` gets them
    and the rest."""

    abstract = True
    fixed_count = 1
    tell: Callable[[Message], None] = staticmethod(lambda _: None)

    def prepare(self) -> Load:
        """What to run. Called as the user starts; may raise LoadbenchError."""
        raise NotImplementedError

    def begun(self, lane: Lane) -> None:
        """Called once, before the first arrival."""

    def begin(self, lane: Lane, plan: Plan) -> int:
        """Lets the lane begin; the moment of its second 0."""
        origin = max(time.monotonic_ns() + _LEAD_NS, plan.begin_ns) + plan.warmup_ns
        lane.begin(origin)
        return origin

    def turn(self) -> None:
        """Called before each turn of the lane."""

    @task
    def drive(self) -> None:
        """The whole run. Under Locust's own command line the test ends with it."""
        self.environment.process_exit_code = None  # of a start before this one
        try:
            load = self.prepare()
            try:
                self._run(load)
            finally:
                if load.memory is not None:
                    load.memory.close()
        except LoadbenchError as error:
            log.error("%s", " → ".join(filter(None, (error.message, error.hint))))
            self.environment.process_exit_code = error.exit_code
            self.environment.events.user_error.fire(  # so that the web UI shows it
                user_instance=self, exception=error, tb=error.__traceback__
            )
        except Exception:  # else Locust would begin the run again
            log.exception("the load broke off")
            self.environment.process_exit_code = 1
        if self.environment.parsed_options is not None:
            _leave(self.environment)
        raise StopUser

    def _run(self, load: Load) -> None:
        endpoint = load.plan.endpoint
        method = endpoint.method if endpoint.protocol == "http" else "POST"

        # only Locust's command line and web UI read its statistics, which grow with every second
        shown = self.environment.parsed_options is not None

        def emit(window: Window) -> None:
            if shown:
                feed(self.environment.stats, method, window)
            self.tell(window)

        lane = Lane(load, emit)
        origin = self.begin(lane, load.plan)
        self.tell(Started(origin, tuple(load.notes)))
        self.begun(lane)
        stopping = self.environment.events.test_stopping
        stop = stopping.add_listener(lambda **_: lane.stop())
        beside = [gevent.spawn(follow, load, lane)]
        if load.memory is not None:
            beside.append(gevent.spawn(load.memory.keep))
        gc.unfreeze()  # what a start before this one has left
        gc.collect()
        gc.freeze()  # what was prepared is never looked through again
        try:
            watch(lane, self.turn)
        except gevent.GreenletExit:  # Locust does not wait for the drain
            lane.close()
            raise
        finally:
            stopping.remove_listener(stop)
            gevent.killall(beside, block=False)
            if lane.over:
                self.tell(lane.finished())


def end_together(environment: Environment, **_: Any) -> None:
    """For the `init` event: has a master end the test when the worker that has the user says so."""
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        runner.register_message(_OVER, lambda environment, msg: _leave(environment))


def _leave(environment: Environment) -> None:
    """Ends the test the way Locust's command line was asked to end it."""
    options, runner = environment.parsed_options, environment.runner
    assert options is not None
    assert runner is not None
    if isinstance(runner, WorkerRunner):
        runner.send_message(_OVER)
    else:
        gevent.spawn(runner.quit if options.headless else runner.stop)


def watch(lane: Lane, before: Callable[[], None] = lambda: None) -> None:
    """Runs a lane that has begun in gevent's hub; returns when it is over. `before` is called
    before each of its turns."""
    over: AsyncResult[None] = AsyncResult()
    watcher = gevent.get_hub().loop.io(lane.fileno(), _WATCH_READ)

    def turn() -> None:
        try:
            before()
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
