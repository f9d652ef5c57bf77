"""`python -m loadbench.load`: one load process. A Plan comes in on stdin, then Commands; messages
go out on stdout, one JSON line each (see `loadbench.plan`). It ends when its stdin does.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

import gevent
import msgspec
from gevent.socket import wait_read
from locust.env import Environment

from loadbench.errors import LoadbenchError, SpecError
from loadbench.load.lane import Lane
from loadbench.load.ready import Load, make_ready
from loadbench.load.reporter import Outlet
from loadbench.load.user import LaneUser
from loadbench.model import decode, encode
from loadbench.plan import Broken, Command, Plan

_STDIN, _STDOUT = 0, 1
log = logging.getLogger("loadbench.load")


def main() -> None:
    """Runs the plan that comes first on stdin."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.INFO)
    lines = _lines()
    try:
        plan = _plan(next(lines, b""))
        if plan.workers:
            sys.exit(_share(plan, lines))
        load = make_ready(plan)
    except LoadbenchError as error:
        _break(error)
    lanes: list[Lane] = []  # one, once it has begun
    outlet = Outlet(_STDOUT, lambda: _kill(lanes))
    try:
        _run(load, lines, outlet, lanes)
    finally:
        outlet.close()


def _share(plan: Plan, lines: Iterator[bytes]) -> int:
    """One run with workers."""
    from loadbench.load.master import Master

    outlet = Outlet(_STDOUT, lambda: os._exit(1))
    try:
        return Master(plan, outlet, lines).run()
    finally:
        outlet.close()


def _run(load: Load, lines: Iterator[bytes], outlet: Outlet, lanes: list[Lane]) -> None:
    """One run under Locust. Returns when it is over."""

    class Only(LaneUser):
        def prepare(self) -> Load:
            return load

        def begun(self, lane: Lane) -> None:
            lanes.append(lane)
            gevent.spawn(_listen, lines, lane)

    Only.tell = staticmethod(outlet.put)
    runner = Environment(user_classes=[Only], catch_exceptions=False).create_local_runner()
    runner.start(1, spawn_rate=1)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, _end, lanes)
    runner.spawning_greenlet.join()
    runner.user_greenlets.join()
    runner.quit()
    if not lanes or not lanes[0].over:
        sys.exit(1)  # Locust has told why in the log


def _end(lanes: list[Lane]) -> None:
    """A signal: gently, and at once when it comes again or nothing more is asked."""
    for lane in lanes:
        lane.kill() if lane.ending else lane.stop()


def _kill(lanes: list[Lane]) -> None:
    for lane in lanes:
        lane.kill()


def _listen(lines: Iterator[bytes], lane: Lane) -> None:
    for line in lines:
        try:
            command = decode(Command, line)
        except msgspec.MsgspecError as error:
            log.warning("not a command: %s", error)
            continue
        log.info("%s", line.decode())
        if command.steering is not None:
            lane.steer(command.steering)
        else:
            lane.stop() if command.command == "stop" else lane.kill()
    lane.kill()  # whoever started us is gone


def _lines() -> Iterator[bytes]:
    """The lines of stdin. Waits in the hub, so that everything else goes on meanwhile."""
    rest = b""
    while True:
        wait_read(_STDIN)
        data = os.read(_STDIN, 1 << 20)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _plan(line: bytes) -> Plan:
    try:
        return decode(Plan, line)
    except msgspec.MsgspecError as error:
        raise SpecError(f"the first line is no plan: {error}", "see loadbench/plan.py") from error


def _break(error: LoadbenchError) -> NoReturn:
    message = Broken(error.message, error.hint, error.exit_code)
    os.write(_STDOUT, encode(message) + b"\n")
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
