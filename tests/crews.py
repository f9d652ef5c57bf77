"""Loads of several processes for tests: a master with workers, as the runner starts it, workers
that join from elsewhere, and a server whose own count is the truth."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from loadbench.model import Note, Window, encode
from loadbench.plan import Broken, Finished, Message, Noted, Plan, Started
from loadbench.units import SECOND
from tests.lanes import Done, Process, process


class Crew:
    """A master that runs. `pids` are the workers it started, in their order."""

    def __init__(self, load: Process) -> None:
        self.load = load
        self.messages: list[Message] = []
        self.started: Started | None = None

    def next(self) -> Message | None:
        message = self.load.next()
        if message is not None:
            self.messages.append(message)
        if isinstance(message, Started):
            self.started = message
        return message

    def until(self, true: Callable[[Message], bool]) -> Message:
        """Reads on to the first message that is so."""
        while (message := self.next()) is not None:
            if true(message):
                return message
        raise AssertionError(f"it ended before: {self.messages[-3:]}")

    def until_second(self, second: int) -> None:
        """Reads on until this second has been told."""
        self.until(lambda m: isinstance(m, Window) and m.second >= second)

    def rest(self) -> Message:
        """Reads to the end; the last message."""
        while self.next() is not None:
            pass
        return self.messages[-1]

    @property
    def pids(self) -> list[int]:
        assert self.started is not None
        return [self.started.pids[name] for name in sorted(self.started.pids)]

    @property
    def windows(self) -> list[Window]:
        return [message for message in self.messages if isinstance(message, Window)]

    @property
    def notes(self) -> dict[str, Note]:
        return {m.note.code: m.note for m in self.messages if isinstance(m, Noted)}

    def done(self) -> Done:
        """The whole run, its identity looked at."""
        finished = self.messages[-1] if isinstance(self.messages[-1], Finished) else self.rest()
        assert isinstance(finished, Finished), finished
        assert self.started is not None
        found = Done(self.started, self.windows, finished)
        found.check()
        return found

    def sum(self, field: str) -> int:
        """Over all windows, warm-up too."""
        return sum(getattr(window, field) for window in self.windows)


@contextmanager
def crew(wanted: Plan) -> Iterator[Crew]:
    """A master, begun; ended with the block."""
    with process(encode(wanted)) as load:
        found = Crew(load)
        found.until(lambda m: isinstance(m, Started | Broken))
        yield found


def worker(port: int, *prefix: str, host: str = "127.0.0.1") -> "subprocess.Popen[bytes]":
    """`loadbench worker` of its own, started by `prefix` if that is something."""
    command = ["-m", "loadbench", "worker", "--master", f"{host}:{port}", "--wait", "20s"]
    return subprocess.Popen(
        [*prefix, sys.executable, *command], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_gone(pids: Sequence[int], limit_s: float = 8.0) -> None:
    end = time.monotonic() + limit_s
    while any(map(alive, pids)):
        assert time.monotonic() < end, "they still run"
        time.sleep(0.02)


def wait_until(moment: int) -> None:
    time.sleep(max(0, moment - time.monotonic_ns()) / SECOND)


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port
