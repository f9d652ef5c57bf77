"""`python -m loadbench.load`: one load process. A Plan comes in on stdin, then Commands; messages
go out on stdout, one JSON line each (see `loadbench.plan`). It ends when its stdin does.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

import gevent
import msgspec
from gevent.socket import wait_read
from locust.env import Environment

from loadbench import priority
from loadbench.errors import LoadbenchError, SpecError
from loadbench.load.lane import Lane
from loadbench.load.ready import Load, make_ready
from loadbench.load.reporter import Outlet
from loadbench.load.user import LaneUser
from loadbench.model import decode, encode
from loadbench.orphan import die_with_parent
from loadbench.plan import Broken, Command, Plan, Waiting

if TYPE_CHECKING:
    from loadbench.load.journey import Driver

_STDIN, _STDOUT, _STDERR = 0, 1, 2
log = logging.getLogger("loadbench.load")


def main() -> None:
    """Runs the plan that comes first on stdin."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.INFO)
    priority.prompt()
    stdin, stdout = _aside()
    lines = _lines(stdin)
    try:
        plan = _plan(next(lines, b""))
        if plan.journey:
            _run_journey(plan, lines, stdout)
            return
        # no code of others is to tidy up; but a server keeps what memory it was given
        die_with_parent(tidily=plan.endpoint.shared and plan.workers is None)
        if plan.workers:
            sys.exit(_share(plan, lines, stdout))
        load = make_ready(plan)
        if plan.waits:
            try:
                load = _told_when(load, lines, stdout)
            except SystemExit:
                if load.memory is not None:
                    load.memory.close()
                raise
    except LoadbenchError as error:
        _break(error, stdout)
    lanes: list[Lane] = []  # one, once it has begun
    outlet = Outlet(stdout, lambda: _kill(lanes))
    try:
        _run(load, lines, outlet, lanes)
    finally:
        outlet.close()


def _told_when(load: Load, lines: Iterator[bytes], stdout: int) -> Load:
    """Says that all is ready, and takes the moment to begin at. Ends if that does not come."""
    os.write(stdout, encode(Waiting()) + b"\n")
    try:
        command = decode(Command, next(lines, b""))
    except msgspec.MsgspecError:
        sys.exit(0)  # whoever started us is gone
    if command.command != "begin":
        sys.exit(0)
    return load._replace(plan=msgspec.structs.replace(load.plan, begin_ns=command.at))


def _share(plan: Plan, lines: Iterator[bytes], stdout: int) -> int:
    """One run with workers."""
    from loadbench.load.master import Master

    outlet = Outlet(stdout, lambda: os._exit(1))
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


def _run_journey(plan: Plan, lines: Iterator[bytes], stdout: int) -> None:
    """One run of people's own Locust file. Raises SpecError when it cannot begin, or not go on."""
    from loadbench.load.journey import Driver  # with HTTP clients that the lane has no use for

    drivers: list[Driver] = []
    outlet = Outlet(stdout, lambda: _kill(drivers))
    try:
        drivers.append(Driver(plan, outlet.put))
        gevent.spawn(_listen, lines, drivers[0])
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, _end, drivers)
        outlet.put(drivers[0].run())
    finally:
        outlet.close()


def _end(lanes: "Sequence[Lane | Driver]") -> None:
    """A signal: gently, and at once when it comes again or nothing more is asked."""
    for lane in lanes:
        lane.kill() if lane.ending else lane.stop()


def _kill(lanes: "Sequence[Lane | Driver]") -> None:
    for lane in lanes:
        lane.kill()


def _listen(lines: Iterator[bytes], lane: "Lane | Driver") -> None:
    for line in lines:
        try:
            command = decode(Command, line)
        except msgspec.MsgspecError as error:
            log.warning("not a command: %s", error)
            continue
        log.info("%s", line.decode())
        if command.steering is None:
            lane.stop() if command.command == "stop" else lane.kill()
        elif isinstance(lane, Lane):  # nobody steers the users of a journey
            lane.steer(command.steering)
    lane.kill()  # whoever started us is gone


def _aside() -> tuple[int, int]:
    """Our pipes under other numbers: a Locust file may print, and ask, as it likes."""
    stdin, stdout = os.dup(_STDIN), os.dup(_STDOUT)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), _STDIN)
    os.dup2(_STDERR, _STDOUT)
    return stdin, stdout


def _lines(stdin: int) -> Iterator[bytes]:
    """The lines of stdin. Waits in the hub, so that everything else goes on meanwhile."""
    rest = b""
    while True:
        wait_read(stdin)
        data = os.read(stdin, 1 << 20)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _plan(line: bytes) -> Plan:
    try:
        return decode(Plan, line)
    except msgspec.MsgspecError as error:
        raise SpecError(f"the first line is no plan: {error}", "see loadbench/plan.py") from error


def _break(error: LoadbenchError, stdout: int) -> NoReturn:
    message = Broken(error.message, error.hint, error.exit_code)
    os.write(stdout, encode(message) + b"\n")
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
