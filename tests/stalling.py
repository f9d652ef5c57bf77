"""A lane in gevent's hub whose loop is made to stand still once, as a process of its own.

    python -m tests.stalling KIND PORT

runs a second of 200/s, does what KIND says after 300 ms, and prints each window's longest
standstill and its cause as one JSON line.
"""

import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Callable

import gevent
from gevent import monkey

from loadbench.load.lane import Lane
from loadbench.load.ready import Load, make_ready
from loadbench.load.user import watch
from loadbench.model import Window
from loadbench.units import MS
from tests.lanes import plan

_LENGTH_NS = 60 * MS


def compute() -> None:
    """Uses the core for a while."""
    end = time.monotonic_ns() + _LENGTH_NS
    while time.monotonic_ns() < end:
        pass


def later(what: Callable[[], object]) -> Callable[[], None]:
    """A greenlet's work: `what` after 300 ms."""

    def hold_up() -> None:
        gevent.sleep(0.3)
        what()

    return hold_up


def thinking(load: Load) -> Load:
    """Its 60th request takes long to be dealt."""
    left = iter(range(60))
    (replica,) = load.replicas

    def think() -> object:
        if next(left, None) == 59:
            compute()
        return replica.deal()

    return load._replace(replicas=(replica._replace(deal=think),))  # type: ignore[arg-type]


def main(kind: str, port: int) -> None:
    load = make_ready(plan(port, rate=200, seconds=1))
    windows: list[Window] = []
    with contextlib.suppress(PermissionError):
        # what else runs on this machine is not the cause that is meant
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    heap = [[index] for index in range(1_500_000)] if kind == "gc" else []
    gc.disable()  # not by chance
    if kind == "own":
        load = thinking(load)
    lane = Lane(load, windows.append)
    lane.begin(time.monotonic_ns() + 20 * MS)
    if kind in ("gc", "hub"):
        gevent.spawn(later(gc.collect if kind == "gc" else compute))
    if kind == "thread":
        pool = gevent.get_hub().threadpool
        gevent.spawn(later(lambda: pool.spawn(sum, range(6_000_000))))  # never lets go in between
    if kind == "wait":
        sleep = monkey.get_original("time", "sleep")  # locust puts gevent's in its place
        gevent.spawn(later(lambda: sleep(_LENGTH_NS / 1e9)))
    watch(lane)
    found = [(window.stall_ns, window.stall_cause, window.cpu_ns) for window in windows]
    print(json.dumps({"windows": found, "heap": len(heap)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
