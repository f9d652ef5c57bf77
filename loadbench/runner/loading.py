"""The load process from the runner's side: its plan goes in, its messages come out."""

import queue
from collections.abc import Callable
from pathlib import Path

import msgspec

from loadbench.errors import RunError, SpecError, TargetError
from loadbench.model import Note, Window, decode, encode
from loadbench.plan import Broken, Command, Finished, Message, Noted, Plan, Started, Waiting
from loadbench.runner.children import Child
from loadbench.shape import Phase
from loadbench.targets.region import sweep
from loadbench.units import SECOND, duration, significant

_START_S = 60.0


class Loading:
    """A load process that has begun. `origin` is the moment of its second 0; `length_ns` and
    `target` are what a journey says of itself. `meet`, of a plan that waits, is called when all is
    ready and gives the moment to begin at."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        say: Callable[[str], None],
        meet: Callable[[], int] | None = None,
    ) -> None:
        sweep()  # of a run that was killed with all its processes
        self._child = Child("load generator", ["loadbench.load"], folder / "load.log")
        self._child.say(encode(plan))
        try:
            wait_ns = plan.workers.wait_ns if plan.workers else 0
            first = self.next(_START_S + wait_ns / SECOND)
            while isinstance(first, Noted):
                say(first.note.text)
                first = self.next(_START_S + wait_ns / SECOND)
            if isinstance(first, Waiting) and meet:
                self.say(Command("begin", at=meet()))
                first = self.next(_START_S)
            if not isinstance(first, Started):
                raise RunError("the load generator did not start", f"see {self._child.log}")
        except BaseException:  # a signal too: it may be about to share memory with the server
            slow = plan.workers or plan.waits  # it ends its workers first, or gives memory back
            self.stop(2.0 if slow else 0.5)
            raise
        self.origin = first.origin
        self.notes = first.notes
        self.pids = first.pids
        self.length_ns = first.length_ns
        self.target = first.target

    @property
    def pid(self) -> int:
        return self._child.pid

    def next(self, wait_s: float) -> Message | None:
        """The next message; None if none came in this time. Raises its error if it broke."""
        try:
            line = self._child.lines.get(timeout=wait_s)
        except queue.Empty:
            return None
        if line is None:
            raise self._child.error()
        try:
            message: Message = decode(Message, line)  # type: ignore[arg-type]
        except msgspec.MsgspecError as error:
            raise RunError(f"the load generator said what is no message: {error}") from error
        if isinstance(message, Broken):
            kinds = {2: SpecError, 3: TargetError}
            raise kinds.get(message.exit_code, RunError)(message.message, message.hint)
        return message

    def say(self, command: Command) -> bool:
        return self._child.say(encode(command))

    def stop(self, grace_s: float = 2.0) -> None:
        self._child.stop(grace_s)
        if (self._child.ended() or 0) < 0:
            sweep()


def capacity(plan: Plan, folder: Path) -> float:
    """Requests per second that a closed loop gets done: a short unrecorded run of its own."""
    loading = Loading(plan, folder, lambda _: None)
    done, length = 0, 0
    try:
        while True:
            message = loading.next(plan.timeout_ns / SECOND + 5)
            if message is None:
                raise RunError("the calibration stood still", "see load.log in the run's folder")
            if isinstance(message, Finished):
                break
            if isinstance(message, Window) and message.stage == "load":
                done, length = done + message.done, length + 1
    finally:
        loading.stop()
    if not done:
        raise TargetError("the calibration got no answer from the target", "is the model healthy?")
    return done / length


def calibrated(
    plan: Plan,
    size: tuple[int, int],
    folder: Path,
    say: Callable[[str], None],
    known: float | None = None,
) -> tuple[float, Note]:
    """What 100 % means here: a closed loop of so many ns with so many requests in flight, twice the
    largest batch. `known` is what it is to mean, if that was found before: then the loop is made
    all the same, so that the target has been through what it had been through there."""
    length, width = size
    say(f"calibrating for {duration(length)} with {width} requests in flight")
    closed = msgspec.structs.replace(
        plan,
        arrivals="closed",
        concurrency=width,
        phases=(Phase(0, 0, length),),
        warmup_ns=SECOND,
        drain_ns=plan.timeout_ns,
    )
    found = capacity(closed, folder)
    text = (
        f"calibrated: {significant(found)}/s get done here "
        f"({duration(length)}, {width} in flight); rates in % are of "
    )
    text += "that" if known is None else f"{significant(known)}/s, found before"
    say(text)
    return known or found, Note("calibrated", text, "give rates per second to compare machines")
