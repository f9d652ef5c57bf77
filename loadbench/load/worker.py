"""`python -m loadbench.load.worker`: one load process of several, told by a master what to do.

It connects as a Locust worker, makes ready what the master's plan asks for, runs a lane with its
share and tells the windows to the master. It sends only while the master acknowledges that it is
there (see `link`): when it stood still or was cut off for longer, others have its share, so it
drops everything at once and starts anew, as a new worker that joins late.
"""

import argparse
import logging
import os
import signal
import socket
import sys
import time
import uuid
from typing import Any, NoReturn

import gevent
import msgspec
from gevent.queue import SimpleQueue
from gevent.socket import wait_read
from locust.env import Environment
from msgspec.structs import replace

from loadbench import __version__, priority
from loadbench.errors import LoadbenchError, RunError
from loadbench.load import link
from loadbench.load.clock import identity
from loadbench.load.lane import Lane
from loadbench.load.link import Down, Up
from loadbench.load.ready import Load, make_ready
from loadbench.load.user import LaneUser
from loadbench.model import Note, Window
from loadbench.orphan import die_with_parent
from loadbench.plan import Broken, Finished, Message, Plan, Started
from loadbench.units import MS, SECOND, hostport

_EARLY_BEAT = 50 * MS  # until it has begun, so that the clocks get known soon
_VANISHED = 5 * SECOND  # without a word of the master, when nothing is being sent
_AGAIN_S = 5.0  # how long a master is looked for that was there before
_LAST_S = 1.7  # for what it has to give back: a master waits 2 s for it to end
_STEP = 1543  # of the sequence of requests, so that no two workers send the same at once

_TOKEN = uuid.uuid4().hex

log = logging.getLogger("loadbench.worker")


class Worker:
    """A worker that is connected. `run` gives its exit code."""

    def __init__(self, runner: Any, master: str, token: str) -> None:
        self._runner = runner
        self._master = master
        self._token = token
        self._inbox: SimpleQueue[Down | int] = SimpleQueue()  # an int: a signal
        self._outbox: SimpleQueue[Up] = SimpleQueue()
        self._load: Load | None = None
        self._lane: Lane | None = None
        self._begin: link.Begin | None = None
        self._heard = (0, 0)  # the master's last stamp, and when it came
        self._known = time.monotonic_ns()  # when the master was last known to be there
        self._leased = 0  # until when it may send, once it has begun
        self._left = 0  # when it has nothing to do any more, by its own wish
        self._signal = 0
        runner.register_message(link.TYPE, self._receive)
        runner.environment.user_classes.append(self._user())

    def run(self) -> int:
        """Does what the master says until it says that it is over."""
        host, pid = socket.gethostname(), os.getpid()
        self._send(link.Hello(__version__, host, pid, identity(), self._token))
        gevent.spawn(self._beat)
        gevent.spawn(self._write)
        while True:
            try:
                message = self._inbox.get(timeout=0.25)
            except gevent.queue.Empty:
                message = None
            if isinstance(message, int):
                if self._quit(message):
                    return 128 + message
            elif isinstance(message, link.End):
                return self._ended(message)
            elif isinstance(message, link.Out):
                self._give_up("the master took this worker for lost")
            elif message is not None:
                self._do(message)
            self._check()

    def _check(self) -> None:
        """Whether there is still a lane, or else a master."""
        if self._sending:
            if not self._runner.user_greenlets:
                raise RunError("the load broke off", "its reason stands above")
        elif time.monotonic_ns() - self._known > _VANISHED:
            raise RunError(f"{self._master}: nothing is heard of the master any more")

    @property
    def _sending(self) -> bool:
        """It was told to begin, and its lane is not over."""
        return self._begin is not None and not (self._lane and self._lane.over)

    def _give_up(self, why: str) -> NoReturn:
        """Others have its share. Everything is dropped at once; whoever was asked to leave does."""
        if self._load and self._load.memory:
            self._load.memory.drop()
        if self._signal:
            os._exit(128 + self._signal)
        _start_anew(why)

    def close(self) -> None:
        """Ends the lane, and gives back the memory that it shares with the server: the lane does,
        if there was one."""
        if self._lane:
            self._lane.kill()
        with gevent.Timeout(_LAST_S, False):
            self._runner.user_greenlets.join()
            if self._load and self._load.memory and not self._begin:
                self._load.memory.close()

    # the link

    def _send(self, message: Up) -> None:
        self._runner.send_message(link.TYPE, link.pack(message))

    def _write(self) -> None:
        """Windows are encoded when the hub is free."""
        while True:
            self._send(self._outbox.get())

    def _receive(self, environment: Any, msg: Any) -> None:
        now = time.monotonic_ns()
        try:
            message = link.from_master(msg.data)
        except msgspec.MsgspecError as error:
            log.warning("not a message of a loadbench master: %s", error)
            return
        if isinstance(message, link.Ack):
            self._heard = (message.heard, now)
            self._known = now
            if self._begin:
                self._leased = max(self._leased, message.sent + link.LEASE)
        else:
            self._inbox.put(message)

    def _beat(self) -> None:
        while True:
            self._send(link.Beat(time.monotonic_ns(), *self._heard))
            pause = link.BEAT if self._begin else _EARLY_BEAT
            gevent.sleep(pause / SECOND)

    # what the master says

    def _do(self, message: Down) -> None:
        match message:
            case link.Setup(plan, number):
                self._prepare(plan, number)
            case link.Begin() if self._load and not self._begin:
                self._begin, self._leased = message, message.leased
                self._runner.start_worker({"Lane": 1})
                while self._lane is None and self._runner.user_greenlets:
                    gevent.sleep(0.005)  # what comes next is for the lane
            case link.Deal(share, at) if self._lane:
                self._late(at)
                self._lane.deal(share, at)
                if share is None:
                    self._left = max(at, 1)
            case link.Steer(steering, at) if self._lane:
                self._late(at)
                self._lane.steer(steering, at)
            case link.Stop(at, at_once) if self._lane:
                wait = max(0, at - time.monotonic_ns()) / SECOND
                gevent.spawn_later(wait, self._lane.kill if at_once else self._lane.stop)

    def _late(self, at: int) -> None:
        late = time.monotonic_ns() - at
        if late > 0:
            text = f"was told {late / MS:.0f} ms late of a change"
            hint = "some arrivals then were sent twice or by nobody: is the machine overloaded?"
            self._send(link.Remarked(Note("told-late", text, hint)))

    def _prepare(self, plan: Plan, number: int) -> None:
        log.info("the master's plan is here; making it ready")
        try:
            load = make_ready(plan)
        except LoadbenchError as error:
            log.error("%s", error.message)
            self._send(Broken(error.message, error.hint, error.exit_code))
            return
        for replica in load.replicas:
            for _ in range(_STEP * number):
                replica.deal()
        self._load = load
        self._known = time.monotonic_ns()  # nothing was read meanwhile
        self._send(link.Prepared(tuple(load.notes)))

    def _ended(self, end: link.End) -> int:
        log.log(logging.WARNING if end.code else logging.INFO, "%s", end.text or "the run is over")
        return 128 + self._signal if self._signal else end.code

    def _quit(self, number: int) -> bool:
        """A signal: gently; at once when it comes again or nothing is being sent."""
        at_once = bool(self._signal) or not self._sending
        self._send(link.Leaving(at_once))
        if at_once:
            return True
        log.info("leaving: what is under way is finished; again to leave at once")
        self._signal = number
        return False

    def signalled(self, number: int) -> None:
        self._inbox.put(number)

    # the lane

    def _user(self) -> type[LaneUser]:
        worker = self

        class Lane(LaneUser):
            def prepare(self) -> Load:
                assert worker._load is not None
                assert worker._begin is not None
                plan = replace(worker._load.plan, share=worker._begin.share)
                return worker._load._replace(plan=plan)

            def begin(self, lane: Any, plan: Plan) -> int:
                assert worker._begin
                begin = worker._begin
                lane.begin(begin.origin, begin.since, begin.history)
                return begin.origin

            def begun(self, lane: Any) -> None:
                worker._lane = lane
                worker._outbox.put(link.Begun())

            def turn(self) -> None:
                if time.monotonic_ns() >= worker._leased:
                    worker._give_up("nothing was heard of the master: others have this share")

        Lane.tell = staticmethod(self._tell)
        return Lane

    def _tell(self, message: Message) -> None:
        """What the lane says."""
        if isinstance(message, Window | Finished):
            self._outbox.put(message)
        if isinstance(message, Window) and self._left and self._lane:
            assert self._begin
            over = self._begin.origin + message.second * SECOND > self._left
            if over and not message.in_flight and not message.waiting:
                self._lane.kill()
        if isinstance(message, Started):
            log.info("begun")


