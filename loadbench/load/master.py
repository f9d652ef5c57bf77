"""The master of a load that several processes offer: it speaks with the runner as one load process
does, and with the workers over Locust's link. What is to be done is decided by `roll`; here are the
sockets and the processes.
"""

import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import gevent
import msgspec
from gevent import subprocess as green
from locust.env import Environment

from loadbench.errors import RunError
from loadbench.load import link
from loadbench.load.link import Down
from loadbench.load.reporter import Outlet
from loadbench.load.roll import Roll
from loadbench.model import decode
from loadbench.plan import ANY, Command, Plan, Workers
from loadbench.targets.region import sweep
from loadbench.units import SECOND, hostport

_TICK_S = 0.05
_GRACE_S = 2.0  # for workers of this host to end

log = logging.getLogger("loadbench.master")


class Master:
    """One run with workers. `run` gives the exit code."""

    def __init__(self, plan: Plan, outlet: Outlet, lines: Iterator[bytes]) -> None:
        self._workers = plan.workers or Workers()
        self._outlet = outlet
        self._lines = lines
        self._children: list[Any] = []
        self._runner = self._listen()
        self._roll = Roll(plan, time.monotonic_ns(), self._send, outlet.put)
        self._runner.register_message(link.TYPE, self._receive)

    def _listen(self) -> Any:
        host, port = self._workers.host, self._workers.port
        try:  # Locust would say it in the log and exit
            address = "0.0.0.0" if host == "*" else link.numeric(host, port)
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind((address, port))
        except OSError as error:
            text = f"cannot listen for workers on {hostport(host, port)}: "
            text += error.strerror or str(error)
            raise RunError(text, "choose another with --master-bind HOST:PORT") from error
        runner = Environment(user_classes=[]).create_master_runner(address, port)
        _harden(runner)
        log.info("workers connect to %s", hostport(address, runner.server.port))
        return runner

    def run(self) -> int:
        self._start_workers()
        gevent.spawn(self._obey)
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, self._signalled)
        while self._roll.over is None:
            gevent.sleep(_TICK_S)
            self._roll.tick(time.monotonic_ns())
        self._end_workers()
        return self._roll.over

    def _start_workers(self) -> None:
        host = "127.0.0.1" if self._workers.host in ANY else self._workers.host
        where = ["--host", host, "--port", str(self._runner.server.port)]
        wait = ["--wait", str(self._workers.wait_ns / SECOND), "--follow-stdin"]
        for _ in range(self._workers.here):
            child = green.Popen(
                [sys.executable, "-m", "loadbench.load.worker", *where, *wait],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._children.append(child)
            self._roll.started(child.pid)
            gevent.spawn(self._watch, child)

    def _watch(self, child: Any) -> None:
        code = child.wait()
        how = f"was killed (signal {-code})" if code < 0 else f"ended (exit code {code})"
        self._roll.exited(child.pid, how, time.monotonic_ns())

    def _end_workers(self) -> None:
        """They have been told; those that do not listen are made to."""
        with gevent.Timeout(_GRACE_S, False):
            for child in self._children:
                child.wait()
        for child in self._children:
            if child.poll() is None:
                child.kill()
            if child.wait() < 0:
                sweep()
        gevent.sleep(0.1)  # those of other hosts get the word

    def _send(self, worker: str, message: Down) -> None:
        self._runner.send_message(link.TYPE, link.pack(message), worker)

    def _receive(self, environment: Any, msg: Any) -> None:
        try:
            message = link.from_worker(msg.data)
        except msgspec.MsgspecError as error:
            log.warning("%s said what is no message: %s", msg.node_id, error)
            return
        self._roll.hear(str(msg.node_id), message, time.monotonic_ns())

    def _obey(self) -> None:
        """Commands of the runner; when it is gone all ends."""
        for line in self._lines:
            try:
                command = decode(Command, line)
            except msgspec.MsgspecError as error:
                log.warning("not a command: %s", error)
                continue
            log.info("%s", line.decode())
            self._roll.command(command, time.monotonic_ns())
        self._roll.command(Command("kill"), time.monotonic_ns())

    def _signalled(self) -> None:
        command = Command("kill" if self._roll.stopping else "stop")
        self._roll.command(command, time.monotonic_ns())


def _harden(runner: Any) -> None:
    """What is no message, or one that Locust did not expect, would end the greenlet that hears
    everybody; a stray client is no reason to lose a run."""
    receive, handle = runner.server.recv_from_client, runner.handle_message
    odd = (AssertionError, AttributeError, LookupError, TypeError, ValueError)

    def careful_receive() -> Any:
        while True:
            try:
                return receive()
            except odd as error:
                log.warning("somebody sent what is no message: %s", error)

    def careful_handle(client: str, message: Any) -> None:
        try:
            handle(client, message)
        except odd as error:
            log.warning("%s sent an odd %s: %r", client, message.type, error)

    runner.server.recv_from_client, runner.handle_message = careful_receive, careful_handle
