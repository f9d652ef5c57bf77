"""One worker, as the master of a load knows it."""

from typing import Literal

from msgspec.structs import replace

from loadbench.load.clock import Clock
from loadbench.load.link import LEASE, Hello
from loadbench.model import Note, Window
from loadbench.plan import Share

# joining: makes its inputs ready; ready: could begin; beginning: was told to, late in the run;
# running: has a share; leaving: has none any more, and finishes what is under way
State = Literal["joining", "ready", "beginning", "running", "leaving", "finished", "gone"]
_EXCHANGES = 5  # before a clock that is not ours is taken for known


class Member:
    """`worker` is its name on the link, `name` what people read. Moments are in ns of the master's
    clock."""

    def __init__(self, worker: str, number: int, hello: Hello, here: bool, same: bool) -> None:
        self.worker = worker
        where = "" if here else f"{hello.host}, "
        self.name = f"worker {number} ({where}pid {hello.pid})"
        self.number = number
        self.token = hello.token
        self.pid = hello.pid
        self.here = here  # started by the master
        self.clock = Clock(same)
        self.state: State = "joining"
        self.heard = 0  # when it last said anything
        self.acked = 0  # when a beat of it was last acknowledged
        self.deals: list[tuple[int, Share | None]] = []  # from when on which share
        self.since = 0  # from when on it tells, if it joined late
        self.notes: tuple[Note, ...] = ()
        self.prepared = False
        self._exchanges = 0

    @property
    def live(self) -> bool:
        """It tells windows."""
        return self.state in ("running", "leaving")

    def beat(self, heard: int, heard_at: int, sent: int, now: int) -> None:
        self.acked = now
        if heard:
            self._exchanges += 1
            self.clock.take(heard, heard_at, sent, now)

    @property
    def ready(self) -> bool:
        """It could begin, and what moments mean there is known."""
        return self.prepared and (self.clock.same or self._exchanges >= _EXCHANGES)

    @property
    def leased(self) -> int:
        """Until when it may send by what it was told."""
        return self.acked + LEASE

    def moved(self, window: Window) -> Window:
        """A window of its own, with the stamps of its samples in the master's time."""
        here = self.clock.here
        if not self.clock.offset:
            return window
        slowest = tuple(
            replace(
                sample,
                due=here(sample.due),
                begun=here(sample.begun),
                sent=here(sample.sent),
                done=here(sample.done),
                first=None if sample.first is None else here(sample.first),
            )
            for sample in window.slowest
        )
        return replace(window, slowest=slowest)
