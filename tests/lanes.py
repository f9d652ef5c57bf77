"""Runs of the lane for tests: a plan against a known server, in this process or as its own."""

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from loadbench.histogram import Histogram
from loadbench.load.lane import Lane
from loadbench.load.ready import make_ready
from loadbench.model import Example, Tensor, Window, decode, encode
from loadbench.plan import Broken, Command, Endpoint, Finished, Message, Plan, RequestPlan, Started
from loadbench.shape import Phase
from loadbench.units import MS, SECOND

_SERVER = Path(__file__).with_name("known_server.py")


class Known:
    """A known server that runs. After its block `counts` is what it got."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        self.process = process
        self.port = int(process.stdout.readline())
        self.counts: dict[str, Any] = {}


@contextmanager
def known_server(**options: Any) -> Iterator[Known]:
    command = [sys.executable, str(_SERVER), json.dumps(options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        server = Known(process)
        try:
            yield server
        finally:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            server.counts = json.loads(process.stdout.readline() or b"{}")


def endpoint(port: int) -> Endpoint:
    return Endpoint(
        host="127.0.0.1", port=port, protocol="kserve", model="m", binary=False,
        inputs=(Tensor("x", "FP32", (4,)),), outputs=(Tensor("y", "FP32", (3,)),),
    )  # fmt: skip


def plan(port: int, rate: float = 200, seconds: float = 1.0, **changed: Any) -> Plan:
    """Constant arrivals, unless changed."""
    fields: dict[str, Any] = {
        "endpoint": endpoint(port),
        "requests": (RequestPlan("infer"),),
        "arrivals": "constant",
        "phases": (Phase(rate, rate, round(seconds * SECOND)),),
        "drain_ns": 2 * SECOND,
        "limit_ns": 100 * MS,
    }
    return Plan(**{**fields, **changed})


class Done(NamedTuple):
    """What a run told."""

    started: Started
    windows: list[Window]
    finished: Finished

    @property
    def recorded(self) -> list[Window]:
        return [window for window in self.windows if window.stage != "warmup"]

    def sum(self, field: str) -> int:
        return sum(getattr(window, field) for window in self.recorded)

    @property
    def failed(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for window in self.recorded:
            for failure, number in window.failed.items():
                total[failure] = total.get(failure, 0) + number
        return total

    @property
    def examples(self) -> dict[str, Example]:
        """The first of each kind of failure; each is told once."""
        found = [(k, v) for window in self.recorded for k, v in window.examples.items()]
        assert len(found) == len(dict(found))
        return dict(found)

    @property
    def latency(self) -> Histogram:
        return Histogram.merged(window.latency for window in self.recorded)

    def check(self) -> None:
        """The identity at the end of every window, and windows without gaps."""
        seconds = [window.second for window in self.windows]
        assert seconds == list(range(seconds[0], seconds[0] + len(seconds)))
        asked = sent = unsent = done = failed = lost = 0
        for window in self.recorded:
            asked += window.asked
            sent += window.sent
            unsent += window.unsent
            done += window.done
            failed += sum(window.failed.values())
            lost += window.lost
            assert asked == sent + unsent + window.waiting, window
            assert sent == done + failed + lost + window.in_flight, window
            assert window.latency.count == window.done
        if self.recorded:
            assert self.recorded[-1].waiting == 0
            assert self.recorded[-1].in_flight == self.finished.unfinished


def drive(wanted: Plan, after: Sequence[tuple[float, str | Callable[[Lane], None]]] = ()) -> Done:
    """A run in this process; `after` are commands with the seconds after which they come."""
    windows: list[Window] = []
    lane = Lane(make_ready(wanted), windows.append)
    origin = time.monotonic_ns() + wanted.warmup_ns + 5 * MS
    lane.begin(origin)
    commands = [(origin + round(seconds * SECOND), command) for seconds, command in after]
    while not lane.over:
        select.select([lane.fileno()], [], [], 0.001)
        lane.turn()
        while commands and commands[0][0] <= time.monotonic_ns() and not lane.over:
            command = commands.pop(0)[1]
            command(lane) if callable(command) else getattr(lane, command)()
    return Done(Started(origin), windows, lane.finished())


class Process:
    """A load process with its pipes."""

    def __init__(self, first: bytes) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "loadbench.load"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.say(first)

    def say(self, line: bytes) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(line + b"\n")
        self.popen.stdin.flush()

    def command(self, command: Command) -> None:
        self.say(encode(command))

    def next(self) -> Message | None:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        found: Message | None = decode(Message, line) if line else None  # type: ignore[arg-type]
        return found

    def rest(self) -> list[Message]:
        return list(iter(self.next, None))


@contextmanager
def process(first: bytes) -> Iterator[Process]:
    running = Process(first)
    with running.popen:
        try:
            yield running
        finally:
            running.popen.kill()


def run_process(wanted: Plan, during: Callable[[Process, Started], None]) -> Done:
    """A run in a process of its own; `during` is called when it has started."""
    with process(encode(wanted)) as running:
        started = running.next()
        assert isinstance(started, Started), started
        during(running, started)
        *windows, finished = running.rest()
        assert isinstance(finished, Finished)
        assert running.popen.wait(5) == 0
    return Done(started, [found for found in windows if isinstance(found, Window)], finished)


__all__ = ["Broken", "Done", "Known", "Process", "drive", "known_server", "plan", "run_process"]