def connect(host: str, port: int, wait_s: float) -> Any:
    """Locust's worker, once a master has answered it."""
    try:
        address = link.numeric(host, port)
    except OSError as error:
        raise RunError(f"{host}: {error.strerror or error}", "check the master's name") from error
    log.info("looking for a master at %s", hostport(address, port))
    environment = Environment(user_classes=[], catch_exceptions=False)
    with gevent.Timeout(wait_s, False):
        return environment.create_worker_runner(address, port)
    text = f"no master answered at {hostport(host, port)} within {wait_s:g} s"
    hint = "start `loadbench run SCENARIO --master-bind HOST --expect-workers N` there"
    raise RunError(text, hint)


def _follow_stdin() -> None:
    """Whoever started us is gone when stdin ends."""
    while True:
        wait_read(0)
        if not os.read(0, 4096):
            os._exit(0)


def _start_anew(why: str) -> NoReturn:
    """The same process as a new one: all its connections are closed with what it was."""
    log.warning("%s: starting anew", why)
    given = _arguments()
    again = [] if given.again else ["--again", _token(given)]
    module = [sys.executable, "-m", "loadbench.load.worker"]
    os.execv(sys.executable, [*module, *sys.argv[1:], *again])


def _token(given: argparse.Namespace) -> str:
    """The same for this process from one new start to the next, and no other's."""
    return given.again or _TOKEN


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--wait", type=float, default=60.0)
    parser.add_argument("--follow-stdin", action="store_true")
    parser.add_argument("--again", metavar="TOKEN", default="")
    return parser.parse_args()


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("locust").setLevel(logging.WARNING)
    given = _arguments()
    priority.prompt()
    workers: list[Worker] = []  # one, once it is connected

    def signalled(number: int) -> None:
        if not workers:
            os._exit(128 + number)
        workers[0].signalled(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, signalled, number)
    if given.follow_stdin:
        die_with_parent()
        gevent.spawn(_follow_stdin)
    try:
        runner = connect(given.host, given.port, _AGAIN_S if given.again else given.wait)
        worker = Worker(runner, hostport(given.host, given.port), _token(given))
        workers.append(worker)
        try:
            code = worker.run()
        finally:
            worker.close()
        gevent.sleep(0.1)  # the last words get out
    except LoadbenchError as error:
        print(f"loadbench: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  → {error.hint}", file=sys.stderr)
        code = error.exit_code
    sys.stderr.flush()
    os._exit(code)  # Locust's greenlets have nothing left to say, and ZeroMQ would wait for them


if __name__ == "__main__":
    main()
